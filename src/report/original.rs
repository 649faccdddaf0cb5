//! Reads the header of an original message, which a report quotes.
//!
//! The original may be damaged or hostile. Whatever cannot be used is left out.

use std::borrow::Cow;

use crate::message::field::fields;

/// The maximum number of octets of the original's header in a report. The number is low because a
/// report may go to the victim of a forged sender, and the header is the forger's text.
const MAX_SHOWN: usize = 8 << 10;
/// The maximum number of message ids in References.
const MAX_REFERENCES: usize = 20;

/// Returns the fields of a header that fit into [`MAX_SHOWN`] octets, in their order. No field is
/// cut.
pub(super) fn shown(header: &[u8]) -> Cow<'_, [u8]> {
    if header.len() <= MAX_SHOWN {
        return header.into();
    }
    let mut shown = Vec::new();
    for field in fields(header) {
        if shown.len() + field.raw.len() <= MAX_SHOWN {
            shown.extend_from_slice(field.raw);
        }
    }
    shown.into()
}

/// Returns the text of the first field with this name, unfolded; `None` if there is no such field.
pub(super) fn field(header: &[u8], name: &str) -> Option<String> {
    fields(header).find(|field| field.is(name)).map(|field| field.text())
}

/// Returns the message ids for References in a reply to the original (RFC 5322 3.6.4). Of a long
/// thread, only the first id and the last ones are kept.
pub(super) fn references(original: &[u8]) -> Vec<String> {
    let mut ids = message_ids(original, "References");
    if ids.is_empty() {
        ids = message_ids(original, "In-Reply-To");
        ids.truncate(if ids.len() == 1 { 1 } else { 0 });
    }
    let parent = message_ids(original, "Message-ID").into_iter().next();
    ids.retain(|id| Some(id) != parent.as_ref());
    ids.extend(parent);
    if ids.len() > MAX_REFERENCES {
        ids.drain(1..=ids.len() - MAX_REFERENCES);
    }
    ids
}

/// Returns the message ids in a field, with their angle brackets. Malformed ids are left out.
pub(super) fn message_ids(header: &[u8], name: &str) -> Vec<String> {
    let is_valid = |id: &&str| (1..=250).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() && b != b'<');
    let value = field(header, name).unwrap_or_default();
    let ids = value.split('<').skip(1).filter_map(|text| text.split_once('>').map(|(id, _)| id));
    ids.filter(is_valid).map(|id| format!("<{id}>")).collect()
}

/// Whether a text is printable ASCII.
pub(super) fn is_printable(text: &str) -> bool {
    text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// Whether a text is readable as it is: neither empty nor with control characters, damaged UTF-8 or
/// encoded words.
pub(super) fn is_readable(text: &str) -> bool {
    !text.is_empty() && !text.contains("=?") && !text.chars().any(|c| c.is_control() || c == '\u{fffd}')
}
