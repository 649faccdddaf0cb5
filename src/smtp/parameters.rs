//! Parses the parameters of MAIL and RCPT for the server, and prints them for the client.
//!
//! Only the syntax of a parameter is checked. The caller decides whether a message may have the
//! declared size, and which extensions are offered.

use std::fmt;

use jiff::Timestamp;

use super::extensions::{Extensions, FutureRelease};
use super::xtext;
use crate::envelope::{
    Body, ByMode, DeliverBy, MAX_ENVID, MAX_ORCPT, MailOptions, MessageTls, Notify, RcptOptions, Ret,
};

/// The maximum number of characters of an unknown keyword in a reply.
const MAX_KEYWORD: usize = 32;

/// The maximum length of a decimal number in a parameter of RFC 2852 and RFC 4865, in digits.
const MAX_DIGITS: usize = 9;

const TWO_TIMES: &str = "HOLDFOR and HOLDUNTIL exclude each other";
/// RFC 4865 5.2.2.
const HELD_TOO_LONG: &str = "The message would be held beyond its deadline";

/// The parameters of MAIL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// SIZE, in octets on the wire (RFC 1870).
    pub size: Option<u64>,
    /// The options that stay with the message.
    pub options: MailOptions,
}

/// The properties of a message that decide which parameters of MAIL a host gets.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// The options that the client gave.
    pub options: &'a MailOptions,
    /// The size of the content on the wire, in octets.
    pub size: u64,
    /// Whether the content is ASCII.
    pub is_ascii: bool,
}

/// The parameters of RCPT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RcptParameters {
    /// The options that stay with the recipient.
    pub options: RcptOptions,
}

/// Why parameters are rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterError {
    /// A keyword that is not offered, made printable.
    Unknown(String),
    /// A keyword that is given twice, made printable.
    Repeated(String),
    /// The value of this keyword is malformed.
    Malformed(&'static str),
    /// The value of this keyword is well formed, but out of the bounds that are offered.
    OutOfBounds(&'static str),
    /// Two parameters contradict each other, as this sentence says.
    Contradictory(&'static str),
}

use ParameterError::{Malformed, OutOfBounds, Unknown};

impl MailParameters {
    /// Parses keywords with their values; a missing value is empty. Keywords of extensions that are
    /// not in `offered` are unknown. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// The first error, from left to right.
    pub fn parse<'a>(
        parameters: impl Iterator<Item = (&'a str, &'a str)>,
        offered: &Extensions,
        now: u64,
    ) -> Result<Self, ParameterError> {
        let mut parsed = Self::default();
        let options = &mut parsed.options;
        each(parameters, |keyword, value| {
            match keyword {
                "SIZE" => parsed.size = Some(size(value)?),
                "BODY" => options.body = body(value, offered.binary_mime)?,
                // The parameter AUTH is accepted, because some clients send it although AUTH is not
                // offered. Its value gives no rights, and is not used.
                "AUTH" => {}
                "SMTPUTF8" if offered.smtp_utf8 && value.is_empty() => options.utf8 = true,
                "SMTPUTF8" if offered.smtp_utf8 => return Err(Malformed("SMTPUTF8")),
                "REQUIRETLS" if offered.require_tls && value.is_empty() => options.tls = MessageTls::Required,
                "REQUIRETLS" if offered.require_tls => return Err(Malformed("REQUIRETLS")),
                "RET" if offered.dsn => options.ret = Some(ret(value)?),
                "ENVID" if offered.dsn => options.envid = Some(envid(value)?),
                "MT-PRIORITY" if offered.mt_priority => options.priority = priority(value)?,
                _ => match (keyword, offered.deliver_by, offered.future_release) {
                    ("BY", Some(min), _) => options.deliver_by = Some(deliver_by(value, min, now)?),
                    // One of the two excludes the other (RFC 4865 5).
                    ("HOLDFOR" | "HOLDUNTIL", _, Some(_)) if options.release.is_some() => {
                        return Err(ParameterError::Contradictory(TWO_TIMES));
                    }
                    ("HOLDFOR" | "HOLDUNTIL", _, Some(bounds)) => {
                        options.release = Some(release(keyword, value, bounds, now)?);
                        options.hold_for = value.parse().ok().filter(|_| keyword == "HOLDFOR");
                    }
                    _ => return Err(Unknown(printable(keyword))),
                },
            }
            Ok(())
        })?;
        let MailOptions { release, deliver_by, .. } = &parsed.options;
        let is_late = |by: &DeliverBy| release.is_some_and(|release| i128::from(release) > i128::from(by.deadline));
        if deliver_by.as_ref().is_some_and(is_late) {
            return Err(ParameterError::Contradictory(HELD_TOO_LONG));
        }
        Ok(parsed)
    }

    /// The parameters for a host with these extensions. Parameters that the host does not support
    /// are left out. `now` is in seconds since 1970.
    pub fn for_host(extensions: &Extensions, sent: Sent<'_>, now: u64) -> Self {
        let given = sent.options;
        let body = match given.body {
            Body::Binary if extensions.binary_mime => Body::Binary,
            _ if !extensions.eight_bit => Body::SevenBit,
            Body::SevenBit if sent.is_ascii => Body::SevenBit,
            _ => Body::EightBit,
        };
        let options = MailOptions {
            body,
            utf8: given.utf8 && extensions.smtp_utf8,
            ret: given.ret.filter(|_| extensions.dsn),
            envid: given.envid.clone().filter(|_| extensions.dsn),
            deliver_by: given.deliver_by.filter(|_| extensions.deliver_by.is_some()),
            priority: if extensions.mt_priority { given.priority } else { 0 },
            // This host has already held the message.
            release: None,
            hold_for: None,
            // The other values have no parameter.
            tls: if extensions.require_tls { given.tls } else { MessageTls::Default },
        };
        Self { size: extensions.size.map(|_| sent.size), options }.at(now)
    }

    /// Makes the time of BY relative to `now`, because it is relative on the wire.
    fn at(mut self, now: u64) -> Self {
        if let Some(by) = &mut self.options.deliver_by {
            by.deadline -= i64::try_from(now).unwrap_or(i64::MAX);
            // The mode R needs a positive number. The deadline may pass just now, after a check.
            by.deadline = by.deadline.max(if by.mode == ByMode::Return { 1 } else { i64::MIN });
        }
        self
    }
}

impl RcptParameters {
    /// Parses keywords with their values; a missing value is empty. Keywords of extensions that are
    /// not in `offered` are unknown.
    ///
    /// # Errors
    /// The first error, from left to right.
    pub fn parse<'a>(
        parameters: impl Iterator<Item = (&'a str, &'a str)>,
        offered: &Extensions,
    ) -> Result<Self, ParameterError> {
        let mut options = RcptOptions::default();
        each(parameters, |keyword, value| {
            match keyword {
                "NOTIFY" if offered.dsn => {
                    options.notify = Some(Notify::parse(value).ok_or(Malformed("NOTIFY"))?);
                }
                "ORCPT" if offered.dsn => options.orcpt = Some(orcpt(value)?),
                _ => return Err(Unknown(printable(keyword))),
            }
            Ok(())
        })?;
        Ok(Self { options })
    }

    /// The parameters for a host with these extensions. Without SMTPUTF8, ORCPT is in ASCII.
    pub fn for_host(extensions: &Extensions, options: &RcptOptions) -> Self {
        let orcpt = options.orcpt.clone().and_then(|orcpt| xtext::orcpt_for(orcpt, extensions.smtp_utf8));
        let options = RcptOptions { orcpt, ..options.clone() };
        Self { options: if extensions.dsn { options } else { RcptOptions::default() } }
    }
}

