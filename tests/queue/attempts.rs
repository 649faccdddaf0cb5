//! The queue as seen from outside: the times of attempts, restarts, `penfoldctl queue` and `flush`,
//! and destinations that do not delay each other.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::Site;
use common::client::{Client, TEXT};
use common::dns::Dns;
use common::remote::{Conduct, Remote, Sink, Then};

const SOON: &str = "queue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"";
const LATER: &str = "queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"";

fn not_now() -> Remote {
    Remote::with(Sink::default().reply("RCPT", "451 4.7.1 not now, elvis"))
}

/// Routes the mail for a domain to a remote host.
fn route(site: &Site, domain: &str, remote: &Remote) {
    site.add("routes", &format!("{domain} {}", remote.host_port()));
}

/// The number of times that a remote host has got RCPT for an address.
fn attempts(remote: &Remote, address: &str) -> usize {
    let command = format!("RCPT TO:<{address}>");
    remote.look(|seen| seen.commands.iter().filter(|c| c.line.starts_with(&command)).count())
}

fn penfoldctl(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penfoldctl"));
    command.arg("-f").arg(site.path("penfold.conf")).args(arguments).stdin(Stdio::null());
    command.output().expect("it starts")
}

/// The lines that `penfoldctl queue` prints. Without a daemon there is also a note on standard
/// error.
fn listing(site: &Site) -> Vec<String> {
    let has_daemon = UnixStream::connect(site.path("penfold.sock")).is_ok();
    let output = penfoldctl(site, &["queue"]);
    let aside = if has_daemon { "" } else { "penfoldctl: no daemon is running; this list is from the spool\n" };
    assert!(output.status.success() && output.stderr == aside.as_bytes(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

fn flush(site: &Site, arguments: &[&str]) {
    let output = penfoldctl(site, &[&["flush"], arguments].concat());
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

/// The time of the next attempt in a log line, `next=2026-11-22T10:15:00Z`, in seconds since 1970.
fn next(line: &str) -> u64 {
    let time = line.split_once(" next=").expect(line).1.split(' ').next().expect(line);
    let time: jiff::Timestamp = time.parse().expect(line);
    u64::try_from(time.as_second()).expect("after 1970")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

// Times

#[test]
fn deferred_mail_is_retried_at_the_logged_time() {
    let remote = Remote::with(Sink::default().when("RCPT", Then::Reply("451 4.7.1 not now".into()), 3));
    let site = Site::with("queue.retry_min = \"2s\"\nqueue.retry_max = \"2s\"");
    route(&site, "example.test", &remote);
    let daemon = site.start();
    daemon.submit(&["elvis@example.test"]);
    remote.messages(1);
    let times: Vec<u64> = daemon.log().lines().filter(|l| l.contains(" deferred to=<elvis")).map(next).collect();
    assert_eq!(times.len(), 3, "{}", daemon.log());
    assert!(times.windows(2).all(|pair| (1..=4).contains(&(pair[1] - pair[0]))), "{times:?}");
    let tries: Vec<Instant> =
        remote.look(|seen| seen.commands.iter().filter(|c| c.line.starts_with("RCPT")).map(|c| c.at).collect());
    for pair in tries.windows(2) {
        // The attempts are 2 seconds apart by configuration. They may be closer, because the
        // queue's clock has whole seconds, and the jitter is up to an eighth.
        assert!(pair[1] - pair[0] >= Duration::from_millis(700), "{:?}", pair[1] - pair[0]);
    }
    assert!(daemon.settles(&site));
}

#[test]
fn expired_mail_is_tried_once_more_and_bounces() {
    let remote = not_now();
    let mut site = Site::with(SOON);
    site.set("queue", "expire_after", "\"3s\"");
    route(&site, "example.test", &remote);
    let daemon = site.start();
    daemon.submit(&["elvis@example.test"]);
    let report = String::from_utf8(daemon.wait_mail(&site, "jon", 1).remove(0)).expect("ASCII");
    for words in ["attempted repeatedly", "451 4.7.1 not now, elvis", "Action: failed", "Status: 4.7.1"] {
        assert!(report.contains(words), "{words}: {report}");
    }
    assert!(daemon.settles(&site));
    assert!(attempts(&remote, "elvis@example.test") >= 2);
}

#[test]
fn nothing_bounces_before_an_attempt() {
    let remote = Remote::sink();
    let mut site = Site::with(LATER);
    route(&site, "example.test", &remote);
    let daemon = site.start();
    remote.behave(Conduct::Sink(Sink::default().reply("RCPT", "451 not now")));
    daemon.submit(&["elvis@example.test"]);
    daemon.wait_words(&[" deferred to=<elvis@"]);
    assert!(daemon.terminate().success());
    // The message expires while no daemon runs, and then the host is healthy again.
    remote.behave(Conduct::Sink(Sink::default()));
    site.set("queue", "expire_after", "\"1s\"");
    let daemon = site.start();
    // The test waits until the queue is loaded, because a flush before that has no effect.
    daemon.wait_words(&["1 message in the spool"]);
    flush(&site, &[]);
    assert_eq!(remote.messages(1).len(), 1);
    assert!(daemon.settles(&site) && site.mail("jon").is_empty());
}

#[test]
fn a_restart_after_a_kill_keeps_the_times() {
    let remote = not_now();
    let site = Site::with(LATER);
    route(&site, "example.test", &remote);
    let daemon = site.start();
    let id = daemon.submit(&["elvis@example.test"]);
    let due = next(&daemon.wait_words(&[" deferred to=<elvis@"]));
    assert!((now() + 3000..=now() + 3600).contains(&due));
    daemon.kill9();
    let daemon = site.start();
    daemon.wait_words(&["1 message in the spool"]);
    // New mail is delivered before the deferred mail is due.
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 1);
    assert_eq!(attempts(&remote, "elvis@example.test"), 1);
    remote.behave(Conduct::Sink(Sink::default()));
    flush(&site, &[&id]);
    assert_eq!(remote.messages(1)[0].recipients, ["<elvis@example.test>"]);
    assert!(daemon.settles(&site));
}

// penfoldctl

#[test]
fn flush_tries_the_named_mail_and_nothing_else() {
    let (one, two) = (not_now(), not_now());
    let site = Site::with(LATER);
    route(&site, "one.test", &one);
    route(&site, "two.test", &two);
    let daemon = site.start();
    let count = |address: &str| daemon.log().matches(&format!(" deferred to=<{address}>")).count();
    let id = daemon.submit(&["a@one.test"]);
    daemon.submit(&["b@two.test", "c@one.test"]);
    let all = || (count("a@one.test"), count("b@two.test"), count("c@one.test"));
    let becomes = |wanted| daemon.wait_until(&format!("{wanted:?}"), || all() == wanted);
    becomes((1, 1, 1));
    flush(&site, &[&id]);
    becomes((2, 1, 1));
    flush(&site, &[&id.to_lowercase()]);
    becomes((3, 1, 1));
    flush(&site, &["TWO.test"]);
    becomes((3, 2, 1));
    flush(&site, &["one.test"]);
    becomes((4, 2, 2));
    for nothing in ["three.test", "1K0TX73XAGTWX75HJY2"] {
        let output = penfoldctl(&site, &["flush", nothing]);
        let says = format!("penfoldctl: nothing waits for {nothing}\n");
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr)), (Some(69), says.into()));
    }
    flush(&site, &[]);
    becomes((5, 3, 3));
}

/// A flush takes effect even if an attempt is running.
#[test]
fn flush_during_an_attempt_causes_another_attempt() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let site = Site::with(LATER);
    site.add("routes", &format!("example.test {}", listener.local_addr().expect("bound")));
    let daemon = site.start();
    daemon.submit(&["elvis@example.test"]);
    let (silent, _) = listener.accept().expect("an attempt");
    flush(&site, &["example.test"]);
    drop(silent);
    drop(listener.accept().expect("one more"));
    let deferred = || daemon.log().matches(" deferred to=<elvis@example.test>").count();
    daemon.wait_until("the end of both", || deferred() == 2);
}

