//! Counts what happens to mail, for `penfoldctl stats`, the status page and OpenMetrics.
//!
//! Each function here stands beside the function of `log` that logs the same event. Counting takes
//! a few atomic additions, and for some events one look-up in a bounded map. The numbers of this
//! process are in one static [`Live`]. Every ten minutes, and at the end of the process, the
//! numbers that are new are appended to a file in `state/` (see `keep`), so that `--since` works
//! after a restart.
//!
//! A number belongs to a [`Family`] and has labels, such as the reason of a refusal. Families that
//! name people or clients are *personal*: they are kept for `penfoldctl stats` alone, and never
//! shown on the status page or in OpenMetrics.
//!
//! - `causes`: the reasons of refusals without a rule, in a few words
//! - `counts`: numbers by family and labels: sums, differences, percentiles, text
//! - `family`: the families
//! - `gauges`: the present state, such as the length of the queue
//! - `keep`: the numbers on disk, and the hours of the last two days
//! - `live`: the numbers of this process
//! - `openmetrics`: the numbers in the OpenMetrics format

use std::time::Duration;

use crate::outcome::{Encryption, Fate, Outcome};

mod causes;
mod counts;
mod family;
mod gauges;
mod keep;
mod live;
pub mod openmetrics;

pub use causes::refusal_word;
pub use counts::{Counts, Delays};
pub use family::{Event, Family, Origin, Place};
pub use gauges::AGES;
pub use gauges::{Census, Certificate, Gauges, Load, SharedState, age_column};
pub use keep::{Hour, recent_hours};
pub use keep::{Keeper, read, save, started};
use live::LIVE;

/// An accepted message.
pub struct Acceptance<'a> {
    /// How the message came.
    pub origin: Origin,
    /// The encryption of the client's connection.
    pub tls: Encryption,
    /// The size in octets.
    pub size: u64,
    /// The number of recipients.
    pub recipients: usize,
    /// The reverse-path, as the log shows it.
    pub sender: &'a str,
    /// The login or the local user; `None` for a client without a login.
    pub account: Option<&'a str>,
    /// The client, as the log shows it.
    pub client: &'a str,
}

/// Counts an accepted message.
pub fn accepted(event: &Acceptance<'_>) {
    LIVE.accepted(event);
}

/// Counts a refused command. `reason` is the rule that refuses it.
pub fn refused(reason: &str, client: &str) {
    LIVE.add(Family::Refused, &[reason], 1);
    LIVE.add(Family::RefusedClient, &[client], 1);
}

/// Counts refused commands of a client that are not logged one by one.
pub fn refused_more(client: &str, count: usize) {
    LIVE.add(Family::Refused, &["more-of-the-same-client"], count as u64);
    LIVE.add(Family::RefusedClient, &[client], count as u64);
}

/// Counts the outcome of an attempt for one recipient. `domain` is the recipient's domain, `cause`
/// the cause of a deferral or failure, and `delay` the age of the message.
pub fn attempt(via: &str, domain: &str, (outcome, cause): (&Outcome, &str), delay: Duration) {
    LIVE.attempt(via, outcome.fate, (outcome.tls, delay));
    // Mail into mailboxes of this host is the most common, and has no destination to name.
    let place = Place::of(via);
    let destination = if place == Place::Remote { domain } else { place.word() };
    match outcome.fate {
        Fate::Delivered if place == Place::Remote => LIVE.add(Family::SentTo, &[destination], 1),
        Fate::Delivered => {}
        Fate::Deferred => LIVE.add(Family::Deferred, &[destination, cause], 1),
        Fate::Failed => LIVE.add(Family::Failed, &[cause], 1),
    }
}

/// Counts an event that has no further properties.
pub fn event(event: Event) {
    LIVE.event(event);
}

/// Counts the result of a check of a message, such as `dmarc` and `pass`.
pub fn checked(method: &str, result: &str) {
    LIVE.add(Family::Check, &[method, result], 1);
}

/// Counts what a filter has done.
pub fn filtered(result: &str) {
    LIVE.add(Family::Filter, &[result], 1);
}

/// Returns what was counted since the start of this process, without the personal numbers. What
/// other processes have counted meanwhile is included.
pub fn since_start() -> Counts {
    let mut counts = LIVE.counts();
    counts.merge(&keep::others());
    counts.drop_personal();
    counts
}
