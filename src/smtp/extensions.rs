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
//! 5. `spool/head/mod.rs`: its word in the head of an entry
//!
//! An extension with a new verb touches `smtp/command.rs`, `Session::dispatch` and `reply/help.rs`
//! instead of the last three files.

use std::borrow::Cow;

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
        lines.extend(self.help.then_some("HELP".into()));
        lines
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
                _ => {}
            }
        }
        extensions
    }

    fn add_mechanisms<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.auth.get_or_insert_default().extend(names.filter_map(Mechanism::parse));
    }
}

/// Parses the limit of SIZE. If there is no number, the result is 0, which means no limit.
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
                "HELP",
            ]
        );
        assert_eq!(parsed(&lines), Extensions { xclient: false, ..all });
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
        ] {
            assert_eq!(parsed(lines), want, "{lines:?}");
        }
    }
}