#[test]
fn flush_of_a_domain_finds_it_behind_a_smart_host() {
    let remote = not_now();
    let mut site = Site::with(LATER);
    site.set("remote", "smarthosts", &format!("[\"smtp://{}\"]", remote.address));
    let daemon = site.start();
    daemon.submit(&["a@one.test"]);
    daemon.submit(&["b@two.test"]);
    let count = |address: &str| daemon.log().matches(&format!(" deferred to=<{address}>")).count();
    let all = || (count("a@one.test"), count("b@two.test"));
    daemon.wait_until("both", || all() == (1, 1));
    flush(&site, &["one.test"]);
    daemon.wait_until("one", || all() == (2, 1));
    flush(&site, &[]);
    daemon.wait_until("the other", || all() == (3, 2));
}

#[test]
fn the_list_is_the_same_with_and_without_a_daemon() {
    let (remote, zone) = (not_now(), Dns::zone("silent.test SILENCE"));
    let mut site = Site::with(LATER);
    site.set("dns", "nameservers", &zone.nameservers());
    site.set("dns", "timeout", "\"1s\"");
    route(&site, "example.test", &remote);
    let daemon = site.start();
    assert_eq!(listing(&site), ["-- queue is empty"]);
    let one = daemon.submit(&["elvis@example.test", "jon@razorback"]);
    let two = daemon.submit_from("", &["jon@silent.test"]);
    let line = daemon.wait_words(&[&one, " deferred to=<elvis@"]);
    daemon.wait_words(&[&two, " deferred to=<jon@silent"]);
    daemon.wait_mail(&site, "jon", 1);
    daemon.wait_running(&site, 0);
    let shown = listing(&site);
    let time = line.split_once(" next=").expect("a time").1.split(' ').next().expect("a time");
    let time = time.trim_end_matches('Z').replace('T', " ");
    let sizes: Vec<u64> = [&shown[0], &shown[2]].map(|l| l.split("  ").nth(1).expect(l).parse().expect(l)).into();
    let host = format!("[127.0.0.1]:{} 451", remote.address.port());
    assert!(shown[0].starts_with(&format!("{one}  {}  ", sizes[0])), "{shown:?}");
    assert!(shown[0].ends_with("s  <jon@razorback.test>"), "{shown:?}");
    assert!(shown[1].starts_with(&format!("    <elvis@example.test>  deferred, next {time} UTC, ")), "{shown:?}");
    assert!(shown[1].contains(&host) && shown[1].ends_with(" 451 4.7.1 not now, elvis"), "{shown:?}");
    assert!(shown[2].starts_with(&two) && shown[2].ends_with("s  <>"), "{shown:?}");
    assert!(shown[3].contains("<jon@silent.test>  deferred, next ") && shown[3].contains("time"), "{shown:?}");
    assert_eq!(shown[4], format!("-- 2 messages, {} octets", sizes[0] + sizes[1]));
    assert_eq!(shown.len(), 5);
    assert!(daemon.terminate().success());
    let age = |line: &String| line.split("  ").nth(2).is_some_and(|age| age.ends_with('s'));
    let without_age = |lines: &[String]| -> Vec<String> {
        lines
            .iter()
            .map(|l| {
                if age(l) {
                    l.split("  ").enumerate().filter(|(n, _)| *n != 2).map(|(_, w)| w).collect()
                } else {
                    l.clone()
                }
            })
            .collect()
    };
    assert_eq!(without_age(&listing(&site)), without_age(&shown));
    // The list also shows a message on hold.
    fs::rename(site.path("spool/cur"), site.path("spool/hold.new")).expect("a rename");
    fs::rename(site.path("spool/hold"), site.path("spool/cur")).expect("a rename");
    fs::rename(site.path("spool/hold.new"), site.path("spool/hold")).expect("a rename");
    assert_eq!(listing(&site).iter().filter(|line| line.ends_with("  held")).count(), 2);
}

