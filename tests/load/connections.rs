//! Ten thousand sessions at once, and a system without free threads.
//!
//! All clients get the greeting and a reply to EHLO, some deliver mail while all others are
//! connected, and all get a reply to QUIT. Afterwards the daemon has no more threads and
//! descriptors than before; it never has more than the unit for systemd allows. The memory is
//! printed, also for a smaller number of sessions under TLS. Where this process may not have that
//! many descriptors, there are fewer sessions, and the rest is reported as skipped. The real limit
//! RLIMIT_NPROC causes the shortage of threads, for a user without other processes; that needs
//! root.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use common::client::{Client, TEXT};
use common::holdings::{Holdings, family, limit, mappings, memory, own_memory, page_tables};
use common::remote::Remote;
use common::tls::Authority;
use common::{Daemon, Site, TIMEOUT, built};

// Many sessions

const SESSIONS: usize = 10_000;
/// The number of connections from each address. It is smaller than the default of
/// limits.connections_per_host.
const PER_ADDRESS: usize = 40;
/// The number of sessions that take each step at the same time.
const WAVE: usize = 500;
/// If nothing changes in a daemon for this long, it is at rest.
const REST: Duration = Duration::from_millis(300);
/// The most memory that one session may take, in KiB.
const MAX_KIB: usize = 26;

#[test]
fn ten_thousand_sessions_are_held_and_served() {
    let _turn = crate::turn();
    let site = Site::with("limits.connections = 10100");
    let daemon = Daemon::spawn(within(&site, "nofile", of_unit("LimitNOFILE")));
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 1);
    let (quiet, small) = (Holdings::at_rest(daemon.pid(), REST), memory(daemon.pid()));
    let size = size_of_crowd();
    assert!(size < SESSIONS || !daemon.log().contains("RLIMIT_NOFILE"), "{}", daemon.log());
    let start = Instant::now();
    let mut crowd: Vec<TcpStream> = Vec::with_capacity(size);
    while crowd.len() < size {
        let first = crowd.len();
        crowd.extend((first..size.min(first + WAVE)).map(|number| connect_from_one(&daemon, number)));
        hear_all(&mut crowd[first..], "220 ");
        say_all(&mut crowd[first..], "EHLO client.test\r\n");
        hear_all(&mut crowd[first..], "250 ");
    }
    let (greeted, held, big) = (start.elapsed(), Holdings::of(daemon.pid()), memory(daemon.pid()));
    assert!(held.threads >= quiet.threads + size && held.descriptors >= quiet.descriptors + size, "{held:?}");
    println!(
        "{size} sessions in {greeted:?}: {:.1} KiB each, {:.1} KiB of page tables, {:.1} mappings, {} descriptors",
        (big - small) as f64 / size as f64,
        page_tables(daemon.pid()) as f64 / size as f64,
        mappings(daemon.pid()) as f64 / size as f64,
        held.descriptors - quiet.descriptors,
    );
    assert!(big - small < MAX_KIB * size, "{} KiB for {size} sessions", big - small);
    // Some of the old sessions, and new ones, are served while all others are connected.
    let some: Vec<usize> = (0..size).step_by(size / 100).collect();
    for &number in &some {
        deliver(&mut crowd[number]);
    }
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", some.len() + 2);
    say_all(&mut crowd, "QUIT\r\n");
    hear_all(&mut crowd, "221 ");
    drop(crowd);
    // On a busy machine, it may hold something more at the first look, such as the thread that asks the DNS,
    // and so many threads take long to end.
    let is_quiet = |now: Holdings| now.threads <= quiet.threads && now.descriptors <= quiet.descriptors;
    let (mut before, mut now) = (usize::MAX, Holdings::of(daemon.pid()));
    while !is_quiet(now) && now.threads < before {
        before = now.threads;
        daemon.becomes_true(|| is_quiet(Holdings::of(daemon.pid())));
        now = Holdings::of(daemon.pid());
    }
    assert!(is_quiet(now), "{quiet:?} before, {now:?} after\n{:.2000}", daemon.log());
    println!("all in {:?}, {} KiB before and {} KiB after", start.elapsed(), small, memory(daemon.pid()));
    assert!(daemon.settles(&site));
    assert!(!daemon.log().contains("too many connections"), "{}", daemon.log());
}

/// The most memory of an idle daemon, in KiB. Most of it is parts of the program. The kernel maps at
/// least 64 KiB around each page that is used, and since Linux 6.18 as much as was read or written at
/// once: so a program that was just linked takes 8.5 MiB, and a copy of it 9 MiB.
const MAX_IDLE_KIB: usize = 10 * 1024;
/// The most of it that is not part of files, in KiB: 1.1 MiB, or 3.4 MiB in a debug build.
const MAX_OWN_KIB: usize = 4 * 1024;

