//! Starts the daemon on spools in every state that a crash can leave, and checks the end of each.
//!
//! The states are the rows of the table in src/spool/mod.rs. They are created through the spool's
//! own interface, in mailboxes of the server and in those of system users. A daemon, a single queue
//! run, and daemons that are killed during recovery must all reach the same end.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use penfold::address::Address;
use penfold::envelope::{Envelope, MailOptions, Origin, Recipient};
use penfold::spool::{Derivation, Entry, EntryName, NewEntry, Place, ReportedEvent, Spool, State, Step, Success};

use super::{Chance, books, homes, site};
use common::books::{Letter, SENDER};
use common::mounts::Mounts;
use common::remote::{Remote, Sink};
use common::{Daemon, Site, TIMEOUT, own};
use nix::unistd::geteuid;

/// A site with the spool that a crash has left.
struct Scene {
    site: Site,
    /// The namespace with the system users; `None` if the mailboxes are the server's.
    homes: Option<Mounts>,
    spool: Arc<Spool>,
}

/// One letter, to be put into the state that a crash leaves.
struct Left<'a> {
    scene: &'a Scene,
    token: &'a str,
}

/// The end of a letter: its number of copies for ada and for bob, the number of reports about it,
/// and the number of its entries in the spool.
type End = [usize; 4];

