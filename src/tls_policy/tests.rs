//! Tests which policy a host gets.

use std::net::SocketAddr;

use super::*;
use crate::config::{Config, HostPort, Store, TableFile, parse};

/// A configuration whose table of TLS policies has this text, and the table.
fn with_table(text: &str) -> (Config, TlsPolicies) {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("penfold-policies-{}-{number}", std::process::id()));
    std::fs::write(&file, text).expect("a table");
    let mut config = parse(std::path::Path::new("x"), "hostname = \"x.test\"").expect("good");
    config.remote.tls_policies = TableFile { path: file.clone(), required: true };
    let (table, _) = TlsPolicies::begin(&config);
    std::fs::remove_file(file).expect("it was there");
    (config, table)
}

fn peer(name: &str, address: &str, scheme: Scheme) -> Peer {
    let address: SocketAddr = format!("{address}:25").parse().expect("an address");
    Peer { name: name.to_owned(), endpoint: address.into(), scheme, dnssec: crate::destination::Dnssec::Insecure }
}

fn smart_host(scheme: Scheme) -> HostTarget {
    HostTarget::Hosts(vec![HostPort { host: "smart.test".to_owned(), port: 25, scheme }])
}

#[test]
fn credentials_need_verified_tls_except_on_loopback() {
    use RemoteTls::{None, Opportunistic, Required};
    let (mut config, table) = with_table("");
    for (address, scheme, base, without, with) in [
        ("192.0.2.1", Scheme::Smtp, None, "none", "required"),
        ("192.0.2.1", Scheme::Smtp, Opportunistic, "opportunistic", "required"),
        ("192.0.2.1", Scheme::Smtp, Required, "required", "required"),
        ("[2001:db8::1]", Scheme::Smtp, None, "none", "required"),
        ("192.0.2.1", Scheme::Smtps, None, "implicit", "implicit"),
        ("127.0.0.1", Scheme::Smtp, None, "none", "none"),
        ("[::1]", Scheme::Smtp, Opportunistic, "opportunistic", "opportunistic"),
        ("127.0.0.1", Scheme::Lmtp, Required, "none", "none"),
        ("192.0.2.1", Scheme::Lmtp, None, "none", "required"),
        ("192.0.2.1", Scheme::Lmtp, Required, "required", "required"),
        ("127.0.0.1", Scheme::StartTls, None, "required", "required"),
    ] {
        config.remote.tls = base;
        let rules = Rules { config: &config.remote, table: &table, dns: Option::None, sts: Option::None };
        let domain = rules.of_domain(&smart_host(scheme));
        let word = |login| {
            rules.of_host(&domain, &peer("", address, scheme), login, MessageTls::Default).map(|policy| policy.word())
        };
        assert_eq!((word(false), word(true)), (Ok(without), Ok(with)), "{address} {scheme:?} {base:?}");
    }
}

#[test]
fn the_table_decides_for_the_domain_or_for_a_host_of_the_configuration() {
    let text = "a.test none\nb.test opportunistic\nc.test required\nsmart.test required\nmx.test none\nbad.test x\n";
    let (mut config, table) = with_table(text);
    config.remote.tls = RemoteTls::Required;
    let rules = Rules { config: &config.remote, table: &table, dns: Option::None, sts: Option::None };
    let mx = |domain: &str| HostTarget::Mx { domain: domain.into(), port: 25 };
    for (target, name, scheme, without, with) in [
        (mx("a.test"), "mx.test", Scheme::Smtp, Some("none"), Some("required")),
        (mx("b.test"), "mx.test", Scheme::Smtp, Some("opportunistic"), Some("required")),
        (mx("c.test"), "mx.test", Scheme::Smtp, Some("required"), Some("required")),
        // The names of exchangers come from the DNS, and are not looked up in the table.
        (mx("d.test"), "mx.test", Scheme::Smtp, Some("required"), Some("required")),
        (mx("bad.test"), "mx.test", Scheme::Smtp, None, None),
        (smart_host(Scheme::Smtp), "smart.test", Scheme::Smtp, Some("required"), Some("required")),
        (smart_host(Scheme::Smtps), "a.test", Scheme::Smtps, Some("implicit"), Some("implicit")),
    ] {
        let domain = rules.of_domain(&target);
        let word = |login| {
            let policy = rules.of_host(&domain, &peer(name, "192.0.2.1", scheme), login, MessageTls::Default);
            policy.map(|policy| policy.word()).map_err(|outcome| assert_eq!(outcome.status, Status(4, 3, 5))).ok()
        };
        assert_eq!((word(false), word(true)), (without, with), "{target}");
    }
}

