//! The line about a call-out: a question to the next host whether a recipient exists.

use std::time::Duration;

use ::log::Level;

use super::emit::emit;
use super::events::push_answer;
use super::value::{Value, push};
use crate::address::Address;
use crate::outcome::Outcome;

/// The event that a next host was asked about a recipient.
pub struct Asked<'a> {
    /// The session id.
    pub session: &'a str,
    /// The recipient.
    pub recipient: &'a Address,
    /// The name of the destination.
    pub destination: &'a str,
    /// Whether the recipient is a random one, to find out whether the host accepts all.
    pub is_random: bool,
    /// The word for the answer.
    pub result: &'a str,
    /// The outcome of the call-out.
    pub outcome: &'a Outcome,
    /// The time that the call-out has taken.
    pub time: Duration,
}

/// Logs a call-out.
pub fn asked(event: &Asked<'_>) {
    let Asked { session, recipient, destination, is_random, result, outcome, time } = event;
    let mut line = format!("{session} asked to={}", Value(&format!("<{recipient}>")));
    if *is_random {
        push(&mut line, "random", "yes");
    }
    push(&mut line, "dest", destination);
    push(&mut line, "result", result);
    if !outcome.host.is_empty() {
        push(&mut line, "host", &outcome.host);
    }
    if !outcome.tls.name().is_empty() {
        push(&mut line, "tls", outcome.tls.name());
    }
    line.push_str(&format!(" delay={:.1}", time.as_secs_f64()));
    push_answer(&mut line, outcome);
    emit(Level::Info, &line);
}
