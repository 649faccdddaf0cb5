//! Asks the DNS, and waits: mail exchangers, addresses, the name of a client.
//!
//! The only folder that knows the resolver and the runtime it needs. One thread,
//! "dns", runs all look-ups side by side; it starts with the first one, sleeps while
//! there is nothing to ask, and ends with its [`Dns`]. Every look-up ends within
//! `dns.timeout`, whatever the servers do: see `servers` for how they are asked.
//! Answers are kept for as long as they allow, in bounded memory (`cache`). They come
//! from strangers: names are checked, addresses that are no host's are dropped, and so
//! is everything beyond [`MAX_EXCHANGERS`] and [`MAX_ADDRESSES`].
//!
//! resolv.conf(5) and hosts(5) are read with the first look-up and again when they
//! have changed (`system`). /etc/hosts comes before the DNS for addresses and for names
//! of addresses (people write `smtp://mailhub`), never for mail exchangers. Names are
//! complete: the search list of resolv.conf(5) is for people at a prompt. Does not
//! decide what a missing answer means for mail: see [`crate::outcome`]. DNSSEC (the AD
//! bit, TLSA) will have its place beside [`Dns::mx`].

mod answer;
mod cache;
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

pub use answer::is_a_hosts;

/// How many mail exchangers of a domain are kept, the preferred ones first.
pub const MAX_EXCHANGERS: usize = 100;
/// How many addresses of a host are kept, of each family.
pub const MAX_ADDRESSES: usize = 25;

/// How many names of an address are tried for one that leads back to it.
const MAX_NAMES: usize = 3;

/// The resolver. Cheap until it is asked.
#[derive(Debug)]
pub struct Dns {
    settings: config::Dns,
    /// Held only to look whether the files have changed, never during a look-up.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    system: System,
    running: Option<Running>,
}

/// What a look-up needs.
#[derive(Debug, Clone)]
struct Running {
    runtime: Handle,
    /// Ends the thread.
    life: AbortHandle,
    servers: Arc<Servers>,
    hosts: Arc<Hosts>,
    /// What these servers have answered.
    cache: Arc<Cache>,
}

/// A question on its way.
enum Asked {
    Waiting(Receiver<Found>, Instant),
    Known(Found),
}

impl Dns {
    /// A resolver that asks whom `settings` say. Nothing is read or started yet.
    pub fn new(settings: &config::Dns) -> Self {
        Self::of(settings, System::new())
    }

    fn of(settings: &config::Dns, system: System) -> Self {
        Self { settings: settings.clone(), state: Mutex::new(State { system, running: None }) }
    }

    /// The mail exchangers of `domain`: preference and name, the smallest first. The
    /// root, in a null MX (RFC 7505), is `.`. Names that no host can have are
    /// dropped, so the list may be empty although there are records.
    ///
    /// # Errors
    /// `NoData` when the domain has no such record, and every other [`NoAnswer`].
    pub fn mx(&self, domain: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        let running = self.running()?;
        let data = ask(&running, domain, RecordType::MX, self.deadline())?.wait()?;
        let exchanger = |datum: &Datum| match datum {
            Datum::Exchanger(preference, name) => Some((*preference, name.to_string())),
            _ => None,
        };
        Ok(data.iter().filter_map(exchanger).collect())
    }

    /// The addresses of `host`, never none: IPv6 and IPv4 by turns, as RFC 8305 4
    /// has it, so that a family that goes nowhere costs one attempt.
    ///
    /// # Errors
    /// A [`NoAnswer`]. While either family could not be found out, it is not
    /// `NxDomain` or `NoData`.
    pub fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NoAnswer> {
        if is_localhost(host) {
            return Ok(loopback());
        }
        addresses_by(&self.running()?, host, self.deadline())
    }

    /// The same for several hosts, asked for side by side: all together end within
    /// `dns.timeout`.
    pub fn addresses_of_all(&self, hosts: &[&str]) -> Vec<Result<Vec<IpAddr>, NoAnswer>> {
        let running = match self.running() {
            Ok(running) => running,
            Err(trouble) => return vec![Err(trouble); hosts.len()],
        };
        let until = self.deadline();
        let asked: Vec<_> = hosts.iter().map(|host| Pair::ask(&running, host, until)).collect();
        asked.into_iter().map(|pair| pair?.wait()).collect()
    }

