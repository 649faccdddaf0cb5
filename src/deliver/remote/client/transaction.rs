//! Sends one message over an open connection: MAIL, RCPT, DATA, the content. A binary message goes
//! by BDAT in place of DATA (RFC 3030), in one chunk, to a host that offers BINARYMIME.
//!
//! With PIPELINING the client sends up to [`WINDOW`] commands before it reads the replies, and
//! sends DATA together with the last RCPT (RFC 2920 3.1). Every recipient gets its own outcome. If
//! the host accepts no more recipients, the others follow in the next transaction over the same
//! connection. That transaction has at most as many recipients as the host has just accepted. If the
//! host states limits (RFC 9422), they are kept from the start. If
//! the connection breaks, the recipients without an outcome get the broken connection as their
//! outcome.
//!
//! A mail store sends one reply for each accepted recipient after the final dot, in the order of the
//! RCPT commands (RFC 2033 4.2). A 421 among these replies is the outcome of all recipients without
//! an earlier reply, because no later reply can be assigned to a recipient.

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

use super::fit::{Fit, fit, is_sent_unconverted, not_converted};
use super::{CONTENT_LIMIT, Connection, ENVELOPE_LIMIT, MIN_RATE, Stage, StageOutcome, State, deadline, limits};
use crate::address::{Address, path};
use crate::deliver::Delivery;
use crate::envelope::Body;
use crate::log;
use crate::message::mime::Conversion;
use crate::outcome::Outcome;
use crate::reply::{Reply, Status};
use crate::smtp::chunk::BinaryWriter;
use crate::smtp::dot::DotWriter;
use crate::smtp::parameters::{MailParameters, RcptParameters, Sent};
use crate::spool::{Content, Measure};
use crate::sys::now;

/// Maximum number of commands that await replies. They and their replies fit into the socket
/// buffers of any two hosts, so that there is no deadlock.
const WINDOW: usize = 64;
/// Size of the blocks in which the content is read and sent, in bytes.
const BLOCK_SIZE: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Reset,
    Mail,
    /// RCPT, with the index of the recipient.
    Rcpt(usize),
    Data,
}

/// One transaction.
struct Transaction<'a> {
    delivery: &'a Delivery<'a>,
    measure: Measure,
    /// Whether the content goes by BDAT, octet for octet.
    is_binary: bool,
    /// The outcome of each recipient, in the order of the delivery's recipients.
    answers: &'a mut [Option<StageOutcome>],
    mail_refused: bool,
    accepted: Vec<usize>,
    /// The indices of the recipients that are left to the next transaction, because the host
    /// accepts no more recipients in this transaction.
    overflow: Vec<usize>,
    data: Option<Reply>,
}

