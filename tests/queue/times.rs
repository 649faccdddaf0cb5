//! Release times, deadlines and priorities of messages (RFC 4865, RFC 2852, RFC 6710), from MAIL to
//! the next host.
//!
//! libfaketime sets the daemon's clock; without it the tests that need it are reported as skipped. A
//! flush wakes the queue, which then reads the clock.

use common::clock::Clock;
use common::programs::{command, feed};
use common::remote::{Remote, Sink};
use common::{Daemon, Site};

const LATER: &str = "queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"";

/// A host that offers these extensions.
fn host(keywords: &[&str]) -> Sink {
    Sink { keywords: keywords.iter().map(|&keyword| keyword.to_owned()).collect(), ..Sink::default() }
}

/// Submits a message as a local user, with these parameters of MAIL. Returns its queue id.
fn submit(site: &Site, parameters: &str, to: &str) -> String {
    submit_with(site, parameters, to, "")
}

fn submit_with(site: &Site, parameters: &str, to: &str, of_rcpt: &str) -> String {
    let dialogue = format!(
        "EHLO here\r\nMAIL FROM:<jon@razorback.test> {parameters}\r\nRCPT TO:<{to}> {of_rcpt}\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
    );
    let output = feed(&mut command(site, "sendmail", &["-bs"]), dialogue.as_bytes());
    let replies = String::from_utf8(output.stdout).expect("ASCII");
    let (before, _) = replies.split_once(" Message accepted").unwrap_or_else(|| panic!("{replies}"));
    before.rsplit(' ').next().expect("an id").to_owned()
}

/// The MAIL commands that a host has got.
fn mails(remote: &Remote) -> Vec<String> {
    let is_mail = |line: &String| line.starts_with("MAIL");
    remote.look(|seen| seen.commands.iter().map(|c| c.line.clone()).filter(is_mail).collect())
}

fn queue(site: &Site) -> String {
    site.penfoldctl(&["queue"])
}

/// The reports in jon's mailbox, when there are this many.
fn reports(daemon: &Daemon, site: &Site, count: usize) -> String {
    let reports = daemon.wait_mail(site, "jon", count);
    reports.iter().map(|report| String::from_utf8_lossy(report).into_owned()).collect()
}

// FUTURERELEASE

#[test]
fn a_message_is_kept_until_its_time_over_restarts_and_flushes() {
    let remote = Remote::sink();
    let site = Site::with(LATER);
    site.add("routes", &format!("far.test {}", remote.host_port()));
    let Some(clock) = Clock::new(&site) else { return };
    let daemon = clock.start(&site, false);
    let kept = submit(&site, "HOLDFOR=86400", "kept@far.test");
    let local = submit(&site, "HOLDFOR=172800", "jon@razorback.test");
    let early = submit(&site, "HOLDFOR=86400", "early@far.test");
    let prompt = submit(&site, "", "prompt@far.test");
    daemon.wait_words(&[&prompt, " done"]);
    assert!(queue(&site).contains("<kept@far.test>  not before 20"), "{}", queue(&site));
    assert!(site.penfoldctl(&["flush"]).is_empty());
    site.penfoldctl(&["release", &early]);
    daemon.wait_words(&[&early, " done"]);
    daemon.kill9();
    let daemon = clock.start(&site, false);
    daemon.wait_words(&["2 messages in the spool"]);
    for by in ["+0", "-1d", "+23h"] {
        clock.set(by);
        site.penfoldctl(&["flush"]);
        // The queue takes events in their order, so it has looked at the clock.
        assert!(queue(&site).contains(&kept), "{by}");
    }
    assert_eq!(remote.messages(2).len(), 2);
    clock.set("+25h");
    site.penfoldctl(&["flush"]);
    daemon.wait_words(&[&kept, " done"]);
    assert!(queue(&site).contains(&local));
    assert_eq!(site.mail("jon").len(), 0);
    clock.set("+49h");
    site.penfoldctl(&["flush"]);
    assert!(daemon.settles(&site), "{}", daemon.log());
    assert_eq!((remote.messages(3).len(), site.mail("jon").len()), (3, 1));
    assert!(daemon.terminate().success());
}

