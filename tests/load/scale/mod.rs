//! Measures costs that may grow with a million waiting messages, ten thousand recipients or fifty
//! megabytes, and costs that must not.
//!
//! The numbers are those that a debug build manages in a few seconds. The assertions are about the
//! order of events, a size or a proportion, never about speed. With PENFOLD_SCALE=1000000 the tests
//! of the queue run with that many messages, and `cargo test --release --test load figures --
//! --ignored --nocapture` prints how fast they were.
//!
//! - `process`: the resources of a daemon
//! - `signed`: large messages that are signed and verified
//! - `spool`: a spool with any number of messages

mod process;
#[cfg(feature = "mailauth")]
mod signed;
mod spool;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::client::TEXT;
use common::remote::{Conduct, Remote, Sink};
use common::stop::Stop;
use common::{Daemon, Site};
use process::{memory, peak, work};

/// The most memory that a waiting message may take, in octets.
const EACH: u64 = 300;

fn count() -> usize {
    std::env::var("PENFOLD_SCALE").map_or(50_000, |count| count.parse().expect("PENFOLD_SCALE is a number"))
}

/// A site with `count` messages that wait for hours; message `n` is for `recipient(n)`.
fn waiting(count: usize, recipient: impl Fn(usize) -> String) -> Site {
    let site = Site::with("queue.retry_min = \"4h\"\nqueue.retry_max = \"4h\"");
    spool::fill(&site.path("spool"), count, recipient);
    site.hand_over();
    site
}

/// The memory of an idle daemon with an empty queue, in octets.
fn bare() -> u64 {
    let site = Site::new();
    let daemon = site.start();
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 1);
    memory(&daemon)
}

/// Waits until the queue is loaded, however long that takes.
fn loaded(daemon: &Daemon, count: usize) {
    let line = format!("{count} messages in the spool");
    while !daemon.becomes_true(|| daemon.log().contains(&line)) {
        assert!(process::is_there(daemon), "it ended:\n{}", daemon.log());
    }
}

#[test]
fn the_daemon_listens_and_delivers_before_the_queue_is_loaded() {
    let _turn = crate::turn();
    let count = count();
    let site = waiting(count, |n| format!("elvis@d{n}.example.test"));
    let daemon = site.start();
    daemon.submit(&["jon@razorback"]);
    daemon.wait_words(&[" sent to=<jon@razorback>"]);
    loaded(&daemon, count);
    let log = daemon.log();
    let at = |what: &str| log.find(what).unwrap_or_else(|| panic!("no {what} in {log}"));
    let end = at(" messages in the spool");
    assert!(at("listening on") < end && at(" sent to=<jon@razorback>") < end, "{log}");
}

#[test]
fn a_waiting_message_needs_little_memory() {
    let _turn = crate::turn();
    let (count, bare) = (count(), bare());
    // In the first round each message has a domain of its own, so that the memory for the names
    // counts, too.
    for domains in [count, 10] {
        let site = waiting(count, |n| format!("elvis@d{}.example.test", n % domains));
        let daemon = site.start();
        loaded(&daemon, count);
        let each = memory(&daemon).saturating_sub(bare) / count as u64;
        eprintln!("{count} messages, {domains} domains: {each} octets each");
        assert!(each < EACH, "{each} octets a message");
    }
}

#[test]
fn one_destination_is_flushed_and_the_others_wait() {
    let _turn = crate::turn();
    let (count, remote) = (count(), Remote::sink());
    let site = waiting(count, |n| format!("u{n}@d{}.example.test", n / 3));
    site.add("routes", &format!("d1000.example.test {}", remote.host_port()));
    let daemon = site.start();
    loaded(&daemon, count);
    let start = Instant::now();
    site.penfoldctl(&["flush", "d1000.example.test"]);
    let took = start.elapsed();
    remote.wait("three messages", |seen| seen.messages.len() == 3);
    eprintln!("{count} messages: a domain flushed in {took:?}, delivered after {:?}", start.elapsed());
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 1);
    let log = daemon.log();
    assert_eq!((log.matches(" sent to=<u").count(), log.matches(" deferred to=").count()), (3, 0), "{log}");
}

