//! The control socket under fire, with the real daemon: users of the system who say what
//! nobody would say, for `PENFOLD_FUZZ` seconds, three by default.
//!
//! The users are processes of their own (control_fuzz.py), which the kernel names to the
//! daemon. Whatever they say, pass along, leave out or hang up in: the daemon goes on, with
//! no more threads and descriptors than before; who means well is served meanwhile; what
//! was acknowledged is in its mailboxes once, under the number of who has sent it, and
//! nothing else is left in the spool. Then all places are taken, by one user and by
//! many. A failure tells the seed, and `PENFOLD_FUZZ_SEED` makes the same choices again.
//! By who is not root it is tried as himself, who may do everything, and nothing is held.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};

use common::holdings::Holdings;
use common::{Daemon, PATIENCE, Site};
use nix::unistd::geteuid;

/// The first one of those without rights.
const STRANGER: u32 = 54_321;
/// Who means well.
const OTHER: u32 = 54_400;
/// How many say nonsense at once.
const CROWD: u32 = 3;
/// A daemon in which nothing changes for so long is at rest.
const REST: Duration = Duration::from_millis(300);

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// The system's own, which everyone may run.
const PYTHON: &str = "/usr/bin/python3";

/// The script with these arguments, as a user; `None`, and says so, where it cannot run.
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

/// A program as a user who has nothing but his number, if there is a choice.
fn as_user(uid: u32, program: &str) -> Command {
    if !geteuid().is_root() || uid == 0 {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let id = uid.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs", program]);
    command
}

/// One who means well sends a message; it takes no longer than it may.
fn send(site: &Site, uid: u32) {
    sendmail(site, uid, &["-f", "kept", "jon"], b"Subject: kept\n\nhello\n");
}

fn sendmail(site: &Site, uid: u32, arguments: &[&str], input: &[u8]) {
    let (built, path) = (env!("CARGO_BIN_EXE_penfoldctl"), site.path("sendmail"));
    if !path.exists() {
        // Not by this process: what it has open to write, another test's child has open too, and
        // such a program cannot be run.
        assert!(Command::new("cp").arg(built).arg(&path).status().expect("cp").success());
    }
    let start = Instant::now();
    let mut command = as_user(uid, &path.display().to_string());
    command.args(arguments).env("PENFOLD_CONFIG", site.path("penfold.conf"));
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("it starts");
    // A listing does not read.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{uid}: {output:?}");
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
}

/// The value of a key in a line of the log.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let found = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {key} in {line}"))
}

/// Processes that look up users for the server, with a socket each.
const NAMES: usize = 8;

/// Whether nothing is left of the clients: no thread, and no descriptor.
fn is_quiet(daemon: &Daemon, quiet: Holdings) -> bool {
    let now = Holdings::of(daemon.pid());
    now.threads == quiet.threads && now.descriptors <= quiet.descriptors + NAMES
}

/// All files of a spool.
fn files(site: &Site) -> Vec<String> {
    let below = |dir: &str| fs::read_dir(site.path("spool").join(dir)).into_iter().flatten().flatten();
    let named =
        ["new", "cur", "hold", "bad", "tmp"].into_iter().flat_map(|dir| below(dir).map(move |file| (dir, file)));
    named.map(|(dir, file)| format!("{dir}/{}", file.file_name().display())).collect()
}

#[test]
fn nonsense_hurts_nobody_but_who_says_it() {
    let site = Site::with("limits.command_timeout = \"2s\"\nlimits.data_timeout = \"2s\"\nremote.local_only = true");
    let daemon = site.start();
    send(&site, OTHER);
    daemon.wait_mail(&site, "jon", 1);
    let quiet = Holdings::at_rest(daemon.pid(), REST);
    let clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_nanos() as u64);
    let seed = number("PENFOLD_FUZZ_SEED").unwrap_or_else(clock);
    println!("PENFOLD_FUZZ_SEED={seed}");
    let seconds = number("PENFOLD_FUZZ").unwrap_or(3).to_string();
    let of = |uid: u32| script(&site, uid, &["fuzz", &(seed ^ u64::from(uid)).to_string(), &seconds]);
    let crowd: Vec<(u32, Child)> = (STRANGER..STRANGER + CROWD).map_while(|uid| Some((uid, of(uid)?))).collect();
    if crowd.is_empty() {
        return;
    }
    let waiting = std::thread::spawn(|| {
        crowd.into_iter().map(|(uid, child)| (uid, child.wait_with_output().expect("it ends"))).collect::<Vec<_>>()
    });
    let mut sent = 1;
    while !waiting.is_finished() {
        send(&site, OTHER);
        // He can look at his own, however many look at theirs.
        sendmail(&site, OTHER, &["-bp"], b"");
        assert!(site.penfoldctl(&["queue"]).contains("-- "));
        sent += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut told = HashMap::new();
    for (uid, output) in waiting.join().expect("no panic") {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{uid}: {}", String::from_utf8_lossy(&output.stderr));
        println!("{uid}: {}", said.lines().next_back().unwrap_or_default());
        told.extend(said.lines().filter_map(|line| Some((line.strip_prefix("accepted ")?.to_owned(), uid))));
    }
    // Of each the three whole dialogues, at least.
    assert!(told.len() >= 3 * CROWD as usize, "what was good did not come through: {told:?}");
    // What was taken arrives, and nothing else is there.
    daemon.wait_until("an empty spool", || files(&site).is_empty());
    check_books(&daemon, &site, &told, sent);
    daemon.wait_until("the end of all", || is_quiet(&daemon, quiet));
    let log = daemon.log();
    let bug = log.lines().find(|line| line.starts_with("bug: ") || line.contains(": a bug ended"));
    assert_eq!(bug, None);
    assert!(daemon.terminate().success());
}