#[test]
fn one_message_is_counted_as_one() {
    let remote = not_now();
    let site = Site::with(LATER);
    route(&site, "example.test", &remote);
    let daemon = site.start();
    daemon.submit(&["elvis@example.test"]);
    daemon.wait_words(&[" deferred "]);
    let last = listing(&site).pop().expect("a line");
    assert!(last.starts_with("-- 1 message, ") && last.ends_with(" octets"), "{last}");
}

#[test]
fn penfoldctl_reports_errors_and_exits_with_codes_of_sysexits() {
    let site = Site::new();
    site.configure();
    for (arguments, code) in [
        (&[][..], 64),
        (&["-x"], 64),
        (&["queue", "x"], 64),
        (&["flush", "a", "b"], 64),
        (&["frobnicate"], 64),
        (&["flush"], 75),
    ] {
        let output = penfoldctl(&site, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("penfoldctl: "), "{output:?}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_penfoldctl")).args(["-f", "/nowhere/x", "queue"]).output();
    assert_eq!(output.expect("it starts").status.code(), Some(78));
}

#[test]
fn listing_the_queue_changes_nothing() {
    let site = Site::new();
    site.configure();
    fs::rename(site.path("spool"), site.path("elsewhere")).expect("a rename");
    let output = penfoldctl(&site, &["queue"]);
    assert_eq!(output.status.code(), Some(69));
    let says = format!("penfoldctl: list the queue in {}: ", site.path("spool").display());
    assert!(String::from_utf8_lossy(&output.stderr).starts_with(&says), "{output:?}");
    // The listing does not create a spool. If root ran it, the daemon could not use that spool.
    assert!(!site.path("spool").exists());
    fs::rename(site.path("elsewhere"), site.path("spool")).expect("a rename");
    let daemon = site.start();
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 1);
    assert!(daemon.terminate().success());
    site.write("spool/new/nonsense", "");
    assert_eq!(listing(&site), ["-- queue is empty"]);
    assert!(site.path("spool/new/nonsense").exists());
}

