//! Reads the routes table, which says how domains that are not local are reached, and which
//! addresses go elsewhere.
//!
//! A line is a key and its target:
//!
//! ```text
//! jon@example.org mail.example.net               one address, in any domain, local ones included
//! example.org   mail.example.net:2525            a host; port 25 if none is given
//! two.example   a.example.net, b.example.net     hosts, the next one if one does not take the mail
//! .example.org  mx:example.net                   the exchangers of another domain; mx:domain:port
//! bank.example  smtps://mail.bank.example        TLS from the first octet
//! shop.example  smtp+starttls://mx.shop.example  TLS by STARTTLS
//! lists.example lmtp:/run/lists/lmtp             a mail store; lmtp://host:port
//! dead.example  error:5.1.2 closed               refused; with a status of class 4 the mail waits
//! junk.example  discard:                         accepted, and removed without a report
//! slow.example  hold: they move house            held until an administrator releases the mail
//! *             mx::2525                         the domain's own mail exchangers, at another port
//! ```
//!
//! A line with the address takes precedence over a line with the exact domain, that one over a line
//! with the longest `.domain` that contains it, and all of them over `*`. Any other text is an error
//! with line and column.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use crate::address::{Address, fold, parse_domain};
use crate::config::table::{Line, lines};
use crate::config::{ConfigError, HostPort, Store};
use crate::destination::SMTP_PORT;
use crate::reply::Status;

/// The lines of a routes table.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Targets by key in lower case: `local@domain`, `domain`, `.domain` or `*`.
    rows: HashMap<Box<str>, Row>,
    /// Whether a key is an address.
    has_addresses: bool,
    /// Whether a target is `hold:`.
    holds_mail: bool,
    /// The target of all domains if the file cannot be read; otherwise `None`.
    unreadable: Option<RouteTarget>,
}

#[derive(Debug)]
struct Row {
    line: usize,
    target: RouteTarget,
}

/// The target of a domain: where its mail goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RouteTarget {
    /// Hosts, which get all mail for the domain or the address, the preferred one first.
    Hosts(Vec<HostPort>),
    /// A mail store, which gets all mail for the domain by LMTP.
    Store(Store),
    /// The mail exchangers of a domain; `None` stands for the recipient's own domain.
    Mx { domain: Option<Box<str>>, port: u16 },
    /// No host: mail is rejected (status class 5) or deferred (class 4), with this text.
    Error(Status, Box<str>),
    /// No host: mail is accepted and removed.
    Discard,
    /// No host: mail is held. The text may be empty.
    Hold(Box<str>),
}

impl RouteTarget {
    /// The hosts, if the target is hosts.
    pub(super) fn hosts(&self) -> &[HostPort] {
        match self {
            Self::Hosts(hosts) => hosts,
            _ => &[],
        }
    }
}

/// What the table is asked about: a recipient.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The local part in lower case.
    pub name: &'a str,
    /// The domain in lower case.
    pub domain: &'a str,
    /// Whether the domain is local. Only lines with an address apply to it.
    pub is_local: bool,
    /// Whether lines with `hold:` do not apply, because an administrator has released the message.
    pub is_released: bool,
}

/// The line that applies to a recipient.
#[derive(Debug, Clone, Copy)]
pub(super) struct FoundRoute<'a> {
    /// The number of the line; 0 if the file cannot be read.
    pub line: usize,
    /// The target on the line.
    pub target: &'a RouteTarget,
}

impl Routes {
    /// Reads the text of a routes table as far as possible, and returns all errors in the order of
    /// the file. Mail for the domain on an erroneous line waits.
    pub(super) fn read(file: &Path, text: &str, is_local: impl Fn(&str) -> bool) -> (Self, Vec<ConfigError>) {
        let (mut routes, mut errors) = (Self::default(), Vec::new());
        for line in lines(text) {
            let (key, target) =
                line.text.split_once([' ', '\t']).unwrap_or_else(|| line.text.split_at(line.text.len()));
            if let Err((part, what)) = routes.add(line, key, target.trim_start()) {
                let error = line.error(file, part, what);
                routes.defer(line, key, &error);
                errors.push(error);
            }
            if parse_domain(key).is_ok_and(|domain| is_local(&domain)) {
                ::log::warn!("{}", line.error(file, key, "this has no effect: the domain is local"));
            }
        }
        (routes, errors)
    }

