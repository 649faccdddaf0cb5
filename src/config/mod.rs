//! Reads the configuration, penfold.conf(5), into values for all other modules.
//!
//! If the file lacks a key, the field for the key has its default. A [`Config`] from [`load`] has
//! only valid values. Reading never stops at the first error. Tables are opened elsewhere: see
//! `aliases`, `users` and `route`.
//!
//! - `defaults`: the default of each key, and the bounds of numbers
//! - `dkim`: the keys that sign mail
//! - `document`: a TOML document from which keys are taken one by one
//! - `domain`: local domains with users and tables of their own
//! - `error`: errors in files that an administrator writes
//! - `filter`: the keys of `[[filter]]`
//! - `keys`: the keys of each table of the file
//! - `local`: local delivery
//! - `places`: the lines of the keys in the file
//! - `policy`: the keys and values of `[policy]`
//! - `print`: the values of a configuration, and the place of each
//! - `remote`: delivery to other hosts, and the hosts that the file names
//! - `shared`: the keys of `[shared]`
//! - `sources`: from which addresses, and over which families, this host connects
//! - `store`: mail stores that take mail by LMTP
//! - `submission`: submission of new mail
//! - `table`: table files, read again when they change
//! - `values`: the parsers of values

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::history::Bounds;
use crate::json::Format;
use crate::retry::Schedule;

mod defaults;
mod dkim;
mod document;
mod domain;
mod error;
mod filter;
mod keys;
mod local;
mod places;
pub mod policy;
mod print;
mod remote;
mod shared;
mod sources;
mod store;
mod submission;
pub mod table;
mod values;

pub use dkim::{Dkim, DkimKey, can_have_key, key_name};
pub use domain::{AccountGroup, Domain, Domains, Limit};
pub use error::ConfigError;
pub use filter::{Filter, FilterGroup, FilterProtocol, OnFailure};
pub use keys::{default, examine, examine_text, load, parse};
pub use local::{HOME, Local, MailboxTemplate, Users};
pub use places::Places;
pub use policy::Policy;
pub use print::{Printed, print};
pub use remote::{HostPort, Remote, RemoteTls, Scheme};
pub use shared::{Shared, StorePlace, StoreUrl};
pub use sources::{Families, Family, Sources};
pub use store::{EXPECTED_STORE, Store};
pub use submission::Submission;
pub use values::{parse_duration, parse_quota};

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The name of this host in the banner, in Received: lines and in reports, in lower case.
    pub hostname: String,
    /// The path of the spool directory.
    pub spool: PathBuf,
    /// The path of the control socket.
    pub socket: PathBuf,
    /// The name of the user as whom the server runs if root starts it.
    pub user: String,
    /// The addresses to listen on, with the rules for the clients of each.
    pub listen: Vec<Listen>,
    /// The server's certificates; the first one is the default.
    pub tls: Vec<KeyPair>,
    /// The dialogue with clients.
    pub smtp: Smtp,
    /// The limits on clients.
    pub limits: Limits,
    /// The settings of local delivery.
    pub local: Local,
    /// The local domains that have settings of their own.
    pub domains: Domains,
    /// The rules that say who may relay.
    pub relay: Relay,
    /// The rules for clients that may not relay.
    pub policy: Policy,
    /// The source of the accounts to which clients may authenticate.
    pub auth: Auth,
    /// The rules for submission of new mail.
    pub submission: Submission,
    /// The settings of delivery to other hosts.
    pub remote: Remote,
    /// The keys that sign mail.
    pub dkim: Vec<Dkim>,
    /// The number of workers, and the schedule of attempts.
    pub queue: Queue,
    /// The languages of reports.
    pub report: Report,
    /// The filters and policy services, in the order in which they are asked about mail.
    pub filters: Vec<Filter>,
    /// The store in which several hosts keep counts together.
    pub shared: Shared,
    /// The settings of DNS look-ups.
    pub dns: Dns,
    /// The destination of the log.
    pub log: LogTo,
    /// The form of the log.
    pub log_format: Format,
    /// The bounds of the history.
    pub history: Bounds,
    /// The path of the file, and the places of its keys.
    pub places: Places,
}

