//! The rules of `[policy]` for clients that may not relay, with a scripted name server: DNS lists,
//! the sender's domain, SPF, the greylist. Also that nothing waits for a name server for longer
//! than promised. The clients come through a proxy, which gives them any address.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::client::{Client, TEXT};
use common::dns::{Answer, Dns, answer, record};
#[cfg(feature = "mailauth")]
use common::remote::{Remote, Sink};
use common::{Daemon, Site};

const ZONE: &str = "
    1.2.0.192.in-addr.arpa PTR mx.good.example
    2.2.0.192.in-addr.arpa PTR mx.good.example
    4.2.0.192.in-addr.arpa SERVFAIL
    1.0.0.127.in-addr.arpa PTR proxy.example
    proxy.example A 127.0.0.1
    mx.good.example A 192.0.2.1
    good.example MX 10 mx.good.example
    host.example A 192.0.2.5
    null.example MX 0 .
    text.example TXT x
    broken.example SERVFAIL
    strict.example MX 10 mx.good.example
    strict.example TXT v=spf1 ip4:192.0.2.1 exp=why.strict.example -all
    why.strict.example TXT ask us first
    soft.example MX 10 mx.good.example
    soft.example TXT v=spf1 ~all
    trouble.example MX 10 mx.good.example
    trouble.example TXT v=spf1 include:broken.example -all
    2.2.0.192.bl.example A 127.0.0.2
    3.2.0.192.bl.example A 127.0.0.9
    3.2.0.192.weak.example A 127.0.0.2
    5.2.0.192.bl.example A 127.0.0.2
    5.2.0.192.allow.example A 127.0.0.2
    2.2.0.192.strange.example A 10.0.0.1
    3.2.0.192.strange.example A 127.255.255.254
    bad.example.dbl.example A 127.0.1.2
    bad.example MX 10 mx.good.example
    mx.bad.example.dbl.example A 127.0.1.2
";

/// A zone with this suffix contains everything.
const WILD: &str = "wild.example";
/// A zone that fails.
const DOWN: &str = "down.example";

fn server() -> Dns {
    Dns::start(|name, kind| match name {
        _ if name.ends_with(WILD) => Answer::records(vec![record(name, "A", "127.0.0.2")]),
        _ if name.ends_with(DOWN) => Answer::servfail(),
        _ => answer(ZONE, name, kind),
    })
}

fn site(dns: &Dns, settings: &str) -> Site {
    let mut site = Site::with(&format!("listen.proxy = [\"127.0.0.1\"]\n{settings}"));
    site.set("dns", "nameservers", &dns.nameservers());
    site
}

/// A client with this address, after EHLO.
fn client(daemon: &Daemon, address: &str, hello: &str) -> Client {
    let mut client = Client::before_banner(TcpStream::connect(daemon.address()).expect("it accepts"));
    let own = if address.contains(':') { ("TCP6", "2001:db8::25") } else { ("TCP4", "192.0.2.25") };
    client.send_text(&format!("PROXY {} {address} {} 4321 25\r\n", own.0, own.1));
    client.expect("220 ");
    client.send_text(&format!("EHLO {hello}\r\n"));
    while client.expect("250").as_bytes().get(3) == Some(&b'-') {}
    client
}

/// The reply to RCPT in a session of its own.
fn reply(daemon: &Daemon, address: &str, hello: &str, sender: &str, recipient: &str) -> String {
    let mut client = client(daemon, address, hello);
    client.ask(&format!("MAIL FROM:<{sender}>"), "250 ");
    client.ask(&format!("RCPT TO:<{recipient}>"), "")
}

