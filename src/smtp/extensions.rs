//! Prints the ESMTP extensions that the server offers to a client, and parses those that a remote
//! host lists in its reply to EHLO.
//!
//! A new extension with a parameter of MAIL touches five files:
//!
//! 1. `smtp/extensions.rs`: a field, its line in [`Extensions::lines`], and its keyword in
//!    [`Extensions::parse`]
//! 2. `session/hello.rs`: the states in which it is offered
//! 3. `envelope.rs`: its value in `MailOptions`, which accompanies the message
//! 4. `smtp/parameters.rs`: the parameter, parsed and printed, and whether a host gets it
//! 5. `spool/head/options.rs`: its word in the head of an entry
//!
//! An extension with a new verb touches `smtp/command.rs`, `Session::dispatch` and `reply/help.rs`
//! instead of the last three files.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;

use super::xclient::{XCLIENT, XFORWARD};
use crate::reply::Reply;
use crate::sasl::Mechanism;

/// A set of extensions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870), in octets. Zero means that there is no limit.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// XCLIENT and XFORWARD, for a trusted proxy. The offer of a remote host is not parsed, because
    /// penfold never sends these commands.
    pub xclient: bool,
    /// AUTH (RFC 4954): the offered mechanisms that penfold knows, the preferred one first.
    pub auth: Option<Vec<Mechanism>>,
    /// HELP.
    pub help: bool,
    /// CHUNKING (RFC 3030): the command BDAT.
    pub chunking: bool,
    /// BINARYMIME (RFC 3030).
    pub binary_mime: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtp_utf8: bool,
    /// ETRN (RFC 1985).
    pub etrn: bool,
    /// LIMITS (RFC 9422).
    pub limits: Option<Limits>,
    /// DELIVERBY (RFC 2852): the smallest number of seconds after which a message can be returned.
    /// Zero means that any number is accepted.
    pub deliver_by: Option<u64>,
    /// FUTURERELEASE (RFC 4865).
    pub future_release: Option<FutureRelease>,
    /// MT-PRIORITY (RFC 6710).
    pub mt_priority: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
}

/// The limits of LIMITS (RFC 9422 4). `None` means that the host names no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// MAILMAX: the maximum number of transactions in a session.
    pub mails: Option<u32>,
    /// RCPTMAX: the maximum number of RCPT commands in a transaction.
    pub recipients: Option<u32>,
    /// RCPTDOMAINMAX: the maximum number of domains in the recipients of a transaction.
    pub recipient_domains: Option<u32>,
}

/// The bounds of FUTURERELEASE (RFC 4865 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FutureRelease {
    /// The longest time for which a message is held, in seconds.
    pub max_interval: u64,
    /// The latest time until which a message is held, in seconds since 1970.
    pub max_time: u64,
}

