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
            Phase::Connected => Some(reply::hello::required()),
            Phase::Greeted(..) => Some(reply::recipient::needs_sender()),
            Phase::InMail(_, t) if t.envelope.recipients.is_empty() && t.has_refused => {
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
        let ended = match self.begin_message(&hello, &transaction) {
            Ok(mut incoming) => {
                if let Err(step) = self.ask_about_data(&incoming.id().to_string()) {
                    self.phase = Phase::Greeted(hello, None);
                    return self.refuse_message(b"DATA", &step);
                }
                self.send(&reply::message::go_ahead())?;
                self.flush()?;
                self.read_to_the_dot(&mut incoming)?;
                self.end_message(incoming, &hello, &mut transaction)
            }
            Err(reply) => Err(reply),
        };
        self.phase = Phase::Greeted(hello, None);
        self.filters.abort();
        match ended {
            Ok(accepted) => self.confirm(&accepted, &transaction),
            Err(reply) if reply.code() == 421 => self.refuse_message(b"DATA", &Step::ReplyAndClose(reply)),
            Err(reply) => self.refuse_message(b"DATA", &Step::Reply(reply)),
        }
    }

    /// Sends the reply of a step that refuses a message, and logs it with the message's command. If
    /// the step ends the session, the result is an error.
    pub(super) fn refuse_message(&mut self, command: &[u8], step: &Step) -> io::Result<()> {
        let (Step::Reply(reply) | Step::ReplyAndClose(reply)) = step else { return Ok(()) };
        self.note_refusal(command, reply);
        if matches!(step, Step::Reply(_)) {
            return self.send(reply);
        }
        self.close_with(reply)?;
        Err(io::ErrorKind::ConnectionAborted.into())
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
