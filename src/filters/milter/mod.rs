//! The client side of the milter protocol, version 2 to 6, as libmilter and Postfix speak it.
//!
//! A [`Milter`] is a connection to one filter, for one client. Each event has a time limit, which
//! no number of answers extends: a filter that asks for more time gets none beyond it. Whatever a
//! filter sends is bounded in octets and in number, and a violation of the protocol ends the
//! connection with [`Trouble`].
//!
//! - `macros`: the macros and their values
//! - `message`: the events of a message, and the changes that the filter makes
//! - `options`: the negotiation
//! - `packet`: the packets
//! - `response`: the packets of a filter, as values

use std::time::{Duration, Instant};

mod macros;
mod message;
mod options;
mod packet;
mod response;

pub use message::{Edits, MessageError, Room};
pub use options::Options;
pub use response::{Change, NewField, Response};

use macros::{Stage, Values};
use options::protocol;
use packet::{command, push_text};

use super::Trouble;
use super::facts::{Client, Person};
use super::link::Link;
use crate::endpoint::Endpoint;

/// The maximum number of answers to one event. Only PROGRESS comes more than once.
const MAX_ANSWERS: usize = 1000;

/// A connection to a milter.
#[derive(Debug)]
pub struct Milter {
    link: Link,
    options: Options,
    hostname: String,
    timeout: Duration,
    /// Whether the filter has been told of a sender, but not yet of the end of that message.
    is_in_message: bool,
    sender: Option<Person>,
    /// The number of recipients that the filter was told of.
    recipients: usize,
    id: String,
    /// Whether the filter wants no more recipients of this message.
    skips_recipients: bool,
}

/// An event: the letter of its packet, the flag by which a filter says that it does not want the
/// event, and the flag by which a filter says that it does not answer the event.
struct Event {
    letter: u8,
    unwanted: u32,
    unanswered: u32,
    stage: Option<Stage>,
}

const CONNECT: Event = Event {
    letter: command::CONNECT,
    unwanted: protocol::NO_CONNECT,
    unanswered: protocol::NO_REPLY_TO_CONNECT,
    stage: Some(Stage::Connect),
};
const HELLO: Event = Event {
    letter: command::HELO,
    unwanted: protocol::NO_HELO,
    unanswered: protocol::NO_REPLY_TO_HELO,
    stage: Some(Stage::Hello),
};
const MAIL: Event = Event {
    letter: command::MAIL,
    unwanted: protocol::NO_MAIL,
    unanswered: protocol::NO_REPLY_TO_MAIL,
    stage: Some(Stage::Mail),
};
const RCPT: Event = Event {
    letter: command::RCPT,
    unwanted: protocol::NO_RCPT,
    unanswered: protocol::NO_REPLY_TO_RCPT,
    stage: Some(Stage::Rcpt),
};
const DATA: Event = Event {
    letter: command::DATA,
    unwanted: protocol::NO_DATA,
    unanswered: protocol::NO_REPLY_TO_DATA,
    stage: Some(Stage::Data),
};
const UNKNOWN: Event = Event {
    letter: command::UNKNOWN,
    unwanted: protocol::NO_UNKNOWN,
    unanswered: protocol::NO_REPLY_TO_UNKNOWN,
    stage: None,
};

impl Milter {
    /// Connects to a filter and negotiates.
    ///
    /// # Errors
    /// If the filter cannot be reached, does not answer in time, or violates the protocol.
    pub fn open(socket: &Endpoint, hostname: &str, timeout: Duration) -> Result<Self, Trouble> {
        let mut link = Link::open(socket, timeout)?;
        link.set_deadline(Instant::now() + timeout);
        packet::put(&mut link, command::NEGOTIATE, &Options::offer())?;
        link.send()?;
        let options = match packet::read(&mut link)? {
            (command::NEGOTIATE, data) => Options::read(&data)?,
            _ => return Err(Trouble::new("it does not negotiate")),
        };
        Ok(Self {
            link,
            options,
            hostname: hostname.to_owned(),
            timeout,
            is_in_message: false,
            sender: None,
            recipients: 0,
            id: String::new(),
            skips_recipients: false,
        })
    }

    /// Tells of the client's connection.
    ///
    /// # Errors
    /// As for all events: if the filter fails or violates the protocol.
    pub fn connect(&mut self, client: &Client) -> Result<Response, Trouble> {
        let name = match (&client.name, client.address) {
            (Some(name), _) => name.clone(),
            (None, None) => client.shown_name().to_owned(),
            (None, Some(_)) => format!("[{}]", client.shown_address()),
        };
        let mut data = Vec::new();
        push_text(&mut data, name.as_bytes());
        data.push(if client.ip().is_ipv4() { b'4' } else { b'6' });
        data.extend(client.port.to_be_bytes());
        push_text(&mut data, client.shown_address().as_bytes());
        self.event(&CONNECT, client, None, &data)
    }

    /// Tells of HELO or EHLO.
    ///
    /// # Errors
    /// See [`Milter::connect`].
    pub fn hello(&mut self, client: &Client) -> Result<Response, Trouble> {
        let mut data = Vec::new();
        push_text(&mut data, client.hello.as_bytes());
        self.event(&HELLO, client, None, &data)
    }