/// Counts all processes of the daemon. That is the memory that users see (PSS), programs and
/// libraries included, so the daemon is that of the release build: without optimization the program
/// itself is several times as large. To measure another build, such as one without features, name
/// its penfoldd in `PENFOLD_IDLE`.
#[test]
fn an_idle_daemon_needs_little_memory() {
    let _turn = crate::turn();
    let named = std::env::var_os("PENFOLD_IDLE").map(PathBuf::from);
    let built = named.or_else(|| built::release("penfoldd"));
    let program = built.clone().unwrap_or_else(|| built::program("penfoldd"));
    let (kib, own) = (0..3).map(|_| idle_memory(&program)).min().expect("three starts");
    assert!(own < MAX_OWN_KIB, "{own} KiB of its own");
    match built {
        Some(_) => assert!(kib < MAX_IDLE_KIB, "{kib} KiB"),
        None => common::skipped("the memory of the program, because there is no release build of these sources"),
    }
}

/// The memory of an idle daemon after its first message, in KiB, and how much of it is not part of
/// files. How many pages of a file the kernel maps around the one that is needed differs by up to
/// 1 MiB from start to start.
fn idle_memory(program: &Path) -> (usize, usize) {
    let site = Site::new();
    let mut command = Command::new(program);
    command.args(site.penfoldd(&["-d"]).get_args());
    let daemon = Daemon::spawn(command);
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 1);
    Holdings::at_rest(daemon.pid(), REST);
    let all = family(daemon.pid());
    assert_eq!(all.len(), if nix::unistd::geteuid().is_root() { 2 } else { 1 }, "server and monitor: {all:?}");
    let [kib, own] = [memory, own_memory].map(|of| all.iter().map(|&pid| of(pid)).sum());
    println!("{kib} KiB, of which {own} KiB are not part of files");
    (kib, own)
}

/// The number of sessions under TLS. The next constant is the most memory that one of them may
/// take, in KiB: a handshake uses a stack of 30 KiB with optimization and of 70 KiB without.
const TLS_SESSIONS: usize = 200;
const MAX_KIB_UNDER_TLS: usize = if cfg!(debug_assertions) { 110 } else { 64 };

#[test]
fn idle_sessions_under_tls_need_little_memory() {
    let _turn = crate::turn();
    let authority = Authority::new();
    let site = authority.site("limits.connections = 1000");
    let daemon = site.start();
    let secure = |number| {
        let mut clear = connect_from_one(&daemon, number);
        expect(&mut clear, "220 ");
        say_all(std::slice::from_mut(&mut clear), "EHLO client.test\r\n");
        expect(&mut clear, "250 ");
        say_all(std::slice::from_mut(&mut clear), "STARTTLS\r\n");
        expect(&mut clear, "220 ");
        let name = ServerName::try_from("razorback.test").expect("a name");
        let mut tls = StreamOwned::new(ClientConnection::new(authority.client(), name).expect("a client"), clear);
        say_all(std::slice::from_mut(&mut tls), "EHLO client.test\r\n");
        expect(&mut tls, "250 ");
        tls
    };
    let text = format!("{TEXT}{}", "How are you, all of you there?\r\n".repeat(512));
    // After the first session the daemon has all the memory that it allocates only once.
    deliver_text(&mut secure(0), &text);
    daemon.wait_mail(&site, "jon", 1);
    let (quiet, small) = (Holdings::at_rest(daemon.pid(), REST), memory(daemon.pid()));
    let mut crowd: Vec<_> = (0..TLS_SESSIONS).map(secure).collect();
    let each = |what: &str| {
        let held = Holdings::at_rest(daemon.pid(), REST);
        assert!(held.threads >= quiet.threads + TLS_SESSIONS, "{held:?}");
        let more = memory(daemon.pid()).saturating_sub(small);
        println!("{TLS_SESSIONS} sessions under TLS, {what}: {:.1} KiB each", more as f64 / TLS_SESSIONS as f64);
        assert!(more < MAX_KIB_UNDER_TLS * TLS_SESSIONS, "{what}: {more} KiB for {TLS_SESSIONS} sessions");
    };
    each("after EHLO");
    crowd.iter_mut().for_each(|stream| deliver_text(stream, &text));
    daemon.wait_mail(&site, "jon", TLS_SESSIONS + 1);
    assert!(daemon.settles(&site));
    each("after a message of 16 KiB");
}

/// The number of sessions for which both this process and the daemon may have descriptors.
fn size_of_crowd() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("it may be raised");
    let possible = usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(500);
    if possible < SESSIONS {
        common::skipped(format_args!(
            "{SESSIONS} sessions, for the limit of descriptors is {hard}: {possible} instead"
        ));
    }
    possible.min(SESSIONS)
}

