//! Asks the filters about the commands of a session.
//!
//! The facts that filters are told come from this file. What happens at the end of a message is in
//! `incoming`.

use super::{Client as SessionClient, Service, Session, Step};
use std::sync::Arc;

use crate::address::{Address, AddressError};
use crate::config::FilterGroup;
use crate::filters::{Client, Person, Verdict};
use crate::policy;
use crate::route::DomainClass;
use crate::smtp::command::Path;

pub use crate::filters::Dialogue;

/// The maximum number of parameters of a command that filters are told of.
const MAX_PARAMETERS: usize = 20;

/// The dialogue with the filters of a new session. No connection is made.
pub(super) fn begin(service: &Service, client: &SessionClient) -> Dialogue {
    Dialogue::new(Arc::clone(&service.filters), &client.session)
}

/// The parameters of a command, as filters are told of them.
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
        step(self.filters.mail(client, sender))
    }

    /// Asks the filters about RCPT with this recipient and these parameters.
    pub(super) fn ask_about_recipient(&mut self, recipient: &Address, parameters: &[String]) -> Result<(), Step> {
        if self.filters.is_idle() {
            return Ok(());
        }
        let recipient = self.person(Some(recipient), parameters);
        step(self.filters.rcpt(&recipient))
    }

    /// Asks the filters about DATA. `id` is the queue id of the message.
    pub(super) fn ask_about_data(&mut self, id: &str) -> Result<(), Step> {
        step(self.filters.data(id))
    }

    /// Asks the filters about an unknown command. Returns `usual`, or the step that a filter wants
    /// instead.
    pub(super) fn ask_about_unknown(&mut self, line: &[u8], usual: Step) -> Step {
        step(self.filters.unknown(line)).err().unwrap_or(usual)
    }

    fn person(&self, address: Option<&Address>, parameters: &[String]) -> Person {
        let is_local =
            address.is_some_and(|address| self.service.router.class_of(address.domain()) == DomainClass::Local);
        Person { address: address.cloned(), parameters: parameters.to_vec(), is_local }
    }

    fn filter_client(&mut self) -> Client {
        let name = self.verified_name();
        let facts = self.facts();
        let group = if self.client.local_user.is_some() {
            FilterGroup::Local
        } else if facts.is_submission() || policy::relay::may_relay(&facts) {
            FilterGroup::Submission
        } else {
            FilterGroup::Strangers
        };
        let hello = self.phase.hello();
        let peer = self.input.source.peer().filter(|peer| Some(peer.ip()) == self.client.address);
        Client {
            group,
            address: self.client.address,
            port: peer.map_or(0, |peer| peer.port()),
            name,
            own: self.input.source.own_address(),
            hello: hello.map(|hello| hello.name.clone()).unwrap_or_default(),
            is_extended: hello.is_some_and(|hello| hello.extended),
            tls: self.tls_info.as_ref().map(|tls| (tls.version.to_owned(), tls.cipher.to_owned())),
            login: self.login.clone().map(|login| (login, self.mechanism.to_owned())),
        }
    }
}

/// Turns a verdict about a command into a result.
fn step(verdict: Verdict) -> Result<(), Step> {
    match verdict {
        Verdict::Accept | Verdict::Discard => Ok(()),
        Verdict::Refuse(reply) => Err(Step::Reply(reply)),
        Verdict::Close(reply) => Err(Step::ReplyAndClose(reply)),
    }
}