    /// Returns the table for a file that cannot be read. All mail for other hosts waits, and so does
    /// mail for local addresses that are not known here: see [`Self::why_unreadable`].
    pub(super) fn unreadable(why: &ConfigError) -> Self {
        Self { unreadable: Some(waiting(why)), ..Self::default() }
    }

    /// Returns the line that applies to a recipient; `None` if no line applies. If the file cannot be
    /// read, mail for all domains that are not local waits.
    pub(super) fn find(&self, asked: Asked<'_>) -> Option<FoundRoute<'_>> {
        if let Some(target) = self.unreadable.as_ref().filter(|_| !asked.is_local) {
            return Some(FoundRoute { line: 0, target });
        }
        self.row(asked).map(|row| FoundRoute { line: row.line, target: &row.target })
    }

    /// Why the file cannot be read; `None` if it could be read. A local address that is not known here
    /// may then have a line.
    pub(super) fn why_unreadable(&self) -> Option<&str> {
        match &self.unreadable {
            Some(RouteTarget::Error(_, why)) => Some(why),
            _ => None,
        }
    }

    /// Whether the table says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.unreadable.is_none()
    }

    /// Whether a target is `hold:`.
    pub(super) fn holds_mail(&self) -> bool {
        self.holds_mail
    }

    fn row(&self, Asked { name, domain, is_local, is_released }: Asked<'_>) -> Option<&Row> {
        let applies = |row: &&Row| !(is_released && matches!(row.target, RouteTarget::Hold(_)));
        let get = |key: &str| self.rows.get(key).filter(applies);
        if self.has_addresses {
            let row = get(&format!("{name}@{domain}"));
            if row.is_some() {
                return row;
            }
        }
        if is_local {
            return None;
        }
        // An address literal contains dots, but is in no domain.
        let dots = if domain.starts_with('[') { "" } else { domain };
        let above = dots.match_indices('.').map(|(at, _)| &domain[at..]);
        [domain].into_iter().chain(above).chain(["*"]).find_map(get)
    }

    /// Returns the hosts that are targets in the table.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &HostPort> {
        self.rows.values().flat_map(|row| row.target.hosts())
    }

    /// Defers mail for the domain on an erroneous line, unless an earlier line has a target for
    /// that domain.
    fn defer(&mut self, line: Line<'_>, key: &str, error: &ConfigError) {
        if let Ok(name) = read_key(key) {
            self.has_addresses |= name.contains('@');
            self.rows.entry(name).or_insert_with(|| Row { line: line.number, target: waiting(error) });
        }
    }

    fn add<'a>(&mut self, line: Line<'a>, key: &'a str, target: &'a str) -> Result<(), (&'a str, String)> {
        let name = read_key(key).map_err(|what| (key, what))?;
        let target = read_target(target)?;
        self.has_addresses |= name.contains('@');
        self.holds_mail |= matches!(target, RouteTarget::Hold(_));
        match self.rows.entry(name) {
            Entry::Occupied(first) => Err((key, format!("{key} is already on line {}", first.get().line))),
            Entry::Vacant(slot) => {
                slot.insert(Row { line: line.number, target });
                Ok(())
            }
        }
    }
}

/// Returns a target that defers mail because of this error.
pub(super) fn waiting(error: &ConfigError) -> RouteTarget {
    RouteTarget::Error(Status(4, 3, 5), error.to_string().into())
}

fn read_key(text: &str) -> Result<Box<str>, String> {
    if text == "*" {
        return Ok(text.into());
    }
    if text.contains('@') {
        let address = Address::parse(text).map_err(|why| format!("expected an address: {why}"))?;
        return match address.domain() {
            "" => Err("expected an address with a domain".to_owned()),
            domain => Ok(format!("{}@{domain}", fold(address.local())).into()),
        };
    }
    let (dot, domain) = text.strip_prefix('.').map_or(("", text), |domain| (".", domain));
    let domain = parse_domain(domain).map_err(|_| "expected an address, a domain, .domain or *")?;
    Ok(format!("{dot}{domain}").into())
}

/// The maximum number of hosts in one line.
const MAX_HOSTS: usize = 10;