    /// Tells of MAIL. If the filter was not told of the end of the previous message, ends that
    /// first.
    ///
    /// # Errors
    /// See [`Milter::connect`].
    pub fn mail(&mut self, client: &Client, sender: &Person) -> Result<Response, Trouble> {
        self.abort();
        (self.is_in_message, self.skips_recipients, self.recipients) = (true, false, 0);
        self.sender = Some(sender.clone());
        self.event(&MAIL, client, None, &sender.arguments())
    }

    /// Tells of RCPT.
    ///
    /// # Errors
    /// See [`Milter::connect`].
    pub fn rcpt(&mut self, client: &Client, recipient: &Person) -> Result<Response, Trouble> {
        if self.skips_recipients {
            return Ok(Response::Continue);
        }
        self.recipients += 1;
        let response = self.event(&RCPT, client, Some(recipient), &recipient.arguments())?;
        if response == Response::Skip {
            self.skips_recipients = true;
            return Ok(Response::Continue);
        }
        Ok(response)
    }

    /// Tells of DATA, and of the queue id.
    ///
    /// # Errors
    /// See [`Milter::connect`].
    pub fn data(&mut self, client: &Client, id: &str) -> Result<Response, Trouble> {
        id.clone_into(&mut self.id);
        if !self.options.knows_data() {
            return Ok(Response::Continue);
        }
        self.event(&DATA, client, None, b"")
    }

    /// Tells of an unknown command.
    ///
    /// # Errors
    /// See [`Milter::connect`].
    pub fn unknown(&mut self, client: &Client, line: &[u8]) -> Result<Response, Trouble> {
        if !self.options.knows_unknown() {
            return Ok(Response::Continue);
        }
        let mut data = Vec::new();
        push_text(&mut data, line);
        self.event(&UNKNOWN, client, None, &data)
    }

    /// Whether the filter has closed the connection, or has sent something without being asked.
    pub fn is_stale(&mut self) -> bool {
        self.link.is_stale()
    }

    /// Ends the message, if the filter was told of one. The filter does not answer, and an error
    /// shows at the next event.
    pub fn abort(&mut self) {
        self.id.clear();
        if std::mem::take(&mut self.is_in_message) {
            self.say(command::ABORT);
        }
    }

    /// Ends the connection.
    pub fn quit(mut self) {
        self.say(command::QUIT);
    }

    /// Sends a packet that has no answer. If the filter does not read, gives up soon.
    fn say(&mut self, letter: u8) {
        self.link.set_deadline(Instant::now() + Duration::from_millis(100));
        let _ = packet::put(&mut self.link, letter, b"").and_then(|()| Ok(self.link.send()?));
    }

    /// Sends an event with its macros, and reads the answer. As in Postfix, the macros are sent
    /// even if the filter does not want the event, because the filter may read the macros later.
    fn event(
        &mut self,
        event: &Event,
        client: &Client,
        recipient: Option<&Person>,
        data: &[u8],
    ) -> Result<Response, Trouble> {
        self.link.set_deadline(Instant::now() + self.timeout);
        if let Some(stage) = event.stage {
            self.put_macros(event.letter, stage, client, recipient)?;
        }
        self.step(event, data)
    }

    /// Sends an event, and reads the answer, if there is one.
    fn step(&mut self, event: &Event, data: &[u8]) -> Result<Response, Trouble> {
        self.tell(event, data)?;
        if self.options.has(event.unwanted) || self.options.has(event.unanswered) {
            return Ok(Response::Continue);
        }
        match self.answer()? {
            Response::Change(_) => Err(Trouble::new("it changes a message that has not ended")),
            response => Ok(response),
        }
    }

    /// Puts an event into the output, if the filter wants it.
    fn tell(&mut self, event: &Event, data: &[u8]) -> Result<(), Trouble> {
        if self.options.has(event.unwanted) {
            return Ok(());
        }
        packet::put(&mut self.link, event.letter, data.get(..packet::MAX_DATA).unwrap_or(data))
    }

    fn put_macros(
        &mut self,
        letter: u8,
        stage: Stage,
        client: &Client,
        recipient: Option<&Person>,
    ) -> Result<(), Trouble> {
        let values = Values {
            hostname: &self.hostname,
            client,
            sender: self.sender.as_ref(),
            recipient,
            id: &self.id,
            recipients: self.recipients,
        };
        let data = values.packet(letter, &self.options.macros(stage));
        packet::put(&mut self.link, command::MACRO, &data)
    }

    /// Sends what is waiting, and reads the next packet that is not PROGRESS.
    fn answer(&mut self) -> Result<Response, Trouble> {
        self.link.send()?;
        for _ in 0..MAX_ANSWERS {
            let (letter, data) = packet::read(&mut self.link)?;
            let response = Response::read(letter, &data)?;
            if let Response::Change(change) = &response
                && !self.options.may(change.actions())
            {
                let letter = char::from(letter);
                return Err(Trouble::new(format!("it sent {letter:?} without having negotiated it")));
            }
            match response {
                Response::Progress => {}
                Response::Skip if !self.options.has(protocol::SKIP) => {
                    return Err(Trouble::new("it skips without having negotiated it"));
                }
                response => return Ok(response),
            }
        }
        Err(Trouble::new("it does not end its answer"))
    }
}