impl Connection {
    /// Sends a message whose addresses and header the host can take. Returns the outcome for each
    /// recipient, in order.
    pub(super) fn send_to_all(&mut self, delivery: &Delivery<'_>) -> Vec<StageOutcome> {
        let mut answers = vec![None; delivery.recipients.len()];
        let rest = match self.transactions(delivery, &mut answers) {
            Err(trouble) => trouble,
            // Every recipient should have an outcome by now. A recipient without an outcome is
            // tried again later.
            Ok(()) => self.answer(Stage::RcptTo, Outcome::deferred(Status(4, 5, 0), "the host said nothing")),
        };
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| rest.clone())).collect()
    }

    /// Returns the indices of the recipients that the last [`Connection::send`] has left out, because
    /// the host accepts no more transactions over this connection. Their outcomes say so.
    pub fn take_left(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.left)
    }

    fn transactions(
        &mut self,
        delivery: &Delivery<'_>,
        answers: &mut [Option<StageOutcome>],
    ) -> Result<(), StageOutcome> {
        // The stage is that before MAIL, because another host may do better.
        if let Some(outcome) = self.refuses_tls_demand(delivery) {
            return Err(self.answer(Stage::Hello, outcome));
        }
        // In a mail store the message is delivered, and not passed on.
        if let Some(outcome) = deadline::refusal(&self.extensions, delivery.options, now())
            && !self.is_store()
        {
            return Err(self.answer(Stage::Hello, outcome));
        }
        let measure = delivery.content.measure().map_err(|e| self.unreadable(&e))?;
        match fit(&self.extensions, delivery.options, measure) {
            Fit::AsItIs => self.send_fit(delivery, measure, answers),
            Fit::Converted(conversion) => self.send_converted(delivery, measure, conversion, answers),
        }
    }

    fn send_converted(
        &mut self,
        delivery: &Delivery<'_>,
        measure: Measure,
        conversion: Conversion,
        answers: &mut [Option<StageOutcome>],
    ) -> Result<(), StageOutcome> {
        let converted = delivery.converter.convert(&delivery.content, delivery.options, conversion);
        let converted = converted
            .map_err(|e| self.answer(Stage::Content, Outcome::from_io("convert the message for the host", &e)))?;
        let converted = match converted {
            Ok(converted) => converted,
            Err(why) if is_sent_unconverted(conversion, measure, why) => {
                return self.send_fit(delivery, measure, answers);
            }
            Err(why) => {
                let (stage, outcome) = not_converted(conversion, why);
                return Err(self.answer(stage, outcome));
            }
        };
        log::converted(&delivery.id, &self.peer, conversion);
        let (content, options) = (converted.content(), &converted.options);
        let measure = content.measure().map_err(|e| self.unreadable(&e))?;
        self.send_fit(&Delivery { content, options, ..delivery.clone() }, measure, answers)
    }

    /// Sends a message that the host can take.
    fn send_fit(
        &mut self,
        delivery: &Delivery<'_>,
        measure: Measure,
        answers: &mut [Option<StageOutcome>],
    ) -> Result<(), StageOutcome> {
        self.check_size(measure)?;
        let until = delivery.ask_until.unwrap_or_else(|| Instant::now() + ENVELOPE_LIMIT);
        let mut todo: Vec<usize> = (0..delivery.recipients.len()).collect();
        let mut room = todo.len();
        while !todo.is_empty() {
            if self.is_spent() {
                self.left = todo;
                let why = "the host takes no more messages over this connection";
                return Err(self.answer(Stage::RcptTo, Outcome::deferred(Status(4, 5, 3), why)));
            }
            let domain = |index: usize| delivery.recipients.get(index).map(|to| to.address.domain());
            let now = limits::next(&mut todo, self.extensions.limits.unwrap_or_default(), room, domain);
            let is_binary = delivery.options.body == Body::Binary;
            let mut transaction = Transaction::new(delivery, measure, is_binary, answers);
            self.deadline = until;
            self.envelope(&mut transaction, &now)?;
            self.data(&mut transaction)?;
            if !transaction.overflow.is_empty() {
                room = transaction.accepted.len();
            }
            todo = [transaction.overflow, todo].concat();
        }
        Ok(())
    }

    /// Fails if the content is larger than the host allows.
    fn check_size(&self, measure: Measure) -> Result<(), StageOutcome> {
        match self.extensions.size {
            Some(limit) if limit > 0 && measure.size > limit => {
                let why = format!("the message has {} bytes, and the host takes at most {limit}", measure.size);
                Err(self.answer(Stage::MailFrom, Outcome::failed(Status(5, 3, 4), why)))
            }
            _ => Ok(()),
        }
    }

    /// Sends MAIL, RCPT for each recipient in `todo`, and DATA, and notes the replies. Sends as
    /// many commands at a time as the host allows.
    fn envelope(&mut self, transaction: &mut Transaction<'_>, todo: &[usize]) -> Result<(), StageOutcome> {
        todo.iter().for_each(|&index| transaction.answers[index] = None);
        self.mails_left = self.mails_left.map(|left| left.saturating_sub(1));
        let mut plan = Vec::with_capacity(todo.len() + 3);
        plan.extend((self.state == State::Begun).then_some(Command::Reset));
        plan.push(Command::Mail);
        plan.extend(todo.iter().map(|&index| Command::Rcpt(index)));
        if !transaction.is_binary && !transaction.delivery.is_question() {
            plan.push(Command::Data);
        }
        let mut plan = plan.as_slice();
        while let Some(&next) = plan.first() {
            if transaction.is_pointless(next) {
                break;
            }
            let window = if self.extensions.pipelining { WINDOW.min(plan.len()) } else { 1 };
            let group;
            (group, plan) = plan.split_at(window);
            self.expect_silence(next.stage())?;
            let mut lines = String::new();
            for &command in group {
                let line = self.line(command, transaction);
                self.recorder.command(&line, command.recipient(transaction.delivery));
                lines.push_str(&line);
            }
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
        let delivery = transaction.delivery;
        match command {
            Command::Reset => "RSET\r\n".into(),
            Command::Data => "DATA\r\n".into(),
            Command::Rcpt(index) => {
                let recipient = delivery.recipients.get(index);
                let options = recipient.map(|to| {
                    let options = deadline::rcpt_options(&self.extensions, delivery.options, &to.options, now());
                    RcptParameters::for_host(&self.extensions, &options)
                });
                format!("RCPT TO:{}{}\r\n", path(recipient.map(|to| &to.address)), options.unwrap_or_default())
            }
            Command::Mail => {
                let measure = transaction.measure;
                let sent = Sent { options: delivery.options, size: measure.size, is_ascii: measure.is_ascii };
                let mut parameters = MailParameters::for_host(&self.extensions, sent, now());
                parameters.size = parameters.size.filter(|_| !delivery.is_question());
                // The submitter of the message is not known to the host (RFC 4954 5).
                let submitter = if self.logged_in { " AUTH=<>" } else { "" };
                format!("MAIL FROM:{}{parameters}{submitter}\r\n", path(delivery.sender))
            }
        }
    }

    /// Notes the reply to a command.
    fn take(&mut self, transaction: &mut Transaction<'_>, command: Command, reply: Reply) {
        let good = (200..300).contains(&reply.code());
        match command {
            Command::Reset => {}
            Command::Data => transaction.data = Some(reply),
            Command::Mail if good => {}
            Command::Mail => {
                let answer = self.rejected_in_transaction(Stage::MailFrom, reply);
                transaction.answers.iter_mut().for_each(|slot| _ = slot.get_or_insert_with(|| answer.clone()));
                transaction.mail_refused = true;
            }
            // After a rejected MAIL the replies to RCPT are meaningless.
            Command::Rcpt(_) if transaction.mail_refused => {}
            Command::Rcpt(index) if good && transaction.delivery.is_question() => {
                transaction.answers[index] = Some(self.answer(Stage::RcptTo, Outcome::from_reply("RCPT", reply)));
            }
            Command::Rcpt(index) if good => transaction.accepted.push(index),
            Command::Rcpt(index) => {
                if is_too_many(&reply) && !transaction.accepted.is_empty() {
                    transaction.overflow.push(index);
                }
                transaction.answers[index] = Some(self.rejected_in_transaction(Stage::RcptTo, reply));
            }
        }
    }

    /// Acts on the reply to DATA: sends the content, or notes the rejection.
    fn data(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StageOutcome> {
        let answer = match transaction.data.take() {
            None if transaction.is_binary && !transaction.accepted.is_empty() => {
                self.expect_silence(Stage::Data)?;
                let sent = self.chunk(transaction.delivery, transaction.measure.size);
                sent.map_err(|answer| self.about_all(answer))?;
                return self.after_content(transaction);
            }
            None => return Ok(()),
            Some(reply) if !(300..400).contains(&reply.code()) => {
                if !reply.is_refusal() {
                    // The code is neither 3xx nor a rejection, so the next replies cannot be relied
                    // on.
                    self.state = State::Broken;
                }
                self.rejected_in_transaction(Stage::Data, reply)
            }
            // The store has accepted DATA although it rejected all recipients. RFC 2033 4.2 forbids
            // that, and says nothing about replies to the message.
            Some(_) if transaction.accepted.is_empty() && self.is_store() => {
                self.state = State::Broken;
                return Ok(());
            }
            Some(_) if transaction.accepted.is_empty() => {
                // The host has accepted DATA although it rejected all recipients: the client sends
                // an empty message (RFC 2920 3.1).
                self.recorder.remark("no message is sent, since no recipient was accepted");
                self.write(Stage::Data, b".\r\n")?;
                self.reply(Stage::Data)?;
                self.state = State::Idle;
                return Ok(());
            }
            Some(_) => {
                self.expect_silence(Stage::Data)?;
                let sent = self.content(transaction.delivery);
                sent.map_err(|answer| self.about_all(answer))?;
                return self.after_content(transaction);
            }
        };
        transaction.accepted.iter().for_each(|&index| transaction.answers[index] = Some(answer.clone()));
        if self.state == State::Broken { Err(answer) } else { Ok(()) }
    }

    /// The outcome for all recipients if the content could not be sent. A rejection by a mail store
    /// may be about one recipient, so it is not final.
    fn about_all(&self, answer: StageOutcome) -> StageOutcome {
        if self.is_store() { answer.deferred() } else { answer }
    }

    /// Reads the replies to the whole content: one from a host, and one for each accepted recipient
    /// from a mail store. The recipients without a reply are left without an outcome.
    fn after_content(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StageOutcome> {
        if !self.is_store() {
            let answer = self.reply_to_content()?;
            transaction.accepted.iter().for_each(|&index| transaction.answers[index] = Some(answer.clone()));
            return if self.state == State::Broken { Err(answer) } else { Ok(()) };
        }
        let until = Instant::now() + ENVELOPE_LIMIT;
        for &index in &transaction.accepted {
            let answer = self.reply_to_content();
            let (Ok(known) | Err(known)) = &answer;
            if let (Some(reply), Some(to)) = (&known.outcome.reply, transaction.delivery.recipients.get(index)) {
                self.recorder.reply_about(reply, &to.address);
            }
            let answer = answer?;
            if self.state == State::Broken {
                return Err(answer);
            }
            transaction.answers[index] = Some(answer);
            if Instant::now() > until {
                return Err(self.broken(Stage::AfterDot, &ErrorKind::TimedOut.into()));
            }
        }
        // Further replies would be taken for those to the next message.
        if !self.input.is_empty() || !matches!(self.input.source.has_input(), Ok(false)) {
            self.state = State::Broken;
        }
        Ok(())
    }

    /// Reads a reply to the content. Unless it is certain that the reply is one to the content, the
    /// connection is not used any more.
    fn reply_to_content(&mut self) -> Result<StageOutcome, StageOutcome> {
        let reply = self.reply(Stage::AfterDot)?;
        // Any code but 2xx, 4xx and 5xx may be a late reply to an earlier command.
        let is_expected = (200..300).contains(&reply.code()) || reply.is_refusal();
        let is_open = is_expected && self.state != State::Broken;
        self.state = if is_open { State::Idle } else { State::Broken };
        Ok(self.answer(Stage::AfterDot, Outcome::from_reply(Stage::AfterDot.command(), reply)))
    }

    /// Sends a binary content of `size` octets on the wire in one chunk.
    fn chunk(&mut self, delivery: &Delivery<'_>, size: u64) -> Result<(), StageOutcome> {
        let mut text = delivery.content.clone();
        self.deadline = Instant::now() + CONTENT_LIMIT + Duration::from_secs(text.left() / MIN_RATE);
        let (mut writer, mut block) = (BinaryWriter::default(), block(&text));
        let mut wire = format!("BDAT {size} LAST\r\n").into_bytes();
        let mut left = size + wire.len() as u64;
        while let piece @ [_, ..] = read(&mut text, &mut block).map_err(|e| self.unreadable(&e))? {
            // The host takes the octets that were announced for the whole message. So the last ones
            // are sent only if they are the end of the content.
            if wire.len() >= BLOCK_SIZE && (wire.len() as u64) < left {
                self.write(Stage::Body, &wire)?;
                left -= wire.len() as u64;
                wire.clear();
            }
            if wire.len() as u64 > left {
                break;
            }
            writer.feed(piece, &mut wire);
        }
        if wire.len() as u64 != left {
            return Err(self.unreadable(&io::Error::other("it does not have the size that was noted for it")));
        }
        self.expect_silence(Stage::Body)?;
        // From here on the host may accept the message, and gets the full time.
        self.set_host_timeout(None);
        self.recorder.command(&format!("BDAT {size} LAST, and the message"), None);
        self.write(Stage::AfterDot, &wire)
    }

    /// Sends the content and the final dot.
    fn content(&mut self, delivery: &Delivery<'_>) -> Result<(), StageOutcome> {
        // If the content cannot be read, no final dot is sent: the host must not accept a truncated
        // message.
        let mut text = delivery.content.clone();
        self.deadline = Instant::now() + CONTENT_LIMIT + Duration::from_secs(text.left() / MIN_RATE);
        let mut dots = DotWriter::default();
        let mut block = block(&text);
        let mut wire = Vec::with_capacity(block.len() + block.len() / 8);
        loop {
            match read(&mut text, &mut block).map_err(|e| self.unreadable(&e))? {
                [] => break,
                piece => dots.feed(piece, &mut wire),
            }
            if wire.len() >= BLOCK_SIZE {
                self.write(Stage::Body, &wire)?;
                wire.clear();
            }
        }
        dots.finish(&mut wire);
        self.expect_silence(Stage::Body)?;
        // From here on the host may accept the message, and gets the full time.
        self.set_host_timeout(None);
        self.recorder.command("the message, and a dot", None);
        self.write(Stage::AfterDot, &wire)
    }

    /// The outcome if the content cannot be read. Once the transaction has begun, the dialogue
    /// cannot continue.
    pub(super) fn unreadable(&mut self, error: &io::Error) -> StageOutcome {
        if self.state != State::Idle {
            self.state = State::Broken;
        }
        self.answer(Stage::Content, Outcome::from_io(Stage::Content.phrase(), error))
    }
}

impl<'a> Transaction<'a> {
    fn new(
        delivery: &'a Delivery<'a>,
        measure: Measure,
        is_binary: bool,
        answers: &'a mut [Option<StageOutcome>],
    ) -> Self {
        let (accepted, overflow) = (Vec::new(), Vec::new());
        Self { delivery, measure, is_binary, answers, mail_refused: false, accepted, overflow, data: None }
    }

    /// Whether a command cannot succeed after the replies so far.
    fn is_pointless(&self, next: Command) -> bool {
        self.mail_refused || (next == Command::Data && self.accepted.is_empty())
    }

    /// If the host accepts no more recipients, leaves the remaining ones to the next transaction.
    /// Until that transaction, they have the outcome of the first recipient that was too many.
    fn skip_overflow(&mut self, plan: &mut &[Command]) {
        let Some(&first) = self.overflow.first() else { return };
        while let Some((&Command::Rcpt(index), rest)) = plan.split_first() {
            self.overflow.push(index);
            self.answers[index] = self.answers[first].clone();
            *plan = rest;
        }
    }
}

impl Command {
    /// The recipient that the command is about; `None` if it is about the whole message.
    fn recipient<'a>(self, delivery: &Delivery<'a>) -> Option<&'a Address> {
        let Self::Rcpt(index) = self else { return None };
        delivery.recipients.get(index).map(|to| &to.address)
    }

    fn stage(self) -> Stage {
        match self {
            Self::Reset => Stage::Reset,
            Self::Mail => Stage::MailFrom,
            Self::Rcpt(_) => Stage::RcptTo,
            Self::Data => Stage::Data,
        }
    }
}

/// Whether a reply means that a transaction has too many recipients (RFC 5321 4.5.3.1.10, which
/// allows 552 instead of 452). A reply about a full mailbox has the same codes, but another
/// enhanced status.
fn is_too_many(reply: &Reply) -> bool {
    matches!(reply.code(), 452 | 552)
        && reply.status().is_none_or(|Status(_, subject, detail)| (subject, detail) == (5, 3))
}

/// A buffer for a block of the content, no larger than the rest of the content.
fn block(text: &Content<'_>) -> Vec<u8> {
    vec![0; usize::try_from(text.left()).map_or(BLOCK_SIZE, |left| left.clamp(1, BLOCK_SIZE))]
}

/// Reads the next block of the content. At the end of the content the block is empty.
fn read<'a>(file: &mut impl Read, block: &'a mut [u8]) -> io::Result<&'a [u8]> {
    loop {
        match file.read(block) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(count) => return Ok(&block[..count]),
        }
    }
}
