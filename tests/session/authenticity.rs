//! Messages of strangers: the Authentication-Results: field, and what `policy.dmarc` makes of it.

#[cfg(feature = "shared-store")]
use std::fs::{self, Permissions};
use std::net::TcpStream;
#[cfg(feature = "shared-store")]
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use common::client::Client;
use common::dns::Dns;
#[cfg(feature = "shared-store")]
use common::redis::RedisDir;
use common::{Daemon, Site, keys, programs};
#[cfg(feature = "arc")]
use penfold::mailauth::arc::{self, Sealer};
use penfold::mailauth::dkim::{Signer, SigningKey};

/// A message of example.net before it is signed, with LF line ends.
const TEXT: &str = "From: Anna <anna@example.net>\nTo: jon@razorback\nSubject: hello\nDate: Mon, 30 Nov 2026 10:00:00 +0000\n\
    Message-ID: <1@example.net>\n\nHow are you?\n";

/// The private key of the selector `s`, an Ed25519 seed in PKCS #8.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

fn signed(text: &str) -> String {
    let key = SigningKey::from_pem(KEY.as_bytes()).expect("a key");
    let mut signer = Signer::new();
    signer.feed(text.as_bytes());
    signer.finish(&[("example.net", "s", &key)], 1_780_000_000).expect("a signature") + text
}

/// Puts a set of a sealer before a message. `said` is what the sealer has found out.
#[cfg(feature = "arc")]
fn sealed(text: &str, sealer: &str, said: &str, chain: arc::Status) -> String {
    let key = SigningKey::from_pem(KEY.as_bytes()).expect("a key");
    let mut collected = Sealer::new();
    collected.feed(text.as_bytes());
    collected.finish((sealer, "s", &key), said, chain, 1_780_000_000).expect("a set") + text
}

/// A zone in which example.net and two sealers have a key, and example.net asks for `policy`.
fn zone(policy: &str) -> Dns {
    let key = SigningKey::from_pem(KEY.as_bytes()).expect("a key").record();
    Dns::zone(&format!(
        "s._domainkey.example.net TXT {key}\ns._domainkey.lists.test TXT {key}\ns._domainkey.other.test TXT {key}\n\
         _dmarc.example.net TXT v=DMARC1; p={policy}\nexample.net MX 0 ."
    ))
}

/// A site where clients on loopback are strangers.
fn site(dns: &Dns, settings: &str) -> Site {
    let mut site = Site::with(&format!("relay.networks = []\npolicy.dmarc = \"mark\"\n{settings}"));
    site.set("dns", "nameservers", &dns.nameservers());
    site
}

/// Sends a message with LF line ends. The reply to it must begin with `reply`.
fn send(daemon: &Daemon, text: &str, reply: &str) {
    let mut client = daemon.greeted();
    client.begin("anna@example.net", &["jon@razorback"]);
    client.send_text(&(text.replace('\n', "\r\n") + ".\r\n"));
    client.expect(reply);
}

/// The only message in the mailbox, with the first field unfolded.
fn delivered(daemon: &Daemon, site: &Site) -> String {
    String::from_utf8(daemon.wait_mail(site, "jon", 1).remove(0)).expect("text")
}

