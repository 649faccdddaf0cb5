//! Makes a text of a binary message (`BODY=BINARYMIME`), because mailboxes and commands get only
//! lines. A message that cannot be converted fails, and is not damaged.
//!
//! The text is written for each recipient anew, into a scratch file: the agent that gets the file
//! runs as the recipient, and could change it.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use super::LocalDelivery;
use crate::message::mime::{self, Conversion, Unconvertible};
use crate::outcome::Outcome;
use crate::reply::Status;
use crate::spool::{Entry, Spool};

/// The binary parts become base64, and text with octets above 127 stays.
const TEXT: Conversion = Conversion { is_binary: true, keeps_eight_bit: true };

impl LocalDelivery<'_> {
    /// Calls `deliver` while the entry has a text in place of a binary content.
    ///
    /// # Errors
    /// The outcome of a message that cannot be converted.
    pub(super) fn with_text<T>(&mut self, deliver: impl FnOnce(&mut Self) -> T) -> Result<T, Box<Outcome>> {
        if !self.entry.is_binary() {
            return Ok(deliver(self));
        }
        let text =
            text(self.spool, self.entry).map_err(|e| Outcome::from_io("convert the message in the spool", &e))?;
        let text = text.map_err(|why| {
            let why = format!("the mailbox does not take binary messages, and the message cannot be converted: {why}");
            Outcome::failed(Status(5, 6, 3), why)
        })?;
        self.entry.set_text(Some(text));
        let delivered = deliver(self);
        self.entry.set_text(None);
        Ok(delivered)
    }
}

/// Writes the text of a binary message to a file. Returns the file and its size in bytes.
fn text(spool: &Spool, entry: &Entry) -> io::Result<Result<(File, u64), Unconvertible>> {
    // Quoted-printable has at most three octets for one.
    let file = spool.scratch_for(entry.content_size().saturating_mul(3))?;
    let mut out = BufWriter::new(&file);
    if let Err(why) = mime::convert(|| entry.content(), TEXT, &|_| false, &mut out)? {
        return Ok(Err(why));
    }
    out.flush()?;
    drop(out);
    let size = file.metadata()?.len();
    Ok(Ok((file, size)))
}
