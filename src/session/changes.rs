//! Makes every change to a message between the client and the commit. There are three, in order:
//!
//! 1. `submit::HeaderFilter` completes and checks the header of a submitted message.
//! 2. [`HeaderScan`] removes Return-Path: and the postmark (the first line of a message in a
//!    mailbox file, `From ...`), and puts an empty line before a body without a header.
//! 3. This server's Received: field is prepended.
//!
//! No byte of the body is changed.

use std::io::{self, Write};
use std::sync::Arc;

use super::header_scan::HeaderScan;
use crate::address::Address;
use crate::policy::message::Trace;
use crate::route::{DomainClass, Router};
use crate::submit::{HeaderFilter, Refusal};

/// The changes to one message.
#[derive(Debug)]
pub struct Changes {
    filter: HeaderFilter,
    scan: HeaderScan,
    /// Tells local domains from others.
    router: Arc<Router>,
    prepended: String,
}

impl Changes {
    /// The changes to a message: its header passes `filter`, and the lines `prepended` are put
    /// before it.
    pub fn new(filter: HeaderFilter, router: Arc<Router>, prepended: String) -> Self {
        Self { filter, scan: HeaderScan::default(), router, prepended }
    }

    /// Takes a piece of the text, and writes to `out` the part for which all changes are decided.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn take(&mut self, text: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let Self { filter, scan, router, .. } = self;
        filter.feed(text, &mut Scanned { scan, router, out })
    }

    /// Writes the rest when the text has ended.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Self { filter, scan, router, .. } = self;
        filter.finish(&mut Scanned { scan, router, out: &mut *out })?;
        let mut ready = Vec::new();
        scan.finish(&is_local(router), &mut ready);
        out.write_all(&ready)
    }

    /// The lines that are put before the text.
    pub fn prepended(&self) -> &str {
        &self.prepended
    }

    /// The reason for rejecting a submitted message, once there is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.filter.refusal()
    }

    /// Counts the hops and earlier deliveries that the trace fields show. `recipients` are the
    /// recipients of the message.
    pub fn trace<'r>(&self, recipients: impl Iterator<Item = &'r Address>) -> Trace {
        self.scan.trace(recipients)
    }
}

fn is_local(router: &Router) -> impl Fn(&str) -> bool {
    |domain| router.class_of(domain) == DomainClass::Local
}

/// A writer that passes text through the scan, and writes the result to `out`.
struct Scanned<'a> {
    scan: &'a mut HeaderScan,
    router: &'a Router,
    out: &'a mut dyn Write,
}

impl Write for Scanned<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.scan.is_over() {
            self.out.write_all(text)?;
            return Ok(text.len());
        }
        let mut ready = Vec::new();
        let body = self.scan.feed(text, &is_local(self.router), &mut ready);
        self.out.write_all(&ready)?;
        self.out.write_all(body)?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
