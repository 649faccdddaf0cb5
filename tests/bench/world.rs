//! Makes one run of a server in a separate network, with its hosts, name server and load.
//!
//! The process of a run is in network and PID namespaces of its own: ports 25 and 53 are free, no
//! packet leaves, and no process remains. It gets a [`World`] as a line of numbers, and prints its
//! observations as lines `NAME NUMBER...`. It fails if the server rejects mail. Mail that has not
//! arrived at the time limit is counted.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::hosts::{Hosts, Kind, Seen};
use crate::load::{Client, message};
use crate::machine;
use crate::names;
use crate::server::{self, Server};
use common::chance::Chance;

const SIZE: usize = 4096;
const SESSIONS: usize = 10;
/// The time between two probes, single messages that are sent to a domain of their own.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a server must have been idle before the load starts.
const REST: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The seconds that each point of a curve covers.
pub const STEP: usize = 5;

/// The domains, the behaviour of their hosts, and the mail for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct World {
    /// The number of domains whose hosts are far away but have no fault.
    pub healthy: usize,
    /// The number of domains at greylisting hosts, which reject each new recipient for a while.
    pub grey: usize,
    /// The number of domains at tarpits, hosts that delay every reply.
    pub tarpit: usize,
    /// The number of domains at mute hosts, which accept connections and send nothing.
    pub mute: usize,
    /// The number of domains at dead hosts, with which a connection never completes.
    pub dead: usize,
    /// The number of messages for healthy domains.
    pub messages: usize,
    /// The number of messages for all other domains.
    pub others: usize,
    /// Whether all healthy domains share one host.
    pub shares: bool,
    /// Whether the run waits until the mail for greylisting hosts has arrived, too.
    pub patient: bool,
    /// The round-trip time in milliseconds.
    pub trip: usize,
    /// The time limit of the run, in seconds.
    pub limit: usize,
    /// The seed of all random choices.
    pub seed: usize,
}

impl World {
    /// The world as a line of numbers, for the command line of a run.
    pub fn line(&self) -> String {
        let Self { healthy, grey, tarpit, mute, dead, messages, others, shares, patient, trip, limit, seed } = *self;
        let [shares, patient] = [shares, patient].map(usize::from);
        let numbers = [healthy, grey, tarpit, mute, dead, messages, others, shares, patient, trip, limit, seed];
        numbers.map(|number| number.to_string()).join(",")
    }

    fn of_line(line: &str) -> Option<Self> {
        let numbers: Vec<usize> = line.split(',').map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [healthy, grey, tarpit, mute, dead, messages, others, shares, patient, trip, limit, seed] = numbers[..]
        else {
            return None;
        };
        let [shares, patient] = [shares, patient].map(|flag| flag != 0);
        Some(Self { healthy, grey, tarpit, mute, dead, messages, others, shares, patient, trip, limit, seed })
    }

    fn trip(&self) -> Duration {
        Duration::from_millis(self.trip as u64)
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.limit as u64)
    }

    /// The behaviour of each domain's host: first all healthy domains, then the others, shuffled.
    fn kinds(&self) -> Vec<Kind> {
        let counts =
            [(Kind::Grey, self.grey), (Kind::Tarpit, self.tarpit), (Kind::Mute, self.mute), (Kind::Dead, self.dead)];
        let mut ill: Vec<Kind> = counts.iter().flat_map(|&(kind, count)| std::iter::repeat_n(kind, count)).collect();
        shuffle(&mut ill, &mut Chance::new(self.seed as u64, "kinds"));
        [vec![Kind::Healthy; self.healthy], ill].concat()
    }

    /// The number of the domain of each message. The mail for healthy domains is the same, however
    /// much mail the other domains have.
    fn mail(&self) -> Vec<usize> {
        let seed = self.seed as u64;
        let ill = self.grey + self.tarpit + self.mute + self.dead;
        let mut healthy = zipf(self.healthy, self.messages, &mut Chance::new(seed, "healthy")).into_iter();
        let mut others = zipf(ill, self.others, &mut Chance::new(seed, "ill")).into_iter();
        let mut turns = [vec![true; self.messages], vec![false; others.len()]].concat();
        shuffle(&mut turns, &mut Chance::new(seed, "turns"));
        let next = |is_healthy| {
            if is_healthy { healthy.next() } else { others.next().map(|domain| self.healthy + domain) }
        };
        turns.into_iter().filter_map(next).collect()
    }

    /// The number of the host that takes the mail of a domain. `d3.test` is a domain of the load,
    /// `p3.test` the domain of a probe.
    fn exchanger(&self, domains: usize, name: &str) -> Option<usize> {
        let name = name.strip_suffix(".test")?;
        match (name.strip_prefix('d'), name.strip_prefix('p')) {
            (Some(number), _) => {
                let number = number.parse().ok().filter(|number| *number < domains)?;
                Some(if self.shares && number < self.healthy { 0 } else { number })
            }
            (_, Some(number)) => {
                Some(domains + number.parse::<usize>().ok().filter(|number| *number < self.limit + 2)?)
            }
            _ => None,
        }
    }
}