impl Config {
    /// The addresses and ports of all listeners for mail. Unix sockets are left out.
    pub fn mail_sockets(&self) -> impl Iterator<Item = SocketAddr> {
        self.listen.iter().filter(|listen| listen.kind != Kind::Status).filter_map(Listen::tcp)
    }

    /// Returns the addresses of this host at which the configuration has it listen for mail.
    pub fn bound_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.mail_sockets().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
    }

    /// The settings of all local domains: those of `[local]` first, and then those of each
    /// `[[domain]]`. No domain is in two of them.
    pub fn locals(&self) -> impl Iterator<Item = &Local> {
        std::iter::once(&self.local).chain(self.domains.iter().map(|domain| &domain.local))
    }

    /// The settings of all local domains, as [`Config::locals`], each with the name that its table has
    /// in [`Places`], such as `local` or `domain[0]`.
    pub fn named_locals(&self) -> impl Iterator<Item = (String, &Local)> {
        let domains = self.domains.iter().enumerate();
        let domains = domains.map(|(number, domain)| (format!("domain[{number}]"), &domain.local));
        std::iter::once(("local".to_owned(), &self.local)).chain(domains)
    }

    /// All local domains, in the order of the file, those of `[local]` first.
    pub fn local_domains(&self) -> impl Iterator<Item = &str> {
        self.locals().flat_map(|local| &local.domains).map(String::as_str)
    }

    /// Whether a domain, in canonical form, is local.
    pub fn is_local(&self, domain: &str) -> bool {
        self.local_domains().any(|local| local == domain)
    }

    /// The domain that is added to a name without one: the first local domain. If no domain is
    /// local, it is the domain that masquerading puts into addresses, or else this host's name.
    pub fn own_domain(&self) -> &str {
        self.local_domains().next().or(self.submission.masquerade.as_deref()).unwrap_or(&self.hostname)
    }
}

/// An address to listen on, and the rules for its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The address and port, or the path of a Unix socket. If the port is 0, the system chooses one.
    pub address: Endpoint,
    /// The kind of clients.
    pub kind: Kind,
    /// How the connection is encrypted.
    pub tls: ListenTls,
    /// The connections on which AUTH is offered.
    pub auth: OfferAuth,
    /// The networks of clients whose connections begin with a PROXY header.
    pub proxy: Vec<Network>,
    /// The networks of clients that may use XCLIENT and XFORWARD.
    pub xclient: Vec<Network>,
    /// Whether the listener comes from the defaults. If so, this host may lack the address.
    pub is_default: bool,
}

impl Listen {
    /// A listener at this address for mail from other hosts, with defaults for the rest.
    pub fn at(address: SocketAddr) -> Self {
        let (proxy, xclient) = (Vec::new(), Vec::new());
        Self {
            address: address.into(),
            kind: Kind::Smtp,
            tls: ListenTls::Offered,
            auth: OfferAuth::None,
            proxy,
            xclient,
            is_default: false,
        }
    }
}

impl Listen {
    /// The address and port; `None` for a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self.address {
            Endpoint::Tcp(address) => Some(address),
            Endpoint::Unix(_) => None,
        }
    }
}

/// The kind of clients of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Other hosts.
    Smtp,
    /// Mail clients that submit new mail (RFC 6409).
    Submission,
    /// Other hosts that have accepted mail for local recipients, and speak LMTP (RFC 2033).
    Lmtp,
    /// Programs that ask for the status page or for metrics over HTTP. No mail is accepted.
    Status,
}

/// How the connections of a listener are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenTls {
    /// Connections are not encrypted.
    None,
    /// STARTTLS is offered if there is a certificate (RFC 3207).
    Offered,
    /// STARTTLS is offered, and required before MAIL.
    Required,
    /// Connections are encrypted from the first byte (RFC 8314).
    Implicit,
}

/// The connections on which AUTH is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferAuth {
    /// AUTH is not offered.
    None,
    /// AUTH is offered on encrypted connections only.
    Tls,
    /// AUTH is offered on all connections.
    Always,
}

/// The files of a certificate and of its private key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The file with the certificate, followed by the chain to a trusted authority.
    pub certificate: PathBuf,
    /// The file with the private key.
    pub key: PathBuf,
}

/// The source of the accounts to which clients may authenticate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Auth {
    /// There are no accounts: no client can authenticate.
    None,
    /// The users file with this path.
    File(PathBuf),
    /// The auth-client socket of Dovecot with this path.
    Dovecot(PathBuf),
}

