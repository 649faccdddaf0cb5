//! Reads and writes the fields for the options that a client gave at MAIL and RCPT:
//!
//! | field | option |
//! | --- | --- |
//! | `binary=yes` | BODY=BINARYMIME; `body=` is then `8bit` |
//! | `utf=yes` | SMTPUTF8 |
//! | `utf=addresses` | none: the client did not give SMTPUTF8, but a table has led to an address outside ASCII |
//! | `ret=full`, `ret=hdrs` | RET |
//! | `envid=` | ENVID |
//! | `by=TIME:R`, `by=TIME:N`, with `T` at the end for the flag T | BY; the time is in seconds since 1970 |
//! | `priority=` | MT-PRIORITY |
//! | `release=TIME`, `release=TIME:SECONDS` | HOLDUNTIL, HOLDFOR; the time is in seconds since 1970 |
//! | `tls=required` | REQUIRETLS |
//! | `tls=indifferent` | none: the message has the header field `TLS-Required: No` |
//! | `notify=never`, `notify=success,failure,delay` or some of these | NOTIFY |
//! | `orcpt=` | ORCPT |
//!
//! An option that the client did not give has no field.
//!
//! The value of `head=` is read here, too.

use std::fmt::Write;

use super::HeadError;
use crate::address::Address;
use crate::envelope::{
    Body, ByMode, DeliverBy, MAX_ENVID, MAX_ORCPT, MailOptions, MessageTls, Notify, RcptOptions, Ret,
};
use crate::smtp::xtext;
use crate::spool::content::Measure;
use crate::spool::fields::{MALFORMED, UNKNOWN, read_text, write_text};

/// Appends the fields for the options of MAIL, each after a blank.
pub fn write_mail(head: &mut String, options: &MailOptions) {
    let MailOptions { body, utf8, ret, envid, deliver_by, priority, release, hold_for, tls } = options;
    if *body == Body::Binary {
        head.push_str(" binary=yes");
    }
    if *utf8 {
        head.push_str(" utf=yes");
    }
    head.push_str(match ret {
        None => "",
        Some(Ret::Full) => " ret=full",
        Some(Ret::Headers) => " ret=hdrs",
    });
    if let Some(envid) = envid {
        head.push_str(" envid=");
        write_text(head, envid);
    }
    // Writing to a string cannot fail.
    if let Some(DeliverBy { deadline, mode, trace }) = deliver_by {
        let mode = if *mode == ByMode::Return { "R" } else { "N" };
        let _ = write!(head, " by={deadline}:{mode}{}", if *trace { "T" } else { "" });
    }
    if *priority != 0 {
        let _ = write!(head, " priority={priority}");
    }
    if let Some(release) = release {
        let _ = write!(head, " release={release}");
        let _ = hold_for.map_or(Ok(()), |seconds| write!(head, ":{seconds}"));
    }
    head.push_str(match tls {
        MessageTls::Default => "",
        MessageTls::Required => " tls=required",
        MessageTls::Indifferent => " tls=indifferent",
    });
}

/// Appends the fields for the options of RCPT, each after a blank.
pub fn write_rcpt(head: &mut String, options: &RcptOptions) {
    if let Some(notify) = options.notify {
        head.push_str(" notify=");
        head.push_str(&notify.to_string().to_ascii_lowercase());
    }
    if let Some(orcpt) = &options.orcpt {
        head.push_str(" orcpt=");
        write_text(head, orcpt);
    }
}

/// Reads a field for an option of MAIL. A field that is given twice is malformed.
///
/// # Errors
/// [`UNKNOWN`] for any other field, and [`MALFORMED`].
pub fn read_mail(options: &mut MailOptions, key: &str, word: &str) -> Result<(), HeadError> {
    match (key, word) {
        ("binary", "yes") => options.body = Body::Binary,
        ("utf", "yes") if !options.utf8 => options.utf8 = true,
        ("utf", "addresses") if !options.utf8 => {}
        ("ret", "full") if options.ret.is_none() => options.ret = Some(Ret::Full),
        ("ret", "hdrs") if options.ret.is_none() => options.ret = Some(Ret::Headers),
        ("envid", text) if options.envid.is_none() => options.envid = Some(read_text(text, MAX_ENVID)?),
        ("by", text) if options.deliver_by.is_none() => options.deliver_by = Some(read_by(text).ok_or(MALFORMED)?),
        ("priority", text) if options.priority == 0 => options.priority = read_priority(text).ok_or(MALFORMED)?,
        ("release", text) if options.release.is_none() => {
            let (time, hold_for) = read_release(text).ok_or(MALFORMED)?;
            (options.release, options.hold_for) = (Some(time), hold_for);
        }
        ("tls", "required") if options.tls == MessageTls::Default => options.tls = MessageTls::Required,
        ("tls", "indifferent") if options.tls == MessageTls::Default => options.tls = MessageTls::Indifferent,
        ("binary" | "utf" | "ret" | "envid" | "by" | "priority" | "release" | "tls", _) => return Err(MALFORMED),
        _ => return Err(UNKNOWN),
    }
    Ok(())
}

/// Reads a field for an option of RCPT: `notify` or `orcpt`.
///
/// # Errors
/// [`MALFORMED`].
pub fn read_rcpt(options: &mut RcptOptions, key: &str, word: &str) -> Result<(), HeadError> {
    match key {
        "notify" if options.notify.is_none() => options.notify = Some(Notify::parse(word).ok_or(MALFORMED)?),
        "orcpt" if options.orcpt.is_none() => options.orcpt = Some(read_text(word, MAX_ORCPT)?),
        _ => return Err(MALFORMED),
    }
    Ok(())
}

/// Whether an ORCPT only repeats an address.
pub fn repeats(orcpt: &str, address: &Address) -> bool {
    let text = orcpt.split_once(';').filter(|(kind, _)| kind.eq_ignore_ascii_case("rfc822"));
    let named = text.and_then(|(_, text)| xtext::decode(text.as_bytes()));
    named.is_some_and(|named| named == address.to_string().as_bytes())
}

fn read_by(text: &str) -> Option<DeliverBy> {
    let (deadline, flags) = text.split_once(':')?;
    let (mode, trace) = match flags {
        "R" => (ByMode::Return, false),
        "RT" => (ByMode::Return, true),
        "N" => (ByMode::Notify, false),
        "NT" => (ByMode::Notify, true),
        _ => return None,
    };
    Some(DeliverBy { deadline: deadline.parse().ok()?, mode, trace })
}

fn read_release(text: &str) -> Option<(u64, Option<u32>)> {
    match text.split_once(':') {
        None => Some((text.parse().ok()?, None)),
        Some((time, seconds)) => Some((time.parse().ok()?, Some(seconds.parse().ok()?))),
    }
}

fn read_priority(text: &str) -> Option<i8> {
    text.parse().ok().filter(|priority: &i8| (-9..=9).contains(priority) && *priority != 0)
}

/// Parses the value of the field `head=`, which is the length of the head and, after it, the
/// measure of the content. Returns the measure; `None` if the value ends after the length.
pub(super) fn read_measure(word: &str) -> Result<Option<Measure>, HeadError> {
    let Some((_, measure)) = word.split_once(':') else { return Ok(None) };
    let (size, kind) = measure.split_once(':').ok_or(MALFORMED)?;
    let is_ascii = match kind {
        "7bit" => true,
        "8bit" => false,
        _ => return Err(MALFORMED),
    };
    Ok(Some(Measure { size: size.parse().map_err(|_| MALFORMED)?, is_ascii, has_long_lines: false }))
}
