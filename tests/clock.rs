//! A clock that jumps: a day back, ten years ahead, and home again.
//!
//! The daemon's clock is set by libfaketime, from a file that the test writes;
//! without it the tests say `skipped`. Nothing waits for a time that is far away,
//! and nothing comes back because of a clock that was wrong for a while: the first
//! attempt at which a message is too old is not the last, nor any within the first
//! interval after it.

mod common;

use std::time::{Duration, Instant};

use common::client::Client;
use common::remote::{Conduct, Remote, Sink};
use common::{Daemon, Site};

/// A site whose daemon has a clock of its own.
struct Scene {
    site: Site,
    remote: Remote,
    clock: common::clock::Clock,
}

impl Scene {
    /// Far hosts say not now.
    fn new() -> Option<Self> {
        let remote = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 not now"));
        let site = Site::with("queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"");
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

fn submit(daemon: &Daemon) {
    Client::new(daemon.connect()).send("jon@razorback.test", &["a@far.test"], common::client::TEXT);
    daemon.wait_words(&[" deferred to=<a@far.test>"]);
}

#[test]
fn a_clock_that_jumps_and_comes_home_sends_nothing_back() {
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
fn a_time_that_is_far_ahead_is_not_waited_for() {
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
    // However often somebody who cannot wait flushes the queue.
    for _ in 0..3 {
        let line = scene.try_in_vain(&daemon, "+0");
        assert!(line.contains(" next="), "{line}");
    }
    assert!(scene.site.mail("jon").is_empty());
    // It is as old as it seems, for all that can be told.
    let line = scene.try_in_vain(&daemon, "+2h");
    assert!(!line.contains(" next="), "{line}");
    assert!(daemon.settles(&scene.site), "{}", daemon.log());
    assert!(daemon.terminate().success());
    assert_eq!(scene.site.mail("jon").len(), 1);
}