/// The age of a message counts from its release. And a time in the distant future, from a clock
/// that was ahead, does not keep the message.
#[test]
fn a_kept_message_expires_no_earlier_than_others_and_waits_for_no_distant_time() {
    let remote = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 not now"));
    let mut site = Site::with(LATER);
    site.set("queue", "expire_after", "\"5d\"");
    site.add("routes", &format!("far.test {}", remote.host_port()));
    let Some(clock) = Clock::new(&site) else { return };
    let daemon = clock.start(&site, false);
    let kept = submit(&site, "HOLDFOR=2592000", "kept@far.test");
    for (by, count) in [("+30d", 1), ("+31d", 2), ("+33d", 3)] {
        clock.set(by);
        assert!(daemon.flush_until(&site, || daemon.log().matches(" deferred to=<kept@").count() >= count));
    }
    site.penfoldctl(&["remove", &kept]);
    clock.set("+10y");
    let ahead = submit(&site, "HOLDFOR=86400", "ahead@far.test");
    clock.set("+0");
    site.penfoldctl(&["flush"]);
    daemon.wait_words(&[&ahead, " deferred to=<ahead@"]);
    assert!(daemon.terminate().success());
}

// DELIVERBY

#[test]
fn a_message_is_returned_at_its_deadline_and_not_tried_again() {
    let remote = Remote::with(host(&["DELIVERBY"]).reply("RCPT", "451 4.7.1 not now"));
    let site = Site::with(LATER);
    site.add("routes", &format!("far.test {}", remote.host_port()));
    let Some(clock) = Clock::new(&site) else { return };
    let daemon = clock.start(&site, false);
    let returned = submit(&site, "BY=600;R", "r@far.test");
    let notified = submit(&site, "BY=600;N", "n@far.test");
    daemon.wait_words(&[" deferred to=<r@far.test>"]);
    // The report at the deadline needs no NOTIFY=DELAY.
    submit_with(&site, "BY=600;N", "quiet@far.test", "NOTIFY=FAILURE");
    submit_with(&site, "BY=600;N", "never@far.test", "NOTIFY=NEVER");
    daemon.wait_words(&[" deferred to=<n@far.test>"]);
    daemon.wait_words(&[" deferred to=<quiet@far.test>"]);
    daemon.wait_words(&[" deferred to=<never@far.test>"]);
    let tried = mails(&remote).len();
    // Both are due at their deadlines, and not an hour later: the listing only wakes the queue.
    clock.set("+11m");
    queue(&site);
    let report = reports(&daemon, &site, 3);
    for words in [
        "Final-Recipient: rfc822; quiet@far.test\nAction: delayed\nStatus: 4.4.7\n",
        "<r@far.test>",
        "Action: failed",
        "Status: 5.4.7",
        "was to be delivered by 20",
        "\nDeliver-By-Date: ",
        "Final-Recipient: rfc822; n@far.test\nAction: delayed\nStatus: 4.4.7\n",
    ] {
        assert!(report.contains(words), "{words}: {report}");
    }
    assert!(!report.contains("never@far.test"), "{report}");
    daemon.wait_until("another attempt", || mails(&remote).len() > tried);
    assert!(mails(&remote).iter().skip(tried).all(|line| line.contains(" BY=-") && line.ends_with(";N")));
    assert!(!queue(&site).contains(&returned) && queue(&site).contains(&notified));
    assert!(daemon.terminate().success());
}

