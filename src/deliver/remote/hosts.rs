//! Which hosts take the mail for a destination, and in which order (RFC 5321 5.1).
//!
//! Mail exchangers come by preference, equal ones in random order; a domain
//! without any is its own; hosts that the configuration names come as it names
//! them. Where this host is a mail exchanger itself, by its name or by an address
//! that it serves, that one goes, and with it all that are not preferred to it:
//! anything else makes mail run in circles. Nothing here is connected to.

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::address;
use crate::config::{HostPort, Scheme};
use crate::destination::HostTarget;
use crate::dns::Dns;
use crate::endpoint::Endpoint;
use crate::outcome::{Fate, NoAnswer, Outcome};
use crate::reply::Status;

/// How many mail exchangers of a domain are tried in one attempt.
const MAX_HOSTS: usize = 10;

/// One host at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name; empty if it is known by its address only.
    pub name: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// What the configuration says of its connections.
    pub scheme: Scheme,
}

impl Peer {
    /// Whether it is this host as surely as the configuration can say: a name that the DNS
    /// leads here may be anybody's.
    pub fn is_this_host(&self) -> bool {
        self.endpoint.is_loopback() && (self.name.is_empty() || self.name == "localhost")
    }

    /// By what it was found: the name that its certificate must have.
    pub fn identity(&self) -> String {
        if self.name.is_empty() { self.endpoint.host() } else { self.name.clone() }
    }
}

/// As in the log: `mx.example.org[192.0.2.1]:25`, or the path of a socket.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp(address) => write!(f, "{}[{}]:{}", self.name, address.ip(), address.port()),
            Endpoint::Unix(_) => self.endpoint.fmt(f),
        }
    }
}

/// Hosts between which nothing is preferred, looked up.
#[derive(Debug, Default)]
pub struct Found {
    /// Who can be tried, in this order.
    pub peers: Vec<Peer>,
    /// What went wrong with those who are missing, the worst that may pass first.
    pub trouble: Option<Outcome>,
    /// One of them is this host: neither they nor any later ones are to be tried.
    pub ourselves: bool,
}

impl HostTarget {
    /// The hosts in groups: of the first group any, and only after all of them the next.
    ///
    /// # Errors
    /// The outcome for every recipient, when there is nobody to try.
    pub fn groups(&self, dns: &Dns, hostname: &str) -> Result<Vec<Vec<HostPort>>, Outcome> {
        let (domain, port) = match self {
            Self::Hosts(hosts) => return Ok(hosts.iter().map(|host| vec![host.clone()]).collect()),
            Self::Mx { domain, port } => (&**domain, *port),
        };
        let host = |host: &str| HostPort { host: host.to_owned(), port, scheme: Scheme::Smtp };
        if let Some(ip) = address::literal(domain) {
            return Ok(vec![vec![host(&ip.to_string())]]);
        }
        let mut exchangers = exchangers(dns, domain)?;
        if let Some(&(ours, _)) = exchangers.iter().find(|(_, name)| name == hostname) {
            exchangers.retain(|(preference, _)| *preference < ours);
        }
        if exchangers.is_empty() {
            return Err(self.loops());
        }
        shuffle(&mut exchangers);
        exchangers.truncate(MAX_HOSTS);
        let groups = exchangers.chunk_by(|a, b| a.0 == b.0);
        Ok(groups.map(|group| group.iter().map(|(_, name)| host(name)).collect()).collect())
    }

    /// The addresses of a group. `local` is where this host listens.
    pub fn look_up(&self, dns: &Dns, group: &[HostPort], local: &[SocketAddr]) -> Found {
        let mut found = Found::default();
        let names: Vec<&str> = group.iter().map(|h| h.host.as_str()).filter(|h| h.parse::<IpAddr>().is_err()).collect();
        // Side by side: ten silent names take no longer than one.
        let mut looked_up = dns.addresses_of_all(&names).into_iter();
        for HostPort { host, port, scheme } in group {
            let (name, addresses) = match host.parse::<IpAddr>() {
                Ok(ip) => (String::new(), Ok(vec![ip])),
                Err(_) => (host.clone(), looked_up.next().unwrap_or(Err(NoAnswer::Timeout))),
            };
            match addresses {
                Ok(addresses) => found.peers.extend(addresses.into_iter().map(|ip| {
                    let address = SocketAddr::new(ip.to_canonical(), *port);
                    Peer { name: name.clone(), endpoint: address.into(), scheme: *scheme }
                })),
                Err(trouble) => {
                    let outcome = self.unknown_host(host, &trouble);
                    if found.trouble.is_none() || outcome.fate == Fate::Deferred {
                        found.trouble = Some(outcome);
                    }
                }
            }
        }
        found.ourselves = found.peers.iter().any(|peer| is_ours(&peer.endpoint, local));
        found
    }

