//! Many hosts at once: the limits of slow and dead hosts, the share of workers that healthy hosts
//! keep, and `penfoldctl hosts`.
//!
//! The real daemon uses a scripted DNS and scripted servers. How the queue judges a destination's
//! health is tested beside the code, in src/queue; the series `internet` of `make bench` measures
//! the effects.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::client::TEXT;
use common::dns::Dns;
use common::remote::{Conduct, Remote, Sink, Speaks, Then, listeners};
use common::{Daemon, Site};

const LATER: &str = "queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"";

/// A site that uses the name server `zone`, and sends mail for these domains to their exchangers at
/// `port`.
fn site(settings: &str, zone: &Dns, port: u16, domains: impl Iterator<Item = String>) -> Site {
    let mut site = Site::with(settings);
    site.set("dns", "nameservers", &zone.nameservers());
    let routes: String = domains.map(|domain| format!("{domain} mx::{port}\n")).collect();
    site.write("routes", &routes);
    site
}

fn send(daemon: &Daemon, recipient: &str) {
    daemon.client().send("jon@razorback", &[recipient], TEXT);
}

fn silent() -> Sink {
    Sink::default().when("CONNECT", Then::Hang, usize::MAX)
}

fn deferred(daemon: &Daemon) -> usize {
    daemon.log().matches(" deferred to=<").count()
}

#[test]
fn domains_that_share_an_exchanger_share_its_connections() {
    const DOMAINS: usize = 50;
    let far = Sink::default().when("MAIL", Then::Pause(Duration::from_millis(100)), usize::MAX);
    let remote = Remote::with(far);
    let zone: String = (0..DOMAINS).map(|n| format!("d{n}.test MX 10 mx.test\n")).collect();
    let zone = Dns::zone(&(zone + "mx.test A 127.0.0.1"));
    let domains = (0..DOMAINS).map(|n| format!("d{n}.test"));
    let site = site("queue.workers_per_destination = 5", &zone, remote.address.port(), domains);
    let daemon = site.start();
    let mut client = daemon.client();
    for n in 0..2 * DOMAINS {
        client.send("jon@razorback", &[&format!("elvis@d{}.test", n % DOMAINS)], TEXT);
    }
    assert_eq!(remote.messages(2 * DOMAINS).len(), 2 * DOMAINS);
    // At most 7 connections may be open instead of 5, since the server sees the end of one a little
    // later than the client.
    let (most, connections) = remote.look(|seen| (seen.most_open, seen.connections));
    assert!((2..=7).contains(&most), "{most} connections at once");
    // All domains have the same host, so the daemon keeps a connection for the mail of the next
    // domain.
    assert!(connections < DOMAINS, "{connections} connections");
    assert!(daemon.settles(&site));
    assert_eq!(deferred(&daemon), 0);
}

#[test]
fn a_silent_address_takes_four_workers_whatever_domains_lead_there() {
    const DOMAINS: usize = 20;
    let mut ports = listeners(2).into_iter();
    let mut remote = |conduct| Remote::start(ports.next().expect("a port"), Conduct::Sink(conduct));
    let (mute, healthy) = (remote(silent()), remote(Sink::default()));
    let zone: String = (0..DOMAINS).map(|n| format!("e{n}.test MX 10 mx.evil.test\n")).collect();
    let addresses = format!("mx.evil.test A {}\nhealthy.test A {}", mute.address.ip(), healthy.address.ip());
    let zone = Dns::zone(&(zone + &addresses));
    let domains = (0..DOMAINS).map(|n| format!("e{n}.test")).chain(["healthy.test".to_owned()]);
    let site = site("queue.workers = 12", &zone, mute.address.port(), domains);
    let daemon = site.start();
    for n in 0..DOMAINS {
        send(&daemon, &format!("x@e{n}.test"));
    }
    mute.wait("connections", |seen| seen.connections >= 3);
    send(&daemon, "elvis@healthy.test");
    send(&daemon, "jon@razorback");
    healthy.messages(1);
    daemon.wait_mail(&site, "jon", 1);
    assert!(mute.look(|seen| seen.most_open) <= 4);
}

