//! One message over an open connection: MAIL, RCPT, DATA, the content.
//!
//! With PIPELINING a window of commands is under way at a time, and DATA with the
//! last of them (RFC 2920 3.1). Every recipient gets an answer of its own. Those
//! that are too many for one transaction go in the next over the same connection,
//! which is then given only as many as it took. Trouble is the answer of all who
//! have none yet.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::{CONTENT_LIMIT, Connection, ENVELOPE_LIMIT, SLOWEST, Stage, StageOutcome, State};
use crate::address::path;
use crate::deliver::Delivery;
use crate::envelope::Body;
use crate::outcome::Outcome;
use crate::reply::{Reply, Status};
use crate::smtp::dot::DotWriter;
use crate::smtp::parameters::{MailParameters, RcptParameters};
use crate::spool::{Content, Measure};

/// Commands on their way without an answer: what they and their replies take has
/// room in the buffers of any two hosts, so that neither waits for the other.
const WINDOW: usize = 64;
/// Octets of content read and written at a time.
const BLOCK: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Reset,
    Mail,
    /// RCPT, by the recipient's place.
    Rcpt(usize),
    Data,
}

/// One MAIL ... DATA under way, and what was said to it.
struct Transaction<'a> {
    what: &'a Delivery<'a>,
    measure: Measure,
    /// Answers by the recipient's place.
    answers: &'a mut [Option<StageOutcome>],
    mail_refused: bool,
    accepted: Vec<usize>,
    /// Recipients for another transaction: this one has all that the host will take.
    overflow: Vec<usize>,
    data: Option<Reply>,
}

impl Connection {
    /// Sends a message; one answer for each recipient, in order.
    pub fn send(&mut self, what: &Delivery<'_>) -> Vec<StageOutcome> {
        let mut answers = vec![None; what.recipients.len()];
        let rest = match self.send_to_all(what, &mut answers) {
            Err(trouble) => trouble,
            // Nobody is left; if all the same someone is, he waits.
            Ok(()) => self.answer(Stage::RcptTo, Outcome::deferred(Status(4, 5, 0), "the host said nothing")),
        };
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| rest.clone())).collect()
    }

    fn send_to_all(&mut self, what: &Delivery<'_>, answers: &mut [Option<StageOutcome>]) -> Result<(), StageOutcome> {
        let measure = self.measure(what)?;
        let until = Instant::now() + ENVELOPE_LIMIT;
        let mut todo: Vec<usize> = (0..what.recipients.len()).collect();
        let mut room = todo.len();
        while !todo.is_empty() {
            let later = todo.split_off(room.min(todo.len()));
            let mut transaction = Transaction::new(what, measure, answers);
            self.until = until;
            self.envelope(&mut transaction, &todo)?;
            self.data(&mut transaction)?;
            if !transaction.overflow.is_empty() {
                room = transaction.accepted.len();
            }
            todo = [transaction.overflow, later].concat();
        }
        Ok(())
    }

    /// Measures the content, if the host wants to know.
    fn measure(&mut self, what: &Delivery<'_>) -> Result<Measure, StageOutcome> {
        if self.extensions.size.is_none() && !self.extensions.eight_bit {
            return Ok(Measure { size: 0, is_ascii: true });
        }
        let measure = what.content.measure().map_err(|e| self.unreadable(&e))?;
        match self.extensions.size {
            Some(limit) if limit > 0 && measure.size > limit => {
                let why = format!("the message has {} bytes, and the host takes at most {limit}", measure.size);
                Err(self.answer(Stage::MailFrom, Outcome::failed(Status(5, 3, 4), why)))
            }
            _ => Ok(measure),
        }
    }

    /// MAIL, RCPT for the recipients `todo`, and DATA, as many at a time as may be.
    fn envelope(&mut self, transaction: &mut Transaction<'_>, todo: &[usize]) -> Result<(), StageOutcome> {
        todo.iter().for_each(|&at| transaction.answers[at] = None);
        let mut plan = Vec::with_capacity(todo.len() + 3);
        plan.extend((self.state == State::Begun).then_some(Command::Reset));
        plan.push(Command::Mail);
        plan.extend(todo.iter().map(|&at| Command::Rcpt(at)));
        plan.push(Command::Data);
        let mut plan = plan.as_slice();
        while let Some(&next) = plan.first() {
            if transaction.is_hopeless(next) {
                break;
            }
            let window = if self.extensions.pipelining { WINDOW.min(plan.len()) } else { 1 };
            let group;
            (group, plan) = plan.split_at(window);
            self.expect_silence(next.stage())?;
            let lines: String = group.iter().map(|&command| self.line(command, transaction)).collect();
            self.state = State::Begun;
            self.write(next.stage(), lines.as_bytes())?;
            for &command in group {
                let reply = self.reply(command.stage())?;
                self.take(transaction, command, reply);
            }
            transaction.skip_overflow(&mut plan);
        }
        Ok(())
    }

    fn line(&self, command: Command, transaction: &Transaction<'_>) -> String {
        let what = transaction.what;
        match command {
            Command::Reset => "RSET\r\n".into(),
            Command::Data => "DATA\r\n".into(),
            Command::Rcpt(at) => {
                format!("RCPT TO:{}{}\r\n", path(what.recipients.get(at).copied()), RcptParameters::default())
            }
            Command::Mail => {
                let eight_bit = !transaction.measure.is_ascii || what.body == Body::EightBit;
                let parameters = MailParameters {
                    size: self.extensions.size.map(|_| transaction.measure.size),
                    body: (eight_bit && self.extensions.eight_bit).then_some(Body::EightBit),
                };
                format!("MAIL FROM:{}{parameters}\r\n", path(what.sender))
            }
        }
    }

    /// Notes what was said to a command.
    fn take(&mut self, transaction: &mut Transaction<'_>, command: Command, reply: Reply) {
        let good = (200..300).contains(&reply.code());
        match command {
            Command::Reset => {}
            Command::Data => transaction.data = Some(reply),
            Command::Mail if good => {}
            Command::Mail => {
                let answer = self.declined(Stage::MailFrom, reply);
                transaction.answers.iter_mut().for_each(|slot| _ = slot.get_or_insert_with(|| answer.clone()));
                transaction.mail_refused = true;
            }
            // What is said to RCPT after a refused MAIL has no meaning.
            Command::Rcpt(_) if transaction.mail_refused => {}
            Command::Rcpt(at) if good => transaction.accepted.push(at),
            Command::Rcpt(at) => {
                if is_too_many(&reply) && !transaction.accepted.is_empty() {
                    transaction.overflow.push(at);
                }
                transaction.answers[at] = Some(self.declined(Stage::RcptTo, reply));
            }
        }
    }

    /// What the reply to DATA leads to.
    fn data(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StageOutcome> {
        let answer = match transaction.data.take() {
            None => return Ok(()),
            Some(reply) if !(300..400).contains(&reply.code()) => {
                if !reply.is_refusal() {
                    // It does not know what DATA is: anything may come next.
                    self.state = State::Broken;
                }
                self.declined(Stage::Data, reply)
            }
            Some(_) if transaction.accepted.is_empty() => {
                // The host waits for a message to nobody: an empty one, RFC 2920 3.1.
                self.write(Stage::Data, b".\r\n")?;
                self.reply(Stage::Data)?;
                self.state = State::Idle;
                return Ok(());
            }
            Some(_) => {
                self.expect_silence(Stage::Data)?;
                let reply = self.content(transaction.what)?;
                // What is neither yes nor no may have been meant for an earlier command.
                let in_step = (200..300).contains(&reply.code()) || reply.is_refusal();
                let is_open = in_step && self.state != State::Broken;
                self.state = if is_open { State::Idle } else { State::Broken };
                self.answer(Stage::AfterDot, Outcome::from_reply(Stage::AfterDot.command(), reply))
            }
        };
        transaction.accepted.iter().for_each(|&at| transaction.answers[at] = Some(answer.clone()));
        if self.state == State::Broken { Err(answer) } else { Ok(()) }
    }

    /// The content and its end; what the host said to that.
    fn content(&mut self, what: &Delivery<'_>) -> Result<Reply, StageOutcome> {
        // No dot after an error: the host must not take half a message for a whole one.
        let mut text = what.content.clone();
        self.until = Instant::now() + CONTENT_LIMIT + Duration::from_secs(text.left() / SLOWEST);
        let mut dots = DotWriter::default();
        let mut block = block(&text);
        let mut wire = Vec::with_capacity(block.len() + block.len() / 8);
        loop {
            match read(&mut text, &mut block).map_err(|e| self.unreadable(&e))? {
                [] => break,
                piece => dots.feed(piece, &mut wire),
            }
            if wire.len() >= BLOCK {
                self.write(Stage::Body, &wire)?;
                wire.clear();
            }
        }
        dots.finish(&mut wire);
        self.expect_silence(Stage::Body)?;
        // From here on the host may have the message, and is given all the time there is.
        self.set_host_timeout(None);
        self.write(Stage::AfterDot, &wire)?;
        self.reply(Stage::AfterDot)
    }

    /// The message cannot be read. What the host was given of it has no end.
    fn unreadable(&mut self, error: &io::Error) -> StageOutcome {
        if self.state != State::Idle {
            self.state = State::Broken;
        }
        self.answer(Stage::Content, Outcome::from_io(Stage::Content.phrase(), error))
    }
}

