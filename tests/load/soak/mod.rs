//! A soak: everything at once and at random, and in the end no letter is lost.
//!
//! A soak consists of stretches of at most five minutes. There are honest and dishonest clients,
//! sessions under inetd, hosts that misbehave at every stage, a name server that fails now and
//! then, requests to the control socket, SIGHUP with valid and malformed configurations, and, in
//! every other stretch, kill -9. With root, some of the mailboxes are those of system users. One
//! domain has users, aliases and quotas of its own. At the end of a stretch the hosts heal and the queue is flushed: every accepted letter is then
//! delivered or bounced, as `ledger` requires, and nothing is left anywhere. In the stretches
//! without a kill the daemon then has as many threads and descriptors as in the middle of its work,
//! and about as much memory.
//!
//! PENFOLD_SOAK_SECONDS is the duration in seconds (24), waiting not included. PENFOLD_SOAK_SEED
//! repeats the choices of an earlier run, whose seed a failure prints, but not its timing. Pauses
//! limit the mail to some hundred letters a second. Power cuts are in tests/storage/powercut.
//!
//! - `clients`: honest and dishonest clients
//! - `ledger`: every letter and its fate
//! - `peers`: remote hosts and their name server

mod clients;
mod ledger;
mod peers;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clients::World;
use common::chance::Chance;
use common::holdings::{Holdings, own_memory};
use common::mounts::Mounts;
use common::{Daemon, Site, homes};
use ledger::{Arrived, SHOP, SHOP_ALIASES, Sum, USERS, balance};
use nix::unistd::geteuid;
use peers::Peers;

/// The longest stretch. All its letters are in memory when they are compared at the end.
const STRETCH: Duration = Duration::from_secs(300);
/// The longest time to deliver everything when all hosts are healthy. Also the longest time for a
/// start, which may have to wait for a session of inetd to release the spool.
const SETTLING: Duration = Duration::from_secs(60);
/// If nothing changes in a daemon for this long, it is at rest. A daemon keeps unused connections
/// for 2 seconds, and a stalled session for 4.
const REST: Duration = Duration::from_secs(5);
/// How much the memory may grow after the middle of the work, in KiB.
const GROWTH: usize = 3 << 10;
/// The most agents, processes with the rights of a recipient, to which a daemon keeps unused
/// connections.
const AGENTS: usize = 32;
/// The most workers that are started only after the middle of the work, when all others are busy at once.
const WORKERS: usize = 2;
/// The number of log lines that are printed with a failure.
const TAIL: usize = 80;

/// The recipients that are system users if the tests run as root.
const SYSTEM: [&str; 6] = ["jon", "ada", "bob", "ret", "fay", "gus"];

const SETTINGS: &str = r#"
limits.recipients = 100
limits.message_size = "300K"
limits.command_timeout = "2s"
limits.data_timeout = "4s"
remote.timeout = "2s"
queue.retry_min = "1s"
queue.retry_max = "2s"
queue.workers = 12
"#;

