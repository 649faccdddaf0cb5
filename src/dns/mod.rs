//! Does blocking DNS look-ups for the whole program: mail exchangers, addresses, the name of a
//! client, and the records that checks of strangers' mail need.
//!
//! This is the only folder that uses the resolver library and its runtime. One thread, "dns", runs
//! all look-ups concurrently. The thread starts with the first look-up, sleeps while there is no
//! look-up, and ends when the [`Dns`] is dropped. Every look-up ends within `dns.timeout`, whatever
//! the servers do. Answers are untrusted: names are checked, and all records beyond a maximum
//! number are dropped. [`Dns::addresses`], which finds the addresses to send mail to, also drops
//! unusable addresses.
//!
//! resolv.conf(5) and hosts(5) are read with the first look-up and again when they have changed.
//! For addresses and for the names of addresses, hosts(5) takes precedence over the DNS, so that a
//! smart host such as `smtp://mailhub` can be listed there. For everything else only the DNS is
//! used. Names are absolute: the search list of resolv.conf(5) is not used. What a missing answer
//! means for a message is decided in [`crate::outcome`].
//!
//! - `answer`: the data of an answer, checked and bounded
//! - `begun`: look-ups of one type, which begin now and are awaited later
//! - `cache`: answers kept for their lifetime
//! - `domain`: whether mail could be sent to a domain
//! - `kept`: TXT records in the cache, which hosts keep for each other
//! - `lookup`: the look-ups of one check, with a common deadline
//! - `public`: whether an address is public
//! - `secure`: look-ups that say whether their answers are secure
//! - `servers`: which name server is asked when, with or without EDNS
//! - `system`: resolv.conf(5) and hosts(5)

mod answer;
mod begun;
mod cache;
mod domain;
mod kept;
pub mod lookup;
mod public;
mod secure;
mod servers;
mod system;

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;
use trust_dns_resolver::proto::rr::{Name, RecordType};

use crate::address::parse_domain;
use crate::config;
use crate::outcome::NoAnswer;

use answer::{Datum, Found};
use cache::Cache;
use servers::Servers;
use system::{Hosts, System};

pub use answer::is_usable;
pub use begun::Begun;
pub use domain::{BegunDomain, MailDomain};
pub use public::{is_documentation, is_public};
pub use secure::{Answered, Association};

/// The maximum number of mail exchangers kept for a domain, the preferred ones first.
pub const MAX_EXCHANGERS: usize = 100;
/// The maximum number of IPv4 addresses, and of IPv6 addresses, kept for a host.
pub const MAX_ADDRESSES: usize = 25;

/// The maximum number of names kept for an address.
pub const MAX_NAMES: usize = 10;
/// The maximum number of TXT records kept for a name.
pub const MAX_TEXTS: usize = 300;
/// The maximum number of TLSA records kept for a name.
pub const MAX_ASSOCIATIONS: usize = 100;

/// If an address has several names, at most this number of them is verified.
const MAX_VERIFIED_NAMES: usize = 3;

/// The resolver. It starts with the first look-up.
#[derive(Debug)]
pub struct Dns {
    settings: config::Dns,
    /// The lock is held while the resolver starts, and while resolv.conf(5) and hosts(5) are
    /// checked for changes, but never during a look-up.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    system: System,
    running: Option<Running>,
}

/// The parts of the resolver that a look-up needs.
#[derive(Debug, Clone)]
struct Running {
    runtime: Handle,
    /// A task that keeps the thread running: aborting the task ends the thread.
    life: AbortHandle,
    servers: Arc<Servers>,
    hosts: Arc<Hosts>,
    /// The cache of the answers of these servers.
    cache: Arc<Cache>,
}

/// A look-up under way, or its result from the cache.
enum Pending {
    Waiting(Receiver<Found>, Instant),
    Known(Found),
}

impl Dns {
    /// A resolver with `settings`. Nothing is read or started yet.
    pub fn new(settings: &config::Dns) -> Self {
        Self::of(settings, System::new())
    }

    fn of(settings: &config::Dns, system: System) -> Self {
        Self { settings: settings.clone(), state: Mutex::new(State { system, running: None }) }
    }

    /// The name servers that the next look-up asks.
    pub fn servers_in_use(&self) -> Vec<SocketAddr> {
        if !self.settings.nameservers.is_empty() {
            return self.settings.nameservers.clone();
        }
        let mut system = System::new();
        system.check();
        system.servers()
    }

    /// The mail exchangers of `domain`, with their preferences, lowest preference first. The name
    /// in a null MX (RFC 7505) is `.`. Names that no host can have are dropped, so the list may be
    /// empty although there are records.
    ///
    /// # Errors
    /// A [`NoAnswer`]; `NoData` means that the domain has no MX record.
    pub fn mx(&self, domain: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        self.exchangers(domain, false).map(|answer| answer.data)
    }

