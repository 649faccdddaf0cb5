//! Asks the DNS, and waits: mail exchangers, addresses, the name of a client.
//!
//! The only file that knows the resolver and the runtime it needs. One thread,
//! "dns", runs all look-ups side by side; it starts with the first one, when
//! resolv.conf(5) and hosts(5) are read too, once; it sleeps while there is nothing
//! to ask, and ends with its [`Dns`]. Every look-up ends within `dns.timeout`, whatever the servers do.
//! Answers are cached for as long as they allow. They come from strangers: names
//! are checked, addresses that are no host's are dropped, and so is everything
//! beyond [`MAX_EXCHANGERS`] and [`MAX_ADDRESSES`].
//!
//! /etc/hosts comes before the DNS for addresses and for names of addresses (people
//! write `smtp://mailhub`), never for mail exchangers. Names are complete: the
//! search list of resolv.conf(5) is for people at a prompt. Does not decide what a
//! missing answer means for mail: see [`crate::outcome`]. DNSSEC (the AD bit, TLSA)
//! will have its place beside [`Dns::mx`].

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;
use trust_dns_resolver::TokioResolver;
use trust_dns_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use trust_dns_resolver::lookup::Lookup;
use trust_dns_resolver::net::runtime::TokioRuntimeProvider;
use trust_dns_resolver::net::{DnsError, NetError};
use trust_dns_resolver::proto::op::ResponseCode;
use trust_dns_resolver::proto::rr::{Name, RData, Record, RecordType};
use trust_dns_resolver::system_conf::read_system_conf;

use crate::address::parse_domain;
use crate::config;
use crate::outcome::NoAnswer;

/// How many mail exchangers of a domain are kept, the preferred ones first.
pub const MAX_EXCHANGERS: usize = 100;
/// How many addresses of a host are kept, of each family.
pub const MAX_ADDRESSES: usize = 25;

/// How many names of an address are tried for one that leads back to it.
const MAX_NAMES: usize = 3;
/// How often a server is asked within the time: datagrams get lost.
const TRIES: u32 = 3;

/// The resolver. Cheap until it is asked.
#[derive(Debug)]
pub struct Dns {
    settings: config::Dns,
    /// Guards the start: two first look-ups at once must not start two threads.
    running: Mutex<Option<Running>>,
}

#[derive(Debug, Clone)]
struct Running {
    resolver: TokioResolver,
    runtime: Handle,
    /// Who is asked, in words.
    asked: Arc<str>,
    /// Ends the thread.
    life: AbortHandle,
}

/// A question on its way.
struct Asked {
    answer: Receiver<Result<Vec<Record>, NoAnswer>>,
    until: Instant,
}

impl Dns {
    /// A resolver that asks whom `settings` say. Nothing is read or started yet.
    pub fn new(settings: &config::Dns) -> Self {
        Self { settings: settings.clone(), running: Mutex::new(None) }
    }

    /// The mail exchangers of `domain`: preference and name, the smallest first. The
    /// root, in a null MX (RFC 7505), is `.`. Names that no host can have are
    /// dropped, so the list may be empty although there are records.
    ///
    /// # Errors
    /// `NoData` when the domain has no such record, and every other [`NoAnswer`].
    pub fn mx(&self, domain: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        let records = self.ask(domain, RecordType::MX, self.deadline())?.wait()?;
        let mut found: Vec<_> = records.iter().filter_map(exchanger).collect();
        found.sort();
        found.dedup();
        found.truncate(MAX_EXCHANGERS);
        Ok(found)
    }

