//! Tells for a listing how connections to the hosts of a destination are encrypted.

use std::net::{IpAddr, Ipv4Addr};

use super::credentials::Credentials;
use crate::config::{HostPort, Scheme, Store};
use crate::destination::{Dnssec, HostTarget, Peer};
use crate::endpoint::Endpoint;
use crate::envelope::MessageTls;
use crate::tls_policy::Rules;

/// The words for the encryption of connections to the hosts of a destination: `none`,
/// `opportunistic`, `required` or `implicit`. There are several if the hosts differ.
pub fn tls_policy(target: &HostTarget, rules: Rules<'_>, credentials: &Credentials) -> Vec<&'static str> {
    let domain = rules.of_domain(target);
    let word = |host: &str, scheme: Scheme| {
        let has_login = credentials.at(target, host).is_some();
        // If the table has an error, mail waits.
        rules
            .of_host(&domain, &peer(host, scheme), has_login, MessageTls::Default)
            .map_or("unknown", |policy| policy.word())
    };
    let of_host = |host: &HostPort| word(&host.host, host.scheme);
    let mut words: Vec<&str> = match target {
        HostTarget::Mx { .. } => {
            // A host that the MTA-STS policy names, if there is one.
            let named = domain.sts.policy.as_ref().and_then(|sts| sts.mx.first());
            let host = named.map_or_else(|| "mail.exchanger".to_owned(), |name| name.replace('*', "mail"));
            vec![word(&host, Scheme::Smtp)]
        }
        HostTarget::Hosts { hosts, .. } => hosts.iter().map(of_host).collect(),
        HostTarget::Store(Store::Host(host)) => vec![of_host(host)],
        HostTarget::Store(Store::Socket(_)) => vec!["none"],
    };
    words.dedup();
    words
}

/// A host as it would be connected to. No look-up is made: only `localhost` and loopback addresses
/// count as this host.
fn peer(host: &str, scheme: Scheme) -> Peer {
    const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let (name, address) = match host.parse::<IpAddr>() {
        Ok(address) => ("", address),
        Err(_) if host == "localhost" => (host, Ipv4Addr::LOCALHOST.into()),
        Err(_) => (host, ELSEWHERE),
    };
    Peer { name: name.to_owned(), endpoint: Endpoint::Tcp((address, 25).into()), scheme, dnssec: Dnssec::Insecure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RemoteTls, TableFile, parse};
    use crate::privsep::Rights;
    use crate::tls_policy::table::TlsPolicies;

    #[test]
    fn the_policy_is_that_of_the_hosts() {
        let mut config = parse(std::path::Path::new("x"), "hostname = \"x.test\"").expect("good");
        config.remote.credentials = TableFile { path: "/nonexistent".into(), required: false };
        config.remote.tls_policies = TableFile { path: "/nonexistent".into(), required: false };
        let credentials = Credentials::open(&config, &Rights::Alone).expect("none");
        let host = |host: &str, scheme| HostPort { host: host.to_owned(), port: 25, scheme };
        let mx = HostTarget::Mx { domain: "x.test".into(), port: 25 };
        let hosts = |hosts: &[HostPort]| HostTarget::hosts(hosts.to_vec());
        let store = |host| HostTarget::Store(Store::Host(host));
        for (target, policy, want) in [
            (mx.clone(), RemoteTls::Opportunistic, &["opportunistic"][..]),
            (mx.clone(), RemoteTls::None, &["none"]),
            (mx, RemoteTls::Required, &["required"]),
            (hosts(&[host("a.test", Scheme::Smtps)]), RemoteTls::None, &["implicit"]),
            (
                hosts(&[
                    host("a.test", Scheme::StartTls),
                    host("b.test", Scheme::StartTls),
                    host("192.0.2.7", Scheme::Smtp),
                ]),
                RemoteTls::Opportunistic,
                &["required", "opportunistic"],
            ),
            (store(host("127.0.0.1", Scheme::Lmtp)), RemoteTls::Required, &["none"]),
            (store(host("localhost", Scheme::Lmtp)), RemoteTls::Required, &["none"]),
            (store(host("store.test", Scheme::Lmtp)), RemoteTls::Required, &["required"]),
            (HostTarget::Store(Store::Socket(std::path::Path::new("/run/x").into())), RemoteTls::Required, &["none"]),
        ] {
            config.remote.tls = policy;
            let (table, _) = TlsPolicies::begin(&config);
            let rules = Rules { config: &config.remote, table: &table, dns: None, sts: None };
            assert_eq!(tls_policy(&target, rules, &credentials), want, "{target} {policy:?}");
        }
    }
}
