//! Writes and reads the trace fields `Received:` (RFC 5321 4.4) and `Delivered-To:`, and writes
//! dates.
//!
//! Only this file knows the form of these fields. The `Received:` field of a message from a local
//! user names the user and the program; [`submitter`] reads the user back, so that the queue can be
//! listed for one user, and [`source`] reads who gave a message to this host. All values come from the caller.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use jiff::Zoned;
use jiff::fmt::rfc2822;

use crate::address::{self, Address};
use crate::message::field::fields;

/// The `Received:` field of a message that has just arrived.
#[derive(Debug)]
pub struct Received<'a> {
    /// The name of this host.
    pub hostname: &'a str,
    /// The queue id of the message.
    pub id: &'a str,
    /// The origin of the message.
    pub origin: Origin<'a>,
    /// Whether the field omits the origin, to protect the privacy of users.
    pub is_hidden: bool,
    /// The recipient for the FOR clause, if it may be shown.
    pub recipient: Option<&'a Address>,
    /// The priority of the message (RFC 6710); 0 is the default, and is not shown.
    pub priority: i8,
    /// The time of arrival, as [`date`] writes it.
    pub date: &'a str,
}

/// The origin of a message.
#[derive(Debug)]
pub enum Origin<'a> {
    /// A client that speaks SMTP.
    Client(Client<'a>),
    /// A process on this host, connected to the control socket.
    LocalUser(&'a LocalUser),
}

/// A client that speaks SMTP.
#[derive(Debug)]
pub struct Client<'a> {
    /// The client's address; `None` for a terminal, a pipe or an unknown client.
    pub address: Option<IpAddr>,
    /// The client's verified name in the DNS, if there is one.
    pub name: Option<&'a str>,
    /// Whether the client runs on this host.
    pub is_local: bool,
    /// The argument of the client's HELO or EHLO.
    pub hello: &'a str,
    /// The original client, according to XFORWARD.
    pub forwarded: Option<Forwarded<'a>>,
    /// The protocol, as an RFC 3848 keyword such as `ESMTPS`.
    pub protocol: &'a str,
    /// The TLS version and the cipher suite; `None` in plaintext.
    pub tls: Option<(&'a str, &'a str)>,
}

/// The original client of a message that a proxy forwards.
#[derive(Debug)]
pub struct Forwarded<'a> {
    /// The address of the client.
    pub address: IpAddr,
    /// The client's name in the DNS, if the proxy gives one.
    pub name: Option<&'a str>,
    /// The argument of the client's HELO or EHLO.
    pub hello: Option<&'a str>,
    /// The protocol that the client spoke with the proxy.
    pub protocol: Option<&'a str>,
}

impl fmt::Display for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hostname, id, date, .. } = self;
        let purpose = self.recipient.map(|address| format!("\n\tfor <{address}>")).unwrap_or_default();
        let priority = if self.priority == 0 { String::new() } else { format!("\n\tpriority {}", self.priority) };
        match &self.origin {
            Origin::LocalUser(user) => {
                let comment = if self.is_hidden { String::new() } else { format!("{FROM_USER}{}", user.comment()) };
                writeln!(f, "Received: by {hostname} (penfold{comment}) id {id}{purpose}{priority};\n\t{date}")
            }
            Origin::Client(client) => {
                // The cipher is written as RFC 8314 4.3 specifies. No standard specifies a clause
                // for the version, so the version stands in a comment, as other servers write it.
                let (version, cipher) = match client.tls {
                    Some((version, cipher)) => (format!(" ({version})"), format!("\n\ttls {cipher}")),
                    None => Default::default(),
                };
                f.write_str("Received: ")?;
                if !self.is_hidden {
                    client.write_origin(f)?;
                }
                let protocol = client.protocol;
                write!(f, "by {hostname} (penfold) with {protocol}{version} id {id}")?;
                writeln!(f, "{purpose}{cipher}{priority};\n\t{date}")
            }
        }
    }
}

