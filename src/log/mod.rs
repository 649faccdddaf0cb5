//! Writes the log of every process: each event is one line, in a file, in syslog or on standard
//! error.
//!
//! The line of an event begins with the queue id or session id, followed by `key=value` pairs in a
//! fixed order, for people and scripts. Values with special characters are quoted and escaped, so
//! that no client input can forge a line. A line that cannot be logged goes to standard error.
//! Other messages to the administrator use the macros of the `log` crate: `error` if the
//! administrator has to act, and `warn` if that is advisable.
//!
//! - `admin`: the lines about what an administrator has done with messages
//! - `asked`: the line about a question to the next host
//! - `collect`: the lines in memory, for a command
//! - `counted`: counts the events
//! - `emit`: logs the line of an event
//! - `events`: the functions that write the lines of events
//! - `filters`: the lines about filters
//! - `format`: the form of a line for each destination
//! - `journal`: the journal of systemd
//! - `line`: reads the line of an event back
//! - `reports`: the lines about reports to domains
//! - `sink`: a log file, or syslog
//! - `value`: quoting and escaping
//! - `zone`: the time zone of this host

use std::io;

use ::log::LevelFilter;

use crate::config::LogTo;
use crate::json::Format;

mod admin;
mod asked;
mod collect;
mod counted;
mod emit;
mod events;
#[cfg(feature = "filters")]
mod filters;
mod format;
mod journal;
pub mod line;
mod reports;
mod sink;
mod value;
mod zone;

use format::Form;
use journal::Journal;
use sink::{LogFile, Syslog};

pub use admin::{flushed, flushed_all, requeued, returned};
pub use asked::{Asked, asked};
pub use collect::collect;
pub use events::{
    Accepted, Attempt, Checked, Lost, Refused, Rule, accepted, asked_for_queue, attempt, auth_failed, bounced, checked,
    confirmed, converted, discarded, done, dropped, handshake_failed, held, limit_reached, logged_in, lost, marked,
    paced, peer, plaintext, refused, refused_more, released, removed, warned,
};
#[cfg(feature = "filters")]
pub use filters::{filter_failed, filter_refused, filtered};
pub use reports::Report;
pub use sink::{reopen, warn_of_missing_syslog};
pub use value::pairs;
pub use zone::{warn_of_zone, zone};

/// The current time in this host's time zone. The zone was read when the log started, since reading
/// the zone takes more stack than a session's thread has.
pub fn local_time() -> jiff::Zoned {
    jiff::Timestamp::now().to_zoned(zone().clone())
}

/// Seconds since 1970 in this host's time zone, with the zone's abbreviation: `2026-11-22 11:15:00 CET`.
pub fn local_timestamp(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()).unwrap_or_default();
    time.to_zoned(zone().clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// A time span in words, in its largest unit.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Seconds since 1970 as `2026-11-22T10:15:00Z`.
pub fn timestamp(seconds: u64) -> String {
    i64::try_from(seconds).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()).unwrap_or_default().to_string()
}

/// Starts the log, with debug messages if `verbose`. PENFOLD_LOG, in env_logger's syntax,
/// overrides the level. If standard error leads to the journal of systemd, the lines go there with a
/// field for each pair of an event.
///
/// # Errors
/// If the log file cannot be opened.
pub fn start(to: &LogTo, format: Format, verbose: bool, program: &'static str) -> io::Result<()> {
    zone();
    let mut builder = env_logger::Builder::new();
    builder.filter_level(if verbose { LevelFilter::Debug } else { LevelFilter::Info });
    // The messages of rustls do not name the peer. Failed handshakes are logged elsewhere.
    builder.filter_module("rustls", LevelFilter::Off);
    builder.parse_env("PENFOLD_LOG");
    let form = match to {
        LogTo::Stderr => match Journal::of_standard_error() {
            Some(journal) => {
                builder.target(env_logger::Target::Pipe(Box::new(journal)));
                Form::Journal
            }
            None => Form::Bare,
        },
        LogTo::File(path) => {
            builder.target(env_logger::Target::Pipe(Box::new(LogFile::open(path)?)));
            Form::Dated
        }
        LogTo::Syslog => {
            builder.target(env_logger::Target::Pipe(Box::new(Syslog::default())));
            Form::Syslog
        }
    };
    builder.format(move |f, record| form.write(f, record, format, program));
    // Starting the log again, as tests do, has no effect.
    let _ = builder.try_init();
    Ok(())
}

/// Logs panics, which are bugs, from now on.
pub fn report_bugs() {
    std::panic::set_hook(Box::new(|bug| ::log::error!("bug: {bug}")));
}