    /// Nobody is left who could take the mail from here: final, since trying again
    /// changes nothing and a postmaster must (RFC 5321 5.1).
    pub fn loops(&self) -> Outcome {
        let whom = match self {
            Self::Mx { domain, .. } => domain.to_string(),
            Self::Hosts(hosts) => hosts.iter().map(|h| h.host.as_str()).collect::<Vec<_>>().join(", "),
        };
        Outcome::failed(Status(5, 4, 6), format!("mail for {whom} loops back to this host"))
    }

    fn unknown_host(&self, host: &str, trouble: &NoAnswer) -> Outcome {
        let outcome = Outcome::from_dns(host, trouble);
        match self {
            _ if outcome.fate == Fate::Deferred => outcome,
            Self::Mx { domain, .. } if **domain == *host => outcome,
            Self::Mx { domain, .. } => Outcome::failed(
                Status(5, 4, 4),
                format!("{host}, mail exchanger of {domain}, has no address: {trouble}"),
            ),
            // A slip of the pen in the configuration must not send everything back.
            Self::Hosts(_) => Outcome::deferred(Status(4, 4, 4), format!("{host} has no address: {trouble}")),
        }
    }
}

/// The mail exchangers of a domain, or itself; never none.
fn exchangers(dns: &Dns, domain: &str) -> Result<Vec<(u16, String)>, Outcome> {
    let mut list = match dns.mx(domain) {
        Ok(list) => list,
        Err(NoAnswer::NoData) => return Ok(vec![(0, domain.to_owned())]),
        Err(trouble) => return Err(Outcome::from_dns(domain, &trouble)),
    };
    let null = list.iter().any(|(_, name)| name == ".");
    // Beside others the root is a mistake, not a statement (RFC 7505 3).
    list.retain(|(_, name)| name != ".");
    match list.is_empty() {
        false => Ok(list),
        true if null => {
            let why = format!("{domain}: the domain does not accept mail (null MX)");
            Err(Outcome::failed(Status(5, 1, 10), why))
        }
        true => {
            let why = format!("{domain}: no mail exchanger has a name that a host can have");
            Err(Outcome::failed(Status(5, 4, 4), why))
        }
    }
}

/// Puts equal preferences in random order, so that they share the load.
fn shuffle(exchangers: &mut [(u16, String)]) {
    for last in (1..exchangers.len()).rev() {
        // Without randomness they come as they are.
        let at = getrandom::u32().map_or(last, |n| n as usize % (last + 1));
        exchangers.swap(at, last);
    }
    // Stable: equal ones keep the order they were given.
    exchangers.sort_by_key(|(preference, _)| *preference);
}

/// Whether this process serves an endpoint, by itself or because it listens on all
/// addresses of this host.
fn is_ours(endpoint: &Endpoint, local: &[SocketAddr]) -> bool {
    let Endpoint::Tcp(address) = endpoint else { return false };
    local.iter().any(|listener| {
        let ip = listener.ip().to_canonical();
        listener.port() == address.port()
            && (ip == address.ip()
                || address.ip().is_unspecified()
                || (ip.is_unspecified() && is_this_hosts(address.ip())))
    })
}

/// Asks the system by which of its addresses it would talk to `address`, which for
/// an address of its own is the same one. Nothing is sent. (That one may bind an
/// address does not mean as much: see ip_nonlocal_bind in ip(7).)
fn is_this_hosts(address: IpAddr) -> bool {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => ([0u8; 4], 0).into(),
        IpAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let source = || {
        let socket = UdpSocket::bind(any)?;
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    address.is_loopback() || source().is_ok_and(|source| source.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_to_loopback_may_be_anybodys() {
        for (name, address, is_it) in [
            ("", "127.0.0.1:25", true),
            ("localhost", "[::1]:25", true),
            ("mail.example.net", "127.0.0.1:25", false),
            ("localhost", "192.0.2.1:25", false),
            ("", "192.0.2.1:25", false),
        ] {
            let endpoint = Endpoint::Tcp(address.parse().expect("an address"));
            let peer = Peer { name: name.into(), endpoint, scheme: Scheme::Smtp };
            assert_eq!(peer.is_this_host(), is_it, "{name} {address}");
        }
    }
}
