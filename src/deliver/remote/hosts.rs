//! Finds the hosts of a destination, in the order in which they are tried (RFC 5321 5.1).
//!
//! Mail exchangers are sorted by preference, and those of equal preference are in random order. A
//! domain without mail exchangers is its own exchanger. Hosts that the configuration names keep
//! their order. This host may be a mail exchanger itself, by its name or by an address that it
//! serves. To prevent a mail loop, this host is then removed together with all exchangers that are
//! not preferred to it. If strangers have chosen the recipient of a message, the message goes only
//! to public addresses. This module makes no connection.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use crate::address;
use crate::config::{HostPort, Scheme, Store};
use crate::destination::{Dnssec, HostTarget, Peer};
use crate::dns::{Answered, Dns, is_public};
use crate::endpoint::Endpoint;
use crate::outcome::{Fate, NoAnswer, Outcome};
use crate::outgoing::Way;
use crate::reply::Status;
use crate::tls_policy::dane::Exchangers;

/// Maximum number of mail exchangers of a domain that are tried in one attempt.
const MAX_HOSTS: usize = 10;

/// The addresses of hosts with equal preference.
#[derive(Debug, Default)]
pub struct GroupAddresses {
    /// The addresses to try, in this order.
    pub peers: Vec<Peer>,
    /// If a look-up failed, its outcome. If several failed, a temporary failure takes precedence.
    pub failure: Option<Outcome>,
    /// Whether one of the hosts is this host. If so, neither this group nor any later one may be
    /// tried.
    pub is_this_host: bool,
}

/// Hosts in groups of equal preference, and what the look-up of mail exchangers has shown.
pub type HostGroups = (Vec<Vec<HostPort>>, Exchangers);

impl HostTarget {
    /// The hosts in groups of equal preference. A group is tried only after all groups before it.
    /// A store with a Unix socket is one group without hosts. With `dnssec`, the DNS is asked whether
    /// its answers are secure.
    ///
    /// # Errors
    /// The outcome for every recipient, if there is no host to try.
    pub fn groups(&self, dns: &Dns, hostname: &str, dnssec: bool) -> Result<HostGroups, Outcome> {
        let of_configuration = |groups| Ok((groups, Exchangers::default()));
        let (domain, port) = match self {
            Self::Hosts { hosts, .. } => {
                return of_configuration(hosts.iter().map(|host| vec![host.clone()]).collect());
            }
            Self::Store(Store::Host(host)) => return of_configuration(vec![vec![host.clone()]]),
            Self::Store(Store::Socket(_)) => return of_configuration(vec![Vec::new()]),
            Self::Mx { domain, port } => (&**domain, *port),
        };
        let host = |host: &str| HostPort { host: host.to_owned(), port, scheme: Scheme::Smtp };
        if let Some(ip) = address::literal(domain) {
            return of_configuration(vec![vec![host(&ip.to_string())]]);
        }
        let (mut exchangers, found) = exchangers(dns, domain, dnssec)?;
        if let Some(&(ours, _)) = exchangers.iter().find(|(_, name)| name == hostname) {
            exchangers.retain(|(preference, _)| *preference < ours);
        }
        if exchangers.is_empty() {
            return Err(self.loops());
        }
        shuffle(&mut exchangers);
        exchangers.truncate(MAX_HOSTS);
        let groups = exchangers.chunk_by(|a, b| a.0 == b.0);
        Ok((groups.map(|group| group.iter().map(|(_, name)| host(name)).collect()).collect(), found))
    }

