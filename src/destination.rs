//! Defines destinations: recipients of one message have the same destination if a single attempt
//! can serve them all.
//!
//! The queue counts, limits and schedules jobs by destination. The worker delivers a message to all
//! recipients of one destination together. `route` decides the [`Destination`], which is never read
//! from text. Its `Display` is its name in the log and in the listings of penfoldctl(8).

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::config::{HostPort, Scheme, Store};
use crate::endpoint::Endpoint;

/// The SMTP port.
pub const SMTP_PORT: u16 = 25;

/// The place where recipients of one message are delivered together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// This host: its mailboxes and lists, to which the server delivers at once and with its own
    /// rights. Recipients that fail without an attempt have this destination, too.
    Local,
    /// The mailboxes of one system user. Agents, processes with that user's rights, deliver there.
    User(Box<str>),
    /// Commands that run with the rights of one system user; `None` means the server's own rights.
    Command(Option<Box<str>>),
    /// Other hosts, which are reached over the network, or a mail store. If the table
    /// `remote.outgoing` has a line for the sender, the second value is the key of that line: mail of
    /// such senders is a destination of its own, because it may leave from another address.
    Remote(HostTarget, Option<SenderKey>),
}

/// A sender in a table: an address, `@` and a domain, or `<>`.
///
/// It takes the space of one pointer, because each waiting message has a destination in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SenderKey(Arc<String>);

/// The hosts of a remote destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostTarget {
    /// The mail exchangers of a domain.
    Mx {
        /// The domain to look up, in canonical form.
        domain: Box<str>,
        /// The TCP port of the exchangers.
        port: u16,
    },
    /// Hosts that the configuration names.
    Hosts {
        /// The hosts, the preferred one first; at least one.
        hosts: Arc<[HostPort]>,
        /// The key of the sender by which the credentials for these hosts
        /// are chosen. `None` if they are the same for all senders. Messages with different accounts
        /// have different destinations, so that they never share a connection.
        account: Option<SenderKey>,
    },
    /// A mail store, which takes mail by LMTP.
    Store(Store),
}

/// One address of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The name; empty if the host is known by its address only.
    pub name: String,
    /// The address.
    pub endpoint: Endpoint,
    /// The scheme in the configuration, which decides on TLS.
    pub scheme: Scheme,
    /// What DNSSEC says about the name and the address.
    pub dnssec: Dnssec,
}

/// What DNSSEC says about the name of a host and its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Dnssec {
    /// The addresses are not secure, or not from the DNS, or nothing asked for DNSSEC.
    #[default]
    Insecure,
    /// The name is an alias, and the addresses are not secure.
    InsecureAlias,
    /// The addresses are secure.
    Secure,
    /// The addresses are secure, and the name is an alias of this name.
    SecureAlias(Arc<str>),
}

impl Peer {
    /// Whether the peer certainly is this host. With a name other than `localhost` a loopback
    /// address proves nothing: any name can have one in the DNS.
    pub fn is_this_host(&self) -> bool {
        self.endpoint.is_loopback() && (self.name.is_empty() || self.name == "localhost")
    }

    /// The command that begins a session with the peer.
    pub fn hello_verb(&self) -> &'static str {
        if self.scheme == Scheme::Lmtp { "LHLO" } else { "EHLO" }
    }

    /// The name under which the peer was found, or its address if it has no name. The peer's
    /// certificate must be valid for that name or address.
    pub fn identity(&self) -> String {
        if self.name.is_empty() { self.endpoint.host() } else { self.name.clone() }
    }
}

/// The form in the log: `mx.example.org[192.0.2.1]:25`, or the path of a socket.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp(address) => write!(f, "{}[{}]:{}", self.name, address.ip(), address.port()),
            Endpoint::Unix(_) => self.endpoint.fmt(f),
        }
    }
}

impl Destination {
    /// The mail exchangers of a domain at the SMTP port.
    pub fn mx(domain: &str) -> Self {
        Self::Remote(HostTarget::Mx { domain: domain.into(), port: SMTP_PORT }, None)
    }

    /// Returns the key of the line for the sender in the table `remote.outgoing`; `None` if there is none.
    pub fn sender(&self) -> Option<&str> {
        match self {
            Self::Remote(_, sender) => sender.as_deref(),
            _ => None,
        }
    }