#[test]
fn the_domain_of_the_sender_must_accept_mail() {
    let dns = server();
    let site = site(&dns, "policy.sender_domain = \"refuse\"");
    let daemon = site.start();
    for (sender, want) in [
        ("a@good.example", "250 "),
        ("a@host.example", "250 "),
        ("a@[192.0.2.1]", "250 "),
        ("jon@razorback", "250 "),
        ("", "250 "),
        ("a@gone.example", "550 5.1.8 <a@gone.example> "),
        ("a@text.example", "550 5.1.8 <a@text.example> "),
        ("a@null.example", "550 5.7.27 <a@null.example> "),
        ("a@broken.example", "451 4.4.3 <a@broken.example> "),
    ] {
        let reply = reply(&daemon, "192.0.2.1", "mx.good.example", sender, "jon@razorback");
        assert!(reply.starts_with(want), "{sender}: {reply}");
    }
    // A client that may relay is not asked.
    let reply = reply(&daemon, "127.0.0.1", "mx.good.example", "a@gone.example", "jon@razorback");
    assert!(reply.starts_with("250 "), "{reply}");
}

/// RET=FULL counts only if SPF passes for the sender, or if the client may relay.
#[cfg(feature = "mailauth")]
#[test]
fn a_stranger_without_spf_may_not_have_a_whole_message_returned() {
    let (dns, remote) = (server(), Remote::with(Sink { keywords: vec!["DSN".into()], ..Sink::default() }));
    let site = site(&dns, "policy.spf = \"mark\"");
    site.add("aliases", "away: a@far.test");
    site.add("routes", &format!("far.test {}", remote.host_port()));
    let daemon = site.start();
    for (address, sender, want) in [
        ("192.0.2.1", "a@strict.example", "RET=FULL"),
        ("192.0.2.2", "a@strict.example", "RET=HDRS"),
        ("192.0.2.2", "a@good.example", "RET=HDRS"),
        ("127.0.0.1", "a@good.example", "RET=FULL"),
    ] {
        let mut client = client(&daemon, address, "mx.good.example");
        client.ask(&format!("MAIL FROM:<{sender}> RET=FULL"), "250 ");
        client.ask("RCPT TO:<away@razorback>", "250 ");
        client.ask("DATA", "354 ");
        client.ask(&format!("{TEXT}."), "250 ");
        remote.messages(1);
        let mail = remote.take().remove(0).sender;
        assert!(mail.contains(want), "{address} {sender}: {mail}");
    }
}

#[test]
fn dns_lists_are_weighed() {
    let dns = server();
    let settings = format!(
        "policy.dnsbl = [\"bl.example=127.0.0.2..4*2\", \"weak.example\", \"allow.example*-2\", \"strange.example*9\", \
         \"{WILD}*9\", \"{DOWN}*9\"]\npolicy.dnsbl_threshold = 2\npolicy.sender_lists = [\"dbl.example*2\"]"
    );
    let site = site(&dns, &settings);
    let daemon = site.start();
    let good = ("mx.good.example", "a@good.example", "jon@razorback");
    for (address, (hello, sender, recipient), want) in [
        ("192.0.2.1", good, "250 "),
        ("2001:db8::1", good, "250 "),
        ("192.0.2.2", good, "550 5.7.1 Mail from [192.0.2.2] is refused because of bl.example"),
        ("192.0.2.2", ("x", "", "jon@razorback"), "550 5.7.1 "),
        ("192.0.2.2", ("x", "a@good.example", "Postmaster@razorback"), "250 "),
        ("192.0.2.2", ("x", "a@good.example", "postmaster"), "250 "),
        // An answer that is not asked for, and a weight below the threshold.
        ("192.0.2.3", good, "250 "),
        ("192.0.2.5", good, "250 "),
        (
            "192.0.2.1",
            ("x", "a@bad.example", "jon@razorback"),
            "550 5.7.1 Mail from [192.0.2.1] is refused because of dbl.example",
        ),
        (
            "192.0.2.1",
            ("mx.bad.example", "", "jon@razorback"),
            "550 5.7.1 Mail from [192.0.2.1] is refused because of dbl.example",
        ),
    ] {
        let reply = reply(&daemon, address, hello, sender, recipient);
        assert!(reply.starts_with(want), "{address} {hello} {sender}: {reply}");
    }
    let log = daemon.log();
    for text in [
        "the DNS list strange.example counts for nothing: it answers 10.0.0.1".to_owned(),
        format!("the DNS list {WILD} counts for nothing: it contains the test entry"),
        format!("the DNS list {DOWN} counts for nothing: it does not answer"),
    ] {
        assert_eq!(log.matches(&text).count(), 1, "{text}\n{log}");
    }
    let tests = dns.asked().into_iter().filter(|(name, _)| *name == "1.0.0.127.bl.example").count();
    assert_eq!(tests, 1, "a list is tested once");
}