    /// The addresses of `host`, at least one: IPv6 and IPv4 alternate (RFC 8305 4), so that an
    /// unreachable family costs one attempt.
    ///
    /// # Errors
    /// A [`NoAnswer`]. If the look-up of either family failed, the error is neither `NxDomain` nor
    /// `NoData`.
    pub fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NoAnswer> {
        if is_localhost(host) {
            return Ok(loopback());
        }
        addresses_by(&self.running()?, host, self.deadline())
    }

    /// Returns a name of the address that leads back to the address, or `localhost` for a loopback
    /// address. Returns `None` if there is no such name or the look-ups fail.
    pub fn verified_name(&self, address: IpAddr) -> Option<String> {
        self.verified_name_until(address, self.deadline()).unwrap_or(None)
    }

    /// Looks up a name of the address as [`Dns::verified_name`] does, but ends at `until` at the
    /// latest.
    ///
    /// # Errors
    /// A [`NoAnswer`], if it is unknown whether there is such a name, because a look-up failed.
    pub fn verified_name_until(&self, address: IpAddr, until: Instant) -> Result<Option<String>, NoAnswer> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return Ok(Some("localhost".into()));
        }
        let (running, until) = (self.running()?, until.min(self.deadline()));
        let listed = running.hosts.names(address);
        let names = if listed.is_empty() {
            let name = Name::from(address).to_ascii();
            let found = match ask(&running, &name, RecordType::PTR, until, false)?.wait() {
                Err(NoAnswer::NxDomain | NoAnswer::NoData) => return Ok(None),
                found => found?,
            };
            let name = |datum: &Datum| match datum {
                Datum::Name(name) => Some(name.clone()),
                _ => None,
            };
            found.list.iter().filter_map(name).take(MAX_VERIFIED_NAMES).collect()
        } else {
            listed
        };
        let mut trouble = None;
        for name in names {
            match addresses_by(&running, &name, until) {
                Ok(all) if all.contains(&address) => return Ok(Some(name.into())),
                Ok(_) | Err(NoAnswer::NxDomain | NoAnswer::NoData | NoAnswer::BadName) => {}
                Err(failure) => trouble = Some(failure),
            }
        }
        trouble.map_or(Ok(None), Err)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout
    }

    /// The running resolver, with the current contents of resolv.conf(5) and hosts(5).
    fn running(&self) -> Result<Running, NoAnswer> {
        // If a thread has panicked with the lock held, the state is consistent all the same.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { system, running } = &mut *state;
        let changed = system.check();
        if let Some(running) = running {
            if changed.hosts {
                running.hosts = system.hosts();
            }
            if changed.servers && self.settings.nameservers.is_empty() {
                let listed = system.servers();
                ::log::info!(
                    "{} has changed: names are asked from {}",
                    system.path().display(),
                    servers::names(&listed)
                );
                // In another network the answers may differ, so the cache is emptied, too.
                running.servers = Arc::new(self.servers(&running.runtime, &listed));
                running.cache = Arc::default();
            }
            return Ok(running.clone());
        }
        let (runtime, life) = start().map_err(NoAnswer::Other)?;
        let servers = Arc::new(self.servers(&runtime, &system.servers()));
        Ok(running.insert(Running { runtime, life, servers, hosts: system.hosts(), cache: Arc::default() }).clone())
    }

    fn servers(&self, runtime: &Handle, system: &[SocketAddr]) -> Servers {
        let configured = self.settings.nameservers.as_slice();
        let _inside = runtime.enter();
        let addresses = if configured.is_empty() { system } else { configured };
        Servers::new(addresses, self.settings.timeout, self.settings.trusts(addresses))
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        if let Some(running) = &self.state.get_mut().unwrap_or_else(PoisonError::into_inner).running {
            running.life.abort();
        }
    }
}

impl Pending {
    fn wait(self) -> Found {
        match self {
            Self::Known(found) => found,
            Self::Waiting(answer, until) => {
                // The look-up has its own timeout. The timeout here is later by half a second, and
                // applies only if the dns thread has ended or is late.
                let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(500);
                answer.recv_timeout(left).unwrap_or(Err(NoAnswer::Timeout))
            }
        }
    }
}

/// Starts the thread and its runtime.
fn start() -> Result<(Handle, AbortHandle), String> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(|e| e.to_string())?;
    let handle = runtime.handle().clone();
    // The runtime runs until this task, which never completes, is aborted.
    let task = runtime.spawn(pending::<()>());
    let life = task.abort_handle();
    let thread = std::thread::Builder::new().name("dns".into());
    thread.spawn(move || drop(runtime.block_on(task))).map_err(|e| e.to_string())?;
    Ok((handle, life))
}