    /// Whether the destination is the mailboxes of a user, or commands.
    pub fn is_user(&self) -> bool {
        matches!(self, Self::User(_) | Self::Command(_))
    }

    /// Whether the destination is other hosts, or a mail store.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(..))
    }

    /// Whether the destination is other hosts, and not a mail store.
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Remote(HostTarget::Mx { .. } | HostTarget::Hosts { .. }, _))
    }

    /// Whether the destination is a mail store.
    pub fn is_store(&self) -> bool {
        matches!(self, Self::Remote(HostTarget::Store(_), _))
    }

    /// Whether the destination is named after its hosts, and not after the domain of its recipients.
    pub fn is_named_after_hosts(&self) -> bool {
        matches!(self, Self::Remote(HostTarget::Hosts { .. } | HostTarget::Store(_), _))
    }

    /// Whether the destination is the mail exchangers of the domain `wanted` at the SMTP port.
    pub fn is_mx_of(&self, wanted: &str) -> bool {
        matches!(self, Self::Remote(HostTarget::Mx { domain, port: SMTP_PORT }, _) if **domain == *wanted)
    }

    /// Returns the domain if the destination is its mail exchangers, at any port; otherwise `None`.
    pub fn mx_domain(&self) -> Option<&str> {
        match self {
            Self::Remote(target, _) => target.mx_domain(),
            _ => None,
        }
    }

    /// Returns the domain if the destination is its mail exchangers at a port other than the SMTP
    /// port; otherwise `None`.
    pub fn domain_at_port(&self) -> Option<&str> {
        match self {
            Self::Remote(HostTarget::Mx { domain, port }, _) if *port != SMTP_PORT => Some(domain),
            _ => None,
        }
    }

    /// Whether `name`, the argument of `penfoldctl hosts`, refers to this destination. A name is a
    /// domain, the name of a host in the configuration, or the name of a destination.
    pub fn has_name(&self, name: &str) -> bool {
        let host_name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let is_target = match self {
            Self::Remote(target, _) => {
                let is_among_hosts = target.mx_domain().is_none() && target.names().contains(&host_name);
                is_among_hosts || target.to_string() == name || listed_name(&target.to_string()) == name
            }
            _ => false,
        };
        self.is_mx_of(name) || is_target || self.to_string() == name || self.listed_name() == name
    }

    /// Returns the name in the listing of hosts, where mail exchangers are shown as their domain.
    pub fn listed_name(&self) -> String {
        listed_name(&self.to_string()).to_owned()
    }
}

/// The name in listings of the destination with this name.
pub fn listed_name(name: &str) -> &str {
    name.strip_prefix("mx:").unwrap_or(name)
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Command(None) => f.write_str("command"),
            Self::Command(Some(user)) => write!(f, "command:{user}"),
            Self::Remote(target, None) => target.fmt(f),
            Self::Remote(target, Some(sender)) => write!(f, "{target}/{sender}"),
        }
    }
}

impl<T: Into<String>> From<T> for SenderKey {
    fn from(text: T) -> Self {
        Self(Arc::new(text.into()))
    }
}

impl Deref for SenderKey {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for SenderKey {
    fn borrow(&self) -> &str {
        self
    }
}

impl fmt::Display for SenderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl HostTarget {
    /// Hosts at which this server has the same credentials for all senders.
    pub fn hosts(hosts: Vec<HostPort>) -> Self {
        Self::Hosts { hosts: hosts.into(), account: None }
    }

    /// Returns the domain if the hosts are its mail exchangers; otherwise `None`.
    pub fn mx_domain(&self) -> Option<&str> {
        match self {
            Self::Mx { domain, .. } => Some(domain),
            Self::Hosts { .. } | Self::Store(_) => None,
        }
    }

    /// Returns the names by which tables name the target: the domain, or the hosts of the configuration.
    /// A socket has none.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Mx { domain, .. } => vec![domain],
            Self::Hosts { hosts, .. } => hosts.iter().map(|host| host.host.as_str()).collect(),
            Self::Store(Store::Host(host)) => vec![&host.host],
            Self::Store(Store::Socket(_)) => Vec::new(),
        }
    }

    /// Whether the target is a mail store.
    pub fn is_store(&self) -> bool {
        matches!(self, Self::Store(_))
    }
}

