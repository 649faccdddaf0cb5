//! Decides whether the name in HELO or EHLO is accepted.

use std::net::IpAddr;

use super::{Facts, Source, Verdict};
use crate::address;
use crate::reply;
use crate::smtp::xclient::MAX_VALUE;

/// Accepts any name that is not empty, even one that is no domain (RFC 5321 4.1.4). Many devices
/// send other words, and the name gives no rights.
pub fn check(_: &Facts<'_>, name: &str) -> Verdict {
    if name.is_empty() {
        return Verdict::refuse(reply::hello::missing_name(), "hello-name", Source::Standard("RFC 5321 4.1.1.1"));
    }
    Verdict::Accept
}

/// Returns a name that is safe to repeat: printable ASCII of limited length.
pub fn printable(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.chars().take(MAX_VALUE).map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect()
}

/// Whether another host pretends in HELO to be this host, by giving this host's name or one of its
/// addresses as a literal. `own` are the addresses of this host, and `client` is the client's, if it is known.
pub fn is_own(hello: &str, hostname: &str, own: &[IpAddr], client: Option<IpAddr>) -> bool {
    let is_ours = |address: IpAddr| own.iter().any(|own| own.to_canonical() == address.to_canonical());
    if client.is_some_and(is_ours) {
        return false;
    }
    let is_literal = || {
        let literal = address::parse_domain(hello).ok().and_then(|text| address::literal(&text));
        literal.is_some_and(is_ours)
    };
    let is_name = hostname.contains('.') && hello.eq_ignore_ascii_case(hostname);
    is_name || is_literal()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STRANGER, shown};
    use super::*;

    #[test]
    fn any_name_that_is_not_empty_is_accepted() {
        for (name, want) in [
            ("", "refuse 501 hello-name"),
            ("client.example", "accept"),
            ("[192.0.2.1]", "accept"),
            ("no domain", "accept"),
        ] {
            assert_eq!(shown(&check(&STRANGER, name)), want, "{name}");
        }
    }

    #[test]
    fn another_host_may_not_greet_as_this_one() {
        let own = ["192.0.2.25", "2001:db8::25"].map(|text| text.parse().expect(text));
        for (hello, client, want) in [
            ("mx.example", "192.0.2.1", true),
            ("MX.example", "192.0.2.1", true),
            ("other.example", "192.0.2.1", false),
            ("[192.0.2.25]", "192.0.2.1", true),
            ("[IPv6:2001:db8::25]", "192.0.2.1", true),
            ("[192.0.2.1]", "192.0.2.1", false),
            ("mx.example", "192.0.2.25", false),
            ("mx.example", "::ffff:192.0.2.25", false),
        ] {
            assert_eq!(is_own(hello, "mx.example", &own, client.parse().ok()), want, "{hello} {client}");
        }
        assert!(is_own("mx.example", "mx.example", &own, None));
        assert!(!is_own("localhost", "localhost", &own, None), "a name without a dot says nothing");
    }
}
