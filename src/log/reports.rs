//! The lines about reports to the owners of domains.

use std::fmt;

use ::log::Level;

use super::emit::emit;
use super::timestamp;
use super::value::Value;

/// A kind of report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// A DMARC report (RFC 9990).
    Dmarc,
    /// A TLS report (RFC 8460).
    Tls,
}

impl Report {
    fn word(self) -> &'static str {
        match self {
            Self::Dmarc => "dmarc-report",
            Self::Tls => "tls-report",
        }
    }

    /// Logs that a report about a domain was queued for an address, or sent to a web server. `id` is
    /// the queue id, or `-`. `day` is the start of the day that the report covers, in seconds since
    /// 1970.
    pub fn sent(self, id: &dyn fmt::Display, domain: &str, day: u64, to: &str, size: usize) {
        let (word, day) = (self.word(), date(day));
        emit(Level::Info, &format!("{id} {word} domain={} day={day} to={} size={size}", Value(domain), Value(to)));
    }

    /// Logs the reason why a report about a domain is not sent to one of the places that the domain
    /// names, or is not sent at all.
    pub fn withheld(self, domain: &str, day: u64, why: &str) {
        let (word, day) = (self.word(), date(day));
        emit(Level::Info, &format!("- {word} domain={} day={day} reason={}", Value(domain), Value(why)));
    }
}

/// The date of a time in seconds since 1970, in UTC.
fn date(seconds: u64) -> String {
    let time = timestamp(seconds);
    time.split_once('T').map_or(time.clone(), |(date, _)| date.to_owned())
}