const EXPECTED: &str = "expected host:port, [address]:port, smtps://host, smtp+starttls://host, lmtp:/path, \
                        lmtp://host:port, mx:domain, error:status text, discard: or hold: text";

/// Reads a target. The error is the wrong part of the text, and what is wrong with it.
fn read_target(text: &str) -> Result<RouteTarget, (&str, String)> {
    let whole = |what: String| (text, what);
    if let Some(error) = text.strip_prefix("error:") {
        return read_error(error).map_err(whole);
    }
    if let Some(reason) = text.strip_prefix("hold:") {
        return read_reason(reason).map(RouteTarget::Hold).map_err(whole);
    }
    let text = without_comment(text);
    if text.contains(',') {
        return read_hosts(text).map(RouteTarget::Hosts);
    }
    let wrong = |what: String| (text, what);
    if text.contains([' ', '\t']) {
        return Err(wrong(EXPECTED.to_owned()));
    }
    if text == "discard:" {
        return Ok(RouteTarget::Discard);
    }
    if let Some(store) = Store::parse(text) {
        return store.map(RouteTarget::Store).map_err(wrong);
    }
    match text.strip_prefix("mx:") {
        Some(exchanger) => read_exchanger(exchanger).map_err(wrong),
        None => HostPort::parse_url(text)
            .map(|host| RouteTarget::Hosts(vec![host]))
            .ok_or_else(|| wrong(EXPECTED.to_owned())),
    }
}

/// The text without a comment at its end: `#` after white space.
pub(super) fn without_comment(text: &str) -> &str {
    let comment = text.match_indices('#').find(|(at, _)| text[..*at].ends_with([' ', '\t']));
    comment.map_or(text, |(at, _)| text[..at].trim_end())
}

/// Reads hosts separated by commas. The error is the wrong part of the text, and what is wrong with
/// it.
pub(super) fn read_hosts(text: &str) -> Result<Vec<HostPort>, (&str, String)> {
    let mut hosts = Vec::new();
    for part in text.split(',').map(str::trim) {
        let part = if part.is_empty() { text } else { part };
        let host = HostPort::parse_url(part).ok_or_else(|| {
            let what = "expected a host, as in smtps://host, smtp+starttls://host:port, host:port or [address]:port";
            (part, what.to_owned())
        })?;
        if hosts.contains(&host) {
            return Err((part, "this host is in the line already".to_owned()));
        }
        hosts.push(host);
    }
    if hosts.len() > MAX_HOSTS { Err((text, format!("expected at most {MAX_HOSTS} hosts"))) } else { Ok(hosts) }
}

/// Reads the reason that follows `hold:`, which listings and the log show.
fn read_reason(text: &str) -> Result<Box<str>, String> {
    let text = text.trim();
    if text.contains(char::is_control) {
        return Err("expected hold: and a text without control characters".to_owned());
    }
    Ok(text.into())
}

fn read_exchanger(text: &str) -> Result<RouteTarget, String> {
    let (domain, port) = text.split_once(':').map_or((text, Ok(SMTP_PORT)), |(domain, port)| (domain, read_port(port)));
    let domain = match domain {
        "" => None,
        // An address literal has no mail exchangers.
        _ if domain.starts_with('[') => return Err("expected a domain, not an address, after mx:".to_owned()),
        _ => Some(parse_domain(domain).map_err(|_| "expected mx:domain or mx:domain:port")?),
    };
    Ok(RouteTarget::Mx { domain, port: port? })
}

/// Reads the target that follows `error:`. It consists of a status and a text that can be sent to
/// clients.
fn read_error(text: &str) -> Result<RouteTarget, String> {
    match Status::read(text.trim_start()) {
        Some((status @ Status(4 | 5, ..), "")) => Ok(RouteTarget::Error(status, "no mail goes to this domain".into())),
        Some((status @ Status(4 | 5, ..), why)) if why.bytes().all(|b| (b' '..=b'~').contains(&b)) => {
            Ok(RouteTarget::Error(status, why.trim().into()))
        }
        _ => Err("expected error:5.1.2 or error:4.2.1 and a text in ASCII".to_owned()),
    }
}

fn read_port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port > 0 && text.bytes().all(|b| b.is_ascii_digit()));
    port.ok_or_else(|| "expected a port from 1 to 65535".to_owned())
}