/// A function that puts a letter into a state.
type Change = fn(&Left<'_>);

/// The states of the table in src/spool/mod.rs, each with the end that it must have.
const STATES: &[(&str, Change, End)] = &[
    ("bare", |left| drop(left.bare()), [1, 0, 0, 0]),
    ("bare-made-full-in-part", |left| left.bare_with_temporary(), [1, 0, 0, 0]),
    ("bare-and-full", |left| left.twins(), [1, 0, 0, 0]),
    // A power cut on btrfs can leave both the old and the new name of a rename.
    ("bare-and-delivered", |left| left.bare_in("new"), [1, 0, 0, 0]),
    ("bare-and-delivered-and-seen", |left| left.bare_in("cur"), [1, 0, 0, 0]),
    ("todo", |left| drop(left.full(&["ada", "bob"])), [1, 1, 0, 0]),
    ("todo-tried", |left| left.full(&["ada"]).move_to_cur().expect("a rename"), [1, 0, 0, 0]),
    ("copy-in-part", |left| left.copy_in_part(), [1, 0, 0, 0]),
    ("prepared-in-tmp", |left| drop(left.prepared(0)), [1, 0, 0, 0]),
    ("prepared-in-new", |left| left.prepared_moved(0, Some("new")), [1, 0, 0, 0]),
    ("prepared-in-cur", |left| left.prepared_moved(0, Some("cur")), [1, 0, 0, 0]),
    ("prepared-in-tmp-and-new", |left| left.prepared_linked("new"), [1, 0, 0, 0]),
    ("prepared-in-tmp-and-cur", |left| left.prepared_linked("cur"), [1, 0, 0, 0]),
    // A name outside the mailbox, such as that of a backup, does not show that the copy was
    // delivered.
    ("prepared-in-tmp-and-saved", |left| left.prepared_linked("tmp"), [1, 0, 0, 0]),
    // The owner has read the delivered message, and deleted it.
    ("prepared-gone", |left| left.prepared_moved(0, None), [0, 0, 0, 0]),
    ("prepared-elsewhere", |left| left.prepared_elsewhere(), [0, 0, 0, 1]),
    ("prepared-nowhere", |left| left.prepared_nowhere(), [0, 0, 0, 1]),
    ("old-in-tmp", |left| drop(left.prepared(2 * DAY)), [1, 0, 0, 0]),
    ("old-in-new", |left| left.prepared_moved(2 * DAY, Some("new")), [1, 0, 0, 0]),
    ("old-in-cur", |left| left.prepared_moved(2 * DAY, Some("cur")), [1, 0, 0, 0]),
    // After two days it is not certain that the owner has deleted the message. In doubt the message
    // is delivered twice rather than not at all.
    ("old-gone", |left| left.prepared_moved(2 * DAY, None), [1, 0, 0, 0]),
    ("mixed", |left| left.mixed(), [1, 0, 0, 0]),
    ("done", |left| left.settled(State::Done), [0, 0, 0, 0]),
    ("failed", |left| left.settled(State::Failed), [0, 0, 0, 0]),
    ("unknown-user", |left| drop(left.full(&["ghost", "ada"])), [1, 0, 1, 0]),
    ("unknown-user-bare", |left| left.bare_for_nobody(), [0, 0, 1, 0]),
    ("report-in-tmp", |left| left.reported(&["ghost"], Some("tmp")), [0, 0, 1, 0]),
    ("report-in-new", |left| left.reported(&["ghost"], Some("new")), [0, 0, 1, 0]),
    ("report-in-tmp-and-new", |left| left.report_linked(), [0, 0, 1, 0]),
    ("report-gone", |left| left.reported(&["ghost"], None), [0, 0, 0, 0]),
    ("report-of-two", |left| left.reported(&["ghost", "spook"], Some("tmp")), [0, 0, 1, 0]),
    ("report-of-two-in-new", |left| left.reported(&["ghost", "spook"], Some("new")), [0, 0, 1, 0]),
    // After the crash the two recipients have different routes, so there are two reports.
    ("report-of-two-routes", |left| left.reported(&["ghost", "spook@far.test"], Some("tmp")), [0, 0, 2, 0]),
    ("success-unreported", |left| left.settled(State::Unreported(Success::Delivered)), [0, 0, 1, 0]),
    ("success-in-tmp", |left| left.told(SUCCESS, Some("tmp")), [0, 0, 1, 0]),
    ("success-in-new", |left| left.told(SUCCESS, Some("new")), [0, 0, 1, 0]),
    ("success-gone", |left| left.told(SUCCESS, None), [0, 0, 0, 0]),
    // The message itself is delivered after the crash, so a warning that was not sent is not needed.
    ("delay-in-tmp", |left| left.told(ReportedEvent::Delay, Some("tmp")), [1, 0, 0, 0]),
    ("delay-in-new", |left| left.told(ReportedEvent::Delay, Some("new")), [1, 0, 1, 0]),
    ("delay-gone", |left| left.told(ReportedEvent::Delay, None), [1, 0, 0, 0]),
    ("passed-in-tmp", |left| left.passed(Some("tmp")), [1, 0, 0, 0]),
    ("passed-in-new", |left| left.passed(Some("new")), [0, 1, 0, 0]),
    ("passed-gone", |left| left.passed(None), [0, 0, 0, 0]),
    ("held", |left| left.held(), [0, 0, 0, 1]),
];

/// The states in the middle of a handover, in which the spool file becomes a system user's own.
const GIVEN: &[(&str, Change, End)] = &[
    ("marked", |left| left.given("nobody", 0o640, None), [1, 0, 0, 0]),
    ("given", |left| left.given("ada", 0o640, None), [1, 0, 0, 0]),
    ("given-and-in-new", |left| left.given("ada", 0o640, Some("new")), [1, 0, 0, 0]),
    ("given-and-in-cur", |left| left.given("ada", 0o640, Some("cur")), [1, 0, 0, 0]),
    ("his-own", |left| left.given("ada", 0o600, Some("new")), [1, 0, 0, 0]),
    // The owner has removed the delivered message meanwhile.
    ("his-own-and-gone", |left| left.given("ada", 0o600, None), [0, 0, 0, 0]),
];

/// The states that only a rename leaves, so not a handover.
const RENAMED: &[&str] = &["bare-and-delivered", "bare-and-delivered-and-seen"];

const SUCCESS: ReportedEvent = ReportedEvent::Success(Success::Delivered);

const DAY: u64 = 86_400;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn address(user: &str) -> Address {
    let text = if user.contains('@') { user.to_owned() } else { format!("{user}@razorback.test") };
    Address::parse(&text).expect("an address")
}

impl Scene {
    /// Makes two scenes with all states at once: in mailboxes of the server, and, with root, in
    /// mailboxes of system users.
    fn both(remote: &Remote) -> impl Iterator<Item = Self> {
        let is_possible = || geteuid().is_root() && Mounts::new("true").is_some();
        [false, true]
            .into_iter()
            .filter(move |homes| !homes || is_possible())
            .map(move |homes| Self::new(remote, homes))
    }

    fn new(remote: &Remote, homes: bool) -> Self {
        let mut site = site();
        let homes = homes.then(|| homes::settle_beside(&mut site));
        site.add("routes", &format!("far.test {}", remote.host_port()));
        for user in ["ada", "bob", "ret"] {
            for sub in ["tmp", "new", "cur"] {
                fs::create_dir_all(site.mailbox(user).join(sub)).expect("a mailbox");
            }
        }
        let spool = Spool::open(&site.path("spool")).expect("a spool");
        let scene = Self { site, homes, spool };
        STATES.iter().for_each(|(token, make, _)| scene.make(token, make));
        scene.site.hand_over();
        if scene.homes.is_some() {
            homes::hand_over(&scene.site);
            GIVEN.iter().for_each(|(token, make, _)| scene.make(token, make));
        }
        scene
    }

    fn make(&self, token: &'static str, change: &Change) {
        if self.states().any(|(of, ..)| *of == token) {
            change(&Left { scene: self, token });
        }
    }

    fn states(&self) -> impl Iterator<Item = &'static (&'static str, Change, End)> {
        let homes = self.homes.is_some();
        let own = STATES.iter().filter(move |(token, ..)| !homes || !RENAMED.contains(token));
        own.chain(if homes { GIVEN } else { &[] })
    }

    fn start(&self) -> Daemon {
        self.homes.as_ref().map_or_else(|| self.site.start(), |homes| homes.start(&self.site))
    }

    /// The command for a single run of the queue.
    fn queue_run(&self) -> Command {
        let outside = self.site.penfoldd(&["-q"]);
        self.homes.as_ref().map(|homes| homes.inside(&outside)).unwrap_or(outside)
    }

    fn ends(&self) -> Vec<(&'static str, End)> {
        let (ada, bob, ret) = (books(&self.site, "ada"), books(&self.site, "bob"), books(&self.site, "ret"));
        let spooled = self.site.spooled();
        let is_in = |file: &PathBuf, token: &str| {
            fs::read(file).is_ok_and(|b| String::from_utf8_lossy(&b).contains(&format!("Subject: {token}\n")))
        };
        let end = |token| {
            let left = spooled.iter().filter(|file| is_in(file, token)).count();
            [ada.letters(token), bob.letters(token), ret.reports(token), left]
        };
        self.states().map(|(token, ..)| (*token, end(token))).collect()
    }

    fn expected(&self) -> Vec<(&'static str, End)> {
        self.states().map(|(token, _, end)| (*token, *end)).collect()
    }

    /// Asserts that each state has its end, and that the mailboxes have no other mail.
    fn check(&self) {
        assert_eq!(self.ends(), self.expected());
        let count = |dir: &str| fs::read_dir(self.site.path(dir)).map_or(0, Iterator::count);
        // spool/tmp is not looked at: its files stay until the sweep.
        assert_eq!(["spool/bad", "mail/ada/tmp", "mail/bob/tmp", "mail/ret/tmp"].map(count), [0; 4]);
        let sum = |column: usize| self.expected().iter().map(|(_, end)| end[column]).sum::<usize>();
        let total = |user| books(&self.site, user).total();
        assert_eq!([total("ada"), total("bob"), total("ret")], [sum(0), sum(1), sum(2)]);
        if self.homes.is_some() {
            homes::check(&self.site);
        }
    }
}

