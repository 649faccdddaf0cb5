//! The series `hosts`: one, two and three penfolds behind haproxy, with Dovecot as the mail store.
//!
//! All of them share the processors of this machine, so the number of messages a second says little
//! about hosts of their own. The processor time a message says what another host gives.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::dovecot::{self, Dovecot};
use common::figure::{Figure, plain, whole};
use common::plot::{Axis, Scale};
use common::{Daemon, Site, free_port, haproxy, unpacked};

use crate::Bench;
use crate::load::Load;
use crate::machine::{self, Watch};
use crate::server::{self, Server};

/// The users, each with some of the sessions.
const USERS: usize = 4;
/// The sessions of each user, with a connection for each message.
const SESSIONS: usize = 3;
/// The size of a message, in octets.
const SIZE: usize = 4096;
/// The longest time without a message in the store.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The interval between two looks into the store.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Measures messages through haproxy to a store, by the number of hosts between them.
///
/// # Errors
/// Errors of the load and the servers.
pub fn hosts(bench: &Bench) -> io::Result<Vec<Figure>> {
    let how = "4 KiB, 12 sessions, a connection for each message, to Dovecot by LMTP";
    let axis = || Axis { label: "hosts with penfold".to_owned(), scale: Scale::Linear, show: whole };
    let y = |label: &str| Axis { label: label.to_owned(), scale: Scale::Linear, show: plain };
    let mut cpu = Figure::new("hosts", ["Processor time by hosts", how], axis(), y("ms of processor time a message"));
    let mut rate =
        Figure::new("hosts-rate", ["Messages by hosts on one machine", how], axis(), y("messages delivered a second"));
    cpu.compares = false;
    let points = bench.points(&[1, 2, 3]);
    for round in 0..bench.rounds {
        for &count in &points {
            bench.go_on()?;
            let Some(run) = Run::start(bench, count)? else { return Ok(Vec::new()) };
            let (times, delivered, noisy) = run.measure(bench)?;
            bench.tell(&format!("{count} hosts, round {round}: {times:?} ms, {delivered} a second"));
            for (label, time) in LABELS.into_iter().zip(times) {
                cpu.add(label, count as f64, time, noisy);
            }
            rate.add("all hosts", count as f64, delivered, noisy);
        }
    }
    cpu.notes = on_paper(&cpu, points.last().copied().unwrap_or(1) as f64);
    Ok(vec![cpu, rate])
}

/// The lines of the figure, in the order of the results of [`Run::measure`].
const LABELS: [&str; 3] = ["all penfolds", "haproxy", "Dovecot"];

/// What a hundred hosts with one processor each would need beside them.
fn on_paper(cpu: &Figure, x: f64) -> Vec<String> {
    let [Some(host), Some(front), Some(store)] = LABELS.map(|label| cpu.summary(label, x)) else { return Vec::new() };
    let rate = 100.0 * 1e3 / host.median;
    let busy = |time: f64| rate * time / 1e3;
    vec![format!(
        "100 processors with penfold: {rate:.0} messages a second, {:.1} processors for haproxy, {:.0} for Dovecot",
        busy(front.median),
        busy(store.median)
    )]
}

/// One set of servers.
struct Run {
    // In the order in which they end; the sites are removed last.
    front: Daemon,
    hosts: Vec<Server>,
    store: Dovecot,
    address: SocketAddr,
    sites: Vec<Site>,
}

impl Run {
    /// Starts all servers. Without haproxy or Dovecot, says so and returns `None`.
    fn start(bench: &Bench, count: usize) -> io::Result<Option<Self>> {
        if unpacked::haproxy().is_none() {
            return Ok(None);
        }
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (address, lmtp) = (local(free_port()), local(free_port()));
        let common = Site::below(&bench.scratch);
        let Some(store) = Dovecot::start(&common, &dovecot::store(&common.path("mail"), lmtp)) else { return Ok(None) };
        let (mut sites, mut hosts, mut behind) = (vec![common], Vec::new(), Vec::new());
        for _ in 0..count {
            let mut site = server::site(&bench.scratch, lmtp);
            let port = free_port();
            site.add("routes", &format!("* lmtp://{lmtp}"));
            site.set("listen#2", "address", &format!("\"{}\"", local(port)));
            site.set("listen#2", "proxy", "[\"127.0.0.1\"]");
            behind.push(local(port));
            hosts.push(Server::penfold(&site)?);
            sites.push(site);
        }
        haproxy::configure(&sites[0], address, &behind);
        let Some(front) = haproxy::start(&sites[0]) else { return Ok(None) };
        Ok(Some(Self { front, hosts, store, address, sites }))
    }

    /// Milliseconds of processor time a message of each kind of server, messages a second, and whether
    /// others were busy.
    fn measure(&self, bench: &Bench) -> io::Result<([f64; 3], f64, bool)> {
        // The connections and processes that a busy server has.
        let warm = self.send(Duration::ZERO, usize::MAX)?;
        self.wait_for(warm)?;
        let (watch, start, before) = (Watch::start(None), Instant::now(), self.cpu());
        let sent = self.send(bench.time.saturating_mul(4), bench.most(SIZE))?;
        self.wait_for(warm + sent)?;
        let (seconds, after) = (start.elapsed().as_secs_f64(), self.cpu());
        let mut times = [0.0; 3];
        for (time, (before, after)) in times.iter_mut().zip(before.into_iter().zip(after)) {
            *time = (after - before) * 1e3 / sent as f64;
        }
        // The servers are others for the watch.
        let own = after.iter().sum::<f64>() - before.iter().sum::<f64>();
        Ok((times, sent as f64 / seconds, watch.others() - own / seconds > 0.25))
    }

    /// Sends messages for all users, and returns how many were acknowledged.
    fn send(&self, time: Duration, most: usize) -> io::Result<usize> {
        thread::scope(|scope| {
            let start = |user| {
                let recipients = vec![format!("m{user}@example.org")];
                let most = most / USERS;
                let load = Load { sessions: SESSIONS, size: SIZE, recipients, reuse: false, time, most };
                scope.spawn(move || load.send(self.address).map(|sent| sent.messages))
            };
            let loads: Vec<_> = (0..USERS).map(start).collect();
            loads.into_iter().map(|load| load.join().expect("no panic in a load")).sum()
        })
    }

    /// Waits until the store has this many messages.
    fn wait_for(&self, wanted: usize) -> io::Result<()> {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let now = arrived(&self.sites[0].path("mail/example.org"));
            if now >= wanted {
                return Ok(());
            }
            if now > last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > TIMEOUT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{now} of {wanted} arrived")));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Seconds of processor time that the penfolds, haproxy and Dovecot have used so far.
    fn cpu(&self) -> [f64; 3] {
        let of = |daemon: &Daemon| machine::cpu(&machine::tree(daemon.pid().as_raw().unsigned_abs()));
        let hosts: HashSet<u32> = self.hosts.iter().flat_map(Server::pids).collect();
        [machine::cpu(&hosts), of(&self.front), of(&self.store.daemon)]
    }
}

/// The number of messages of all users of a domain.
fn arrived(domain: &Path) -> usize {
    let users = fs::read_dir(domain).into_iter().flatten().flatten();
    users.map(|user| fs::read_dir(user.path().join("Maildir/new")).map_or(0, Iterator::count)).sum()
}