#[cfg(feature = "mailauth")]
#[test]
fn spf_refuses_only_what_fails() {
    let dns = server();
    let site = site(&dns, "policy.spf = \"refuse\"");
    let daemon = site.start();
    for (address, hello, sender, recipient, want) in [
        ("192.0.2.1", "mx.good.example", "a@strict.example", "jon@razorback", "250 "),
        (
            "192.0.2.2",
            "mx.good.example",
            "a@strict.example",
            "jon@razorback",
            "550 5.7.23 SPF: strict.example does not permit mail from [192.0.2.2]: ask us first",
        ),
        ("192.0.2.2", "mx.good.example", "a@strict.example", "postmaster@razorback", "250 "),
        ("192.0.2.2", "strict.example", "", "jon@razorback", "550 5.7.23 "),
        ("192.0.2.2", "strict.example", "a@good.example", "jon@razorback", "550 5.7.23 "),
        ("192.0.2.2", "mx.good.example", "a@soft.example", "jon@razorback", "250 "),
        ("192.0.2.2", "mx.good.example", "a@good.example", "jon@razorback", "250 "),
        ("192.0.2.2", "mx.good.example", "a@trouble.example", "jon@razorback", "451 4.7.24 "),
    ] {
        let reply = reply(&daemon, address, hello, sender, recipient);
        assert!(reply.starts_with(want), "{address} {hello} {sender}: {reply}");
    }
}

/// A client begins one message after another, and no name server answers: at most 4 threads look
/// something up for it. If none is left for a sender, the session itself looks the sender up when it
/// needs the result, in a limited time.
#[cfg(feature = "mailauth")]
#[test]
fn a_session_starts_few_look_ups_at_a_time() {
    for (spf, want) in [("mark", "250 "), ("refuse", "451 4.7.24 ")] {
        let dns = Dns::start(|_, _| Answer::silence());
        let site = site(&dns, &format!("policy.spf = \"{spf}\""));
        let daemon = site.start();
        let mut client = client(&daemon, "192.0.2.1", "mx.good.example");
        let commands = |number| format!("MAIL FROM:<a@s{number}.test>\r\nRSET\r\n");
        client.send_text(&(0..40).map(commands).collect::<String>());
        (0..80).for_each(|_| drop(client.expect("250 ")));
        client.ask("MAIL FROM:<a@good.example>", "250 ");
        let begun = Instant::now();
        client.ask("RCPT TO:<jon@razorback>", want);
        let is_looked_up = dns.asked().iter().any(|(name, _)| name.starts_with("good.example"));
        assert_eq!(is_looked_up, spf == "refuse", "RCPT waits for SPF only if a rule needs it: {:?}", dns.asked());
        client.ask("RCPT TO:<postmaster@razorback>", "250 ");
        client.ask("DATA", "354 ");
        client.send_text("Subject: x\r\n\r\n.\r\n");
        client.expect("250 ");
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        let senders: std::collections::BTreeSet<_> =
            dns.asked().into_iter().map(|(name, _)| name).filter(|name| name.ends_with(".test")).collect();
        assert!(senders.len() <= 3, "{senders:?}");
    }
}

