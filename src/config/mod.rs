//! The configuration: what penfold.conf(5) says, as values.
//!
//! Every field has a value; the defaults are in one place, `defaults`. A
//! [`Config`] that exists has been checked: no field needs a second look. Reading
//! never stops at the first error. Does not open tables: see `aliases`, `users`
//! and `route`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::retry::Schedule;

mod defaults;
mod document;
mod error;
mod read;
pub mod table;
mod units;

pub use error::ConfigError;
pub use read::{default, examine, load, parse};

/// Everything that the configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The name in the banner, in Received: lines and in reports, in lower case.
    pub hostname: String,
    /// The spool directory.
    pub spool: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Who the server runs as when started by root.
    pub user: String,
    /// Where clients are served.
    pub listen: Vec<Listen>,
    /// What this server proves who it is by; the first one where a client names none of them.
    pub tls: Vec<KeyPair>,
    /// What a client may use up.
    pub limits: Limits,
    /// What is delivered here.
    pub local: Local,
    /// For whom mail is passed on.
    pub relay: Relay,
    /// Who may log in.
    pub auth: Auth,
    /// What clients may do that submit mail of their own.
    pub submission: Submission,
    /// How mail leaves.
    pub remote: Remote,
    /// When and how much is tried.
    pub queue: Queue,
    /// Who is asked for names.
    pub dns: Dns,
    /// Where the log goes.
    pub log: LogTo,
}

impl Config {
    /// What names without a domain get: the first local domain, or where nothing is local
    /// that of masquerading, or this host's name.
    pub fn own_domain(&self) -> &str {
        self.local.domains.first().or(self.submission.masquerade.as_ref()).unwrap_or(&self.hostname)
    }
}

/// A socket on which clients are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Who comes here.
    pub kind: Kind,
    /// How the connection is encrypted.
    pub tls: ListenTls,
    /// When AUTH is offered.
    pub auth: OfferAuth,
    /// Clients whose connections begin with a PROXY header.
    pub proxy: Vec<Network>,
    /// Clients that may use XCLIENT and XFORWARD.
    pub xclient: Vec<Network>,
    /// Whether the configuration does not name it: then this host need not have its address.
    pub is_default: bool,
}

impl Listen {
    /// A socket for other hosts, with what holds where the configuration says nothing.
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

/// Who comes to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Other hosts.
    Smtp,
    /// People's programs, with new mail (RFC 6409).
    Submission,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenTls {
    /// Not at all.
    None,
    /// By STARTTLS, if there is a certificate (RFC 3207).
    Offered,
    /// By STARTTLS, without which no mail is taken.
    Required,
    /// From its first octet (RFC 8314).
    Implicit,
}

/// When AUTH is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferAuth {
    /// Never.
    None,
    /// When the connection is encrypted.
    Tls,
    /// Always.
    Always,
}

/// A certificate and its key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate, followed by those that lead to a known authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Nobody.
    None,
    /// The users of a users file.
    File(PathBuf),
    /// Whom Dovecot knows: its auth-client socket.
    Dovecot(PathBuf),
}

/// What clients may do that submit mail of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Who may send as whom, besides himself.
    pub senders: TableFile,
    /// Messages of one account in an hour.
    pub messages_per_hour: usize,
    /// Recipients of one account in an hour.
    pub recipients_per_hour: usize,
    /// Whether Received: is to say nothing of where a client is.
    pub hide_client: bool,
    /// The domain of senders in the domains of this host, in its place.
    pub masquerade: Option<String>,
    /// What becomes of which sender.
    pub rewrite: TableFile,
}

/// What a client may use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address (one /64 for IPv6).
    pub connections_per_host: usize,
    /// Octets of one message, as it goes over the wire.
    pub message_size: u64,
    /// Recipients of one message.
    pub recipients: usize,
    /// How long a client may be silent.
    pub command_timeout: Duration,
    /// How long a message may take from DATA to its end, beside what its size earns.
    pub data_timeout: Duration,
}