/// Connects from the loopback address that belongs to the number of the session.
fn connect_from_one(daemon: &Daemon, number: usize) -> TcpStream {
    let host = u32::try_from(number / PER_ADDRESS).expect("a small number");
    let stream = daemon.connect_from(Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 1, 0).to_bits() + host));
    stream.set_read_timeout(Some(TIMEOUT)).expect("an option");
    stream.set_nodelay(true).expect("an option");
    stream
}

fn say_all(crowd: &mut [impl Write], text: &str) {
    crowd.iter_mut().for_each(|stream| stream.write_all(text.as_bytes()).expect("the connection is open"));
}

fn hear_all(crowd: &mut [impl Read], begins: &str) {
    crowd.iter_mut().for_each(|stream| expect(stream, begins));
}

/// Reads a whole reply, whose last line must begin with `begins`. Nothing may follow the reply.
fn expect(stream: &mut impl Read, begins: &str) {
    let (mut reply, mut piece) = (Vec::new(), [0; 512]);
    loop {
        let count = stream.read(&mut piece).expect("a reply");
        assert!(count > 0, "the end instead of {begins}");
        reply.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&reply);
        let last = text.strip_suffix("\r\n").and_then(|text| text.lines().next_back());
        if let Some(last) = last.filter(|last| last.as_bytes().get(3) == Some(&b' ')) {
            assert!(last.starts_with(begins), "{text}");
            return;
        }
    }
}

fn deliver(stream: &mut (impl Read + Write)) {
    deliver_text(stream, TEXT);
}

fn deliver_text(stream: &mut (impl Read + Write), text: &str) {
    let message = format!("{text}.\r\n");
    for (line, reply) in [
        ("MAIL FROM:<jon@razorback.test>\r\n", "250 "),
        ("RCPT TO:<jon@razorback.test>\r\n", "250 "),
        ("DATA\r\n", "354 "),
        (&message, "250 2.0.0 "),
    ] {
        stream.write_all(line.as_bytes()).expect("the connection is open");
        expect(stream, reply);
    }
}

// No more threads

/// The uid of a user without other processes, so that RLIMIT_NPROC counts only the threads of the
/// daemon.
const LONE_USER: u32 = 61_157;

/// A site that belongs to [`LONE_USER`]. Without root, reports the test as skipped and returns
/// `None`.
fn site_of_lone_user() -> Option<Site> {
    if !nix::unistd::geteuid().is_root() {
        common::skipped("only root can be another user");
        return None;
    }
    let site = Site::new();
    site.configure();
    for path in ["", "spool", "mail", "users", "aliases", "virtual", "routes"] {
        chown(site.path(path), Some(LONE_USER), Some(LONE_USER)).expect("a file of ours");
    }
    Some(site)
}

/// A command that runs penfoldd as [`LONE_USER`], with at most `threads` threads.
fn penfoldd(site: &Site, threads: usize) -> Command {
    let penfoldd = site.penfoldd(&["-d"]);
    let mut command = Command::new("prlimit");
    command.arg(format!("--nproc={threads}:4096")).arg(penfoldd.get_program()).args(penfoldd.get_args());
    command.uid(LONE_USER).gid(LONE_USER);
    command
}

#[test]
fn without_threads_clients_get_a_temporary_failure_and_deliveries_go_on() {
    let _turn = crate::turn();
    let Some(site) = site_of_lone_user() else { return };
    let remote = Remote::sink();
    site.add("routes", &format!("far.test {}", remote.host_port()));
    let daemon = Daemon::spawn(penfoldd(&site, 4096));
    let mut guest = daemon.client();
    let threads = Holdings::at_rest(daemon.pid(), REST).threads;
    assert!(limit(daemon.pid(), "nproc", threads));
    for _ in 0..3 {
        let mut client = Client::before_banner(daemon.connect());
        client.expect("421 4.7.0 ");
        client.expect_end();
    }
    daemon.wait_words(&["start a session: ", "temporarily unavailable"]);
    // The session that was open before is served, and its mail is delivered. A request to the
    // control socket fails at once.
    guest.send("jon@razorback", &["jon@razorback", "far@far.test"], TEXT);
    daemon.wait_mail(&site, "jon", 1);
    assert_eq!(remote.messages(1).len(), 1);
    let mut flush = Command::new(env!("CARGO_BIN_EXE_penfoldctl"));
    let asked = flush.arg("-f").arg(site.path("penfold.conf")).arg("flush").output().expect("it runs");
    assert_eq!(asked.status.code(), Some(75), "{asked:?}");
    assert!(limit(daemon.pid(), "nproc", 4096));
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 2);
    site.penfoldctl(&["flush"]);
    assert!(daemon.settles(&site));
    guest.ask("QUIT", "221 ");
    assert!(daemon.terminate().success());
}

