//! What is done for mail that a person submits (RFC 6409).
//!
//! A [`Letter`] goes between the client and the spool while a message arrives. It
//! holds the header section back until its end, completes addresses without a
//! domain, adds From, Sender, Date and Message-ID where they are missing, and sees
//! to it that whoever has logged in names only senders that are his. Nothing else
//! of the header and no octet of the body is changed, but for From and Sender, where
//! [`rewrite`] says so. How the text is cut into
//! pieces makes no difference.
//!
//! A header longer than [`MAX_HEADER`] goes on as it is, or is refused where its
//! From has to be known. A line that is no field ends the header, as an empty line
//! does, and gets one before it: no reader finds a From behind it. Pure: what is to
//! be written in (a date, an id) is given. Who may use which address is told by
//! [`senders`]; how much an account has sent is counted by [`usage`].

use std::io::{self, Write};
use std::sync::Arc;

use memchr::memchr;

use crate::address::Address;
use crate::message::addresses;

pub mod rewrite;
pub mod senders;
pub mod usage;

use rewrite::Rewriting;
use senders::Identity;

/// The longest header section that is looked at, in octets.
pub const MAX_HEADER: usize = 128 << 10;

/// What a message is given, and by whom it is submitted.
#[derive(Debug)]
pub struct Terms {
    /// This host, for Message-ID.
    pub hostname: String,
    /// The domain of addresses that have none.
    pub domain: String,
    /// What Message-ID says before the hostname.
    pub id: String,
    /// What Date says.
    pub date: String,
    /// The reverse-path: it is From where that is missing.
    pub sender: Option<Address>,
    /// Who has logged in. `None` is a client that is trusted as it is.
    pub identity: Option<Identity>,
    /// What becomes of From and Sender.
    pub rewriting: Option<Arc<Rewriting>>,
}

/// Why a message is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// From names an address that is not for whoever has logged in.
    NotHis(Address),
    /// From has no address that can be read, and would have to be known.
    Unreadable,
    /// The header is longer than [`MAX_HEADER`], and its From would have to be known.
    TooLong,
}

/// A message on its way into the spool.
#[derive(Debug)]
pub struct Letter {
    /// `None` once the header is over.
    terms: Option<Terms>,
    /// The header so far.
    held: Vec<u8>,
    /// Where the fields begin: behind the postmark of a mailbox file, if there is one.
    start: usize,
    /// Where the last line begins.
    line: usize,
    refusal: Option<Refusal>,
}

impl Letter {
    /// A message that is submitted.
    pub fn new(terms: Terms) -> Self {
        Self { terms: Some(terms), ..Self::untouched() }
    }

    /// A message that goes through as it is.
    pub fn untouched() -> Self {
        Self { terms: None, held: Vec::new(), start: 0, line: 0, refusal: None }
    }

    /// Takes a piece of the text; writes what is ready. After a refusal nothing is.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn feed(&mut self, text: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let mut rest = text;
        while self.terms.is_some() && !rest.is_empty() {
            let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (piece, after) = rest.split_at(end);
            self.held.extend_from_slice(piece);
            rest = after;
            if self.held.len() > MAX_HEADER {
                self.give_up(out)?;
            } else if piece.ends_with(b"\n") {
                self.end_line(out)?;
            }
        }
        if self.refusal.is_some() { Ok(()) } else { out.write_all(rest) }
    }

    /// The text is over.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.line < self.held.len() {
            self.end_line(out)?;
        }
        if self.terms.is_some() { self.close(self.held.len(), out) } else { Ok(()) }
    }

    /// Why the message is not taken, once that is known.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    fn end_line(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let line = self.held.get(self.line..).unwrap_or_default();
        let continues = self.line > self.start && matches!(line, [b' ' | b'\t', ..]);
        if !continues && name(line).is_none() {
            if self.line > 0 || !is_postmark(line) {
                return self.close(self.line, out);
            }
            self.start = self.held.len();
        }
        self.line = self.held.len();
        Ok(())
    }

    /// The header ends at `end`; what is held behind that is the body's.
    fn close(&mut self, end: usize, out: &mut dyn Write) -> io::Result<()> {
        let Some(terms) = self.terms.take() else { return Ok(()) };
        let held = self.take_held();
        // What looks like a postmark and has no field behind it is the body's too.
        let (start, end) = if end > self.start { (self.start, end) } else { (0, 0) };
        let (header, body) = (held.get(start..end).unwrap_or_default(), held.get(end..).unwrap_or_default());
        match terms.repair(header) {
            Ok(repaired) => out.write_all(&repaired)?,
            Err(refusal) => {
                self.refusal = Some(refusal);
                return Ok(());
            }
        }
        if !body.is_empty() && !body.starts_with(b"\n") {
            out.write_all(b"\n")?;
        }
        out.write_all(body)
    }

    /// The header is too long.
    fn give_up(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let is_bound = self.terms.take().is_some_and(|terms| terms.bound().is_some());
        let held = self.take_held();
        if is_bound {
            self.refusal = Some(Refusal::TooLong);
            return Ok(());
        }
        out.write_all(&held)
    }

    fn take_held(&mut self) -> Vec<u8> {
        self.line = 0;
        std::mem::take(&mut self.held)
    }
}