/// What is delivered here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The local domains in canonical form; none where all mail goes elsewhere. See
    /// [`Config::own_domain`] for names without a domain.
    pub domains: Vec<String>,
    /// Where mailbox names come from.
    pub users: Users,
    /// The mailbox of a user whose line in the users file names none: a path, with
    /// `{user}`, `{domain}`, and `~` for the home directory at the front.
    pub mailbox: String,
    /// The aliases file.
    pub aliases: TableFile,
    /// The virtual table.
    pub virtual_table: TableFile,
    /// What separates a user from the detail in `user+detail`; `None` for nothing.
    pub subaddress: Option<char>,
    /// Who gets mail for the postmaster of every local domain: a local name or an address.
    pub postmaster: String,
}

/// Where mailbox names come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// The users of this system, getpwnam(3).
    System,
    /// A users file.
    File(PathBuf),
}

/// A table file and whether it may be absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whether the configuration names it: then it must be there.
    pub required: bool,
}

/// For whom mail is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Clients that may send mail to anywhere.
    pub networks: Vec<Network>,
    /// Domains for which anyone may send mail, as to a backup mail exchanger.
    pub domains: Vec<String>,
}

/// How mail leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Hosts that take all mail for elsewhere, tried in order; none: the DNS says.
    pub smarthosts: Vec<HostPort>,
    /// Who this server is at which host.
    pub credentials: TableFile,
    /// The routes table.
    pub routes: TableFile,
    /// How hosts are spoken to of which nothing else is said.
    pub tls: RemoteTls,
    /// Whose certificates are believed; `None` for those whom the system believes.
    pub authorities: Option<PathBuf>,
    /// An upper bound on the time limit of each stage of a dialogue.
    pub timeout: Duration,
    /// Whether no mail leaves but by the routes table.
    pub local_only: bool,
}

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteTls {
    /// In clear.
    None,
    /// Encrypted where it can be, whoever the host is.
    Opportunistic,
    /// Encrypted, and the host has proved its name.
    Required,
}

/// What the configuration says of one host's connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `smtp://`: nothing, [`RemoteTls`] holds.
    #[default]
    Smtp,
    /// `smtp+starttls://`: required, by STARTTLS.
    StartTls,
    /// `smtps://`: required, from the first octet (RFC 8314).
    Smtps,
}

/// A host by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name in lower case, or an address as text, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// How its connections are encrypted.
    pub scheme: Scheme,
}

/// What tells one from all others: `host:port`, `[address]:port`, `smtps://host:port`.
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

/// When and how much is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Deliveries at once.
    pub workers: usize,
    /// Deliveries at once to one destination elsewhere.
    pub workers_per_destination: usize,
    /// The first interval between attempts.
    pub retry_min: Duration,
    /// The longest interval between attempts.
    pub retry_max: Duration,
    /// The age at which a message that cannot be delivered goes back.
    pub expire_after: Duration,
}

impl Queue {
    /// When to try again, when to give up.
    pub fn schedule(&self) -> Schedule {
        Schedule { min: self.retry_min, max: self.retry_max, expire_after: self.expire_after }
    }
}

/// Who is asked for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Name servers; none: those of resolv.conf(5).
    pub nameservers: Vec<SocketAddr>,
    /// How long one look-up may take.
    pub timeout: Duration,
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTo {
    /// syslog(3), facility mail.
    Syslog,
    /// Standard error.
    Stderr,
    /// The end of a file.
    File(PathBuf),
}

/// A network: an address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Any address in it.
    pub address: IpAddr,
    /// How many bits count, at most 32 or 128.
    pub prefix: u8,
}

impl Network {
    /// Whether `address` lies in it. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |bits: u32| bits.saturating_sub(u32::from(self.prefix));
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0,
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0,
            _ => false,
        }
    }
}
