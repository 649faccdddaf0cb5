//! Makes the changes that a session makes to a message while the message arrives, in this order:
//!
//! 1. `submit::HeaderFilter` completes and checks the header of a submitted message.
//! 2. [`HeaderScan`] removes Return-Path:, the postmark (the first line of a message in a mailbox
//!    file, `From ...`) and Authentication-Results: fields that claim to be this server's, and puts
//!    an empty line before a body without a header.
//! 3. This server's Received: field is prepended.
//!
//! No byte of the body is changed.

use std::io::{self, Write};
use std::sync::Arc;

use super::header_scan::{HeaderScan, Rules};
use crate::address::Address;
#[cfg(feature = "mailauth")]
use crate::mailauth::results::claims_to_be;
use crate::policy::message::Trace;
use crate::route::{DomainClass, Router};
use crate::submit::{HeaderFilter, Refusal};

/// The changes to one message.
#[derive(Debug)]
pub struct Changes {
    filter: HeaderFilter,
    scan: HeaderScan,
    names: Names,
    prepended: String,
}

/// What the scan of a header needs to know: which domains are local, and the name of this server.
#[derive(Debug)]
pub struct Names {
    /// Tells local domains from others.
    pub router: Arc<Router>,
    /// The name of this server in Authentication-Results: fields; `None` if the client is trusted
    /// to send such fields.
    pub authserv_id: Option<String>,
}

impl Changes {
    /// Prepares the changes to a message. Its header passes through `filter`, and the lines
    /// `prepended` are put before the header.
    pub fn new(filter: HeaderFilter, names: Names, prepended: String) -> Self {
        Self { filter, scan: HeaderScan::default(), names, prepended }
    }

    /// Takes a piece of the text, and writes to `out` the part for which all changes are decided.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn take(&mut self, text: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let Self { filter, scan, names, .. } = self;
        filter.feed(text, &mut Scanned { scan, names, out })
    }

    /// Writes the rest when the text has ended.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Self { filter, scan, names, .. } = self;
        filter.finish(&mut Scanned { scan, names, out: &mut *out })?;
        let mut ready = Vec::new();
        names.with_rules(|rules| scan.finish(rules, &mut ready));
        out.write_all(&ready)
    }

    /// Returns the lines that are put before the text.
    pub fn prepended(&self) -> &str {
        &self.prepended
    }

    /// Puts lines above those that already stand before the text. Each line ends in LF.
    pub fn prepend(&mut self, lines: &str) {
        self.prepended.insert_str(0, lines);
    }

    /// Puts lines below those that already stand before the text. Each line ends in LF.
    pub fn append(&mut self, lines: &str) {
        self.prepended.push_str(lines);
    }

    /// Returns the reason for rejecting a submitted message. Returns `None` while there is no
    /// reason.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.filter.refusal()
    }

    /// Returns the Message-ID, as far as the header has arrived.
    pub fn message_id(&self) -> Option<String> {
        self.scan.message_id()
    }

    /// Whether the header has the field `TLS-Required: No`.
    pub fn waives_tls(&self) -> bool {
        self.scan.waives_tls()
    }

    /// The marks of copies in the header.
    pub fn marks(&self) -> impl Iterator<Item = &str> {
        self.scan.marks()
    }

    /// Counts the hops and earlier deliveries that the trace fields show. `recipients` are the
    /// recipients of the message.
    pub fn trace<'r>(&self, recipients: impl Iterator<Item = &'r Address>) -> Trace {
        self.scan.trace(recipients)
    }
}

/// Returns false: a server without the feature `mailauth` writes no Authentication-Results: field,
/// so no field can be forged.
#[cfg(not(feature = "mailauth"))]
fn claims_to_be(_: &[u8], _: &str) -> bool {
    false
}

impl Names {
    fn with_rules<T>(&self, scan: impl FnOnce(Rules<'_>) -> T) -> T {
        let is_local = |domain: &str| self.router.class_of(domain) == DomainClass::Local;
        let is_forged = |body: &[u8]| self.authserv_id.as_deref().is_some_and(|name| claims_to_be(body, name));
        scan(Rules { is_local: &is_local, is_forged: &is_forged })
    }
}

/// A writer that passes text through the scan, and writes the result to `out`.
struct Scanned<'a> {
    scan: &'a mut HeaderScan,
    names: &'a Names,
    out: &'a mut dyn Write,
}

impl Write for Scanned<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.scan.is_over() {
            self.out.write_all(text)?;
            return Ok(text.len());
        }
        let mut ready = Vec::new();
        let body = self.names.with_rules(|rules| self.scan.feed(text, rules, &mut ready));
        self.out.write_all(&ready)?;
        self.out.write_all(body)?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
