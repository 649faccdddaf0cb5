//! The table of outgoing mail: the source address, the name in EHLO, the families of addresses, and
//! the limits, each by destination or by sender.
//!
//! The real daemon sends to scripted servers. The arithmetic of the limits is tested beside the code,
//! in src/queue/pace.rs, and the format of the table in src/outgoing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::{Duration, Instant};

use common::client::TEXT;
use common::dns::Dns;
use common::remote::{Conduct, Remote, Sink, Then};
use common::{Daemon, Site};

const LATER: &str = "queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"";

/// A site with this table of outgoing mail and these routes.
fn site(settings: &str, table: &str, routes: &[(&str, &Remote)]) -> Site {
    let mut site = Site::with(&format!("{LATER}\n{settings}"));
    site.write("outgoing", table);
    let path = format!("{:?}", site.path("outgoing"));
    site.set("remote", "outgoing", &path);
    let routes: String = routes.iter().map(|(domain, remote)| format!("{domain} {}\n", remote.host_port())).collect();
    site.write("routes", &routes);
    site
}

fn send(daemon: &Daemon, sender: &str, recipient: &str) {
    daemon.client().send(sender, &[recipient], TEXT);
}

/// The clients and their names in EHLO, in the order of the connections.
fn clients(remote: &Remote) -> Vec<String> {
    remote.look(|seen| {
        let hello = |n| seen.commands.iter().find(|c| c.connection == n && c.line.starts_with("EHLO "));
        let name = |n| hello(n).map_or(String::new(), |command| command.line["EHLO ".len()..].to_owned());
        seen.clients.iter().enumerate().map(|(n, client)| format!("{client} {}", name(n))).collect()
    })
}

fn bind(address: impl Into<IpAddr>) -> Remote {
    let listener = TcpListener::bind((address.into(), 0)).expect("loopback");
    Remote::start(listener, Conduct::Sink(Sink::default()))
}

#[test]
fn mail_leaves_from_the_address_and_under_the_name_of_its_destination_or_sender() {
    let (four, six) = (bind(Ipv4Addr::LOCALHOST), bind(Ipv6Addr::LOCALHOST));
    let settings = "remote.source = [\"127.0.0.2\", \"::1\"]\nremote.hello = \"out.test\"";
    let table = "@news.test source=127.0.0.3 hello=news.test\njon@news.test source=127.0.0.4\n";
    let site = site(settings, table, &[("four.test", &four), ("six.test", &six)]);
    let daemon = site.start();
    let mut count = 0;
    let mut sent = |sender: &str, client: &str| {
        send(&daemon, sender, "x@four.test");
        count += 1;
        let messages = four.messages(count);
        assert_eq!(clients(&four)[messages[count - 1].connection], client, "{sender}");
    };
    // The connection of the message before is still open, and is not used where the address or the
    // name differs.
    sent("joe@other.test", "127.0.0.2 out.test");
    sent("joe@news.test", "127.0.0.3 news.test");
    sent("jon@news.test", "127.0.0.4 news.test");
    sent("joe@other.test", "127.0.0.2 out.test");
    // Each sender has a destination of its own, with a name.
    let hosts = site.penfoldctl(&["hosts"]);
    let name = format!("host:{}", four.host_port());
    for name in [name.clone(), format!("{name}/@news.test"), format!("{name}/jon@news.test")] {
        assert!(hosts.lines().any(|line| line.starts_with(&format!("{name}  up, "))), "{name}: {hosts}");
    }
    send(&daemon, "joe@other.test", "x@six.test");
    six.messages(1);
    assert_eq!(clients(&six), ["::1 out.test"]);
    // A change of the table applies to the next message.
    site.write("outgoing", "@news.test source=127.0.0.5 hello=new.test\n");
    sent("joe@news.test", "127.0.0.5 new.test");
    let explained = site.penfoldctl(&["explain", "--from", "joe@news.test", "x@four.test"]);
    assert!(explained.contains(", from 127.0.0.5, as new.test"), "{explained}");
    let explained = site.penfoldctl(&["explain", "--from", "joe@other.test", "x@four.test"]);
    assert!(explained.contains(", from 127.0.0.2, as out.test"), "{explained}");
}

