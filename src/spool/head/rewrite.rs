//! Writes the head of an entry anew, with other recipients.

use super::{Head, RECORD, RecipientEntry, end, lines};
use crate::envelope::Envelope;
use crate::spool::derivation::Derivation;

use super::Marks;

/// The queued head that says the same as `head`, but has these recipients with their records, in
/// this order. It has at least `fill` bytes, as far as blanks at the end of its last line allow that.
pub fn rewritten(head: &Head, recipients: &[RecipientEntry], fill: usize) -> String {
    let envelope = Envelope {
        sender: head.sender.clone(),
        recipients: recipients.iter().map(|to| to.recipient.clone()).collect(),
        options: head.options.clone(),
        origin: head.origin,
    };
    let shares = recipients.iter().map(|to| to.share).collect();
    let derivation = Derivation { steps: head.steps.clone(), shares, folder: None };
    let marks = Marks { reason: head.reason.as_deref(), folder: head.folder.as_ref() };
    let mut text = String::new();
    for (number, line) in lines(&envelope, &derivation, marks, head.measure).split_inclusive('\n').enumerate() {
        let record = number.checked_sub(1).and_then(|number| recipients.get(number)).map(|to| to.record.encode());
        match record {
            Some(record) => {
                text.extend(record.iter().map(|&b| char::from(b)));
                text.push_str(line.get(RECORD..).unwrap_or_default());
            }
            None => text.push_str(line),
        }
    }
    // Blanks at the end of the last line do not move any record.
    let blanks = fill.saturating_sub(text.len() + 1);
    text.truncate(text.len().saturating_sub(1));
    text.extend(std::iter::repeat_n(' ', blanks));
    text.push('\n');
    end(text)
}
