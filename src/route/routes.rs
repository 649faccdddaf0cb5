//! Reads the routes table, which says how domains that are not local are reached.
//!
//! A line is a domain and its target:
//!
//! ```text
//! example.org   mail.example.net:2525            a host; port 25 if none is given
//! .example.org  mx:example.net                   the exchangers of another domain; mx:domain:port
//! bank.example  smtps://mail.bank.example        TLS from the first octet
//! shop.example  smtp+starttls://mx.shop.example  TLS by STARTTLS
//! lists.example lmtp:/run/lists/lmtp             a mail store; lmtp://host:port
//! dead.example  error:5.1.2 closed               refused; with a status of class 4 the mail waits
//! *             mx::2525                         the domain's own mail exchangers, at another port
//! ```
//!
//! A line with the exact domain takes precedence over a line with the longest `.domain` that
//! contains it, and both over `*`. Any other text is an error with line and column.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use crate::address::parse_domain;
use crate::config::table::{Line, lines};
use crate::config::{ConfigError, HostPort, Store};
use crate::destination::SMTP_PORT;
use crate::reply::Status;

/// The lines of a routes table.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Targets by key in lower case: `domain`, `.domain` or `*`.
    rows: HashMap<Box<str>, Row>,
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
    /// A host, which gets all mail for the domain.
    Host(HostPort),
    /// A mail store, which gets all mail for the domain by LMTP.
    Store(Store),
    /// The mail exchangers of a domain; `None` stands for the recipient's own domain.
    Mx { domain: Option<Box<str>>, port: u16 },
    /// No host: mail is rejected (status class 5) or deferred (class 4), with this text.
    Error(Status, Box<str>),
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

    /// Returns the table for a file that cannot be read. All mail for other hosts waits.
    pub(super) fn unreadable(why: &ConfigError) -> Self {
        Self { unreadable: Some(waiting(why)), ..Self::default() }
    }

    /// Returns the target of a domain in lower case; `None` if no line applies to the domain.
    pub(super) fn find(&self, domain: &str) -> Option<&RouteTarget> {
        if self.unreadable.is_some() {
            return self.unreadable.as_ref();
        }
        self.row(domain).map(|row| &row.target)
    }

    /// Returns the number of the line that applies to a domain in lower case; 0 if the file cannot be read, and
    /// `None` if no line applies.
    pub(super) fn line(&self, domain: &str) -> Option<usize> {
        if self.unreadable.is_some() { Some(0) } else { self.row(domain).map(|row| row.line) }
    }

    fn row(&self, domain: &str) -> Option<&Row> {
        // An address literal contains dots, but is in no domain.
        let dots = if domain.starts_with('[') { "" } else { domain };
        let above = dots.match_indices('.').map(|(at, _)| &domain[at..]);
        let mut keys = [domain].into_iter().chain(above).chain(["*"]);
        keys.find_map(|key| self.rows.get(key))
    }

    /// Returns the hosts that are targets in the table.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &HostPort> {
        self.rows.values().filter_map(|row| match &row.target {
            RouteTarget::Host(host) => Some(host),
            _ => None,
        })
    }

    /// Defers mail for the domain on an erroneous line, unless an earlier line has a target for
    /// that domain.
    fn defer(&mut self, line: Line<'_>, key: &str, error: &ConfigError) {
        if let Ok(name) = read_key(key) {
            self.rows.entry(name).or_insert_with(|| Row { line: line.number, target: waiting(error) });
        }
    }

    fn add<'a>(&mut self, line: Line<'a>, key: &'a str, target: &'a str) -> Result<(), (&'a str, String)> {
        let name = read_key(key).map_err(|what| (key, what))?;
        let target = read_target(target).map_err(|what| (target, what))?;
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
fn waiting(error: &ConfigError) -> RouteTarget {
    RouteTarget::Error(Status(4, 3, 5), error.to_string().into())
}

fn read_key(text: &str) -> Result<Box<str>, String> {
    if text == "*" {
        return Ok(text.into());
    }
    let (dot, domain) = text.strip_prefix('.').map_or(("", text), |domain| (".", domain));
    let domain = parse_domain(domain).map_err(|_| "expected a domain, .domain or *")?;
    Ok(format!("{dot}{domain}").into())
}

const EXPECTED: &str = "expected host:port, [address]:port, smtps://host, smtp+starttls://host, lmtp:/path, \
                        lmtp://host:port, mx:domain or error:status text";

fn read_target(text: &str) -> Result<RouteTarget, String> {
    if let Some(error) = text.strip_prefix("error:") {
        return read_error(error);
    }
    let (target, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    if !rest.is_empty() && !rest.trim_start().starts_with('#') {
        return Err(EXPECTED.to_owned());
    }
    if let Some(store) = Store::parse(target) {
        return store.map(RouteTarget::Store);
    }
    match target.strip_prefix("mx:") {
        Some(exchanger) => read_exchanger(exchanger),
        None => HostPort::parse_url(target).map(RouteTarget::Host).ok_or_else(|| EXPECTED.to_owned()),
    }
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