    /// The name of a client: one that its address has and that leads back to it,
    /// `localhost` for a loopback address, `None` if there is none or it cannot be
    /// found out in time.
    pub fn verified_name(&self, address: IpAddr) -> Option<String> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return Some("localhost".into());
        }
        let (running, until) = (self.running().ok()?, self.deadline());
        let listed = running.hosts.names(address);
        let names = if listed.is_empty() {
            let name = Name::from(address).to_ascii();
            let found = ask(&running, &name, RecordType::PTR, until).ok()?.wait().ok()?;
            let name = |datum: &Datum| match datum {
                Datum::Name(name) => Some(name.clone()),
                _ => None,
            };
            found.iter().filter_map(name).take(MAX_NAMES).collect()
        } else {
            listed
        };
        let leads_back = |name: &str| addresses_by(&running, name, until).is_ok_and(|all| all.contains(&address));
        names.into_iter().find(|name| leads_back(name)).map(String::from)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout
    }

    /// What there is to ask, as the files of the system have it now.
    fn running(&self) -> Result<Running, NoAnswer> {
        // Whoever panicked with it left nothing half done.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { system, running } = &mut *state;
        let changed = system.look();
        if let Some(running) = running {
            if changed.hosts {
                running.hosts = system.hosts();
            }
            if changed.servers && self.settings.nameservers.is_empty() {
                let listed = system.servers();
                ::log::info!(
                    "{} has changed: names are asked from {}",
                    system.path().display(),
                    servers::words(&listed)
                );
                // Another network may have other answers.
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
        let given = self.settings.nameservers.as_slice();
        let _inside = runtime.enter();
        Servers::new(if given.is_empty() { system } else { given }, self.settings.timeout)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        if let Some(running) = &self.state.get_mut().unwrap_or_else(PoisonError::into_inner).running {
            running.life.abort();
        }
    }
}

impl Asked {
    fn wait(self) -> Found {
        match self {
            Self::Known(found) => found,
            Self::Waiting(answer, until) => {
                // The look-up keeps the time itself; this is for a thread that is gone or late.
                let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(500);
                answer.recv_timeout(left).unwrap_or(Err(NoAnswer::Timeout))
            }
        }
    }
}

/// The thread and its runtime.
fn start() -> Result<(Handle, AbortHandle), String> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(|e| e.to_string())?;
    let handle = runtime.handle().clone();
    // A task that does nothing holds the runtime until it is aborted.
    let task = runtime.spawn(pending::<()>());
    let life = task.abort_handle();
    let thread = std::thread::Builder::new().name("dns".into());
    thread.spawn(move || drop(runtime.block_on(task))).map_err(|e| e.to_string())?;
    Ok((handle, life))
}

/// Sends a question; the answer has data of `kind` only, at least one.
fn ask(running: &Running, name: &str, kind: RecordType, until: Instant) -> Result<Asked, NoAnswer> {
    // An arpa name has a dot at its end, and any name may.
    let text = parse_domain(name.strip_suffix('.').unwrap_or(name)).map_err(|_| NoAnswer::BadName)?;
    let mut name = Name::from_ascii(&text).map_err(|_| NoAnswer::BadName)?;
    name.set_fqdn(true);
    if let Some(trouble) = never_asked(&text) {
        return Err(trouble);
    }
    if let Some(found) = running.cache.find(&text, kind) {
        return Ok(Asked::Known(found));
    }
    let (sender, answer) = sync_channel(1);
    let (servers, cache) = (Arc::clone(&running.servers), Arc::clone(&running.cache));
    running.runtime.spawn(async move {
        let (found, lifetime) = servers.look_up(name, kind, until).await;
        cache.keep(&text, kind, &found, lifetime);
        // Nobody may wait any more.
        let _ = sender.send(found);
    });
    Ok(Asked::Waiting(answer, until))
}

/// Names of special use (RFC 6761, RFC 7686) that no server is to see.
fn never_asked(name: &str) -> Option<NoAnswer> {
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
    Pair::ask(running, host, until)?.wait()
}

/// The addresses of a host on their way.
enum Pair {
    Known(Vec<IpAddr>),
    Waiting(Asked, Asked),
}

impl Pair {
    fn ask(running: &Running, host: &str, until: Instant) -> Result<Self, NoAnswer> {
        if is_localhost(host) {
            return Ok(Self::Known(loopback()));
        }
        let listed = running.hosts.addresses(host);
        if !listed.is_empty() {
            let (six, four) = listed.into_iter().partition(IpAddr::is_ipv6);
            return Ok(Self::Known(by_turns(six, four)));
        }
        let (six, four) = (RecordType::AAAA, RecordType::A);
        Ok(Self::Waiting(ask(running, host, six, until)?, ask(running, host, four, until)?))
    }

    fn wait(self) -> Result<Vec<IpAddr>, NoAnswer> {
        let (six, four) = match self {
            Self::Known(found) => return some(found),
            Self::Waiting(six, four) => (addresses(six), addresses(four)),
        };
        match (six, four) {
            (Err(NoAnswer::NxDomain), Err(NoAnswer::NxDomain)) => Err(NoAnswer::NxDomain),
            (Err(trouble), Err(NoAnswer::NxDomain | NoAnswer::NoData)) => Err(trouble),
            (Err(_), Err(trouble)) => Err(trouble),
            (six, four) => Ok(by_turns(six.unwrap_or_default(), four.unwrap_or_default())),
        }
    }
}

fn addresses(asked: Asked) -> Result<Vec<IpAddr>, NoAnswer> {
    let address = |datum: &Datum| match datum {
        Datum::Address(address) => Some(*address),
        _ => None,
    };
    some(asked.wait()?.iter().filter_map(address).collect())
}

/// Those that can be a host's.
fn some(all: Vec<IpAddr>) -> Result<Vec<IpAddr>, NoAnswer> {
    let found: Vec<_> = all.into_iter().filter(|a| is_a_hosts(*a)).collect();
    if found.is_empty() { Err(NoAnswer::NoData) } else { Ok(found) }
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
mod tests;
