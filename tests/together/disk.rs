//! The spool of a host on another host, which has another name, and the same users, tables and
//! mailboxes.

use common::books::{Answer, Books, Letter, offer};
use common::remote::{Conduct, Remote, Seen, Sink};
use common::{Daemon, Site};

use super::site::move_spool;

/// The site of the host with this name. Mail for far.test goes to `far`, and the mailboxes are those of
/// `other`, if there is one.
fn host(name: &str, far: u16, other: Option<&Site>) -> Site {
    let mut site = Site::with(&format!("hostname = \"{name}\"\nqueue.retry_min = \"1s\""));
    site.add("routes", &format!("far.test 127.0.0.1:{far}"));
    site.add("aliases", "both: jon, root");
    if let Some(other) = other {
        site.set("local", "mailbox", &format!("\"{}/{{user}}\"", other.path("mail").display()));
    }
    site
}

#[test]
fn a_spool_serves_another_host_but_never_two() {
    let remote = Remote::with(Sink::default().reply("RCPT", "451 4.2.0 later"));
    let far = remote.address.port();
    let first = host("mx1.razorback.test", far, None);
    let mut second = host("mx2.razorback.test", far, Some(&first));
    let daemon = first.start();
    let id = daemon.submit(&["pat@far.test"]);
    daemon.wait_words(&[&id, " deferred to=<pat@far.test>"]);
    let held = daemon.submit(&["pat@far.test"]);
    first.penfoldctl(&["hold", &held]);

    // Both hosts see the same directory, as on a disk that they share.
    let own = second.path("spool");
    second.set("", "spool", &format!("{:?}", first.path("spool")));
    let output = second.penfoldd(&["-d"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(75), "{text}");
    assert!(text.contains(" is in use by another penfoldd"), "{text}");
    daemon.kill9();

    // The first host is dead, and its disk is in the second one.
    second.set("", "spool", &format!("{own:?}"));
    move_spool(&first, &second);
    remote.behave(Conduct::Sink(Sink::default()));
    let daemon = second.start();
    daemon.wait_log(|line| line.contains(" in the spool"));
    second.penfoldctl(&["release", &held]);
    assert!(daemon.flush_until(&second, || second.spooled().is_empty()), "{}", daemon.log());
    for message in remote.messages(2) {
        let text = String::from_utf8_lossy(&message.data).into_owned();
        assert!(text.contains("by mx1.razorback.test (penfold)") && !text.contains("mx2."), "{text}");
    }
    let is_greeted = |seen: &Seen| seen.commands.iter().any(|command| command.line == "EHLO mx2.razorback.test");
    assert!(remote.look(is_greeted));
}

/// A host stops after each step on its disk, and another one finishes the work. A mailbox gets the
/// message once, although the name of the file has the name of the host in it.
#[test]
fn a_host_that_stops_at_any_step_leaves_the_rest_to_another_one() {
    let mut stops = 0;
    for number in 1.. {
        let first = host("mx1.razorback.test", 9, None);
        let rule = format!("* * {number} after");
        let Ok(daemon) = Daemon::spawn_until(first.with_fault(&rule), common::port) else { continue };
        let letter = Letter::new("moved");
        let answer = offer(daemon.address(), &["both@razorback"], letter);
        let is_stopped = || daemon.log().contains("fault: abort");
        daemon.becomes_true(|| is_stopped() || first.spooled().is_empty());
        let stopped = is_stopped();
        daemon.kill9();
        let second = host("mx2.razorback.test", 9, Some(&first));
        move_spool(&first, &second);
        let daemon = second.start();
        assert!(daemon.settles(&second), "step {number}: {}", daemon.log());
        for user in ["jon", "root"] {
            let copies = Books::of(first.mail(user)).letters("moved");
            let expected = copies == 1 || copies == 0 && answer != Answer::Taken;
            assert!(expected, "step {number}, {user}: {copies} copies, {answer:?}\n{}", daemon.log());
        }
        if !stopped {
            break;
        }
        stops += 1;
    }
    assert!(stops >= 10, "only {stops} steps");
}
