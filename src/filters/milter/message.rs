//! The events of a message: header, body and end, and the changes that the filter makes then.

use std::fs::File;
use std::io::{self, Read};
use std::time::Instant;

use super::macros::Stage;
use super::options::protocol;
use super::packet::{self, MAX_DATA, command, push_text};
use super::{Change, Event, Milter, Response};
use crate::address::Address;
use crate::filters::Trouble;
use crate::filters::facts::Client;
use crate::filters::text::{Body, Header, NewBody, Text};

/// The maximum number of changes that a filter makes to one message. Each packet of a new body
/// counts as a change.
const MAX_CHANGES: usize = 2000;

const HEADER: Event = Event {
    letter: command::HEADER,
    unwanted: protocol::NO_HEADERS,
    unanswered: protocol::NO_REPLY_TO_HEADER,
    stage: None,
};
const END_OF_HEADER: Event = Event {
    letter: command::END_OF_HEADER,
    unwanted: protocol::NO_END_OF_HEADER,
    unanswered: protocol::NO_REPLY_TO_END_OF_HEADER,
    stage: Some(Stage::EndOfHeader),
};
const BODY: Event =
    Event { letter: command::BODY, unwanted: protocol::NO_BODY, unanswered: protocol::NO_REPLY_TO_BODY, stage: None };

/// The changes that one filter has made to a message.
#[derive(Debug, Default)]
pub struct Edits {
    /// The changed header; `None` if it is unchanged.
    pub header: Option<Header>,
    /// The new body.
    pub body: Option<Body>,
    /// The new sender.
    pub sender: Option<Option<Address>>,
    /// Added and removed recipients, in order.
    pub recipients: Vec<Change>,
    /// The reason for quarantine.
    pub quarantine: Option<String>,
    /// The number of fields of which the filter was shown only the beginning.
    pub cut: usize,
}

/// The limit on a new body from a filter, and the place for a large one.
pub struct Room<'a> {
    /// The maximum size of a new body.
    pub size: u64,
    /// Makes a file without a name for a large body.
    pub scratch: &'a dyn Fn() -> io::Result<File>,
    /// Whether the file system of such files has room for more.
    pub has_room: &'a dyn Fn() -> io::Result<bool>,
}

/// The error while a message is sent to a filter.
#[derive(Debug)]
pub enum MessageError {
    /// The filter is in trouble.
    Filter(Trouble),
    /// The message cannot be read.
    Content(io::Error),
}

impl From<Trouble> for MessageError {
    fn from(trouble: Trouble) -> Self {
        Self::Filter(trouble)
    }
}

impl Milter {
    /// Sends a message, and reads the verdict and the changes. All of it must end by `deadline`.
    ///
    /// # Errors
    /// If the filter fails or violates the protocol, or if the message cannot be read.
    pub fn message(
        &mut self,
        client: &Client,
        text: &Text<'_>,
        room: &Room<'_>,
        deadline: Instant,
    ) -> Result<(Response, Edits), MessageError> {
        self.link.set_deadline(deadline);
        let mut edits = Edits::default();
        if let Some(early) = self.header(client, text, &mut edits.cut)? {
            return Ok((early, edits));
        }
        if let Some(early) = self.body(text)? {
            return Ok((early, edits));
        }
        self.put_macros(command::END_OF_BODY, Stage::EndOfMessage, client, None)?;
        packet::put(&mut self.link, command::END_OF_BODY, b"")?;
        let ended = self.changes(text, room, edits)?;
        // The filter has forgotten the message now.
        self.is_in_message = false;
        self.id.clear();
        Ok(ended)
    }

