//! AUTH as a client: the mechanisms, and what becomes of a message when AUTH fails.

use super::*;
use common::remote::Offer;
use common::scram::Scram;

const PLAIN: &str = "AUTH PLAIN AGpvbgBodXNo";

fn sink(offers: &str) -> Sink {
    Sink { keywords: keywords(&[offers]), ..Sink::default() }
}

fn scram(password: &str, lies: bool) -> Sink {
    let scram = Scram { password: password.into(), lies, iterations: 4096 };
    Sink { scram: Some(scram), ..sink("AUTH PLAIN SCRAM-SHA-256 LOGIN") }
}

/// A sender that knows this secret for the user jon at 127.0.0.1.
fn sender(secret: &str) -> Sender {
    let mut sender = Sender::new();
    sender.know(&format!("127.0.0.1:jon:{secret}\n"));
    sender
}

fn commands(remote: &Remote) -> Vec<String> {
    remote.look(|seen| seen.commands.iter().map(|c| c.line.clone()).collect())
}

#[test]
fn every_mechanism_works() {
    let login = || {
        sink("AUTH LOGIN")
            .reply("AUTH LOGIN", "334 VXNlcm5hbWU6")
            .reply("am9u", "334 UGFzc3dvcmQ6")
            .reply("aHVzaA==", "235 ok")
    };
    let token = "dXNlcj1qb24BYXV0aD1CZWFyZXIgdG9rZW4BAQ==";
    for (sink, secret, expected) in [
        (sink("AUTH LOGIN plain").reply(PLAIN, "235 2.7.0 ok"), "hush", PLAIN),
        (sink("AUTH=LOGIN PLAIN").reply(PLAIN, "235 ok"), "hush", PLAIN),
        (login(), "hush", "aHVzaA=="),
        (scram("hush", false), "hush", ""),
        (
            sink("AUTH PLAIN XOAUTH2").reply("AUTH XOAUTH2", "235 ok"),
            "xoauth2:command:/bin/echo token",
            &*format!("AUTH XOAUTH2 {token}"),
        ),
    ] {
        let remote = Remote::with(sink);
        let outcome = sender(secret).send_one(&host(remote.address));
        assert_eq!(outcome.fate, Delivered, "{outcome:?}");
        let all = commands(&remote);
        assert!(all.iter().any(|line| line == expected), "{expected}: {all:?}");
        // The host is not told who has submitted the message (RFC 4954 5).
        let is_mail = |line: &&String| line.starts_with("MAIL FROM:");
        assert!(all.iter().find(is_mail).is_some_and(|line| line.ends_with(" AUTH=<>")), "{all:?}");
    }
}

#[test]
fn under_tls_only_the_mechanisms_offered_there_count() {
    let authority = common::tls::Authority::new();
    let leaf = authority.leaf("127.0.0.1", 300);
    let offer = Offer { keywords: Some(keywords(&["AUTH PLAIN"])), ..Offer::starttls(&leaf) };
    let remote = Remote::with(Sink { tls: Some(offer), ..sink("AUTH LOGIN") }.reply(PLAIN, "235 ok"));
    let outcome = sender("hush").send_one(&host(remote.address));
    assert_eq!((outcome.fate, outcome.tls.name()), (Delivered, "TLS1.3"), "{outcome:?}");
    assert!(remote.look(|seen| seen.commands.iter().all(|c| c.tls || !c.line.starts_with("AUTH"))));
}