#[test]
fn everything_at_once_and_no_letter_is_lost() {
    let _turn = crate::turn();
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let length = Duration::from_secs(number("PENFOLD_SOAK_SECONDS").unwrap_or(24));
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs());
    let seed = number("PENFOLD_SOAK_SEED").unwrap_or(clock);
    let count = length.as_secs().div_ceil(STRETCH.as_secs()).next_multiple_of(2);
    println!("seed {seed}, {count} stretches of {:?}", length / count as u32);
    let mut soak = Soak::new();
    for number in 0..count {
        let kind = if number % 2 == 0 { Kind::Killing } else { Kind::Steady };
        if let Err(why) = soak.stretch(seed.wrapping_add(number), kind, length / count as u32) {
            let log = soak.log();
            let tail = log.len().saturating_sub(TAIL);
            println!("--- the end of the log:\n{}\n---", log[tail..].join("\n"));
            soak.daemon = None;
            panic!("seed {seed}, stretch {number} ({kind:?}): {why}");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In this stretch the daemon is killed and started again.
    Killing,
    /// In this stretch the daemon keeps running.
    Steady,
}

/// The state of a soak. The daemon is dropped first, before the files that it uses.
struct Soak {
    daemon: Option<Daemon>,
    /// The logs of earlier daemons.
    logs: Vec<String>,
    peers: Peers,
    site: Site,
    /// The namespace with the system users; `None` if all mailboxes are the server's.
    homes: Option<Arc<Mounts>>,
    address: SocketAddr,
}

impl Soak {
    fn new() -> Self {
        let mut site = Site::with(SETTINGS);
        let peers = Peers::new(&mut site);
        let homes = people(&mut site);
        shop(&mut site);
        ledger::ALIASES.iter().for_each(|line| site.add("aliases", line));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, lasting_port()));
        site.set("listen", "address", &format!("\"{address}\""));
        site.configure();
        fs::copy(site.path("penfold.conf"), site.path("steady.conf")).expect("a copy");
        Self { daemon: None, logs: Vec::new(), peers, site, homes, address }
    }

    /// Runs a stretch: everything at once for `length`, and then the comparison with the ledger.
    fn stretch(&mut self, seed: u64, kind: Kind, length: Duration) -> Result<(), String> {
        self.logs.clear();
        self.retire();
        self.start()?;
        let mut world = self.world(length.mul_f32(0.4));
        self.live_through(&world, kind, seed, "first")?;
        self.settle()?;
        let before = if kind == Kind::Steady { Some(self.at_rest()) } else { None };
        world.end = Instant::now() + length.mul_f32(0.6);
        self.live_through(&world, kind, seed, "second")?;
        self.settle()?;
        let mut sum = Sum::default();
        self.audit(&world, kind, &mut sum)?;
        println!("{kind:?}: {sum:?}, {} starts", self.logs.len() + 1);
        before.map_or(Ok(()), |before| self.compare(before))
    }

    fn world(&self, length: Duration) -> World {
        World {
            homes: self.homes.clone(),
            address: self.address,
            steady: self.site.path("steady.conf"),
            socket: self.site.path("penfold.sock"),
            offered: Mutex::default(),
            end: Instant::now() + length,
        }
    }

    /// Runs all clients until the end of the stretch.
    fn live_through(&mut self, world: &World, kind: Kind, seed: u64, part: &str) -> Result<(), String> {
        let chance = move |name: &str| Chance::new(seed, &format!("{part} {name}"));
        let Self { daemon, logs, peers, site, homes, .. } = self;
        let homes = homes.as_deref();
        thread::scope(|scope| {
            for name in (0..5).map(|number| format!("{part}-c{number}")) {
                scope.spawn(move || clients::honest(world, chance(&name), &name));
            }
            for name in (0..3).map(|number| format!("{part}-m{number}")) {
                scope.spawn(move || clients::dishonest(world, chance(&name), &name));
            }
            let peers = &*peers;
            scope.spawn(move || peers.misbehave(chance("peers"), world.end));
            let inetd = scope.spawn(move || clients::of_inetd(world, chance("inetd"), &format!("{part}-i")));
            let control = scope.spawn(move || clients::of_control(world, chance("control")));
            let disturbed = disturb(site, homes, daemon, logs, world, kind, chance("chaos"));
            inetd.join().expect("a thread")?;
            control.join().expect("a thread")?;
            disturbed
        })
    }

    fn start(&mut self) -> Result<(), String> {
        self.daemon = Some(start(&self.site, self.homes.as_deref())?);
        Ok(())
    }

    fn retire(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            self.logs.push(daemon.log());
            daemon.terminate();
        }
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it is started at the front of a stretch")
    }

    /// All log lines, the oldest first.
    fn log(&self) -> Vec<String> {
        let last = self.daemon.as_ref().map(Daemon::log);
        self.logs.iter().chain(&last).flat_map(|log| log.lines().map(str::to_owned)).collect()
    }

    /// Heals all hosts, and waits until the spool is empty.
    fn settle(&mut self) -> Result<(), String> {
        self.peers.heal();
        let end = Instant::now() + SETTLING;
        while !self.site.spooled().is_empty() {
            if Instant::now() > end {
                let left = self.site.spooled();
                return Err(format!("{} left in the spool, first {:?}", left.len(), left.first()));
            }
            self.daemon().flush_until(&self.site, || self.site.spooled().is_empty());
        }
        Ok(())
    }

    fn at_rest(&self) -> (Holdings, usize) {
        (Holdings::at_rest(self.daemon().pid(), REST), own_memory(self.daemon().pid()))
    }

    fn compare(&self, (before, small): (Holdings, usize)) -> Result<(), String> {
        let daemon = self.daemon();
        // The wait gives stalled sessions and unused connections the time to end.
        let is_well = |now: Holdings| {
            let agents = if self.homes.is_some() { AGENTS } else { 0 };
            now.threads <= before.threads + WORKERS && now.descriptors.abs_diff(before.descriptors) <= agents
        };
        if !daemon.becomes_true(|| is_well(Holdings::of(daemon.pid()))) {
            return Err(format!("it had {before:?} and has {:?} now", Holdings::of(daemon.pid())));
        }
        let big = own_memory(daemon.pid());
        println!("{before:?}, {small} KiB in the middle and {big} KiB in the end");
        if big > small + GROWTH {
            return Err(format!("it had {small} KiB in the middle of its work and has {big} KiB now"));
        }
        Ok(())
    }

    fn audit(&self, world: &World, kind: Kind, sum: &mut Sum) -> Result<(), String> {
        let offered = world.offered.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived = Arrived::collect(&self.site, self.peers.take());
        let log = self.log();
        let is_withheld = |line: &&String| line.contains(" dropped reason=\"a report is withheld");
        let id = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
        let withheld = log.iter().filter(is_withheld).map(id).collect();
        let wrong = balance(&offered, &arrived, &withheld, sum);
        let mut text = String::new();
        for (line, id) in wrong.iter().take(10) {
            let said = log.iter().filter(|l| id.as_ref().is_some_and(|id| l.starts_with(id.as_str())));
            text += &format!("\n{line}{}", said.take(20).map(|l| format!("\n    {l}")).collect::<String>());
        }
        let left = leftovers(&self.site, kind);
        let bugs: Vec<_> = log.iter().filter(|line| line.contains(" bug")).collect();
        if !wrong.is_empty() || !left.is_empty() || !bugs.is_empty() {
            return Err(format!("{} letters are wrong:{text}\nleft: {left:?}\nbugs: {bugs:?}", wrong.len()));
        }
        // The next stretch begins with empty mailboxes. Files from a crash get an old date, so that
        // the daemon removes them.
        for user in USERS.iter().chain(&["ret", "root"]) {
            let _ = fs::remove_dir_all(self.site.mailbox(user));
        }
        make_mailboxes(&self.site, self.homes.is_some());
        let long_ago = SystemTime::now() - Duration::from_secs(37 * 3600);
        for path in CRASHED.iter().flat_map(|place| names(&self.site.path(place))) {
            File::options()
                .write(true)
                .open(path)
                .and_then(|file| file.set_modified(long_ago))
                .expect("a left-over file");
        }
        Ok(())
    }
}