    /// The addresses of a group. `local` are the addresses where this host listens.
    pub fn look_up(&self, dns: &Dns, group: &[HostPort], local: &[SocketAddr], dnssec: bool) -> GroupAddresses {
        let mut found = GroupAddresses::default();
        if let Self::Store(Store::Socket(path)) = self {
            let (name, endpoint) = (String::new(), Endpoint::Unix(Arc::clone(path)));
            found.peers.push(Peer { name, endpoint, scheme: Scheme::Lmtp, dnssec: Dnssec::Insecure });
            return found;
        }
        let names: Vec<&str> = group.iter().map(|h| h.host.as_str()).filter(|h| h.parse::<IpAddr>().is_err()).collect();
        // The look-ups run in parallel, so ten names that time out take no longer than one.
        let mut looked_up = dns.addresses_of_all(&names, dnssec).into_iter();
        for HostPort { host, port, scheme } in group {
            let (name, addresses) = match host.parse::<IpAddr>() {
                Ok(ip) => (String::new(), Ok((vec![ip], Dnssec::Insecure))),
                Err(_) => {
                    let answer = looked_up.next().unwrap_or(Err(NoAnswer::Timeout));
                    (host.clone(), answer.map(with_dnssec))
                }
            };
            match addresses {
                Ok((addresses, dnssec)) => found.peers.extend(addresses.into_iter().map(|ip| {
                    let address = SocketAddr::new(ip.to_canonical(), *port);
                    Peer { name: name.clone(), endpoint: address.into(), scheme: *scheme, dnssec: dnssec.clone() }
                })),
                Err(trouble) => {
                    let outcome = self.unknown_host(host, &trouble);
                    if found.failure.is_none() || outcome.fate == Fate::Deferred {
                        found.failure = Some(outcome);
                    }
                }
            }
        }
        found.is_this_host = found.peers.iter().any(|peer| is_ours(&peer.endpoint, local));
        found
    }

    /// The addresses of a group to which a message may go. `only_public` is set if strangers have
    /// chosen its recipient.
    pub fn usable(
        &self,
        dns: &Dns,
        group: &[HostPort],
        local: &[SocketAddr],
        only_public: bool,
        dnssec: bool,
    ) -> GroupAddresses {
        let mut found = self.look_up(dns, group, local, dnssec);
        if only_public {
            self.keep_public(&mut found);
        }
        found
    }

    /// Whether a message may go to an address. Only a host that was found in the DNS must have a
    /// public address.
    pub fn admits(&self, endpoint: &Endpoint, only_public: bool) -> bool {
        match (self, endpoint) {
            (Self::Mx { .. }, Endpoint::Tcp(address)) if only_public => is_public(address.ip()),
            _ => true,
        }
    }

    /// Removes the addresses that are not public. If none is left, the failure is permanent,
    /// because these addresses are the choice of the domain's owner.
    pub fn keep_public(&self, found: &mut GroupAddresses) {
        let count = found.peers.len();
        found.peers.retain(|peer| self.admits(&peer.endpoint, true));
        let is_doubtful = found.failure.as_ref().is_some_and(|outcome| outcome.fate == Fate::Deferred);
        if let (Self::Mx { domain, .. }, true) = (self, found.peers.is_empty() && count > 0 && !is_doubtful) {
            let why = format!("{domain}: the mail hosts have only loopback, private or local addresses");
            found.failure = Some(Outcome::failed(Status(5, 4, 4), why));
        }
    }

    /// Removes the addresses to which this host does not connect, and puts those of the preferred family
    /// first.
    ///
    /// # Errors
    /// The outcome, if no address of the group is left. It is temporary, because the configuration of
    /// this host decides.
    pub fn keep_usable_by(&self, way: &Way, group: &[HostPort], peers: &mut Vec<Peer>) -> Result<(), Outcome> {
        let had_some = !peers.is_empty();
        peers.retain(|peer| peer.endpoint.ip().is_none_or(|ip| way.place(ip).is_some()));
        peers.sort_by_key(|peer| peer.endpoint.ip().and_then(|ip| way.place(ip)));
        if had_some && peers.is_empty() {
            let names: Vec<&str> = group.iter().map(|host| host.host.as_str()).collect();
            return Err(Outcome::deferred(Status(4, 4, 4), way.no_address(&names.join(", "))));
        }
        Ok(())
    }

    /// The outcome if no host but this one is left. It is final, since only a postmaster can break
    /// the loop (RFC 5321 5.1).
    pub fn loops(&self) -> Outcome {
        let whom = match self {
            Self::Mx { domain, .. } => domain.to_string(),
            Self::Hosts { hosts, .. } => hosts.iter().map(|h| h.host.as_str()).collect::<Vec<_>>().join(", "),
            Self::Store(store) => store.to_string(),
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
            // A typo in the configuration must not bounce all mail.
            Self::Hosts { .. } | Self::Store(_) => {
                Outcome::deferred(Status(4, 4, 4), format!("{host} has no address: {trouble}"))
            }
        }
    }
}

