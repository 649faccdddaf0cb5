//! Reads and writes the head at the front of an entry's file. There are two kinds: the queued head
//! and the direct head.
//!
//! A queued head consists of lines whose lengths are multiples of 64, followed by an empty line:
//!
//! ```text
//! penfold/1 head=0000000193:000000000829:7bit body=8bit origin=client from=<a@x.org>
//! T 0000000000 0000000000 0000000000000000 0000000000000000 to=<b@y.org>
//! T 0000000000 0000000000 0000000000000000 0000000000000000 to=<c@z.org> orig=<list@x.org>
//! ```
//!
//! The first line describes the message. Its first field is `head=`, which has three values: the
//! offset of the content, the content's size on the wire, and whether the content is 7-bit. Earlier
//! versions ignore the last two values. The other fields are in any order. A forwarded message has
//! a field `past=` for each list or `.forward` file that led to it. The field `own=yes` marks a
//! message that a user of this host has sent with a sender address that is not local. The field
//! `dmarc=yes` marks a DMARC report to a domain elsewhere. The fields of a message in quarantine, or
//! of one that a route holds, are `reason=`, which says why the message was held, and `folder=`, the
//! folder of the recipients' Maildirs that the message goes into. The options that the client gave at
//! MAIL are further fields: `binary=yes` (the body is binary), `utf=` (addresses or the header may be UTF-8), `ret=`,
//! `envid=`, `by=`, `priority=`, `release=`, and `tls=` (see the module `options`). The field
//! `lines=long` says that a line of the content is too long for SMTP.
//!
//! The line of a recipient begins with a record of 58 bytes: the state, the times of the last
//! attempt and of the last warning, and two numbers that belong to the state. The record is
//! overwritten in place, and lies within one sector, so that a power cut leaves the old record or
//! the new one.
//!
//! The fields of the recipient follow. `to=` is the final address, and `orig=` is the address that
//! the client gave. `do=direct`, `do=expand`, `do=nothing`, `run=` or `file=` is the action, if it is not
//! ordinary delivery to the address. `as=` is the user with whose rights the action is performed.
//! `may=` is the maximum number of further recipients that may be derived from this recipient.
//! `notify=` and `orcpt=` are the options that the client gave at RCPT. Only penfold writes heads,
//! and no address can look like one of these fields.
//!
//! Later versions may add fields. A version that does not know a field cannot
//! obey it, and leaves the entry alone. An unknown state, or an unknown value of a known field,
//! counts as damage, because a later version that needs such a value also adds a field.
//!
//! A direct head consists of two lines, `Return-Path:` and `Delivered-To:`, and the whole file is
//! the message for the mailbox.
//!
//! - `options`: the fields for the options of MAIL and RCPT
//! - `record`: the part of a recipient's line that changes
//! - `rewrite`: a head with other recipients

use std::fmt::Write;

use super::content::Measure;
use super::derivation::{self, Derivation, MAX_STEP, Step};
use super::fields::{self, ActionFields, MALFORMED, UNKNOWN, Value, read_fields};
use crate::address::{self, Address};
use crate::envelope::{
    Body, Envelope, Folder, MAX_ACTION, MAX_ENVID, MAX_FOLDER, MAX_ORCPT, MailOptions, Origin, RcptOptions, Recipient,
};
use crate::smtp::MAX_FINAL_RECIPIENTS;

/// The length of each line of a queued head is a multiple of this number of bytes.
const ALIGN: usize = 64;
const _: () = assert!(RECORD <= ALIGN && 512 % ALIGN == 0);
/// The maximum length of a queued head, in bytes.
pub const MAX_HEAD: u64 = 128 << 20;
/// The maximum length of the written form of an address, in bytes: each byte may need a backslash,
/// and quotes and angle brackets may be added.
const MAX_WRITTEN: usize = 2 * address::MAX_ADDRESS + 4;
/// The maximum length of a direct head, in bytes.
const MAX_DIRECT: usize = DIRECT_FIRST.len() + DIRECT_SECOND.len() + 2 * MAX_WRITTEN + 2;
/// The maximum length of a recipient's line without an action, in bytes.
const MAX_PLAIN: usize = RECORD + 2 * (MAX_WRITTEN + 8) + " may=4294967295".len() + MAX_OPTIONS + ALIGN;
/// The maximum length of a recipient's options, in bytes: each byte may be written as `%XX`.
const MAX_OPTIONS: usize = " notify=success,failure,delay orcpt=".len() + 3 * MAX_ORCPT;
/// The maximum length of the first line, in bytes: there is space for ten `past=` fields of maximum
/// length.
pub const MAX_FIRST: u64 = 64 << 10;
const _: () = assert!((MAX_FINAL_RECIPIENTS + 2) * MAX_PLAIN + MAX_FIRST as usize <= MAX_HEAD as usize);
const _: () =
    assert!(10 * 3 * MAX_STEP + 3 * (MAX_REASON + MAX_FOLDER + MAX_ENVID) + MAX_WRITTEN + 200 < MAX_FIRST as usize);
