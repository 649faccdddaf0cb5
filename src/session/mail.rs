//! MAIL: begins a transaction.

use super::transaction::Transaction;
use super::{Phase, Session, Step, filters};
use crate::address::{self, Address, AddressError};
use crate::envelope::{MailOptions, Origin};
use crate::policy;
use crate::policy::mail::{Mail, Room};
use crate::reply::{self, Reply};
use crate::route::DomainClass;
use crate::smtp::command::Path;
use crate::smtp::parameters::{MailParameters, ParameterError};
use crate::sys;

impl Session<'_> {
    pub(super) fn mail(&mut self, path: Result<Path<'_>, AddressError>) -> Step {
        if self.has_failed_chunks() {
            self.forget_transaction();
        }
        let parameters = filters::parameters(&path);
        let (mut transaction, has_lower_priority) = match self.check_mail(path) {
            Ok(checked) => checked,
            Err(reply) => return Step::Reply(reply),
        };
        transaction.screening = self.begin_screening(transaction.envelope.sender.as_ref());
        if let Err(step) = self.ask_about_sender(transaction.envelope.sender.as_ref(), &parameters) {
            return step;
        }
        let (sender, priority) =
            (address::path(transaction.envelope.sender.as_ref()), transaction.envelope.options.priority);
        let reply = if has_lower_priority {
            reply::sender::accepted_with_priority(&sender, priority)
        } else {
            reply::sender::accepted(&sender)
        };
        if let Phase::Greeted(hello, forwarded) = std::mem::replace(&mut self.phase, Phase::Connected) {
            transaction.forwarded = forwarded;
            self.phase = Phase::InMail(hello, Box::new(transaction));
        }
        Step::Reply(reply)
    }

    /// Begins a transaction. Returns also whether the message has a lower priority than the client
    /// wants. The error is the reply that refuses MAIL.
    fn check_mail(&mut self, path: Result<Path<'_>, AddressError>) -> Result<(Transaction, bool), Reply> {
        match &self.phase {
            Phase::Connected => return Err(reply::hello::required()),
            Phase::InMail(..) => return Err(reply::sender::nested()),
            Phase::Greeted(..) => {}
        }
        self.apply(policy::mail::precheck(&self.facts()))?;
        let path = path.map_err(reply::sender::malformed)?;
        let parameters = MailParameters::parse(path.parameters(), &self.extensions(), sys::now()).map_err(rejected)?;
        if !path.is_ascii && !parameters.options.utf8 {
            return Err(reply::sender::not_ascii());
        }
        self.has_utf8_reply = parameters.options.utf8;
        let facts = self.facts();
        let (size, limit) = (parameters.size.unwrap_or(0), self.service.config.message_size());
        let max_size = limit.value;
        let path = path.address.as_ref();
        let sender = path.map(|address| self.service.router.qualify(address));
        let right = self.service.senders.right(&facts, sender.as_ref());
        let room = self.room(size.min(max_size));
        self.apply(policy::mail::check(&facts, &Mail { path, sender: sender.as_ref(), size, max_size, room, right }))?;
        self.count_message()?;
        let is_local = |address: &Address| self.service.router.class_of(address.domain()) == DomainClass::Local;
        let is_own = facts.login.is_some() || facts.is_local_user || sender.as_ref().is_some_and(is_local);
        let sender = sender.map(|sender| self.rewritten(sender));
        let wanted = parameters.options.priority;
        let options = MailOptions { priority: wanted.min(policy::mail::max_priority(&facts)), ..parameters.options };
        let has_lower_priority = options.priority < wanted;
        let mut transaction = Transaction::new(sender, options, size, limit);
        if self.is_lmtp() {
            transaction.keep_each_rcpt();
        }
        // A sender that is rewritten when the message leaves again stays unmarked.
        let router = &self.service.router;
        let is_submitted = || facts.may_relay() && !self.is_lmtp() && router.depends_on_senders();
        let is_own = transaction.envelope.sender.as_ref().is_some_and(|sender| match is_local(sender) {
            true => is_submitted(),
            false => is_own || !router.rewrites_senders() && is_submitted(),
        });
        if is_own {
            transaction.envelope.origin = Origin::Own;
        }
        Ok((transaction, has_lower_priority))
    }

    fn room(&self, size: u64) -> Room {
        match self.service.site.spool.has_room(size) {
            Ok(true) => Room::Enough,
            Ok(false) => Room::Short,
            Err(e) => {
                ::log::error!("spool: check the free space: {e}");
                Room::Unknown
            }
        }
    }
}

/// The reply to parameters that are rejected.
pub(super) fn rejected(error: ParameterError) -> Reply {
    match error {
        ParameterError::Unknown(keyword) => reply::command::unknown_parameter(&keyword),
        ParameterError::Repeated(keyword) => reply::command::repeated_parameter(&keyword),
        ParameterError::Contradictory(why) => reply::command::contradictory_parameters(why),
        ParameterError::Malformed(keyword) | ParameterError::OutOfBounds(keyword) => {
            reply::command::bad_parameter(keyword)
        }
    }
}
