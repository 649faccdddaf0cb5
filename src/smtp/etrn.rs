//! Parses the argument of ETRN (RFC 1985).

use std::fmt;

use crate::address::parse_domain;

/// The mail that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// The mail for a domain, in canonical form.
    Domain(Box<str>),
    /// The mail for a domain and for all domains below it: `@domain`.
    DomainAndBelow(Box<str>),
    /// The mail in a queue with this name: `#queue`.
    Queue(Box<str>),
}

/// The maximum length of the name of a queue, in octets.
const MAX_QUEUE: usize = 64;

impl Node {
    /// Parses an argument; `None` if it is malformed.
    pub fn parse(argument: &[u8]) -> Option<Self> {
        // ETRN has no parameter SMTPUTF8, so the argument is ASCII.
        let text = std::str::from_utf8(argument).ok().filter(|text| text.is_ascii())?;
        match text.as_bytes().first()? {
            b'@' => parse_domain(text.get(1..)?).ok().map(Self::DomainAndBelow),
            b'#' => {
                let is_name = (2..=MAX_QUEUE + 1).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
                is_name.then(|| text.get(1..).map(Box::from)).flatten().map(Self::Queue)
            }
            _ => parse_domain(text).ok().map(Self::Domain),
        }
    }
}

/// Writes the argument in its canonical form.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => f.write_str(domain),
            Self::DomainAndBelow(domain) => write!(f, "@{domain}"),
            Self::Queue(name) => write!(f, "#{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_a_domain_domains_or_a_queue() {
        for (text, want) in [
            ("Example.ORG", Some(Node::Domain("example.org".into()))),
            ("[192.0.2.1]", Some(Node::Domain("[192.0.2.1]".into()))),
            ("@Example.org", Some(Node::DomainAndBelow("example.org".into()))),
            ("#uucp", Some(Node::Queue("uucp".into()))),
            ("", None),
            ("@", None),
            ("#", None),
            ("@@example.org", None),
            ("example..org", None),
            ("example.org example.net", None),
            ("#a b", None),
            // ETRN has no parameter SMTPUTF8.
            ("\u{fc}.example", None),
        ] {
            assert_eq!(Node::parse(text.as_bytes()), want, "{text}");
            if let Some(node) = want {
                assert_eq!(Node::parse(node.to_string().as_bytes()), Some(node));
            }
        }
        assert_eq!(Node::parse(b"\xff.example"), None);
        assert_eq!(Node::parse(format!("#{}", "x".repeat(MAX_QUEUE + 1)).as_bytes()), None);
    }
}