// Shares of the workers

#[test]
fn a_destination_has_a_limited_number_of_workers() {
    let hanging = Remote::with(Sink::default().when("MAIL", Then::Hang, usize::MAX));
    let other = Remote::sink();
    let site = Site::with("queue.workers_per_destination = 2");
    route(&site, "slow.test", &hanging);
    route(&site, "example.test", &other);
    let daemon = site.start();
    let mut client = daemon.client();
    for n in 0..6 {
        client.send("jon@razorback", &[&format!("elvis{n}@slow.test")], TEXT);
    }
    hanging.wait("two connections", |seen| seen.connections == 2);
    for _ in 0..5 {
        client.send("jon@razorback", &["jon@razorback", "elvis@example.test"], TEXT);
    }
    assert_eq!(other.messages(5).len(), 5);
    daemon.wait_mail(&site, "jon", 5);
    assert_eq!(hanging.look(|seen| seen.connections), 2);
}

#[test]
fn local_mail_does_not_wait_for_other_destinations() {
    let hanging: Vec<Remote> = (0..8).map(|_| Remote::with(Sink::default().when("CONNECT", Then::Hang, 9))).collect();
    let site = Site::with("queue.workers = 4");
    for (n, remote) in hanging.iter().enumerate() {
        route(&site, &format!("slow{n}.test"), remote);
    }
    let daemon = site.start();
    let mut client = daemon.client();
    for n in 0..hanging.len() {
        client.send("jon@razorback", &[&format!("elvis@slow{n}.test")], TEXT);
    }
    let connections = || hanging.iter().map(|remote| remote.look(|seen| seen.connections)).sum::<usize>();
    daemon.wait_until("busy workers", || connections() >= 2);
    for _ in 0..3 {
        client.send("jon@razorback", &["jon@razorback"], TEXT);
    }
    daemon.wait_mail(&site, "jon", 3);
}

#[test]
fn an_entry_that_is_removed_by_hand_is_forgotten() {
    let hanging = Remote::with(Sink::default().when("MAIL", Then::Hang, 1).reply("RCPT TO:<c@", "451 not now"));
    let refusing = Remote::with(Sink::default().when("MAIL", Then::Reply("451 not now".into()), 1));
    let mut site = Site::with(SOON);
    site.set("remote", "timeout", "\"5s\"");
    site.set("queue", "workers_per_destination", "1");
    route(&site, "slow.test", &hanging);
    route(&site, "example.test", &refusing);
    let daemon = site.start();
    let id = daemon.submit(&["a@slow.test", "b@example.test"]);
    daemon.wait_words(&[" deferred to=<b@example.test>"]);
    hanging.wait("a connection", |seen| !seen.commands.is_empty());
    while let Some(entry) = site.spooled().pop() {
        // The removal fails if the entry is just moving to cur/; then it is found again.
        let _ = fs::remove_file(entry);
    }
    // The second attempt for b finds no entry, while the attempt for a is still running. The test
    // sees that by the connection of the first attempt for b, which is closed when its worker is
    // idle.
    daemon.wait_until("the loss to be seen", || refusing.look(|seen| seen.ended > 0));
    let mut client = daemon.client();
    client.send("jon@razorback", &["c@slow.test", "jon@razorback"], TEXT);
    // When the attempt for a ends, too, the queue's counts are still right: slow.test has a free
    // worker for the next message.
    daemon.wait_words(&[&id, " deferred to=<a@slow.test>"]);
    client.send("jon@razorback", &["d@slow.test", "jon@razorback"], TEXT);
    daemon.wait_mail(&site, "jon", 2);
    assert_eq!(hanging.messages(1)[0].recipients, ["<d@slow.test>"]);
}

