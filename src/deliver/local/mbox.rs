//! Delivers a message into a file of many messages, mbox(5).
//!
//! This module makes the line that separates messages, and `deliver::agent::mbox` locks and writes
//! the file. After a crash it is unknown whether the message was written, so the message may be
//! delivered twice.

use std::path::Path;

use super::{LocalDelivery, not_performed};
use crate::deliver::agent::{Request, Response};
use crate::log;
use crate::outcome::{Outcome, Via};
use crate::spool::RecipientEntry;
use crate::users::Owner;

impl LocalDelivery<'_> {
    /// Appends the message to a file.
    pub(super) fn append(&self, addressee: &RecipientEntry, file: &Path, owner: &Owner) -> Outcome {
        let sender = self.entry.sender().map_or_else(|| "MAILER-DAEMON".to_owned(), ToString::to_string);
        let date = log::local_time().strftime("%a %b %e %H:%M:%S %Y").to_string();
        let head = format!("From {} {date}\n{}", sender.replace(' ', "_"), self.entry.delivery_head(addressee));
        let request = Request::Append { file: file.to_owned(), head, content: self.content() };
        let outcome = match self.perform(owner, &request) {
            Ok(Response::Done) => Outcome::delivered(""),
            other => not_performed(other),
        };
        outcome.via(Via::Mbox).at(file.to_string_lossy())
    }
}