/// Prints each parameter with a blank before it. Defaults are left out. The time of BY is printed
/// as it is, so it must be relative to the present (see [`MailParameters::for_host`]).
impl fmt::Display for MailParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MailOptions { body, utf8, ret, envid, deliver_by, priority, tls, .. } = &self.options;
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        f.write_str(match body {
            Body::SevenBit => "",
            Body::EightBit => " BODY=8BITMIME",
            Body::Binary => " BODY=BINARYMIME",
        })?;
        f.write_str(if *utf8 { " SMTPUTF8" } else { "" })?;
        f.write_str(match ret {
            None => "",
            Some(Ret::Full) => " RET=FULL",
            Some(Ret::Headers) => " RET=HDRS",
        })?;
        if let Some(envid) = envid {
            write!(f, " ENVID={envid}")?;
        }
        if let Some(by) = deliver_by {
            let max = 10_i64.pow(MAX_DIGITS as u32) - 1;
            let mode = if by.mode == ByMode::Return { "R" } else { "N" };
            write!(f, " BY={};{mode}{}", by.deadline.clamp(-max, max), if by.trace { "T" } else { "" })?;
        }
        if *priority != 0 {
            write!(f, " MT-PRIORITY={priority}")?;
        }
        f.write_str(if *tls == MessageTls::Required { " REQUIRETLS" } else { "" })
    }
}

/// Prints each parameter with a blank before it.
impl fmt::Display for RcptParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(notify) = self.options.notify {
            write!(f, " NOTIFY={notify}")?;
        }
        self.options.orcpt.as_ref().map_or(Ok(()), |orcpt| write!(f, " ORCPT={orcpt}"))
    }
}

