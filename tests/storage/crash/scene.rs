//! Plays one message from the client's first command to its final state, with a fault on its way.
//!
//! A [`Case`] has the recipients and the obstacles. A [`Scene`] is a site on which a case is played
//! once: the message is offered to a daemon with a fault, a daemon without it (or with another one)
//! finishes the work, and the result is audited. An acknowledged message must be there once. A
//! message without a 250 must be there once and complete, or not at all. Nothing else may be left.
//! There is one worker and one client, so that the steps on disk come in the same order each time.

use std::collections::HashSet;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::unistd::{AccessFlags, access};

use super::cases::{Case, Mailboxes, PLAIN};
use super::{homes, people};
use common::books::{Answer, Books, Letter, offer_locally, offer_with, without_added_fields, without_conversion};
use common::mounts::Mounts;
use common::remote::{Received, Remote, Sink, Then};
use common::{Daemon, Site, own, port};

/// Plays the cases in parallel. `test` returns the number of its attempts; returns their sum.
pub fn each(cases: &[Case], test: impl Fn(&Ground, &Case) -> usize + Sync) -> usize {
    const AT_ONCE: usize = 3;
    let (ground, next, total) = (Ground::new(), AtomicUsize::new(0), AtomicUsize::new(0));
    let take = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
            if !ground.has(case.mailboxes) {
                continue;
            }
            let count = test(&ground, case);
            println!("{:24} {count:4}", case.name);
            total.fetch_add(count, Ordering::SeqCst);
        }
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(take))));
    let total = total.into_inner();
    println!("{:24} {total:4}", "in all");
    total
}

/// The directory for scratch files. A file system in memory is fast, and survives kills.
fn memory() -> &'static Path {
    let memory = Path::new("/dev/shm");
    let is_usable = access(memory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    if is_usable { memory } else { Box::leak(env::temp_dir().into_boxed_path()) }
}

/// The file systems for mailboxes that are not beside the spool.
pub struct Ground {
    scratch: Site,
    mounts: Option<Mounts>,
    count: AtomicUsize,
}

impl Ground {
    fn new() -> Self {
        let scratch = Site::below(memory());
        let [disk, bound] = ["disk", "bound"].map(|name| {
            fs::create_dir(scratch.path(name)).expect("a directory");
            scratch.path(name).display().to_string()
        });
        let mounts = Mounts::new(&format!("mount -t tmpfs tmpfs {disk} && mount --bind {bound} {bound}"));
        Self { scratch, mounts, count: AtomicUsize::new(0) }
    }

    fn has(&self, mailboxes: Mailboxes) -> bool {
        self.mounts.is_some() || matches!(mailboxes, Mailboxes::There | Mailboxes::Missing | Mailboxes::Limited)
    }

    /// Makes a directory for mailboxes in one of the mounts. Returns its path as the daemon sees
    /// it.
    fn directory(&self, mount: &str) -> PathBuf {
        let path = self.scratch.path(mount).join(self.count.fetch_add(1, Ordering::SeqCst).to_string()).join("mail");
        let seen = self.mounts.as_ref().expect("looked at before").path(&path);
        fs::create_dir_all(&seen).expect("a directory");
        own(&seen);
        path
    }
}

/// The answer to an offered message, and the log of the daemon.
pub struct Offer {
    pub answer: Answer,
    pub log: String,
}

/// A site on which a case is played once.
pub struct Scene<'a> {
    pub case: &'a Case,
    pub site: Site,
    pub remote: Remote,
    mounts: Option<&'a Mounts>,
    /// The namespace with the system users; `None` if the mailboxes are the server's.
    homes: Option<Mounts>,
    mail: PathBuf,
    /// The mailboxes of other.test.
    other: Option<PathBuf>,
    /// What is printed if the test fails: the command and the fault rules of each process, and the
    /// logs.
    said: Vec<String>,
}