impl Extensions {
    /// The lines of a reply to EHLO, without its greeting.
    pub fn lines(&self) -> Vec<Cow<'static, str>> {
        let mut lines: Vec<Cow<'static, str>> = Vec::new();
        lines.extend(self.pipelining.then_some("PIPELINING".into()));
        lines.extend(self.size.map(|size| format!("SIZE {size}").into()));
        lines.extend(self.eight_bit.then_some("8BITMIME".into()));
        lines.extend(self.enhanced_status.then_some("ENHANCEDSTATUSCODES".into()));
        lines.extend(self.starttls.then_some("STARTTLS".into()));
        if self.xclient {
            lines.extend([format!("XCLIENT {XCLIENT}").into(), format!("XFORWARD {XFORWARD}").into()]);
        }
        let mechanisms = |line: String, mechanism: &Mechanism| format!("{line} {mechanism}");
        lines.extend(self.auth.as_ref().map(|auth| auth.iter().fold("AUTH".to_owned(), mechanisms).into()));
        for (is_offered, keyword) in [
            (self.chunking, "CHUNKING"),
            (self.binary_mime, "BINARYMIME"),
            (self.dsn, "DSN"),
            (self.smtp_utf8, "SMTPUTF8"),
            (self.etrn, "ETRN"),
        ] {
            lines.extend(is_offered.then_some(keyword.into()));
        }
        lines.extend(self.limits.map(|limits| format!("LIMITS{limits}").into()));
        lines.extend(
            self.deliver_by.map(|min| if min == 0 { "DELIVERBY".into() } else { format!("DELIVERBY {min}").into() }),
        );
        lines.extend(self.future_release.map(|bounds| format!("FUTURERELEASE {bounds}").into()));
        lines.extend(self.mt_priority.then_some("MT-PRIORITY".into()));
        lines.extend(self.require_tls.then_some("REQUIRETLS".into()));
        lines.extend(self.help.then_some("HELP".into()));
        lines
    }

    /// Withholds the extensions with these keywords, which are in upper case. An extension that
    /// needs a withheld one is withheld, too.
    pub fn withhold(&mut self, keywords: &[&str]) {
        for keyword in keywords {
            match *keyword {
                "PIPELINING" => self.pipelining = false,
                "SIZE" => self.size = None,
                "8BITMIME" => (self.eight_bit, self.smtp_utf8, self.binary_mime) = (false, false, false),
                "ENHANCEDSTATUSCODES" => self.enhanced_status = false,
                "STARTTLS" => self.starttls = false,
                "CHUNKING" => (self.chunking, self.binary_mime) = (false, false),
                "BINARYMIME" => self.binary_mime = false,
                "DSN" => self.dsn = false,
                "SMTPUTF8" => self.smtp_utf8 = false,
                "ETRN" => self.etrn = false,
                "LIMITS" => self.limits = None,
                "DELIVERBY" => self.deliver_by = None,
                "FUTURERELEASE" => self.future_release = None,
                "MT-PRIORITY" => self.mt_priority = false,
                "REQUIRETLS" => self.require_tls = false,
                "XCLIENT" => self.xclient = false,
                "AUTH" => self.auth = None,
                "HELP" => self.help = false,
                _ => {}
            }
        }
    }

    /// Parses the reply of a remote host to EHLO. Unknown keywords are ignored.
    pub fn parse(reply: &Reply) -> Self {
        let mut extensions = Self::default();
        for line in reply.lines().iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => extensions.pipelining = true,
                "SIZE" => extensions.size = Some(limit(words.next())),
                _ if keyword.starts_with("SIZE=") => extensions.size = Some(limit(keyword.get(5..))),
                "8BITMIME" => extensions.eight_bit = true,
                "ENHANCEDSTATUSCODES" => extensions.enhanced_status = true,
                "STARTTLS" => extensions.starttls = true,
                "AUTH" => extensions.add_mechanisms(words),
                // `AUTH=` is the form from before RFC 2554. Some hosts still send it in addition to
                // `AUTH`.
                _ if keyword.starts_with("AUTH=") => {
                    extensions.add_mechanisms(keyword.split('=').skip(1).chain(words));
                }
                "HELP" => extensions.help = true,
                "CHUNKING" => extensions.chunking = true,
                "BINARYMIME" => extensions.binary_mime = true,
                "DSN" => extensions.dsn = true,
                "SMTPUTF8" => extensions.smtp_utf8 = true,
                "ETRN" => extensions.etrn = true,
                "LIMITS" => extensions.limits = Some(Limits::parse(words)),
                "DELIVERBY" => extensions.deliver_by = Some(limit(words.next())),
                "FUTURERELEASE" => extensions.future_release = FutureRelease::parse(words),
                "MT-PRIORITY" => extensions.mt_priority = true,
                "REQUIRETLS" => extensions.require_tls = true,
                _ => {}
            }
        }
        // A binary message can be sent only by BDAT.
        extensions.binary_mime &= extensions.chunking;
        extensions
    }

    fn add_mechanisms<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.auth.get_or_insert_default().extend(names.filter_map(Mechanism::parse));
    }
}

impl Limits {
    /// Parses the limits of a remote host. Unknown and malformed ones are ignored, and so is a
    /// limit of zero. A limit that is given twice has the smaller value.
    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut limits = Self::default();
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let slot = match name.to_ascii_uppercase().as_str() {
                "MAILMAX" => &mut limits.mails,
                "RCPTMAX" => &mut limits.recipients,
                "RCPTDOMAINMAX" => &mut limits.recipient_domains,
                _ => continue,
            };
            let given = value.parse().ok().filter(|limit| *limit > 0);
            *slot = [*slot, given].into_iter().flatten().min();
        }
        limits
    }
}

/// Prints each limit with a blank before it.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = [("MAILMAX", self.mails), ("RCPTMAX", self.recipients), ("RCPTDOMAINMAX", self.recipient_domains)];
        limits.iter().try_for_each(|(name, limit)| limit.map_or(Ok(()), |limit| write!(f, " {name}={limit}")))
    }
}

