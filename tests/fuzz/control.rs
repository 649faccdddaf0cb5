//! The control socket with the real daemon, and hostile local users.
//!
//! The users are separate processes (control.py), whose uids the daemon gets from the kernel. They
//! send requests, pass descriptors, omit parts and interrupt at random. Whatever they do, the
//! daemon serves others meanwhile, and has no more threads and descriptors afterwards than before.
//! Acknowledged mail is in its mailboxes once, under the uid of its sender, and nothing else is
//! left in the spool. Then all connections are taken, by one user and by many. Without root the
//! only user is that of the tests, which has all rights, and no connections are taken.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::holdings::Holdings;
use common::programs::copy;
use common::{Daemon, Site, TIMEOUT};
use nix::unistd::geteuid;

use super::{seconds, seed};

/// The first uid of the hostile users.
const HOSTILE: u32 = 54_321;
/// The number of hostile users, each with a process.
const HOSTILE_USERS: u32 = 3;
/// The uid of a user that sends mail meanwhile.
const FRIENDLY: u32 = 54_400;
/// If nothing changes in a daemon for this long, it is at rest.
const REST: Duration = Duration::from_millis(300);

/// The system's Python, which every user may run.
const PYTHON: &str = "/usr/bin/python3";

/// Starts the script with these arguments as a user. Without Python, reports the test as skipped
/// and returns `None`.
fn script(site: &Site, uid: u32, arguments: &[&str]) -> Option<Child> {
    if !Path::new(PYTHON).exists() {
        common::skipped(format_args!("{PYTHON} is not installed"));
        return None;
    }
    let (from, to) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/control.py"), site.path("fuzz.py"));
    if !to.exists() {
        fs::copy(from, &to).expect("a copy");
    }
    let mut command = as_user(uid, PYTHON);
    command.arg(to).arg(arguments[0]).arg(site.path("penfold.sock")).args(&arguments[1..]);
    Some(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts"))
}

/// A command that runs a program as a user with this uid and no other rights. If the tests do not
/// run as root, it is their own user.
fn as_user(uid: u32, program: &str) -> Command {
    if !geteuid().is_root() || uid == 0 {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let id = uid.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs", program]);
    command
}

/// Sends a message with sendmail as this user, and asserts that it takes a bounded time.
fn send(site: &Site, uid: u32) {
    sendmail(site, uid, &["-f", "kept", "jon"], b"Subject: kept\n\nhello\n");
}

fn sendmail(site: &Site, uid: u32, arguments: &[&str], input: &[u8]) {
    let (built, path) = (env!("CARGO_BIN_EXE_penfoldctl"), site.path("sendmail"));
    if !path.exists() {
        copy(Path::new(built), &path);
    }
    let start = Instant::now();
    let mut command = as_user(uid, &path.display().to_string());
    command.args(arguments).env("PENFOLD_CONFIG", site.path("penfold.conf"));
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("it starts");
    // The write may fail, since mailq does not read its input.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{uid}: {output:?}");
    assert!(start.elapsed() < TIMEOUT / 2, "{:?}", start.elapsed());
}

/// The value of a key in a line of the log.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let found = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {key} in {line}"))
}

/// The most lookup processes of the server, which look up users; the server has a socket to each.
const MAX_LOOKUPS: usize = 8;

/// Whether the daemon has at most the threads and descriptors that it had when it was quiet. Sockets to
/// lookup processes may be additional.
fn is_quiet(daemon: &Daemon, quiet: Holdings) -> bool {
    let now = Holdings::of(daemon.pid());
    now.threads <= quiet.threads && now.descriptors <= quiet.descriptors + MAX_LOOKUPS
}

/// The names of all files of a spool.
fn files(site: &Site) -> Vec<String> {
    let below = |dir: &str| fs::read_dir(site.path("spool").join(dir)).into_iter().flatten().flatten();
    let named =
        ["new", "cur", "hold", "bad", "tmp"].into_iter().flat_map(|dir| below(dir).map(move |file| (dir, file)));
    named.map(|(dir, file)| format!("{dir}/{}", file.file_name().display())).collect()
}

#[test]
fn malformed_requests_harm_no_other_user() {
    // Four workers start with the queue, and all others with the work.
    let settings = "limits.command_timeout = \"2s\"\nlimits.data_timeout = \"2s\"\nremote.local_only = true";
    let site = Site::with(&format!("{settings}\nqueue.workers = 4"));
    let daemon = site.start();
    send(&site, FRIENDLY);
    daemon.wait_mail(&site, "jon", 1);
    let quiet = Holdings::at_rest(daemon.pid(), REST);
    let (seed, seconds) = (seed(), seconds().to_string());
    let of = |uid: u32| script(&site, uid, &["fuzz", &(seed ^ u64::from(uid)).to_string(), &seconds]);
    let hostile: Vec<(u32, Child)> =
        (HOSTILE..HOSTILE + HOSTILE_USERS).map_while(|uid| Some((uid, of(uid)?))).collect();
    if hostile.is_empty() {
        return;
    }
    let waiting = std::thread::spawn(|| {
        hostile.into_iter().map(|(uid, child)| (uid, child.wait_with_output().expect("it ends"))).collect::<Vec<_>>()
    });
    let mut sent = 1;
    while !waiting.is_finished() {
        send(&site, FRIENDLY);
        // A user can list the queue, however many other users do.
        sendmail(&site, FRIENDLY, &["-bp"], b"");
        assert!(site.penfoldctl(&["queue"]).contains("-- "));
        sent += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut owners = HashMap::new();
    for (uid, output) in waiting.join().expect("no panic") {
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{uid}: {}", String::from_utf8_lossy(&output.stderr));
        println!("{uid}: {}", printed.lines().next_back().unwrap_or_default());
        owners.extend(printed.lines().filter_map(|line| Some((line.strip_prefix("accepted ")?.to_owned(), uid))));
    }
    // Each hostile user has sent at least the three complete dialogues of the script.
    assert!(owners.len() >= 3 * HOSTILE_USERS as usize, "too few messages were accepted: {owners:?}");
    // The accepted messages arrive, and no others.
    daemon.wait_until("an empty spool", || files(&site).is_empty());
    check_books(&daemon, &site, &owners, sent);
    daemon.wait_until("the end of all sessions", || is_quiet(&daemon, quiet));
    let log = daemon.log();
    let bug = log.lines().find(|line| line.starts_with("bug: ") || line.contains(": a bug ended"));
    assert_eq!(bug, None);
    assert!(daemon.terminate().success());
}

/// Asserts that every acknowledged message has arrived in its mailboxes once, and that the log has
/// a line for each message that has arrived.
fn check_books(daemon: &Daemon, site: &Site, owners: &HashMap<String, u32>, sent: usize) {
    let log = daemon.log();
    let accepted = log.lines().filter_map(|line| {
        let id = line.split_once(" accept from=")?.0.rsplit(' ').next()?;
        Some((id, (value(line, "uid").parse::<u32>().expect("a number"), value(line, "to"))))
    });
    let accepted: HashMap<&str, (u32, &str)> = accepted.collect();
    let me = |uid: u32| if geteuid().is_root() { uid } else { geteuid().as_raw() };
    for (id, uid) in owners {
        assert_eq!(accepted.get(id.as_str()).map(|(by, _)| *by), Some(me(*uid)), "{id}");
    }
    let all: Vec<u32> = (HOSTILE..HOSTILE + HOSTILE_USERS).chain([FRIENDLY]).map(me).collect();
    assert!(accepted.values().all(|(uid, _)| all.contains(uid)), "{accepted:?}");
    let wanted: usize = accepted.values().map(|(_, to)| to.parse::<usize>().expect("a number")).sum();
    let mail = [site.mail("jon"), site.mail("root")].concat();
    assert_eq!(mail.len(), wanted);
    let kept = mail.iter().filter(|mail| mail.windows(14).any(|part| part == b"Subject: kept\n")).count();
    assert_eq!(kept, sent);
}

/// Makes a process that takes as many connections as each of these users gets, and keeps them.
/// Returns the process, and the number of connections of each user.
fn hold(site: &Site, users: &[&str]) -> Option<(Child, Vec<usize>)> {
    let mut child = script(site, 0, &[&["hold"], users].concat())?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a pipe");
    let counts = line.strip_prefix("held ").unwrap_or_else(|| panic!("{line:?}"));
    Some((child, counts.split_whitespace().map(|count| count.parse().expect("a number")).collect()))
}

fn release(mut holder: Child) {
    drop(holder.stdin.take());
    assert!(holder.wait().expect("a child").success());
}

#[test]
fn one_user_cannot_take_all_connections() {
    if !geteuid().is_root() {
        return common::skipped("only root can act as many users");
    }
    let site = Site::with("limits.command_timeout = \"60s\"\nqueue.workers = 4");
    let daemon = site.start();
    daemon.submit(&["jon"]);
    send(&site, FRIENDLY);
    daemon.wait_mail(&site, "jon", 2);
    let quiet = Holdings::at_rest(daemon.pid(), REST);
    let hostile = HOSTILE.to_string();
    // A user's subordinate uids, in at most two ranges, may have connections of their own.
    let users = [hostile.as_str(), "100000+10", "131072+10"];
    let Some((holder, counts)) = hold(&site, &users) else { return };
    assert_eq!(counts, [40, 120, 120]);
    send(&site, 0);
    send(&site, FRIENDLY);
    daemon.submit(&["jon"]);
    assert!(site.penfoldctl(&["queue"]).contains("-- "));
    // All other users together have one more limit. Root and mail from the network have connections
    // of their own.
    let Some((others, counts)) = hold(&site, &["54500+10"]) else { return };
    assert_eq!(counts, [120]);
    send(&site, 0);
    daemon.submit(&["jon"]);
    assert!(site.penfoldctl(&["queue"]).contains("-- "));
    release(others);
    release(holder);
    daemon.wait_until("the end of all sessions", || is_quiet(&daemon, quiet));
    send(&site, HOSTILE);
    daemon.wait_mail(&site, "jon", 8);
    assert!(daemon.settles(&site));
}
