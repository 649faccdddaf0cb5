//! Sends messages that need SMTPUTF8 (RFC 6531).
//!
//! The domains of addresses are always sent as A-labels. So only a local part outside ASCII needs
//! SMTPUTF8, or a header outside ASCII in a message that the client sent with SMTPUTF8. At a host
//! without SMTPUTF8 the recipients that need it fail, unless another host of the destination takes
//! them. The other recipients get the message without SMTPUTF8. The header of a message that came
//! without SMTPUTF8 is not looked at: it is sent as it came.
//!
//! A mail store is the last station of a message, and most stores do not know SMTPUTF8. So a store
//! without SMTPUTF8 gets the header and the sender in UTF-8 without the parameter, and only a
//! recipient outside ASCII fails.

use std::io::{self, Read};

use super::fit::without_utf8;
use super::{Connection, Stage, StageOutcome};
use crate::address::Address;
use crate::deliver::Delivery;
use crate::envelope::MailOptions;
use crate::outcome::Outcome;
use crate::smtp::chunk::HeaderEnd;
use crate::spool::Content;

/// The number of bytes of the header that are read at a time.
const BLOCK: usize = 16 << 10;

impl Connection {
    /// Sends a message, and returns the outcome for each recipient, in order.
    pub fn send(&mut self, delivery: &Delivery<'_>) -> Vec<StageOutcome> {
        let is_ascii = delivery.recipients.iter().map(|to| &to.address).chain(delivery.sender).all(Address::is_ascii);
        if is_ascii && !delivery.options.utf8 {
            return self.send_to_all(delivery);
        }
        if self.extensions.smtp_utf8 {
            let options = MailOptions { utf8: true, ..delivery.options.clone() };
            return self.send_to_all(&Delivery { options: &options, ..delivery.clone() });
        }
        let refusals = match self.refusals(delivery) {
            Ok(refusals) => refusals,
            Err(e) => return vec![self.unreadable(&e); delivery.recipients.len()],
        };
        let kept: Vec<usize> =
            (0..).zip(&refusals).filter(|(_, refusal)| refusal.is_none()).map(|(at, _)| at).collect();
        let recipients: Vec<_> = kept.iter().filter_map(|&at| delivery.recipients.get(at).copied()).collect();
        let sent = if recipients.is_empty() {
            Vec::new()
        } else {
            self.send_to_all(&Delivery { recipients, ..delivery.clone() })
        };
        let left = self.take_left();
        self.left = left.into_iter().filter_map(|at| kept.get(at).copied()).collect();
        let mut sent = sent.into_iter();
        let outcomes = refusals.into_iter().map(|refusal| match refusal {
            Some(outcome) => Some(self.answer(Stage::Hello, outcome)),
            None => sent.next(),
        });
        outcomes.flatten().collect()
    }

    /// The outcome of each recipient that cannot be sent to a host or a store without SMTPUTF8.
    fn refusals(&self, delivery: &Delivery<'_>) -> io::Result<Vec<Option<Outcome>>> {
        let (sender, is_header_ascii) = if self.is_store() {
            (None, true)
        } else {
            (delivery.sender, !delivery.options.utf8 || is_header_ascii(&delivery.content)?)
        };
        let refusal = |to: &Address| without_utf8(sender, to, is_header_ascii);
        Ok(delivery.recipients.iter().map(|to| refusal(&to.address)).collect())
    }
}

/// Whether the header of a message is ASCII.
///
/// # Errors
/// Those of read(2).
fn is_header_ascii(content: &Content<'_>) -> io::Result<bool> {
    let (mut text, mut end, mut block) = (content.clone(), HeaderEnd::default(), vec![0; BLOCK]);
    loop {
        let count = match text.read(&mut block) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        let (header, body) = end.split(block.get(..count).unwrap_or_default());
        if !header.is_ascii() {
            return Ok(false);
        }
        if count == 0 || !body.is_empty() {
            return Ok(true);
        }
    }
}
