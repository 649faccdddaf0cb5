//! Checks the header of a message that a user submits (RFC 6409) against its sender, and completes
//! it.
//!
//! A [`HeaderFilter`] stands between the client and the spool while a message arrives. It holds the
//! header back until the header is complete, completes addresses without a domain, and adds From,
//! Sender, Date and Message-ID where they are missing. If From names an address that is not the
//! authenticated user's, the message is rejected. [`rewrite`] may replace the addresses in From and
//! Sender. Nothing else in the header is changed, except that a postmark (an mbox line `From x`)
//! and a Sender that is not permitted are removed. No octet of the body is changed. The result does
//! not depend on how the text is split into pieces.
//!
//! If a header is longer than [`MAX_HEADER`], it passes unchanged, or is rejected if its From must
//! be checked. A line that is no header field ends the header and gets an empty line before it, so
//! that no reader finds a From after it. The filter does no I/O of its own and no look-ups: see
//! [`Submission`].
//!
//! - `drop`: the directory in which sendmail(8) keeps messages while no daemon runs
//! - `rewrite`: the senders that are replaced: the rewrite table and masquerading
//! - `senders`: the addresses that an authenticated user may send from
//! - `usage`: the messages and recipients that each account has sent within an hour

use std::io::{self, Write};
use std::sync::Arc;

use crate::address::Address;
use crate::message::addresses;
use crate::message::field::{Field, Section, State, fields};

pub mod drop;
pub mod rewrite;
pub mod senders;
pub mod usage;

use rewrite::Rewriting;
use senders::Identity;

/// The longest header that is checked and completed, in octets.
pub const MAX_HEADER: usize = 128 << 10;

/// What the filter needs to know about a submitted message.
#[derive(Debug)]
pub struct Submission {
    /// The name of this host, which becomes the domain of Message-ID.
    pub hostname: String,
    /// The domain that completes addresses without a domain.
    pub domain: String,
    /// The part of Message-ID before the `@`.
    pub id: String,
    /// The value of Date, if the message has no such field.
    pub date: String,
    /// The reverse-path, which becomes From if that field is missing; `None` for the null path.
    pub sender: Option<Address>,
    /// The authenticated user. `None` for a trusted client, whose From is not checked.
    pub identity: Option<Identity>,
    /// The rules that replace addresses in From and Sender, if there are any.
    pub rewriting: Option<Arc<Rewriting>>,
}

/// The reason why a submitted message is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// From names an address that the authenticated user may not use.
    NotAllowed(Address),
    /// From must be checked, and has no readable address.
    Unreadable,
    /// From must be checked, and the header is longer than [`MAX_HEADER`].
    TooLong,
}

/// The filter that a submitted message passes on its way into the spool.
#[derive(Debug)]
pub struct HeaderFilter {
    /// What is known about the message. `None` after the header, and if nothing is to be changed.
    submission: Option<Submission>,
    header: Section,
    refusal: Option<Refusal>,
}

impl HeaderFilter {
    /// Returns the filter for a message that is submitted.
    pub fn new(submission: Submission) -> Self {
        Self { submission: Some(submission), header: Section::new(MAX_HEADER), refusal: None }
    }

    /// Returns a filter that changes nothing, for a message that is relayed or delivered here.
    pub fn unchanged() -> Self {
        Self { submission: None, header: Section::new(0), refusal: None }
    }

    /// Takes a piece of the text and writes the part that is ready; writes nothing after a refusal.
    ///
    /// # Errors
    /// The errors of `out`.
    pub fn feed(&mut self, text: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let mut rest = text;
        if self.submission.is_some() {
            rest = self.header.feed(text);
            if self.header.state() != State::Open {
                self.end_header(out)?;
            }
        }
        if self.refusal.is_some() { Ok(()) } else { out.write_all(rest) }
    }

    /// Ends the text, and writes the part that was held back.
    ///
    /// # Errors
    /// The errors of `out`.
    pub fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.header.finish();
        self.end_header(out)
    }

    /// Returns the reason for rejecting the message, once there is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// Writes the completed header and the text after it that was held back, or sets the refusal.
    fn end_header(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Some(submission) = self.submission.take() else { return Ok(()) };
        let header = std::mem::replace(&mut self.header, Section::new(0));
        if header.state() == State::TooLong {
            if submission.restricted().is_some() {
                self.refusal = Some(Refusal::TooLong);
                return Ok(());
            }
            return out.write_all(&header.into_text());
        }
        match submission.complete(header.header()) {
            Ok(completed) => out.write_all(&completed)?,
            Err(refusal) => {
                self.refusal = Some(refusal);
                return Ok(());
            }
        }
        let body = header.remainder();
        if !body.is_empty() && !body.starts_with(b"\n") {
            out.write_all(b"\n")?;
        }
        out.write_all(body)
    }
}

