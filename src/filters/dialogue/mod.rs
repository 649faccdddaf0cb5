//! The filters of one session: which are asked, what they are told, and what they decide together.
//!
//! - `record`: what a filter has done to a message: the log, and the changes so far
//! - `services`: what policy services decide

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::changes::Changes;
use super::facts::{Client, Person};
use super::milter::{MessageError, Milter, NewField, Response, Room};
use super::policy::Service;
use super::text::{Content, Text};
use super::{Filters, Trouble};
use crate::config::{Filter, FilterProtocol, OnFailure};
use crate::log;
use crate::reply::{self, Reply};

mod record;
mod services;

/// The time that all filters together may take for a message. A client waits ten minutes for the
/// reply (RFC 5321 4.5.3.2.6).
const MAX_TIME: Duration = Duration::from_secs(8 * 60);
/// For a whole message, one filter may take this many times its time limit for a command, but at
/// most [`MAX_TIME_OF_ONE`].
const TIMES: u32 = 10;
/// The maximum time that one filter may take for a message, even if [`TIMES`] allows more.
const MAX_TIME_OF_ONE: Duration = Duration::from_secs(5 * 60);
/// The maximum number of lines about refusals and failures that a session logs.
const MAX_LINES: usize = 20;

/// What the filters decide about a command or a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The command or message is accepted.
    Accept,
    /// The message is accepted and dropped. Only the end of a message gets this verdict.
    Discard,
    /// The command or message is refused with this reply.
    Refuse(Reply),
    /// The command or message gets this reply, and the session ends.
    Close(Reply),
}

/// What the filters decide at the end of a message.
#[derive(Debug)]
pub struct Ended {
    /// The verdict.
    pub verdict: Verdict,
    /// The changes, if the message is accepted.
    pub changes: Changes,
}

/// The filters of a session.
#[derive(Debug)]
pub struct Dialogue {
    filters: Arc<Filters>,
    /// The session's id in the log.
    session: String,
    /// The state of each filter, in the order of the configuration.
    members: Vec<Member>,
    /// The client, as the filters know it.
    client: Option<Client>,
    message: Message,
    /// The number of messages so far.
    count: usize,
    /// The number of lines so far that count towards [`MAX_LINES`].
    lines: usize,
}

/// The argument of HELO, and the TLS version and the cipher suite.
type Greeting = (String, Option<(String, String)>);

/// One filter in a session.
#[derive(Debug, Default)]
struct Member {
    milter: Option<Box<Milter>>,
    /// What the milter was last told of HELO and TLS; `None` if it was not told yet.
    told: Option<Greeting>,
    service: Option<Service>,
    /// The decision about all messages of the connection; `None` if the filter has made none.
    /// `Some(None)` accepts the messages, and a reply refuses them.
    whole: Option<Option<Reply>>,
    state: State,
}

/// The state of a filter in the current message.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Asked,
    /// It has accepted the message, or is not asked.
    Done,
    /// It has failed, and its `on_failure` refuses the rest of the message.
    Failed,
}

/// What the filters have decided about the current message before its end.
#[derive(Debug, Default)]
struct Message {
    sender: Option<Person>,
    /// The filter that discards the message.
    discarded_by: Option<usize>,
    prepended: Vec<NewField>,
    quarantine: Option<String>,
    instance: String,
}

impl Dialogue {
    /// A dialogue that has not begun. `session` is the session's id in the log.
    pub fn new(filters: Arc<Filters>, session: &str) -> Self {
        let members = filters.list.iter().map(|_| Member::default()).collect();
        let (client, message) = (None, Message::default());
        Self { filters, session: session.to_owned(), members, client, message, count: 0, lines: 0 }
    }

    /// Whether there are no filters, so that no facts need to be collected.
    pub fn is_idle(&self) -> bool {
        self.members.is_empty()
    }

