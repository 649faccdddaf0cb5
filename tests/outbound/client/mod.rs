//! Mail to other hosts, without the daemon: the SMTP client, scripted servers and a scripted DNS.
//!
//! Every failure of another host or of the DNS has a row in a table of these files, with the fate
//! of the message and the words in the report and the log. The daemon's part is in
//! tests/outbound/end_to_end.rs.
//!
//! - `chunks`: binary messages, by BDAT
//! - `dane`: TLSA records
//! - `dialogue`: what is recorded of a dialogue
//! - `dns`: lookups
//! - `fallback`: the fallback hosts
//! - `hosts`: the choice of hosts, and their order
//! - `lmtp`: mail stores, and the outcome for each recipient
//! - `login`: AUTH
//! - `messages`: recipients, size, content, and kept connections
//! - `require_tls`: messages that need TLS
//! - `secure`: TLS
//! - `secure_answers`: answers of the DNS that are secure
//! - `stages`: replies and failures at each stage
//! - `tls_policies`: the table of TLS policies
//! - `utf8`: messages that need SMTPUTF8

pub mod chunks;
mod dane;
mod dialogue;
mod dns;
mod fallback;
mod hosts;
mod lmtp;
mod login;
mod messages;
mod require_tls;
mod secure;
mod secure_answers;
mod stages;
mod tls_policies;
mod utf8;

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::dns::Dns as NameServer;
use common::remote::{Conduct, Remote, Sink, Then, listeners};
use common::tls::Authority;
use penfold::address::Address;
use penfold::config::{Config, HostPort, Scheme, Store, TableFile, parse};
use penfold::deliver::Delivery;
use penfold::deliver::remote::convert::Converter;
use penfold::deliver::remote::credentials::Credentials;
use penfold::deliver::remote::{Outbound, RemoteDelivery, RemoteSettings};
use penfold::destination::{Destination, HostTarget};
use penfold::dialogue::Dialogue;
use penfold::dns::Dns;
use penfold::envelope::{Body, MailOptions, MessageTls, Recipient};
use penfold::outcome::{Contact, Fate, NoAnswer, Outcome};
use penfold::outgoing::Outgoing;
use penfold::privsep::Rights;
use penfold::shared::Shared;
use penfold::spool::{Content, Measure};
use penfold::state::State;
use penfold::timeouts::Trust;
use penfold::tls::Client;
use penfold::tls_policy::sts::Policies;
use penfold::tls_policy::table::TlsPolicies;

use Fate::{Deferred, Delivered, Failed};

/// The timeout of every stage of a session, and of DNS lookups.
const LIMIT: Duration = Duration::from_secs(1);

/// An SMTP client with its settings.
struct Sender {
    config: Config,
    remote: RemoteDelivery,
    tls: Client,
    credentials: Credentials,
    dns: Arc<Dns>,
    /// The text of the message that it sends.
    text: Vec<u8>,
    body: Body,
    /// Whether the client that sent the message gave SMTPUTF8.
    utf8: bool,
    /// The sender of the message; empty for a report.
    sender: String,
    /// What the message demands of TLS.
    demand: MessageTls,
    /// Whether hosts in the DNS must have public addresses.
    only_public: bool,
    /// The dialogue of the last attempt.
    dialogue: Option<Dialogue>,
    /// What the last attempt has shown about the destination.
    contact: Contact,
    /// The table of TLS policies.
    policies: Option<Letter>,
}

impl Sender {
    /// A client that makes no DNS lookups.
    fn new() -> Self {
        Self::asking(&NameServer::zone(""), Vec::new())
    }

    fn asking(server: &NameServer, local: Vec<SocketAddr>) -> Self {
        Self::with(config(server.address), local)
    }

    /// A client that does not trust the name server to verify DNSSEC.
    fn not_trusting(server: &NameServer) -> Self {
        let mut config = config(server.address);
        config.dns.trust_ad = Some(false);
        Self::with(config, Vec::new())
    }

    fn with(config: Config, local: Vec<SocketAddr>) -> Self {
        let dns = Arc::new(Dns::new(&config.dns));
        let shared = Outbound {
            dns: Arc::clone(&dns),
            local,
            addresses: Arc::default(),
            timeouts: Arc::default(),
            sts: Policies::new(&dns, &State::at(Path::new("/nonexistent")), &Shared::default()),
        };
        let remote = RemoteDelivery::new(shared);
        let credentials = Credentials::open(&config, &Rights::Alone).expect("none");
        Self {
            config,
            remote,
            tls: Client::new(),
            credentials,
            dns,
            text: b"Subject: x\n\nhello\n".to_vec(),
            body: Body::SevenBit,
            utf8: false,
            sender: "jon@razorback.test".to_owned(),
            demand: MessageTls::Default,
            only_public: false,
            dialogue: None,
            contact: Contact::None,
            policies: None,
        }
    }

    fn send_to(&mut self, to: &HostTarget, recipients: &[&str]) -> Vec<Outcome> {
        let letter = Letter::new(&self.text);
        let file = File::open(&letter.0).expect("a file");
        self.send(to, recipients, Content::new(&file, 0, self.text.len() as u64))
    }