#[test]
fn silent_hosts_do_not_delay_a_responsive_one() {
    const SILENT: u8 = 12;
    let mut remotes: Vec<Remote> =
        listeners(SILENT + 1).into_iter().map(|l| Remote::start(l, Conduct::Sink(silent()))).collect();
    let healthy = remotes.pop().expect("one more");
    healthy.behave(Conduct::Sink(Sink::default()));
    let zone: String =
        remotes.iter().enumerate().map(|(n, remote)| format!("s{n}.test A {}\n", remote.address.ip())).collect();
    let zone = Dns::zone(&format!("{zone}healthy.test A {}", healthy.address.ip()));
    let domains = (0..SILENT).map(|n| format!("s{n}.test")).chain(["healthy.test".to_owned()]);
    let site = site("queue.workers = 8", &zone, healthy.address.port(), domains);
    let daemon = site.start();
    for n in (0..SILENT).chain(0..SILENT) {
        send(&daemon, &format!("x@s{n}.test"));
    }
    let connections = || remotes.iter().map(|remote| remote.look(|seen| seen.connections)).sum::<usize>();
    daemon.wait_until("busy workers", || connections() >= 4);
    // The healthy destination is as new as the silent ones. Its mail waits until an attempt is
    // abandoned.
    send(&daemon, "elvis@healthy.test");
    healthy.messages(1);
    // An abandoned attempt does not count as a failure. It is repeated with more time.
    assert_eq!(deferred(&daemon), 0);
}

/// Stores that hang and hosts that hang have workers of their own each, and a store that is missing
/// is down like a host.
#[test]
fn ill_stores_and_ill_hosts_do_not_delay_each_other() {
    let store_that_hangs = Sink { speaks: Speaks::Lmtp, ..silent() };
    let [host, store] = [Remote::sink(), Remote::with(Sink::store())];
    let mute: Vec<Remote> = (0..12).map(|_| Remote::with(silent())).collect();
    let mute_store = Remote::with(store_that_hangs);
    let mut site = Site::with(&format!("queue.workers = 12\n{LATER}"));
    let socket = site.path("lmtp");
    site.set("local", "mailbox", &format!("\"lmtp:{}\"", socket.display()));
    site.write("users", &format!("jon::{}\nroot::\nann::\n", site.mailbox("jon").display()));
    site.write("routes", &format!("host.test {}\nstore.test lmtp://{}\n", host.address, store.address));
    site.add("routes", &format!("mute.store lmtp://{}", mute_store.address));
    mute.iter().enumerate().for_each(|(n, mute)| site.add("routes", &format!("mute{n}.test {}", mute.address)));
    let daemon = site.start();
    for n in 0..12 {
        send(&daemon, &format!("x@mute{n}.test"));
        send(&daemon, &format!("x{n}@mute.store"));
    }
    mute_store.wait("its connections", |seen| seen.connections >= 2);
    daemon.client().send("jon@razorback", &["a@store.test", "a@host.test", "jon@razorback"], TEXT);
    store.messages(1);
    host.messages(1);
    daemon.wait_mail(&site, "jon", 1);
    assert!(mute_store.look(|seen| seen.most_open) <= 4);

    send(&daemon, "ann@razorback");
    daemon.wait_words(&["deferred to=<ann@razorback> via=lmtp", "connecting: No such file or directory"]);
    send(&daemon, "ann@razorback");
    daemon.wait_words(&["deferred to=<ann@razorback> via=lmtp", "not tried: the destination has been down for "]);
    let listing = site.penfoldctl(&["hosts", &format!("lmtp:{}", socket.display())]);
    assert!(listing.contains("  down, ") && listing.contains("No such file or directory"), "{listing}");
    let store = Remote::at_socket(&socket, Sink::store());
    common::own(&socket);
    site.penfoldctl(&["flush", "razorback"]);
    assert!(store.messages(2).iter().all(|message| message.recipients == ["<ann@razorback>"]));
    assert_eq!(store.look(|seen| seen.connections), 1);
}