    /// MAIL: begins a message. Connects to the filters, and tells them of the client, unless that
    /// was done for an earlier message.
    pub fn mail(&mut self, client: Client, sender: Person) -> Verdict {
        self.count += 1;
        let instance = format!("{}.{}", self.session, self.count);
        self.message = Message { sender: Some(sender.clone()), instance, ..Message::default() };
        let known = self.client.replace(client.clone());
        // Not all filters may be asked below, because one refuses the message.
        if known.is_none_or(|known| !client.continues(&known)) {
            (0..self.members.len()).for_each(|index| self.leave(index));
        }
        for index in 0..self.members.len() {
            let is_asked = self.filter(index).is_some_and(|filter| filter.groups.contains(&client.group));
            self.set(index, if is_asked { State::Asked } else { State::Done });
            if !is_asked || !self.is_milter(index) {
                continue;
            }
            let verdict = match self.greet(index, (client.hello.clone(), client.tls.clone())) {
                Verdict::Accept => self.ask(index, "MAIL", |milter, client| milter.mail(client, &sender)),
                refused => refused,
            };
            if verdict != Verdict::Accept {
                return verdict;
            }
        }
        Verdict::Accept
    }

    /// RCPT: a recipient that this server would accept.
    pub fn rcpt(&mut self, recipient: &Person) -> Verdict {
        let mut is_permitted = false;
        for index in 0..self.members.len() {
            let verdict = if self.is_milter(index) {
                self.ask(index, "RCPT", |milter, client| milter.rcpt(client, recipient))
            } else if is_permitted {
                Verdict::Accept
            } else {
                let (verdict, permits) = self.ask_service(index, recipient);
                is_permitted |= permits;
                verdict
            };
            if verdict != Verdict::Accept {
                return verdict;
            }
        }
        Verdict::Accept
    }

    /// DATA: the message follows; `id` is its queue id.
    pub fn data(&mut self, id: &str) -> Verdict {
        self.each("DATA", |milter, client| milter.data(client, id))
    }

    /// An unknown command. Only filters to which there is a connection are told.
    pub fn unknown(&mut self, line: &[u8]) -> Verdict {
        self.each("unknown command", |milter, client| milter.unknown(client, line))
    }

    fn each(
        &mut self,
        stage: &'static str,
        call: impl Fn(&mut Milter, &Client) -> Result<Response, Trouble>,
    ) -> Verdict {
        for index in 0..self.members.len() {
            let verdict = self.ask(index, stage, &call);
            if verdict != Verdict::Accept {
                return verdict;
            }
        }
        Verdict::Accept
    }

    /// The message is dropped, by RSET, EHLO or the server.
    pub fn abort(&mut self) {
        self.message = Message::default();
        for member in &mut self.members {
            member.state = State::Done;
            if let Some(milter) = &mut member.milter {
                milter.abort();
            }
        }
    }

    /// The end of a message: shows `content` to the filters, and returns the verdict and the
    /// changes. `id` is the queue id, for the log.
    ///
    /// # Errors
    /// Those of reading the message.
    pub fn message(&mut self, id: &str, content: &dyn Content, room: &Room<'_>) -> io::Result<Ended> {
        let ended = self.judge(id, content, room);
        self.abort();
        ended
    }

    fn judge(&mut self, id: &str, content: &dyn Content, room: &Room<'_>) -> io::Result<Ended> {
        let mut changes = Changes { quarantine: self.message.quarantine.take(), ..Changes::default() };
        let is_needed = !self.message.prepended.is_empty() || self.members.iter().any(Member::is_active);
        if let Some(index) = self.message.discarded_by {
            if let Some(filter) = self.filter(index) {
                log::filtered(id, &filter.socket, &[("result", "discard".to_owned())]);
            }
            return Ok(Ended { verdict: Verdict::Discard, changes });
        }
        if !is_needed {
            return Ok(Ended { verdict: Verdict::Accept, changes });
        }
        let Some(mut text) = Text::read(content)? else {
            return Ok(Ended { verdict: Verdict::Refuse(reply::filter::header_too_long()), changes });
        };
        for field in std::mem::take(&mut self.message.prepended) {
            // An error means that the header has no room for the field. The field is then left out.
            // This happens only if the header is almost too long: a message with a longer header
            // was refused above.
            let _ = text.header.insert(0, &field, false);
        }
        let end = Instant::now() + MAX_TIME;
        for index in 0..self.members.len() {
            let verdict = self.show(index, id, &mut text, &mut changes, room, end)?;
            if verdict != Verdict::Accept {
                return Ok(Ended { verdict, changes });
            }
        }
        changes.text = Some(text.into_changes());
        Ok(Ended { verdict: Verdict::Accept, changes })
    }

