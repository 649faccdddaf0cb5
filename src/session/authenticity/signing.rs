//! Signs a message with the DKIM keys of its author's domain, if its client may relay.

use std::io::{self, Read};

use super::super::Session;
use super::super::incoming::{Complete, storage_error};
use crate::mailauth::dkim::Signer;
use crate::message::field::{self, Section, State};
use crate::policy;
use crate::reply::Reply;
use crate::submit::MAX_HEADER;
use crate::sys;

/// The number of octets that are read and hashed at a time.
const BLOCK: usize = 64 << 10;

impl Session<'_> {
    /// Puts signatures on top of a message, if there are keys for its author's domain. The caller
    /// must not change the message afterwards. The error is the reply for a message that cannot be
    /// read.
    pub(in super::super) fn sign(&self, complete: &mut Complete) -> Result<(), Reply> {
        let keys = &self.service.keys;
        if keys.is_empty() || !policy::message::is_signed(&self.facts()) {
            return Ok(());
        }
        let from = author(complete.content()).map_err(|e| storage_error(&e))?;
        let signing = from.map(|from| keys.for_author(&from)).unwrap_or_default();
        if signing.is_empty() {
            return Ok(());
        }
        let signer = hashed(complete.content()).map_err(|e| storage_error(&e))?;
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
fn author(mut content: impl Read) -> io::Result<Option<Vec<u8>>> {
    let (mut header, mut block) = (Section::new(MAX_HEADER), vec![0; BLOCK]);
    while header.state() == State::Open {
        let count = read(&mut content, &mut block)?;
        if count == 0 {
            header.finish();
            break;
        }
        header.feed(&block[..count]);
    }
    Ok(field::fields(header.header()).find(|field| field.is("From")).map(|field| field.body.to_vec()))
}

fn hashed(mut content: impl Read) -> io::Result<Signer> {
    let (mut signer, mut block) = (Signer::new(), vec![0; BLOCK]);
    loop {
        let count = read(&mut content, &mut block)?;
        if count == 0 {
            return Ok(signer);
        }
        signer.feed(&block[..count]);
    }
}

fn read(content: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    loop {
        match content.read(block) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