impl Left<'_> {
    fn keep(&self, to: &[&str], bare: bool) -> Entry {
        let envelope = Envelope {
            sender: Some(address(SENDER)),
            recipients: to.iter().map(|user| Recipient::new(address(user))).collect(),
            options: MailOptions::default(),
            origin: Origin::Client,
        };
        let mut draft = self.scene.spool.begin().expect("a draft");
        draft.write_all(self.content().as_bytes()).expect("room");
        let name = draft.commit(&NewEntry { is_direct: bare, ..NewEntry::queued(&envelope, "") }).expect("a commit");
        self.scene.spool.entry(name).expect("an entry")
    }

    fn content(&self) -> String {
        format!("Received: from a test\n{}", Letter::new(self.token).text())
    }

    fn bare(&self) -> Entry {
        self.keep(&["ada"], true)
    }

    fn full(&self, to: &[&str]) -> Entry {
        self.keep(to, false)
    }

    fn bare_for_nobody(&self) {
        self.keep(&["ghost"], true);
    }

    fn path(&self, name: EntryName) -> PathBuf {
        let place = if name.place == Place::New { "new" } else { "cur" };
        self.scene.site.path("spool").join(place).join(name.file_name())
    }

    /// Gives a spool file that is to be renamed a second name in ada's mailbox, as a power cut
    /// during the rename can. `place` is `new` or `cur`.
    fn bare_in(&self, place: &str) {
        let entry = self.bare();
        let name = format!("{}.{}-0.razorback.test,S={}", entry.id().seconds(), entry.id(), entry.name().size);
        let seen = self.scene.site.mailbox("ada").join(place).join(name);
        fs::hard_link(self.path(entry.name()), seen).expect("a link");
    }

    /// Makes the spool file of a handover, with this owner and mode. If `place` is given, the file
    /// also has a name in that directory of the user's mailbox.
    fn given(&self, user: &str, mode: u32, place: Option<&str>) {
        let entry = self.bare();
        let (path, server) = (self.path(entry.name()), self.scene.site.path("spool/new"));
        own(&path);
        if user != "nobody" {
            homes::give(user, &path);
            chown(&path, None, Some(fs::metadata(server).expect("a spool").gid())).expect("chown");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        File::open(&path).and_then(|file| file.set_modified(entry.id().time())).expect("a time");
        if let Some(place) = place {
            let name = format!("{}.{}-0.razorback.test,S={}", entry.id().seconds(), entry.id(), entry.name().size);
            fs::hard_link(&path, self.scene.site.mailbox(user).join(place).join(name)).expect("a link");
        }
    }

    fn bare_with_temporary(&self) {
        let id = self.bare().id().to_string();
        fs::write(self.scene.site.path("spool/tmp").join(id), "penfold/1 head=00").expect("a file");
    }

    fn twins(&self) {
        let mut entry = self.bare();
        let (bare, bytes) = (self.path(entry.name()), fs::read(self.path(entry.name())).expect("an entry"));
        entry.make_queued().expect("a full entry");
        fs::write(bare, bytes).expect("its twin");
    }

    /// Writes the copy for the first recipient, or its first `octets`, to `tmp/` of the mailbox.
    /// Returns the path.
    fn write_copy(&self, entry: &Entry, user: &str, octets: usize) -> PathBuf {
        let text = format!("Return-Path: <{SENDER}>\nDelivered-To: {}\n{}", address(user), self.content());
        let name = format!("{}.{}-0.razorback.test,S={}", entry.id().seconds(), entry.id(), text.len());
        let path = self.scene.site.mailbox(user).join("tmp").join(name);
        fs::write(&path, &text.as_bytes()[..octets.min(text.len())]).expect("a copy");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        path
    }

    fn copy_in_part(&self) {
        let entry = self.full(&["ada"]);
        self.write_copy(&entry, "ada", 30);
    }

    /// Makes a copy for ada that was prepared `ago` seconds ago. Returns its path in `tmp/`.
    fn prepared(&self, ago: u64) -> PathBuf {
        self.prepared_for("ada", ago)
    }

    fn prepared_for(&self, user: &str, ago: u64) -> PathBuf {
        let mut entry = self.full(&[user]);
        let path = self.write_copy(&entry, user, usize::MAX);
        let (born, inode) = self.identity(user);
        entry.prepare(0, born, inode, now() - ago).expect("a record");
        path
    }

    fn prepared_moved(&self, ago: u64, to: Option<&str>) {
        let path = self.prepared(ago);
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        match to {
            Some("cur") => fs::rename(path, self.scene.site.mailbox("ada").join("cur").join(name + ":2,S")),
            Some(to) => fs::rename(path, self.scene.site.mailbox("ada").join(to).join(name)),
            None => fs::remove_file(path),
        }
        .expect("a rename");
    }

    fn prepared_linked(&self, to: &str) {
        let path = self.prepared(0);
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
        let other = match to {
            "tmp" => self.scene.site.path(&format!("saved-{}", self.token)),
            to => self.scene.site.mailbox("ada").join(to).join(name),
        };
        fs::hard_link(&path, other).expect("a link");
    }

    fn prepared_elsewhere(&self) {
        let (born, inode) = self.identity("ada");
        self.full(&["ada"]).prepare(0, born, inode + 1, now()).expect("a record");
    }

    /// The birth time, in nanoseconds since the epoch, and the inode of `tmp/` of a mailbox. They
    /// identify the directory.
    fn identity(&self, user: &str) -> (u64, u64) {
        let tmp = fs::metadata(self.scene.site.mailbox(user).join("tmp")).expect("a directory");
        let born =
            tmp.created().map_or(0, |born| born.duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64);
        (born, tmp.ino())
    }

    fn prepared_nowhere(&self) {
        self.full(&["eve"]).prepare(0, 1, 2, now()).expect("a record");
    }

    fn mixed(&self) {
        let mut entry = self.full(&["ada", "bob", "ghost", "cyd"]);
        entry.move_to_cur().expect("a rename");
        for (number, state) in [(1, State::Done), (2, State::Failed), (3, State::Done)] {
            entry.settle(number, state, now()).expect("a record");
        }
    }

    fn settled(&self, state: State) {
        let mut entry = self.full(&["ada", "bob"]);
        [0, 1].into_iter().for_each(|number| entry.settle(number, state, now()).expect("a record"));
    }

    fn held(&self) {
        let name = self.full(&["ada"]).name();
        fs::rename(self.path(name), self.scene.site.path("spool/hold").join(name.file_name())).expect("a rename");
    }

    /// Makes a report that has both its names, in `new/` and in `tmp/` of the spool.
    fn report_linked(&self) {
        let new = self.scene.site.path("spool/new");
        let names =
            || fs::read_dir(&new).expect("a spool").map(|file| file.expect("a file").path()).collect::<Vec<_>>();
        let before = names();
        self.reported(&["ghost"], Some("new"));
        let text = |path: &PathBuf| fs::read_to_string(path).expect("an entry");
        let report = names().into_iter().find(|path| !before.contains(path) && text(path).contains("--x--"));
        let report = report.expect("a report");
        let id = report.file_name().and_then(|n| n.to_str()).and_then(|n| n.split(',').next()).expect("an id");
        fs::hard_link(&report, self.scene.site.path("spool/tmp").join(id)).expect("a link");
    }

    /// Makes a message to ada that is passed on to bob. `place` is the directory of the spool with
    /// the message to bob, which is gone if it is `None`.
    fn passed(&self, place: Option<&str>) {
        let mut entry = self.full(&["ada"]);
        let onward = Envelope {
            sender: Some(address(SENDER)),
            recipients: vec![Recipient::new(address("bob"))],
            options: MailOptions::default(),
            origin: Origin::Client,
        };
        let at = now();
        let descent = Derivation { steps: vec![Step::list("list")], shares: vec![7], folder: None };
        let child =
            entry.forward((0, None), (&onward, &descent), "Delivered-To: ada@razorback.test\n", at).expect("an entry");
        // The record goes back to the state that it had before it was last overwritten.
        entry.settle(0, State::Forwarded { success: None }, at).expect("a record");
        match place {
            Some("tmp") => fs::rename(self.path(child), self.scene.site.path("spool/tmp").join(child.id.to_string())),
            Some(_) => Ok(()),
            None => fs::remove_file(self.path(child)),
        }
        .expect("an entry");
    }

    fn reported(&self, to: &[&str], place: Option<&str>) {
        self.reported_as(to, ReportedEvent::Failure, place);
    }

    /// Makes a report of an event about ada.
    fn told(&self, event: ReportedEvent, place: Option<&str>) {
        self.reported_as(&["ada"], event, place);
    }

    fn reported_as(&self, to: &[&str], event: ReportedEvent, place: Option<&str>) {
        let mut entry = self.full(to);
        let events: Vec<_> = (0..to.len()).map(|number| (number, event)).collect();
        let report = Envelope {
            sender: None,
            recipients: vec![Recipient::new(address("ret"))],
            options: MailOptions::default(),
            origin: Origin::Report,
        };
        let text = |_| format!("Received: from a test\n\nSubject: {}\n--x--\n", self.token).into_bytes();
        // The name of the report contains this time, so the records must have the same.
        // A message that was delayed a day ago is due again.
        let at = if event == ReportedEvent::Delay { now() - DAY } else { now() };
        let child = entry.create_report(&events, &report, text, at).expect("a report");
        // The records go back to the state that they had before they were last overwritten.
        for (number, event) in events {
            entry.settle(number, State::Reported { lead: 0, event }, at).expect("a record");
        }
        match place {
            Some("tmp") => fs::rename(self.path(child), self.scene.site.path("spool/tmp").join(child.id.to_string())),
            Some(_) => Ok(()),
            None => fs::remove_file(self.path(child)),
        }
        .expect("a report");
    }
}

