//! The configuration, penfold.conf(5), as values.
//!
//! Every field has a value, and the values of a [`Config`] are valid. Reading never stops at
//! the first error. Tables are opened elsewhere: see `aliases`, `users` and `route`.
//!
//! - `defaults`: the default of each key, and the bounds of numbers
//! - `document`: a TOML document from which keys are taken one by one
//! - `error`: errors in files that an administrator writes
//! - `keys`: the keys of each table of the file
//! - `table`: table files, read again when they change
//! - `values`: the parsers of values

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::retry::Schedule;

mod defaults;
mod document;
mod error;
mod keys;
pub mod table;
mod values;

pub use error::ConfigError;
pub use keys::{default, examine, load, parse};

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The name in the banner, in Received: lines and in reports, in lower case.
    pub hostname: String,
    /// The spool directory.
    pub spool: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// The user that the server runs as if started by root.
    pub user: String,
    /// The listeners.
    pub listen: Vec<Listen>,
    /// The server's certificates; the first one is the default.
    pub tls: Vec<KeyPair>,
    /// The limits on clients.
    pub limits: Limits,
    /// Local delivery.
    pub local: Local,
    /// Relaying.
    pub relay: Relay,
    /// The source of accounts.
    pub auth: Auth,
    /// Submission of new mail.
    pub submission: Submission,
    /// Delivery to other hosts.
    pub remote: Remote,
    /// Attempts and workers.
    pub queue: Queue,
    /// DNS look-ups.
    pub dns: Dns,
    /// The destination of the log.
    pub log: LogTo,
}

impl Config {
    /// The domain for names without one: the first local domain or, if there is none, the domain
    /// of masquerading or this host's name.
    pub fn own_domain(&self) -> &str {
        self.local.domains.first().or(self.submission.masquerade.as_ref()).unwrap_or(&self.hostname)
    }
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// The kind of clients.
    pub kind: Kind,
    /// How the connection is encrypted.
    pub tls: ListenTls,
    /// The condition for offering AUTH.
    pub auth: OfferAuth,
    /// Clients whose connections begin with a PROXY header.
    pub proxy: Vec<Network>,
    /// Clients that may use XCLIENT and XFORWARD.
    pub xclient: Vec<Network>,
    /// Whether it is a default listener, whose address this host need not have.
    pub is_default: bool,
}

impl Listen {
    /// A listener at this address for mail from other hosts, with defaults for the rest.
    pub fn at(address: SocketAddr) -> Self {
        let (proxy, xclient) = (Vec::new(), Vec::new());
        Self {
            address,
            kind: Kind::Smtp,
            tls: ListenTls::Offered,
            auth: OfferAuth::None,
            proxy,
            xclient,
            is_default: false,
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
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenTls {
    /// Not at all.
    None,
    /// By STARTTLS, if there is a certificate (RFC 3207).
    Offered,
    /// By STARTTLS, which is required before MAIL.
    Required,
    /// From the first byte (RFC 8314).
    Implicit,
}

/// The condition for offering AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferAuth {
    /// Never.
    None,
    /// On an encrypted connection.
    Tls,
    /// Always.
    Always,
}

/// A certificate and its key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate, followed by the chain to a trusted authority.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The source of accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// None: no client can authenticate.
    None,
    /// A users file.
    File(PathBuf),
    /// The auth-client socket of Dovecot.
    Dovecot(PathBuf),
}

/// The rules for submission of new mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The senders table: the sender addresses that each account may use besides its own.
    pub senders: TableFile,
    /// The maximum number of messages that an account may send in an hour.
    pub messages_per_hour: usize,
    /// The maximum number of recipients to which an account may send in an hour.
    pub recipients_per_hour: usize,
    /// Whether Received: omits the client's name and address.
    pub hide_client: bool,
    /// The domain that replaces the domains of this host in sender addresses.
    pub masquerade: Option<String>,
    /// The rewrite table: the replacements of sender addresses.
    pub rewrite: TableFile,
}

