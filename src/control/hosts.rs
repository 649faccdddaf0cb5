//! Writes the listing of other hosts: a line or an object for each destination, and for each address
//! that is down.

use std::io::{self, Write};
use std::time::Duration;

use crate::deliver::remote::addresses::DownAddress;
use crate::deliver::remote::tls_policy;
use crate::destination::Destination;
use crate::json::{Format, Object};
use crate::log;
use crate::outcome::Outcome;
use crate::queue::DestinationStatus;
use crate::site::Settings;
use crate::sys;

/// Writes a line for each destination, sorted by name, and then a line for each address that is
/// down. With JSON, each line is an object.
///
/// # Errors
/// The errors of `out`.
pub fn hosts(
    mut statuses: Vec<DestinationStatus>,
    mut down: Vec<DownAddress>,
    settings: &Settings,
    format: Format,
    out: &mut dyn Write,
) -> io::Result<()> {
    statuses.sort_by_cached_key(|status| status.destination.to_string());
    down.sort_by(|a, b| a.address.cmp(&b.address));
    let destinations = statuses.iter().map(|status| Row::of_destination(status, settings));
    destinations.chain(down.iter().map(Row::of_address)).try_for_each(|row| match format {
        Format::Text => writeln!(out, "{}", row.text()),
        Format::Json => writeln!(out, "{}", row.json()),
    })
}

/// What is listed about a destination or an address.
struct Row {
    /// `destination` or `address`, and its name.
    name: (&'static str, String),
    state: &'static str,
    /// The numbers of running jobs, of jobs that may run, and of ready jobs.
    jobs: Option<[usize; 3]>,
    /// When it went down and when it is probed next, in seconds since 1970.
    down: Option<(u64, u64)>,
    /// How connections are encrypted. Empty if there are no connections.
    policy: Vec<&'static str>,
    /// The TLS version of the last connection; `-` for plaintext, and empty if there was none.
    tls: &'static str,
    /// The host that was used last.
    host: Option<String>,
    /// The last reply or error.
    reply: Option<String>,
}

impl Row {
    fn of_destination(status: &DestinationStatus, settings: &Settings) -> Self {
        let last = status.last_failure.as_deref();
        let policy = match &*status.destination {
            Destination::Remote(target) => tls_policy(target, settings.config.remote.tls, &settings.credentials),
            _ => Vec::new(),
        };
        Self {
            name: ("destination", status.destination.listed_name()),
            state: status.state,
            jobs: Some([status.running, status.limit, status.ready]),
            down: status.down.map(times),
            policy,
            tls: status.tls.name(),
            host: host(last).or_else(|| status.address.as_ref().map(ToString::to_string)),
            reply: last.map(reply),
        }
    }

    fn of_address(address: &DownAddress) -> Self {
        Self {
            name: ("address", address.address.to_string()),
            state: "down",
            jobs: None,
            down: Some(times((address.since, address.next_probe))),
            policy: Vec::new(),
            tls: "",
            host: host(Some(&address.why)),
            reply: Some(reply(&address.why)),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}  {}", self.name.1, self.state);
        if let Some([running, limit, ready]) = self.jobs {
            text += &format!(", {running} of {limit} running, {ready} ready");
        }
        if let Some((since, probe)) = self.down {
            text += &format!(", since {}, next probe {}", log::local_timestamp(since), log::local_timestamp(probe));
        }
        if !self.policy.is_empty() {
            let last = match self.tls {
                "" => "",
                "-" => ", last plaintext",
                _ => ", last ",
            };
            let version = if self.tls == "-" { "" } else { self.tls };
            text += &format!(", TLS {}{last}{version}", self.policy.join(" or "));
        }
        let last: Vec<&str> = [&self.host, &self.reply].into_iter().flatten().map(String::as_str).collect();
        let separator = if last.is_empty() { "" } else { "  " };
        (text + separator + &last.join(" ")).replace(char::is_control, " ")
    }

    fn json(&self) -> Object {
        let mut object = Object::new();
        object.text(self.name.0, &self.name.1).text("state", self.state);
        if let Some([running, limit, ready]) = self.jobs {
            object.number("running", running).number("limit", limit).number("ready", ready);
        }
        if let Some((since, probe)) = self.down {
            object.text("since", &log::timestamp(since)).text("next_probe", &log::timestamp(probe));
        }
        if !self.policy.is_empty() {
            object.texts("tls_policy", &self.policy);
        }
        object.some_text("tls", Some(self.tls).filter(|tls| !tls.is_empty()));
        object.some_text("host", self.host.as_deref()).some_text("reply", self.reply.as_deref());
        object
    }
}

/// Returns when a host went down and when it is probed next, in seconds since 1970. `since` is the
/// time that has passed since it went down, and `probe` the time until the next probe.
fn times((since, probe): (Duration, Duration)) -> (u64, u64) {
    let now = sys::now();
    (now.saturating_sub(since.as_secs()), now.saturating_add(probe.as_secs()))
}

/// The host of an outcome; `None` if it names none.
fn host(outcome: Option<&Outcome>) -> Option<String> {
    outcome.map(|outcome| outcome.host.to_string()).filter(|host| !host.is_empty())
}

/// The reply of the host, or the error.
fn reply(outcome: &Outcome) -> String {
    outcome.reply.as_ref().map_or_else(|| outcome.why.clone(), ToString::to_string)
}