/// Creates all recipients. With root some are system users; fay forwards to gus. Returns the
/// namespace with the system users.
fn people(site: &mut Site) -> Option<Arc<Mounts>> {
    let homes = if geteuid().is_root() { homes::settle(site, &SYSTEM) } else { None };
    if homes.is_some() {
        site.set("local", "mailbox", &format!("\"{}/{{user}}\"", site.path("mail").display()));
        site.write("home/fay/.forward", "gus\n");
        homes::give(&SYSTEM, "fay", &site.path("home/fay"));
        for user in ["root", "cyd", "eve"] {
            site.add("aliases", &format!("{user}: {}/", site.mailbox(user).display()));
        }
    } else {
        site.write("users", "root::\n");
        let all = USERS.iter().filter(|user| !SHOP.contains(user));
        all.chain(&["ret"]).for_each(|user| site.add("users", &format!("{user}::")));
        site.add("aliases", "fay: gus");
    }
    make_mailboxes(site, homes.is_some());
    homes.map(Arc::new)
}

/// Adds the domain shop.test, with users and aliases of its own, and with quotas.
fn shop(site: &mut Site) {
    site.write("shop-users", &SHOP.map(|user| format!("{user}::\n")).concat());
    site.write("shop-aliases", SHOP_ALIASES);
    site.set("domain#0", "names", "[\"shop.test\"]");
    site.set("domain#0", "users", &format!("\"file:{}\"", site.path("shop-users").display()));
    site.set("domain#0", "aliases", &format!("{:?}", site.path("shop-aliases")));
    site.set("domain#0", "catch_all", &format!("{:?}", SHOP[1]));
    site.set("domain#0", "quota", "\"1G\"");
}