#[test]
fn a_long_queue_is_searched_counted_and_changed() {
    let _turn = crate::turn();
    // Fewer than elsewhere: each of the messages of one domain is removed with its files.
    let count = count().min(10_000);
    // Some of the messages are for one domain.
    let site = waiting(count, |n| if n % 100 == 0 { format!("u{n}@many.test") } else { format!("u{n}@d{n}.test") });
    let daemon = site.start();
    loaded(&daemon, count);
    let timed = |arguments: &[&str]| {
        let start = Instant::now();
        let printed = site.penfoldctl(arguments);
        eprintln!("{count} messages: {arguments:?} in {:?}", start.elapsed());
        printed
    };
    let before = memory(&daemon);
    let many = count.div_ceil(100);
    let first = timed(&["queue", "--limit", "1"]);
    assert!(first.starts_with("1") && first.lines().count() == 3 && first.contains(", and there are more"), "{first}");
    assert_eq!(timed(&["queue", "--state", "running"]), "-- queue is empty\n");
    assert!(timed(&["queue", "--domain", "d1001.test"]).contains("\n-- 1 message, "));
    let counted = timed(&["queue", "--by", "domain", "--limit", "2"]);
    let is_first =
        |line: &str| line.split_whitespace().next() == Some(&many.to_string()) && line.ends_with(" many.test");
    assert!(counted.lines().nth(1).is_some_and(is_first) && counted.contains("  (others)\n"), "{counted}");
    assert!(counted.ends_with(" octets\n") && counted.contains(&format!("\n-- {count} messages, ")), "{counted}");
    assert_eq!(timed(&["remove", "-y", "--domain", "many.test"]), format!("{many} messages removed\n"));
    assert_eq!(site.spooled().len(), count - many);
    eprintln!("memory: {} KiB before, peak {} KiB", before / 1024, peak(&daemon) / 1024);
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 1);
}

#[test]
fn the_cost_of_many_recipients_is_proportional() {
    let _turn = crate::turn();
    // In the first round each recipient has a domain of its own, in the second all are in one
    // domain.
    for each in [true, false] {
        let few = work_for(1_000, each);
        let many = work_for(10_000, each);
        let ratio = many.as_secs_f64() / few.as_secs_f64();
        eprintln!("1000 recipients: {few:?}; 10000: {many:?}; {ratio:.1} times as much");
        assert!(ratio < 20.0, "{ratio}");
    }
}

/// The processor time for a message to `count` recipients. If `each`, every recipient has a domain
/// of its own.
fn work_for(count: usize, each: bool) -> Duration {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let remote = Remote::start(listener, Conduct::Sink(Sink::default()));
    let mut site = Site::new();
    site.set("limits", "recipients", "20000");
    let routes: String = (0..count)
        .map(|n| match each {
            true => format!("d{n}.test 127.9.{}.{}:{port}\n", n / 250, n % 250 + 1),
            false => format!("d{n}.test 127.9.0.1:{port}\n"),
        })
        .collect();
    site.write("routes", &routes);
    let daemon = site.start();
    let recipients: Vec<String> = (0..count).map(|n| format!("elvis@d{n}.test")).collect();
    daemon.submit(&recipients.iter().map(String::as_str).collect::<Vec<_>>());
    let arrived = || remote.look(|seen| seen.messages.iter().map(|m| m.recipients.len()).sum::<usize>());
    let mut before = usize::MAX;
    while !daemon.settles(&site) && before != arrived() {
        before = arrived();
    }
    assert_eq!(arrived(), count, "{:.2000}", daemon.log());
    daemon.wait_until("all in the log", || daemon.log().matches(" sent to=<elvis@").count() == count);
    work(&daemon)
}

/// Neither a session nor a message asks the users files of other domains than its own.
#[test]
fn the_cost_of_a_message_does_not_grow_with_the_domains() {
    let _turn = crate::turn();
    let [few, many] = [2, 1_000].map(work_with_domains);
    let ratio = many.as_secs_f64() / few.as_secs_f64();
    eprintln!("2 tables: {few:?}; 1000: {many:?}; {ratio:.1} times as much");
    assert!(ratio < 2.5, "{ratio}");
}

