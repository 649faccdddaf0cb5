//! Writes the listing of other hosts: a line for each destination, and for each address that is
//! down.

use std::io::{self, Write};
use std::time::Duration;

use crate::deliver::remote::addresses::DownAddress;
use crate::log;
use crate::outcome::Outcome;
use crate::queue::DestinationStatus;
use crate::sys;

/// Writes a line for each destination, sorted by name, and then a line for each address that is
/// down.
///
/// # Errors
/// The errors of `out`.
pub fn hosts(mut statuses: Vec<DestinationStatus>, mut down: Vec<DownAddress>, out: &mut dyn Write) -> io::Result<()> {
    statuses.sort_by_cached_key(|status| status.destination.to_string());
    down.sort_by(|a, b| a.address.cmp(&b.address));
    for status in &statuses {
        let DestinationStatus { destination, state, running, limit, ready, .. } = status;
        let name = destination.listed_name();
        write!(out, "{name}  {state}, {running} of {limit} running, {ready} ready")?;
        if let Some((since, probe)) = status.down {
            write!(out, ", {}", times(since, probe))?;
        }
        let address = status.address.as_ref().map(ToString::to_string);
        last_outcome(status.last_failure.as_deref(), address, out)?;
    }
    for DownAddress { address, since, next_probe, why } in &down {
        write!(out, "{address}  down, {}", times(*since, *next_probe))?;
        last_outcome(Some(why), None, out)?;
    }
    Ok(())
}

/// Returns a text that says when a host went down, and when it is probed next. `since` is the time
/// that has passed since it went down, and `probe` the time until the next probe.
fn times(since: Duration, probe: Duration) -> String {
    let now = sys::now();
    let (since, probe) = (now.saturating_sub(since.as_secs()), now.saturating_add(probe.as_secs()));
    format!("since {}, next probe {}", log::timestamp(since), log::timestamp(probe))
}

/// Writes the host and the text of the last outcome, and the line end. If the outcome names no
/// host, writes `address` instead.
fn last_outcome(outcome: Option<&Outcome>, address: Option<String>, out: &mut dyn Write) -> io::Result<()> {
    let host = outcome.map(|outcome| outcome.host.to_string()).filter(|host| !host.is_empty()).or(address);
    let text = outcome.map(|o| o.reply.as_ref().map_or_else(|| o.why.clone(), ToString::to_string));
    let text: Vec<String> = host.into_iter().chain(text).collect();
    let separator = if text.is_empty() { "" } else { "  " };
    let clean = text.join(" ").replace(char::is_control, " ");
    writeln!(out, "{separator}{clean}")
}
