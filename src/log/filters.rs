//! The functions that log what filters do.

use std::fmt;

use ::log::Level;

use super::counted;
use super::emit::emit;
use super::value::{Value, push};
use crate::stats::{self, Event};

/// Logs what a filter has done to the message or session with this id.
pub fn filtered(id: &str, filter: &dyn fmt::Display, done: &[(&'static str, String)]) {
    counted::filtered(done);
    let mut line = format!("{id} filter by={}", Value(&filter.to_string()));
    done.iter().for_each(|(key, value)| push(&mut line, key, value));
    emit(Level::Info, &line);
}

/// Logs that a filter refuses a command or a message. The session then logs the line
/// `refused`, with the command and the reply.
pub fn filter_refused(session: &str, filter: &dyn fmt::Display, stage: &str) {
    stats::filtered("refuse");
    emit(
        Level::Info,
        &format!("{session} filter by={} result=refuse stage={}", Value(&filter.to_string()), Value(stage)),
    );
}

/// Logs that a filter is in trouble, and what happens to the mail: `accept` or `defer`.
pub fn filter_failed(session: &str, filter: &dyn fmt::Display, stage: &str, then: &str, why: &str) {
    stats::event(Event::FilterFailed);
    let (filter, stage, why) = (filter.to_string(), Value(stage), Value(why));
    emit(Level::Warn, &format!("{session} filter-failed by={} stage={stage} mail={then} reason={why}", Value(&filter)));
}