/// Whether a line is what a mailbox file has between messages.
pub fn is_postmark(line: &[u8]) -> bool {
    line.starts_with(b"From ") || line.starts_with(b">From ")
}

/// The name of a field, and where its body begins.
pub fn name(line: &[u8]) -> Option<(&[u8], usize)> {
    let colon = memchr(b':', line)?;
    // Blanks before the colon were allowed once (RFC 5322 4.5).
    let name = line.get(..colon)?.trim_ascii_end();
    let is_good = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_good.then_some((name, colon + 1))
}

/// The fields of a header, each with the lines that continue it.
pub fn fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        let mut end = 0;
        while end == 0 || matches!(rest.get(end), Some(b' ' | b'\t')) {
            let tail = rest.get(end..).filter(|tail| !tail.is_empty())?;
            end += memchr(b'\n', tail).map_or(tail.len(), |at| at + 1);
        }
        let (field, after) = rest.split_at_checked(end)?;
        rest = after;
        Some(field)
    })
}

/// What a header has.
#[derive(Debug, Default)]
struct Found {
    date: bool,
    message_id: bool,
    from: bool,
    sender: bool,
    /// The addresses in From.
    authors: Vec<Address>,
}

impl Terms {
    /// The header as it goes on.
    fn repair(&self, header: &[u8]) -> Result<Vec<u8>, Refusal> {
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
        if let Some(identity) = self.bound().filter(|identity| !found.sender && !is_alone(identity, &found.authors)) {
            add("Sender", &self.rewrite(identity.own()).unwrap_or_else(|| identity.own().clone()));
        }
        if !found.date {
            add("Date", &self.date);
        }
        if !found.message_id {
            add("Message-ID", &format_args!("<{}@{}>", self.id, self.hostname));
        }
        Ok(out)
    }

    fn field(&self, field: &[u8], found: &mut Found, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let (name, start) = name(field).unwrap_or((b"", 0));
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        found.date |= is("Date");
        found.message_id |= is("Message-ID");
        if !["From", "Sender", "Reply-To", "To", "Cc"].into_iter().any(is) {
            out.extend_from_slice(field);
            return Ok(());
        }
        let (intro, value) = field.split_at(start.min(field.len()));
        let list = addresses::mailboxes(value);
        // Of whoever has logged in all readers have to find the same.
        let clear = list.as_ref().filter(|_| self.bound().is_none() || addresses::is_clear(value));
        let whole = || clear.and_then(|list| list.iter().map(|m| m.address_at(&self.domain)).collect());
        if is("From") {
            found.from = true;
            self.check_from(whole, found)?;
        } else if is("Sender") {
            let may_use = |identity: &Identity| {
                whole().is_some_and(|list: Vec<_>| !list.is_empty() && list.iter().all(|a| identity.may_use(a)))
            };
            if !self.bound().is_none_or(may_use) {
                return Ok(());
            }
            found.sender = true;
        }
        out.extend_from_slice(intro);
        let rewrite = |address: &Address| self.rewrite(address).filter(|_| is("From") || is("Sender"));
        addresses::complete(value, list.as_deref().unwrap_or_default(), &self.domain, &rewrite, out);
        Ok(())
    }

    fn rewrite(&self, address: &Address) -> Option<Address> {
        self.rewriting.as_ref().and_then(|rewriting| rewriting.apply(address))
    }

    fn check_from(&self, whole: impl Fn() -> Option<Vec<Address>>, found: &mut Found) -> Result<(), Refusal> {
        let Some(identity) = self.bound() else { return Ok(()) };
        let authors = whole().filter(|list| !list.is_empty()).ok_or(Refusal::Unreadable)?;
        if let Some(other) = authors.iter().find(|address| !identity.may_use(address)) {
            return Err(Refusal::NotHis(other.clone()));
        }
        found.authors.extend(authors);
        Ok(())
    }

    /// Whose addresses have to be looked at.
    fn bound(&self) -> Option<&Identity> {
        self.identity.as_ref().filter(|identity| !identity.is_anyone())
    }

    /// Who has written a message that does not say it.
    fn author(&self) -> Option<Address> {
        let own = || self.identity.as_ref().map(|identity| identity.own().clone());
        let nobody = || Address::new("MAILER-DAEMON", &self.hostname).ok();
        let author = || own().or_else(nobody).map(|address| self.rewrite(&address).unwrap_or(address));
        // The reverse-path was rewritten where it was said.
        self.sender.clone().or_else(author)
    }
}

/// Whether it is clear from From alone who sends it (RFC 5322 3.6.2).
fn is_alone(identity: &Identity, authors: &[Address]) -> bool {
    matches!(authors, [only] if identity.is_own(only))
}

#[cfg(test)]
mod tests;