/// Every message that somebody was told of, and no other one but with its line in the log, has
/// come to its mailboxes once.
fn check_books(daemon: &Daemon, site: &Site, told: &HashMap<String, u32>, sent: usize) {
    let log = daemon.log();
    let accepted = log.lines().filter_map(|line| {
        let id = line.split_once(" accept from=")?.0.rsplit(' ').next()?;
        Some((id, (value(line, "uid").parse::<u32>().expect("a number"), value(line, "to"))))
    });
    let accepted: HashMap<&str, (u32, &str)> = accepted.collect();
    let me = |uid: u32| if geteuid().is_root() { uid } else { geteuid().as_raw() };
    for (id, uid) in told {
        assert_eq!(accepted.get(id.as_str()).map(|(by, _)| *by), Some(me(*uid)), "{id}");
    }
    let all: Vec<u32> = (STRANGER..STRANGER + CROWD).chain([OTHER]).map(me).collect();
    assert!(accepted.values().all(|(uid, _)| all.contains(uid)), "{accepted:?}");
    let wanted: usize = accepted.values().map(|(_, to)| to.parse::<usize>().expect("a number")).sum();
    let mail = [site.mail("jon"), site.mail("root")].concat();
    assert_eq!(mail.len(), wanted);
    let kept = mail.iter().filter(|mail| mail.windows(14).any(|part| part == b"Subject: kept\n")).count();
    assert_eq!(kept, sent);
}

/// Takes all places that these users get, keeps them, and says how many those are.
fn hold(site: &Site, users: &[&str]) -> Option<(Child, Vec<usize>)> {
    let mut child = script(site, 0, &[&["hold"], users].concat())?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a pipe");
    let counts = line.strip_prefix("held ").unwrap_or_else(|| panic!("{line:?}"));
    Some((child, counts.split_whitespace().map(|count| count.parse().expect("a number")).collect()))
}

fn let_go(mut holder: Child) {
    drop(holder.stdin.take());
    assert!(holder.wait().expect("a child").success());
}

#[test]
fn who_takes_all_places_that_he_gets_leaves_some_for_others() {
    if !geteuid().is_root() {
        return common::skipped("only root can be many users");
    }
    let site = Site::with("limits.command_timeout = \"60s\"");
    let daemon = site.start();
    daemon.submit(&["jon"]);
    send(&site, OTHER);
    daemon.wait_mail(&site, "jon", 2);
    let quiet = Holdings::at_rest(daemon.pid(), REST);
    let stranger = STRANGER.to_string();
    // With the numbers that are subordinate to him, too: they lie in two ranges at most.
    let users = [stranger.as_str(), "100000+10", "131072+10"];
    let Some((holder, counts)) = hold(&site, &users) else { return };
    assert_eq!(counts, [40, 120, 120]);
    send(&site, 0);
    send(&site, OTHER);
    daemon.submit(&["jon"]);
    assert!(site.penfoldctl(&["queue"]).contains("-- "));
    // All who are left together; root and mail from elsewhere have places of their own.
    let Some((others, counts)) = hold(&site, &["54500+10"]) else { return };
    assert_eq!(counts, [120]);
    send(&site, 0);
    daemon.submit(&["jon"]);
    assert!(site.penfoldctl(&["queue"]).contains("-- "));
    let_go(others);
    let_go(holder);
    daemon.wait_until("the end of all", || is_quiet(&daemon, quiet));
    send(&site, STRANGER);
    daemon.wait_mail(&site, "jon", 8);
    assert!(daemon.settles(&site));
}