/// A proxy does not know the client: the rules do not take the proxy for the client.
#[test]
fn a_client_without_an_address_has_neither_spf_nor_a_name() {
    let dns = server();
    let mut site = site(&dns, "");
    if cfg!(feature = "mailauth") {
        site.set("policy", "spf", "\"refuse\"");
    }
    site.write("access", "client localhost reject\nclient proxy.example reject\nclient 127.0.0.1 reject\n");
    let daemon = site.start();
    let reply = |hello: &str| {
        let mut client = Client::before_banner(TcpStream::connect(daemon.address()).expect("it accepts"));
        client.send_text("PROXY UNKNOWN\r\n");
        client.expect("220 ");
        client.ask(&format!("HELO {hello}"), "250 ");
        client.ask("MAIL FROM:<a@strict.example>", "250 ");
        client.ask("RCPT TO:<jon@razorback>", "")
    };
    let accepted = reply("strict.example");
    assert!(accepted.starts_with("250 "), "{accepted}");
    // Whether it has a name is unknown.
    site.write("access", "client unknown reject nameless\n");
    let deferred = reply("strict.example");
    assert!(deferred.starts_with("450 4.7.1 nameless"), "{deferred}");
}

#[cfg(feature = "mailauth")]
#[test]
fn a_mark_refuses_nothing() {
    let dns = server();
    let site = site(&dns, "policy.spf = \"mark\"");
    let daemon = site.start();
    for sender in ["a@strict.example", "a@trouble.example"] {
        let reply = reply(&daemon, "192.0.2.2", "strict.example", sender, "jon@razorback");
        assert!(reply.starts_with("250 "), "{sender}: {reply}");
    }
}

#[test]
fn a_greylisted_client_passes_when_it_tries_again() {
    let dns = server();
    let mut site = site(&dns, "policy.greylist = \"all\"\npolicy.greylist_delay = \"2s\"");
    let ask = |daemon: &Daemon, address: &str, sender: &str, recipient: &str| {
        reply(daemon, address, "mx.good.example", sender, recipient)
    };
    let daemon = site.start();
    let begun = Instant::now();
    let first = ask(&daemon, "192.0.2.1", "a@good.example", "jon@razorback");
    assert!(first.starts_with("451 4.7.1 Greylisted, please try again in 2 seconds"), "{first}");
    assert!(ask(&daemon, "192.0.2.1", "a@good.example", "postmaster@razorback").starts_with("250 "));
    assert!(ask(&daemon, "198.51.100.1", "a@good.example", "jon@razorback").starts_with("451 "));
    // It survives a restart.
    assert!(daemon.terminate().success());
    let daemon = site.start();
    std::thread::sleep((begun + Duration::from_millis(3100)).saturating_duration_since(Instant::now()));
    let second = ask(&daemon, "192.0.2.77", "A@good.example", "JON@razorback");
    assert!(second.starts_with("250 "), "a neighbour tries again: {second}");
    assert!(ask(&daemon, "192.0.2.1", "b@good.example", "root@razorback").starts_with("250 "), "it is known");
    assert!(ask(&daemon, "203.0.113.1", "b@good.example", "root@razorback").starts_with("451 "), "another is not");
    assert!(daemon.terminate().success());
    // The network that has passed is known after another restart.
    site.set("policy", "greylist_delay", "\"1h\"");
    let daemon = site.start();
    assert!(ask(&daemon, "192.0.2.1", "c@good.example", "root@razorback").starts_with("250 "));
    assert!(ask(&daemon, "203.0.113.1", "b@good.example", "root@razorback").starts_with("451 "));
}

#[test]
fn only_suspicious_clients_are_greylisted() {
    let dns = server();
    let lists = "policy.dnsbl = [\"weak.example\", \"allow.example*-1\"]\npolicy.dnsbl_threshold = 2";
    #[cfg_attr(not(feature = "mailauth"), expect(unused_mut))]
    let mut site = site(&dns, &format!("policy.greylist = \"suspicious\"\n{lists}"));
    #[cfg(feature = "mailauth")]
    site.set("policy", "spf", "\"mark\"");
    let daemon = site.start();
    for (address, sender, want) in [
        ("192.0.2.1", "a@good.example", "250 "),
        // There is no verified name, or the look-up fails.
        ("192.0.2.2", "a@good.example", "451 4.7.1 "),
        ("192.0.2.4", "b@good.example", "451 4.7.1 "),
        ("192.0.2.3", "c@good.example", "451 4.7.1 "),
        // A list says that the client is good.
        ("192.0.2.5", "d@good.example", "250 "),
    ] {
        let reply = reply(&daemon, address, "mx.good.example", sender, "jon@razorback");
        assert!(reply.starts_with(want), "{address} {sender}: {reply}");
    }
    #[cfg(feature = "mailauth")]
    {
        let reply = reply(&daemon, "192.0.2.1", "mx.good.example", "a@soft.example", "jon@razorback");
        assert!(reply.starts_with("451 4.7.1 "), "{reply}");
    }
}

