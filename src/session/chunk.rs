//! BDAT: reads one chunk of a message (RFC 3030).
//!
//! The message is kept in the [`Transaction`] from its first chunk to its last. The octets of a
//! chunk are read in any state and after any error, so that they are never taken for commands. If a
//! chunk fails, the message has failed: each further chunk is read and gets the same reply, until
//! the last chunk, RSET, MAIL, HELO or EHLO. All chunks of a message, and the commands between
//! them, have the time limits of one message.

use std::io;
use std::time::Instant;

use super::data::CHUNK;
use super::hello::Hello;
use super::incoming::Incoming;
use super::pace::Pace;
use super::transaction::Transaction;
use super::{Phase, Session, Step};
use crate::envelope::Body;
use crate::message::field::{Lines, Part, Piece};
use crate::policy::Verdict;
use crate::reply::{self, Reply};
use crate::smtp::chunk::{Chunk, ChunkReader};

/// A message that arrives in chunks.
#[derive(Debug)]
pub struct Chunks {
    /// The message so far, or the reply to all further chunks if it has failed.
    incoming: Result<Incoming, Reply>,
    reader: ChunkReader,
    is_binary: bool,
    /// The lines of the header of a binary message.
    header: Lines,
    /// Whether the header of a binary message has a line that belongs to no field.
    is_stray: bool,
    pace: Pace,
    /// The size of the message on the wire so far, in octets, without the chunks that were refused.
    size: u64,
    /// The text of the last piece, kept for its memory.
    text: Vec<u8>,
}

impl Session<'_> {
    /// Whether the current message has failed in a chunk before the last one.
    pub(super) fn has_failed_chunks(&self) -> bool {
        matches!(&self.phase, Phase::InMail(_, t) if t.chunks.as_ref().is_some_and(|chunks| chunks.incoming.is_err()))
    }

    /// Sets the deadline for the next command. In a message that arrives in chunks it is not later
    /// than the deadline of the message.
    pub(super) fn set_command_deadline(&mut self) {
        let limit = self.service.config.limits.command_timeout;
        let chunks =
            if let Phase::InMail(_, transaction) = &mut self.phase { transaction.chunks.as_mut() } else { None };
        match chunks {
            Some(chunks) => self.input.source.set_deadline(chunks.deadline()),
            None => self.input.source.set_limit(limit),
        }
    }

    /// Reads a chunk and replies. If there is a `refusal`, it is the reply.
    pub(super) fn read_chunk(&mut self, chunk: Chunk, refusal: Option<Reply>) -> io::Result<()> {
        if let Some(reply) = refusal.or_else(|| self.refuses_message()) {
            let mut skipped = Chunks::new(Err(reply.clone()), false, Pace::new(&self.service.config.limits));
            self.read_octets(chunk.size, &mut skipped)?;
            return self.refuse_message(b"BDAT", &Step::Reply(reply), None);
        }
        let Phase::InMail(hello, mut transaction) = std::mem::replace(&mut self.phase, Phase::Connected) else {
            return Ok(());
        };
        let mut chunks = match transaction.chunks.take() {
            Some(chunks) => chunks,
            None => Box::new(self.begin_chunks(&hello, &transaction)?),
        };
        let had_failed = chunks.incoming.is_err();
        if let Err(e) = self.read_octets(chunk.size, &mut chunks) {
            return Err(self.cut_off("BDAT", hello, transaction, e));
        }
        chunks.check(chunk.is_last, |verdict| self.apply(verdict));
        if chunk.is_last {
            return self.end_chunks(*chunks, hello, transaction);
        }
        let failure = chunks.incoming.as_ref().err().cloned();
        if failure.is_some() {
            self.filters.abort();
        }
        transaction.chunks = Some(chunks);
        self.phase = Phase::InMail(hello, transaction);
        match failure {
            None => self.send(&reply::message::chunk_received(chunk.size)),
            // Between the first chunk that fails and the last chunk no refusal is counted or
            // logged: the client may have sent the chunks before it could read a reply.
            Some(reply) if had_failed => self.send(&reply),
            Some(reply) => self.refuse_message(b"BDAT", &Step::Reply(reply), None),
        }
    }

    /// Begins a message. It may have failed already. The error is the end of the session, if a
    /// filter wants that.
    fn begin_chunks(&mut self, hello: &Hello, transaction: &Transaction) -> io::Result<Chunks> {
        let incoming = match self.begin_message(hello, transaction) {
            Ok(incoming) => match self.ask_about_data(&incoming.id().to_string()) {
                Ok(()) => Ok(incoming),
                Err(Step::Reply(reply)) => Err(reply),
                Err(step) => {
                    let ended = self.refuse_message(b"BDAT", &step, Some(transaction));
                    return Err(ended.err().unwrap_or(io::ErrorKind::Other.into()));
                }
            },
            Err(reply) => Err(reply),
        };
        let is_binary = transaction.envelope.options.body == Body::Binary;
        Ok(Chunks::new(incoming, is_binary, Pace::new(&self.service.config.limits)))
    }

    /// Ends the message after its last chunk, and sends the reply.
    fn end_chunks(&mut self, chunks: Chunks, hello: Hello, mut transaction: Box<Transaction>) -> io::Result<()> {
        let ended = chunks.incoming.and_then(|incoming| self.end_message(incoming, &hello, &mut transaction));
        self.phase = Phase::Greeted(hello, None);
        self.filters.abort();
        self.answer_message(b"BDAT", ended, &transaction)
    }

    /// Reads the octets of a chunk.
    fn read_octets(&mut self, size: u64, chunks: &mut Chunks) -> io::Result<()> {
        let (mut left, mut is_wide) = (size, false);
        while left > 0 {
            if self.input.is_empty() {
                self.flush()?;
                self.input.source.set_deadline(chunks.deadline());
                self.input.widen(CHUNK);
                is_wide = true;
            }
            let piece = self.input.chunk()?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let piece = &piece[..usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()))];
            chunks.take(piece);
            let count = piece.len();
            left -= count as u64;
            self.input.consume(count);
        }
        if is_wide {
            self.input.narrow();
        }
        Ok(())
    }
}