#[test]
fn mail_waits_if_this_host_lacks_the_source_address_and_no_other_is_used() {
    // Nothing is sent to the address: the source is checked first.
    let remote = Remote::sink();
    let site = site("", "far.test source=192.0.2.77\n192.0.2.1 source=192.0.2.77\n", &[("near.test", &remote)]);
    site.add("routes", "far.test 192.0.2.1");
    let check = site.penfoldd(&["-n"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&check.stderr);
    let why = "no connection from 192.0.2.77 is possible: it is not an address of this host";
    assert!(check.status.success(), "{said}");
    for line in 1..=2 {
        assert!(said.contains(&format!("outgoing:{line}:1: {why}: mail waits")), "{said}");
    }
    let daemon = site.start();
    let id = daemon.submit_from("joe@other.test", &["x@far.test"]);
    daemon.wait_words(&[&id, " deferred ", "dsn=4.3.5", why]);
    // Other mail goes on.
    send(&daemon, "joe@other.test", "x@near.test");
    remote.messages(1);
    assert!(site.penfoldctl(&["queue"]).contains(why));
}

#[test]
fn the_families_have_an_order_and_one_can_be_left_out() {
    let first = bind(Ipv4Addr::LOCALHOST);
    let port = first.address.port();
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)) else {
        return common::skipped("the port is taken at ::1");
    };
    let second = Remote::start(listener, Conduct::Sink(Sink::default()));
    let zone: String = ["a", "b", "c"].map(|name| format!("{name}.test A 127.0.0.1\n{name}.test AAAA ::1\n")).concat();
    let zone = Dns::zone(&(zone + "only.test AAAA ::1\n"));
    let mut site = site(
        "remote.families = [\"ipv6\", \"ipv4\"]",
        "b.test families=ipv4,ipv6\nc.test families=ipv4\nonly.test families=ipv4\n",
        &[],
    );
    site.set("dns", "nameservers", &zone.nameservers());
    let routes: String = ["a", "b", "c", "only"].map(|name| format!("{name}.test mx::{port}\n")).concat();
    site.write("routes", &routes);
    let daemon = site.start();
    for (domain, remote) in [("a.test", &second), ("b.test", &first), ("c.test", &first)] {
        remote.take();
        send(&daemon, "joe@other.test", &format!("x@{domain}"));
        assert_eq!(remote.messages(1)[0].recipients, [format!("<x@{domain}>")]);
    }
    let id = daemon.submit_from("joe@other.test", &["x@only.test"]);
    daemon.wait_words(&[&id, " deferred ", "dsn=4.4.4", "only.test: no host has an IPv4 address"]);
}

#[test]
fn a_thousand_messages_at_a_limit_hold_up_nothing_and_are_told_apart() {
    const MANY: usize = 1000;
    let (slow, fast) = (Remote::sink(), Remote::sink());
    let table = "127.0.0.1 rate=60/m # both\n127.0.0.9 rate=1000/s\n";
    let fast = {
        drop(fast);
        bind(Ipv4Addr::new(127, 0, 0, 9))
    };
    let site = site("queue.workers = 4", table, &[("slow.test", &slow), ("fast.test", &fast)]);
    let daemon = site.start();
    let mut client = daemon.client();
    for n in 0..MANY {
        client.send("joe@other.test", &[&format!("u{n}@slow.test")], TEXT);
    }
    slow.messages(60);
    let begun = Instant::now();
    for n in 0..40 {
        client.send("joe@other.test", &[&format!("u{n}@fast.test")], TEXT);
    }
    fast.messages(40);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(slow.look(|seen| seen.messages.len()), 60);
    // All that a person can ask names the limit and the time.
    let hosts = site.penfoldctl(&["hosts"]);
    let name = format!("host:{}", slow.host_port());
    assert!(hosts.contains(&format!("{name}  up, 0 of ")) && hosts.contains("940 ready"), "{hosts}");
    assert!(hosts.contains("    paced by rate=60/m, next message "), "{hosts}");
    let json = site.penfoldctl(&["hosts", "--json"]);
    assert!(json.contains("\"paced\":\"rate=60/m\",\"next\":\"20"), "{json}");
    let queue = site.penfoldctl(&["queue"]);
    let last = queue.lines().find(|line| line.contains("<u999@slow.test>")).expect("it waits");
    assert!(last.contains("not tried yet, paced by rate=60/m, next "), "{last}");
    assert_eq!(queue.matches("paced by rate=60/m").count(), MANY - 60);
    let line = daemon.log().lines().rfind(|line| line.contains(" paced ")).expect("a line").to_owned();
    let id = line.split(" paced ").next().and_then(|front| front.split_whitespace().last()).expect("an id");
    assert!(line.contains(&format!("paced dest={name} reason=rate=60/m next=20")), "{line}");
    let traced = site.penfoldctl(&["trace", id]);
    assert!(traced.contains("waits for a limit on mail for host:127.0.0.1:"), "{traced}");
    let explained = site.penfoldctl(&["explain", id]);
    let why = format!("was not tried yet: mail for {name} is paced by rate=60/m, and goes on at ");
    let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(explained.contains(&why), "{explained}");
    assert!(explained.contains("limits: rate=60/m"), "{explained}");
    let shown = site.penfoldctl(&["show", id]);
    assert!(shown.contains("Paced:") && shown.contains("by rate=60/m, goes on in"), "{shown}");
    // A flush does not lift the limit.
    site.penfoldctl(&["flush"]);
    send(&daemon, "joe@other.test", "last@fast.test");
    fast.messages(41);
    assert_eq!(slow.look(|seen| seen.messages.len()), 60);
    // A restart forgets the counts.
    daemon.terminate();
    let _daemon = site.start();
    slow.messages(120);
}

