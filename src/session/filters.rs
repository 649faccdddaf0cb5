//! Asks the filters about the commands of a session and about its messages.
//!
//! This file collects the facts that the filters are told, and applies the filters' changes to a
//! message and its envelope.

use super::incoming::{Complete, storage_error};
use super::transaction::Transaction;
use super::{Client as SessionClient, Service, Session, Step};
use std::io::{self, Read};
use std::sync::Arc;

use crate::address::{Address, AddressError};
use crate::envelope::RcptOptions;
use crate::filters::{Client, Content, Person, RecipientChange, Room, Verdict};
use crate::policy;
use crate::reply::{self, Reply};
use crate::route::DomainClass;
use crate::smtp::MAX_FINAL_RECIPIENTS;
use crate::smtp::command::Path;

pub use crate::filters::Dialogue;

/// Filters are told at most this number of a command's parameters.
const MAX_PARAMETERS: usize = 20;

impl Content for Complete {
    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.content()))
    }
}

/// The dialogue of a new session with its filters. No connection is made yet.
pub(super) fn begin(service: &Service, client: &SessionClient) -> Dialogue {
    Dialogue::new(Arc::clone(&service.filters), &client.session)
}

/// The parameters of a command, in the form in which filters get them.
pub(super) fn parameters(path: &Result<Path<'_>, AddressError>) -> Vec<String> {
    let text = |(key, value): (&str, &str)| if value.is_empty() { key.to_owned() } else { format!("{key}={value}") };
    path.iter().flat_map(Path::parameters).take(MAX_PARAMETERS).map(text).collect()
}

impl Session<'_> {
    /// Asks the filters about MAIL with this sender and these parameters. The error is the step
    /// that refuses it.
    pub(super) fn ask_about_sender(&mut self, sender: Option<&Address>, parameters: &[String]) -> Result<(), Step> {
        if self.filters.is_idle() {
            return Ok(());
        }
        let client = self.filter_client();
        let sender = self.person(sender, parameters);
        let verdict = self.filters.mail(client, sender);
        self.step(verdict)
    }

    /// Asks the filters about RCPT with this recipient and these parameters.
    pub(super) fn ask_about_recipient(&mut self, recipient: &Address, parameters: &[String]) -> Result<(), Step> {
        if self.filters.is_idle() {
            return Ok(());
        }
        let recipient = self.person(Some(recipient), parameters);
        let verdict = self.filters.rcpt(&recipient);
        self.step(verdict)
    }

    /// Asks the filters about DATA. `id` is the queue id of the message.
    pub(super) fn ask_about_data(&mut self, id: &str) -> Result<(), Step> {
        let verdict = self.filters.data(id);
        self.step(verdict)
    }

    /// Asks the filters about an unknown command. Returns `usual`, or the step that a filter wants
    /// instead.
    #[inline(never)]
    pub(super) fn ask_about_unknown(&mut self, line: &[u8], usual: Step) -> Step {
        let verdict = self.filters.unknown(line);
        self.step(verdict).err().unwrap_or(usual)
    }

    /// Shows a message to the filters, and applies their changes. The error is the reply to a
    /// message that is not kept: a refusal, or a 250 if the message is discarded.
    pub(super) fn show_to_filters(
        &mut self,
        complete: &mut Complete,
        transaction: &mut Transaction,
    ) -> Result<(), Reply> {
        if self.filters.is_idle() {
            return Ok(());
        }
        let (spool, id) = (&self.service.site.spool, complete.id().to_string());
        let size = self.service.config.limits.message_size;
        let room = Room { size, scratch: &|| spool.scratch(), has_room: &|| spool.has_room(0) };
        let ended = self.filters.message(&id, complete, &room).map_err(|e| storage_error(&e))?;
        match ended.verdict {
            Verdict::Accept => {}
            Verdict::Discard => return Err(reply::message::accepted(&id)),
            Verdict::Refuse(reply) | Verdict::Close(reply) => {
                self.blame("filter", "filter");
                return Err(reply);
            }
        }
        let changes = ended.changes;
        complete.change(&changes).map_err(|e| storage_error(&e))?;
        if let Some(sender) = changes.sender {
            transaction.envelope.sender = sender.map(|address| self.service.router.qualify(&address));
        }
        if let Some(reason) = changes.quarantine {
            transaction.quarantine.get_or_insert(reason);
        }
        if changes.recipients.is_empty() {
            return Ok(());
        }
        complete.forget_mailbox();
        self.change_recipients(changes.recipients, transaction)?;
        if transaction.envelope.recipients.is_empty() { Err(reply::message::accepted(&id)) } else { Ok(()) }
    }

    fn change_recipients(&self, changes: Vec<RecipientChange>, transaction: &mut Transaction) -> Result<(), Reply> {
        for change in changes {
            match change {
                RecipientChange::Delete(address) => transaction.remove(&self.qualified(&address)),
                RecipientChange::Add(address) => {
                    let address = self.qualified(&address);
                    let room = MAX_FINAL_RECIPIENTS.saturating_sub(transaction.references());
                    match self.expand_added(&address)?.filter(|finals| finals.len() <= room) {
                        Some(finals) => transaction.add(address, &RcptOptions::default(), finals),
                        None => ::log::warn!("a filter adds the recipient <{address}>, which cannot be accepted"),
                    }
                }
            }
        }
        transaction.rebuild();
        Ok(())
    }

    fn person(&self, address: Option<&Address>, parameters: &[String]) -> Person {
        let is_local =
            address.is_some_and(|address| self.service.router.class_of(address.domain()) == DomainClass::Local);
        Person { address: address.cloned(), parameters: parameters.to_vec(), is_local }
    }

    fn filter_client(&mut self) -> Client {
        let name = self.verified_name();
        let facts = self.facts();
        let group = policy::relay::filter_group(&facts);
        let hello = self.phase.hello();
        let peer = self.input.source.peer().filter(|peer| Some(peer.ip()) == self.client.address);
        Client {
            group,
            address: self.client_address(),
            port: peer.map_or(0, |peer| peer.port()),
            name,
            own: self.input.source.own_address(),
            hello: hello.map(|hello| hello.name.clone()).unwrap_or_default(),
            is_extended: hello.is_some_and(|hello| hello.extended),
            tls: self.tls_info.as_ref().map(|tls| (tls.version.to_owned(), tls.cipher.to_owned())),
            login: self.login.clone().map(|login| (login, self.mechanism.to_owned())),
        }
    }

    /// Turns a verdict about a command into a result.
    fn step(&self, verdict: Verdict) -> Result<(), Step> {
        let step = match verdict {
            Verdict::Accept | Verdict::Discard => return Ok(()),
            Verdict::Refuse(reply) => Step::Reply(reply),
            Verdict::Close(reply) => Step::ReplyAndClose(reply),
        };
        self.blame("filter", "filter");
        Err(step)
    }
}