#[test]
fn without_threads_the_daemon_does_not_start_and_says_why() {
    let _turn = crate::turn();
    let Some(site) = site_of_lone_user() else { return };
    // The limits are too small for the workers, or for the threads that start after the workers.
    for threads in [1, 3, 5, 6, 7] {
        let output = penfoldd(&site, threads).output().expect("prlimit runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(71), "{threads} threads: {text}");
        assert!(text.contains("penfoldd: start a thread: Resource temporarily unavailable"), "{text}");
    }
    let daemon = Daemon::spawn(penfoldd(&site, 4096));
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 1);
    assert!(daemon.settles(&site));
}

// Limits that are known at the start

/// The number that the unit for systemd has for a key.
fn of_unit(key: &str) -> u64 {
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/etc/systemd/penfold.service")).expect("a unit");
    let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {key}"))
}

/// The limit that penfold-admin(7) gives for 10000 connections.
fn of_page(limit: &str) -> u64 {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/penfold-admin.7")).expect("a page");
    let (_, section) = page.split_once(".Sh MANY CONNECTIONS").expect("a section");
    let mut lines = section.lines().skip_while(|line| !line.starts_with(".It") || !line.ends_with(limit));
    let number = lines.find_map(|line| line.split([':', ',', ' ']).next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {limit}"))
}

/// A command that runs the daemon in the foreground with this limit of a resource.
fn within(site: &Site, what: &str, maximum: u64) -> Command {
    let penfoldd = site.penfoldd(&["-d"]);
    let mut command = Command::new("prlimit");
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(maximum, |(_, hard)| hard);
    let maximum = if what == "nofile" { maximum.min(hard) } else { maximum };
    command.arg(format!("--{what}={maximum}:{maximum}")).arg(penfoldd.get_program()).args(penfoldd.get_args());
    command
}

#[test]
fn unit_page_and_daemon_agree_on_the_limits_for_ten_thousand_connections() {
    let _turn = crate::turn();
    let site = Site::with("limits.connections = 10000\nqueue.workers = 200");
    // Each row has a limit in the spelling of prlimit(1), its name, the smallest value without a
    // warning, and the value in the unit.
    for (what, name, least, of_unit) in [
        ("nofile", "RLIMIT_NOFILE", 10_864, of_unit("LimitNOFILE")),
        ("nproc", "RLIMIT_NPROC", 11_232, of_unit("TasksMax")),
    ] {
        let page = of_page(name);
        assert!(least <= page && page < least + 100, "{name}: {page} on the page, {least} needed");
        assert!(page <= of_unit, "{name}: {page} on the page, {of_unit} in the unit");
        for maximum in [least, page, of_unit, least - 1] {
            let mut command = within(&site, what, maximum);
            command.args(["-n"]);
            let output = command.output().expect("prlimit runs");
            let printed = String::from_utf8_lossy(&output.stderr).into_owned();
            let warning = format!("limits.connections is 10000, and {name} = {maximum} has room for 9999");
            assert!(output.status.success(), "{printed}");
            assert_eq!(printed.contains(&warning), maximum < least, "{what} {maximum}: {printed}");
            assert_eq!(printed.contains(&format!("{name} = ")), maximum < least, "{what} {maximum}: {printed}");
        }
    }
    assert_eq!(of_page("pids.max"), of_page("RLIMIT_NPROC"));
    assert!(of_page("kernel.pid_max") == of_page("pids.max") && of_page("vm.max_map_count") >= 256 + 4 * 11_232);
}

#[test]
fn limits_too_low_for_all_connections_are_reported_at_the_start_and_at_a_reload() {
    let _turn = crate::turn();
    let mut site = Site::with("limits.connections = 1000\nqueue.workers = 20");
    let penfoldd = site.penfoldd(&["-d"]);
    let mut command = Command::new("prlimit");
    command.arg("--nofile=300:300").arg(penfoldd.get_program()).args(penfoldd.get_args());
    let daemon = Daemon::spawn(command);
    daemon.wait_words(&["limits.connections is 1000, and RLIMIT_NOFILE = 300 has room for 156"]);
    site.set("limits", "connections", "100000");
    site.configure();
    daemon.hup();
    daemon.wait_words(&["configuration and tables read again"]);
    for (name, per_session) in [("kernel.pid_max", 1), ("vm.max_map_count", 4)] {
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        let maximum: u64 = fs::read_to_string(file).expect("a setting").trim().parse().expect("a number");
        let is_warned =
            daemon.log().contains(&format!("limits.connections is 100000, and {name} = {maximum} has room for "));
        assert_eq!(is_warned, maximum < 100_000 * per_session + 256 + 1052 * per_session, "{name}: {}", daemon.log());
    }
    drop(daemon);
    site.set("limits", "connections", "1");
    let daemon = site.start();
    daemon.wait_words(&["penfoldd ", " started"]);
    assert!(!daemon.log().contains("has room for"), "{}", daemon.log());
}