fn far() -> Remote {
    Remote::with(Sink::default().reply("RCPT", "550 5.1.1 no such user"))
}

#[test]
fn every_state_after_a_crash_is_recovered() {
    let remote = far();
    for scene in Scene::both(&remote) {
        let daemon = scene.start();
        let well = daemon.becomes_true(|| scene.ends() == scene.expected());
        assert!(well || scene.ends() == scene.expected(), "{:#?}\n{}", differences(&scene), daemon.log());
        daemon.wait_log(|line| line.contains("unknown whether <ada@razorback.test> has the message"));
        for _ in 0..2 {
            daemon.wait_log(|line| line.contains("not the directory in which the message was prepared"));
        }
        assert!(daemon.terminate().success());
        scene.check();
    }
}

#[test]
fn a_single_queue_run_recovers_it_too() {
    let remote = far();
    for scene in Scene::both(&remote) {
        assert!(run(scene.queue_run()).success());
        assert_eq!(differences(&scene), []);
        scene.check();
    }
}

#[test]
fn a_crash_during_recovery_changes_nothing() {
    let (remote, mut chance) = (far(), Chance::new());
    for scene in (0..3).flat_map(|_| Scene::both(&remote)) {
        for _ in 0..4 {
            let daemon = scene.start();
            chance.sleep(0, 40);
            daemon.kill9();
        }
        let daemon = scene.start();
        let well = daemon.becomes_true(|| scene.ends() == scene.expected());
        assert!(well, "{:#?}\n{}", differences(&scene), daemon.log());
        assert!(daemon.terminate().success());
        scene.check();
    }
}