/// Creates the mailboxes of the system users, who may not create them in that directory.
fn make_mailboxes(site: &Site, homes: bool) {
    for user in if homes { &SYSTEM[..] } else { &[] } {
        fs::create_dir_all(site.mailbox(user)).expect("a mailbox");
        homes::give(&SYSTEM, user, &site.mailbox(user));
    }
}

/// Directories in which a crash may leave files. The daemon removes those files after 36 hours.
const CRASHED: [&str; 2] = ["spool/tmp", "spool/note"];

/// The files that are left although they should be gone.
fn leftovers(site: &Site, kind: Kind) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = USERS.iter().chain(&["ret"]).map(|user| site.mailbox(user).join("tmp")).collect();
    places.extend(["spool/bad", "spool/hold"].map(|place| site.path(place)));
    if kind == Kind::Steady {
        places.extend(CRASHED.map(|place| site.path(place)));
    }
    // A crash may also leave the file of a count.
    let is_count = |path: &Path| kind == Kind::Killing && path.to_string_lossy().ends_with(".maildirsize");
    places.iter().flat_map(|place| names(place)).filter(|path| !is_count(path)).collect()
}

fn names(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.path()).collect()
}

/// Sends SIGHUP at random times, and SIGKILL in some stretches.
fn disturb(
    site: &mut Site,
    homes: Option<&Mounts>,
    daemon: &mut Option<Daemon>,
    logs: &mut Vec<String>,
    world: &World,
    kind: Kind,
    mut chance: Chance,
) -> Result<(), String> {
    while Instant::now() < world.end {
        chance.pause(if kind == Kind::Killing { 50..500 } else { 100..1200 });
        let running = daemon.as_ref().expect("it is started below");
        match chance.of(0..4) {
            0 => {
                site.set("queue", "workers_per_destination", &chance.of(1..9).to_string());
                site.set("limits", "connections_per_host", &chance.of(20..60).to_string());
                site.configure();
                running.hup();
            }
            1 => {
                let bad = *chance.pick(&["hostname = ", "spool = 7", "[queue]\nworkers = -1", "nonsense = true"]);
                site.configure_with(bad);
                running.hup();
            }
            2.. if kind == Kind::Killing => {
                let killed = daemon.take().expect("as above");
                logs.push(killed.log());
                killed.kill9();
                chance.pause(0..200);
                *daemon = Some(start(site, homes)?);
            }
            _ => {}
        }
    }
    site.configure();
    daemon.as_ref().expect("as above").hup();
    Ok(())
}

/// Starts the daemon. A session of inetd may have the spool for a while, so the start is repeated.
fn start(site: &Site, homes: Option<&Mounts>) -> Result<Daemon, String> {
    let port = |line: &str| line.split_once("listening on 127.0.0.1:")?.1.parse().ok();
    let end = Instant::now() + SETTLING;
    loop {
        let outside = site.penfoldd(&["-d"]);
        match Daemon::spawn_until(homes.map(|homes| homes.inside(&outside)).unwrap_or(outside), port) {
            Err(log) if log.contains("is in use by another penfoldd") && Instant::now() < end => {
                thread::sleep(Duration::from_millis(20));
            }
            other => return other.map_err(|log| format!("it does not start: {log}")),
        }
    }
}

/// A port that stays free while the daemon is not running, because the system never chooses it for
/// another socket.
fn lasting_port() -> u16 {
    let mut ports = (15_000..30_000).skip(std::process::id() as usize % 10_000);
    ports.find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()).expect("a port")
}