impl<'a> Scene<'a> {
    pub fn new(ground: &'a Ground, case: &'a Case) -> Self {
        let mut sink = Sink::host_and_store();
        sink.keywords.retain(|keyword| keyword != "8BITMIME" || !case.name.starts_with("odd"));
        let sink = sink.reply("RCPT TO:<void", "550 5.1.1 no such user");
        let sink = sink.reply(". <full", "552 5.2.2 mailbox full");
        let sink = sink.when(". <slow", Then::Reply("451 4.3.0 not now".to_owned()), 1);
        let sink = sink.when("RCPT TO:<slow@far", Then::Reply("451 4.7.1 not now".to_owned()), 1);
        let (mut site, remote) = (people(Site::below(memory())), Remote::with(sink));
        site.add("aliases", "some: ada, ghost");
        site.add("aliases", "club: ada, bob\nowner-club: cyd");
        site.add("routes", &format!("far.test {0}\nstore.test lmtp://{0}", remote.host_port()));
        site.set("queue", "workers", "1");
        let mail = match case.mailboxes {
            Mailboxes::Elsewhere => ground.directory("disk"),
            Mailboxes::Bound => ground.directory("bound"),
            _ => site.path("mail"),
        };
        site.set("local", "mailbox", &format!("\"{}/{{user}}\"", mail.display()));
        let other = (case.mailboxes == Mailboxes::TwoDomains).then(|| ground.directory("disk"));
        other.iter().for_each(|mail| add_other_domain(&mut site, mail));
        let mounts = ground.mounts.as_ref().filter(|_| other.is_some() || mail != site.path("mail"));
        if case.mailboxes.are_limited() {
            site.set("local", "quota", "\"1M\"");
        }
        let homes = case.mailboxes.are_homes().then(|| homes::settle(&mut site));
        if case.mailboxes == Mailboxes::BoundHomes {
            let home = homes::home(&site, "jon");
            homes.iter().for_each(|homes| homes.shell(&format!("mount --bind {0} {0}", home.display())));
        }
        let scene = Self { case, site, remote, mounts, homes, mail, other, said: Vec::new() };
        let is_made = !matches!(case.mailboxes, Mailboxes::Missing | Mailboxes::NewHomes);
        for user in if is_made { &USERS[..] } else { &[] } {
            scene.directories(user).iter().for_each(|directory| fs::create_dir_all(directory).expect("a mailbox"));
            scene.give(user, &scene.maildir(user));
            scene.directories(user).iter().for_each(|directory| scene.give(user, directory));
        }
        scene
    }

    fn maildir(&self, user: &str) -> PathBuf {
        if self.homes.is_some() {
            return homes::home(&self.site, user).join("Maildir");
        }
        let other = self.other.as_ref().filter(|_| OTHERS.contains(&user));
        self.seen(&other.unwrap_or(&self.mail).join(user))
    }

    /// Makes a user the owner of a file in a mailbox.
    fn give(&self, user: &str, path: &Path) {
        if self.homes.is_some() { homes::give(user, path) } else { own(path) }
    }

    /// The path by which the test reaches a path of the daemon's namespace.
    fn seen(&self, path: &Path) -> PathBuf {
        self.mounts.map_or_else(|| path.to_owned(), |mounts| mounts.path(path))
    }

    /// The paths of `tmp`, `new` and `cur` of a user's mailbox.
    fn directories(&self, user: &str) -> [PathBuf; 3] {
        ["tmp", "new", "cur"].map(|sub| self.maildir(user).join(sub))
    }

    fn books(&self, user: &str) -> Books {
        let files = self.directories(user).into_iter().skip(1).flat_map(|d| fs::read_dir(d).into_iter().flatten());
        Books::of(files.flatten().filter_map(|file| fs::read(file.path()).ok()).collect())
    }

    /// A command that runs penfoldd with these fault rules and those of the case.
    fn penfoldd(&mut self, arguments: &[&str], rules: &str) -> Command {
        let mut outside = self.site.penfoldd(arguments);
        outside.env("PENFOLD_FAULT", format!("{rules};{}", self.case.always));
        self.said.push(format!("penfoldd {arguments:?} with {rules:?}"));
        let mounts = self.mounts.or(self.homes.as_ref());
        mounts.map(|mounts| mounts.inside(&outside)).unwrap_or(outside)
    }

    /// Starts a daemon with these fault rules. The error is its log, if the rules end the daemon
    /// before it listens.
    pub fn daemon(&mut self, rules: &str) -> Result<Daemon, String> {
        Daemon::spawn_until(self.penfoldd(&["-d"], rules), port)
    }

    pub fn token(&self) -> String {
        format!("{}{}", if self.case.long { "long-" } else { "" }, self.case.name)
    }

