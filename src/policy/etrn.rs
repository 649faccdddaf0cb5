//! Decides whether a client may ask for the mail of a domain by ETRN (RFC 1985).

use super::{Facts, Source, Verdict};
use crate::config::Kind;
use crate::reply;
use crate::smtp::etrn::Node;

/// Whether ETRN is offered to a client. `domains` is `relay.etrn`.
pub fn is_offered(facts: &Facts<'_>, domains: &[String]) -> bool {
    is_known(facts, domains) && facts.may_relay()
}

/// Whether the command is known to the listener, so that a client without the right to use it gets
/// 459 instead of 502.
pub fn is_known(facts: &Facts<'_>, domains: &[String]) -> bool {
    !domains.is_empty() && facts.listener != Kind::Lmtp
}

/// Checks ETRN with its argument.
pub fn check(facts: &Facts<'_>, domains: &[String], node: &Node) -> Verdict {
    if !facts.may_relay() {
        return Verdict::refuse(reply::etrn::client_not_allowed(node), "etrn", Source::Key("relay.networks"));
    }
    let is_allowed = match node {
        Node::Queue(_) => {
            return Verdict::refuse(reply::etrn::no_such_queue(node), "etrn", Source::Standard("RFC 1985 5"));
        }
        Node::Domain(domain) => domains.iter().any(|pattern| is_match(pattern, domain)),
        // All domains below this one are allowed if their parent is.
        Node::DomainAndBelow(domain) => domains.iter().any(|pattern| is_match(pattern, &format!("x.{domain}"))),
    };
    if is_allowed {
        Verdict::Accept
    } else {
        Verdict::refuse(reply::etrn::node_not_allowed(node), "etrn", Source::Key("relay.etrn"))
    }
}

/// Whether a domain matches a pattern, which is a domain, or `.domain` for all domains below it.
fn is_match(pattern: &str, domain: &str) -> bool {
    if pattern.starts_with('.') { domain.ends_with(pattern) } else { domain == pattern }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STRANGER, TRUSTED, USER, shown};
    use super::*;

    #[test]
    fn the_client_and_the_domain_must_be_allowed() {
        let domains = ["example.org", ".example.net"].map(str::to_owned);
        for (argument, want) in [
            ("example.org", "accept"),
            ("a.example.net", "accept"),
            ("a.b.example.net", "accept"),
            ("@example.net", "accept"),
            ("@a.example.net", "accept"),
            ("example.net", "defer 459 etrn"),
            ("notexample.net", "defer 459 etrn"),
            ("a.example.org", "defer 459 etrn"),
            ("@example.org", "defer 459 etrn"),
            ("@net", "defer 459 etrn"),
            ("#example.org", "defer 459 etrn"),
        ] {
            let node = Node::parse(argument.as_bytes()).expect(argument);
            for facts in [TRUSTED, USER] {
                assert_eq!(shown(&check(&facts, &domains, &node)), want, "{argument}");
            }
            assert_eq!(shown(&check(&STRANGER, &domains, &node)), "defer 459 etrn", "{argument}");
        }
        let lmtp = Facts { listener: Kind::Lmtp, ..TRUSTED };
        assert!(is_offered(&TRUSTED, &domains) && is_offered(&USER, &domains));
        assert!(!is_offered(&STRANGER, &domains) && is_known(&STRANGER, &domains));
        assert!(!is_known(&lmtp, &domains) && !is_known(&TRUSTED, &[]));
    }
}