/// The maximum length of the reason for which an entry is held, in bytes. A longer reason is cut.
pub const MAX_REASON: usize = 500;
/// The maximum length of a recipient's line, in bytes: each byte of a command or file name, and of
/// the user's name, may be written as `%XX`.
pub const MAX_LINE: usize = MAX_PLAIN + 3 * 2 * MAX_ACTION + ALIGN;

const MAGIC: &[u8] = b"penfold/1 ";
const ANY_VERSION: &[u8] = b"penfold/";
const OTHER_VERSION: HeadError = Later("it belongs to another version of the spool");
const NO_HEAD: HeadError = Corrupt("it does not begin with a head");
const DIRECT_FIRST: &[u8] = b"Return-Path: ";
const DIRECT_SECOND: &[u8] = b"Delivered-To: ";

/// Why a head cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadError {
    /// No version of penfold has written the head.
    Corrupt(&'static str),
    /// A later version of penfold has written the head: the number after `penfold/` is not 1, or a
    /// field has an unknown key.
    Later(&'static str),
}

use HeadError::{Corrupt, Later};

mod options;
mod record;
pub mod rewrite;

pub use record::{DeliveryState, RECORD, ReportedEvent, State, Success};

/// A recipient in an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientEntry {
    /// The recipient's number, counted from 0.
    pub number: usize,
    /// The offset of the recipient's record in the file, in bytes; 0 in a direct entry, which has
    /// no records.
    pub offset: u64,
    /// The recipient's address and action.
    pub recipient: Recipient,
    /// The recipient's record.
    pub record: DeliveryState,
    /// The maximum number of further recipients that may be derived from this recipient.
    pub share: u32,
}

/// A reference to a recipient of an entry, by number and by the offset of the recipient's line. The
/// offset is 0 if it is unknown, for example because a direct entry may have become a queued one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecipientRef {
    /// The recipient's number.
    pub number: u32,
    /// The offset of the recipient's record in the file, in bytes; 0 if it is unknown.
    pub offset: u32,
}

impl RecipientEntry {
    /// The reference to this recipient.
    pub fn reference(&self) -> RecipientRef {
        // Both numbers fit into 32 bits: a head is shorter than 4 GiB, and has fewer recipients
        // than bytes.
        let shortened = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        RecipientRef { number: shortened(self.number as u64), offset: shortened(self.offset) }
    }
}

/// A head that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Whether the head is direct.
    pub direct: bool,
    /// The reverse-path; `None` is the null path.
    pub sender: Option<Address>,
    /// The options given at MAIL.
    pub options: MailOptions,
    /// The source of the message, which decides where a report of its failure is sent.
    pub origin: Origin,
    /// The lists and `.forward` files that led from the received message to this entry, in order
    /// (`past=`).
    pub steps: Vec<Step>,
    /// Why the message was held when it was received (`reason=`); `None` if it was not held.
    pub reason: Option<Box<str>>,
    /// The folder of the recipients' Maildirs that the message goes into (`folder=`).
    pub folder: Option<Folder>,
    /// The recipients that were read, in order of their numbers.
    pub recipients: Vec<RecipientEntry>,
    /// The offset of the content: after a queued head, or after the two lines of a direct one.
    pub content: u64,
    /// The measure of the content, if the head has it.
    pub measure: Option<Measure>,
}

/// Whether a direct head can express everything about an envelope: it has one recipient, and neither
/// a source nor options that the server must know later. Of the options, only whether the content
/// may be 8-bit text does not matter, because a direct head always means that. An ORCPT that repeats
/// the recipient's address does not matter either, because a report without ORCPT says the same.
pub fn can_be_direct(envelope: &Envelope) -> bool {
    let [only] = envelope.recipients.as_slice() else { return false };
    let body = envelope.options.body;
    let orcpt = only.options.orcpt.as_deref().filter(|orcpt| !options::repeats(orcpt, &only.address));
    only.options.notify.is_none()
        && orcpt.is_none()
        && Recipient { options: RcptOptions::default(), ..only.clone() } == Recipient::new(only.address.clone())
        && envelope.origin == Origin::Client
        && body != Body::Binary
        && envelope.options == MailOptions { body, ..MailOptions::default() }
        && envelope.sender.iter().chain([&only.address]).all(Address::is_ascii)
}

