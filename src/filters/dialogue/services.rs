//! What policy services decide about a recipient.

use super::super::Trouble;
use super::super::facts::Person;
use super::super::policy::{Action, Request, Service};
use super::{Dialogue, State, Verdict, record};
use crate::reply;

/// The maximum number of fields that policy services put before a message.
const MAX_PREPENDED: usize = 100;

impl Dialogue {
    /// Asks a policy service about a recipient. Also returns whether it wants no other services to
    /// be asked.
    pub(super) fn ask_service(&mut self, index: usize, recipient: &Person) -> (Verdict, bool) {
        let state = self.members.get(index).map(|member| member.state).unwrap_or_default();
        match state {
            State::Asked if self.message.discarded_by.is_none() => {}
            State::Failed => return (Verdict::Refuse(reply::filter::unavailable()), false),
            _ => return (Verdict::Accept, false),
        }
        let action = match self.request(index, recipient) {
            Ok(action) => action,
            Err(trouble) => return (self.fail(index, "RCPT", &trouble), false),
        };
        match action {
            Action::Dunno => {}
            Action::Permit => return (Verdict::Accept, true),
            Action::Refuse(reply) => {
                self.note_refusal(index, "RCPT");
                let is_last = reply.code() == 421;
                return (if is_last { Verdict::Close(reply) } else { Verdict::Refuse(reply) }, false);
            }
            Action::Prepend(field) if self.message.prepended.len() < MAX_PREPENDED => {
                // If a service decides by the sender alone, it gives the same field for each
                // recipient.
                if !self.message.prepended.contains(&field) {
                    self.message.prepended.push(field);
                }
            }
            Action::Prepend(_) => {}
            Action::Hold(reason) => {
                self.message.quarantine = self.filter(index).map(|filter| record::quarantine(filter, &reason));
            }
            Action::Discard => self.message.discarded_by = Some(index),
            Action::Warn(text) => self.note_warning(index, &text),
        }
        (Verdict::Accept, false)
    }

    fn request(&mut self, index: usize, recipient: &Person) -> Result<Action, Trouble> {
        let (Some(filter), Some(member)) = (self.filters.list.get(index), self.members.get_mut(index)) else {
            return Ok(Action::Dunno);
        };
        let (Some(client), Some(sender)) = (&self.client, &self.message.sender) else { return Ok(Action::Dunno) };
        let request = Request { client, sender, recipient, instance: &self.message.instance };
        // A service may close a connection that it has not used for a while.
        if let Some(mut service) = member.service.take()
            && !service.is_stale()
            && let Ok(action) = service.ask(&request, filter.timeout)
        {
            member.service = Some(service);
            return Ok(action);
        }
        member.service.insert(Service::open(&filter.socket, filter.timeout)?).ask(&request, filter.timeout)
    }
}