    fn send(&mut self, to: &HostTarget, recipients: &[&str], content: Content<'_>) -> Vec<Outcome> {
        let recipient = |text: &&str| Recipient::new(Address::parse(text).expect("an address"));
        let all: Vec<_> = recipients.iter().map(recipient).collect();
        let sender = (!self.sender.is_empty()).then(|| Address::parse(&self.sender).expect("an address"));
        let recipients = all.iter().collect();
        let options = &MailOptions { body: self.body, utf8: self.utf8, tls: self.demand, ..MailOptions::default() };
        let only_public = self.only_public;
        let converter = Converter {
            scratch: &|_| scratch(),
            front: &|_| String::new(),
            #[cfg(feature = "mailauth")]
            keys: None,
            now: 0,
        };
        let (sender, ask_until) = (sender.as_ref(), None);
        let what = Delivery {
            id: "x",
            sender,
            options,
            recipients,
            content,
            converter,
            only_public,
            ask_until,
            may_use_account: true,
        };
        let (config, tls, credentials) = (&self.config, &self.tls, &self.credentials);
        let (tls_policies, _) = TlsPolicies::begin(config);
        let (outgoing, _) = Outgoing::begin(config);
        let settings = RemoteSettings {
            config,
            tls,
            credentials,
            tls_policies: &tls_policies,
            outgoing: &outgoing,
            counts: None,
            trust: Trust::Proven,
        };
        let destination = Arc::new(Destination::Remote(to.clone(), None));
        let mut result = self.remote.deliver(settings, &destination, to, &what);
        // Then the queue repeats the attempt so.
        if matches!(result.contact, Contact::Postponed) {
            let settings = RemoteSettings { trust: Trust::Slow, ..settings };
            result = self.remote.deliver(settings, &destination, to, &what);
        }
        (self.dialogue, self.contact) = (result.dialogue, result.contact);
        result.outcomes
    }

    /// Makes the client trust this authority, and no other.
    fn believe(&mut self, authority: &Authority) {
        let file = Letter::new(authority.root_pem().as_bytes());
        self.tls = Client::with_authorities(&file.0).expect("an authority");
    }

    /// Gives the client a credentials table with these lines.
    fn know(&mut self, lines: &str) {
        let file = Letter::new(lines.as_bytes());
        fs::set_permissions(&file.0, fs::Permissions::from_mode(0o600)).expect("a file of ours");
        self.config.remote.credentials = TableFile { path: file.0.clone(), required: true };
        self.credentials = Credentials::open(&self.config, &Rights::Alone).expect("good lines");
    }

    /// Sends the message to one recipient at a host.
    /// Gives the client a table of TLS policies with these lines.
    fn rule(&mut self, lines: &str) {
        self.policies = Some(Letter::new(lines.as_bytes()));
        let path = self.policies.as_ref().expect("a table").0.clone();
        self.config.remote.tls_policies = TableFile { path, required: true };
    }

    fn send_one(&mut self, to: &HostTarget) -> Outcome {
        self.send_to(to, &["elvis@example.test"]).remove(0)
    }
}

/// A message in a file, which is removed when this is dropped.
struct Letter(PathBuf);

impl Letter {
    fn new(text: &[u8]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("penfold-letter-{}-{number}", std::process::id()));
        fs::write(&path, text).expect("a scratch file");
        Self(path)
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// An empty file without a name.
fn scratch() -> io::Result<File> {
    let path =
        std::env::temp_dir().join(format!("penfold-scratch-{}-{:?}", std::process::id(), thread::current().id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    fs::remove_file(&path).map(|()| file)
}

fn config(name_server: SocketAddr) -> Config {
    let table = || TableFile { path: "/nonexistent".into(), required: false };
    let mut config = parse(Path::new("penfold.conf"), "hostname = \"razorback.test\"").expect("good");
    config.remote.routes = table();
    config.remote.credentials = table();
    config.remote.tls_policies = table();
    config.remote.outgoing = table();
    config.remote.timeout = LIMIT;
    config.remote.mta_sts = false;
    config.dns = penfold::config::Dns { nameservers: vec![name_server], timeout: LIMIT, trust_ad: None };
    config
}

fn host(address: SocketAddr) -> HostTarget {
    hosts(&[address])
}

fn hosts(addresses: &[SocketAddr]) -> HostTarget {
    let host = |a: &SocketAddr| HostPort { host: a.ip().to_string(), port: a.port(), scheme: Scheme::Smtp };
    HostTarget::hosts(addresses.iter().map(host).collect())
}

fn store(place: &str) -> HostTarget {
    HostTarget::Store(Store::parse(&format!("lmtp:{place}")).expect("a store").expect("a store"))
}

fn mx(domain: &str, port: u16) -> HostTarget {
    HostTarget::Mx { domain: domain.into(), port }
}

/// A port on which no server listens, on any loopback address.
fn closed_port() -> u16 {
    common::free_port()
}

fn reply(text: &str) -> Then {
    Then::Reply(text.into())
}

fn keywords(words: &[&str]) -> Vec<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}

fn shown(outcome: &Outcome) -> (Fate, String) {
    (outcome.fate, outcome.status.to_string())
}
