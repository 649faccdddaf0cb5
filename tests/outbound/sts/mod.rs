//! MTA-STS: records, policy hosts with every fault, and the policies that are kept.
//!
//! Each test has a network of its own, with addresses for documentation, which count as public: no
//! policy is fetched from any other address.
//!
//! - `check`: the policy of our own domain, as `penfoldctl check` sees it
//! - `hosts`: several hosts of one site with a shared store
//! - `renewal`: policies while time passes

#[cfg(feature = "mailauth")]
mod check;
#[cfg(feature = "shared-store")]
mod hosts;
mod renewal;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::Site;
use common::dns::{Answer, Dns as NameServer, answer as answer_of, record as record_of};
use common::https::{Conduct, Request, Server, answer};
use common::namespace::in_a_network;
use common::remote::{self, Offer, Remote, Sink};
use common::tls::{Authority, Leaf};
use penfold::config::parse;
use penfold::dns::Dns;
use penfold::shared::Shared;
use penfold::state::State;
use penfold::timeouts::{HostTimeout, HostTimeouts, Trust};
use penfold::tls::{Client, FaultKind};
use penfold::tls_policy::sts::{Mode, Policies, Sts};

use FaultKind::{StsCertificate as Certificate, StsFetch as Fetch, StsInvalid as Invalid};

const GOOD: &str = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.org\r\nmx: *.example.net\r\nmax_age: 86400\r\n";
/// The limit for a fetch in these tests; one minute otherwise.
const LIMIT: Duration = Duration::from_secs(2);

/// Policies with the parts that they need.
struct Sender {
    policies: Policies,
    tls: Client,
    timeouts: Arc<HostTimeouts>,
    state: PathBuf,
}