/// Calls `take` for each parameter, with the keyword in upper case, and rejects a repeated keyword.
fn each<'a>(
    parameters: impl Iterator<Item = (&'a str, &'a str)>,
    mut take: impl FnMut(&str, &str) -> Result<(), ParameterError>,
) -> Result<(), ParameterError> {
    let mut seen: Vec<String> = Vec::new();
    for (name, value) in parameters {
        let keyword = name.to_ascii_uppercase();
        if seen.contains(&keyword) {
            return Err(ParameterError::Repeated(printable(name)));
        }
        take(&keyword, value).map_err(|error| match error {
            Unknown(_) => Unknown(printable(name)),
            error => error,
        })?;
        seen.push(keyword);
    }
    Ok(())
}

/// Parses the value of SIZE, a decimal number (RFC 1870 4). A number beyond 64 bits becomes the
/// largest number.
fn size(value: &str) -> Result<u64, ParameterError> {
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| value.parse().unwrap_or(u64::MAX)).ok_or(Malformed("SIZE"))
}

fn body(value: &str, offers_binary: bool) -> Result<Body, ParameterError> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBit),
        "BINARYMIME" if offers_binary => Ok(Body::Binary),
        _ => Err(Malformed("BODY")),
    }
}

fn ret(value: &str) -> Result<Ret, ParameterError> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Ok(Ret::Full),
        "HDRS" => Ok(Ret::Headers),
        _ => Err(Malformed("RET")),
    }
}

fn envid(value: &str) -> Result<Box<str>, ParameterError> {
    if value.len() <= MAX_ENVID && xtext::is_valid(value) { Ok(value.into()) } else { Err(Malformed("ENVID")) }
}

/// Parses the value of ORCPT: the type of an address, a semicolon, and an address. An address of
/// the type `utf-8` is not xtext, but has an encoding of its own (RFC 6533 3).
fn orcpt(value: &str) -> Result<Box<str>, ParameterError> {
    let is_type =
        |kind: &str| !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let is_address = |kind: &str, address: &str| {
        let is_utf8 = kind.eq_ignore_ascii_case("utf-8");
        if is_utf8 { xtext::is_valid_utf8_address(address) } else { xtext::is_valid(address) }
    };
    let is_valid = value.split_once(';').is_some_and(|(kind, address)| is_type(kind) && is_address(kind, address));
    if is_valid && value.len() <= MAX_ORCPT { Ok(value.into()) } else { Err(Malformed("ORCPT")) }
}

/// Parses the value of BY: a number of seconds, a semicolon, and flags (RFC 2852 4). `min` is the
/// smallest number of seconds for the mode R.
fn deliver_by(value: &str, min: u64, now: u64) -> Result<DeliverBy, ParameterError> {
    let (seconds, flags) = value.split_once(';').ok_or(Malformed("BY"))?;
    let digits = seconds.strip_prefix(['-', '+']).unwrap_or(seconds);
    let (mode, trace) = match flags.to_ascii_uppercase().as_str() {
        "R" => (ByMode::Return, false),
        "RT" => (ByMode::Return, true),
        "N" => (ByMode::Notify, false),
        "NT" => (ByMode::Notify, true),
        _ => return Err(Malformed("BY")),
    };
    let seconds: i64 = number(digits).and_then(|_| seconds.parse().ok()).ok_or(Malformed("BY"))?;
    if mode == ByMode::Return && seconds <= 0 {
        return Err(Malformed("BY"));
    }
    if mode == ByMode::Return && seconds.unsigned_abs() < min {
        return Err(OutOfBounds("BY"));
    }
    Ok(DeliverBy { deadline: i64::try_from(now).unwrap_or(i64::MAX).saturating_add(seconds), mode, trace })
}

/// Parses the value of HOLDFOR, a number of seconds, or of HOLDUNTIL, a time (RFC 4865 5). Returns
/// the time in seconds since 1970.
fn release(keyword: &str, value: &str, bounds: FutureRelease, now: u64) -> Result<u64, ParameterError> {
    let (keyword, time) = match keyword {
        "HOLDFOR" => ("HOLDFOR", number(value).filter(|seconds| *seconds > 0).map(|seconds| now + seconds)),
        _ => ("HOLDUNTIL", value.parse::<Timestamp>().ok().and_then(|time| time.as_second().try_into().ok())),
    };
    let time = time.ok_or(Malformed(keyword))?;
    let is_within = time.saturating_sub(now) <= bounds.max_interval && time <= bounds.max_time;
    if is_within { Ok(time) } else { Err(OutOfBounds(keyword)) }
}

fn priority(value: &str) -> Result<i8, ParameterError> {
    let digit = value.strip_prefix('-').unwrap_or(value);
    let is_priority = matches!(digit.as_bytes(), [b'0'..=b'9']);
    value.parse().ok().filter(|_| is_priority).ok_or(Malformed("MT-PRIORITY"))
}

/// Parses a decimal number of at most [`MAX_DIGITS`] digits.
fn number(digits: &str) -> Option<u64> {
    let is_number = (1..=MAX_DIGITS).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// A keyword that is safe to repeat to the client.
fn printable(name: &str) -> String {
    name.chars().take(MAX_KEYWORD).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests;
