//! Checks by SPF for a session whether a client may use the domain of a sender (RFC 7208, and RFC
//! 8616 for addresses that are not ASCII).
//!
//! Strangers write the records. So the number of look-ups, the time, the size of macro expansions
//! and the size of all texts in the result are limited. If a look-up fails, the result is
//! `TempError`, and a later check may have another result.
//!
//! - `evaluate`: the records of a domain, evaluated for a client
//! - `macros`: macro strings
//! - `record`: the syntax of a record

mod evaluate;
mod macros;
mod record;

use std::fmt;
use std::net::IpAddr;

use crate::address::parse_domain;
use crate::dns::lookup::Lookup;
use crate::policy::strangers::SpfFound;
use evaluate::{Check, Trouble};
use macros::Values;

pub use record::is_spf;

/// The local part that is used for an address without one (RFC 7208 4.3).
const POSTMASTER: &str = "postmaster";
/// The maximum length of a domain that can be looked up, in octets.
const MAX_DOMAIN: usize = 253;
/// The maximum length of a text in a result, in octets.
const MAX_TEXT: usize = 160;

/// The result of a check (RFC 7208 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpfResult {
    /// There is no SPF record, or no domain to check.
    None,
    /// The record says nothing about the client.
    Neutral,
    /// The client may use the domain.
    Pass,
    /// The client may not use the domain.
    Fail,
    /// The client probably may not use the domain.
    SoftFail,
    /// A look-up has failed. A later check may succeed.
    TempError,
    /// The domain's records have an error, or exceed a limit.
    PermError,
}

/// The kind of name that a check is about (RFC 7208 2.3, 2.4). The client gives both names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The name in HELO or EHLO. It is also checked in place of a null sender.
    Hello,
    /// The domain of the envelope sender.
    MailFrom,
}

/// A check and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The result of the check.
    pub result: SpfResult,
    /// The kind of name that was checked.
    pub identity: Identity,
    /// The domain that was checked, in lower case.
    pub domain: Box<str>,
    /// For `Fail`, the explanation of the domain's owner in printable ASCII, of bounded length;
    /// `None` if there is none.
    pub explanation: Option<Box<str>>,
    /// The mechanism that led to the result, such as `ip4:192.0.2.0/24` or `default`. For `None` or
    /// an error, the reason. The text is printable ASCII of bounded length.
    pub mechanism: Box<str>,
}

impl SpfResult {
    /// Returns the keyword for the result in an Authentication-Results field (RFC 8601 2.7.2).
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl fmt::Display for SpfResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns what the results mean for a decision. The result of HELO comes first, and then that of the
/// sender, unless the reverse-path is null. A fail of the name in HELO or of the sender counts most,
/// then a check that got no answer, then a softfail of the sender.
pub fn found(results: &[Checked]) -> SpfFound {
    let of = |result| results.iter().find(|checked| checked.result == result);
    if let Some(fail) = of(SpfResult::Fail) {
        return SpfFound::Fail(fail.domain.clone(), fail.explanation.clone());
    }
    if let Some(trouble) = of(SpfResult::TempError) {
        return SpfFound::Unknown(trouble.domain.clone());
    }
    if results.is_empty() {
        return SpfFound::Unknown("the sender".into());
    }
    // If there is a sender, a softfail of the name in HELO does not count: many senders do not
    // administer their server, and the SPF record of the server's name often omits the server.
    match results.last() {
        Some(last) if last.result == SpfResult::SoftFail => SpfFound::SoftFail,
        _ => SpfFound::Good,
    }
}

/// Checks the envelope sender, an address without brackets. If the sender is empty, checks
/// `postmaster@HELO` in its place (RFC 7208 2.4). `hello` is the argument of HELO or EHLO. `here`
/// is the name of this host, which explanations may contain.
pub fn check(dns: &dyn Lookup, ip: IpAddr, hello: &str, sender: &str, here: &str) -> Checked {
    if sender.is_empty() {
        return check_hello(dns, ip, hello, here);
    }
    let (local_part, domain) = sender.rsplit_once('@').unwrap_or((sender, ""));
    let local_part = if local_part.is_empty() { POSTMASTER } else { local_part };
    check_as(dns, Identity::MailFrom, ip, hello, (local_part, domain), here)
}

/// Checks the name in HELO or EHLO (RFC 7208 2.3).
pub fn check_hello(dns: &dyn Lookup, ip: IpAddr, hello: &str, here: &str) -> Checked {
    check_as(dns, Identity::Hello, ip, hello, (POSTMASTER, hello), here)
}

fn check_as(
    dns: &dyn Lookup,
    identity: Identity,
    ip: IpAddr,
    hello: &str,
    (local_part, sender_domain): (&str, &str),
    here: &str,
) -> Checked {
    let checked = |result, domain: &str, mechanism: &str| Checked {
        result,
        identity,
        domain: domain.into(),
        explanation: None,
        mechanism: brief(mechanism),
    };
    let Some(domain) = valid_domain(sender_domain) else {
        return checked(SpfResult::None, &brief(sender_domain), "not a domain");
    };
    let (sender_domain, ip, time) = (&*domain, ip.to_canonical(), crate::sys::now());
    let values = Values { local_part, sender_domain, domain: &domain, ip, hello, here, client: "", time };
    let mut check = Check::new(dns, values);
    match check.host(&domain) {
        Err(Trouble::Temporary(why)) => checked(SpfResult::TempError, &domain, &why),
        Err(Trouble::Permanent(why)) => checked(SpfResult::PermError, &domain, &why),
        Ok(found) => {
            let explanation = found.explanation.filter(|_| found.result == SpfResult::Fail);
            let explanation = explanation.and_then(|explanation| check.explain(&explanation)).map(Into::into);
            Checked { explanation, ..checked(found.result, &domain, &found.mechanism) }
        }
    }
}

/// Returns a domain in canonical form. Returns `None` if it has fewer than two labels (RFC 7208
/// 4.3), or is an address.
fn valid_domain(text: &str) -> Option<Box<str>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let domain = parse_domain(text).ok().filter(|domain| domain.len() <= MAX_DOMAIN)?;
    let (_, top) = domain.rsplit_once('.')?;
    (!domain.starts_with('[') && !top.bytes().all(|b| b.is_ascii_digit())).then_some(domain)
}

/// Makes a text fit for logs and fields: printable ASCII, of bounded length.
fn brief(text: &str) -> Box<str> {
    let printable = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
    text.chars().take(MAX_TEXT).map(printable).collect::<String>().into()
}

#[cfg(test)]
mod tests;
