//! Blocking DNS look-ups: mail exchangers, addresses, the name of a client.
//!
//! This is the only folder that uses the resolver library and its runtime. One thread,
//! "dns", runs all look-ups concurrently; it starts with the first one, sleeps while
//! there are none, and ends with its [`Dns`]. Every look-up ends within
//! `dns.timeout`, whatever the servers do. Answers are untrusted: names are checked, unusable
//! addresses are dropped, and so are records beyond [`MAX_EXCHANGERS`] and
//! [`MAX_ADDRESSES`].
//!
//! resolv.conf(5) and hosts(5) are read with the first look-up and again when they
//! have changed. /etc/hosts takes precedence over the DNS for addresses and for names
//! of addresses (for a smart host such as `smtp://mailhub`), never for mail exchangers. Names
//! are absolute: the search list of resolv.conf(5) is not used. The effect of a missing answer on
//! mail is decided in [`crate::outcome`].
//!
//! - `answer`: the data of an answer, checked and bounded
//! - `cache`: answers kept for their lifetime
//! - `servers`: which name server is asked when, with or without EDNS
//! - `system`: resolv.conf(5) and hosts(5)

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

pub use answer::is_usable;

/// The maximum number of mail exchangers kept for a domain, the preferred ones first.
pub const MAX_EXCHANGERS: usize = 100;
/// The maximum number of addresses kept for a host, of each family.
pub const MAX_ADDRESSES: usize = 25;

/// The maximum number of names of an address that are verified.
const MAX_NAMES: usize = 3;

/// The resolver. It starts with the first look-up.
#[derive(Debug)]
pub struct Dns {
    settings: config::Dns,
    /// Held only to check the files for changes, never during a look-up.
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
    /// Aborting the task of this handle ends the thread.
    life: AbortHandle,
    servers: Arc<Servers>,
    hosts: Arc<Hosts>,
    /// The answers of these servers.
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

    /// The mail exchangers of `domain`: preference and name, lowest preference first. The
    /// root, in a null MX (RFC 7505), is `.`. Invalid host names are
    /// dropped, so the list may be empty although there are records.
    ///
    /// # Errors
    /// A [`NoAnswer`]; `NoData` means that the domain has no MX record.
    pub fn mx(&self, domain: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        let running = self.running()?;
        let data = ask(&running, domain, RecordType::MX, self.deadline())?.wait()?;
        let exchanger = |datum: &Datum| match datum {
            Datum::Exchanger(preference, name) => Some((*preference, name.to_string())),
            _ => None,
        };
        Ok(data.iter().filter_map(exchanger).collect())
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

    /// The addresses of several hosts. The look-ups run concurrently and all end within
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

    /// The verified name of a client: a name of the address that leads back to the address, or
    /// `localhost` for a loopback address; `None` if there is no such name or the look-ups fail.
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
        let has_address = |name: &str| addresses_by(&running, name, until).is_ok_and(|all| all.contains(&address));
        names.into_iter().find(|name| has_address(name)).map(String::from)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout
    }

    /// The running resolver, with the current contents of resolv.conf(5) and hosts(5).
    fn running(&self) -> Result<Running, NoAnswer> {
        // A panic leaves the state consistent.
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
                // The answers in another network may differ.
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
        Servers::new(if configured.is_empty() { system } else { configured }, self.settings.timeout)
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
                // The look-up has its own timeout. This timeout applies if the thread has ended or
                // is late.
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
    // A task that never completes keeps the runtime running until it is aborted.
    let task = runtime.spawn(pending::<()>());
    let life = task.abort_handle();
    let thread = std::thread::Builder::new().name("dns".into());
    thread.spawn(move || drop(runtime.block_on(task))).map_err(|e| e.to_string())?;
    Ok((handle, life))
}

/// Begins a look-up. The data in its result are all of type `kind`; there may be none.
fn ask(running: &Running, name: &str, kind: RecordType, until: Instant) -> Result<Pending, NoAnswer> {
    // Names in arpa end in a dot, and others may.
    let text = parse_domain(name.strip_suffix('.').unwrap_or(name)).map_err(|_| NoAnswer::BadName)?;
    let mut name = Name::from_ascii(&text).map_err(|_| NoAnswer::BadName)?;
    name.set_fqdn(true);
    if let Some(answer) = special_name(&text) {
        return Err(answer);
    }
    if let Some(found) = running.cache.find(&text, kind) {
        return Ok(Pending::Known(found));
    }
    let (sender, answer) = sync_channel(1);
    let (servers, cache) = (Arc::clone(&running.servers), Arc::clone(&running.cache));
    running.runtime.spawn(async move {
        let (found, lifetime) = servers.look_up(name, kind, until).await;
        cache.keep(&text, kind, &found, lifetime);
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
    Pair::ask(running, host, until)?.wait()
}

/// The look-ups of the addresses of a host.
enum Pair {
    Known(Vec<IpAddr>),
    Waiting(Pending, Pending),
}

impl Pair {
    fn ask(running: &Running, host: &str, until: Instant) -> Result<Self, NoAnswer> {
        if is_localhost(host) {
            return Ok(Self::Known(loopback()));
        }
        let listed = running.hosts.addresses(host);
        if !listed.is_empty() {
            let (six, four) = listed.into_iter().partition(IpAddr::is_ipv6);
            return Ok(Self::Known(alternate(six, four)));
        }
        let (six, four) = (RecordType::AAAA, RecordType::A);
        Ok(Self::Waiting(ask(running, host, six, until)?, ask(running, host, four, until)?))
    }

    fn wait(self) -> Result<Vec<IpAddr>, NoAnswer> {
        let (six, four) = match self {
            Self::Known(found) => return usable(found),
            Self::Waiting(six, four) => (addresses(six), addresses(four)),
        };
        match (six, four) {
            (Err(NoAnswer::NxDomain), Err(NoAnswer::NxDomain)) => Err(NoAnswer::NxDomain),
            (Err(trouble), Err(NoAnswer::NxDomain | NoAnswer::NoData)) => Err(trouble),
            (Err(_), Err(trouble)) => Err(trouble),
            (six, four) => Ok(alternate(six.unwrap_or_default(), four.unwrap_or_default())),
        }
    }
}

fn addresses(pending: Pending) -> Result<Vec<IpAddr>, NoAnswer> {
    let address = |datum: &Datum| match datum {
        Datum::Address(address) => Some(*address),
        _ => None,
    };
    usable(pending.wait()?.iter().filter_map(address).collect())
}

/// The usable addresses, at least one.
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