impl Chunks {
    fn new(incoming: Result<Incoming, Reply>, is_binary: bool, pace: Pace) -> Self {
        let (reader, header) = (ChunkReader::new(is_binary), Lines::default());
        Self { incoming, reader, is_binary, header, is_stray: false, pace, size: 0, text: Vec::new() }
    }

    fn deadline(&mut self) -> Instant {
        self.pace.deadline(self.size, Instant::now())
    }

    /// Takes the next octets of a chunk.
    fn take(&mut self, octets: &[u8]) {
        let Ok(incoming) = &mut self.incoming else { return };
        self.text.clear();
        let body = self.reader.feed(octets, &mut self.text);
        incoming.take(&self.text);
        incoming.take_binary(body);
        self.size = incoming.size();
        self.look_at_header();
    }

    /// Looks for lines that belong to no field, in the header of a binary message. After such a
    /// line, another reader could take the rest of the header for the body, whose lines end
    /// otherwise.
    fn look_at_header(&mut self) {
        let mut text = self.text.as_slice();
        while self.is_binary
            && let Some(piece) = self.header.next(&mut text)
        {
            self.is_stray |= matches!(piece, Piece::Line(Part::Stray | Part::Postmark, _));
        }
    }

    /// Checks the message at the end of a chunk. `apply` turns a verdict into a result.
    fn check(&mut self, is_last: bool, apply: impl Fn(Verdict) -> Result<(), Reply>) {
        let Ok(incoming) = &mut self.incoming else { return };
        self.text.clear();
        if is_last {
            self.reader.finish(&mut self.text);
            incoming.take(&self.text);
        }
        if self.reader.is_flawed() {
            incoming.note_bare_newline();
        }
        let checked = incoming.check(apply);
        self.look_at_header();
        if let Err(reply) = checked {
            self.incoming = Err(reply);
        } else if self.is_stray {
            self.incoming = Err(reply::message::malformed_header());
        }
        // Little is kept from one chunk to the next.
        self.text = Vec::new();
    }
}