    /// Shows a message to one filter, and takes over its changes.
    fn show(
        &mut self,
        index: usize,
        id: &str,
        text: &mut Text<'_>,
        changes: &mut Changes,
        room: &Room<'_>,
        end: Instant,
    ) -> io::Result<Verdict> {
        let (Some(filter), Some(client)) = (self.filters.list.get(index), &self.client) else {
            return Ok(Verdict::Accept);
        };
        let Some(member) = self.members.get_mut(index) else { return Ok(Verdict::Accept) };
        if member.state == State::Failed {
            return Ok(Verdict::Refuse(reply::filter::unavailable()));
        }
        let Some(milter) = member.milter.as_mut().filter(|_| member.state == State::Asked) else {
            return Ok(Verdict::Accept);
        };
        let limit = filter.timeout.saturating_mul(TIMES).min(MAX_TIME_OF_ONE);
        let deadline = end.min(Instant::now() + limit);
        match milter.message(client, text, room, deadline) {
            Ok((response, edits)) => {
                record::note(id, filter, &response, &edits);
                if matches!(response, Response::Continue | Response::Accept | Response::Skip) {
                    record::adopt(filter, edits, text, changes);
                }
                Ok(self.decide(index, "message", response))
            }
            Err(MessageError::Filter(trouble)) => Ok(self.fail(index, "message", &trouble)),
            Err(MessageError::Content(error)) => Err(error),
        }
    }

    /// Connects to a milter, if there is no connection, and tells it of the client and of HELO,
    /// unless the milter knows both already.
    fn greet(&mut self, index: usize, greeting: Greeting) -> Verdict {
        // A milter that another one leaves nothing to decide is told nothing.
        if self.message.discarded_by.is_some() {
            return Verdict::Accept;
        }
        let Some(filter) = self.filter(index).cloned() else { return Verdict::Accept };
        let Some(member) = self.members.get_mut(index) else { return Verdict::Accept };
        match &member.whole {
            Some(Some(reply)) => return Verdict::Refuse(reply.clone()),
            Some(None) => {
                member.state = State::Done;
                return Verdict::Accept;
            }
            None => {}
        }
        // A filter may close a connection that it has not used for a while.
        if member.milter.as_mut().is_some_and(|milter| milter.is_stale()) {
            member.milter = None;
        }
        if member.milter.is_some() && member.told.as_ref() == Some(&greeting) {
            return Verdict::Accept;
        }
        member.told = None;
        if member.milter.is_none() {
            match Milter::open(&filter.socket, &self.filters.hostname, filter.timeout) {
                Ok(milter) => member.milter = Some(Box::new(milter)),
                Err(trouble) => return self.fail(index, "connect", &trouble),
            }
            let verdict = self.ask(index, "connect", |milter, client| milter.connect(client));
            if self.keep_whole(index, &verdict) {
                return verdict;
            }
        }
        let verdict = self.ask(index, "HELO", |milter, client| milter.hello(client));
        self.keep_whole(index, &verdict);
        if let Some(member) = self.members.get_mut(index).filter(|_| verdict == Verdict::Accept) {
            member.told = Some(greeting);
        }
        verdict
    }

    /// Keeps a verdict that applies to the whole connection. Returns false if the filter is to be
    /// told more about the client.
    fn keep_whole(&mut self, index: usize, verdict: &Verdict) -> bool {
        let Some(member) = self.members.get_mut(index) else { return true };
        match (verdict, member.state) {
            (Verdict::Refuse(reply), State::Asked) => member.whole = Some(Some(reply.clone())),
            (Verdict::Accept, State::Done) if member.milter.is_some() => member.whole = Some(None),
            (Verdict::Accept, State::Asked) => return false,
            _ => {}
        }
        true
    }