/// The limits on clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of connections.
    pub connections: usize,
    /// The maximum number of connections from one address (one /64 for IPv6).
    pub connections_per_host: usize,
    /// The maximum size of a message on the wire, in octets.
    pub message_size: u64,
    /// The maximum number of recipients of a message.
    pub recipients: usize,
    /// The time limit of a command.
    pub command_timeout: Duration,
    /// The time limit of a message after DATA, without the time added for its size.
    pub data_timeout: Duration,
}

/// Local delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The local domains in canonical form; empty if no mail is local. See
    /// [`Config::own_domain`] for names without a domain.
    pub domains: Vec<String>,
    /// The source of users.
    pub users: Users,
    /// The template of mailboxes that the users file does not name: a path, with
    /// `{user}`, `{domain}`, and `~` for the home directory at the front.
    pub mailbox: String,
    /// The aliases file.
    pub aliases: TableFile,
    /// The virtual table.
    pub virtual_table: TableFile,
    /// The separator in `user+detail`; `None` if there are no subaddresses.
    pub subaddress: Option<char>,
    /// The recipient of mail for the postmaster of every local domain: a local name or an
    /// address.
    pub postmaster: String,
}

/// The source of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// The system users (getpwnam(3)).
    System,
    /// A users file.
    File(PathBuf),
}

/// A table file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFile {
    /// The path.
    pub path: PathBuf,
    /// Whether it has to exist, because the configuration names it.
    pub required: bool,
}

/// Relaying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// The networks of clients that may relay to any domain.
    pub networks: Vec<Network>,
    /// The domains to which every client may relay, as to a backup mail exchanger.
    pub domains: Vec<String>,
}

/// Delivery to other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The smart hosts for all remote mail, in order; if there are none, the DNS is used.
    pub smarthosts: Vec<HostPort>,
    /// The credentials table: user name and password for each host.
    pub credentials: TableFile,
    /// The routes table.
    pub routes: TableFile,
    /// TLS with hosts whose URL does not specify it.
    pub tls: RemoteTls,
    /// The file of trusted authorities; `None` for those of the system.
    pub authorities: Option<PathBuf>,
    /// The maximum time limit of each stage of a dialogue.
    pub timeout: Duration,
    /// Whether only mail with a route in the routes table leaves this host.
    pub local_only: bool,
}

/// The use of TLS with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteTls {
    /// Plaintext.
    None,
    /// TLS if the host supports it, without verification.
    Opportunistic,
    /// TLS with a verified certificate.
    Required,
}

/// The scheme of a host's URL, which specifies TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `smtp://`: [`RemoteTls`] applies.
    #[default]
    Smtp,
    /// `smtp+starttls://`: TLS is required, by STARTTLS.
    StartTls,
    /// `smtps://`: TLS is required, from the first byte (RFC 8314).
    Smtps,
}

/// A host by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name in lower case, or an IP address as text, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The scheme.
    pub scheme: Scheme,
}

/// A unique text: `host:port`, `[address]:port`, `smtps://host:port`.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, scheme } = self;
        f.write_str(match scheme {
            Scheme::Smtp => "",
            Scheme::StartTls => "smtp+starttls://",
            Scheme::Smtps => "smtps://",
        })?;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Attempts and workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The maximum number of concurrent deliveries.
    pub workers: usize,
    /// The maximum number of concurrent deliveries to one remote destination.
    pub workers_per_destination: usize,
    /// The first interval between attempts.
    pub retry_min: Duration,
    /// The maximum interval between attempts.
    pub retry_max: Duration,
    /// The age at which an undeliverable message is returned to its sender.
    pub expire_after: Duration,
}

impl Queue {
    /// The schedule of attempts.
    pub fn schedule(&self) -> Schedule {
        Schedule { min: self.retry_min, max: self.retry_max, expire_after: self.expire_after }
    }
}

/// DNS look-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The name servers; if there are none, those of resolv.conf(5).
    pub nameservers: Vec<SocketAddr>,
    /// The time limit of a look-up.
    pub timeout: Duration,
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
    /// Any address in the network.
    pub address: IpAddr,
    /// The length of the prefix in bits, at most 32 or 128.
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