fn shuffle<T>(all: &mut [T], chance: &mut Chance) {
    for end in (1..all.len()).rev() {
        all.swap(end, chance.of(0..end + 1));
    }
}

/// Draws `draws` numbers below `items`; the n-th number has the weight 1/n.
fn zipf(items: usize, draws: usize, chance: &mut Chance) -> Vec<usize> {
    let mut sum = 0;
    let sums: Vec<usize> = (1..=items).map(|place| (sum += 10_000_000 / place, sum).1).collect();
    let mut draw = || {
        let point = chance.of(0..sum);
        sums.partition_point(|sum| *sum <= point)
    };
    (0..if items == 0 { 0 } else { draws }).map(|_| draw()).collect()
}

/// The results of a run: numbers by name.
pub type Shown = HashMap<String, Vec<f64>>;

/// Parses the output of [`run`].
pub fn shown(text: &str) -> Shown {
    let line = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.map(|word| word.parse().ok()).collect::<Option<_>>()?))
    };
    text.lines().filter_map(line).collect()
}

/// Runs a world in this process. `label` names the server, `line` is the world as text, and
/// `scratch` is the directory for files.
///
/// # Errors
/// Errors of the system and of the load.
pub fn run(label: &str, line: &str, scratch: &Path) -> io::Result<()> {
    let world = World::of_line(line).ok_or_else(|| io::Error::other(format!("{line}: not a world")))?;
    if !Command::new("ip").args(["link", "set", "lo", "up"]).status()?.success() {
        return Err(io::Error::other("the loopback interface cannot be started"));
    }
    let (kinds, mail) = (world.kinds(), world.mail());
    let domains = kinds.len();
    names::start(move |name| world.exchanger(domains, name))?;
    let hosts = Hosts::start(kinds.clone(), mail.len() + world.limit + 2, world.trip())?;
    let server = match server::unpacked_postfix() {
        Some(tree) if label == "Postfix" => Server::sending_postfix(&tree, scratch)?,
        _ => Server::sending_penfold(scratch)?,
    };
    server.idles(REST);
    let load = Arc::new(Load::new(server.address, mail));
    let pss = machine::pss(&server.pids());
    let mut out = io::stdout().lock();
    let run = Run { world, kinds, load, hosts, start: Instant::now() };
    run.inject();
    let more = run.wait(&server)?;
    run.print(&mut out)?;
    if let Some((more, waiting)) = more {
        writeln!(out, "memory {}", (more - pss) * 1024.0 / waiting as f64)?;
    }
    // At this line the parent inspects the machine; the server runs until the parent is done.
    writeln!(out, "end")?;
    out.flush()
}

/// The mail to send, and how much of it the senders have sent.
struct Load {
    to: SocketAddr,
    message: Vec<u8>,
    mail: Vec<usize>,
    tickets: AtomicUsize,
    /// The number of messages that the server has accepted with 250.
    sent: AtomicUsize,
    /// When the server accepted the last message.
    all_sent: OnceLock<Instant>,
    /// When the server accepted each probe.
    probes: Mutex<Vec<Instant>>,
    /// Set when no more probes are to be sent.
    is_over: AtomicBool,
    error: OnceLock<io::Error>,
}

impl Load {
    fn new(to: SocketAddr, mail: Vec<usize>) -> Self {
        Self {
            to,
            message: message(SIZE),
            mail,
            tickets: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            all_sent: OnceLock::new(),
            probes: Mutex::default(),
            is_over: AtomicBool::new(false),
            error: OnceLock::new(),
        }
    }

    fn session(&self) -> io::Result<()> {
        let mut client = Client::connect(self.to)?;
        loop {
            let number = self.tickets.fetch_add(1, Ordering::Relaxed);
            let Some(domain) = self.mail.get(number) else { return client.quit() };
            client.mail(&format!("m{number}@d{domain}.test"), &self.message)?;
            if self.sent.fetch_add(1, Ordering::Relaxed) + 1 == self.mail.len() {
                // Only the session that sends the last message sets the time.
                let _ = self.all_sent.set(Instant::now());
            }
        }
    }

    /// Sends a probe every second until the limit. Each probe has a connection and a domain of its
    /// own; the probes' numbers follow those of the load.
    fn probe(&self, limit: usize) -> io::Result<()> {
        let start = Instant::now();
        for number in 0..limit {
            thread::sleep((start + PROBE_INTERVAL * number as u32).saturating_duration_since(Instant::now()));
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let mut client = Client::connect(self.to)?;
            client.mail(&format!("m{}@p{number}.test", self.mail.len() + number), &self.message)?;
            self.probes().push(Instant::now());
            client.quit()?;
        }
        Ok(())
    }

