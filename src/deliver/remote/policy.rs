//! Tells for a listing how connections to the hosts of a destination are encrypted.

use std::net::{IpAddr, Ipv4Addr};

use super::client::Security;
use super::credentials::Credentials;
use super::hosts::Peer;
use crate::config::{HostPort, RemoteTls, Scheme, Store};
use crate::destination::HostTarget;
use crate::endpoint::Endpoint;

/// The words for the encryption of connections to the hosts of a destination: `none`,
/// `opportunistic`, `required` or `implicit`. There are several if the hosts differ.
pub fn tls_policy(target: &HostTarget, policy: RemoteTls, credentials: &Credentials) -> Vec<&'static str> {
    let mut words: Vec<&str> = match target {
        HostTarget::Mx { .. } => vec![word(Security::of(&peer("mail.exchanger", Scheme::Smtp), policy, false))],
        HostTarget::Hosts(hosts) => hosts.iter().map(|host| of_host(host, policy, credentials)).collect(),
        HostTarget::Store(Store::Host(host)) => vec![of_host(host, policy, credentials)],
        HostTarget::Store(Store::Socket(_)) => vec![word(Security::Clear)],
    };
    words.dedup();
    words
}

fn of_host(host: &HostPort, policy: RemoteTls, credentials: &Credentials) -> &'static str {
    // A store needs no credentials.
    let has_login = host.scheme != Scheme::Lmtp && credentials.find(&host.host).is_some();
    word(Security::of(&peer(&host.host, host.scheme), policy, has_login))
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
    Peer { name: name.to_owned(), endpoint: Endpoint::Tcp((address, 25).into()), scheme }
}

fn word(security: Security) -> &'static str {
    match security {
        Security::Clear => "none",
        Security::Opportunistic => "opportunistic",
        Security::Required => "required",
        Security::Implicit => "implicit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TableFile, parse};
    use crate::privsep::Rights;

    #[test]
    fn the_policy_is_that_of_the_hosts() {
        let mut config = parse(std::path::Path::new("x"), "hostname = \"x.test\"").expect("good");
        config.remote.credentials = TableFile { path: "/nonexistent".into(), required: false };
        let credentials = Credentials::open(&config, &Rights::Alone).expect("none");
        let host = |host: &str, scheme| HostPort { host: host.to_owned(), port: 25, scheme };
        let mx = HostTarget::Mx { domain: "x.test".into(), port: 25 };
        let hosts = |hosts: &[HostPort]| HostTarget::Hosts(hosts.to_vec());
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
            assert_eq!(tls_policy(&target, policy, &credentials), want, "{target} {policy:?}");
        }
    }
}