    /// Asks a milter, unless there is no connection to it or it has no further say about this
    /// message.
    fn ask(
        &mut self,
        index: usize,
        stage: &'static str,
        call: impl FnOnce(&mut Milter, &Client) -> Result<Response, Trouble>,
    ) -> Verdict {
        let (Some(member), Some(client)) = (self.members.get_mut(index), &self.client) else { return Verdict::Accept };
        let Some(milter) = &mut member.milter else {
            let has_failed = member.state == State::Failed;
            return if has_failed { Verdict::Refuse(reply::filter::unavailable()) } else { Verdict::Accept };
        };
        if member.state != State::Asked || self.message.discarded_by.is_some() {
            return Verdict::Accept;
        }
        match call(milter, client) {
            Ok(response) => self.decide(index, stage, response),
            Err(trouble) => self.fail(index, stage, &trouble),
        }
    }

    /// Turns the answer of a filter into a verdict.
    fn decide(&mut self, index: usize, stage: &'static str, response: Response) -> Verdict {
        let verdict = match response {
            Response::Accept => {
                self.set(index, State::Done);
                Verdict::Accept
            }
            Response::Discard if stage == "message" => Verdict::Discard,
            Response::Discard => {
                self.message.discarded_by = Some(index);
                Verdict::Accept
            }
            Response::Refuse(reply) => Verdict::Refuse(reply),
            Response::Close => Verdict::Close(reply::filter::closing(&self.filters.hostname)),
            Response::Continue | Response::Skip | Response::Progress | Response::Change(_) => Verdict::Accept,
        };
        if stage != "message" && matches!(verdict, Verdict::Refuse(_) | Verdict::Close(_)) {
            self.note_refusal(index, stage);
        }
        verdict
    }

    /// A filter is in trouble: ends the connection to it, and applies `on_failure`.
    fn fail(&mut self, index: usize, stage: &'static str, trouble: &Trouble) -> Verdict {
        let Some(filter) = self.filters.list.get(index) else { return Verdict::Accept };
        let is_accepted = filter.on_failure == OnFailure::Accept;
        if self.lines < MAX_LINES {
            self.lines += 1;
            let then = if is_accepted { "accept" } else { "defer" };
            log::filter_failed(&self.session, &filter.socket, stage, then, &trouble.to_string());
        }
        if let Some(member) = self.members.get_mut(index) {
            (member.milter, member.service) = (None, None);
            member.state = if is_accepted { State::Done } else { State::Failed };
        }
        if is_accepted { Verdict::Accept } else { Verdict::Refuse(reply::filter::unavailable()) }
    }

    fn note_refusal(&mut self, index: usize, stage: &'static str) {
        if let Some(filter) = self.filters.list.get(index).filter(|_| self.lines < MAX_LINES) {
            self.lines += 1;
            log::filter_refused(&self.session, &filter.socket, stage);
        }
    }

    fn note_warning(&mut self, index: usize, text: &str) {
        if let Some(filter) = self.filters.list.get(index).filter(|_| self.lines < MAX_LINES) {
            self.lines += 1;
            log::filtered(&self.session, &filter.socket, &[("warns", text.to_owned())]);
        }
    }

    /// Ends the connection to a filter.
    fn leave(&mut self, index: usize) {
        if let Some(member) = self.members.get_mut(index) {
            let left = std::mem::take(member);
            if let Some(milter) = left.milter {
                milter.quit();
            }
        }
    }

    fn filter(&self, index: usize) -> Option<&Filter> {
        self.filters.list.get(index)
    }

    fn is_milter(&self, index: usize) -> bool {
        self.filter(index).is_some_and(|filter| filter.protocol == FilterProtocol::Milter)
    }

    fn set(&mut self, index: usize, state: State) {
        if let Some(member) = self.members.get_mut(index) {
            member.state = state;
        }
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|index| self.leave(index));
    }
}

impl Member {
    /// Whether the filter still has a say about the message.
    fn is_active(&self) -> bool {
        self.state == State::Failed || self.state == State::Asked && self.milter.is_some()
    }
}