    /// Offers the message to a daemon with these fault rules. Lets the daemon work until it has
    /// finished or ended, or until `enough` is true of its log.
    pub fn offer(&mut self, rules: &str, enough: impl Fn(&str) -> bool) -> Offer {
        let rules = format!("{rules};{}", self.case.first);
        let daemon = match self.daemon(&rules) {
            Ok(daemon) => daemon,
            Err(log) => return Offer { answer: Answer::Lost, log },
        };
        let answer = if self.case.is_held() {
            offer_locally(&self.site.path("penfold.conf"), self.case.mail, self.case.to, Letter::new(&self.token()))
        } else {
            offer_with(daemon.address(), self.case.mail, self.case.to, Letter::new(&self.token()))
        };
        let expected = 1 + self.case.reports + self.case.passed;
        if !matches!(answer, Answer::Refused(_)) {
            daemon.becomes_true(|| {
                let log = daemon.log();
                self.flush(&log);
                // An entry that is done while the daemon reads the spool is logged twice.
                let done: HashSet<&str> = log.lines().filter(|line| line.ends_with(" done")).collect();
                done.len() >= expected || enough(&log)
            });
        }
        let log = daemon.end_log();
        self.said.push(log.clone());
        Offer { answer, log }
    }

    /// Flushes the queue, so that deferred mail is tried at once.
    fn flush(&self, log: &str) {
        if self.case.deferred || log.contains("spool: ") || log.contains(" deferred ") {
            let mut command = Command::new(env!("CARGO_BIN_EXE_penfoldctl"));
            command.arg("-f").arg(self.site.path("penfold.conf")).arg("flush");
            // The command fails if the daemon has ended.
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }

    /// Finishes the work with a daemon without faults.
    pub fn finish_with_daemon(&mut self) {
        let daemon = self.daemon("").unwrap_or_else(|log| panic!("it does not start: {log}"));
        let is_settled = || self.site.spooled().is_empty();
        // The spool is looked at twice: a report may be created in one directory while its message
        // leaves the other, and the first look may miss both.
        let settled = daemon.becomes_true(|| {
            self.flush(&daemon.log());
            is_settled() && is_settled()
        });
        assert!(settled, "left in the spool: {:?}\n{}", self.site.spooled(), daemon.log());
        daemon.kill9();
    }

    /// Runs the queue once, with these fault rules. Returns the log.
    pub fn run_queue(&mut self, rules: &str) -> String {
        let output = self.penfoldd(&["-q"], rules).output().expect("penfoldd starts");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Finishes the work with single queue runs, at most four.
    pub fn finish_with_runs(&mut self) {
        let mut log = String::new();
        for _ in 0..4 {
            log = self.run_queue("");
            if self.site.spooled().is_empty() {
                return;
            }
            if self.case.is_held() {
                // A queue run does not wait for the release.
                thread::sleep(Duration::from_millis(400));
            }
        }
        panic!("left in the spool: {:?}\n{log}", self.site.spooled());
    }

    /// Asserts that the message is everywhere once, or nowhere if it was not acknowledged. Another
    /// host may have it `max_copies` times. Returns how often the message is there, 1 or 0.
    pub fn audit(&self, answer: &Answer, max_copies: usize) -> usize {
        let (case, token) = (self.case, self.token());
        let mut found = Vec::new();
        for user in case.local {
            found.push((*user, self.books(user).letters(&token)));
        }
        let reports = self.books("ret").reports(&token);
        if case.reports > 0 {
            assert_eq!(reports % case.reports, 0, "{reports} reports");
            found.push(("reports", reports / case.reports));
        }
        let received = self.received(&token);
        let copies = |to: &str| received.iter().filter(|message| message.recipients.concat().contains(to)).count();
        let elsewhere = case.far.then_some("@far.test").into_iter().chain(case.stored.iter().copied());
        for to in elsewhere {
            assert!(copies(to) <= max_copies, "{} times at another host", copies(to));
            found.push((to, copies(to).min(1)));
        }
        assert_eq!(received.len(), found.iter().filter(|(to, _)| to.contains('@')).map(|(to, _)| copies(to)).sum());
        let expected = if *answer == Answer::Taken { 1 } else { found[0].1.min(1) };
        assert!(found.iter().all(|(_, count)| *count == expected), "{answer:?}: {found:?}");
        if self.homes.is_some() {
            homes::check(&self.site);
        }
        let total: usize = USERS.iter().map(|user| self.books(user).total()).sum();
        assert_eq!(total, expected * (case.local.len() + case.reports), "mail that nobody has sent");
        if case.mailboxes.are_limited() {
            case.local.iter().for_each(|user| self.audit_quota(user));
        }
        expected
    }

    /// Asserts that the quota of a mailbox counts what is there. A message that was counted, and whose
    /// delivery was stopped then, may be counted again by the next attempt.
    fn audit_quota(&self, user: &str) {
        let Ok(text) = fs::read_to_string(self.maildir(user).join("maildirsize")) else { return };
        let sums = text.lines().skip(1).filter_map(|line| line.trim().split_once(' ')?.0.parse::<u64>().ok());
        let (counted, there) = (sums.sum::<u64>(), self.octets(user));
        let once = Letter::new(&self.token()).text().len() as u64 + 1000;
        assert!(there <= counted && counted <= there + 2 * once, "{there} octets, counted as:\n{text}");
    }

    /// The sum of the sizes of a user's messages.
    fn octets(&self, user: &str) -> u64 {
        let files = self.directories(user).into_iter().skip(1).flat_map(|d| fs::read_dir(d).into_iter().flatten());
        files.flatten().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    }

    /// The copies that the other host and the store have.
    fn received(&self, token: &str) -> Vec<Received> {
        // The host may reply before it records the message, so the test waits for the end of its
        // connections.
        self.remote.wait("the end of all connections", |seen| seen.ended == seen.connections);
        let messages = self.remote.look(|seen| seen.messages.clone());
        for message in &messages {
            let mut text = String::from_utf8_lossy(&message.data).replace("\r\n", "\n");
            if self.case.name.starts_with("odd") {
                assert!(text.is_ascii());
                text = without_conversion(&text).expect("a conversion");
            }
            if self.case.is_held() {
                text = without_added_fields(&text);
            }
            assert!(text.ends_with(&Letter::new(token).text()), "not whole:\n{text}");
        }
        messages
    }

    /// Asserts that nothing is left in the spool and the mailboxes. For each of `stops` there may
    /// be one file: one in `tmp/` that was just being written, or a note that was just being
    /// removed. The sweep of a later run must remove it when it is old.
    pub fn check_left(&mut self, stops: usize) {
        let count = |directory: &Path| fs::read_dir(directory).map_or(0, Iterator::count);
        for place in ["new", "cur", "hold", "bad"] {
            assert_eq!(count(&self.site.path("spool").join(place)), 0, "in {place}");
        }
        for user in USERS {
            // A recount that was stopped leaves its file, which a later one removes.
            let most = if self.case.mailboxes.are_limited() { stops } else { 0 };
            assert!(count(&self.directories(user)[0]) <= most, "in tmp/ of {user}");
        }
        let swept = ["tmp", "note"].map(|place| self.site.path("spool").join(place));
        let left = || swept.iter().flat_map(|place| fs::read_dir(place).expect("a spool").flatten());
        if left().count() == 0 {
            return;
        }
        assert!(left().count() <= stops, "in tmp and note: {:?}", left().collect::<Vec<_>>());
        let old = SystemTime::now() - Duration::from_secs(37 * 3600);
        for file in left() {
            File::open(file.path()).and_then(|file| file.set_modified(old)).expect("a time");
        }
        self.run_queue("");
        assert_eq!(left().count(), 0, "in tmp and note after a sweep");
    }
}

const USERS: [&str; 5] = ["jon", "ada", "bob", "cyd", "ret"];

/// The users of other.test.
const OTHERS: [&str; 2] = ["bob", "cyd"];

/// Adds the domain other.test, whose mailboxes are in this directory. There, `list` is another list than
/// elsewhere.
fn add_other_domain(site: &mut Site, mail: &Path) {
    site.write("other-users", &OTHERS.map(|user| format!("{user}::\n")).concat());
    site.write("other-aliases", "list: bob, cyd\n");
    site.set("domain#0", "names", "[\"other.test\"]");
    site.set("domain#0", "users", &format!("\"file:{}\"", site.path("other-users").display()));
    site.set("domain#0", "aliases", &format!("{:?}", site.path("other-aliases")));
    site.set("domain#0", "mailbox", &format!("\"{}/{{user}}\"", mail.display()));
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {}: {}", self.case.name, self.said.join(", then "));
        }
    }
}

/// Tries each step from number `begin` until one does not exist, some in parallel. Returns the sum
/// of the results.
pub fn steps(begin: usize, test: impl Fn(usize) -> Option<usize> + Sync) -> usize {
    const AT_ONCE: usize = 3;
    let lane = |first: usize| (first..).step_by(AT_ONCE).map_while(&test).sum::<usize>();
    thread::scope(|scope| {
        let lanes: Vec<_> = (begin..begin + AT_ONCE).map(|first| scope.spawn(move || lane(first))).collect();
        lanes.into_iter().map(|lane| lane.join().expect("each step ends well")).sum()
    })
}

/// The number of steps that a daemon on a new spool makes before it listens.
pub fn first_steps() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let (ground, case) =
            (Ground { scratch: Site::below(memory()), mounts: None, count: AtomicUsize::new(0) }, &PLAIN);
        (1..)
            .find(|number| Scene::new(&ground, case).daemon(&format!("* * {number} before")).is_ok())
            .map_or(0, |n| n - 1)
    })
}