/// The limits on clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of connections at a time.
    pub connections: usize,
    /// The maximum number of connections at a time from one IPv4 address or one IPv6 /64 network.
    pub connections_per_host: usize,
    /// The maximum size of a message on the wire, in octets.
    pub message_size: u64,
    /// The maximum number of recipients of a message.
    pub recipients: usize,
    /// The time that a client may take to send a command.
    pub command_timeout: Duration,
    /// The time that a client may take to send a message after DATA. The time that the message
    /// takes at 1 KiB per second is added.
    pub data_timeout: Duration,
}

/// The path of a table file, and whether the file must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFile {
    /// The path of the file; empty for an empty table.
    pub path: PathBuf,
    /// Whether the file must exist, because the configuration names it.
    pub required: bool,
}

/// The languages of reports to senders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The tags of the languages of this site's users (RFC 5646), the preferred one first.
    pub languages: Vec<String>,
    /// Whether each language of a report gets a part of its own (RFC 8255).
    pub multilingual: bool,
    /// The directory with the texts of this site.
    pub texts: TableFile,
}

impl TableFile {
    /// An empty table.
    pub fn none() -> Self {
        Self { path: PathBuf::new(), required: false }
    }
}

/// The rules that say who may relay to which domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// The networks of clients that may relay to any domain.
    pub networks: Vec<Network>,
    /// The domains to which every client may relay, because this host is a backup mail exchanger
    /// for them.
    pub domains: Vec<String>,
    /// The table of the recipients in `domains`. `None` if all addresses there are accepted.
    pub recipients: Option<PathBuf>,
    /// Whether the next host is asked, at RCPT, whether a recipient in `domains` exists.
    pub verify: bool,
    /// The domains whose mail a client that may relay can ask for by ETRN, in canonical form.
    /// `.domain` stands for all domains below it.
    pub etrn: Vec<String>,
}

/// The number of workers, and the schedule of attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The maximum number of concurrent deliveries.
    pub workers: usize,
    /// The maximum number of concurrent deliveries to one remote destination.
    pub workers_per_destination: usize,
    /// The first interval between attempts to deliver a message.
    pub retry_min: Duration,
    /// The maximum interval between attempts to deliver a message.
    pub retry_max: Duration,
    /// The age at which an undeliverable message is returned to its sender.
    pub expire_after: Duration,
    /// The age at which the sender of an undelivered message is warned; zero for never.
    pub warn_after: Duration,
}

impl Queue {
    /// The schedule of attempts.
    pub fn schedule(&self) -> Schedule {
        Schedule { min: self.retry_min, max: self.retry_max, expire_after: self.expire_after }
    }
}

/// The settings of the dialogue with clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Smtp {
    /// The extensions and commands that are not offered, in upper case.
    pub disable: Vec<&'static str>,
}

/// The settings of DNS look-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The addresses of the name servers. If there are none, those in resolv.conf(5) are used.
    pub nameservers: Vec<SocketAddr>,
    /// The time limit of a look-up.
    pub timeout: Duration,
    /// Whether the name servers are trusted to have verified the answers that they call secure;
    /// `None` if that depends on their addresses.
    pub trust_ad: Option<bool>,
}

impl Dns {
    /// Whether name servers at these addresses are trusted to have verified the answers that they
    /// call secure. By default only those on this host are: others could be impersonated on the way.
    pub fn trusts(&self, servers: &[SocketAddr]) -> bool {
        self.trust_ad.unwrap_or_else(|| servers.iter().all(|server| server.ip().to_canonical().is_loopback()))
    }
}

/// The destination of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTo {
    /// syslog(3), facility mail.
    Syslog,
    /// Standard error.
    Stderr,
    /// A file, to which lines are appended.
    File(PathBuf),
}

/// A network: an address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// An address in the network, not necessarily the first one.
    pub address: IpAddr,
    /// The length of the prefix in bits: at most 32 for IPv4, and at most 128 for IPv6.
    pub prefix: u8,
}

impl Network {
    /// Whether `address` lies in the network. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |bits: u32| bits.saturating_sub(u32::from(self.prefix));
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0,
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0,
            _ => false,
        }
    }
}