impl Sender {
    fn new(name: &str, server: &NameServer, authority: &Authority) -> Self {
        let state = std::env::temp_dir().join(format!("penfold-sts-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&state).expect("a directory");
        let root = state.join("root.pem");
        std::fs::write(&root, authority.root_pem()).expect("a file");
        let tls = Client::with_authorities(&root).expect("an authority");
        Self { policies: policies(server, &state), tls, timeouts: Arc::default(), state }
    }

    /// What is known about a domain, for an attempt that knows nothing about the destination.
    fn ask(&self, domain: &str) -> Sts {
        let unproven = HostTimeout::new(&self.timeouts, Trust::Unproven);
        self.policies.of_domain(domain, &self.tls, unproven.as_ref())
    }

    /// The same for an attempt to a destination that has worked.
    fn ask_proven(&self, domain: &str) -> Sts {
        self.policies.of_domain(domain, &self.tls, None)
    }

    /// Waits for what the background finds out.
    fn wait(&self, domain: &str, enough: impl Fn(&Sts) -> bool) -> Sts {
        let until = Instant::now() + common::TIMEOUT;
        loop {
            let known = self.policies.known(domain);
            if enough(&known) {
                return known;
            }
            assert!(Instant::now() < until, "{known:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

fn policies(server: &NameServer, state: &Path) -> Policies {
    let text = format!("hostname = \"x.test\"\ndns.nameservers = [\"{}\"]\ndns.timeout = \"1s\"", server.address);
    let settings = parse(Path::new("x"), &text).expect("good").dns;
    Policies::limited(&Arc::new(Dns::new(&settings)), &State::at(state), &Shared::default(), LIMIT)
}

fn mode(sts: &Sts) -> Option<Mode> {
    sts.policy.as_ref().map(|policy| policy.mode)
}

fn publish(content: &str) -> Conduct {
    Conduct::Answer(answer("200 OK", "text/plain", content))
}

/// A policy host, and what becomes of the policy: the kind of the failure and words of its text, or
/// `None` if the policy is fetched.
struct Case {
    name: &'static str,
    leaf: Leaf,
    conduct: Conduct,
    want: Option<(FaultKind, &'static str)>,
}

/// The name of the policy host of a case.
fn host(name: &str) -> String {
    format!("mta-sts.{name}.test")
}

/// Policy hosts with a valid certificate.
fn answers(authority: &Authority) -> Vec<Case> {
    let many: String = (0..98).map(|n| format!("mx: mx{n}.example.org\n")).collect();
    let many = GOOD.to_owned() + &many;
    let too_many = many.clone() + "mx: one.too.many\n";
    let long_names: String =
        (0..50).map(|n| format!("mx: {n}.{}.test\n", "a".repeat(63) + "." + &"b".repeat(20))).collect();
    let long_names = GOOD.to_owned() + &long_names;
    let large = GOOD.to_owned() + &"x: y\n".repeat(20_000);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{GOOD}\r\n0\r\n\r\n",
        GOOD.len()
    );
    let endless =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned() + "400\r\n";
    let endless = endless + &format!("{}\r\n400\r\n", "a".repeat(0x400)).repeat(100);
    let open = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{GOOD}");
    let redirect = format!(
        "HTTP/1.1 301 Moved\r\nLocation: https://{}/.well-known/mta-sts.txt\r\nContent-Length: 0\r\n\r\n",
        host("good")
    );
    let cut = String::from_utf8(answer("200 OK", "text/plain", GOOD)).expect("UTF-8");
    let cut = &cut[..cut.len() - 20];
    let header = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX: {}\r\n\r\n{GOOD}", "x".repeat(20_000));
    // The answer of a server that chooses TLS 1.1.
    let old = [&[22, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2][..], &[7; 32], &[0, 0xc0, 0x13, 0]].concat();
    let full = answer("200 OK", "text/plain", GOOD);
    let text = |text: &str| Conduct::Answer(text.as_bytes().to_vec());
    let cases = vec![
        ("good", publish(GOOD), None),
        ("parameters", Conduct::Answer(answer("200 OK", "Text/Plain; charset=utf-8", GOOD)), None),
        ("many", publish(&many), None),
        ("toomany", publish(&too_many), Some((Invalid, "more than 100 mail exchangers"))),
        ("longnames", publish(&long_names), Some((Invalid, "bytes; at most 4096 are allowed"))),
        ("chunked", text(&chunked), None),
        ("open", text(&open), None),
        ("reset", Conduct::Reset(open.clone().into_bytes()), Some((Fetch, "the answer was cut off"))),
        ("opencut", Conduct::Cut(open.into_bytes()), Some((Fetch, "the answer was cut off"))),
        ("cut", text(cut), Some((Fetch, "HTTP: "))),
        ("notls", Conduct::Cut(cut.as_bytes().to_vec()), Some((Fetch, "HTTP: "))),
        ("redirect", text(&redirect), Some((Fetch, "the status is 301"))),
        ("missing", Conduct::Answer(answer("404 Not Found", "text/plain", GOOD)), Some((Fetch, "the status is 404"))),
        ("broken", Conduct::Answer(answer("500 Oh", "text/plain", GOOD)), Some((Fetch, "the status is 500"))),
        ("created", Conduct::Answer(answer("201 Created", "text/plain", GOOD)), Some((Fetch, "the status is 201"))),
        ("html", Conduct::Answer(answer("200 OK", "text/html", GOOD)), Some((Invalid, "content type"))),
        (
            "untyped",
            text(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{GOOD}", GOOD.len())),
            Some((Invalid, "content type")),
        ),
        ("large", publish(&large), Some((Invalid, "too long"))),
        ("endless", text(&endless), Some((Invalid, "too long"))),
        ("header", text(&header), Some((Fetch, "HTTP: response header is too big"))),
        ("garbage", text("hello, world\r\n\r\n"), Some((Fetch, "HTTP: "))),
        ("zeros", Conduct::Answer(vec![0; 1000]), Some((Fetch, "HTTP: "))),
        ("nothing", text(""), Some((Fetch, "HTTP: "))),
        ("nonsense", publish("<!DOCTYPE html>\n"), Some((Invalid, "the policy: line 1: "))),
        ("empty", publish(""), Some((Invalid, "the policy: it has no version"))),
        (
            "nomx",
            publish("version: STSv1\nmode: enforce\nmax_age: 86400\n"),
            Some((Invalid, "the policy: it has no mx")),
        ),
        ("drip", Conduct::Drip(answer("200 OK", "text/plain", &GOOD.repeat(50))), Some((Fetch, "HTTP: timed out"))),
        ("dripheader", Conduct::Drip(header.into_bytes()), Some((Fetch, "HTTP: timed out"))),
        ("hang", Conduct::AnswerAndHang(Vec::new()), Some((Fetch, "HTTP: timed out"))),
        ("hangheader", Conduct::AnswerAndHang(full[..20].to_vec()), Some((Fetch, "HTTP: timed out"))),
        ("hangbody", Conduct::AnswerAndHang(full[..full.len() - 1].to_vec()), Some((Fetch, "HTTP: timed out"))),
        ("handshake", Conduct::Hang, Some((Fetch, "TLS handshake: timed out"))),
        ("plain", Conduct::Plain(full.clone()), Some((Fetch, "TLS handshake: "))),
        ("tls11", Conduct::Plain(old), Some((Fetch, "TLS handshake: "))),
        ("closed", Conduct::Close, Some((Fetch, "TLS handshake: "))),
    ];
    let case = |(name, conduct, want)| Case { name, leaf: authority.leaf(&host(name), 300), conduct, want };
    cases.into_iter().map(case).collect()
}

/// Policy hosts whose certificate is not valid.
fn impostors(authority: &Authority) -> Vec<Case> {
    let cases = [
        ("othername", authority.leaf("mta-sts.good.test", 300), "not valid for name"),
        ("domainonly", authority.leaf("domainonly.test", 300), "not valid for name"),
        ("expired", authority.leaf(&host("expired"), -2), "the certificate expired on"),
        ("selfsigned", Leaf::selfmade(&host("selfsigned")), "not from a trusted authority"),
        ("stranger", Authority::new().leaf(&host("stranger"), 300), "not from a trusted authority"),
    ];
    let case = |(name, leaf, words)| Case { name, leaf, conduct: publish(GOOD), want: Some((Certificate, words)) };
    cases.into_iter().map(case).collect()
}

/// Asks about all domains at the same time, and returns the answers with the time that each took.
fn ask_all(sender: &Sender, names: &[&str]) -> Vec<(Sts, Duration)> {
    let ask = |name: &str| {
        let since = Instant::now();
        (sender.ask(&format!("{name}.test")), since.elapsed())
    };
    thread::scope(|scope| {
        let all: Vec<_> = names.iter().map(|name| scope.spawn(move || ask(name))).collect();
        all.into_iter().map(|one| one.join().expect("an answer")).collect()
    })
}

#[test]
fn every_fault_of_a_policy_host_is_told_apart_and_ends_in_time() {
    in_a_network(&["192.0.2.1/24"], || {
        let authority = Authority::new();
        let mut cases = answers(&authority);
        cases.extend(impostors(&authority));
        let (mut zone, mut servers) = (String::new(), Vec::new());
        for (at, case) in cases.iter().enumerate() {
            let address = format!("192.0.2.{}", at + 10);
            add_address(&address);
            zone += &format!("_mta-sts.{0}.test TXT v=STSv1; id=1;\nmta-sts.{0}.test A {address}\n", case.name);
            servers.push(Server::start(&address, &case.leaf.config, case.conduct.clone()));
        }
        let name_server = NameServer::zone(&zone);
        let sender = Sender::new("faults", &name_server, &authority);
        let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
        for ((case, server), (sts, took)) in cases.iter().zip(&servers).zip(ask_all(&sender, &names)) {
            let name = case.name;
            assert!(took < LIMIT + Duration::from_secs(3), "{name}: {took:?}");
            match case.want {
                None => assert_eq!(mode(&sts), Some(Mode::Enforce), "{name}: {:?}", sts.failure),
                Some((kind, words)) => {
                    let failure = sts.failure.expect(name);
                    assert!(failure.kind == kind && failure.why.contains(words), "{name}: {failure:?}");
                    assert!(sts.policy.is_none(), "{name}");
                }
            }
            let requests = server.requests();
            assert_eq!(requests.len(), 1, "{name}");
            let Request { server, head, .. } = &requests[0];
            if !head.is_empty() {
                assert!(
                    *server == host(name) && head.starts_with("GET /.well-known/mta-sts.txt HTTP/1.1\r\n"),
                    "{head}"
                );
                assert!(head.contains(&format!("\r\nhost: {server}\r\n")), "{head}");
            }
        }
        assert_eq!(sender.policies.known("many.test").policy.expect("a policy").mx.len(), 100);
        // What a host did costs once: the second answer is known.
        for (name, (_, took)) in names.iter().zip(ask_all(&sender, &names)) {
            assert!(took < Duration::from_secs(1), "{name}: {took:?}");
        }
        assert!(servers.iter().all(|server| server.requests().len() == 1));
    });
}

/// Gives this network another address.
fn add_address(address: &str) {
    let prefix = if address.contains(':') { 128 } else { 32 };
    let status =
        std::process::Command::new("ip").args(["address", "add", &format!("{address}/{prefix}"), "dev", "lo"]).status();
    assert!(status.expect("ip").success(), "{address}");
}

#[test]
fn no_policy_is_fetched_from_an_address_that_is_not_public() {
    in_a_network(&["192.0.2.1/24", "10.0.0.1/32", "192.168.1.1/32", "169.254.1.1/32", "fd00::1/128"], || {
        let authority = Authority::new();
        let local = ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.1.1", "::1", "fd00::1"];
        let (mut zone, mut servers) = (String::new(), Vec::new());
        for (at, address) in local.iter().enumerate() {
            let kind = if address.contains(':') { "AAAA" } else { "A" };
            zone += &format!("_mta-sts.d{at}.test TXT v=STSv1; id=1;\nmta-sts.d{at}.test {kind} {address}\n");
            zone += &format!("mta-sts.mixed.test {kind} {address}\n");
            let leaf = authority.leaf(&host(&format!("d{at}")), 300);
            servers.push(Server::start(address, &leaf.config, publish(GOOD)));
        }
        zone += "mta-sts.mixed.test A 192.0.2.1\n_mta-sts.mixed.test TXT v=STSv1; id=1\n";
        zone += "_mta-sts.gone.test TXT v=STSv1; id=1\n_mta-sts.away.test TXT v=STSv1; id=1\nmta-sts.away.test A 192.0.2.99\n";
        zone += "_mta-sts.mute.test TXT v=STSv1; id=1\nmta-sts.mute.test SERVFAIL\n";
        let mixed = authority.leaf(&host("mixed"), 300);
        let public = Server::start("192.0.2.1", &mixed.config, publish(GOOD));
        let name_server = NameServer::zone(&zone);
        let sender = Sender::new("public", &name_server, &authority);
        for at in 0..local.len() {
            let failure = sender.ask(&format!("d{at}.test")).failure.expect("a failure");
            assert!(failure.kind == Fetch && failure.why.contains("no public address"), "{failure:?}");
        }
        assert_eq!(mode(&sender.ask("mixed.test")), Some(Mode::Enforce));
        assert_eq!(public.requests().len(), 1);
        assert!(servers.iter().all(|server| server.requests().is_empty()));
        for (domain, words) in
            [("gone.test", "no such domain"), ("away.test", "connection to 192.0.2.99:443"), ("mute.test", "SERVFAIL")]
        {
            let failure = sender.ask(domain).failure.expect("a failure");
            assert!(failure.kind == Fetch && failure.why.contains(words), "{failure:?}");
        }
        // An address in place of a domain has no policy, and nothing is looked up.
        let asked = name_server.asked().len();
        assert!(sender.ask("[192.0.2.1]").policy.is_none());
        assert_eq!(name_server.asked().len(), asked);
    });
}

#[test]
fn a_domain_without_a_record_costs_one_question_and_no_connection() {
    in_a_network(&["192.0.2.1/24"], || {
        let authority = Authority::new();
        let names = ["none", "other", "two", "bad", "mute", "silent"];
        let mut zone = "_mta-sts.two.test TXT v=STSv1; id=1\n_mta-sts.two.test TXT v=STSv1; id=2\n\
            _mta-sts.other.test TXT v=spf1 -all\n_mta-sts.bad.test TXT v=STSv1; id=a-b\n_mta-sts.mute.test SERVFAIL\n"
            .to_owned();
        for name in names {
            zone += &format!("mta-sts.{name}.test A 192.0.2.1\n");
        }
        let server = Server::start("192.0.2.1", &authority.leaf("x.test", 300).config, publish(GOOD));
        let name_server = NameServer::zone(&zone);
        let sender = Sender::new("none", &name_server, &authority);
        for name in names {
            let asked = name_server.asked().len();
            for _ in 0..3 {
                let sts = sender.ask(&format!("{name}.test"));
                assert!(sts.policy.is_none() && sts.failure.is_none(), "{name}: {sts:?}");
            }
            let asked = &name_server.asked()[asked..];
            assert!(asked.iter().all(|(asked, _)| *asked == format!("_mta-sts.{name}.test")), "{asked:?}");
            // This name server gives no lifetime for the absence of a name, so it is asked each time. A
            // server that fails is asked again within a look-up, but not by the next one.
            let most = match name {
                "none" | "silent" => 3,
                "mute" => 2,
                _ => 1,
            };
            assert!((1..=most).contains(&asked.len()), "{asked:?}");
        }
        assert!(server.requests().is_empty());
    });
}

#[test]
fn a_policy_is_kept_until_its_end_and_renewed_when_the_id_changes() {
    in_a_network(&["192.0.2.1/24"], || {
        let authority = Authority::new();
        let server = Server::start("192.0.2.1", &authority.leaf(&host("a"), 300).config, publish(GOOD));
        // The zone changes with the tests; answers are not kept.
        let record = Arc::new(Mutex::new(Some("v=STSv1; id=1".to_owned())));
        let shown = Arc::clone(&record);
        let name_server = NameServer::start(move |name, kind| {
            let text = shown.lock().expect("a record").clone();
            let mut answer = match (name, text) {
                ("_mta-sts.a.test", Some(text)) if text.is_empty() => Answer::servfail(),
                ("_mta-sts.a.test", Some(text)) => Answer::records(vec![record_of(name, "TXT", &text)]),
                _ => answer_of("mta-sts.a.test A 192.0.2.1", name, kind),
            };
            answer.records.iter_mut().for_each(|record| record.ttl = 0);
            answer
        });
        let publish_id = |text: Option<&str>| *record.lock().expect("a record") = text.map(str::to_owned);
        let sender = Sender::new("kept", &name_server, &authority);
        let id = |sts: &Sts| sts.policy.as_ref().map(|policy| policy.id.to_string());
        for _ in 0..3 {
            assert_eq!(id(&sender.ask("a.test")).as_deref(), Some("1"));
        }
        assert_eq!(server.requests().len(), 1);
        // The old policy is in force until the new one is there; nobody waits for that.
        server.behave(publish(&GOOD.replace("enforce", "testing")));
        publish_id(Some("v=STSv1; id=2"));
        assert_eq!(id(&sender.ask("a.test")).as_deref(), Some("1"));
        let sts = sender.wait("a.test", |sts| id(sts).as_deref() == Some("2"));
        assert_eq!((mode(&sts), server.requests().len()), (Some(Mode::Testing), 2));
        // A new policy that cannot be had leaves the old one in force, and costs one request.
        for (at, conduct) in [publish("<html>"), Conduct::Close, Conduct::Answer(answer("404 No", "text/plain", GOOD))]
            .into_iter()
            .enumerate()
        {
            let sender = Sender {
                policies: policies(&name_server, &sender.state),
                tls: sender.tls.clone(),
                timeouts: Arc::default(),
                state: "/nonexistent".into(),
            };
            server.behave(conduct);
            publish_id(Some("v=STSv1; id=3"));
            assert_eq!(id(&sender.ask("a.test")).as_deref(), Some("2"), "as it was before the restart");
            let sts = sender.wait("a.test", |sts| sts.failure.is_some());
            assert_eq!(id(&sts).as_deref(), Some("2"));
            for _ in 0..3 {
                assert_eq!(id(&sender.ask("a.test")).as_deref(), Some("2"));
            }
            assert_eq!(server.requests().len(), 3 + at);
            // So does a record that is gone, malformed, or cannot be looked up.
            for text in [None, Some("v=STSv1"), Some("")] {
                publish_id(text);
                assert_eq!(id(&sender.ask("a.test")).as_deref(), Some("2"), "{text:?}");
            }
        }
        // The domain ends its policy.
        let sender = Sender {
            policies: policies(&name_server, &sender.state),
            tls: sender.tls.clone(),
            timeouts: Arc::default(),
            state: "/nonexistent".into(),
        };
        server.behave(publish("version: STSv1\nmode: none\nmax_age: 86400\n"));
        publish_id(Some("v=STSv1; id=4"));
        sender.ask("a.test");
        let sts = sender.wait("a.test", |sts| id(sts).as_deref() == Some("4"));
        assert_eq!(mode(&sts), Some(Mode::None));
    });
}

#[test]
fn only_one_thread_fetches_and_only_unproven_destinations_wait() {
    in_a_network(&["192.0.2.1/24", "192.0.2.2/24"], || {
        let authority = Authority::new();
        let config = |name: &str| authority.leaf(&host(name), 300).config;
        let slow = Server::start("192.0.2.1", &config("slow"), Conduct::Hang);
        let _good = Server::start("192.0.2.2", &config("good"), publish(GOOD));
        let name_server = NameServer::zone(
            "_mta-sts.slow.test TXT v=STSv1; id=1\nmta-sts.slow.test A 192.0.2.1\n\
             _mta-sts.good.test TXT v=STSv1; id=1\nmta-sts.good.test A 192.0.2.2\n",
        );
        // Ten attempts wait for the same host, and one of them has asked it.
        let sender = Sender::new("one", &name_server, &authority);
        for (sts, took) in ask_all(&sender, &["slow"; 10]) {
            assert!(sts.failure.is_some_and(|failure| failure.kind == Fetch));
            assert!(took < LIMIT + Duration::from_secs(2), "{took:?}");
        }
        assert_eq!(slow.requests().len(), 1);
        // An attempt to a destination that works does not wait, and neither is its mail sent.
        let sender = Sender::new("two", &name_server, &authority);
        let since = Instant::now();
        for name in ["slow.test", "good.test"] {
            let sts = sender.ask_proven(name);
            assert!(sts.policy.is_none() && sts.is_postponed);
        }
        assert!(since.elapsed() < LIMIT / 2, "{:?}", since.elapsed());
        // The host that is silent does not keep the other policy.
        let sts = sender.wait("good.test", |sts| sts.policy.is_some());
        assert!(mode(&sts) == Some(Mode::Enforce) && since.elapsed() < LIMIT, "{:?}", since.elapsed());
        assert_eq!(mode(&sender.ask_proven("good.test")), Some(Mode::Enforce));
        // While other mail waits, an unproven destination has less time. The background goes on.
        let sender = Sender::new("three", &name_server, &authority);
        sender.timeouts.set(Some(Duration::from_millis(300)), None);
        let since = Instant::now();
        let failure = sender.ask("slow.test").failure.expect("a failure");
        assert!(since.elapsed() < LIMIT / 2 && failure.why.contains("while other mail waited"), "{failure:?}");
        slow.behave(publish(GOOD));
        sender.wait("slow.test", |sts| sts.policy.is_some());
    });
}

/// A mail host at port 25 of an address, with STARTTLS if there is a certificate.
fn mail_host(address: &str, leaf: Option<&Leaf>) -> Remote {
    add_address(address);
    let listener = TcpListener::bind((address, 25)).expect("port 25");
    let tls = leaf.map(Offer::starttls);
    Remote::start(listener, remote::Conduct::Sink(Sink { tls, ..Sink::default() }))
}

/// A domain of the test below.
struct Domain {
    name: &'static str,
    /// The mode of its policy.
    mode: &'static str,
    /// The mail exchanger that the policy names.
    mx: &'static str,
    /// What its mail exchanger offers.
    host: Host,
    /// Words of the log line about a message to it.
    words: &'static [&'static str],
}

enum Host {
    Valid,
    SelfSigned,
    Plain,
}

#[test]
fn mail_follows_the_policy_also_after_a_restart_and_against_an_attacker() {
    in_a_network(&["192.0.2.1/24"], || {
        let authority = Authority::new();
        let domain = |name, mode, mx, host, words| Domain { name, mode, mx, host, words };
        let domains = [
            domain(
                "enforce.test",
                "enforce",
                "mx.enforce.test",
                Host::Valid,
                &["sent", "tls=TLS1.3", "verified=mta-sts"][..],
            ),
            domain(
                "wildcard.test",
                "enforce",
                "*.wildcard.test",
                Host::Valid,
                &["sent", "tls=TLS1.3", "verified=mta-sts"],
            ),
            domain(
                "other.test",
                "enforce",
                "mx.elsewhere.test",
                Host::Valid,
                &["deferred", "dsn=4.7.5", "does not name mx.other.test"],
            ),
            domain(
                "self.test",
                "enforce",
                "mx.self.test",
                Host::SelfSigned,
                &["deferred", "dsn=4.7.5", "not from a trusted authority"],
            ),
            domain("plain.test", "enforce", "mx.plain.test", Host::Plain, &["deferred", "TLS is required"]),
            domain("testing.test", "testing", "mx.testing.test", Host::SelfSigned, &["sent", "tls=TLS1.3"]),
            domain("testplain.test", "testing", "mx.elsewhere.test", Host::Plain, &["sent", "tls=-"]),
            domain("ended.test", "none", "mx.elsewhere.test", Host::Plain, &["sent", "tls=-"]),
            domain("down.test", "", "mx.down.test", Host::Plain, &["sent", "tls=-"]),
        ];
        let (mut zone, mut hosts, mut servers) = (String::new(), Vec::new(), Vec::new());
        for (at, Domain { name, mode, mx, host, .. }) in domains.iter().enumerate() {
            let (web, mail) = (format!("192.0.2.{}", at + 10), format!("192.0.2.{}", at + 100));
            zone += &format!(
                "{name} MX 10 mx.{name}\nmx.{name} A {mail}\n_mta-sts.{name} TXT v=STSv1; id=1;\nmta-sts.{name} A {web}\n"
            );
            let leaf = match host {
                Host::Valid => Some(authority.leaf(&format!("mx.{name}"), 300)),
                Host::SelfSigned => Some(Leaf::selfmade(&format!("mx.{name}"))),
                Host::Plain => None,
            };
            hosts.push(mail_host(&mail, leaf.as_ref()));
            add_address(&web);
            let policy = format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 86400\n");
            let leaf = authority.leaf(&format!("mta-sts.{name}"), 300);
            servers.push(Server::start(&web, &leaf.config, publish(&policy)));
        }
        zone += "without.test MX 10 mx.without.test\nmx.without.test A 192.0.2.220\n";
        let without = mail_host("192.0.2.220", None);
        // An attacker's host, which the DNS gives as mail exchanger later on.
        let attacker = mail_host("192.0.2.200", None);
        let shown = Arc::new(Mutex::new(zone.clone()));
        let zone_of = Arc::clone(&shown);
        let name_server = NameServer::start(move |name, kind| {
            let mut answer = answer_of(&zone_of.lock().expect("a zone"), name, kind);
            answer.records.iter_mut().for_each(|record| record.ttl = 0);
            answer
        });
        let mut site = Site::with("dns.timeout = \"2s\"\nqueue.retry_min = \"1h\"\nremote.timeout = \"3s\"");
        site.set("dns", "nameservers", &name_server.nameservers());
        authority.trusted_by(&mut site);
        let daemon = site.start();
        for Domain { name, words, .. } in &domains {
            let to = format!("elvis@{name}");
            let id = daemon.submit(&[&to]);
            daemon.wait_words(&[&[id.as_str()], *words].concat());
        }
        for (host, Domain { name, words, .. }) in hosts.iter().zip(&domains) {
            let is_sent = words.contains(&"sent");
            host.look(|seen| {
                assert_eq!(seen.messages.len(), usize::from(is_sent), "{name}");
                let mail = seen.commands.iter().filter(|command| command.line.starts_with("MAIL")).count();
                assert_eq!(mail, usize::from(is_sent), "{name}");
            });
        }
        // A policy is looked up once for each connection, and a kept connection needs no look-up.
        let asked = name_server.asked().len();
        for _ in 0..3 {
            let id = daemon.submit(&["elvis@without.test"]);
            daemon.wait_words(&[&id, "sent", "tls=-"]);
        }
        let is_sts = |(name, _): &&(String, _)| name == "_mta-sts.without.test";
        let looked_up = name_server.asked()[asked..].iter().filter(is_sts).count();
        assert_eq!(looked_up, without.look(|seen| seen.connections));
        // What is shown without a look-up agrees.
        let hosts = site.penfoldctl(&["hosts"]);
        assert!(hosts.contains("required"), "{hosts}");
        let explained = site.penfoldctl(&["explain", "elvis@enforce.test"]);
        assert!(explained.contains("RFC 8461"), "{explained}");
        daemon.terminate();
        // After the restart, the policy host and the record are gone, and the mail exchanger in the
        // DNS is the attacker's. The policy is still in force.
        for server in &servers {
            server.behave(Conduct::Close);
        }
        let forged = |zone: &str| {
            let lines = zone.lines().filter(|line| !line.starts_with("_mta-sts."));
            let lines = lines.map(|line| match line.strip_suffix("mx.enforce.test") {
                Some(start) => format!("{start}mx.attacker.test\nmx.attacker.test A 192.0.2.200\n"),
                None => format!("{line}\n"),
            });
            lines.collect::<String>()
        };
        let forged = forged(&zone);
        shown.lock().expect("a zone").clone_from(&forged);
        let daemon = site.start();
        let id = daemon.submit(&["elvis@enforce.test"]);
        daemon.wait_words(&[&id, "deferred", "dsn=4.7.5", "does not name mx.attacker.test"]);
        // STARTTLS is stripped: the name of the exchanger is right, and its address is the attacker's.
        let stripped = zone.replace("mx.enforce.test A 192.0.2.100", "mx.enforce.test A 192.0.2.200");
        assert_ne!(stripped, zone);
        shown.lock().expect("a zone").clone_from(&stripped);
        let id = daemon.submit(&["priscilla@enforce.test"]);
        site.penfoldctl(&["flush"]);
        daemon.wait_words(&[&id, "deferred", "TLS is required"]);
        attacker.look(|seen| assert!(!seen.commands.iter().any(|command| command.line.starts_with("MAIL"))));
        // With the key off, policies do not matter.
        drop(daemon);
        site.set("remote", "mta_sts", "false");
        let daemon = site.start();
        let asked = name_server.asked().len();
        let id = daemon.submit(&["lisa@enforce.test"]);
        daemon.wait_words(&[&id, "sent", "tls=-"]);
        assert!(!name_server.asked()[asked..].iter().any(|(name, _)| name.starts_with("_mta-sts.")));
    });
}

/// Forty domains whose policy hosts say nothing do not keep the mail for a destination that works.
#[test]
fn silent_policy_hosts_do_not_delay_mail_to_destinations_that_work() {
    const SILENT: usize = 40;
    in_a_network(&["192.0.2.1/24"], || {
        let authority = Authority::new();
        let web = authority.leaf(&host("x"), 300);
        add_address("192.0.2.2");
        let silent = Server::start("192.0.2.2", &web.config, Conduct::Hang);
        let mail = mail_host("192.0.2.100", None);
        let mut zone = "good.test A 192.0.2.100\n".to_owned();
        for n in 0..SILENT {
            zone += &format!(
                "s{n}.test A 192.0.2.100\n_mta-sts.s{n}.test TXT v=STSv1; id=1\nmta-sts.s{n}.test A 192.0.2.2\n"
            );
        }
        let name_server = NameServer::zone(&zone);
        let mut site = Site::with("queue.workers = 8");
        site.set("dns", "nameservers", &name_server.nameservers());
        let daemon = site.start();
        let id = daemon.submit(&["elvis@good.test"]);
        daemon.wait_words(&[&id, "sent"]);
        let since = Instant::now();
        for n in 0..SILENT {
            daemon.submit(&[&format!("x@s{n}.test")]);
        }
        daemon.wait_until("fetches", || silent.requests().len() >= 4);
        for n in 0..10 {
            let since = Instant::now();
            let id = daemon.submit(&["elvis@good.test"]);
            daemon.wait_words(&[&id, "sent"]);
            assert!(since.elapsed() < Duration::from_secs(2), "{n}: {:?}", since.elapsed());
        }
        // The others follow as well, without policies: while mail waits, a fetch has little time. Only
        // the last ones, when no mail waits any more, have the whole minute.
        let half = SILENT / 2 + 11;
        mail.wait("half of the others", |seen| seen.messages.len() >= half);
        println!("half of {SILENT} domains with silent policy hosts: {:?}", since.elapsed());
    });
}