#[test]
fn attempts_begin_with_a_pause_between_them() {
    const PAUSE: Duration = Duration::from_millis(300);
    let remote = Remote::sink();
    let site = site("", "127.0.0.1 pause=300ms\n", &[("slow.test", &remote)]);
    let daemon = site.start();
    let mut client = daemon.client();
    for n in 0..5 {
        client.send("joe@other.test", &[&format!("u{n}@slow.test")], TEXT);
    }
    remote.messages(5);
    let times: Vec<Instant> = remote
        .look(|seen| seen.commands.iter().filter(|c| c.line.starts_with("MAIL ")).map(|c| c.at).collect::<Vec<_>>());
    // The time from the beginning of an attempt to MAIL may differ a little.
    let all = times[4] - times[0];
    assert!(all + Duration::from_millis(200) >= 4 * PAUSE, "{all:?}");
    assert!(site.path("spool").exists() && daemon.settles(&site));
}

/// Three domains with one mail exchanger, the remote: a name server, and the lines of their routes.
fn domains(remote: &Remote) -> (Dns, String) {
    let names = ["one", "two", "three"];
    let zone: String = names.map(|name| format!("{name}.test MX 10 mx.test\n")).concat();
    let port = remote.address.port();
    (Dns::zone(&(zone + "mx.test A 127.0.0.1")), names.map(|name| format!("{name}.test mx::{port}\n")).concat())
}

#[test]
fn domains_with_one_exchanger_share_its_connections_only_if_address_and_name_are_the_same() {
    let remote = Remote::sink();
    let (zone, routes) = domains(&remote);
    let mut site = site("queue.workers = 1", "two.test source=127.0.0.2\n", &[]);
    site.set("dns", "nameservers", &zone.nameservers());
    site.write("routes", &routes);
    let daemon = site.start();
    let mut count = 0;
    let mut sent = |domain: &str| {
        send(&daemon, "joe@other.test", &format!("x@{domain}"));
        count += 1;
        let messages = remote.messages(count);
        messages[count - 1].connection
    };
    let connections = ["one.test", "two.test"].map(&mut sent);
    assert_eq!(connections, [0, 1]);
    assert_eq!(clients(&remote), ["127.0.0.1 razorback.test", "127.0.0.2 razorback.test"]);
    // Without the difference, the connection is used for both.
    site.write("outgoing", "two.test rate=10/s\n");
    let connections = ["one.test", "two.test"].map(&mut sent);
    assert_eq!(connections, [2, 2]);
}

