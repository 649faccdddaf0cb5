//! DATA: reads the text of a message, up to the line with a single dot, for [`Incoming`].
//!
//! A message that will be rejected is read to its real end as well, so that no part of it is taken
//! for a command.

use std::io;
use std::time::{Duration, Instant};

use super::incoming::Incoming;
use super::{Phase, Session, Step};
use crate::config::Limits;
use crate::reply;
use crate::smtp::dot::DotReader;

/// The number of bytes read at a time.
const CHUNK: usize = 32 << 10;
/// The lowest rate at which a message may arrive, in octets per second.
const MIN_RATE: u64 = 1 << 10;

impl Session<'_> {
    pub(super) fn data(&mut self) -> Step {
        match &self.phase {
            Phase::Connected => Step::Reply(reply::hello::required()),
            Phase::Greeted(..) => Step::Reply(reply::recipient::needs_sender()),
            Phase::InMail(_, t) if t.envelope.recipients.is_empty() && t.has_refused => {
                Step::Reply(reply::message::no_valid_recipients())
            }
            Phase::InMail(_, t) if t.envelope.recipients.is_empty() => Step::Reply(reply::message::needs_recipient()),
            Phase::InMail(..) => Step::ReadMessage,
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
                    return self.refuse_message(&step);
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
            Err(reply) if reply.code() == 421 => self.refuse_message(&Step::ReplyAndClose(reply)),
            Err(reply) => {
                self.note_refusal(b"DATA", &reply);
                self.send(&reply)
            }
        }
    }

    /// Sends the reply of a step that refuses a message. If the step ends the session, the result
    /// is an error.
    fn refuse_message(&mut self, step: &Step) -> io::Result<()> {
        let (Step::Reply(reply) | Step::ReplyAndClose(reply)) = step else { return Ok(()) };
        self.note_refusal(b"DATA", reply);
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

/// The time limits of a message. The whole message may take `limits.data_timeout` plus the time
/// that its octets take at [`MIN_RATE`]; octets beyond the size limit add no time. Each pause may
/// take `limits.command_timeout`.
struct Pace {
    started: Instant,
    /// The time limit for a pause between two pieces of the text.
    pause: Duration,
    timeout: Duration,
    limit: u64,
    /// The deadline for the rest of a message that exceeds the size limit. Further octets do not
    /// extend the deadline.
    end: Option<Instant>,
}

impl Pace {
    fn new(limits: &Limits) -> Self {
        let (pause, timeout, limit) = (limits.command_timeout, limits.data_timeout, limits.message_size);
        Self { started: Instant::now(), pause, timeout, limit, end: None }
    }

    /// The deadline for the next piece of the text, after `size` octets have arrived.
    fn deadline(&mut self, size: u64, now: Instant) -> Instant {
        let earned = Duration::from_millis(size.min(self.limit) * 1000 / MIN_RATE);
        let deadline = self.started + self.timeout + earned;
        if size > self.limit {
            self.end.get_or_insert(now + self.timeout);
        }
        deadline.min(self.end.unwrap_or(deadline)).min(now + self.pause)
    }
}