/// The states that have a wrong end, each with the actual and the expected end.
fn differences(scene: &Scene) -> Vec<(&'static str, End, End)> {
    let pairs = scene.ends().into_iter().zip(scene.expected());
    pairs.filter(|(is, should)| is != should).map(|((token, is), (_, should))| (token, is, should)).collect()
}

/// Runs a command until it ends. Panics after a timeout.
fn run(mut command: Command) -> ExitStatus {
    let mut child = command.stderr(Stdio::null()).spawn().expect("it starts");
    let end = Instant::now() + TIMEOUT;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!("{command:?} does not end");
}

#[test]
fn mail_waits_for_a_missing_mailbox() {
    let site = site();
    let spool = Spool::open(&site.path("spool")).expect("a spool");
    let scene = Scene { site, homes: None, spool };
    let (mailbox, away) = (scene.site.mailbox("eve"), scene.site.path("away"));
    for sub in ["tmp", "new", "cur"] {
        fs::create_dir_all(mailbox.join(sub)).expect("a mailbox");
    }
    Left { scene: &scene, token: "away" }.prepared_for("eve", 0);
    // An empty directory takes the place of the mailbox, as if the mailbox's disk were not mounted.
    fs::rename(&mailbox, &away).expect("a rename");
    fs::create_dir(&mailbox).expect("a directory");
    scene.site.hand_over();
    let daemon = scene.site.start();
    daemon.wait_log(|line| line.contains("deferred") && line.contains("not the directory in which"));
    fs::remove_dir(&mailbox).expect("nothing was put there");
    fs::rename(&away, &mailbox).expect("a rename");
    scene.site.hand_over();
    assert!(daemon.flush_until(&scene.site, || scene.site.spooled().is_empty()), "{}", daemon.log());
    let found = books(&scene.site, "eve");
    assert_eq!((found.letters("away"), found.total()), (1, 1));
}