#[test]
fn a_failed_login_defers_before_the_transaction() {
    let plain = |text: &str| sink("AUTH PLAIN").reply("AUTH", text);
    let endless = || sink("AUTH XOAUTH2").reply("AUTH", "334 e30=").reply("", "334 e30=");
    let xoauth2 = || sink("AUTH XOAUTH2").reply("AUTH", "334 eyJzdGF0dXMiOiI0MDEifQ==");
    let token = "xoauth2:command:/bin/echo token";
    let unproved = || sink("AUTH SCRAM-SHA-256").reply("AUTH", "235 2.7.0 come in");
    for (sink, secret, status, words) in [
        (plain("535 5.7.8 wrong"), "hush", "4.7.8", "the host said to AUTH: 535 5.7.8 wrong"),
        (plain("535 wrong"), "hush", "4.7.8", "the host said to AUTH: 535 wrong"),
        (plain("534 5.7.9 too weak"), "hush", "4.7.9", "534 5.7.9 too weak"),
        (plain("454 4.7.0 later"), "hush", "4.7.0", "454 4.7.0 later"),
        (plain("421 bye"), "hush", "4.0.0", "the host said to AUTH: 421 bye"),
        (plain("250 what?"), "hush", "4.5.0", "250 what?"),
        (plain("334 "), "hush", "4.7.0", "logging in: the server's challenge is malformed"),
        (plain("334 no base64!"), "hush", "4.7.0", "logging in: the host's challenge is not base64"),
        (plain("334-AA==\n334 AA=="), "hush", "4.7.0", "more than one line"),
        (plain("500 what is AUTH PLAIN AGpvbgBodXNo?"), "hush", "4.7.8", "said 500 to AUTH, and repeated a secret"),
        (plain("421 bye, AGpvbgBodXNo"), "hush", "4.7.8", "said 421 to AUTH, and repeated a secret"),
        (plain("535 no good: AGpvbgBodX"), "hush", "4.7.8", "said 535 to AUTH, and repeated a secret"),
        (sink("AUTH PLAIN").when("AUTH", Then::Hang, 1), "hush", "4.4.2", "timed out while logging in"),
        (sink("AUTH PLAIN").when("AUTH", Then::Close, 1), "hush", "4.4.2", "closed while logging in"),
        (scram("hush", true), "hush", "4.7.0", "the server did not prove that it knows the password"),
        (scram("other", false), "hush", "4.7.8", "535 5.7.8 no"),
        (unproved(), "hush", "4.4.2", "logging in: the host does not prove that it knows the password"),
        (xoauth2().reply("", "535 5.7.8 no such token"), token, "4.7.8", "535 5.7.8 no such token"),
        (endless(), token, "4.7.0", "logging in: the host sends too many challenges"),
        (sink("AUTH PLAIN"), token, "4.7.4", "the host does not offer AUTH with XOAUTH2"),
        (sink("AUTH GSSAPI XOAUTH2"), "hush", "4.7.4", "offer AUTH with SCRAM-SHA-256, PLAIN or LOGIN"),
        (sink("SIZE"), "hush", "4.7.4", "there are credentials for the host, and it does not offer AUTH"),
        (sink("AUTH XOAUTH2"), "xoauth2:file:/nonexistent", "4.7.0", "/nonexistent: No such file"),
        (sink("AUTH XOAUTH2"), "xoauth2:command:/bin/false", "4.7.0", "/bin/false: exit status: 1"),
    ] {
        let remote = Remote::with(sink);
        let outcome = sender(secret).send_one(&host(remote.address));
        let about = format!("{words}: {outcome:?} {:?}", commands(&remote));
        assert_eq!(shown(&outcome), (Deferred, status.to_owned()), "{about}");
        assert!(outcome.why.contains(words), "{about}");
        assert!(!commands(&remote).iter().any(|line| line.starts_with("MAIL")), "{about}");
        let whole = format!("{outcome:?}");
        assert!(!whole.contains("hush") && !whole.contains("aHVz") && !whole.contains("AGpvbg"), "{about}");
    }
}

#[test]
fn an_exchange_is_cancelled_properly() {
    for sink in [scram("hush", true), sink("AUTH PLAIN").reply("AUTH", "334 AAAA").reply("*", "501 as you like")] {
        let remote = Remote::with(sink);
        sender("hush").send_one(&host(remote.address));
        remote.wait("the end", |seen| seen.ended == 1);
        let lines = commands(&remote);
        let at = lines.iter().position(|line| line == "*").unwrap_or_else(|| panic!("{lines:?}"));
        assert_eq!(lines[at + 1..], ["QUIT"], "{lines:?}");
    }
}

#[test]
fn a_token_too_long_for_a_command_line_is_sent_after_it() {
    let long = "x".repeat(2000);
    let remote = Remote::with(sink("AUTH XOAUTH2").reply("AUTH XOAUTH2", "334 ").reply("dXNlc", "235 ok"));
    let file = Letter::new(long.as_bytes());
    fs::set_permissions(&file.0, fs::Permissions::from_mode(0o600)).expect("a file of ours");
    let table = format!("127.0.0.1:jon:xoauth2:file:{}\n", file.0.display());
    let kept = file.0.with_extension("token");
    fs::rename(&file.0, &kept).expect("a rename");
    let mut sender = Sender::new();
    sender.know(&table.replace(&*file.0.to_string_lossy(), &kept.to_string_lossy()));
    let outcome = sender.send_one(&host(remote.address));
    assert_eq!(outcome.fate, Delivered, "{outcome:?}");
    assert_eq!(commands(&remote)[1], "AUTH XOAUTH2");
    // If others may read a token file, the client does not use it.
    sender.remote.close();
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o640)).expect("a file of ours");
    let outcome = sender.send_one(&host(remote.address));
    fs::remove_file(&kept).expect("it was there");
    assert_eq!(shown(&outcome), (Deferred, "4.7.0".into()));
    assert!(outcome.why.contains("has mode 640"), "{outcome:?}");
}