#[test]
fn the_access_table_asks_for_the_verified_name() {
    let dns = server();
    let site = site(&dns, "");
    site.write("access", "client .good.example reject\nclient unknown reject nameless\n");
    let daemon = site.start();
    for (address, want) in [
        ("192.0.2.1", "550 5.7.1 Access denied"),
        ("192.0.2.9", "550 5.7.1 nameless"),
        // Its name does not lead back to the address.
        ("192.0.2.2", "550 5.7.1 nameless"),
        ("192.0.2.4", "450 4.7.1 nameless"),
    ] {
        let reply = reply(&daemon, address, "client.example", "a@good.example", "jon@razorback");
        assert!(reply.starts_with(want), "{address}: {reply}");
    }
    // A bad edit keeps the old table.
    site.write("access", "client .good.example ok\nclient 192.0.2.9 maybe\n");
    let reply = |address| reply(&daemon, address, "client.example", "a@good.example", "jon@razorback");
    assert!(reply("192.0.2.9").starts_with("550 5.7.1 nameless"));
    daemon
        .wait_words(&["access:2:18: expected ok, reject, defer, quarantine or tag NAME; the old table stays in force"]);
    site.write("access", "client .good.example ok\nclient 192.0.2.9 defer\n");
    assert!(reply("192.0.2.9").starts_with("450 4.7.1 "));
    assert!(reply("192.0.2.1").starts_with("250 "));
}