    fn probes(&self) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run in progress.
struct Run {
    world: World,
    kinds: Vec<Kind>,
    load: Arc<Load>,
    hosts: Hosts,
    start: Instant,
}

impl Run {
    /// Starts the threads that send the mail. They end with the process, if not before.
    fn inject(&self) {
        for number in 0..=SESSIONS {
            let (load, probes) = (Arc::clone(&self.load), self.world.limit);
            thread::spawn(move || {
                let outcome = if number == SESSIONS { load.probe(probes) } else { load.session() };
                if let Err(error) = outcome {
                    // Only the first error is kept.
                    let _ = load.error.set(error);
                }
            });
        }
    }

    /// Waits until all awaited mail has arrived, or until the limit. Returns the memory of the
    /// server and the number of messages in its queue, both at the time when all mail had been
    /// sent.
    fn wait(&self, server: &Server) -> io::Result<Option<(f64, usize)>> {
        let mut memory = None;
        while self.start.elapsed() < self.world.limit() {
            thread::sleep(POLL_INTERVAL);
            if let Some(error) = self.load.error.get() {
                return Err(io::Error::new(error.kind(), error.to_string()));
            }
            if memory.is_none() && self.load.all_sent.get().is_some() {
                let pss = machine::pss(&server.pids());
                let arrived = self.hosts.seen().arrived.iter().take(self.load.mail.len()).flatten().count();
                memory = Some((pss, self.load.mail.len() - arrived));
            }
            let seen = self.hosts.seen();
            if self.left(&seen, Kind::Healthy) > 0 {
                continue;
            }
            self.load.is_over.store(true, Ordering::Relaxed);
            let all = self.load.mail.len();
            let probes = (all..all + self.load.probes().len()).all(|number| seen.arrived[number].is_some());
            if probes && !(self.world.patient && self.left(&seen, Kind::Grey) > 0) {
                break;
            }
        }
        Ok(memory.filter(|(_, waiting)| *waiting > 0))
    }

    /// The numbers of the messages for domains whose hosts behave like `kind`.
    fn numbers(&self, kind: Kind) -> impl Iterator<Item = usize> {
        self.load
            .mail
            .iter()
            .enumerate()
            .filter(move |(_, domain)| self.kinds[**domain] == kind)
            .map(|(number, _)| number)
    }

    fn left(&self, seen: &Seen, kind: Kind) -> usize {
        self.numbers(kind).filter(|&number| seen.arrived[number].is_none()).count()
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let seen = self.hosts.seen();
        // A message that has not arrived counts with the time of the limit.
        let since = |number: usize, from: Instant| {
            let arrived = seen.arrived[number].unwrap_or(self.start + self.world.limit());
            arrived.saturating_duration_since(from).as_secs_f64()
        };
        let healthy: Vec<f64> = sorted(self.numbers(Kind::Healthy).map(|number| since(number, self.start)));
        let grey = sorted(self.numbers(Kind::Grey).map(|number| since(number, self.start)));
        let all = self.load.mail.len();
        let probes = self.load.probes();
        let probes = sorted(probes.iter().enumerate().map(|(number, sent)| since(all + number, *sent)));
        let late = sorted(seen.late.iter().map(Duration::as_secs_f64));
        for (name, values) in [("healthy", &healthy), ("grey", &grey), ("probe", &probes), ("late", &late)] {
            let quantile =
                |part: f64| values.get(((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1)));
            if let [Some(median), Some(p95), Some(max)] = [0.5, 0.95, 1.0].map(quantile) {
                writeln!(out, "{name} {median:.3} {p95:.3} {max:.3}")?;
            }
        }
        writeln!(out, "missing {}", self.left(&seen, Kind::Healthy))?;
        writeln!(out, "connections {}", seen.most)?;
        let sent = self.load.all_sent.get().map_or(self.world.limit as f64, |at| (*at - self.start).as_secs_f64());
        writeln!(out, "sent {sent:.3}")?;
        let arrived = seen.arrived.iter().flatten().count().max(1);
        writeln!(out, "hosts {:.1}", seen.cpu.as_secs_f64() * 1e6 / arrived as f64)?;
        let mut steps = vec![0; self.world.limit / STEP + 1];
        for number in self.numbers(Kind::Healthy).filter(|&number| seen.arrived[number].is_some()) {
            steps[(since(number, self.start) as usize / STEP).min(self.world.limit / STEP)] += 1;
        }
        while steps.last() == Some(&0) {
            steps.pop();
        }
        let steps: Vec<_> = steps.iter().map(|count| (f64::from(*count) / STEP as f64).to_string()).collect();
        writeln!(out, "rate {}", steps.join(" "))
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