#[test]
fn a_deadline_goes_only_to_hosts_that_can_keep_it() {
    let plain = Remote::with(host(&["DSN", "8BITMIME"]));
    let able = Remote::with(host(&["DELIVERBY 60"]));
    let mut site = Site::with(LATER);
    // The second host gets what the first one must not get.
    let both = format!("[\"smtp://{}\", \"smtp://{}\"]", plain.address, able.address);
    site.set("remote", "smarthosts", &both);
    site.add("routes", &format!("plain.test {}", plain.host_port()));
    site.add("routes", &format!("able.test {}", able.host_port()));
    let daemon = site.start();
    submit(&site, "BY=1000;R", "r@both.test");
    submit(&site, "BY=1000;RT", "r@able.test");
    submit(&site, "BY=30;N", "n@able.test");
    submit(&site, "BY=1000;N", "n@plain.test");
    let unable = submit(&site, "BY=1000;R", "r@plain.test");
    let hasty = submit(&site, "BY=59;R", "hasty@able.test");
    assert!(daemon.settles(&site), "{}", daemon.log());
    daemon.wait_words(&[&unable, " failed to=<r@plain.test>", "dsn=5.3.3"]);
    daemon.wait_words(&[&hasty, " failed to=<hasty@able.test>", "dsn=5.4.7"]);
    let count = able.messages(3).len();
    let lines = mails(&able);
    assert!(count == 3 && lines.len() == 3, "{lines:?}");
    for (to, from, until) in [(";R", 990, 1000), (";RT", 990, 1000), (";N", 20, 30)] {
        let seconds = |line: &String| line.split_once(" BY=")?.1.strip_suffix(to)?.parse::<u32>().ok();
        assert!(lines.iter().filter_map(seconds).any(|n| (from..=until).contains(&n)), "{to}: {lines:?}");
    }
    assert_eq!(plain.messages(1).len(), 1);
    // The flag T always causes a report, and the mode N if the host does not know the deadline.
    let report = reports(&daemon, &site, 4);
    for words in ["; r@able.test\nAction: relayed", "; n@plain.test\nAction: relayed", "; r@plain.test\nAction: failed"]
    {
        assert!(report.contains(words), "{words}: {report}");
    }
    assert_eq!(site.mail("jon").len(), 4);
    let asked = |line: &str| line == "RCPT TO:<n@plain.test> NOTIFY=FAILURE,DELAY ORCPT=rfc822;n@plain.test";
    assert!(plain.look(|seen| seen.commands.iter().any(|command| asked(&command.line))));
    assert!(daemon.terminate().success());
}

// MT-PRIORITY

#[test]
fn messages_of_a_higher_priority_go_first_and_hosts_that_can_use_it_are_told() {
    let (able, plain) = (Remote::with(host(&["MT-PRIORITY"]).reply("MAIL", "451 not now")), Remote::sink());
    let mut site = Site::with(LATER);
    site.set("queue", "workers_per_destination", "1");
    site.add("routes", &format!("able.test {}", able.host_port()));
    site.add("routes", &format!("plain.test {}", plain.host_port()));
    let daemon = site.start();
    submit(&site, "MT-PRIORITY=7", "urgent@plain.test");
    assert_eq!(plain.messages(1).len(), mails(&plain).len());
    assert!(mails(&plain).iter().all(|line| !line.contains("MT-PRIORITY")));
    for priority in ["-5", "0", "3", "9"] {
        submit(&site, &format!("MT-PRIORITY={priority}"), &format!("p{priority}@able.test"));
        daemon.wait_words(&[&format!(" deferred to=<p{priority}@able.test>")]);
    }
    // A restart reads the priorities from the spool.
    assert!(daemon.terminate().success());
    able.behave(common::remote::Conduct::Sink(host(&["MT-PRIORITY"])));
    able.take();
    let daemon = site.start();
    daemon.wait_words(&["4 messages in the spool"]);
    site.penfoldctl(&["flush"]);
    assert!(daemon.settles(&site), "{}", daemon.log());
    let order: Vec<String> = able.messages(4).iter().map(|message| message.recipients.join(",")).collect();
    assert_eq!(order, ["<p9@able.test>", "<p3@able.test>", "<p0@able.test>", "<p-5@able.test>"]);
    assert!(mails(&able)[0].ends_with(" MT-PRIORITY=9"), "{:?}", mails(&able));
    assert!(daemon.terminate().success());
}