/// The addresses in an answer, and what DNSSEC says about them.
fn with_dnssec(answer: Answered<Vec<IpAddr>>) -> (Vec<IpAddr>, Dnssec) {
    let dnssec = match (answer.is_secure, answer.alias_of) {
        (true, None) => Dnssec::Secure,
        (true, Some(end)) => Dnssec::SecureAlias(end.into()),
        (false, None) => Dnssec::Insecure,
        (false, Some(_)) => Dnssec::InsecureAlias,
    };
    (answer.data, dnssec)
}

/// The mail exchangers of a domain, or the domain itself; at least one.
fn exchangers(dns: &Dns, domain: &str, dnssec: bool) -> Result<(Vec<(u16, String)>, Exchangers), Outcome> {
    let names = vec![domain.to_owned()];
    let (mut list, found) = match dns.exchangers(domain, dnssec) {
        Ok(Answered { data, is_secure, alias_of }) => {
            let names = names.into_iter().chain(alias_of).collect();
            (data, Exchangers { is_secure, names })
        }
        // The domain is its own exchanger, so nothing about its hosts can be forged.
        Err(NoAnswer::NoData) => {
            return Ok((vec![(0, domain.to_owned())], Exchangers { is_secure: true, names }));
        }
        Err(trouble) => return Err(Outcome::from_dns(domain, &trouble)),
    };
    let null = list.iter().any(|(_, name)| name == ".");
    // If there are other exchangers, the name `.` is a mistake and not a null MX (RFC 7505 3).
    list.retain(|(_, name)| name != ".");
    match list.is_empty() {
        false => Ok((list, found)),
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

/// Sorts mail exchangers by preference. Those of equal preference are in random order, so that they
/// share the load.
fn shuffle(exchangers: &mut [(u16, String)]) {
    for last in (1..exchangers.len()).rev() {
        // If there are no random numbers, the order of the DNS remains.
        let at = getrandom::u32().map_or(last, |n| n as usize % (last + 1));
        exchangers.swap(at, last);
    }
    // This sort is stable: exchangers of equal preference keep their random order.
    exchangers.sort_by_key(|(preference, _)| *preference);
}

/// Whether this process serves an endpoint, because it listens on that address or on all addresses
/// of this host.
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

/// Whether an address belongs to this host. If so, the system also chooses the address as the
/// source of connections to it. Nothing is sent to find that out. (A successful bind(2) would prove
/// less: see ip_nonlocal_bind in ip(7).)
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
    fn only_public_addresses_are_kept() {
        let target = HostTarget::Mx { domain: "x.test".into(), port: 25 };
        let deferred = || Some(Outcome::deferred(Status(4, 4, 3), "no answer"));
        for (addresses, failure, kept, fate) in [
            ("192.0.2.1:25 10.0.0.1:25 [2001:db8::1]:25", None, "192.0.2.1:25 [2001:db8::1]:25", None),
            ("127.0.0.1:25 10.0.0.1:25 169.254.1.1:25 [fd00::1]:25", None, "", Some(Fate::Failed)),
            ("127.0.0.1:25", deferred(), "", Some(Fate::Deferred)),
            ("", None, "", None),
        ] {
            let peer = |address: &str| {
                let endpoint = Endpoint::Tcp(address.parse().expect("an address"));
                Peer { name: "mx.test".into(), endpoint, scheme: Scheme::Smtp, dnssec: Dnssec::Insecure }
            };
            let all = |text: &str| text.split_whitespace().map(peer).collect::<Vec<_>>();
            let mut found = GroupAddresses { peers: all(addresses), failure, is_this_host: false };
            target.keep_public(&mut found);
            assert_eq!((found.peers, found.failure.map(|f| f.fate)), (all(kept), fate), "{addresses}");
        }
    }
}