impl Client<'_> {
    /// Writes the FROM clause and a line break. The caller omits the whole clause if the origin is
    /// hidden: a placeholder would be taken for the name of a host.
    fn write_origin(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (client, host) = match self.address {
            Some(address) => {
                let host = literal(address);
                (format!("{} {host}", self.name.unwrap_or("unknown")), host)
            }
            None if self.is_local => ("localhost".to_owned(), "localhost".to_owned()),
            None => ("unknown".to_owned(), "unknown".to_owned()),
        };
        // The syntax requires a domain or an address literal. If the argument of HELO is neither,
        // the client's address takes its place.
        let name = if address::parse_domain(self.hello).is_ok() { self.hello } else { &host };
        write!(f, "from {name} ({client})")?;
        if let Some(Forwarded { address, name, hello, protocol }) = &self.forwarded {
            write!(f, "\n\t(forwarded for {} {}", name.unwrap_or("unknown"), literal(*address))?;
            hello.map_or(Ok(()), |hello| write!(f, " as {hello}"))?;
            protocol.map_or(Ok(()), |protocol| write!(f, " with {protocol}"))?;
            f.write_str(")")?;
        }
        f.write_str("\n\t")
    }
}

/// Returns the address as a literal, such as `[IPv6:::1]` (RFC 5321 4.1.3).
fn literal(address: IpAddr) -> String {
    format!("[{}{address}]", if address.is_ipv6() { "IPv6:" } else { "" })
}

/// A local user who submits mail over the control socket.
///
/// The uid comes from the kernel (SO_PEERCRED) and gives the right to submit. The name of the
/// program is the program's own claim: it helps to find a program that sends too much mail, and
/// gives no rights. Neither the login nor the program can break a header or a log line: every
/// character that is not plain is replaced by `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalUser {
    /// The uid of the process.
    pub uid: u32,
    /// The user's login; empty if the uid has none.
    pub login: String,
    /// The name of the program; empty if unknown.
    pub program: String,
}

/// The longest login or program name that is shown, in characters.
const MAX_NAME: usize = 32;
/// The text between `penfold` and [`LocalUser::comment`] in a `Received:` field.
const FROM_USER: &str = ", from ";

impl LocalUser {
    /// A local user. In the names, every character that is not plain is replaced.
    pub fn new(uid: u32, login: &str, program: &str) -> Self {
        Self { uid, login: plain(login), program: plain(program) }
    }

    /// The user in the form for a comment, such as `uid 1000 jon, program git`.
    pub fn comment(&self) -> String {
        let login = if self.login.is_empty() { String::new() } else { format!(" {}", self.login) };
        let program = if self.program.is_empty() { String::new() } else { format!(", program {}", self.program) };
        format!("uid {}{login}{program}", self.uid)
    }
}

/// A name without characters that have a meaning in a comment or in a value of the log.
fn plain(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "+-_./@".contains(c) { c } else { '?' };
    name.chars().take(MAX_NAME).map(keep).collect()
}

/// Returns the uid of the local user who submitted the message with this queue id. The uid is read
/// from the first `Received:` field in `text`, the front of the message. The id shows that this
/// host wrote the field for this message, and not for a message that this one is derived from.
pub fn submitter(text: &[u8], id: &str) -> Option<u32> {
    let field = fields(text).find(|field| field.is("Received"))?.text();
    let (_, comment) = field.strip_prefix("by ")?.split_once(&format!(" (penfold{FROM_USER}uid "))?;
    let (user, rest) = comment.split_once(')')?;
    let is_own = rest.split_ascii_whitespace().nth(1)?.trim_end_matches(';') == id;
    user.split([' ', ',']).next()?.parse().ok().filter(|_| is_own)
}

/// Returns in words who gave the message with this queue id to this host, such as
/// `client.test (unknown [192.0.2.1]) with ESMTPS (TLS1.3)` or `uid 1000 jon, program git`. This is read from the
/// first `Received:` field in `text`, the front of the message; `None` if this host has not written the
/// field for this message, or if the field does not say it.
pub fn source(text: &[u8], id: &str) -> Option<String> {
    let field = fields(text).find(|field| field.is("Received"))?.text().replace('\t', " ");
    let (before, _) = field.split_once(&format!(" id {id}")).filter(|(_, rest)| rest.starts_with([';', ' ']))?;
    let (client, server) = match before.strip_prefix("from ") {
        Some(rest) => rest.split_once(" by ")?,
        None => ("", before.strip_prefix("by ")?),
    };
    let (_, how) = server.split_once(" (penfold")?;
    if let Some((user, _)) = how.strip_prefix(FROM_USER).and_then(|user| user.split_once(')')) {
        return Some(user.to_owned());
    }
    let how = how.split_once(") with ").map(|(_, how)| format!("with {how}")).unwrap_or_default();
    let words: Vec<&str> = [client, &how].into_iter().filter(|part| !part.is_empty()).collect();
    (!words.is_empty()).then(|| words.join(" ").replace("  ", " "))
}

