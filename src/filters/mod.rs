//! Asks the filters of the configuration about mail: milters, and policy services of Postfix.
//!
//! A session has a [`Dialogue`]. It connects to the filters at the first MAIL, when it is known
//! whether the client is a stranger or may relay, and tells the milters of the connection and of
//! HELO then. A client that sends no mail costs the filters nothing. The filters are asked in the
//! order of the configuration, and each one sees the text of a message as the filters before it
//! have changed the text ([`Text`]). At the end of a message, [`Dialogue::message`] returns the
//! verdict and the [`Changes`], which the caller applies.
//!
//! A filter that cannot be reached, takes too long, ends or violates the protocol is in trouble:
//! its `on_failure` decides, and its changes to the message are forgotten. Everything is bounded,
//! and nothing is shared between sessions, so trouble harms only the session in which it occurs.
//!
//! - `changes`: the changes to a message and its envelope
//! - `dialogue`: the filters of one session
//! - `facts`: the facts that filters are told
//! - `link`: the connection to a filter
//! - `milter`: the milter protocol
//! - `policy`: the policy delegation protocol
//! - `text`: the text of a message, as the filters have changed it

use std::borrow::Cow;
use std::fmt;
use std::io;

use crate::config::{Config, Filter, FilterProtocol};

mod changes;
mod dialogue;
mod facts;
mod link;
mod milter;
mod policy;
mod text;

pub use changes::{Changes, RecipientChange};
pub use dialogue::{Dialogue, Ended, Verdict};
pub use facts::{Client, Person};
pub use milter::{Change, NewField, Options, Response, Room};
pub use policy::Action;
pub use text::{Body, Content, Field, Header, MAX_HEADER, NewBody, Text};

/// The filters of the configuration.
#[derive(Debug, Default)]
pub struct Filters {
    hostname: String,
    list: Vec<Filter>,
}

impl Filters {
    /// The filters that the configuration names. No connection is made.
    pub fn new(config: &Config) -> Self {
        Self { hostname: config.hostname.clone(), list: config.filters.clone() }
    }

    /// Connects to each filter, and returns a text for each one that does not answer, with the
    /// number of the filter in the configuration.
    pub fn warnings(&self) -> Vec<(usize, String)> {
        let failure = |(number, filter): (usize, &Filter)| {
            let answer = match filter.protocol {
                FilterProtocol::Milter => {
                    milter::Milter::open(&filter.socket, &self.hostname, filter.timeout.min(TRIAL))
                        .map(milter::Milter::quit)
                }
                FilterProtocol::Policy => policy::Service::open(&filter.socket, filter.timeout.min(TRIAL)).map(drop),
            };
            let text = |trouble| (number, format!("filter {}: it does not answer: {trouble}", filter.socket));
            answer.err().map(text)
        };
        self.list.iter().enumerate().filter_map(failure).collect()
    }
}

/// The time limit of a trial for [`Filters::warnings`].
const TRIAL: std::time::Duration = std::time::Duration::from_secs(3);

/// The reason why a filter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble(Cow<'static, str>);

impl Trouble {
    /// Trouble for this reason.
    pub fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::new("it took too long"),
            io::ErrorKind::UnexpectedEof => Self::new("it closed the connection"),
            _ => Self::new(error.to_string()),
        }
    }
}