#[test]
fn a_message_that_needs_tls_makes_the_policy_strict() {
    let print = "ab".repeat(32);
    let text = format!("none.test none\nprint.test required fingerprints={print}\nnames.test required names=a.test\n");
    let (mut config, table) = with_table(&text);
    let mx = |domain: &str| HostTarget::Mx { domain: domain.into(), port: 25 };
    let store = || HostTarget::Store(Store::Host(HostPort { host: "s.test".into(), port: 24, scheme: Scheme::Lmtp }));
    for base in [RemoteTls::None, RemoteTls::Opportunistic, RemoteTls::Required] {
        config.remote.tls = base;
        let rules = Rules { config: &config.remote, table: &table, dns: Option::None, sts: Option::None };
        for (target, name, address, scheme, wanted) in [
            (smart_host(Scheme::Smtp), "smart.test", "192.0.2.1", Scheme::Smtp, Ok(("required", Verified::Authority))),
            (
                smart_host(Scheme::Smtps),
                "smart.test",
                "192.0.2.1",
                Scheme::Smtps,
                Ok(("implicit", Verified::Authority)),
            ),
            // Another program on this host would pass it on without the demand.
            (smart_host(Scheme::Smtp), "", "127.0.0.1", Scheme::Smtp, Ok(("required", Verified::Authority))),
            (store(), "s.test", "127.0.0.1", Scheme::Lmtp, Ok(("none", Verified::No))),
            (store(), "s.test", "192.0.2.1", Scheme::Lmtp, Ok(("required", Verified::Authority))),
            (mx("x.test"), "mx.x.test", "192.0.2.1", Scheme::Smtp, Err(Status(5, 7, 10))),
            (mx("x.test"), "x.test", "192.0.2.1", Scheme::Smtp, Ok(("required", Verified::Authority))),
            (mx("[192.0.2.1]"), "", "192.0.2.1", Scheme::Smtp, Ok(("required", Verified::Authority))),
            (mx("none.test"), "none.test", "192.0.2.1", Scheme::Smtp, Ok(("required", Verified::Authority))),
            // A fingerprint proves the host, whatever name it has in the DNS. A name from the DNS does not.
            (mx("print.test"), "mx.test", "192.0.2.1", Scheme::Smtp, Ok(("required", Verified::Fingerprint))),
            (mx("names.test"), "mx.test", "192.0.2.1", Scheme::Smtp, Err(Status(5, 7, 10))),
        ] {
            let (domain, peer) = (rules.of_domain(&target), peer(name, address, scheme));
            for has_login in [false, true] {
                let policy = rules.of_host(&domain, &peer, has_login, MessageTls::Required);
                let shown = policy.map(|policy| (policy.word(), policy.verified())).map_err(|outcome| outcome.status);
                assert_eq!(shown, wanted, "{target} {name} {address} {base:?} {has_login}");
            }
        }
        // Secure MX records prove the name of the host.
        for (is_secure, wanted) in [(true, Ok("required")), (false, Err(Status(5, 7, 10)))] {
            let exchangers = Exchangers { is_secure, names: vec!["x.test".to_owned()] };
            let domain = rules.of_domain(&mx("x.test")).with_exchangers(exchangers);
            let peer = peer("mx.x.test", "192.0.2.1", Scheme::Smtp);
            let policy = rules.of_host(&domain, &peer, false, MessageTls::Required);
            assert_eq!(policy.map(|policy| policy.word()).map_err(|outcome| outcome.status), wanted);
        }
    }
}