#[test]
fn a_host_found_in_the_dns_gets_no_credentials() {
    let zone = NameServer::zone("example.test MX 10 mx.example.test\nmx.example.test A 127.0.0.1");
    let remote = Remote::with(sink("AUTH PLAIN").reply("AUTH", "235 ok"));
    let mut sender = Sender::asking(&zone, Vec::new());
    sender.know("mx.example.test:jon:hush\n127.0.0.1:jon:hush\n");
    assert_eq!(sender.send_one(&mx("example.test", remote.address.port())).fate, Delivered);
    assert!(!commands(&remote).iter().any(|line| line.contains("AUTH")));
}

#[test]
fn a_configured_host_that_requires_authentication_defers() {
    const NONE: &str = "the host requires authentication, and there are no credentials for it: it said to ";
    const OTHER: &str = "the host requires other credentials than those configured for it: it said to ";
    for (at, text, secret, status, words) in [
        ("MAIL", "530 5.7.0 Authentication required", None, "4.7.0", NONE),
        ("RCPT", "530 Authentication required", None, "4.7.0", NONE),
        ("DATA", "530 5.7.0 Authentication required", None, "4.7.0", NONE),
        ("MAIL", "535 5.7.8 who?", None, "4.7.8", NONE),
        ("MAIL", "534 5.7.9 too weak", None, "4.7.9", NONE),
        ("MAIL", "538 5.7.11 in clear", None, "4.7.11", NONE),
        ("MAIL", "530 not you", Some("hush"), "4.7.8", OTHER),
        ("RCPT", "535 5.7.8 not you", Some("hush"), "4.7.8", OTHER),
    ] {
        for pipelining in ["PIPELINING", "SIZE"] {
            let offers = Sink { keywords: keywords(&["AUTH PLAIN", pipelining]), ..Sink::default() };
            let remote = Remote::with(offers.reply(PLAIN, "235 ok").when(at, reply(text), 1));
            let mut sender = secret.map_or_else(Sender::new, sender);
            let outcome = sender.send_one(&host(remote.address));
            assert_eq!(shown(&outcome), (Deferred, status.to_owned()), "{at} {text}: {outcome:?}");
            assert!(outcome.why.starts_with(words) && outcome.why.ends_with(text), "{outcome:?}");
            remote.wait("QUIT", |seen| seen.ended == 1);
            assert_eq!(commands(&remote).last().map(String::as_str), Some("QUIT"), "{at} {text}");
            assert_eq!(sender.remote.cached(), None);
            assert_eq!(sender.send_one(&host(remote.address)).fate, Delivered);
        }
    }
}

#[test]
fn a_host_without_credentials_gets_no_login() {
    let [one, two] = <[TcpListener; 2]>::try_from(listeners(2)).expect("two");
    let locked = Remote::start(one, Conduct::Sink(Sink::default().reply("MAIL", "530 5.7.0 log in")));
    let open = Remote::start(two, Conduct::Sink(Sink::default()));
    let outcome = Sender::new().send_one(&hosts(&[locked.address, open.address]));
    assert_eq!(outcome.fate, Delivered, "{outcome:?}");
}

#[test]
fn a_kept_connection_that_lost_its_login_is_replaced() {
    let sink = sink("AUTH PLAIN").reply(PLAIN, "235 ok").when("MAIL", reply("250 ok"), 1);
    let remote = Remote::with(sink.when("MAIL", reply("530 5.7.0 who was that?"), 1));
    let mut sender = sender("hush");
    assert_eq!(sender.send_one(&host(remote.address)).fate, Delivered);
    let outcome = sender.send_one(&host(remote.address));
    assert_eq!(outcome.fate, Delivered, "{outcome:?}");
    assert_eq!(remote.look(|seen| seen.connections), 2);
}

#[test]
fn a_host_found_in_the_dns_that_requires_authentication_rejects() {
    let zone = NameServer::zone("example.test MX 10 mx.example.test\nmx.example.test A 127.0.0.1");
    let remote = Remote::with(Sink::default().reply("MAIL", "530 5.7.0 log in"));
    let outcome = Sender::asking(&zone, Vec::new()).send_one(&mx("example.test", remote.address.port()));
    assert_eq!(shown(&outcome), (Failed, "5.7.0".into()));
}
