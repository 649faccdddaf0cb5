//! The lines about what an administrator has done with messages in the queue.

use std::fmt;

use ::log::Level;

use super::emit::emit;
use super::value::Value;

/// Logs that a user has returned a message to its sender.
pub fn returned(id: &dyn fmt::Display, reason: &str, user: &str) {
    emit(Level::Info, &format!("{id} returned reason={} user={}", Value(reason), Value(user)));
}

/// Logs that a user has had the recipients of a message looked up anew, and their number.
pub fn requeued(id: &dyn fmt::Display, recipients: usize, user: &str) {
    emit(Level::Info, &format!("{id} requeued to={recipients} user={}", Value(user)));
}

/// Logs that a user has had a message tried.
pub fn flushed(id: &dyn fmt::Display, user: &str) {
    emit(Level::Info, &format!("{id} flushed user={}", Value(user)));
}

/// Logs that a user has had the mail for a domain tried, or all mail (`*`), and the number of jobs.
pub fn flushed_all(node: &str, jobs: usize, user: &str) {
    emit(Level::Info, &format!("- flushed node={} jobs={jobs} user={}", Value(node), Value(user)));
}
