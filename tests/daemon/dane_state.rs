//! The log says why hosts are not verified by their TLSA records, if they are not.

use std::sync::{Arc, Condvar, Mutex};

use common::dns::{Answer, Dns, record};
use common::{Daemon, Site};
use trust_dns_resolver::proto::rr::RecordType;

#[test]
fn a_start_says_why_dane_is_off() {
    for (settings, why) in [
        ("remote.dane = false", "remote.dane is false"),
        ("remote.tls = \"none\"", "remote.tls is \"none\""),
        ("dns.trust_ad = false", "dns.trust_ad is false"),
    ] {
        let daemon = Site::with(&format!("dns.nameservers = [\"127.0.0.1:5353\"]\n{settings}")).start();
        daemon.wait_words(&[&format!("DANE is off: {why}")]);
    }
    let daemon = Site::with("dns.nameservers = [\"127.0.0.1:5353\", \"192.0.2.53\"]").start();
    let why = "dns.trust_ad is \"loopback\", and name servers are not on this host: 192.0.2.53";
    daemon.wait_words(&[&format!("DANE is off: {why}")]);
}

/// A name server with one answer for the root zone, which the test changes.
struct RootServer {
    dns: Dns,
    state: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The answer, and the number of questions. Without an answer, questions wait for one.
    state: Mutex<(Option<Answer>, usize)>,
    changed: Condvar,
}

impl RootServer {
    fn start() -> Self {
        let state = Arc::<Shared>::default();
        let shared = Arc::clone(&state);
        let dns = Dns::start(move |name, kind| {
            if (name, kind) != (".", RecordType::NS) {
                return Answer::nxdomain();
            }
            let changed = &shared.changed;
            let mut state = shared.state.lock().expect("no test has failed");
            state.1 += 1;
            changed
                .wait_while(state, |(answer, _)| answer.is_none())
                .expect("no test has failed")
                .0
                .clone()
                .expect("set")
        });
        Self { dns, state }
    }

    fn set(&self, answer: Answer) {
        self.state.state.lock().expect("no test has failed").0 = Some(answer);
        self.state.changed.notify_all();
    }

    fn questions(&self) -> usize {
        self.state.state.lock().expect("no test has failed").1
    }
}

fn root() -> Answer {
    Answer::records(vec![record(".", "NS", "a.root.test.")])
}

fn count(daemon: &Daemon, text: &str) -> usize {
    daemon.log().lines().filter(|line| line.contains(text)).count()
}

/// A name server that is trusted, but does not verify DNSSEC, makes every zone look insecure. Neither
/// the start nor a reload waits for its answer.
#[test]
fn the_log_says_whether_the_name_server_verifies_dnssec() {
    let server = RootServer::start();
    let mut site = Site::with(&format!("dns.nameservers = {}\ndns.timeout = \"10m\"", server.dns.nameservers()));
    let daemon = site.start();
    let off = "DANE is off: the name servers do not verify DNSSEC: 127.0.0.1";
    let reload = |site: &Site| drop(site.penfoldctl(&["reload"]));
    daemon.wait_until("a question", || server.questions() > 0);
    daemon.greeted();
    reload(&site);
    assert_eq!(count(&daemon, "DANE is"), 0, "{}", daemon.log());
    server.set(root());
    daemon.wait_words(&[off]);
    // The second check, for the reload, finds the same.
    daemon.wait_until("two more questions", || server.questions() >= 4);
    server.set(root().secure());
    reload(&site);
    daemon.wait_until("a word about DANE", || count(&daemon, "DANE is on") == 1);
    // Without an answer nothing is known, and nothing is logged.
    let before = server.questions();
    server.set(Answer::servfail());
    reload(&site);
    daemon.wait_until("a question", || server.questions() > before);
    server.set(root());
    reload(&site);
    daemon.wait_until("another word", || count(&daemon, off) == 2);
    assert_eq!(count(&daemon, "DANE is"), 3, "{}", daemon.log());
    site.set("remote", "dane", "false");
    site.configure();
    reload(&site);
    daemon.wait_words(&["DANE is off: remote.dane is false"]);
}

/// A server that verifies is nothing to report, and one that sends no mail asks no name server.
#[test]
fn a_start_says_nothing_if_dane_is_on_or_no_mail_is_sent() {
    let server = RootServer::start();
    server.set(root().secure());
    let nameservers = server.dns.nameservers();
    let site = Site::with(&format!("dns.nameservers = {nameservers}"));
    let daemon = site.start();
    daemon.wait_until("a question", || server.questions() > 0);
    server.set(root());
    // The line for the start would be logged before that for the reload.
    site.penfoldctl(&["reload"]);
    daemon.wait_words(&["DANE is off"]);
    assert!(!daemon.log().contains("DANE is on"), "{}", daemon.log());

    let before = server.questions();
    let mut site = Site::with(&format!("dns.nameservers = {nameservers}\nremote.local_only = true"));
    let daemon = site.start();
    site.set("remote", "local_only", "false");
    site.configure();
    site.penfoldctl(&["reload"]);
    daemon.wait_words(&["DANE is off"]);
    // The check at the start would have cost two questions, too.
    assert_eq!(server.questions(), before + 2);
    assert_eq!(count(&daemon, "DANE is"), 1);
}
