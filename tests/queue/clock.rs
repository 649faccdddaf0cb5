//! A system clock that jumps a day back or ten years ahead, and returns. Also the time zone.
//!
//! libfaketime sets the daemon's clock from a file that the test writes; without it the tests are
//! reported as skipped. No message waits for a distant time, and none bounces because the clock was
//! wrong for a while. When an attempt finds a message too old for the first time, the message does
//! not bounce yet; nor does it at any attempt within the first retry interval after that. The time
//! zone is that of TZ, as in every other program, or else that of the system.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::client::Client;
use common::mounts::Mounts;
use common::programs::{code_and_text, feed, sendmail};
use common::remote::{Conduct, Remote, Sink};
use common::{Daemon, Site};

/// A site with a daemon whose clock can be set.
struct Scene {
    site: Site,
    remote: Remote,
    clock: common::clock::Clock,
}

impl Scene {
    /// A site whose mail goes to a host that defers everything. Without libfaketime `None`.
    fn new() -> Option<Self> {
        let remote = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 not now"));
        let site = Site::with("queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"\nqueue.warn_after = \"0\"");
        site.add("routes", &format!("far.test {}", remote.host_port()));
        let clock = common::clock::Clock::new(&site)?;
        Some(Self { site, remote, clock })
    }

    fn set(&self, by: &str) {
        self.clock.set(by);
    }

    fn start(&self) -> Daemon {
        self.clock.start(&self.site, false)
    }

    /// Sets the clock, and waits for an attempt that fails. Returns the log line of that attempt.
    fn try_in_vain(&self, daemon: &Daemon, by: &str) -> String {
        let is_meant = |line: &&str| line.contains(" deferred to=<a@");
        let lines = || daemon.log().lines().filter(is_meant).map(str::to_owned).collect::<Vec<_>>();
        // An attempt that has begun with the old time must not be taken for the one that is meant.
        daemon.wait_running(&self.site, 0);
        let before = lines().len();
        self.set(by);
        // The flush is repeated, because a flush has no effect on an attempt that is just ending.
        let (mut flushed, pause) = (Instant::now(), Duration::from_secs(2));
        self.site.penfoldctl(&["flush"]);
        daemon.wait_until("an attempt", || {
            if flushed.elapsed() > pause {
                self.site.penfoldctl(&["flush"]);
                flushed = Instant::now();
            }
            lines().len() > before
        });
        lines().pop().expect("just seen")
    }
}

fn submit(daemon: &Daemon) {
    Client::new(daemon.connect()).send("jon@razorback.test", &["a@far.test"], common::client::TEXT);
    daemon.wait_words(&[" deferred to=<a@far.test>"]);
}

#[test]
fn a_clock_that_jumps_and_returns_bounces_nothing() {
    let Some(scene) = Scene::new() else { return };
    let daemon = scene.start();
    submit(&daemon);
    for by in ["+10y", "+0", "-1d", "+0", "+10y", "-1d", "+0"] {
        let line = scene.try_in_vain(&daemon, by);
        assert!(line.contains(" next="), "with {by} it is given up: {line}");
    }
    scene.remote.behave(Conduct::Sink(Sink::default()));
    scene.set("+10y");
    assert!(daemon.flush_until(&scene.site, || scene.site.spooled().is_empty()), "{}", daemon.log());
    assert_eq!(scene.remote.messages(1).len(), 1);
    assert!(daemon.terminate().success());
    assert_eq!(scene.site.mail("jon").len(), 0);
}

#[test]
fn a_retry_time_in_the_distant_future_is_ignored() {
    let Some(scene) = Scene::new() else { return };
    scene.set("+10y");
    let daemon = scene.start();
    submit(&daemon);
    scene.remote.behave(Conduct::Sink(Sink::default()));
    assert!(daemon.terminate().success());
    scene.set("+0");
    let daemon = scene.start();
    assert!(daemon.settles(&scene.site), "{}", daemon.log());
    assert_eq!(scene.remote.messages(1).len(), 1);
    assert!(daemon.terminate().success());
}

#[test]
fn a_clock_that_was_behind_at_boot_leaves_a_message_another_attempt() {
    let Some(scene) = Scene::new() else { return };
    scene.set("-20y");
    let daemon = scene.start();
    submit(&daemon);
    // With the right time the message seems 20 years old. However often the queue is flushed, no
    // attempt is the last one yet.
    for _ in 0..3 {
        let line = scene.try_in_vain(&daemon, "+0");
        assert!(line.contains(" next="), "{line}");
    }
    assert!(scene.site.mail("jon").is_empty());
    // Two hours later nothing shows that the message is younger than it seems, and it bounces.
    let line = scene.try_in_vain(&daemon, "+2h");
    assert!(!line.contains(" next="), "{line}");
    assert!(daemon.settles(&scene.site), "{}", daemon.log());
    assert!(daemon.terminate().success());
    assert_eq!(scene.site.mail("jon").len(), 1);
}

