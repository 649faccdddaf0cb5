//! Receives a message, from its first byte to the reply, for every command that carries a message.
//!
//! [`Session::begin_message`] makes an [`Incoming`], the command feeds it, and
//! [`Session::end_message`] commits it. The 250 is sent only after the commit.

use std::io;
use std::sync::Arc;

use super::authenticity::is_sender_proven;
use super::changes::{Changes, Names};
use super::hello::Hello;
use super::incoming::{Incoming, storage_error};
use super::transaction::Transaction;
use super::xclient::Forwarded;
use super::{Committed, Session, Step};
use crate::address::Address;
use crate::config::policy::Quarantine;
use crate::envelope::{Action, Folder, MessageTls, Ret};
use crate::log;
use crate::message::trace::{self, Origin, Received};
use crate::outcome::Encryption;
use crate::policy;
use crate::reply::{self, Reply};
use crate::route::{DomainClass, Route};
use crate::spool::{EntryName, NewEntry, Place, QueueId};
use crate::users::{Mailbox, Owner};

/// A message that was committed.
pub(super) struct Accepted {
    name: EntryName,
    /// The mailbox that the entry's file can be renamed into; `None` if there is none.
    mailbox: Option<Mailbox>,
}

impl Session<'_> {
    /// Begins a message. The error is the reply that says that the spool cannot take a message.
    pub(super) fn begin_message(&mut self, hello: &Hello, transaction: &Transaction) -> Result<Incoming, Reply> {
        let spool = &self.service.site.spool;
        let begun = self.client.dropped.map_or_else(|| spool.begin(), |id| Ok(spool.begin_as(id)));
        let mut draft = begun.map_err(|e| storage_error(&e))?;
        let id = draft.id().to_string();
        let received = self.received_field(hello, &id, transaction);
        let mailbox = self.only_mailbox(transaction);
        let entry = NewEntry { is_direct: mailbox.is_some(), ..NewEntry::queued(&transaction.envelope, &received) };
        draft.expect(&entry).map_err(|e| storage_error(&e))?;
        let names = Names { router: Arc::clone(&self.service.router), authserv_id: self.forged_name() };
        let changes = Changes::new(self.header_filter(&id, transaction), names, received);
        Ok(Incoming::new(draft, mailbox, changes, self.collector(), transaction.max_size))
    }

    /// Commits a message that has ended. The error is the reply to a message that is not kept: a
    /// refusal, or a 250 if a filter discards the message.
    pub(super) fn end_message(
        &mut self,
        incoming: Incoming,
        hello: &Hello,
        transaction: &mut Transaction,
    ) -> Result<Accepted, Reply> {
        let size = incoming.size();
        transaction.message_id = incoming.message_id();
        let ended = incoming.end(&transaction.envelope, &self.facts(), |verdict| self.apply(verdict))?;
        let (mut complete, collector) = ended;
        transaction.message_id = complete.message_id();
        // REQUIRETLS takes precedence over the header (RFC 8689 4.1).
        let options = &mut transaction.envelope.options;
        if options.tls == MessageTls::Default && complete.waives_tls() {
            options.tls = MessageTls::Indifferent;
        }
        self.finish_screening(transaction);
        self.check_authenticity(collector, transaction, &mut complete)?;
        self.limit_reports(transaction);
        self.show_to_filters(&mut complete, transaction)?;
        self.check_mailboxes(complete.size(), transaction)?;
        self.add_copies(&mut complete, transaction)?;
        self.sign(&mut complete, transaction.envelope.options.body)?;
        let (hold, folder) = self.holding(transaction);
        if hold.is_some() {
            self.check_quarantine(size)?;
        }
        if let Some(reason) = &transaction.quarantine {
            complete.append(&trace::quarantine_field(reason));
        }
        let size = complete.size();
        let (name, mailbox) = complete.commit(&transaction.envelope, hold.as_deref(), folder)?;
        self.log_accepted((name.id, size), hello, transaction);
        if let Some(reason) = hold {
            log::held(&name.id, &reason);
        }
        Ok(Accepted { name, mailbox })
    }

    /// Why a message is held, and the folder that it goes into if it is suspicious.
    fn holding(&self, transaction: &Transaction) -> (Option<String>, Option<&Folder>) {
        let routed = self.service.router.hold_reason(&transaction.envelope);
        match (&self.service.config.policy.quarantine, &transaction.quarantine) {
            (_, None) => (routed, None),
            (Quarantine::Folder(folder), Some(_)) => (routed, Some(folder)),
            // An administrator who releases the message learns all reasons, as no route holds it again.
            (Quarantine::Hold, Some(reason)) => {
                (Some(routed.map_or_else(|| reason.clone(), |routed| format!("{reason}; {routed}"))), None)
            }
        }
    }

    fn log_accepted(&mut self, (id, size): (QueueId, u64), hello: &Hello, transaction: &Transaction) {
        let origin = self.origin(transaction.forwarded.as_ref());
        let named: Vec<&Address> = transaction.given().collect();
        let local_user = self.client.local_user.as_ref();
        log::accepted(&log::Accepted {
            id: &id,
            session: &self.client.session,
            sender: transaction.envelope.sender.as_ref(),
            named: &named,
            recipients: transaction.envelope.recipients.len(),
            copies: &transaction.copies,
            options: &transaction.envelope.options,
            size,
            peer: &origin.peer,
            via: &origin.via,
            ident: &origin.ident,
            protocol: self.protocol(hello, transaction.envelope.options.utf8),
            tls: self.tls_info.as_ref().map_or(Encryption::CLEAR, |tls| Encryption::by_tls(tls.version, tls.cipher)),
            user: self.login.as_deref().or(local_user.map(|user| user.login.as_str())),
            caller: local_user.map(|user| (user.uid, user.program.as_str())),
            hello: Some(hello.name.as_str()).filter(|_| local_user.is_none()),
            message_id: transaction.message_id.as_deref(),
        });
    }

    /// Replaces RET=FULL by RET=HDRS, unless the client may have whole messages returned. The SPF
    /// results must be known.
    fn limit_reports(&self, transaction: &mut Transaction) {
        let may_be_whole = policy::message::may_be_returned_whole(&self.facts(), is_sender_proven(transaction));
        let ret = &mut transaction.envelope.options.ret;
        *ret = ret.map(|wanted| if may_be_whole { wanted } else { Ret::Headers });
    }

    /// Checks whether the quarantine has room for a message of this size, unless the client may
    /// relay. The error is the reply that defers the message.
    fn check_quarantine(&self, size: u64) -> Result<(), Reply> {
        if self.facts().may_relay() {
            return Ok(());
        }
        let has_room = self.service.site.spool.has_room_to_hold(size).map_err(|e| storage_error(&e))?;
        self.apply(policy::message::quarantine(has_room))
    }

    /// Checks whether a message of this size, which the client may not have declared at MAIL, fits into
    /// a mailbox of a recipient. If not, the client is told, and nobody who is named as the sender gets
    /// a report. The error is the reply that refuses the message.
    fn check_mailboxes(&self, size: u64, transaction: &Transaction) -> Result<(), Reply> {
        let (router, site) = (&self.service.router, &self.service.site);
        let recipients = &transaction.envelope.recipients;
        let is_delivered_now = || self.holding(transaction).0.is_none();
        let full = || {
            let full = site.full(router, recipients, size).filter(|_| is_delivered_now())?;
            Some((full.quota.is_final, router.source_of_quota(recipients, full.quota)))
        };
        self.apply(policy::message::quota(&self.facts(), size, full))
    }

    /// Sends the replies to a message that has ended, and starts its delivery if it was accepted. In
    /// LMTP there is a reply for each accepted RCPT (RFC 2033 4.2). `command` is the command of the
    /// message, for the log. If the reply ends the session, the result is an error.
    pub(super) fn answer_message(
        &mut self,
        command: &[u8],
        ended: Result<Accepted, Reply>,
        transaction: &Transaction,
    ) -> io::Result<()> {
        match ended {
            Ok(accepted) => self.confirm(&accepted, transaction),
            Err(reply) if reply.code() == 421 => {
                self.refuse_message(command, &Step::ReplyAndClose(reply), Some(transaction))
            }
            Err(reply) => {
                if reply.code() < 400 {
                    self.log_refusal(command, &reply, Some(transaction));
                }
                self.note_refusal(command, &reply, Some(transaction));
                let count = if self.is_lmtp() { transaction.accepted() } else { 1 };
                (0..count).try_for_each(|_| self.send(&reply))
            }
        }
    }

    /// Sends the reply of a step that refuses the command of a message. `transaction` is the one that
    /// has ended with the refusal. If the step ends the session, the result is an error.
    pub(super) fn refuse_message(
        &mut self,
        command: &[u8],
        step: &Step,
        transaction: Option<&Transaction>,
    ) -> io::Result<()> {
        let (Step::Reply(reply) | Step::ReplyAndClose(reply)) = step else { return Ok(()) };
        self.note_refusal(command, reply, transaction);
        if matches!(step, Step::Reply(_)) {
            return self.send(reply);
        }
        self.close_with(reply)?;
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Sends the 250, and starts the delivery.
    fn confirm(&mut self, accepted: &Accepted, transaction: &Transaction) -> io::Result<()> {
        // The reply is sent before the delivery begins, so that the client does not wait for the
        // delivery.
        self.log_unlogged_refusals();
        self.tally.reset();
        let id = accepted.name.id.to_string();
        let sent = if self.is_lmtp() {
            transaction.each_rcpt().iter().try_for_each(|to| self.send(&reply::message::accepted_for(&id, to)))
        } else {
            self.send(&reply::message::accepted(&id))
        };
        let sent = sent.and_then(|()| self.flush());
        let only = transaction.envelope.recipients.first().map(|only| &only.address);
        // Only a mailbox that the server owns is served directly. Mail for a system user is left to
        // the queue, because the user may have a `.forward`.
        let server_mailbox = accepted.mailbox.as_ref().filter(|mailbox| mailbox.owner == Owner::Server);
        let maildir = only.zip(server_mailbox);
        // An entry that is held is neither delivered nor given to the queue.
        if accepted.name.place != Place::Hold {
            (self.service.notify)(&Committed { name: accepted.name, maildir });
        }
        sent
    }

    /// Returns the Maildir of the only recipient. Returns `None` if there are several recipients,
    /// or if the message's file cannot be renamed or linked into the Maildir.
    fn only_mailbox(&self, transaction: &Transaction) -> Option<Mailbox> {
        match transaction.envelope.recipients.as_slice() {
            // The message's file can be renamed only if it has a direct head.
            [only] if NewEntry::can_be_direct(&transaction.envelope) && !self.service.router.makes_copies() => {
                match self.service.router.route(&only.address) {
                    Route::Mailbox(mailbox) if !mailbox.is_mbox => {
                        let is_possible = mailbox.owner == Owner::Server || self.service.site.rights.has_monitor();
                        Some(mailbox)
                            .filter(|mailbox| is_possible && self.service.site.spool.can_rename_into(&mailbox.path))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Returns the name of this server, if Authentication-Results: fields with that name are
    /// removed from the message as forged. Returns `None` for a client in `relay.networks`: that
    /// client may have got the message from this server, with a field that is not forged.
    fn forged_name(&self) -> Option<String> {
        let facts = self.facts();
        (!facts.is_trusted || facts.is_local_user).then(|| self.hostname().to_owned())
    }

    /// Whether all mail of a transaction seems to stay on this host. If not, the Received: field does
    /// not name a recipient outside ASCII: the next host would need SMTPUTF8 for that field alone.
    fn stays_here(&self, transaction: &Transaction) -> bool {
        let is_local = |address: &Address| self.service.router.class_of(address.domain()) == DomainClass::Local;
        let mut recipients = transaction.envelope.recipients.iter();
        recipients.all(|recipient| recipient.action != Action::Expand && is_local(&recipient.address))
    }

    /// Returns the Received: field for a message (RFC 5321 4.4).
    fn received_field(&mut self, hello: &Hello, id: &str, transaction: &Transaction) -> String {
        let recipient = transaction.named.as_ref().filter(|named| named.is_ascii() || self.stays_here(transaction));
        let is_hidden = self.hides_client();
        let name = if is_hidden { None } else { self.verified_name() };
        let origin = match &self.client.local_user {
            Some(user) => Origin::LocalUser(user),
            None => Origin::Client(trace::Client {
                address: self.client.address,
                name: name.as_deref(),
                is_local: self.client.is_local,
                hello: &hello.name,
                forwarded: transaction.forwarded.as_ref().and_then(Forwarded::trace),
                protocol: self.protocol(hello, transaction.envelope.options.utf8),
                tls: self.tls_info.as_ref().map(|tls| (tls.version, tls.cipher)),
            }),
        };
        let (hostname, date) = (self.hostname(), &trace::date(&log::local_time()));
        let priority = transaction.envelope.options.priority;
        Received { hostname, id, origin, is_hidden, recipient, priority, date }.to_string()
    }
}
