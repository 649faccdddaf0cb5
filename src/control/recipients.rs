//! Lists what next hosts have said about recipients, and has it forgotten.

use std::io::{self, Write};

use crate::address::{Address, parse_domain};
use crate::callout::{Callouts, Told, word};
use crate::json::{Format, Object};
use crate::log;
use crate::policy::rcpt::NextHost;
use crate::sys;

/// Writes what is remembered, sorted: a line for each answer, or an object with JSON. `wanted` is an
/// address, or `@domain` for all addresses of a domain; `None` lists everything.
///
/// # Errors
/// The errors of `out`.
pub fn list(callouts: &Callouts, wanted: Option<&str>, format: Format, out: &mut dyn Write) -> io::Result<()> {
    let wanted = wanted.map(name);
    let mut rows = callouts.told(wanted.as_deref());
    rows.sort_by_cached_key(|row| (row.name.rsplit('@').next().map(str::to_owned), row.name.clone()));
    rows.iter().try_for_each(|row| match format {
        Format::Text => writeln!(out, "{}", text(row)),
        Format::Json => writeln!(out, "{}", json(row)),
    })
}

/// Forgets what is remembered about an address, or about all addresses of a domain. Returns the number
/// of answers.
pub fn forget(callouts: &Callouts, wanted: &str) -> usize {
    callouts.forget(&name(wanted))
}

/// The name under which an address or a domain is remembered.
fn name(text: &str) -> String {
    match text.strip_prefix('@') {
        Some(domain) => parse_domain(domain).map_or_else(|_| text.to_owned(), |name| format!("@{name}")),
        None => Address::parse(text).map_or_else(|_| text.to_owned(), |address| address.to_string()),
    }
}

fn text(row: &Told) -> String {
    let ago = log::span(sys::now().saturating_sub(row.time));
    let what = match row.answer {
        NextHost::Accepted if row.is_domain() => "every recipient is accepted".to_owned(),
        _ if row.is_domain() => "unknown recipients are refused".to_owned(),
        NextHost::Refused(status) => format!("refused with {status}"),
        NextHost::NoAnswer => "no clear answer".to_owned(),
        answer => word(answer).to_owned(),
    };
    format!("{}: {what} by {}, {ago} ago", row.name, row.destination)
}

fn json(row: &Told) -> String {
    let mut object = Object::new();
    object.text(if row.is_domain() { "domain" } else { "recipient" }, row.name.trim_start_matches('@'));
    object
        .text("answer", word(row.answer))
        .text("destination", &row.destination)
        .text("time", &log::timestamp(row.time));
    object.to_string()
}