impl FutureRelease {
    /// Parses the bounds of a remote host; `None` if they are malformed.
    fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let max_interval = words.next()?.parse().ok()?;
        let max_time = words.next()?.parse::<Timestamp>().ok()?.as_second().try_into().ok()?;
        Some(Self { max_interval, max_time })
    }
}

/// Prints the interval and the time, as EHLO has them.
impl fmt::Display for FutureRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.max_time).unwrap_or(i64::MAX);
        let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        write!(f, "{} {time:.0}", self.max_interval)
    }
}

/// Parses the limit of SIZE or DELIVERBY. If there is no number, the result is 0, which means no limit.
fn limit(number: Option<&str>) -> u64 {
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(lines: &[&str]) -> Extensions {
        let greeting = std::iter::once(Cow::from("host Hello"));
        Extensions::parse(&Reply::bare(250, greeting.chain(lines.iter().map(|l| Cow::from((*l).to_owned()))).collect()))
    }

    #[test]
    fn the_lines_of_every_extension_are_parsed_again() {
        let all = Extensions {
            pipelining: true,
            size: Some(1000),
            eight_bit: true,
            enhanced_status: true,
            starttls: true,
            xclient: true,
            auth: Some(vec![Mechanism::ScramSha256, Mechanism::Plain]),
            help: true,
            chunking: true,
            binary_mime: true,
            dsn: true,
            smtp_utf8: true,
            etrn: true,
            limits: Some(Limits { mails: Some(100), recipients: Some(50), recipient_domains: None }),
            deliver_by: Some(60),
            future_release: Some(FutureRelease { max_interval: 86_400, max_time: 1_798_675_200 }),
            mt_priority: true,
            require_tls: true,
        };
        let lines = all.lines();
        let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
        assert_eq!(
            lines,
            [
                "PIPELINING",
                "SIZE 1000",
                "8BITMIME",
                "ENHANCEDSTATUSCODES",
                "STARTTLS",
                "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT",
                "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
                "AUTH SCRAM-SHA-256 PLAIN",
                "CHUNKING",
                "BINARYMIME",
                "DSN",
                "SMTPUTF8",
                "ETRN",
                "LIMITS MAILMAX=100 RCPTMAX=50",
                "DELIVERBY 60",
                "FUTURERELEASE 86400 2026-12-31T00:00:00Z",
                "MT-PRIORITY",
                "REQUIRETLS",
                "HELP",
            ]
        );
        assert_eq!(parsed(&lines), Extensions { xclient: false, ..all.clone() });
        let mut none = all;
        let keywords = lines.iter().filter_map(|line| line.split(' ').next());
        none.withhold(&keywords.collect::<Vec<_>>());
        assert_eq!(none, Extensions::default());
        assert_eq!(Extensions::default().lines(), Vec::<String>::new());
    }

    #[test]
    fn unusual_forms_of_remote_hosts_are_understood() {
        let auth = |names: &[Mechanism]| Extensions { auth: Some(names.to_vec()), ..Extensions::default() };
        let size = |size| Extensions { size: Some(size), ..Extensions::default() };
        for (lines, want) in [
            (&["auth plain LOGIN x-unknown"][..], auth(&[Mechanism::Plain, Mechanism::Login])),
            (&["AUTH=LOGIN PLAIN"], auth(&[Mechanism::Login, Mechanism::Plain])),
            (&["AUTH PLAIN", "AUTH=LOGIN"], auth(&[Mechanism::Plain, Mechanism::Login])),
            (&["AUTH"], auth(&[])),
            (&["SIZE"], size(0)),
            (&["SIZE unlimited"], size(0)),
            (&["Size=35882577"], size(35_882_577)),
            (&["VRFY", "", "X-UNKNOWN 8BITMIME"], Extensions::default()),
            (&["BINARYMIME"], Extensions::default()),
            (&["LIMITS rcptmax=9 RCPTMAX=7 MAILMAX=0 RCPTDOMAINMAX=x FOO=1 MAILMAX"], {
                let limits = Limits { recipients: Some(7), ..Limits::default() };
                Extensions { limits: Some(limits), ..Extensions::default() }
            }),
            (&["DELIVERBY", "FUTURERELEASE 10 soon"], { Extensions { deliver_by: Some(0), ..Extensions::default() } }),
        ] {
            assert_eq!(parsed(lines), want, "{lines:?}");
        }
    }
}