    /// The addresses of `host`, never none: IPv6 and IPv4 by turns, as RFC 8305 4
    /// has it, so that a family that goes nowhere costs one attempt.
    ///
    /// # Errors
    /// A [`NoAnswer`]. While either family could not be found out, it is not
    /// `NxDomain` or `NoData`.
    pub fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NoAnswer> {
        if host == "localhost" || host.ends_with(".localhost") {
            return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        self.addresses_by(host, self.deadline())
    }

    /// The name of a client: one that its address has and that leads back to it,
    /// `localhost` for a loopback address, `None` if there is none or it cannot be
    /// found out in time.
    pub fn verified_name(&self, address: IpAddr) -> Option<String> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return Some("localhost".into());
        }
        let until = self.deadline();
        let records = self.ask(&Name::from(address).to_ascii(), RecordType::PTR, until).ok()?.wait().ok()?;
        let names = records.iter().filter_map(|record| match &record.data {
            RData::PTR(name) => host_name(&name.0),
            _ => None,
        });
        names.take(MAX_NAMES).find(|name| self.addresses_by(name, until).is_ok_and(|found| found.contains(&address)))
    }

    fn addresses_by(&self, host: &str, until: Instant) -> Result<Vec<IpAddr>, NoAnswer> {
        let (six, four) = (self.ask(host, RecordType::AAAA, until)?, self.ask(host, RecordType::A, until)?);
        let (six, four) = (six.wait().and_then(addresses), four.wait().and_then(addresses));
        match (six, four) {
            (Err(NoAnswer::NxDomain), Err(NoAnswer::NxDomain)) => Err(NoAnswer::NxDomain),
            (Err(trouble), Err(NoAnswer::NxDomain | NoAnswer::NoData)) => Err(trouble),
            (Err(_), Err(trouble)) => Err(trouble),
            (six, four) => Ok(by_turns(six.unwrap_or_default(), four.unwrap_or_default())),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout
    }

    /// Sends a question; the answer has records of `kind` only, at least one.
    fn ask(&self, name: &str, kind: RecordType, until: Instant) -> Result<Asked, NoAnswer> {
        // An arpa name has a dot at its end, and any name may.
        let text = name.strip_suffix('.').unwrap_or(name);
        let mut name = parse_domain(text).ok().and_then(|d| Name::from_ascii(d).ok()).ok_or(NoAnswer::BadName)?;
        name.set_fqdn(true);
        let running = self.running()?;
        let (sender, answer) = sync_channel(1);
        running.runtime.spawn(async move {
            let left = until.saturating_duration_since(Instant::now());
            let found = tokio::time::timeout(left, running.resolver.lookup(name, kind)).await;
            let result = found.unwrap_or(Err(NetError::Timeout));
            let result = result.map_err(|e| classify(e, &running.asked)).and_then(|found| records_of(kind, &found));
            // Nobody waits any more: nothing to say.
            let _ = sender.send(result);
        });
        Ok(Asked { answer, until })
    }

    fn running(&self) -> Result<Running, NoAnswer> {
        // Whoever panicked with it left either nothing or a whole value.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match &*running {
            Some(running) => Ok(running.clone()),
            None => Ok(running.insert(start(&self.settings).map_err(NoAnswer::Other)?).clone()),
        }
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        if let Some(running) = self.running.get_mut().unwrap_or_else(PoisonError::into_inner) {
            running.life.abort();
        }
    }
}

impl Asked {
    fn wait(self) -> Result<Vec<Record>, NoAnswer> {
        // The resolver keeps the time itself; this is for a thread that is gone or late.
        let left = self.until.saturating_duration_since(Instant::now()) + Duration::from_millis(500);
        self.answer.recv_timeout(left).unwrap_or(Err(NoAnswer::Timeout))
    }
}

fn start(settings: &config::Dns) -> Result<Running, String> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(|e| e.to_string())?;
    let handle = runtime.handle().clone();
    let servers = servers(&settings.nameservers);
    let asked = in_words(&servers);
    let resolver = {
        let _inside = handle.enter();
        TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
            .with_options(options(settings.timeout))
            .build()
            .map_err(|e| e.to_string())?
    };
    // A task that does nothing holds the runtime until it is aborted.
    let task = runtime.spawn(pending::<()>());
    let life = task.abort_handle();
    let thread = std::thread::Builder::new().name("dns".into());
    thread.spawn(move || drop(runtime.block_on(task))).map_err(|e| e.to_string())?;
    Ok(Running { resolver, runtime: handle, asked, life })
}

fn servers(given: &[SocketAddr]) -> ResolverConfig {
    let server = |address: &SocketAddr| {
        let connection = |protocol| {
            let mut connection = ConnectionConfig::new(protocol);
            connection.port = address.port();
            connection
        };
        let both = vec![connection(ProtocolConfig::Udp), connection(ProtocolConfig::Tcp)];
        // True: when the first server says that a name does not exist, that is so.
        NameServerConfig::new(address.ip(), true, both)
    };
    let system = || read_system_conf().ok().map(|(config, _)| config.name_servers().to_vec());
    let listed = if given.is_empty() { system() } else { Some(given.iter().map(server).collect()) };
    // Without a usable file, "the name server on the local machine", resolv.conf(5).
    let local = || vec![server(&SocketAddr::from((Ipv4Addr::LOCALHOST, 53)))];
    ResolverConfig::from_name_servers(listed.unwrap_or_else(local))
}