/// The direct head for one recipient.
pub fn direct(sender: Option<&Address>, recipient: &Address) -> String {
    format!("Return-Path: {}\nDelivered-To: {recipient}\n", address::path(sender))
}

/// The marks of a message in quarantine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks<'a> {
    /// Why the message is held. Only the first [`MAX_REASON`] bytes are kept.
    pub reason: Option<&'a str>,
    /// The folder of the recipients' Maildirs that the message goes into.
    pub folder: Option<&'a Folder>,
}

impl Marks<'_> {
    fn write(&self, head: &mut String) {
        let reason = self.reason.map(|reason| match cut(reason.trim(), MAX_REASON) {
            "" => "unknown",
            reason => reason,
        });
        for (key, value) in [(" reason=", reason), (" folder=", self.folder.map(Folder::as_str))] {
            let Some(value) = value else { continue };
            head.push_str(key);
            fields::write_text(head, value);
        }
    }
}

/// Returns the beginning of a text: as many whole characters as fit into `max` bytes.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= max).last();
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// The queued head, of at least `fill` bytes, for a received message or a report.
pub fn queued(envelope: &Envelope, marks: Marks<'_>, measure: Option<Measure>, fill: usize) -> String {
    let mut head = lines(envelope, &Derivation::default(), marks, measure);
    // Blanks at the end of the last line do not move any record.
    let blanks = fill.saturating_sub(head.len() + 1);
    head.truncate(head.len() - 1);
    head.extend(std::iter::repeat_n(' ', blanks));
    head.push('\n');
    end(head)
}

/// The queued head of a forwarded or held message, which has a derivation. `reason` says why it is
/// held.
pub fn derived(envelope: &Envelope, derivation: &Derivation, reason: Option<&str>, measure: Option<Measure>) -> String {
    let marks = Marks { reason, folder: derivation.folder.as_ref() };
    end(lines(envelope, derivation, marks, measure))
}

fn lines(envelope: &Envelope, derivation: &Derivation, marks: Marks<'_>, measure: Option<Measure>) -> String {
    let body = match envelope.options.body {
        Body::SevenBit => "7bit",
        Body::EightBit | Body::Binary => "8bit",
    };
    let origin = match envelope.origin {
        Origin::Client => "client",
        // These are fields of their own and not values of `origin=`: an earlier version leaves an
        // entry with an unknown field alone, but takes an unknown value for damage.
        Origin::Own => "client own=yes",
        Origin::DmarcReport => "client dmarc=yes",
        Origin::TlsReport => "client tlsrpt=yes",
        Origin::Report => "report",
        Origin::Postmaster => "postmaster",
    };
    let mut head = format!("penfold/1 head={:010}", 0);
    if let Some(Measure { size, is_ascii, .. }) = measure {
        let _ = write!(head, ":{size:012}:{}", if is_ascii { "7bit" } else { "8bit" });
    }
    let sender = address::path(envelope.sender.as_ref());
    let _ = write!(head, " body={body} origin={origin} from={sender}");
    derivation::write(&mut head, &derivation.steps);
    marks.write(&mut head);
    options::write_mail(&mut head, &envelope.options);
    if measure.is_some_and(|measure| measure.has_long_lines) {
        head.push_str(" lines=long");
    }
    // An earlier version would take an address outside ASCII for damage, but leaves an entry with
    // the field `utf=` alone. So that field also says that a table has led to such an address.
    let recipients = envelope.recipients.iter();
    let addresses = recipients.flat_map(|recipient| [Some(&recipient.address), recipient.original.as_ref()]);
    if !envelope.options.utf8 && !addresses.chain([envelope.sender.as_ref()]).flatten().all(Address::is_ascii) {
        head.push_str(" utf=addresses");
    }
    end_line(&mut head);
    let fresh = DeliveryState::FRESH.encode();
    for (number, recipient) in envelope.recipients.iter().enumerate() {
        head.extend(fresh.iter().map(|&b| char::from(b)));
        // Writing to a string cannot fail.
        let _ = write!(head, "to=<{}>", recipient.address);
        if let Some(original) = &recipient.original {
            let _ = write!(head, " orig=<{original}>");
        }
        fields::write_action(&mut head, &recipient.action);
        options::write_rcpt(&mut head, &recipient.options);
        if let Some(share) = derivation.shares.get(number).filter(|share| **share > 0) {
            let _ = write!(head, " may={share}");
        }
        end_line(&mut head);
    }
    head
}

