//! Counts and logs the refusals of a session. The first ones are logged on a line each.

use std::io;

use super::hello::Hello;
use super::transaction::Transaction;
use super::{Phase, Session, Step};
use crate::address::Address;
use crate::log;
use crate::policy::{Reason, Source};
use crate::reply::{self, Reply};
use crate::smtp::command::Command;

/// The maximum number of octets that are logged of a refused command.
const MAX_LOGGED: usize = 400;

impl Session<'_> {
    /// Refuses a line that is too long, or that has a bare CR or LF. AUTH gets a reply of its own,
    /// since its initial response may be long (RFC 4954 4). After BDAT the session ends, since it is
    /// unknown what follows.
    #[inline(never)]
    pub(super) fn unreadable(&mut self, is_too_long: bool) -> Step {
        let step = match &self.input.line_start().to_ascii_uppercase()[..] {
            b"BDAT" => Step::ReplyAndClose(reply::message::malformed_chunk()),
            _ if !is_too_long => Step::Reply(reply::command::bare_newline()),
            b"AUTH" => Step::Reply(reply::auth::response_too_long()),
            _ => Step::Reply(reply::command::too_long()),
        };
        self.count_refusal(b"", step)
    }

    /// If a step refuses a command, counts and logs the refusal. Returns the step.
    #[inline(never)]
    pub(super) fn count_refusal(&mut self, command: &[u8], step: Step) -> Step {
        if let Step::Reply(reply) | Step::ReplyAndClose(reply) = &step {
            self.note_refusal(command, reply, None);
        }
        step
    }

    /// Counts a refusal, and logs it unless the session has logged too many. `transaction` is the one
    /// that has ended with the refusal; `None` if it goes on or there was none.
    pub(super) fn note_refusal(&mut self, command: &[u8], reply: &Reply, transaction: Option<&Transaction>) {
        if self.tally.count(reply.code()) {
            self.log_refusal(command, reply, transaction);
        }
        self.reason.take();
    }

    /// Logs a refusal, or that a message was discarded.
    pub(super) fn log_refusal(&self, command: &[u8], reply: &Reply, transaction: Option<&Transaction>) {
        let transaction = transaction.or(match &self.phase {
            Phase::InMail(_, transaction) => Some(transaction),
            _ => None,
        });
        let is_message = matches!(command, b"DATA" | b"BDAT");
        let message = transaction.filter(|_| is_message);
        let named: Vec<&Address> = message.into_iter().flat_map(Transaction::given).collect();
        // The sender of a refused MAIL is in no transaction.
        let refused = match transaction {
            None if command.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"MAIL")) => {
                match Command::parse(command) {
                    Command::Mail(Ok(path)) => Some(path.address),
                    _ => None,
                }
            }
            _ => None,
        };
        let sender = transaction.map(|transaction| transaction.envelope.sender.as_ref());
        let reason = self.reason.take();
        let rule = reason.as_ref().map(|reason| {
            let (key, line) = match &reason.source {
                Source::Key(key) => (Some(*key), None),
                Source::Line(line) => (None, Some(line as _)),
                Source::Standard(_) | Source::Failure => (None, None),
            };
            log::Rule { name: reason.rule, key, line }
        });
        let event = log::Refused {
            session: &self.client.session,
            address: self.client.address,
            command: &String::from_utf8_lossy(&command[..command.len().min(MAX_LOGGED)]),
            reply,
            sender: sender.or(refused.as_ref().map(Option::as_ref)),
            named: &named,
            hello: self.hello_name(),
            message_id: message.and_then(|transaction| transaction.message_id.as_deref()),
            rule,
        };
        if reply.code() < 400 { log::discarded(&event) } else { log::refused(&event) }
    }

    /// Puts back the transaction of a message that was cut off by the end of the connection. Returns the
    /// error.
    pub(super) fn cut_off(
        &mut self,
        command: &'static str,
        hello: Hello,
        mut transaction: Box<Transaction>,
        error: io::Error,
    ) -> io::Error {
        transaction.cut_off = Some(command);
        self.phase = Phase::InMail(hello, transaction);
        error
    }

    /// Logs that the session has ended within a transaction that has recipients.
    pub(super) fn log_lost(&self, ended: &io::Result<()>) {
        let Phase::InMail(_, transaction) = &self.phase else { return };
        if transaction.accepted() == 0 {
            return;
        }
        let stage = transaction.cut_off.unwrap_or(if transaction.chunks.is_some() { "BDAT" } else { "RCPT" });
        let why = match ended {
            _ if self.is_stopping() => "shutdown".to_owned(),
            Ok(()) if self.has_ended => "closed by this server".to_owned(),
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => e.to_string(),
            _ => "closed by the client".to_owned(),
        };
        let named: Vec<&Address> = transaction.given().collect();
        log::lost(&log::Lost {
            session: &self.client.session,
            address: self.client.address,
            stage,
            why: &why,
            sender: transaction.envelope.sender.as_ref(),
            named: &named,
            hello: self.hello_name(),
        });
    }

    /// Notes the rule behind a refusal, and its configuration key, if no verdict does.
    pub(super) fn blame(&self, rule: &'static str, key: &'static str) {
        self.reason.set(Some(Reason { rule, source: Source::Key(key) }));
    }

    /// The name in HELO or EHLO; `None` for a local user, whose program always gives the same name.
    pub(super) fn hello_name(&self) -> Option<&str> {
        self.phase.hello().filter(|_| self.client.local_user.is_none()).map(|hello| hello.name.as_str())
    }

    /// Logs the number of refusals that were not logged individually.
    pub(super) fn log_unlogged_refusals(&mut self) {
        let unlogged = self.tally.take_unlogged();
        if unlogged > 0 {
            log::refused_more(&self.client.session, self.client.address, unlogged);
        }
    }
}