#[test]
fn an_address_gets_no_more_connections_than_the_lines_say_and_waiting_for_one_does_not_count() {
    let far = Sink::default().when("MAIL", Then::Pause(Duration::from_millis(50)), usize::MAX);
    let remote = Remote::with(far);
    let (zone, routes) = domains(&remote);
    // Each domain may send exactly the messages that the test sends.
    let mut site = site("", "* connections=1 rate=6/h\n", &[]);
    site.set("dns", "nameservers", &zone.nameservers());
    site.write("routes", &routes);
    let daemon = site.start();
    let mut client = daemon.client();
    for n in 0..18 {
        client.send("joe@other.test", &[&format!("u{n}@{}.test", ["one", "two", "three"][n % 3])], TEXT);
    }
    remote.messages(18);
    // The server may see the end of a connection a little later than the client.
    assert!(remote.look(|seen| seen.most_open) <= 2);
    assert!(site.penfoldctl(&["hosts"]).contains(" of 1 running"));
    assert!(daemon.settles(&site));
}

/// Each message may be tried once. Before that, other mail holds all connections to the host.
#[test]
fn attempts_that_find_no_free_connection_do_not_use_up_the_rate() {
    const MANY: usize = 20;
    let busy = Sink::default().when("MAIL", Then::Pause(Duration::from_secs(3)), 2);
    let remote = Remote::with(busy);
    let (zone, routes) = domains(&remote);
    let mut site = site("queue.workers_per_destination = 2", &format!("two.test rate={MANY}/h\n"), &[]);
    site.set("dns", "nameservers", &zone.nameservers());
    site.write("routes", &routes);
    let daemon = site.start();
    let mut client = daemon.client();
    for n in 0..8 {
        client.send("joe@other.test", &[&format!("u{n}@one.test")], TEXT);
    }
    remote.wait("other mail", |seen| seen.commands.iter().filter(|c| c.line.starts_with("MAIL")).count() == 2);
    for n in 0..MANY {
        client.send("joe@other.test", &[&format!("u{n}@two.test")], TEXT);
    }
    remote.messages(8 + MANY);
    // Those that were tried do count.
    client.send("joe@other.test", &["last@two.test"], TEXT);
    daemon.wait_words(&[" paced dest=", "two.test", &format!("reason=rate={MANY}/h")]);
    assert_eq!(remote.look(|seen| seen.messages.len()), 8 + MANY);
}

/// Other mail to the host holds a connection all the time.
#[test]
fn the_connections_of_other_mail_do_not_count_towards_a_senders_limit() {
    let remote = Remote::with(Sink::default().when("MAIL", Then::Hang, 1));
    let site = site("", "@news.test connections=1\n", &[("slow.test", &remote)]);
    let daemon = site.start();
    send(&daemon, "joe@other.test", "x@slow.test");
    remote.wait("the other mail", |seen| seen.commands.iter().any(|c| c.line.starts_with("MAIL")));
    for n in 0..3 {
        send(&daemon, "joe@news.test", &format!("u{n}@slow.test"));
    }
    remote.messages(3);
    let hosts = site.penfoldctl(&["hosts"]);
    assert!(hosts.contains("/@news.test  up, "), "{hosts}");
}

/// A message that only waits for a connection is deferred with that reason once it is over age.
#[test]
fn mail_that_waits_for_a_connection_expires() {
    let remote = Remote::with(Sink::default().when("MAIL", Then::Hang, 1));
    let (zone, routes) = domains(&remote);
    let mut site = site("queue.expire_after = \"1s\"", "* connections=1\n", &[]);
    site.set("dns", "nameservers", &zone.nameservers());
    site.write("routes", &routes);
    let daemon = site.start();
    send(&daemon, "joe@other.test", "x@one.test");
    remote.wait("the other mail", |seen| seen.commands.iter().any(|c| c.line.starts_with("MAIL")));
    send(&daemon, "joe@other.test", "x@two.test");
    daemon.wait_log(|line| line.contains(" deferred to=<x@two.test>") && line.contains("as many connections"));
}

#[test]
fn a_run_of_the_queue_ends_when_its_last_message_was_tried() {
    let remote = Remote::sink();
    let often = "queue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"";
    let site = site(often, "127.0.0.1 rate=2/s\n", &[("slow.test", &remote)]);
    let daemon = site.start();
    remote.behave(Conduct::Sink(Sink::default().reply("MAIL", "451 4.3.0 later")));
    for n in 0..5 {
        send(&daemon, "joe@other.test", &format!("u{n}@slow.test"));
    }
    daemon.wait_until("five messages", || (0..5).all(|n| daemon.log().contains(&format!(" deferred to=<u{n}@"))));
    daemon.terminate();
    remote.behave(Conduct::Sink(Sink::default()));
    let begun = Instant::now();
    while site.penfoldctl(&["queue"]).matches("deferred, ready").count() < 5 {
        assert!(begun.elapsed() < common::TIMEOUT, "{}", site.penfoldctl(&["queue"]));
    }
    assert!(site.penfoldd(&["-q"]).output().expect("it runs").status.success());
    assert_eq!(remote.look(|seen| seen.messages.len()), 5);
    assert!(site.spooled().is_empty());
}

