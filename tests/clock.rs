//! A clock that jumps: a day back, ten years ahead, and home again.
//!
//! The daemon's clock is set by libfaketime, from a file that the test writes;
//! without it the tests say `skipped`. Nothing waits for a time that is far away,
//! and nothing comes back because of a clock that was wrong for a while: the first
//! attempt at which a message is too old is not the last, nor any within the first
//! interval after it.

mod common;

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use common::client::Client;
use common::remote::{Conduct, Remote, Sink};
use common::{Daemon, Site};

/// A site whose daemon has a clock of its own.
struct Clock {
    site: Site,
    remote: Remote,
    library: PathBuf,
    daemons: RefCell<Vec<Pid>>,
}

impl Clock {
    /// Far hosts say not now; `None`, and says so, without libfaketime.
    fn new() -> Option<Self> {
        let places = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let mut libraries = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
        let Some(library) = libraries.find(|path| path.exists()) else {
            println!("skipped: libfaketime is not installed");
            return None;
        };
        let remote = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 not now"));
        let site = Site::with("queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"");
        site.add("routes", &format!("far.test {}", remote.host_port()));
        Some(Self { site, remote, library, daemons: RefCell::default() })
    }

    /// Sets it ahead or back, as in `-1d` and `+10y`; to `+0` home.
    fn set(&self, by: &str) {
        self.site.write("clock.new", by);
        fs::rename(self.site.path("clock.new"), self.site.path("clock")).expect("a rename");
    }

    fn start(&self) -> Daemon {
        let mut command = self.site.penfoldd(&["-d"]);
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", self.site.path("clock"));
        command.envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
        // What the library keeps in /dev/shm is removed only by who made it.
        let owner = fs::metadata(self.site.path("spool")).expect("a spool");
        command.uid(owner.uid()).gid(owner.gid());
        let daemon = Daemon::spawn(command);
        self.daemons.borrow_mut().push(daemon.pid());
        daemon
    }

    /// Sets the clock and makes an attempt in vain; its line of the log, or that of one
    /// that had become due by itself.
    fn try_in_vain(&self, daemon: &Daemon, by: &str) -> String {
        let is_meant = |line: &&str| line.contains(" deferred to=<a@");
        let lines = || daemon.log().lines().filter(is_meant).map(str::to_owned).collect::<Vec<_>>();
        let before = lines().len();
        self.set(by);
        // A flush that comes while the last attempt is just ending is for nothing.
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

impl Drop for Clock {
    /// A daemon that was killed by a test that failed leaves what the library made.
    fn drop(&mut self) {
        for pid in self.daemons.borrow().iter() {
            for name in ["faketime_shm_", "sem.faketime_sem_"] {
                let _ = fs::remove_file(format!("/dev/shm/{name}{pid}"));
            }
        }
    }
}

fn submit(daemon: &Daemon) {
    Client::new(daemon.connect()).send("jon@razorback.test", &["a@far.test"], common::client::TEXT);
    daemon.wait_words(&[" deferred to=<a@far.test>"]);
}

#[test]
fn a_clock_that_jumps_and_comes_home_sends_nothing_back() {
    let Some(clock) = Clock::new() else { return };
    clock.set("+0");
    let daemon = clock.start();
    submit(&daemon);
    for by in ["+10y", "+0", "-1d", "+0", "+10y", "-1d", "+0"] {
        let line = clock.try_in_vain(&daemon, by);
        assert!(line.contains(" next="), "with {by} it is given up: {line}");
    }
    clock.remote.behave(Conduct::Sink(Sink::default()));
    clock.set("+10y");
    assert!(daemon.flush_until(&clock.site, || clock.site.spooled().is_empty()), "{}", daemon.log());
    assert_eq!(clock.remote.messages(1).len(), 1);
    assert!(daemon.terminate().success());
    assert_eq!(clock.site.mail("jon").len(), 0);
}

#[test]
fn a_time_that_is_far_ahead_is_not_waited_for() {
    let Some(clock) = Clock::new() else { return };
    clock.set("+10y");
    let daemon = clock.start();
    submit(&daemon);
    clock.remote.behave(Conduct::Sink(Sink::default()));
    assert!(daemon.terminate().success());
    clock.set("+0");
    let daemon = clock.start();
    assert!(daemon.settles(&clock.site), "{}", daemon.log());
    assert_eq!(clock.remote.messages(1).len(), 1);
    assert!(daemon.terminate().success());
}

#[test]
fn a_clock_that_was_behind_at_boot_leaves_a_message_another_attempt() {
    let Some(clock) = Clock::new() else { return };
    clock.set("-20y");
    let daemon = clock.start();
    submit(&daemon);
    // However often somebody who cannot wait flushes the queue.
    for _ in 0..3 {
        let line = clock.try_in_vain(&daemon, "+0");
        assert!(line.contains(" next="), "{line}");
    }
    assert!(clock.site.mail("jon").is_empty());
    // It is as old as it seems, for all that can be told.
    let line = clock.try_in_vain(&daemon, "+2h");
    assert!(!line.contains(" next="), "{line}");
    assert!(daemon.settles(&clock.site), "{}", daemon.log());
    assert!(daemon.terminate().success());
    assert_eq!(clock.site.mail("jon").len(), 1);
}