/// The fields that were found in a header.
#[derive(Debug, Default)]
struct Found {
    date: bool,
    message_id: bool,
    from: bool,
    sender: bool,
    /// The addresses in From.
    authors: Vec<Address>,
}

impl Submission {
    /// Returns the header, checked and completed.
    fn complete(&self, header: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (mut out, mut found) = (Vec::with_capacity(header.len() + 512), Found::default());
        for field in fields(header) {
            self.field(field, &mut found, &mut out)?;
        }
        if out.last().is_some_and(|&b| b != b'\n') {
            out.push(b'\n');
        }
        let mut add = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a vector cannot fail.
            let _ = writeln!(out, "{name}: {value}");
        };
        if let Some(author) = self.author().filter(|_| !found.from) {
            add("From", &author);
            found.authors.push(author);
        }
        let needs_sender = |identity: &&Identity| !found.sender && !is_only_author(identity, &found.authors);
        if let Some(identity) = self.restricted().filter(needs_sender) {
            add("Sender", &self.rewrite(identity.primary()).unwrap_or_else(|| identity.primary().clone()));
        }
        if !found.date {
            add("Date", &self.date);
        }
        if !found.message_id {
            add("Message-ID", &format_args!("<{}@{}>", self.id, self.hostname));
        }
        Ok(out)
    }

    /// Writes a field with completed and replaced addresses. Leaves out a Sender that is not
    /// permitted.
    fn field(&self, field: Field<'_>, found: &mut Found, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let is = |name: &str| field.is(name);
        found.date |= is("Date");
        found.message_id |= is("Message-ID");
        if !["From", "Sender", "Reply-To", "To", "Cc"].into_iter().any(is) {
            out.extend_from_slice(field.raw);
            return Ok(());
        }
        let value = field.body;
        let list = addresses::mailboxes(value);
        // If From and Sender are checked, the addresses in a field count only if all readers find
        // the same ones.
        let clear = list.as_ref().filter(|_| self.restricted().is_none() || addresses::is_clear(value));
        let all_addresses = || clear.and_then(|list| list.iter().map(|m| m.address_at(&self.domain)).collect());
        if is("From") {
            found.from = true;
            self.check_from(all_addresses, found)?;
        } else if is("Sender") {
            let may_use = |identity: &Identity| {
                all_addresses().is_some_and(|list: Vec<_>| !list.is_empty() && list.iter().all(|a| identity.may_use(a)))
            };
            if !self.restricted().is_none_or(may_use) {
                return Ok(());
            }
            found.sender = true;
        }
        out.extend_from_slice(field.raw.strip_suffix(value).unwrap_or_default());
        let rewrite = |address: &Address| self.rewrite(address).filter(|_| is("From") || is("Sender"));
        addresses::complete(value, list.as_deref().unwrap_or_default(), &self.domain, &rewrite, out);
        Ok(())
    }

    /// Returns the address that replaces `address` in From and Sender; `None` if no rule applies.
    fn rewrite(&self, address: &Address) -> Option<Address> {
        self.rewriting.as_ref().and_then(|rewriting| rewriting.apply(address))
    }

    /// Checks whether the user may use the addresses in From, and adds them to `found`.
    fn check_from(&self, all_addresses: impl Fn() -> Option<Vec<Address>>, found: &mut Found) -> Result<(), Refusal> {
        let Some(identity) = self.restricted() else { return Ok(()) };
        let authors = all_addresses().filter(|list| !list.is_empty()).ok_or(Refusal::Unreadable)?;
        if let Some(forbidden) = authors.iter().find(|address| !identity.may_use(address)) {
            return Err(Refusal::NotAllowed(forbidden.clone()));
        }
        found.authors.extend(authors);
        Ok(())
    }

    /// Returns the authenticated user, if that user may not send from every address, so that From
    /// and Sender must be checked.
    fn restricted(&self) -> Option<&Identity> {
        self.identity.as_ref().filter(|identity| !identity.is_anyone())
    }

    /// Returns the address for From, if the message has no such field.
    fn author(&self) -> Option<Address> {
        let own_address = || self.identity.as_ref().map(|identity| identity.primary().clone());
        let system = || Address::new("MAILER-DAEMON", &self.hostname).ok();
        let author = || own_address().or_else(system).map(|address| self.rewrite(&address).unwrap_or(address));
        // The reverse-path was already rewritten at MAIL.
        self.sender.clone().or_else(author)
    }
}

/// Whether From alone shows that the authenticated user sends the message (RFC 5322 3.6.2).
fn is_only_author(identity: &Identity, authors: &[Address]) -> bool {
    matches!(authors, [only] if identity.is_own(only))
}

#[cfg(test)]
mod tests;
