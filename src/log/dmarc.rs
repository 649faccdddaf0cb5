//! The lines about DMARC reports.

use std::fmt;

use ::log::Level;

use super::emit::emit;
use super::timestamp;
use super::value::Value;
use crate::address::Address;

/// Logs that a DMARC report about a domain was queued. `day` is the start of the day that the
/// report covers, in seconds since 1970.
pub fn report_sent(id: &dyn fmt::Display, domain: &str, day: u64, to: &Address, size: usize) {
    let (day, to) = (date(day), format!("<{to}>"));
    emit(Level::Info, &format!("{id} dmarc-report domain={} day={day} to={} size={size}", Value(domain), Value(&to)));
}

/// Logs the reason why a DMARC report about a domain is not sent to one of the addresses that the
/// domain names, or is not sent at all.
pub fn report_withheld(domain: &str, day: u64, why: &str) {
    emit(Level::Info, &format!("- dmarc-report domain={} day={} reason={}", Value(domain), date(day), Value(why)));
}

/// The date of a time in seconds since 1970, in UTC.
fn date(seconds: u64) -> String {
    let time = timestamp(seconds);
    time.split_once('T').map_or(time.clone(), |(date, _)| date.to_owned())
}