/// The least processor time of three rounds, each a hundred greetings with a message each, for one of `count` tables `[[domain]]`,
/// each of which has a users file of its own.
fn work_with_domains(count: usize) -> Duration {
    const MESSAGES: usize = 100;
    let mut site = Site::new();
    for number in 0..count {
        let (table, file) = (format!("domain#{number}"), format!("users-{number}"));
        site.write(&file, "jon::\n");
        site.set(&table, "names", &format!("[\"d{number}.test\"]"));
        site.set(&table, "users", &format!("\"file:{}\"", site.path(&file).display()));
    }
    let daemon = site.start();
    // The time of a thread that has ended is not known, so there is only one session.
    let mut client = daemon.greeted();
    client.send("jon@d1.test", &["jon@d1.test"], TEXT);
    daemon.wait_mail(&site, "jon", 1);
    // On a busy machine, the same work takes up to twice the time.
    let rounds = (0..3).map(|round| {
        let before = work(&daemon);
        for _ in 0..MESSAGES {
            client.ehlo();
            client.send("jon@d1.test", &["jon@d1.test"], TEXT);
        }
        daemon.wait_mail(&site, "jon", 1 + (1 + round) * MESSAGES);
        work(&daemon) - before
    });
    rounds.min().expect("rounds")
}

#[test]
fn a_large_message_needs_no_more_memory_than_a_small_one() {
    let _turn = crate::turn();
    let line = format!("{}\r\n", "x".repeat(998));
    let small = format!("{TEXT}{}", line.repeat(4));
    let big = format!("{TEXT}{}", line.repeat(50_000));
    let peaks = [small, big].map(|text| {
        let remote = Remote::sink();
        let mut site = Site::new();
        site.set("limits", "message_size", "\"60M\"");
        site.add("routes", &format!("far.test {}", remote.host_port()));
        let daemon = site.start();
        // The message is delivered by a rename, then by copies, and then to another host.
        for to in [&["jon@razorback"][..], &["jon@razorback", "root@razorback"], &["elvis@far.test"]] {
            daemon.client().send("jon@razorback.test", to, &text);
            assert!(daemon.settles(&site), "{}", daemon.log());
        }
        remote.behave(Conduct::Sink(Sink::default().reply("RCPT", "550 no")));
        daemon.client().send("jon@razorback.test", &["elvis@far.test"], &text);
        daemon.wait_mail(&site, "jon", 3);
        assert!(daemon.settles(&site) && site.mail("jon").len() == 3 && site.mail("root").len() == 1);
        assert_eq!(remote.look(|seen| seen.messages[0].data.len()), text.len() + received(&remote));
        peak(&daemon)
    });
    eprintln!("the most memory: {} KiB, and {} KiB", peaks[0] / 1024, peaks[1] / 1024);
    assert!(peaks[1] < peaks[0] + (1 << 20), "{peaks:?}");
}

/// An 8-bit message goes to a host without 8BITMIME, and a binary message to a mailbox.
#[test]
fn a_large_converted_message_needs_no_more_memory_than_a_small_one() {
    let _turn = crate::turn();
    let peaks = [4, 4_000].map(|lines| {
        let mut sink = Sink::default();
        sink.keywords.retain(|keyword| keyword != "8BITMIME");
        let (remote, site) = (Remote::with(sink), Site::new());
        site.add("routes", &format!("far.test {}", remote.host_port()));
        let daemon = site.start();
        let text = format!("{TEXT}{}", format!("{}\r\n", "\u{f6}".repeat(499)).repeat(lines));
        daemon.client().send("jon@razorback.test", &["elvis@far.test"], &text);
        let header = "MIME-Version: 1.0\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: binary\r\n\r\n";
        let binary = format!("{header}{}", "\0\r\u{1}\n".repeat(250 * lines));
        let mut client = daemon.greeted();
        client.ask("MAIL FROM:<jon@razorback.test> BODY=BINARYMIME", "250 ");
        client.ask("RCPT TO:<jon@razorback>", "250 ");
        client.send_text(&format!("BDAT {} LAST\r\n{binary}", binary.len()));
        client.expect("250 ");
        let mail = daemon.wait_mail(&site, "jon", 1);
        let received = remote.messages(1);
        assert!(daemon.settles(&site), "{}", daemon.log());
        // Base64 has four octets for three.
        assert!(mail[0].is_ascii() && mail[0].len() > (binary.len() - header.len()) / 3 * 4);
        assert!(received[0].data.is_ascii() && received[0].data.len() > text.len());
        peak(&daemon)
    });
    eprintln!("the most memory: {} KiB, and {} KiB", peaks[0] / 1024, peaks[1] / 1024);
    assert!(peaks[1] < peaks[0] + (1 << 20), "{peaks:?}");
}