/// Whether a message has come back to the host `hostname` from another host. This is read from the names
/// after `by` in the `Received:` fields in `text`, the front of the message. A content filter on this host
/// is not another host: it uses the same name or `localhost`.
pub fn has_come_back(text: &[u8], hostname: &str) -> bool {
    let host = |field: &str| {
        let mut words = field.split_ascii_whitespace().skip_while(|word| !word.eq_ignore_ascii_case("by")).skip(1);
        words.next().unwrap_or_default().trim_end_matches(';').to_ascii_lowercase()
    };
    let hosts = fields(text).filter(|field| field.is("Received")).map(|field| host(&field.text()));
    let is_own = |host: &String| host.eq_ignore_ascii_case(hostname);
    hosts.filter(|host| host != "localhost").skip_while(is_own).any(|host| is_own(&host))
}

/// The address in a field; `None` if the field is not a `Delivered-To:` field. The address is
/// expected on the first line of the field, where penfold writes it, and may be in the form of
/// [`delivered_to_field`].
pub fn delivered_to(name: &[u8], body: &[u8]) -> Option<Address> {
    let body = std::str::from_utf8(body).ok().filter(|_| name.eq_ignore_ascii_case(b"Delivered-To"))?;
    Address::parse(&unescaped(body.trim())).ok()
}

/// The field that says why a message is in quarantine. It stands in the message itself, so that the
/// filter of a recipient without a Maildir can use it. Bytes that a field cannot have are replaced,
/// and a long reason is cut.
#[must_use]
pub fn quarantine_field(reason: &str) -> String {
    const MAX: usize = 500;
    let plain = reason.chars().take(MAX).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' });
    format!("X-Quarantine: {}\n", plain.collect::<String>().trim())
}

/// The `Delivered-To:` field for an address. The message may go on to a host without SMTPUTF8, so
/// the field is ASCII: each other character becomes `\x{HEX}`, as in RFC 6533 3. Only if the line
/// were longer than a line of mail may be, the address is UTF-8.
pub fn delivered_to_field(address: &Address) -> String {
    const MAX_LINE: usize = 998;
    let address = address.to_string();
    let field = |address: &str| format!("Delivered-To: {address}");
    let escaped = |c: char| if c.is_ascii() { c.to_string() } else { format!("\\x{{{:X}}}", u32::from(c)) };
    let ascii = field(&address.chars().map(escaped).collect::<String>());
    if ascii.len() <= MAX_LINE { ascii + "\n" } else { field(&address) + "\n" }
}

/// Replaces each `\x{HEX}` that stands for a character outside ASCII by that character. In a quoted
/// local part, `\\` is a backslash, and does not begin such a form.
fn unescaped(text: &str) -> Cow<'_, str> {
    let Some((plain, mut rest)) = text.find('\\').map(|at| text.split_at(at)) else { return text.into() };
    let mut out = plain.to_owned();
    while let Some(c) = rest.chars().next() {
        let (taken, after) = match escape(rest) {
            Some((escaped, after)) => (escaped.to_string(), after),
            None => {
                let length = if rest.starts_with("\\\\") { 2 } else { c.len_utf8() };
                let (taken, after) = rest.split_at(length);
                (taken.to_owned(), after)
            }
        };
        out += &taken;
        rest = after;
    }
    out.into()
}

/// Reads a form `\x{HEX}` at the front of a text. Returns the character, and the rest of the text.
fn escape(text: &str) -> Option<(char, &str)> {
    let (digits, rest) = text.strip_prefix("\\x{")?.split_once('}')?;
    let is_hex = digits.len() <= 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let c = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex).and_then(char::from_u32)?;
    Some((c, rest)).filter(|(c, _)| !c.is_ascii())
}