#[test]
fn recipients_at_one_destination_share_a_transaction_and_messages_a_connection() {
    let (remote, zone) =
        (Remote::sink(), Dns::zone("one.test MX 10 mx.test\ntwo.test MX 10 mx.test\nmx.test A 127.0.0.1"));
    let mut site = Site::with("queue.workers = 2\nqueue.workers_per_destination = 1");
    site.set("dns", "nameservers", &zone.nameservers());
    let port = remote.address.port();
    site.write("routes", &format!("one.test mx::{port}\ntwo.test mx::{port}\n"));
    let daemon = site.start();
    let mut client = daemon.client();
    for _ in 0..3 {
        client.send("jon@razorback", &["a@one.test", "b@one.test", "c@two.test", "d@one.test"], TEXT);
    }
    let messages = remote.messages(6);
    let shares = |recipients: &[&str]| messages.iter().filter(|m| m.recipients == recipients).count();
    assert_eq!((shares(&["<a@one.test>", "<b@one.test>", "<d@one.test>"]), shares(&["<c@two.test>"])), (3, 3));
    assert!(daemon.settles(&site));
    let connections = remote.look(|seen| seen.connections);
    assert!(connections < 6, "{connections} connections for six transactions");
}

// Malformed entries

#[test]
fn corrupt_entries_are_set_aside_and_the_others_are_delivered() {
    let remote = not_now();
    let site = Site::with(LATER);
    route(&site, "example.test", &remote);
    let daemon = site.start();
    for name in ["a", "b", "c"] {
        daemon.submit(&[&format!("{name}@example.test")]);
        daemon.wait_words(&[&format!(" deferred to=<{name}@example.test>")]);
    }
    daemon.kill9();
    let mut entries = site.spooled();
    entries.sort();
    let named = |path: &std::path::Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let (short, strange) = (named(&entries[0]), named(&entries[1]));
    let bytes = fs::read(&entries[0]).expect("an entry");
    fs::write(&entries[0], &bytes[..bytes.len() - 1]).expect("it is ours");
    let mut bytes = fs::read(&entries[1]).expect("an entry");
    bytes[..9].copy_from_slice(b"Penfold/9");
    fs::write(&entries[1], bytes).expect("it is ours");
    let nameless = "0123,S=9";
    site.write(&format!("spool/new/{nameless}"), "penfold/1");
    site.write(&format!("spool/cur/{}0,S=0", &short[..19]), "");
    let daemon = site.start();
    for bad in [&*short, &strange, nameless] {
        daemon.wait_words(&[bad, "is corrupt: ", "bad/"]);
        assert!(site.path("spool/bad").join(bad).exists(), "{bad}");
    }
    daemon.wait_until("one to be left", || site.spooled().len() == 1);
    remote.behave(Conduct::Sink(Sink::default()));
    flush(&site, &[]);
    assert_eq!(remote.messages(1)[0].recipients, ["<c@example.test>"]);
    assert!(daemon.settles(&site));
    Client::new(daemon.connect()).ask("QUIT", "221 ");
}

/// The administrator changes the routes and flushes once. Mail that was not flushed keeps its time.
#[test]
fn one_flush_tries_mail_whose_destination_has_changed() {
    let (site, domains) = (Site::with(LATER), ["one.test", "two.test", "stays.test"]);
    let old = domains.map(|_| not_now());
    domains.iter().zip(&old).for_each(|(domain, remote)| route(&site, domain, remote));
    let daemon = site.start();
    let id = daemon.submit(&["x@one.test", "y@two.test", "z@stays.test"]);
    for to in ["x@one.test", "y@two.test", "z@stays.test"] {
        daemon.wait_words(&[&id, &format!(" deferred to=<{to}> ")]);
    }
    let new = [Remote::sink(), Remote::sink()];
    site.write("routes", "");
    domains.iter().zip([&new[0], &new[1], &old[2]]).for_each(|(domain, remote)| route(&site, domain, remote));
    flush(&site, &["one.test"]);
    daemon.wait_words(&[&id, " sent to=<x@one.test> "]);
    assert_eq!((attempts(&new[1], "y@two.test"), attempts(&old[1], "y@two.test")), (0, 1), "{}", daemon.log());
    flush(&site, &[]);
    daemon.wait_words(&[&id, " sent to=<y@two.test> "]);
    daemon.wait_until("an attempt", || attempts(&old[2], "z@stays.test") == 2);
}