/// The addresses of the servers, with a port that is not the usual one.
fn in_words(servers: &ResolverConfig) -> Arc<str> {
    let address = |server: &NameServerConfig| match server.connections.first().map(|connection| connection.port) {
        Some(port) if port != 53 => SocketAddr::new(server.ip, port).to_string(),
        _ => server.ip.to_string(),
    };
    servers.name_servers().iter().map(address).collect::<Vec<_>>().join(", ").into()
}

fn options(timeout: Duration) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = timeout / TRIES;
    options.attempts = TRIES as usize - 1;
    options.use_hosts_file = ResolveHosts::Always;
    options.cache_size = 4096;
    options.max_active_requests = 256;
    // A domain that was just registered must not seem absent for a day.
    options.negative_max_ttl = Some(Duration::from_secs(300));
    options
}

/// What was asked for, without the aliases on the way there.
fn records_of(kind: RecordType, found: &Lookup) -> Result<Vec<Record>, NoAnswer> {
    let records: Vec<_> = found.answers().iter().filter(|r| r.record_type() == kind).cloned().collect();
    match found.message().metadata.response_code {
        _ if !records.is_empty() => Ok(records),
        // An alias that leads nowhere is an answer to the resolver.
        ResponseCode::NXDomain => Err(NoAnswer::NxDomain),
        _ => Err(NoAnswer::NoData),
    }
}

fn classify(error: NetError, asked: &str) -> NoAnswer {
    match error {
        NetError::NoConnections => NoAnswer::Other(format!("no name server could be reached ({asked})")),
        NetError::Timeout => NoAnswer::Timeout,
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => NoAnswer::NxDomain,
            ResponseCode::NoError => NoAnswer::NoData,
            ResponseCode::Refused => NoAnswer::Refused,
            _ => NoAnswer::ServFail,
        },
        NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => NoAnswer::ServFail,
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => NoAnswer::Refused,
        other => NoAnswer::Other(other.to_string().replace(char::is_control, "?")),
    }
}

fn exchanger(record: &Record) -> Option<(u16, String)> {
    match &record.data {
        RData::MX(mx) if mx.exchange.is_root() => Some((mx.preference, ".".into())),
        RData::MX(mx) => Some((mx.preference, host_name(&mx.exchange)?)),
        _ => None,
    }
}

/// The text of a name, if a host may have it.
fn host_name(name: &Name) -> Option<String> {
    let text = name.to_ascii();
    parse_domain(text.strip_suffix('.').unwrap_or(&text)).ok().map(Into::into)
}

fn addresses(records: Vec<Record>) -> Result<Vec<IpAddr>, NoAnswer> {
    let address = |record: &Record| match record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    };
    let found: Vec<_> = records.iter().filter_map(address).filter(|a| is_a_hosts(*a)).take(MAX_ADDRESSES).collect();
    if found.is_empty() { Err(NoAnswer::NoData) } else { Ok(found) }
}

/// Whether an address can be another host's: 0.0.0.0 would lead to this one under
/// another name.
pub fn is_a_hosts(address: IpAddr) -> bool {
    let address = address.to_canonical();
    !(address.is_unspecified() || address.is_multicast() || address == Ipv4Addr::BROADCAST)
}

fn by_turns(first: Vec<IpAddr>, second: Vec<IpAddr>) -> Vec<IpAddr> {
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = Vec::new();
    loop {
        let (a, b) = (first.next(), second.next());
        if a.is_none() && b.is_none() {
            return all;
        }
        all.extend(a.into_iter().chain(b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_server_it_is_said_whom_we_looked_for() {
        let asked = |servers: &[&str]| {
            let servers: Vec<SocketAddr> = servers.iter().map(|text| text.parse().expect("an address")).collect();
            match classify(NetError::NoConnections, &in_words(&super::servers(&servers))) {
                NoAnswer::Other(text) => text,
                other => panic!("{other:?}"),
            }
        };
        let says = |who| format!("no name server could be reached ({who})");
        assert_eq!(asked(&["192.0.2.53:53", "127.0.0.1:5353"]), says("192.0.2.53, 127.0.0.1:5353"));
        assert_eq!(asked(&["[2001:db8::1]:53"]), says("2001:db8::1"));
    }
}