impl<'a> Transaction<'a> {
    fn new(what: &'a Delivery<'a>, measure: Measure, answers: &'a mut [Option<StageOutcome>]) -> Self {
        let (accepted, overflow) = (Vec::new(), Vec::new());
        Self { what, measure, answers, mail_refused: false, accepted, overflow, data: None }
    }

    /// Whether `next` is not worth saying.
    fn is_hopeless(&self, next: Command) -> bool {
        self.mail_refused || (next == Command::Data && self.accepted.is_empty())
    }

    /// Once the host takes no more, those left in the plan wait like the first it
    /// did not take.
    fn skip_overflow(&mut self, plan: &mut &[Command]) {
        let Some(&first) = self.overflow.first() else { return };
        while let Some((&Command::Rcpt(at), rest)) = plan.split_first() {
            self.overflow.push(at);
            self.answers[at] = self.answers[first].clone();
            *plan = rest;
        }
    }
}

impl Command {
    fn stage(self) -> Stage {
        match self {
            Self::Reset => Stage::Reset,
            Self::Mail => Stage::MailFrom,
            Self::Rcpt(_) => Stage::RcptTo,
            Self::Data => Stage::Data,
        }
    }
}

/// Too many recipients in this transaction (RFC 5321 4.5.3.1.10, where 552 is read
/// as 452), and not a mailbox that is full.
fn is_too_many(reply: &Reply) -> bool {
    matches!(reply.code(), 452 | 552)
        && reply.status().is_none_or(|Status(_, subject, detail)| (subject, detail) == (5, 3))
}

/// Room for a piece of the content, and no more than there is to read.
fn block(text: &Content<'_>) -> Vec<u8> {
    vec![0; usize::try_from(text.left()).map_or(BLOCK, |left| left.clamp(1, BLOCK))]
}

/// The next piece of the content; nothing at its end.
fn read<'a>(file: &mut impl Read, block: &'a mut [u8]) -> io::Result<&'a [u8]> {
    loop {
        match file.read(block) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(count) => return Ok(&block[..count]),
        }
    }
}