#[test]
fn a_wrong_line_keeps_only_its_own_mail_waiting() {
    let (bad, good) = (Remote::sink(), bind(Ipv4Addr::new(127, 0, 0, 9)));
    let table = "127.0.0.1 rate=fast\n@bad.test source=here\n";
    let site = site("", table, &[("bad.test", &bad), ("good.test", &good)]);
    let daemon = site.start();
    let rate = "outgoing:1:11: expected a rate of messages, such as 60/m, 500/h or 5000/d";
    let source = "outgoing:2:11: expected an address of this host";
    let id = daemon.submit_from("joe@other.test", &["x@bad.test"]);
    daemon.wait_words(&[&id, " deferred ", "dsn=4.3.5", rate]);
    let id = daemon.submit_from("joe@bad.test", &["x@good.test"]);
    daemon.wait_words(&[&id, " deferred ", "dsn=4.3.5", source]);
    assert!(site.penfoldctl(&["explain", "x@bad.test"]).contains(rate));
    send(&daemon, "joe@other.test", "x@good.test");
    assert_eq!(good.messages(1).len(), 1);
    site.write("outgoing", "127.0.0.1 rate=10/s\n");
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
}

#[test]
fn a_rate_of_a_fallback_host_limits_nothing_and_causes_a_warning() {
    let (busy, fallback) =
        (Remote::with(Sink::default().reply("MAIL", "451 later")), bind(Ipv4Addr::new(127, 0, 0, 9)));
    let both = bind(Ipv4Addr::new(127, 0, 0, 8));
    let settings = format!("remote.fallback = [{:?}, {:?}]", fallback.host_port(), both.host_port());
    let table = "* pause=1ms\n127.0.0.8 rate=9/h\n127.0.0.9 hello=back.test rate=1/h\n127.0.0.1 rate=5/h\n";
    let site = site(&settings, table, &[("busy.test", &busy), ("both.test", &both)]);
    let check = site.penfoldd(&["-n"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&check.stderr);
    let warning = "outgoing:3:1: rate and pause do not apply to 127.0.0.9, which only remote.fallback names";
    assert!(check.status.success() && said.contains(warning), "{said}");
    assert_eq!(said.matches("rate and pause do not apply").count(), 1, "{said}");
    let daemon = site.start();
    for n in 0..3 {
        send(&daemon, "joe@other.test", &format!("u{n}@busy.test"));
    }
    fallback.messages(3);
    assert_eq!(clients(&fallback)[0], "127.0.0.1 back.test");
    let explained = site.penfoldctl(&["explain", "x@busy.test"]);
    assert!(explained.contains("the fallback hosts are tried"), "{explained}");
    assert!(explained.contains("limits: rate=5/h") && !explained.contains("rate=1/h"), "{explained}");
}

#[test]
fn a_store_has_only_its_own_line() {
    let (own, other) = (Remote::with(Sink::store()), bind(Ipv4Addr::new(127, 0, 0, 9)));
    other.behave(Conduct::Sink(Sink::store()));
    let settings = "remote.source = [\"127.0.0.2\"]\nremote.hello = \"out.test\"";
    let site = site(settings, "* source=127.0.0.3\n127.0.0.9 source=127.0.0.4 hello=in.test\n<> hello=x.test\n", &[]);
    site.write("routes", &format!("own.test lmtp://{}\nother.test lmtp://{}\n", own.host_port(), other.host_port()));
    let daemon = site.start();
    daemon.submit_from("joe@other.test", &["x@own.test", "x@other.test"]);
    own.messages(1);
    other.messages(1);
    let client = |remote: &Remote| remote.look(|seen| format!("{} {}", seen.clients[0], seen.commands[0].line));
    assert_eq!(client(&own), "127.0.0.1 LHLO razorback.test");
    assert_eq!(client(&other), "127.0.0.4 LHLO in.test");
}
