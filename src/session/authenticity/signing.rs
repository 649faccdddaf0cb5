//! Signs a message with the DKIM keys of its author's domain, if its client may relay.

use std::io::{self, BufRead, BufReader, Read};

use super::super::Session;
use super::super::incoming::{Complete, storage_error};
use crate::envelope::Body;
use crate::mailauth::dkim::Signer;
use crate::message::field::{self, Section, State};
use crate::policy;
use crate::reply::Reply;
use crate::smtp::chunk::TextReader;
use crate::submit::MAX_HEADER;
use crate::sys;

impl Session<'_> {
    /// Puts signatures on top of a message, if there are keys for its author's domain. The caller
    /// must not change the message afterwards. The error is the reply for a message that cannot be
    /// read.
    ///
    /// A bare LF in a binary body counts as a line end, so the signature of such a body holds only
    /// after the body was converted, when the message is signed again.
    pub(in super::super) fn sign(&self, complete: &mut Complete, body: Body) -> Result<(), Reply> {
        let keys = &self.service.keys;
        if keys.is_empty() || !policy::message::is_signed(&self.facts()) {
            return Ok(());
        }
        let from = author(complete.content()).map_err(|e| storage_error(&e))?;
        let signing = from.map(|from| keys.for_author(&from)).unwrap_or_default();
        if signing.is_empty() {
            return Ok(());
        }
        let mut signer = Signer::new();
        let is_binary = body == Body::Binary;
        io::copy(&mut TextReader::new(complete.content(), is_binary), &mut signer).map_err(|e| storage_error(&e))?;
        let keys: Vec<_> = signing.iter().map(|(domain, selector, key)| (&**domain, &**selector, &**key)).collect();
        match signer.finish(&keys, sys::now()) {
            Ok(fields) => complete.prepend(&fields),
            // The message is sent without a signature rather than refused: other hosts may accept
            // it, and its sender could not remove the cause of a refusal.
            Err(why) => ::log::warn!("{} is not signed: {why}", complete.id()),
        }
        Ok(())
    }
}

/// Returns the body of the first From: field. Returns `None` if there is none.
fn author(content: impl Read) -> io::Result<Option<Vec<u8>>> {
    let (mut header, mut content) = (Section::new(MAX_HEADER), BufReader::new(content));
    while header.state() == State::Open {
        let text = content.fill_buf()?;
        if text.is_empty() {
            header.finish();
            break;
        }
        header.feed(text);
        let count = text.len();
        content.consume(count);
    }
    Ok(field::fields(header.header()).find(|field| field.is("From")).map(|field| field.body.to_vec()))
}