    /// Sends the header, and counts the fields that are cut. Returns an answer that makes the rest
    /// superfluous.
    ///
    /// A field that does not fit into a packet is cut, because libmilter closes the connection when
    /// a packet is longer. It is not left out, because filters refer to fields by number, and may
    /// refuse a message that lacks a field.
    fn header(&mut self, client: &Client, text: &Text<'_>, cut: &mut usize) -> Result<Option<Response>, Trouble> {
        let with_space = self.options.has(protocol::LEADING_SPACE);
        let mut data = Vec::new();
        for field in &text.header.fields {
            let is_whole = put_field(&mut data, field.name(), field.value(with_space));
            *cut += usize::from(!is_whole && !self.options.has(HEADER.unwanted));
            match self.step(&HEADER, &data)? {
                Response::Continue => {}
                Response::Skip => break,
                early => return Ok(Some(early)),
            }
        }
        self.put_macros(command::END_OF_HEADER, Stage::EndOfHeader, client, None)?;
        match self.step(&END_OF_HEADER, b"")? {
            Response::Continue | Response::Skip => Ok(None),
            early => Ok(Some(early)),
        }
    }

    /// Sends the body, with lines ending in CR LF. Returns an answer that makes the rest
    /// superfluous.
    fn body(&mut self, text: &Text<'_>) -> Result<Option<Response>, MessageError> {
        if self.options.has(BODY.unwanted) {
            return Ok(None);
        }
        let mut reader = text.body().map_err(MessageError::Content)?;
        let (mut block, mut data) = (vec![0; MAX_DATA / 2], Vec::new());
        loop {
            let count = match reader.read(&mut block) {
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(MessageError::Content(e)),
            };
            let piece = block.get(..count).unwrap_or_default();
            if piece.is_empty() {
                return Ok(None);
            }
            data.clear();
            for line in piece.split_inclusive(|&b| b == b'\n') {
                match line.strip_suffix(b"\n") {
                    Some(line) => {
                        data.extend_from_slice(line);
                        data.extend_from_slice(b"\r\n");
                    }
                    None => data.extend_from_slice(line),
                }
            }
            match self.step(&BODY, &data)? {
                Response::Continue => {}
                Response::Skip => return Ok(None),
                early => return Ok(Some(early)),
            }
        }
    }

    /// Reads changes up to the verdict.
    fn changes(&mut self, text: &Text<'_>, room: &Room<'_>, mut edits: Edits) -> Result<(Response, Edits), Trouble> {
        let has_space = self.options.has(protocol::LEADING_SPACE);
        let mut body = None;
        for _ in 0..MAX_CHANGES {
            let change = match self.answer()? {
                Response::Change(change) => change,
                verdict => {
                    edits.body = body.map(NewBody::end).transpose()?;
                    return Ok((verdict, edits));
                }
            };
            let original = || text.header.clone();
            match change {
                Change::AddField(field) => edits.header.get_or_insert_with(original).add(&field, has_space)?,
                Change::InsertField(index, field) => {
                    edits.header.get_or_insert_with(original).insert(index, &field, has_space)?;
                }
                Change::ChangeField(index, field) => {
                    edits.header.get_or_insert_with(original).change(index, &field, has_space)?;
                }
                Change::Body(piece) => {
                    body.get_or_insert_with(|| NewBody::new(room.size, room.scratch, room.has_room)).take(&piece)?;
                }
                Change::AddRecipient(_) | Change::DeleteRecipient(_) => edits.recipients.push(change),
                Change::Sender(sender) => edits.sender = Some(sender),
                Change::Quarantine(reason) => edits.quarantine = Some(reason),
            }
        }
        Err(Trouble::new("it makes too many changes"))
    }
}

/// Makes the data of a packet from a field. Returns false if the field is too long and was cut.
fn put_field(data: &mut Vec<u8>, name: &[u8], value: &[u8]) -> bool {
    // Each of the two texts ends in a NUL.
    let room = MAX_DATA - 2;
    let (shown, _) = name.split_at_checked(room).unwrap_or((name, b""));
    let (begin, rest) = value.split_at_checked(room - shown.len()).unwrap_or((value, b""));
    data.clear();
    push_text(data, shown);
    // A filter that copies the value must not end the field with an empty line.
    push_text(data, if rest.is_empty() { begin } else { begin.trim_ascii_end() });
    shown == name && rest.is_empty()
}