// Time zones

/// Sends messages. Returns the offsets from UTC, in hours and minutes, of the dates in a message,
/// and of the time at the beginning of the log. `run` makes the command that runs penfoldd.
fn offsets(site: &mut Site, run: &dyn Fn(&Site, &str) -> Command) -> Vec<String> {
    let daemon = Daemon::spawn(run(site, "-d"));
    // The session of a confined server knows its time zone, too.
    assert_eq!(code_and_text(&sendmail(site, &["jon"], b"hello\n")), (0, String::new()));
    let mail = String::from_utf8(daemon.wait_mail(site, "jon", 1).remove(0)).expect("text");
    let (header, _) = mail.split_once("\n\n").expect("a header");
    let fields = header.replace("\n\t", " ").replace("\n ", " ");
    let dates = fields.lines().filter(|field| field.starts_with("Date: ") || field.starts_with("Received: "));
    let mut found: Vec<String> = dates.filter_map(|field| field.rsplit(' ').next()).map(str::to_owned).collect();
    assert_eq!(found.len(), 2, "{mail}");
    drop(daemon);
    site.set("log", "to", &format!("{:?}", site.path("spool/log")));
    let printed = feed(
        &mut run(site, "-i"),
        b"EHLO here\r\nMAIL FROM:<jon@razorback>\r\nRCPT TO:<jon@razorback>\r\nDATA\r\n\r\nhello\r\n.\r\nQUIT\r\n",
    );
    assert!(printed.status.success(), "{printed:?}");
    let log = fs::read_to_string(site.path("spool/log")).expect("a log");
    let first = log.lines().next().and_then(|line| line.split(' ').next()).expect("a line");
    found.push(first.get(19..).expect("a time").replace(':', ""));
    found
}

#[test]
fn dates_are_in_the_time_zone_that_tz_names() {
    let has_zones = Path::new("/usr/share/zoneinfo/Asia/Kolkata").exists();
    if !has_zones {
        common::skipped("no tzdata is installed");
    }
    for (zone, wanted, is_file) in [
        ("Asia/Kolkata", &["+0530"][..], true),
        (":Asia/Kolkata", &["+0530"], true),
        ("/usr/share/zoneinfo/Asia/Kolkata", &["+0530"], true),
        ("Europe/Berlin", &["+0100", "+0200"], true),
        ("EST5EDT", &["-0500", "-0400"], false),
        ("JST-9", &["+0900"], false),
        ("<-03>3", &["-0300"], false),
        ("", &["+0000"], false),
        ("UTC0", &["+0000"], false),
        ("Nowhere/City", &["+0000"], false),
    ] {
        if is_file && !has_zones {
            continue;
        }
        let found = offsets(&mut Site::new(), &|site, option| {
            let mut command = site.penfoldd(&[option]);
            command.env("TZ", zone);
            command
        });
        assert!(found.iter().all(|offset| wanted.contains(&offset.as_str())), "{zone}: {found:?}");
    }
}

#[test]
fn an_unknown_time_zone_is_reported() {
    for (zone, warns) in [("Nowhere/City", true), ("JST-9", false)] {
        let site = Site::new();
        let output = site.penfoldd(&["-n"]).env("TZ", zone).output().expect("it runs");
        let printed = String::from_utf8_lossy(&output.stderr);
        let line = "TZ: Nowhere/City is not a time zone of this system: times are in UTC";
        assert_eq!(printed.contains(line), warns, "{printed}");
    }
}

#[test]
fn without_tz_the_time_zone_is_that_of_the_system() {
    let (system, other) = (Path::new("/etc/localtime"), Path::new("/usr/share/zoneinfo/Asia/Kolkata"));
    let Ok(system) = fs::canonicalize(system) else {
        common::skipped("no /etc/localtime");
        return;
    };
    if !other.exists() {
        common::skipped("no tzdata is installed");
        return;
    }
    let Some(mounts) = Mounts::new(&format!("mount --bind {} {}", other.display(), system.display())) else { return };
    let found = offsets(&mut Site::new(), &|site, option| {
        let mut command = mounts.inside(&site.penfoldd(&[option]));
        command.env_remove("TZ");
        command
    });
    assert_eq!(found, ["+0530"; 3]);
}
