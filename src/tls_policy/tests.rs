//! Tests which policy a host gets.

use std::net::SocketAddr;

use super::*;
use crate::config::{Config, HostPort, Store, TableFile, parse};
use crate::destination::Dnssec;

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
    Peer { name: name.to_owned(), endpoint: address.into(), scheme, dnssec: Dnssec::Insecure }
}

fn smart_host(scheme: Scheme) -> HostTarget {
    HostTarget::hosts(vec![HostPort { host: "smart.test".to_owned(), port: 25, scheme }])
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
            (mx("[IPv6:2001:db8::1]"), "", "[2001:db8::1]", Scheme::Smtp, Ok(("required", Verified::Authority))),
            // An MX record with an address in place of a name proves no more than one with a name.
            (mx("x.test"), "", "192.0.2.1", Scheme::Smtp, Err(Status(5, 7, 10))),
            (mx("[192.0.2.2]"), "", "192.0.2.1", Scheme::Smtp, Err(Status(5, 7, 10))),
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

/// An MTA-STS policy that names the host `mx.x.test`.
fn sts_policy(mode: Mode) -> Sts {
    let (mx, max_age) = (vec!["mx.x.test".into()], std::time::Duration::from_secs(86_400));
    let policy = StsPolicy { id: "1".into(), mode, mx, max_age, fetched: 0 };
    Sts { policy: Some(Arc::new(policy)), ..Sts::default() }
}

#[test]
fn an_mta_sts_policy_counts_where_no_stronger_rule_decides() {
    use MessageTls::{Default, Indifferent, Required};
    use RemoteTls::Opportunistic;
    let (mut config, table) = with_table("");
    let target = HostTarget::Mx { domain: "x.test".into(), port: 25 };
    let (named, other) = ("mx.x.test", "mx.y.test");
    for (mode, base, message, host, wanted) in [
        (Mode::Enforce, Opportunistic, Default, named, Ok(("required", Verified::MtaSts, true))),
        (Mode::Enforce, Opportunistic, Default, other, Err(Status(4, 7, 5))),
        (Mode::Enforce, RemoteTls::Required, Default, named, Ok(("required", Verified::MtaSts, true))),
        (Mode::Enforce, Opportunistic, Indifferent, other, Ok(("opportunistic", Verified::No, true))),
        (Mode::Enforce, RemoteTls::Required, Indifferent, other, Ok(("required", Verified::Authority, true))),
        (Mode::Enforce, Opportunistic, Required, named, Ok(("required", Verified::MtaSts, true))),
        (Mode::Enforce, Opportunistic, Required, other, Err(Status(4, 7, 5))),
        (Mode::Testing, Opportunistic, Default, other, Ok(("opportunistic", Verified::Authority, false))),
        (Mode::Testing, Opportunistic, Required, named, Ok(("required", Verified::Authority, true))),
        (Mode::Testing, Opportunistic, Required, other, Err(Status(5, 7, 10))),
        (Mode::None, Opportunistic, Default, other, Ok(("opportunistic", Verified::No, true))),
        (Mode::None, Opportunistic, Required, named, Err(Status(5, 7, 10))),
    ] {
        config.remote.tls = base;
        let rules = Rules { config: &config.remote, table: &table, dns: None, sts: None };
        let domain = DomainPolicy { sts: sts_policy(mode), ..rules.of_domain(&target) };
        let policy = rules.of_host(&domain, &peer(host, "192.0.2.1", Scheme::Smtp), false, message);
        let shown = policy.map(|policy| (policy.word(), policy.verified(), policy.is_enforced));
        assert_eq!(shown.map_err(|outcome| outcome.status), wanted, "{mode:?} {base:?} {message:?} {host}");
    }
}

#[test]
fn no_mta_sts_policy_is_asked_for_where_another_rule_decides() {
    let (mut config, table) = with_table("open.test opportunistic\n");
    let mx = |domain: &str| HostTarget::Mx { domain: domain.into(), port: 25 };
    for (base, is_on, target, wanted) in [
        (RemoteTls::Opportunistic, true, mx("x.test"), Some("x.test")),
        (RemoteTls::Required, true, mx("x.test"), Some("x.test")),
        (RemoteTls::None, true, mx("x.test"), None),
        (RemoteTls::Opportunistic, false, mx("x.test"), None),
        (RemoteTls::Opportunistic, true, mx("open.test"), None),
        (RemoteTls::Opportunistic, true, smart_host(Scheme::Smtp), None),
    ] {
        (config.remote.tls, config.remote.mta_sts) = (base, is_on);
        let rules = Rules { config: &config.remote, table: &table, dns: None, sts: None };
        assert_eq!(rules.sts_domain(&target), wanted, "{target} {base:?} {is_on}");
    }
}

/// DANE decides for a host with TLSA records. If the MX records are not secure, an MTA-STS policy must
/// name the host all the same.
#[test]
fn dane_takes_precedence_over_mta_sts() {
    let digest = "ab".repeat(32);
    let hosts = ["mx.x.test", "mx.y.test"];
    let zone: String =
        hosts.map(|host| format!("_25._tcp.{host} SECURE\n_25._tcp.{host} TLSA 3 1 1 {digest}\n")).concat();
    let server = common::dns::Dns::zone(&zone);
    let (mut config, table) = with_table("");
    config.dns.nameservers = vec![server.address];
    let dns = Dns::new(&config.dns);
    let target = HostTarget::Mx { domain: "x.test".into(), port: 25 };
    for (is_secure, host, wanted) in [
        (true, "mx.x.test", Ok(Verified::Dane)),
        (true, "mx.y.test", Ok(Verified::Dane)),
        (false, "mx.x.test", Ok(Verified::Dane)),
        (false, "mx.y.test", Err(Status(4, 7, 5))),
    ] {
        let rules = Rules { config: &config.remote, table: &table, dns: Some(&dns), sts: None };
        let exchangers = Exchangers { is_secure, names: vec!["x.test".to_owned()] };
        let domain = rules.of_domain(&target).with_exchangers(exchangers);
        let domain = DomainPolicy { sts: sts_policy(Mode::Enforce), ..domain };
        let peer = Peer { dnssec: Dnssec::Secure, ..peer(host, "192.0.2.1", Scheme::Smtp) };
        let policy = rules.of_host(&domain, &peer, false, MessageTls::Default);
        assert_eq!(policy.map(|policy| policy.verified()).map_err(|outcome| outcome.status), wanted, "{host}");
    }
}
