//! The question of an explanation: an address or a queue id, and the client that sends the message.
//!
//! In a request on the control socket, each option is a word `name=value`, and the target is the
//! last word.

use std::net::IpAddr;

use crate::config::Kind;
use crate::json::Format;
use crate::spool::QueueId;

/// The question of an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The recipient, or the id of a message in the queue.
    pub target: String,
    /// The sender; `Some` of an empty text for the null reverse-path.
    pub from: Option<String>,
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// The name in HELO.
    pub helo: Option<String>,
    /// The authenticated user.
    pub login: Option<String>,
    /// The declared size of the message, in octets.
    pub size: Option<u64>,
    /// The way by which the message comes.
    pub origin: Option<Origin>,
    /// Whether names are looked up in the DNS.
    pub uses_dns: bool,
    /// The form of the answer.
    pub format: Format,
}

impl Query {
    /// A query without options.
    pub fn new(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            from: None,
            ip: None,
            helo: None,
            login: None,
            size: None,
            origin: None,
            uses_dns: true,
            format: Format::Text,
        }
    }

    /// The recipient, without angle brackets.
    pub fn recipient(&self) -> &str {
        self.target.trim_start_matches('<').trim_end_matches('>')
    }

    /// The id of the message, if the query is about one in the queue.
    pub fn id(&self) -> Option<QueueId> {
        QueueId::parse(&self.target.to_ascii_uppercase())
    }

    /// Sets the option with this name.
    ///
    /// # Errors
    /// What was expected, as text for the user.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "from" => self.from = Some(value.trim_start_matches('<').trim_end_matches('>').to_owned()),
            "ip" => {
                let text = value.trim_start_matches('[').trim_end_matches(']');
                self.ip = Some(text.parse().map_err(|_| format!("--ip {value}: expected an IPv4 or IPv6 address"))?);
            }
            "helo" => self.helo = Some(value.to_owned()),
            "login" => self.login = Some(value.to_owned()),
            "size" => {
                self.size = Some(value.parse().map_err(|_| format!("--size {value}: expected a number of octets"))?);
            }
            "kind" => {
                let source = ORIGINS.iter().find(|(name, _)| *name == value);
                let expected = || format!("--kind {value}: expected smtp, submission, lmtp or local");
                self.origin = Some(source.ok_or_else(expected)?.1);
            }
            "no-dns" => self.uses_dns = false,
            "json" => self.format = Format::Json,
            _ => return Err(format!("{name} is not an option")),
        }
        Ok(())
    }

    /// Reads the words of a request; `None` if one is malformed.
    pub fn read(words: &[&str]) -> Option<Self> {
        let (target, options) = words.split_last()?;
        let mut query = Self::new(target);
        for option in options {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            query.set(name, value).ok()?;
        }
        Some(query)
    }

    /// The words of a request.
    pub fn words(&self) -> Vec<String> {
        let origin = self.origin.and_then(|origin| ORIGINS.iter().find(|(_, other)| *other == origin));
        let options = [
            ("from", self.from.clone()),
            ("ip", self.ip.map(|ip| ip.to_string())),
            ("helo", self.helo.clone()),
            ("login", self.login.clone()),
            ("size", self.size.map(|size| size.to_string())),
            ("kind", origin.map(|(name, _)| (*name).to_owned())),
        ];
        let options = options.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        let flags = [("no-dns", !self.uses_dns), ("json", self.format == Format::Json)];
        let flags = flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned());
        options.chain(flags).chain([self.target.clone()]).collect()
    }
}

/// The way by which a message comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From a client of a listener of this kind.
    Listener(Kind),
    /// From a program on this host.
    Local,
}

/// The origins, with their names. Those of listeners are their kinds in the configuration.
pub(super) const ORIGINS: [(&str, Origin); 4] = [
    ("smtp", Origin::Listener(Kind::Smtp)),
    ("submission", Origin::Listener(Kind::Submission)),
    ("lmtp", Origin::Listener(Kind::Lmtp)),
    ("local", Origin::Local),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_was_written() {
        let mut query = Query::new("jon=x@razorback");
        assert_eq!(query.words(), ["jon=x@razorback"]);
        for (name, value) in [
            ("from", "<a b=c@d>"),
            ("ip", "[2001:db8::1]"),
            ("helo", "x"),
            ("login", "jon"),
            ("size", "7"),
            ("kind", "lmtp"),
            ("no-dns", ""),
            ("json", ""),
        ] {
            query.set(name, value).expect(name);
        }
        let words = query.words();
        assert_eq!(Query::read(&words.iter().map(String::as_str).collect::<Vec<_>>()), Some(query));
        assert_eq!(
            words.join(" "),
            "from=a b=c@d ip=2001:db8::1 helo=x login=jon size=7 kind=lmtp no-dns json jon=x@razorback"
        );
    }

    #[test]
    fn a_malformed_query_is_rejected() {
        for words in [&[][..], &["ip=x", "a"], &["size=-1", "a"], &["kind=http", "a"], &["what=1", "a"], &["", "a"]] {
            assert_eq!(Query::read(words), None, "{words:?}");
        }
        assert!(Query::read(&["1k0tvz6ph81dz9jhpqf"]).is_some_and(|query| query.id().is_some()));
        assert_eq!(Query::read(&["jon"]).and_then(|query| query.id()), None);
    }
}
