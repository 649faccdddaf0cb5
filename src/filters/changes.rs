//! The changes that filters make to a message and its envelope.

use std::io::{self, Read, Write};

use super::text::TextChanges;
use crate::address::Address;

/// All changes to one message.
#[derive(Debug, Default)]
pub struct Changes {
    /// The changes to the text; `None` if no filter has looked at it.
    pub(super) text: Option<TextChanges>,
    /// The new sender; `Some(None)` is the null path.
    pub sender: Option<Option<Address>>,
    /// Added and removed recipients, in order.
    pub recipients: Vec<RecipientChange>,
    /// The reason for which the message is to be quarantined.
    pub quarantine: Option<String>,
}

/// A change to the recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientChange {
    /// Adds this recipient.
    Add(Address),
    /// Removes this recipient, as RCPT named it.
    Delete(Address),
}

impl Changes {
    /// Whether the text of the message is changed.
    pub fn changes_text(&self) -> bool {
        self.text.as_ref().is_some_and(|text| !text.is_empty())
    }

    /// Copies the original text, with lines ending in LF, from `from` to `out`, with the changes.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn apply(&self, from: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
        match &self.text {
            Some(text) => text.apply(from, out),
            None => super::text::copy(from, out),
        }
    }
}