/// The Authentication-Results: field above everything but the fields of the delivery, unfolded.
fn results(message: &str) -> String {
    let is_of_delivery = |line: &&str| line.starts_with("Return-Path:") || line.starts_with("Delivered-To:");
    let mut lines = message.lines().skip_while(is_of_delivery);
    let first = lines.next().expect("a field");
    assert!(first.starts_with("Authentication-Results: "), "{message}");
    let more = lines.take_while(|line| line.starts_with(['\t', ' '])).map(str::trim_start);
    std::iter::once(first).chain(more).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_results_stand_above_everything_else_and_forged_ones_are_removed() {
    let dns = zone("reject");
    let site = site(&dns, "");
    let daemon = site.start();
    let forged = "Authentication-Results: razorback.test; dmarc=pass\nAuthentication-Results: mx.example.net;\n spf=pass\n\
         Authentication-Results: \u{a0}razorback.test; dmarc=pass\n\
         Authentication-Results: (=?utf-8?q?=29razorback.test=3Bdmarc=3Dpass=28?=) a.test; none\n";
    send(&daemon, &(forged.to_owned() + &signed(TEXT)), "250 ");
    let message = delivered(&daemon, &site);
    let field = results(&message);
    assert!(field.starts_with("Authentication-Results: razorback.test; "), "{field}");
    assert!(field.contains("; dkim=pass header.d=example.net"), "{field}");
    assert!(field.contains("; dmarc=pass (p=reject) header.from=example.net"), "{field}");
    assert_eq!(message.matches("Authentication-Results:").count(), 2, "{message}");
    assert!(message.contains("\nAuthentication-Results: mx.example.net;\n spf=pass\n"), "{message}");
    daemon.wait_words(&[" checked session=", " dkim=pass:example.net dmarc=pass:example.net policy=none"]);
}

#[test]
fn a_message_that_was_altered_is_marked_or_refused_or_put_into_quarantine() {
    for (policy, settings, reply, place) in [
        ("reject", "policy.dmarc = \"mark\"", "250 ", "inbox"),
        ("reject", "policy.dmarc = \"obey\"", "550 5.7.26 ", ""),
        ("quarantine", "policy.dmarc = \"obey\"", "250 ", "held"),
        ("quarantine", "policy.dmarc = \"obey\"\npolicy.quarantine = \".Junk\"", "250 ", "junk"),
        ("none", "policy.dmarc = \"obey\"", "250 ", "inbox"),
        ("reject; t=y", "policy.dmarc = \"obey\"", "250 ", "held"),
    ] {
        let dns = zone(policy);
        let site = site(&dns, settings);
        let daemon = site.start();
        send(&daemon, &signed(TEXT).replace("How are", "How old are"), reply);
        match place {
            "inbox" => {
                let field = results(&delivered(&daemon, &site));
                assert!(field.contains(" dkim=fail ") && field.contains(" dmarc=fail "), "{field}");
            }
            "held" => {
                let queue = site.penfoldctl(&["queue"]);
                assert!(queue.contains("held") && queue.contains("example.net asks for quarantine"), "{queue}");
            }
            "junk" => {
                let folder = site.mailbox("jon").join(".Junk/new");
                daemon.wait_until("mail in .Junk", || {
                    std::fs::read_dir(&folder).is_ok_and(|mut all| all.next().is_some())
                });
            }
            _ => assert!(daemon.settles(&site) && site.mail("jon").is_empty(), "{policy}"),
        }
    }
}

#[cfg(feature = "arc")]
#[test]
fn an_arc_chain_is_verified() {
    let dns = zone("none");
    let sealed = sealed(TEXT, "example.net", "mx.test; spf=pass", arc::Status::None);
    for (text, result) in [
        (TEXT.to_owned(), None),
        (sealed.clone(), Some("; arc=pass (i=1) header.d=example.net")),
        (sealed.replace("How are", "Who are"), Some("; arc=fail (message signature: body was altered)")),
    ] {
        let site = site(&dns, "");
        let daemon = site.start();
        send(&daemon, &text, "250 ");
        let results = results(&delivered(&daemon, &site));
        match result {
            Some(result) => assert!(results.contains(result), "{results}"),
            None => assert!(!results.contains("; arc="), "{results}"),
        }
    }
}

/// A list has changed a message, which DMARC would refuse.
#[cfg(feature = "arc")]
#[test]
fn a_trusted_sealer_vouches_for_a_message_that_dmarc_would_refuse() {
    const PASSED: &str =
        "mx.lists.test; spf=pass smtp.mailfrom=anna@example.net;\n\tdmarc=pass (p=reject) header.from=example.net";
    let changed = signed(TEXT).replace("How are you?", "How are you?\n--\nThe list");
    let by = |domain: &str, said: &str| sealed(&changed, domain, said, arc::Status::None);
    let again = |text: &str, domain: &str, said: &str| sealed(text, domain, said, arc::Status::Pass);
    let (good, other) = (by("lists.test", PASSED), by("other.test", PASSED));
    let says = |said: &str| by("lists.test", &format!("mx.lists.test; {said}"));
    let two_authors = changed.replace("\nTo:", ", eve@lists.test\nTo:");
    let dns = zone("reject; rua=mailto:x@example.net");
    let settings = "policy.dmarc = \"obey\"\npolicy.dmarc_reports = \"dmarc@razorback.test\"\npolicy.arc_sealers = ";
    let mut accepted = 0;
    for (sealers, text, reply) in [
        ("[\"gate.test\", \"Lists.test\"]", &good, "250 "),
        ("[\"lists.test\"]", &again(&other, "lists.test", PASSED), "250 "),
        ("[]", &good, "550 5.7.26 "),
        ("[\"other.test\", \"test\", \"a.lists.test\"]", &good, "550 5.7.26 "),
        ("[\"lists.test\"]", &changed, "550 5.7.26 "),
        ("[\"lists.test\"]", &good.replace("How are", "Who are"), "550 5.7.26 "),
        ("[\"lists.test\"]", &good.replace("p=reject", "p=none"), "550 5.7.26 "),
        ("[\"lists.test\"]", &again(&good, "other.test", PASSED), "550 5.7.26 "),
        ("[\"lists.test\"]", &again(&good, "lists.test", "mx.lists.test; dmarc=fail"), "550 5.7.26 "),
        ("[\"lists.test\"]", &again(&good, "lists.test", "mx.lists.test; arc=pass"), "550 5.7.26 "),
        ("[\"lists.test\"]", &says("none"), "550 5.7.26 "),
        ("[\"lists.test\"]", &says("dmarc=pass header.from=lists.test"), "550 5.7.26 "),
        ("[\"lists.test\"]", &says("spf=none (dmarc=pass header.from=example.net)"), "550 5.7.26 "),
        ("[\"lists.test\"]", &sealed(&two_authors, "lists.test", PASSED, arc::Status::None), "550 5.7.26 "),
    ] {
        let site = site(&dns, &format!("{settings}{sealers}"));
        let daemon = site.start();
        send(&daemon, text, reply);
        if reply == "250 " {
            let field = results(&delivered(&daemon, &site));
            assert!(
                field.contains("; dmarc=fail (policy reject; accepted by a trusted ARC sealer) header."),
                "{field}"
            );
            assert!(field.contains(" header.d=lists.test"), "{field}");
            daemon.wait_words(&[" checked ", " dmarc=fail:example.net policy=reject arc=pass:lists.test"]);
            accepted += 1;
        } else {
            daemon.wait_words(&[" checked ", " policy=reject"]);
        }
        assert!(daemon.terminate().success());
        let counts = std::fs::read_to_string(site.path("spool/state/dmarc")).expect("counts");
        let reason = if reply == "250 " { "|none|00|trusted_forwarder|example.net|" } else { "|reject|00||" };
        assert!(counts.contains(reason), "{counts}");
    }
    assert_eq!(accepted, 2);
    let dns = zone("quarantine");
    let site = site(&dns, "policy.dmarc = \"obey\"\npolicy.arc_sealers = [\"lists.test\"]");
    let daemon = site.start();
    send(&daemon, &good, "250 ");
    let field = results(&delivered(&daemon, &site));
    assert!(field.contains("; dmarc=fail (policy quarantine; accepted by a trusted ARC sealer) "), "{field}");
}

/// Without `obey` there is nothing to vouch for.
#[cfg(feature = "arc")]
#[test]
fn the_log_has_the_result_for_a_chain_even_if_it_decides_nothing() {
    let dns = zone("reject");
    let sealed = sealed(TEXT, "lists.test", "mx.test; dmarc=pass header.from=example.net", arc::Status::None);
    for (text, logged) in [
        (sealed.clone(), " policy=reject arc=pass:lists.test"),
        (sealed.replace("How are", "Who are"), " policy=reject arc=fail"),
    ] {
        let site = site(&dns, "policy.arc_sealers = [\"lists.test\"]");
        let daemon = site.start();
        send(&daemon, &text, "250 ");
        assert!(daemon.wait_words(&[" checked "]).ends_with(logged), "{}", daemon.log());
        let field = results(&delivered(&daemon, &site));
        assert!(field.contains("; dmarc=fail (policy reject) "), "{field}");
    }
}

/// Mail programs show an author wherever the field is.
#[test]
fn an_author_below_a_long_header_is_checked() {
    let dns = zone("reject");
    let site = site(&dns, "policy.dmarc = \"obey\"");
    let daemon = site.start();
    send(&daemon, &("X-Padding: padding\n".repeat(10_000) + TEXT), "550 5.7.26 ");
}

#[test]
fn a_mute_name_server_costs_a_stranger_five_seconds_and_leaves_temporary_errors() {
    let dns = Dns::start(|_, _| common::dns::Answer::silence());
    for (word, reply) in [("mark", "250 "), ("obey", "451 4.7.1 ")] {
        let settings = "policy.spf = \"mark\"\ndns.timeout = \"30s\"\nlisten.proxy = [\"127.0.0.1\"]";
        let site = site(&dns, &format!("policy.dmarc = \"{word}\"\n{settings}"));
        let daemon = site.start();
        let (text, started) = (signed(TEXT), Instant::now());
        let mut client = Client::before_banner(TcpStream::connect(daemon.address()).expect("it accepts"));
        client.send_text("PROXY TCP4 192.0.2.7 192.0.2.25 4321 25\r\n");
        client.expect("220 ");
        client.ask("HELO mx.example.net", "250 ");
        client.begin("anna@example.net", &["jon@razorback"]);
        client.send_text(&(text.replace('\n', "\r\n") + ".\r\n"));
        client.expect(reply);
        let took = started.elapsed();
        assert!((Duration::from_secs(4)..Duration::from_secs(6)).contains(&took), "{took:?}");
        if word == "mark" {
            let field = results(&delivered(&daemon, &site));
            assert_eq!(field.matches("spf=temperror ").count(), 2, "{field}");
            for result in ["iprev=temperror ", "dkim=temperror ", "dmarc=temperror "] {
                assert!(field.contains(result), "{field}");
            }
        }
    }
}

/// The names of a stranger may cost time, but not the time for the author's domain.
#[test]
fn slow_names_of_a_stranger_suspend_no_policy() {
    let key = SigningKey::from_pem(KEY.as_bytes()).expect("a key").record();
    let zone = format!(
        "_dmarc.example.net TXT v=DMARC1; p=reject\n_dmarc.none.test TXT v=DMARC1; p=none\nnone.test MX 0 .\n\
         s._domainkey.example.net TXT {key}\n_dmarc.lost.test TXT v=DMARC1; p=quarantine"
    );
    let dns =
        Dns::start(move |name, kind| match name.ends_with("evil.test") || name.ends_with("domainkey.lost.test") {
            true => common::dns::Answer::silence(),
            false => {
                common::dns::Answer { after: Duration::from_millis(700), ..common::dns::answer(&zone, name, kind) }
            }
        });
    let settings = "policy.spf = \"mark\"\npolicy.dmarc = \"obey\"\npolicy.sender_domain = \"accept\"\ndns.timeout = \"30s\"\n\
                    listen.proxy = [\"127.0.0.1\"]";
    let altered = signed(TEXT).replace("How are", "Who are");
    let by_evil = signed(TEXT).replace("d=example.net", "d=evil.test");
    let by_lost = signed(TEXT).replace("example.net", "lost.test");
    for (sender, text, reply) in [
        ("anna@evil.test", &signed(TEXT), "250 "),
        ("anna@evil.test", &altered, "550 5.7.26 "),
        ("anna@evil.test", &by_evil, "550 5.7.26 "),
        ("anna@none.test", &by_lost, "451 4.7.1 "),
    ] {
        // Nothing is in the cache of a new server.
        let site = site(&dns, settings);
        let daemon = site.start();
        let mut client = Client::before_banner(TcpStream::connect(daemon.address()).expect("it accepts"));
        client.send_text("PROXY TCP4 192.0.2.1 192.0.2.25 4321 25\r\n");
        client.expect("220 ");
        client.ask("HELO client.example", "250 ");
        let started = Instant::now();
        client.begin(sender, &["jon@razorback"]);
        client.send_text(&(text.replace('\n', "\r\n") + ".\r\n"));
        client.expect(reply);
        assert!(started.elapsed() < Duration::from_secs(8), "{sender}: {:?}", started.elapsed());
    }
}

#[test]
fn an_author_that_cannot_be_checked_is_refused_only_if_dmarc_is_obeyed() {
    let dns = zone("reject");
    let text = |from: &str| TEXT.replace("From: Anna <anna@example.net>\n", from);
    for (word, reply) in [("mark", "250 "), ("obey", "550 5.7.1 The author cannot be checked (DMARC): ")] {
        let site = site(&dns, &format!("policy.dmarc = \"{word}\""));
        let daemon = site.start();
        for from in [
            &*format!("From: \"{}\" <anna@example.net>\n", "A\n ".repeat(11_000)),
            &*format!("From: ({}) <anna@example.net>\n", "A\n ".repeat(11_000)),
            "From: a@1.test, b@2.test, c@3.test, d@4.test, e@5.test, anna@example.net\n",
            "From: <anna@example.net\u{a0}>\n",
            "From: anna@\n",
            "From: \"anna@example.net\", eve@evil.test\n",
            "From: anna@a-.example.net, <eve@evil.test>\n",
            "From: <eve@evil.test>\nFrom: <eve@evil.test>\n",
            &format!("From: {}\n", "@(@(@(@(@(@(\n ".repeat(2300)).repeat(4),
            "",
        ] {
            let started = Instant::now();
            send(&daemon, &text(from), reply);
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        }
        let reply = if word == "mark" { "250 " } else { "550 5.7.26 " };
        send(&daemon, &text("From: <anna\\@example.net>\n"), reply);
        for from in [
            "From: MAILER-DAEMON (Mail Delivery System)\n",
            "From: Jobs @ O'Reilly <j@oreilly.test>\n",
            "From: \"'j@oreilly.test' via List\" <list@oreilly.test>\n",
        ] {
            send(&daemon, &text(from), "250 ");
        }
    }
}

/// SPF is not checked for a client whose address a proxy does not know. So SPF counts for nothing.
#[test]
fn a_client_without_an_address_gets_a_final_answer() {
    let dns = zone("reject");
    let site = site(&dns, "listen.proxy = [\"127.0.0.1\"]\npolicy.spf = \"mark\"\npolicy.dmarc = \"obey\"");
    let daemon = site.start();
    for (text, reply) in [(signed(TEXT), "250 "), (TEXT.to_owned(), "550 5.7.26 ")] {
        let mut client = Client::before_banner(TcpStream::connect(daemon.address()).expect("it accepts"));
        client.send_text("PROXY UNKNOWN\r\n");
        client.expect("220 ");
        client.ask("HELO example.net", "250 ");
        client.begin("anna@example.net", &["jon@razorback"]);
        client.send_text(&(text.replace('\n', "\r\n") + ".\r\n"));
        client.expect(reply);
    }
}

#[test]
fn a_trusted_client_is_not_checked() {
    let dns = zone("reject");
    let mut site = site(&dns, "policy.dmarc = \"obey\"\npolicy.spf = \"refuse\"");
    site.set("relay", "networks", "[\"127.0.0.0/8\"]");
    let daemon = site.start();
    send(&daemon, TEXT, "250 ");
    let message = delivered(&daemon, &site);
    assert!(!message.contains("Authentication-Results"), "{message}");
    assert!(!dns.asked().iter().any(|(name, _)| name.contains("example.net")), "{:?}", dns.asked());
}

#[test]
fn mail_of_clients_that_may_relay_is_signed_by_the_domain_of_its_author() {
    let mut site = Site::new();
    site.make_root_owned();
    let made = keys::make("razorback.test", &site.path("dkim"), "a");
    made.iter().for_each(|key| key.add_to(&mut site));
    let daemon = site.start();
    let text =
        |from: &str, size: usize| format!("From: {from}\r\nSubject: x\r\n\r\n{}", ".. a line\r\n".repeat(size / 10));
    let bodies = [
        ("jon@razorback.test", 100),
        ("\"x@else.test\" <jon@Razorback.TEST>", 200_000),
        ("jon@sub.razorback.test", 100),
    ];
    let mut seen = Vec::new();
    for (number, (from, size)) in bodies.into_iter().enumerate() {
        daemon.client().send("jon@razorback.test", &["jon@razorback"], &text(from, size));
        let mut mail = daemon.wait_mail(&site, "jon", number + 1);
        mail.retain(|mail| !seen.contains(mail));
        seen.push(mail.remove(0));
    }
    let output = programs::sendmail(&site, &["jon@razorback"], b"From: jon@razorback.test\n\nfrom a program\n");
    assert_eq!(programs::code_and_text(&output), (0, String::new()));
    let mut mail = daemon.wait_mail(&site, "jon", 4);
    mail.retain(|mail| !seen.contains(mail));
    seen.push(mail.remove(0));
    for (number, mail) in seen.iter().enumerate() {
        let Some(verified) = keys::verify(mail, &made) else { return };
        let wanted: &[&str] =
            if number == 2 { &[] } else { &["a-rsa razorback.test True", "a-ed25519 razorback.test True"] };
        assert_eq!(verified, wanted, "{number}: {}", String::from_utf8_lossy(&mail[..mail.len().min(3000)]));
    }
    drop(daemon);
    site.set("relay", "networks", "[]");
    let daemon = site.start();
    daemon.client().send("jon@razorback.test", &["root@razorback"], &text("jon@razorback.test", 100));
    let mail = daemon.wait_mail(&site, "root", 1).remove(0);
    assert!(!String::from_utf8_lossy(&mail).contains("DKIM-Signature"));
}

/// How often the name server has been asked for the key.
#[cfg(feature = "shared-store")]
fn questions(dns: &Dns) -> usize {
    dns.asked().iter().filter(|(name, _)| name.starts_with("s._domainkey.")).count()
}

/// Sends a signed message to a new host, which knows nothing. Returns the result for the signature, and how
/// often the host has asked for the key. A host for which the store was too slow does not count, but may have
/// put the key into the store.
#[cfg(feature = "shared-store")]
fn at_a_new_host(redis: &RedisDir, secret: Option<&str>, dns: &Dns) -> (String, usize) {
    for _ in 0..20 {
        let mut site = site(dns, "dns.timeout = \"2s\"");
        site.set("shared", "store", &format!("{:?}", redis.url()));
        if let Some(secret) = secret {
            site.write("shared_secret", secret);
            fs::set_permissions(site.path("shared_secret"), Permissions::from_mode(0o600)).expect("a mode");
            site.set("shared", "secret", &format!("{:?}", site.path("shared_secret")));
        }
        let (daemon, before) = (site.start(), questions(dns));
        daemon.wait_words(&["counts are shared"]);
        send(&daemon, &signed(TEXT), "250 ");
        let field = results(&delivered(&daemon, &site));
        if !daemon.log().contains("counts alone") {
            let result = field.split_once("; dkim=").expect("a result").1;
            return (result.split(' ').next().unwrap_or_default().to_owned(), questions(dns) - before);
        }
    }
    panic!("the store was never there all the time");
}

#[cfg(feature = "shared-store")]
#[test]
fn a_key_is_looked_up_by_one_host_for_all_that_know_the_secret() {
    let redis = RedisDir::new();
    let Some(_running) = redis.start(&[]) else { return };
    let (dns, broken) = (zone("none"), Dns::zone("s._domainkey.example.net SERVFAIL\nexample.net MX 0 ."));
    let ours = Some("the secret of these hosts, 32 characters");
    let theirs = Some("the secret of other hosts, 32 characters");
    let passes = |secret, dns| at_a_new_host(&redis, secret, dns) == ("pass".to_owned(), 0);
    let asks = |secret, dns, want: &str| {
        let before = questions(dns);
        let (result, _) = at_a_new_host(&redis, secret, dns);
        assert!(result == want && questions(dns) > before, "{result}");
    };
    asks(None, &dns, "pass");
    asks(ours, &broken, "temperror");
    assert_eq!(redis.ask(&["KEYS", "penfold:1:dkim:*"]), "");
    asks(ours, &dns, "pass");
    assert!(passes(ours, &dns) && passes(ours, &broken));
    asks(theirs, &broken, "temperror");
    asks(None, &broken, "temperror");
    // The store keeps the key no longer than the DNS allows, and cannot read it.
    let key = redis.ask(&["KEYS", "penfold:1:dkim:*"]);
    let (sealed, seconds) = (redis.ask(&["GET", &key]), redis.ask(&["TTL", &key]));
    assert!((1..=60).contains(&seconds.parse::<u32>().expect("a number")), "{seconds}");
    assert!(!sealed.is_empty() && !key.contains("example"), "{key} {sealed}");
    // What others write is not used.
    redis.ask(&["SET", &key, &sealed.replace(&sealed[..4], "AAAA")]);
    asks(ours, &broken, "temperror");
    asks(ours, &dns, "pass");
    assert!(passes(ours, &broken));
}