#[test]
fn a_dead_address_is_remembered_for_other_domains_until_a_flush() {
    let remote = Remote::with(Sink::default().when("CONNECT", Then::Close, usize::MAX));
    let zone = Dns::zone("one.test MX 10 mx.test\ntwo.test MX 10 mx.test\nmx.test A 127.0.0.1");
    let domains = ["one.test", "two.test"].map(str::to_owned).into_iter();
    let site = site(LATER, &zone, remote.address.port(), domains);
    let daemon = site.start();
    send(&daemon, "a@one.test");
    daemon.wait_words(&["deferred to=<a@one.test>", "the connection was closed while waiting for the greeting"]);
    send(&daemon, "b@two.test");
    daemon.wait_words(&["deferred to=<b@two.test>", "not tried again yet: the connection was closed"]);
    // By now the domain one.test counts as down, and not only the address of its host.
    send(&daemon, "c@one.test");
    daemon.wait_words(&["deferred to=<c@one.test>", "not tried: the destination has been down for "]);
    assert_eq!(remote.look(|seen| seen.connections), 1);

    let listing = site.penfoldctl(&["hosts"]);
    assert!(listing.lines().all(|line| line.len() <= 100), "{listing}");
    // A long line goes on below itself.
    let whole_lines = listing.replace("\n      ", " ");
    let lines: Vec<&str> = whole_lines.lines().collect();
    let port = remote.address.port();
    // The fault of the address is told with its destinations, and no line of its own.
    assert_eq!(lines.len(), 8, "{listing}");
    for (lines, name) in lines.chunks(4).zip(["one.test:", "two.test:"]) {
        assert_eq!(lines[0], format!("{name}{port}  down, 0 of 1 running, 0 ready"), "{listing}");
        assert!(lines[1].starts_with("    since 20") && lines[1].contains(", next probe 20"), "{listing}");
        let why = "the connection was closed while waiting for the greeting";
        assert!(
            lines[2].starts_with(&format!("    mx.test[127.0.0.1]:{port}: ")) && lines[2].ends_with(why),
            "{listing}"
        );
        assert_eq!(lines[3], "    TLS opportunistic");
    }
    let of_address = site.penfoldctl(&["hosts", "127.0.0.1"]);
    assert!(of_address.starts_with(&format!("127.0.0.1:{port}  down\n    since 20")), "{of_address}");
    let of_two = site.penfoldctl(&["hosts", &format!("mx:two.test:{port}")]);
    assert!(of_two.starts_with("two.test:") && !of_two.contains("one.test"), "{of_two}");
    let objects = site.penfoldctl(&["hosts", "--json"]);
    let first = objects.lines().next().unwrap_or_default();
    let start = format!(
        "{{\"destination\":\"one.test:{port}\",\"state\":\"down\",\"running\":0,\"limit\":1,\"ready\":0,\"since\":\"20"
    );
    assert!(first.starts_with(&start) && objects.lines().count() == 3, "{objects}");
    let end = format!(
        "\"tls_policy\":[\"opportunistic\"],\"host\":\"mx.test[127.0.0.1]:{port}\",\"reply\":\"the connection was closed while waiting for the greeting\"}}"
    );
    assert!(first.ends_with(&end) && first.contains("\"next_probe\":\"20"), "{objects}");
    assert!(
        objects.contains(&format!("{{\"address\":\"127.0.0.1:{port}\",\"state\":\"down\",\"since\":\"20")),
        "{objects}"
    );

    remote.behave(Conduct::Sink(Sink::default()));
    site.penfoldctl(&["flush"]);
    assert_eq!(remote.messages(3).len(), 3);
    let up = || site.penfoldctl(&["hosts"]).lines().filter(|line| line.contains("  up, 0 of ")).count() == 2;
    daemon.wait_until("both to be up", up);
    assert!(site.penfoldctl(&["hosts", "--json"]).contains("\"tls\":\"-\""));
    let listing = site.penfoldctl(&["hosts"]);
    assert!(listing.contains(&format!("\n    127.0.0.1:{port}\n    TLS opportunistic, last plaintext\n")), "{listing}");
}