/// A time in the form for header fields (RFC 5322 3.3), in the time zone of `time`.
pub fn date(time: &Zoned) -> String {
    // Every year up to 9999 can be written.
    rfc2822::to_string(time).unwrap_or_else(|_| "Thu, 1 Jan 1970 00:00:00 +0000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sat, 21 Nov 2026 10:00:00 +0000";

    fn received(origin: Origin<'_>, is_hidden: bool, recipient: Option<&Address>) -> String {
        Received { hostname: "mx.test", id: "1K0", origin, is_hidden, recipient, priority: 0, date: DATE }.to_string()
    }

    fn client(address: Option<&str>) -> Client<'static> {
        let address = address.map(|text| text.parse().expect("an address"));
        let (name, hello, protocol) = (None, "client.test", "ESMTP");
        Client { address, name, is_local: false, hello, forwarded: None, protocol, tls: None }
    }

    #[test]
    fn mail_that_has_come_back_names_this_host_again_after_another() {
        for (hosts, is_back) in [
            (&["mx.test"][..], false),
            (&["mx.test", "other.test", "third.test"][..], false),
            (&["mx.test", "localhost", "mx.test", "other.test"][..], false),
            (&["MX.test", "other.test", "mx.test"][..], true),
            (&["mx.test", "localhost", "mx.test", "other.test", "localhost", "mx.test", "third.test"][..], true),
        ] {
            let field = |host: &&str| format!("Received: from x (x [192.0.2.1])\n\tby {host};\n\t{DATE}\n");
            let text =
                hosts.iter().map(field).collect::<String>() + "\nReceived: by other.test\nReceived: by mx.test\n";
            assert_eq!(has_come_back(text.as_bytes(), "mx.test"), is_back, "{text}");
        }
    }

    #[test]
    fn the_field_of_a_client() {
        let jon: Address = "jon@x.test".parse().expect("an address");
        let forwarded = || {
            Some(Forwarded {
                address: "2001:db8::1".parse().expect("an address"),
                name: None,
                hello: Some("h"),
                protocol: Some("SMTP"),
            })
        };
        for (client, is_hidden, recipient, want, who) in [
            (
                client(Some("192.0.2.1")),
                false,
                None,
                "from client.test (unknown [192.0.2.1])\n\tby mx.test (penfold) with ESMTP id 1K0",
                "client.test (unknown [192.0.2.1]) with ESMTP",
            ),
            (
                Client { name: Some("c.test"), hello: "a b", ..client(Some("2001:db8::1")) },
                false,
                Some(&jon),
                "from [IPv6:2001:db8::1] (c.test [IPv6:2001:db8::1])\n\tby mx.test (penfold) with ESMTP id 1K0\n\tfor <jon@x.test>",
                "[IPv6:2001:db8::1] (c.test [IPv6:2001:db8::1]) with ESMTP",
            ),
            (
                Client { is_local: true, hello: "?", ..client(None) },
                false,
                None,
                "from localhost (localhost)\n\tby mx.test (penfold) with ESMTP id 1K0",
                "localhost (localhost) with ESMTP",
            ),
            (
                Client { forwarded: forwarded(), ..client(None) },
                false,
                None,
                "from client.test (unknown)\n\t(forwarded for unknown [IPv6:2001:db8::1] as h with SMTP)\n\tby mx.test (penfold) with ESMTP id 1K0",
                "client.test (unknown) (forwarded for unknown [IPv6:2001:db8::1] as h with SMTP) with ESMTP",
            ),
            (
                Client {
                    protocol: "ESMTPSA",
                    tls: Some(("TLS1.3", "TLS_AES")),
                    forwarded: forwarded(),
                    ..client(None)
                },
                true,
                Some(&jon),
                "by mx.test (penfold) with ESMTPSA (TLS1.3) id 1K0\n\tfor <jon@x.test>\n\ttls TLS_AES",
                "with ESMTPSA (TLS1.3)",
            ),
        ] {
            let field = received(Origin::Client(client), is_hidden, recipient);
            assert_eq!(field, format!("Received: {want};\n\t{DATE}\n"));
            assert_eq!(source(field.as_bytes(), "1K0").as_deref(), Some(who));
            assert_eq!((source(field.as_bytes(), "1K"), source(field.as_bytes(), "1K1")), (None, None));
        }
    }

    #[test]
    fn the_field_of_a_local_user_is_read_back() {
        let jon: Address = "jon@x.test".parse().expect("an address");
        for (login, program, comment) in [
            ("jon", "git", "uid 7 jon, program git"),
            ("", "", "uid 7"),
            ("", "a) b\r\nX: y\"", "uid 7, program a??b??X??y?"),
            ("j\u{fc}rg", "", "uid 7 j?rg"),
            ("jon", &"x".repeat(99), &format!("uid 7 jon, program {}", "x".repeat(32))),
        ] {
            for (recipient, purpose) in [(None, ""), (Some(&jon), "\n\tfor <jon@x.test>")] {
                let user = LocalUser::new(7, login, program);
                let field = received(Origin::LocalUser(&user), false, recipient);
                assert_eq!(
                    field,
                    format!("Received: by mx.test (penfold, from {comment}) id 1K0{purpose};\n\t{DATE}\n")
                );
                let text = format!("{field}Received: by a (penfold, from uid 8) id 1K0;\n\t{DATE}\nSubject: x\n\n");
                assert_eq!(submitter(text.as_bytes(), "1K0"), Some(7));
                assert_eq!(source(text.as_bytes(), "1K0").as_deref(), Some(comment));
                assert_eq!(submitter(format!("Authentication-Results: x\n{text}").as_bytes(), "1K0"), Some(7));
                assert_eq!(
                    submitter(format!("Received: by a (penfold) id 1K1;\n\t{DATE}\n{text}").as_bytes(), "1K0"),
                    None
                );
                assert_eq!(submitter(format!("\n{text}").as_bytes(), "1K0"), None);
                assert_eq!(submitter(text.as_bytes(), "1K1"), None);
                let hidden = received(Origin::LocalUser(&user), true, recipient);
                assert_eq!(hidden, format!("Received: by mx.test (penfold) id 1K0{purpose};\n\t{DATE}\n"));
                assert_eq!(submitter(format!("{hidden}\n").as_bytes(), "1K0"), None);
                assert_eq!(source(hidden.as_bytes(), "1K0"), None);
            }
        }
        let field = received(Origin::Client(client(None)), true, None);
        assert_eq!(submitter(format!("{field}\n").as_bytes(), "1K0"), None);
    }

    #[test]
    fn the_reason_of_a_quarantine_is_one_line() {
        for (reason, field) in [
            ("x.test asks for quarantine (DMARC)", "X-Quarantine: x.test asks for quarantine (DMARC)\n"),
            ("a\r\nBcc: j\u{f6}n\0", "X-Quarantine: a??Bcc: j?n?\n"),
            (" ", "X-Quarantine: \n"),
        ] {
            assert_eq!(quarantine_field(reason), field);
        }
        assert!(quarantine_field(&"\u{20ac}".repeat(5000)).len() < 600);
    }

    #[test]
    fn a_delivered_to_field_is_read_back() {
        for address in ["jon@x.test", "\"a b\"@x.test"] {
            let address: Address = address.parse().expect(address);
            let text = delivered_to_field(&address);
            let found: Vec<_> =
                fields(text.as_bytes()).filter_map(|field| delivered_to(field.name, field.body)).collect();
            assert_eq!(found, [address]);
        }
        for (address, written) in [
            ("j\u{f6}n+\u{1f600}=@b\u{fc}cher.test", "j\\x{F6}n+\\x{1F600}=@xn--bcher-kva.test"),
            ("\"a \u{f6}\\\\\"@x.test", "\"a \\x{F6}\\\\\"@x.test"),
            ("\"\\\\x{F6}\"@x.test", "\"\\\\x{F6}\"@x.test"),
        ] {
            let address: Address = address.parse().expect(address);
            assert_eq!(delivered_to_field(&address), format!("Delivered-To: {written}\n"));
            assert_eq!(delivered_to(b"Delivered-To", format!(" {written}\n").as_bytes()), Some(address));
        }
        let raw: Address = "\u{f6}@x.test".parse().expect("an address");
        assert_eq!(delivered_to(b"Delivered-To", " \u{f6}@x.test\n".as_bytes()), Some(raw));
        for malformed in
            ["\\x{41}@x.test", "\\x{D800}@x.test", "\\x{+F6}@x.test", "\\x{F6@x.test", "\\x{0000F6}a@x.test\\"]
        {
            assert_eq!(delivered_to(b"Delivered-To", malformed.as_bytes()), None, "{malformed}");
        }
        let long = Address::new(&"\u{7ff}".repeat(150), "x.test").expect("an address");
        let field = delivered_to_field(&long);
        assert!(field.len() <= 999 && !field.is_ascii(), "{field}");
        assert_eq!(delivered_to(b"X-Delivered-To", b" jon@x.test\n"), None);
        assert_eq!(delivered_to(b"Delivered-To", b" a b@x.test\n"), None);
    }

    #[test]
    fn dates_have_four_digits_of_a_year_and_the_zone() {
        let time = jiff::Timestamp::from_second(1_795_255_200).expect("a time");
        assert_eq!(date(&time.to_zoned(jiff::tz::TimeZone::UTC)), "Sat, 21 Nov 2026 10:00:00 +0000");
    }
}
