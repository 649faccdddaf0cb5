//! Messages that need TLS (REQUIRETLS, RFC 8689), end to end: where the demand comes from, what keeps
//! it, and the report if no host can meet it.
//!
//! The hosts that may get such a message are in tests/outbound/client (`require_tls`).

use common::programs::{code_and_text, sendmail};
use common::remote::{Conduct, Offer, Remote, Sink};
use common::tls::Authority;
use common::{Daemon, Site};

const TEXT: &[u8] = b"Subject: hello\nFrom: jon@razorback.test\nMessage-ID: <x@razorback.test>\n\nHow are you?\n";

/// A host with a valid certificate, which has these extensions after STARTTLS.
fn host(authority: &Authority, keywords: &[&str]) -> Sink {
    let keywords = keywords.iter().map(|&word| word.to_owned()).collect();
    Sink {
        tls: Some(Offer { keywords: Some(keywords), ..Offer::starttls(&authority.leaf("127.0.0.1", 300)) }),
        ..Sink::default()
    }
}

/// A site that sends all mail to a host, and trusts the authority.
fn site(authority: &Authority, remote: &Remote) -> Site {
    let mut site = Site::with("remote.timeout = \"1s\"\nqueue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"");
    authority.trusted_by(&mut site);
    site.set("remote", "smarthosts", &format!("[\"smtp://127.0.0.1:{}\"]", remote.address.port()));
    site
}

/// Sends a message with sendmail(8), and returns its id.
fn send(site: &Site, daemon: &Daemon, options: &[&str], to: &str) -> String {
    let accepted = || {
        let lines = daemon.log().lines().map(str::to_owned).collect::<Vec<_>>();
        lines.into_iter().filter(|line| line.contains(" accept from=<jon@razorback.test>")).collect::<Vec<_>>()
    };
    let before = accepted().len();
    let arguments = [&["-f", "jon@razorback.test"], options, &[to]].concat();
    assert_eq!(code_and_text(&sendmail(site, &arguments, TEXT)), (0, String::new()), "{}", daemon.log());
    daemon.wait_until("an accepted message", || accepted().len() > before);
    let line = accepted().pop().expect("a line");
    line.split(" accept ").next().and_then(|front| front.split(' ').next_back()).expect("an id").to_owned()
}

/// The sender and the parameters of MAIL of each message that a host has, without SIZE.
fn mails(remote: &Remote, count: usize) -> Vec<String> {
    let without_size =
        |text: &str| text.split(' ').filter(|word| !word.starts_with("SIZE=")).collect::<Vec<_>>().join(" ");
    let mut all: Vec<String> = remote.messages(count).iter().map(|message| without_size(&message.sender)).collect();
    all.sort();
    all
}

#[test]
fn what_aliases_and_lists_pass_on_needs_tls_like_the_message() {
    let authority = Authority::new();
    let remote = Remote::with(host(&authority, &["SIZE", "REQUIRETLS"]));
    let mut site = site(&authority, &remote);
    site.set("remote", "srs", "true");
    site.write("members", "m@far.test\nn@far.test\n");
    let list = format!("club: \":include:{}\"\nowner-club: root", site.path("members").display());
    site.add("aliases", &format!("solo: s@far.test\ncrew: c@far.test, root\n{list}"));
    let daemon = site.start();
    for (to, count) in
        [("a@far.test", 1), ("solo@razorback.test", 2), ("crew@razorback.test", 3), ("club@razorback.test", 4)]
    {
        send(&site, &daemon, &["-O", "requiretls=yes"], to);
        let last = mails(&remote, count);
        assert!(last.len() == count && last.iter().all(|mail| mail.ends_with("> REQUIRETLS")), "{to}: {last:?}");
    }
    assert!(mails(&remote, 4).contains(&"<owner-club@razorback.test> REQUIRETLS".to_owned()), "{}", daemon.log());
    assert!(remote.messages(4).iter().all(|message| message.tls));
    daemon.wait_words(&[" accept ", " require_tls=yes "]);
    assert_eq!(daemon.wait_mail(&site, "root", 1).len(), 1);
}

#[test]
fn a_message_that_needs_tls_is_returned_with_its_header_only() {
    let authority = Authority::new();
    for (sink, status, words) in [
        (host(&authority, &["SIZE"]), "5.7.30", "the host does not offer REQUIRETLS"),
        (Sink::default(), "5.7.10", "the host does not offer STARTTLS"),
    ] {
        let remote = Remote::with(sink);
        let site = site(&authority, &remote);
        let daemon = site.start();
        let id = send(&site, &daemon, &["-O", "requiretls=yes", "-R", "full"], "a@far.test");
        daemon.wait_words(&[&id, " failed to=<a@far.test>", &format!("dsn={status}"), words]);
        let report = daemon.wait_mail(&site, "jon", 1).pop().expect("a report");
        let report = String::from_utf8_lossy(&report).replace("\n ", " ");
        assert!(report.contains(&format!("\nStatus: {status}\n")) && report.contains("REQUIRETLS"), "{report}");
        assert!(report.contains("Content-Type: text/rfc822-headers") && !report.contains("How are you?"), "{report}");
        // The host gets other mail.
        send(&site, &daemon, &[], "a@far.test");
        assert!(mails(&remote, 1)[0].starts_with("<jon@razorback.test>"));
    }
}

#[test]
fn the_demand_outlives_the_daemon_and_is_listed() {
    let authority = Authority::new();
    let down = host(&authority, &["REQUIRETLS"]).reply("CONNECT", "421 not now");
    let remote = Remote::with(down);
    let site = site(&authority, &remote);
    let daemon = site.start();
    let id = send(&site, &daemon, &["-O", "RequireTLS=yes"], "a@far.test");
    daemon.wait_words(&[&id, " deferred to=<a@far.test>"]);
    let shown = site.penfoldctl(&["show", &id]);
    assert!(shown.lines().any(|line| line.starts_with("Options") && line.ends_with(" REQUIRETLS")), "{shown}");
    assert!(site.penfoldctl(&["queue", "--json"]).contains("\"require_tls\":\"yes\""));
    let explained = site.penfoldctl(&["explain", &id]);
    assert!(explained.contains("it needs TLS on its way (REQUIRETLS)"), "{explained}");
    assert!(explained.contains("TLS by STARTTLS is required, with a valid certificate"), "{explained}");
    assert!(daemon.terminate().success());
    remote.behave(Conduct::Sink(Sink::default()));
    let daemon = site.start();
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    daemon.wait_words(&[&id, " failed to=<a@far.test>", "dsn=5.7.10"]);
    assert!(remote.look(|seen| seen.messages.is_empty()));
}

#[test]
fn sendmail_tells_of_a_daemon_that_does_not_offer_requiretls() {
    let mut site = Site::new();
    site.set("smtp", "disable", "[\"REQUIRETLS\"]");
    let daemon = site.start();
    let (code, text) = code_and_text(&sendmail(&site, &["-O", "requiretls=yes", "a@far.test"], TEXT));
    assert!(code != 0 && text.contains("555 5.5.4"), "{code} {text}\n{}", daemon.log());
    assert!(site.spooled().is_empty());
}