impl fmt::Display for HostTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mx { domain, port: SMTP_PORT } => write!(f, "mx:{domain}"),
            Self::Mx { domain, port } => write!(f, "mx:{domain}:{port}"),
            Self::Hosts { hosts, account } => {
                f.write_str("host:")?;
                hosts.iter().enumerate().try_for_each(|(index, host)| {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{host}")
                })?;
                account.as_ref().map_or(Ok(()), |account| write!(f, ",from={account}"))
            }
            Self::Store(store) => store.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str, port: u16, scheme: Scheme) -> HostPort {
        HostPort { host: host.into(), port, scheme }
    }

    #[test]
    fn every_destination_has_a_name_of_its_own() {
        let mx = |domain: &str, port| Destination::Remote(HostTarget::Mx { domain: domain.into(), port }, None);
        let store = |text| {
            let store = Store::parse(text).and_then(Result::ok).expect("a store");
            Destination::Remote(HostTarget::Store(store), None)
        };
        let smart = vec![host("a.example", 587, Scheme::StartTls), host("2001:db8::3", 25, Scheme::Smtp)];
        let hosts = Destination::Remote(HostTarget::hosts(smart.clone()), None);
        let account = Some("@x.org".into());
        let with_account = Destination::Remote(HostTarget::Hosts { hosts: smart.into(), account }, None);
        let account_name = "host:smtp+starttls://a.example:587,[2001:db8::3]:25,from=@x.org";
        let of_sender = |destination| match destination {
            Destination::Remote(target, _) => Destination::Remote(target, Some("@news.example".into())),
            other => other,
        };
        let smart_name = "host:smtp+starttls://a.example:587,[2001:db8::3]:25";
        for (destination, name, listed, others) in [
            (Destination::Local, "local", "local", &[][..]),
            (Destination::User("jon".into()), "user:jon", "user:jon", &[]),
            (Destination::Command(None), "command", "command", &[]),
            (Destination::Command(Some("jon".into())), "command:jon", "command:jon", &[]),
            (Destination::mx("x.org"), "mx:x.org", "x.org", &["x.org"]),
            (mx("x.org", 2525), "mx:x.org:2525", "x.org:2525", &[]),
            (of_sender(mx("x.org", 25)), "mx:x.org/@news.example", "x.org/@news.example", &["x.org", "mx:x.org"]),
            (hosts, smart_name, smart_name, &["a.example", "[2001:db8::3]"]),
            (with_account, account_name, account_name, &["a.example", "[2001:db8::3]"]),
            (store("lmtp:/run/lmtp"), "lmtp:/run/lmtp", "lmtp:/run/lmtp", &[]),
            (store("lmtp://s.example"), "lmtp://s.example:24", "lmtp://s.example:24", &["s.example"]),
        ] {
            assert_eq!((&*destination.to_string(), &*destination.listed_name()), (name, listed));
            assert!(destination.has_name(name) && others.iter().all(|other| destination.has_name(other)), "{name}");
            assert!(["jon", "mx:y.org", "587", "", "x.org:25"].iter().all(|other| !destination.has_name(other)));
            assert_eq!(
                (destination.is_mx_of("x.org"), destination.domain_at_port()),
                match name {
                    "mx:x.org" | "mx:x.org/@news.example" => (true, None),
                    "mx:x.org:2525" => (false, Some("x.org")),
                    _ => (false, None),
                }
            );
        }
    }

    #[test]
    fn a_name_with_a_loopback_address_is_not_taken_for_this_host() {
        for (name, address, is_it) in [
            ("", "127.0.0.1:25", true),
            ("localhost", "[::1]:25", true),
            ("mail.example.net", "127.0.0.1:25", false),
            ("localhost", "192.0.2.1:25", false),
            ("", "192.0.2.1:25", false),
        ] {
            let endpoint = Endpoint::Tcp(address.parse().expect("an address"));
            let peer = Peer { name: name.into(), endpoint, scheme: Scheme::Smtp, dnssec: Dnssec::Insecure };
            assert_eq!(peer.is_this_host(), is_it, "{name} {address}");
        }
    }
}