#[test]
fn mail_for_a_host_that_was_down_is_sent_after_the_first_successful_probe() {
    let remote = Remote::with(Sink::default().when("CONNECT", Then::Close, usize::MAX));
    let zone = Dns::zone("one.test A 127.0.0.1");
    let site = site(LATER, &zone, remote.address.port(), ["one.test".to_owned()].into_iter());
    let daemon = site.start();
    for n in 0..5 {
        send(&daemon, &format!("a{n}@one.test"));
        daemon.wait_words(&[&format!("deferred to=<a{n}@one.test>")]);
    }
    remote.behave(Conduct::Sink(Sink::default()));
    // The daemon waits a few seconds. The first new message after them is tried as a probe.
    let mut client = daemon.client();
    daemon.wait_until("a message", || {
        client.send("jon@razorback", &["new@one.test"], TEXT);
        remote.look(|seen| !seen.messages.is_empty())
    });
    let arrived = |name: &str| remote.look(|seen| seen.messages.iter().any(|m| m.recipients[0] == name));
    daemon.wait_until("the old ones", || (0..5).all(|n| arrived(&format!("<a{n}@one.test>"))));
}

#[test]
fn a_batch_of_one_sender_does_not_delay_another_senders_message() {
    let remote = Remote::with(Sink::default().when("MAIL", Then::Pause(Duration::from_millis(50)), usize::MAX));
    let zone = Dns::zone("one.test A 127.0.0.1");
    let domains = ["one.test".to_owned()].into_iter();
    let site = site("queue.workers_per_destination = 1", &zone, remote.address.port(), domains);
    let daemon = site.start();
    let mut client = daemon.client();
    for n in 0..60 {
        client.send("list@razorback", &[&format!("member{n}@one.test")], TEXT);
    }
    client.send("jon@razorback", &["elvis@one.test"], TEXT);
    let before = remote.look(|seen| seen.messages.len());
    remote.messages(61);
    let place = remote.look(|seen| seen.messages.iter().position(|m| m.recipients == ["<elvis@one.test>"]));
    // Two messages of the other sender may go first: the one that is being sent, and the next one
    // of its batch.
    let place = place.expect("it arrived");
    assert!(place <= before + 3, "message {place}, with {before} gone when it came");
}

