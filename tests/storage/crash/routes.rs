//! Stops the daemon before and after every step of a message whose route holds it for one of its
//! recipients: the recipient has it in `hold/` once, and the other recipient gets it once.

use std::fs;

use super::scene::{first_steps, steps};
use super::{books, site};
use common::books::{Answer, Letter, offer};
use common::{Daemon, Site, port};

fn held(site: &Site) -> usize {
    fs::read_dir(site.path("spool/hold")).expect("a spool").count()
}

/// Plays the message with a stop at a step. Returns whether the step exists.
fn stop_at(number: usize, when: &str) -> bool {
    let mut site = site();
    site.set("queue", "workers", "1");
    site.add("routes", "held.test hold: for the test");
    let fault = format!("* * {number} {when}");
    let Ok(daemon) = Daemon::spawn_until(site.with_fault(&fault), port) else { return true };
    let answer = offer(daemon.address(), &["ada@razorback", "far@held.test"], Letter::new("long-held"));
    let is_stopped = daemon.becomes_true(|| {
        let is_over = held(&site) == 1 && site.spooled().len() == 1;
        is_over || daemon.log().contains("fault: abort")
    });
    assert!(is_stopped, "{}", daemon.log());
    let log = daemon.end_log();
    let hit = log.contains("fault: abort");
    let daemon = site.start();
    let is_over = || match site.spooled().len() {
        0 => answer != Answer::Taken,
        count => count == 1 && held(&site) == 1,
    };
    assert!(daemon.flush_until(&site, is_over), "{number} {when}: {log}\n{}", daemon.log());
    let count = held(&site);
    assert_eq!((books(&site, "ada").letters("long-held"), books(&site, "ada").total()), (count, count), "{log}");
    // The held message is complete, and goes on after its release.
    site.write("routes", "held.test discard:");
    let id = site.spooled().first().and_then(|path| {
        let name = path.file_name()?.to_str()?.to_owned();
        Some(name.split(',').next()?.to_owned())
    });
    if let Some(id) = id {
        site.penfoldctl(&["release", &id]);
        daemon.wait_log(|line| line.contains(&id) && line.contains("discarded to=<far@held.test>"));
        assert!(daemon.settles(&site));
    }
    hit
}

#[test]
fn a_stop_at_any_step_of_a_held_recipient_loses_and_duplicates_nothing() {
    let begin = first_steps();
    let stop = |number| ["before", "after"].map(|when| stop_at(number, when)) == [true, true];
    let count = steps(begin + 1, |number| stop(number).then_some(1));
    assert!(count >= 15, "only {count} steps");
}