/// Everything is on, and the name server never answers. A message waits for at most 5 seconds, and
/// a message that is only marked is accepted.
#[test]
fn a_mute_name_server_delays_a_stranger_by_at_most_5_seconds() {
    let dns = Dns::start(|_, _| Answer::silence());
    let all = "policy.sender_domain = \"SENDER\"\npolicy.dnsbl = [\"a.example\", \"b.example\"]\n\
               policy.sender_lists = [\"c.example\"]\npolicy.greylist = \"suspicious\"\npolicy.greylist_delay = \"1s\"";
    let spf = if cfg!(feature = "mailauth") { "\npolicy.spf = \"mark\"\npolicy.dmarc = \"mark\"" } else { "" };
    let limit = Duration::from_secs(5);
    let site = site(&dns, &(all.replace("SENDER", "refuse") + spf));
    let daemon = site.start();
    let begun = Instant::now();
    let reply = reply(&daemon, "192.0.2.1", "mx.good.example", "a@good.example", "jon@razorback");
    assert!(reply.starts_with("451 4.4.3 "), "{reply}");
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    drop((daemon, site));
    let site = self::site(&dns, &(all.replace("SENDER", "accept").replace("suspicious", "none") + spf));
    site.write("access", "client unknown tag nameless\nclient .good.example reject\n");
    let daemon = site.start();
    let mut client = client(&daemon, "192.0.2.1", "mx.good.example");
    let begun = Instant::now();
    client.send("a@good.example", &["jon@razorback"], TEXT);
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    // A look-up that nothing waits for at RCPT, such as that of the name, counts as well.
    site.write("access", "");
    let mut other = self::client(&daemon, "192.0.2.1", "mx.good.example");
    let begun = Instant::now();
    other.send("a@good.example", &["jon@razorback"], TEXT);
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    // Another message in the same session waits for its own look-ups only.
    let begun = Instant::now();
    client.send("b@good.example", &["jon@razorback"], TEXT);
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    // A client that may relay waits for nothing.
    let begun = Instant::now();
    self::client(&daemon, "127.0.0.1", "x").send("a@good.example", &["jon@razorback"], TEXT);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// The look-ups run side by side: each takes half a second.
#[test]
fn a_stranger_waits_for_the_slowest_look_up_and_not_for_the_sum() {
    let dns = Dns::start(|name, kind| Answer { after: Duration::from_millis(500), ..answer(ZONE, name, kind) });
    let spf = if cfg!(feature = "mailauth") { "policy.spf = \"refuse\"" } else { "" };
    let settings = "policy.sender_domain = \"refuse\"\npolicy.dnsbl = [\"bl.example\", \"weak.example\"]\n\
                    policy.sender_lists = [\"dbl.example\"]\npolicy.greylist = \"suspicious\"\n";
    let site = site(&dns, &format!("{settings}{spf}"));
    let daemon = site.start();
    let begun = Instant::now();
    let reply = reply(&daemon, "192.0.2.1", "mx.good.example", "a@good.example", "jon@razorback");
    assert!(reply.starts_with("250 "), "{reply}");
    // The name takes two look-ups, one after the other. All in turn would take five seconds.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(dns.asked().len() >= 10, "{:?}", dns.asked());
}

#[test]
fn a_client_that_may_relay_and_an_empty_policy_ask_nothing() {
    let dns = server();
    let all = "policy.sender_domain = \"refuse\"\npolicy.dnsbl = [\"bl.example\"]\npolicy.sender_lists = [\"dbl.example\"]\n\
               policy.greylist = \"all\"";
    let site = site(&dns, all);
    let daemon = site.start();
    client(&daemon, "127.0.0.1", "x").send("a@good.example", &["jon@razorback"], TEXT);
    assert_eq!(dns.asked(), []);
    drop((daemon, site));
    let site = self::site(&dns, "");
    let daemon = site.start();
    client(&daemon, "192.0.2.1", "mx.good.example").send("a@good.example", &["jon@razorback"], TEXT);
    let of_name = |name: &str| name.ends_with(".in-addr.arpa") || name == "mx.good.example";
    assert!(dns.asked().iter().all(|(name, _)| of_name(name)), "only the client's name: {:?}", dns.asked());
}

#[test]
fn users_of_sendmail_have_a_limit() {
    let mut site = Site::with("submission.local_messages_per_hour = 2\nsubmission.local_exempt = []");
    let uid = nix::unistd::getuid();
    let daemon = site.start();
    let send = |site: &Site| common::programs::code_and_text(&common::programs::sendmail(site, &["jon"], b"hello\n"));
    for want in [0, 0, 75, 75] {
        let (code, text) = send(&site);
        assert_eq!(code, want, "{text}");
    }
    daemon.wait_words(&[" limit account=", " messages=2"]);
    assert!(daemon.terminate().success());
    // The count survives a restart.
    let daemon = site.start();
    assert_eq!(send(&site).0, 75);
    assert!(daemon.terminate().success());
    site.set("submission", "local_exempt", &format!("[\"{uid}\"]"));
    let _daemon = site.start();
    assert_eq!(send(&site), (0, String::new()));
}

/// The number of unknown recipients is limited, and so each further refusal takes its time.
#[test]
fn refused_recipients_slow_the_dialogue_down() {
    let dns = server();
    let site = site(&dns, "policy.unknown_recipients_per_hour = 100");
    let daemon = site.start();
    let refused = |address: &str, count: usize| {
        let mut client = client(&daemon, address, "mx.good.example");
        client.ask("MAIL FROM:<a@good.example>", "250 ");
        let begun = Instant::now();
        (0..count).for_each(|number| drop(client.ask(&format!("RCPT TO:<no{number}@razorback>"), "550 5.1.1 ")));
        begun.elapsed()
    };
    assert!(refused("192.0.2.1", 3) < Duration::from_secs(1), "a few mistakes cost nothing");
    let slow = refused("192.0.2.1", 6);
    assert!((Duration::from_millis(1500)..Duration::from_secs(6)).contains(&slow), "{slow:?}");
    assert!(refused("127.0.0.1", 6) < Duration::from_secs(1), "a client that may relay is not slowed down");
}

/// A refused recipient leaves no mark on the message for the others.
#[test]
fn only_accepted_recipients_mark_a_message() {
    let dns = server();
    let site = site(&dns, "policy.dnsbl = [\"bl.example\"]");
    site.write("access", "recipient jon@razorback quarantine\n");
    let daemon = site.start();
    let mut client = client(&daemon, "192.0.2.2", "mx.good.example");
    client.ask("MAIL FROM:<a@good.example>", "250 ");
    client.ask("RCPT TO:<jon@razorback>", "550 5.7.1 ");
    client.ask("RCPT TO:<postmaster@razorback>", "250 ");
    client.ask("DATA", "354 ");
    client.send_text("Subject: x\r\n\r\n.\r\n");
    client.expect("250 ");
    daemon.wait_mail(&site, "root", 1);
}

/// A message in quarantine is held, with the line of the table as the reason.
#[test]
fn the_access_table_puts_messages_into_quarantine() {
    let dns = server();
    let mut site = site(&dns, "");
    site.write("access", "sender @good.example quarantine\nsender @welcome.example ok\n");
    let daemon = site.start();
    let mut from = client(&daemon, "192.0.2.1", "mx.good.example");
    let id = from.send("a@good.example", &["jon@razorback"], TEXT);
    from.send("a@welcome.example", &["jon@razorback"], TEXT);
    daemon.wait_mail(&site, "jon", 1);
    let queue = site.penfoldctl(&["queue"]);
    let reason = format!("{}:1 asks for quarantine", site.path("access").display());
    assert!(queue.contains(id.trim()) && queue.contains(&reason), "{queue}");
    drop((from, daemon));
    site.set("policy", "quarantine", "\".Junk\"");
    let daemon = site.start();
    client(&daemon, "192.0.2.1", "mx.good.example").send("a@good.example", &["jon@razorback"], TEXT);
    let junk = site.mailbox("jon").join(".Junk/new");
    daemon.wait_until("mail in .Junk", || std::fs::read_dir(&junk).is_ok_and(|mut files| files.next().is_some()));
}

/// Strangers cannot fill the spool with held messages.
#[test]
fn the_quarantine_is_bounded() {
    let dns = server();
    let site = site(&dns, "");
    site.write("access", "sender @good.example quarantine\n");
    let daemon = site.start();
    let held = site.path("spool/hold");
    for number in 0..9_999 {
        std::fs::write(held.join(format!("1J4ZKX00000{number:08},S=1")), b"").expect("a file");
    }
    let mut stranger = client(&daemon, "192.0.2.1", "mx.good.example");
    stranger.send("a@good.example", &["jon@razorback"], TEXT);
    let mut refused = |sender: &str, want: &str| {
        stranger.ask(&format!("MAIL FROM:<{sender}>"), "250 ");
        stranger.ask("RCPT TO:<jon@razorback>", "250 ");
        stranger.ask("DATA", "354 ");
        stranger.send_text("Subject: x\r\n\r\n.\r\n");
        stranger.expect(want);
    };
    refused("a@good.example", "451 4.3.1 The quarantine of this host is full");
    refused("b@good.example", "451 4.3.1 The quarantine of this host is full");
    refused("a@strict.example", "250 ");
    daemon.wait_words(&["the quarantine is full: hold/ has 10000 entries of "]);
    assert_eq!(daemon.log().matches("the quarantine is full").count(), 1);
    assert_eq!(std::fs::read_dir(&held).expect("hold").count(), 10_000, "nothing is removed");
}

#[test]
fn a_check_of_the_configuration_finds_lists_that_count_for_nothing() {
    let dns = server();
    let lists =
        format!("policy.dnsbl = [\"bl.example\", \"{WILD}\"]\npolicy.sender_lists = [\"{DOWN}\", \"dbl.example\"]");
    let site = site(&dns, &lists);
    let output = site.penfoldd(&["-n"]).output().expect("it runs");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    for (list, is_bad) in [("bl.example", false), (WILD, true), (DOWN, true), ("dbl.example", false)] {
        assert_eq!(printed.contains(&format!("the DNS list {list} counts for nothing")), is_bad, "{printed}");
    }
}