/// Serves two connections at once, and sends 421 to further ones. Returns the address, and the
/// counts of both.
fn two_at_once() -> (SocketAddr, Arc<[AtomicUsize; 3]>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let address = listener.local_addr().expect("bound");
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let own = Arc::clone(&counts);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let counts = Arc::clone(&own);
            std::thread::spawn(move || {
                let [open, taken, refused] = &*counts;
                if open.fetch_add(1, Ordering::SeqCst) >= 2 {
                    refused.fetch_add(1, Ordering::SeqCst);
                    let _ = (&stream).write_all(b"421 4.7.0 too many connections\r\n");
                } else {
                    let _ = (&stream).write_all(b"220 two.test\r\n");
                    let (mut lines, mut in_data) = (BufReader::new(&stream).lines(), false);
                    while let Some(Ok(line)) = lines.next() {
                        let reply = match line.as_str() {
                            "." => {
                                std::thread::sleep(Duration::from_millis(20));
                                taken.fetch_add(1, Ordering::SeqCst);
                                in_data = false;
                                "250 2.0.0 taken\r\n"
                            }
                            _ if in_data => continue,
                            "DATA" => {
                                in_data = true;
                                "354 go\r\n"
                            }
                            "QUIT" => break,
                            _ => "250 2.0.0 ok\r\n",
                        };
                        if (&stream).write_all(reply.as_bytes()).is_err() {
                            break;
                        }
                    }
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, counts)
}

#[test]
fn a_host_with_a_limit_of_two_connections_gets_all_mail_over_two() {
    let (address, counts) = two_at_once();
    let site = Site::with(LATER);
    site.add("routes", &format!("example.test {address}"));
    let daemon = site.start();
    let mut client = daemon.client();
    for n in 0..60 {
        client.send("jon@razorback", &[&format!("elvis{n}@example.test")], TEXT);
    }
    let [_, taken, refused] = &*counts;
    daemon.wait_until("most of the mail", || taken.load(Ordering::SeqCst) >= 55);
    let (refused, deferred) = (refused.load(Ordering::SeqCst), deferred(&daemon));
    assert!(refused <= 20 && deferred <= 5, "{refused} refused, {deferred} deferred");
}

#[test]
fn a_stalled_attempt_is_listed_as_one() {
    let remote = Remote::with(silent());
    let site = Site::with(LATER);
    site.add("routes", &format!("example.test {0}\n.example.test {0}", remote.host_port()));
    let daemon = site.start();
    send(&daemon, "elvis@example.test");
    remote.wait("a connection", |seen| seen.connections == 1);
    let listed = site.penfoldctl(&["queue"]);
    assert!(listed.contains("<elvis@example.test>  being tried for "), "{listed}");
    let hosts = site.penfoldctl(&["hosts", &Ipv4Addr::LOCALHOST.to_string()]);
    assert!(hosts.contains(", 1 of 4 running, 0 ready\n    for example.test\n"), "{hosts}");
    // The listing shows the latest domains whose mail goes there.
    for n in 0..5 {
        send(&daemon, &format!("elvis@b{n}.example.test"));
    }
    let of_route = || site.penfoldctl(&["hosts", "--json", "b4.example.test"]);
    let domains = (1..5).map(|n| format!("\"b{n}.example.test\"")).collect::<Vec<_>>().join(",");
    daemon.wait_until("all domains", || of_route().contains(&format!("\"domains\":[{domains}],\"more_domains\":true")));
    let hosts = site.penfoldctl(&["hosts"]);
    assert!(hosts.contains(", b4.example.test and others\n") && hosts.lines().all(|line| line.len() <= 100), "{hosts}");
}

#[test]
fn mail_that_is_held_and_released_needs_no_restart() {
    let remote = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 not now, elvis"));
    let site = Site::with(LATER);
    site.add("routes", &format!("example.test {}", remote.host_port()));
    let daemon = site.start();
    let id = daemon.submit(&["elvis@example.test"]);
    daemon.wait_words(&[&id, " deferred to=<elvis@"]);
    daemon.wait_until("it is in cur/", || site.spooled().iter().any(|path| path.starts_with(site.path("spool/cur"))));
    let entry = site.spooled().pop().expect("an entry");
    let held = site.path("spool/hold").join(entry.file_name().expect("a name"));
    fs::rename(&entry, &held).expect("it is ours");
    let listed = site.penfoldctl(&["queue"]);
    assert!(listed.contains("  held") && listed.contains("<elvis@example.test>  deferred, "), "{listed}");
    assert!(!listed.contains("next "), "{listed}");

    // A held message is not tried, not even by a flush.
    remote.behave(Conduct::Sink(Sink::default()));
    let forgotten = || {
        let mut ctl = std::process::Command::new(env!("CARGO_BIN_EXE_penfoldctl"));
        ctl.arg("-f").arg(site.path("penfold.conf")).args(["flush", &id]).stderr(Stdio::piped());
        let output = ctl.output().expect("it starts");
        output.status.code() == Some(69)
    };
    daemon.wait_until("the queue to miss it", forgotten);
    assert!(held.exists() && remote.look(|seen| seen.messages.is_empty()));

    fs::rename(&held, &entry).expect("it is ours");
    site.penfoldctl(&["flush", &id]);
    assert_eq!(remote.messages(1)[0].recipients, ["<elvis@example.test>"]);
    assert!(daemon.settles(&site));
}