/// Adds the empty line, and writes the length of the head into the field `head=`.
fn end(mut head: String) -> String {
    head.push('\n');
    let length = format!("{:010}", head.len());
    let start = MAGIC.len() + "head=".len();
    head.replace_range(start..start + 10, &length);
    head
}

fn end_line(head: &mut String) {
    let blanks = (ALIGN - (head.len() + 1) % ALIGN) % ALIGN;
    head.extend(std::iter::repeat_n(' ', blanks));
    head.push('\n');
}

/// Returns the number of bytes at the front of a file that are sure to contain the whole head.
/// `front` must contain at least the first 64 bytes of the file.
///
/// # Errors
/// [`HeadError`] if the file begins with neither kind of head.
pub fn length(front: &[u8]) -> Result<u64, HeadError> {
    if front.starts_with(DIRECT_FIRST) {
        return Ok(MAX_DIRECT as u64);
    }
    let rest = front.strip_prefix(MAGIC).ok_or_else(|| if has_version(front) { OTHER_VERSION } else { NO_HEAD })?;
    let digits = rest.strip_prefix(b"head=").and_then(|r| r.get(..10)).and_then(|d| std::str::from_utf8(d).ok());
    let length = digits.and_then(|d| d.parse().ok()).ok_or(Corrupt("the length of the head is missing"))?;
    if length <= MAX_HEAD { Ok(length) } else { Err(Corrupt("the head is too long")) }
}

/// Whether a text begins with `penfold/N` and a blank.
fn has_version(front: &[u8]) -> bool {
    let version = front.strip_prefix(ANY_VERSION).and_then(|rest| rest.split(|&b| b == b' ').next());
    version.is_some_and(|version| {
        ANY_VERSION.len() + version.len() < front.len()
            && matches!(version, [b'1'..=b'9', rest @ ..] if rest.len() < 4 && rest.iter().all(u8::is_ascii_digit))
    })
}

/// Whether a file begins with a direct head.
pub fn is_direct(front: &[u8]) -> bool {
    front.starts_with(DIRECT_FIRST)
}

/// Parses a head. `front` must contain at least the first [`length`] bytes of the file.
///
/// # Errors
/// [`HeadError`] for anything that this version does not write.
pub fn read(front: &[u8]) -> Result<Head, HeadError> {
    if front.starts_with(DIRECT_FIRST) { read_direct(front) } else { read_queued(front) }
}

fn read_direct(front: &[u8]) -> Result<Head, HeadError> {
    const CORRUPT: HeadError = Corrupt("Return-Path: or Delivered-To: is malformed");
    let mut lines = front.splitn(3, |&b| b == b'\n');
    let (first, second) = (lines.next().ok_or(CORRUPT)?, lines.next().ok_or(CORRUPT)?);
    lines.next().ok_or(CORRUPT)?;
    let (sender, rest) = address::parse_path(first.strip_prefix(DIRECT_FIRST).ok_or(CORRUPT)?).map_err(|_| CORRUPT)?;
    let recipient = second.strip_prefix(DIRECT_SECOND).and_then(|t| std::str::from_utf8(t).ok()).ok_or(CORRUPT)?;
    let recipient = Address::parse(recipient).map_err(|_| CORRUPT)?;
    if !rest.is_empty() {
        return Err(CORRUPT);
    }
    Ok(Head {
        direct: true,
        sender,
        // A direct head does not store BODY=, and the content may be 8-bit text.
        options: MailOptions { body: Body::EightBit, ..MailOptions::default() },
        origin: Origin::Client,
        steps: Vec::new(),
        reason: None,
        folder: None,
        recipients: vec![RecipientEntry {
            number: 0,
            offset: 0,
            recipient: Recipient::new(recipient),
            record: DeliveryState::FRESH,
            share: 0,
        }],
        content: (first.len() + second.len() + 2) as u64,
        measure: None,
    })
}

fn read_queued(front: &[u8]) -> Result<Head, HeadError> {
    let mut head = without_recipients(front)?;
    let text = usize::try_from(head.content).ok().and_then(|n| front.get(..n)).ok_or(CUT)?;
    let mut lines = text.strip_suffix(b"\n\n").ok_or(CUT)?.split(|&b| b == b'\n');
    let mut offset = lines.next().ok_or(CUT)?.len() + 1;
    for (number, line) in lines.enumerate() {
        head.recipients.push(read_recipient_entry(number, offset as u64, line)?);
        offset += line.len() + 1;
    }
    if head.recipients.is_empty() { Err(Corrupt("it has no recipients")) } else { Ok(head) }
}

const CUT: HeadError = Corrupt("the head is cut off");