/// Begins a look-up. All data in its result are of type `kind`; there may be no data.
fn ask(running: &Running, name: &str, kind: RecordType, until: Instant, dnssec: bool) -> Result<Pending, NoAnswer> {
    // The name for an address, such as `1.2.0.192.in-addr.arpa.`, ends in a dot, and other names
    // may.
    let text = parse_domain(name.strip_suffix('.').unwrap_or(name)).map_err(|_| NoAnswer::BadName)?;
    let mut name = Name::from_ascii(&text).map_err(|_| NoAnswer::BadName)?;
    name.set_fqdn(true);
    ask_for(running, text, name, kind, until, dnssec)
}

/// Begins a look-up of a name that has been checked. `text` is the name in lower case without the
/// final dot. With `dnssec`, the data say whether they are secure, if the servers are trusted.
fn ask_for(
    running: &Running,
    text: Box<str>,
    name: Name,
    kind: RecordType,
    until: Instant,
    dnssec: bool,
) -> Result<Pending, NoAnswer> {
    let dnssec = dnssec && running.servers.is_trusted();
    if let Some(answer) = special_name(&text) {
        return Err(answer);
    }
    if let Some(found) = running.cache.find(&text, kind, dnssec) {
        return Ok(Pending::Known(found));
    }
    let (sender, answer) = sync_channel(1);
    let (servers, cache) = (Arc::clone(&running.servers), Arc::clone(&running.cache));
    running.runtime.spawn(async move {
        let (found, lifetime) = servers.look_up(name, kind, dnssec, until).await;
        cache.keep(&text, kind, dnssec, &found, lifetime);
        // The caller may have stopped waiting.
        let _ = sender.send(found);
    });
    Ok(Pending::Waiting(answer, until))
}

/// The answer for a special-use name (RFC 6761, RFC 7686), for which no server is asked.
fn special_name(name: &str) -> Option<NoAnswer> {
    let top = name.rsplit('.').next().unwrap_or_default();
    match top {
        "invalid" | "onion" => Some(NoAnswer::NxDomain),
        _ if is_localhost(name) => Some(NoAnswer::NoData),
        _ => None,
    }
}

fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

fn loopback() -> Vec<IpAddr> {
    vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]
}

fn addresses_by(running: &Running, host: &str, until: Instant) -> Result<Vec<IpAddr>, NoAnswer> {
    Pair::ask(running, host, until, false)?.wait().map(|answer| answer.data)
}

/// The addresses of a host if they are known already, or the look-ups for IPv6 and IPv4.
enum Pair {
    Known(Vec<IpAddr>),
    Waiting(Pending, Pending),
}

impl Pair {
    fn ask(running: &Running, host: &str, until: Instant, dnssec: bool) -> Result<Self, NoAnswer> {
        if is_localhost(host) {
            return Ok(Self::Known(loopback()));
        }
        let listed = running.hosts.addresses(host);
        if !listed.is_empty() {
            let (six, four) = listed.into_iter().partition(IpAddr::is_ipv6);
            return Ok(Self::Known(alternate(six, four)));
        }
        let ask = |kind| ask(running, host, kind, until, dnssec);
        Ok(Self::Waiting(ask(RecordType::AAAA)?, ask(RecordType::A)?))
    }

    fn wait(self) -> Result<Answered<Vec<IpAddr>>, NoAnswer> {
        let (six, four) = match self {
            Self::Known(found) => return usable(found).map(Answered::insecure),
            Self::Waiting(six, four) => (addresses(six), addresses(four)),
        };
        match (six, four) {
            (Err(NoAnswer::NxDomain), Err(NoAnswer::NxDomain)) => Err(NoAnswer::NxDomain),
            (Err(trouble), Err(NoAnswer::NxDomain | NoAnswer::NoData)) => Err(trouble),
            (Err(_), Err(trouble)) => Err(trouble),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Ok(six), Ok(four)) => Ok(Answered {
                // Both answers must lead through the same aliases.
                is_secure: six.is_secure && four.is_secure && six.alias_of == four.alias_of,
                alias_of: six.alias_of.or(four.alias_of),
                data: alternate(six.data, four.data),
            }),
        }
    }
}

fn addresses(pending: Pending) -> Result<Answered<Vec<IpAddr>>, NoAnswer> {
    let address = |datum: &Datum| match datum {
        Datum::Address(address) => Some(*address),
        _ => None,
    };
    let mut found = Answered::of(pending.wait()?, address);
    found.data = usable(found.data)?;
    found.data.truncate(MAX_ADDRESSES);
    Ok(found)
}

/// Removes the addresses that cannot belong to another host. Fails if none remains.
fn usable(all: Vec<IpAddr>) -> Result<Vec<IpAddr>, NoAnswer> {
    let found: Vec<_> = all.into_iter().filter(|a| is_usable(*a)).collect();
    if found.is_empty() { Err(NoAnswer::NoData) } else { Ok(found) }
}

fn alternate(first: Vec<IpAddr>, second: Vec<IpAddr>) -> Vec<IpAddr> {
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
mod tests;
