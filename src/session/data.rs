//! DATA: reads the text of a message, up to the line with a single dot, for [`Incoming`].
//!
//! A message that will be rejected is read to its real end as well, so that no part of it is taken
//! for a command.

use std::io;
use std::time::Instant;

use super::incoming::Incoming;
use super::pace::Pace;
use super::{Phase, Session, Step};
use crate::envelope::Body;
use crate::reply::{self, Reply};
use crate::smtp::dot::DotReader;

/// The number of bytes read at a time.
pub(super) const CHUNK: usize = 32 << 10;

impl Session<'_> {
    #[inline(never)]
    pub(super) fn data(&mut self) -> Step {
        let refusal = match &self.phase {
            Phase::InMail(_, t) if t.chunks.is_some() => Some(reply::message::chunks_have_begun()),
            Phase::InMail(_, t) if t.envelope.options.body == Body::Binary => Some(reply::message::needs_bdat()),
            _ => self.refuses_message(),
        };
        refusal.map_or(Step::ReadMessage, Step::Reply)
    }

    /// Why no message can begin now: the reply to DATA or BDAT. Returns `None` if one can begin.
    pub(super) fn refuses_message(&self) -> Option<Reply> {
        match &self.phase {
            Phase::Connected => Some(self.hello_required()),
            Phase::Greeted(..) => Some(reply::recipient::needs_sender()),
            // In LMTP this is 503 (RFC 2033 4.2).
            Phase::InMail(_, t) if t.envelope.recipients.is_empty() && t.has_refused && !self.is_lmtp() => {
                Some(reply::message::no_valid_recipients())
            }
            Phase::InMail(_, t) if t.envelope.recipients.is_empty() => Some(reply::message::needs_recipient()),
            Phase::InMail(..) => None,
        }
    }

    /// Reads a message, ends the transaction and sends the reply.
    pub(super) fn read_message(&mut self) -> io::Result<()> {
        let Phase::InMail(hello, mut transaction) = std::mem::replace(&mut self.phase, Phase::Connected) else {
            return Ok(());
        };
        let begun = self
            .begin_message(&hello, &transaction)
            .map_err(Step::Reply)
            .and_then(|incoming| self.ask_about_data(&incoming.id().to_string()).map(|()| incoming));
        let mut incoming = match begun {
            Ok(incoming) => incoming,
            Err(step) => {
                self.phase = Phase::Greeted(hello, None);
                self.filters.abort();
                return self.refuse_message(b"DATA", &step, Some(&transaction));
            }
        };
        if let Err(e) = self.receive_text(&mut incoming) {
            return Err(self.cut_off("DATA", hello, transaction, e));
        }
        let ended = self.end_message(incoming, &hello, &mut transaction);
        self.phase = Phase::Greeted(hello, None);
        self.filters.abort();
        self.answer_message(b"DATA", ended, &transaction)
    }

    /// Asks for the text of a message, and reads it.
    fn receive_text(&mut self, incoming: &mut Incoming) -> io::Result<()> {
        self.send(&reply::message::go_ahead())?;
        self.flush()?;
        self.read_to_the_dot(incoming)
    }

    fn read_to_the_dot(&mut self, incoming: &mut Incoming) -> io::Result<()> {
        let mut pace = Pace::new(&self.service.config.limits);
        let (mut reader, mut text) = (DotReader::default(), Vec::new());
        loop {
            self.input.source.set_deadline(pace.deadline(incoming.size(), Instant::now()));
            self.input.widen(CHUNK);
            let chunk = self.input.chunk()?;
            if chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            text.clear();
            let (used, ended) = reader.feed(chunk, &mut text);
            self.input.consume(used);
            if reader.is_flawed() {
                incoming.note_bare_newline();
            }
            incoming.take(&text);
            if ended {
                self.input.narrow();
                return Ok(());
            }
        }
    }
}