/// Parses the first line of a queued head; the recipients are left out.
///
/// # Errors
/// As for [`read`].
pub fn without_recipients(front: &[u8]) -> Result<Head, HeadError> {
    let content = length(front)?;
    let first = front.split(|&b| b == b'\n').next().and_then(|line| line.strip_prefix(MAGIC)).ok_or(CUT)?;
    let head = Head {
        direct: false,
        sender: None,
        options: MailOptions::default(),
        origin: Origin::default(),
        steps: Vec::new(),
        reason: None,
        folder: None,
        recipients: Vec::new(),
        content,
        measure: None,
    };
    read_first(first, head)
}

/// Parses the first line of `text`, which is the line of a recipient. `offset` is the offset of the
/// line in the file.
///
/// # Errors
/// As for [`read`].
pub fn read_recipient_entry(number: usize, offset: u64, text: &[u8]) -> Result<RecipientEntry, HeadError> {
    let line = text.split(|&b| b == b'\n').next().unwrap_or_default();
    let record = DeliveryState::decode(line)?;
    let (recipient, share) = read_recipient(&line[RECORD..])?;
    Ok(RecipientEntry { number, offset, recipient, record, share })
}

fn read_first(line: &[u8], mut head: Head) -> Result<Head, HeadError> {
    // `closer` is the word that says more about the origin `client`.
    let (mut from, mut closer, mut has_long_lines) = (None, None, false);
    read_fields(line, |key, value| {
        match (key, value) {
            ("head", Value::Word(word)) => head.measure = options::read_measure(word)?,
            ("lines", Value::Word("long")) => has_long_lines = true,
            ("body", Value::Word("7bit")) => head.options.body = Body::SevenBit,
            ("body", Value::Word("8bit")) => head.options.body = Body::EightBit,
            ("origin", Value::Word("client")) => head.origin = Origin::Client,
            ("own", Value::Word("yes")) if closer.is_none() => closer = Some(Origin::Own),
            ("dmarc", Value::Word("yes")) if closer.is_none() => closer = Some(Origin::DmarcReport),
            ("tlsrpt", Value::Word("yes")) if closer.is_none() => closer = Some(Origin::TlsReport),
            ("origin", Value::Word("report")) => head.origin = Origin::Report,
            ("origin", Value::Word("postmaster")) => head.origin = Origin::Postmaster,
            ("past", Value::Word(step)) => derivation::read(&mut head.steps, step)?,
            ("reason", Value::Word(text)) if head.reason.is_none() => {
                head.reason = Some(fields::read_text(text, MAX_REASON)?);
            }
            ("folder", Value::Word(name)) if head.folder.is_none() => {
                let name = fields::read_text(name, MAX_FOLDER)?;
                head.folder = Some(Folder::parse(&name).ok_or(MALFORMED)?);
            }
            ("from", Value::Path(path)) => from = Some(path),
            (
                "head" | "lines" | "body" | "origin" | "own" | "dmarc" | "tlsrpt" | "past" | "reason" | "folder"
                | "from",
                _,
            ) => {
                return Err(MALFORMED);
            }
            (key, Value::Word(word)) => return options::read_mail(&mut head.options, key, word),
            _ => return Err(UNKNOWN),
        }
        Ok(())
    })?;
    head.measure = head.measure.map(|measure| Measure { has_long_lines, ..measure });
    if let Some(closer) = closer {
        if head.origin != Origin::Client {
            return Err(MALFORMED);
        }
        head.origin = closer;
    }
    Ok(Head { sender: from.ok_or(Corrupt("it has no sender"))?, ..head })
}

fn read_recipient(text: &[u8]) -> Result<(Recipient, u32), HeadError> {
    let (mut to, mut original, mut action, mut share) = (None, None, ActionFields::default(), 0);
    let mut options = RcptOptions::default();
    read_fields(text, |key, value| {
        match (key, value) {
            ("to", Value::Path(Some(address))) => to = Some(address),
            ("orig", Value::Path(Some(address))) => original = Some(address),
            ("may", Value::Word(word)) => share = word.parse().map_err(|_| MALFORMED)?,
            ("to" | "orig", _) | ("may" | "do" | "run" | "file" | "as" | "notify" | "orcpt", Value::Path(_)) => {
                return Err(MALFORMED);
            }
            ("notify" | "orcpt", Value::Word(word)) => options::read_rcpt(&mut options, key, word)?,
            (key, Value::Word(word)) => return action.read(key, word),
            _ => return Err(UNKNOWN),
        }
        Ok(())
    })?;
    let action = action.finish()?;
    let address = to.ok_or(Corrupt("a recipient has no address"))?;
    Ok((Recipient { address, original, action, options }, share))
}

#[cfg(test)]
mod tests;