/// The length of the Received: field in the message that the remote host got.
fn received(remote: &Remote) -> usize {
    remote.look(|seen| {
        let data = &seen.messages[0].data;
        data.windows(9).position(|w| w == b"Subject: ").expect("a message")
    })
}

/// Prints the speed of the daemon with a long queue.
#[test]
#[ignore = "it takes minutes and a release build"]
fn figures() {
    let _turn = crate::turn();
    let count = count();
    let site = Site::new();
    let daemon = site.start();
    let before = rate(&daemon, &|since| since > Duration::from_secs(10));
    drop(daemon);
    let mut site = waiting(count, |n| format!("elvis@d{n}.example.test"));
    site.set("listen#2", "address", "\"127.0.0.1:0\"");
    site.set("listen#2", "kind", "\"status\"");
    // Pending writes of the disk would disturb the measurement.
    std::process::Command::new("sync").status().expect("sync(1)");
    let start = Instant::now();
    let daemon = site.start();
    let listening = start.elapsed();
    let is_loaded = || daemon.log().contains(" messages in the spool");
    let during = rate(&daemon, &|_| is_loaded());
    let with_mail = start.elapsed();
    let after = rate(&daemon, &|since| since > Duration::from_secs(10));
    let again = rate(&daemon, &|since| since > Duration::from_secs(10));
    drop(daemon);
    let start = Instant::now();
    let daemon = site.start();
    while !daemon.becomes_true(|| daemon.log().contains(" messages in the spool")) {}
    let alone = start.elapsed();
    let start = Instant::now();
    site.penfoldctl(&["flush", "d77.example.test"]);
    let flush = start.elapsed();
    let start = Instant::now();
    let lines = site.penfoldctl(&["queue"]).lines().count();
    let listing = start.elapsed();
    let scrapes = scrapes(&daemon);
    eprintln!("{count} messages: listening after {listening:?}");
    eprintln!("scrapes of the metrics, two seconds apart: {scrapes:?}");
    let speed = |took: Duration| count as f64 / took.as_secs_f64();
    eprintln!("loaded in {alone:?} ({:.0} a second), with mail coming in in {with_mail:?}", speed(alone));
    eprintln!(
        "accepted from ten clients a second: {before:.0} without, {during:.0} while loading, {after:.0}, {again:.0} with them"
    );
    eprintln!("flush of one in {flush:?}; {lines} lines listed in {listing:?}");
}

/// The duration of three requests for the metrics.
fn scrapes(daemon: &Daemon) -> [Duration; 3] {
    let log = daemon.log();
    let port = log.lines().filter_map(common::port).nth(1).expect("the status listener");
    [(); 3].map(|()| {
        thread::sleep(Duration::from_secs(2));
        let start = Instant::now();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it accepts");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
        let mut received = String::new();
        stream.read_to_string(&mut received).expect("the metrics");
        assert!(received.contains("\npenfold_queue_messages "), "{received}");
        start.elapsed()
    })
}

/// Ten clients send messages until `is_enough` returns true. Returns the number of messages per
/// second.
///
/// Delivered files are not removed: on some disks a new file costs more after many were deleted.
fn rate(daemon: &Daemon, is_enough: &(dyn Fn(Duration) -> bool + Sync)) -> f64 {
    let (sent, is_over, start) = (AtomicUsize::new(0), AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        let _stop = Stop(&is_over);
        for _ in 0..10 {
            scope.spawn(|| {
                let mut client = daemon.client();
                while !is_over.load(Ordering::Relaxed) {
                    client.send("jon@razorback.test", &["jon@razorback"], TEXT);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while !is_enough(start.elapsed()) {
            thread::sleep(Duration::from_millis(100));
        }
    });
    sent.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}