#[test]
fn a_repeated_copy_is_not_prepared_before_it_is_complete() {
    let site = site();
    let spool = Spool::open(&site.path("spool")).expect("a spool");
    let scene = Scene { site, homes: None, spool };
    let mailbox = scene.site.mailbox("ada");
    for sub in ["tmp", "new", "cur"] {
        fs::create_dir_all(mailbox.join(sub)).expect("a mailbox");
    }
    Left { scene: &scene, token: "again" }.prepared_moved(2 * DAY, None);
    scene.site.hand_over();
    // The daemon cannot write the copy again. If it crashed in the middle, a part of the copy would
    // be left.
    fs::set_permissions(mailbox.join("tmp"), fs::Permissions::from_mode(0o500)).expect("a mode");
    let daemon = scene.site.start();
    daemon.wait_log(|line| line.contains("deferred") && line.contains("Permission denied"));
    daemon.kill9();
    // The entry may be in either directory, since the daemon may have been killed before it moved
    // the entry.
    let names = [Place::New, Place::Cur].map(|place| scene.spool.names(place).expect("names")).concat();
    let name = names[0];
    assert_eq!(scene.spool.entry(name).expect("an entry").recipients()[0].record.state, State::Todo);
    fs::set_permissions(mailbox.join("tmp"), fs::Permissions::from_mode(0o700)).expect("a mode");
    let daemon = scene.site.start();
    assert!(daemon.flush_until(&scene.site, || scene.site.spooled().is_empty()), "{}", daemon.log());
    let found = books(&scene.site, "ada");
    assert_eq!((found.letters("again"), found.total()), (1, 1));
}
