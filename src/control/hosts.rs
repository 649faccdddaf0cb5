//! Writes the listing of other hosts: some lines or an object for each destination, and for each
//! address that is down.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::deliver::remote::addresses::{DownAddress, place};
use crate::deliver::remote::tls_policy;
use crate::destination::Destination;
use crate::endpoint::Endpoint;
use crate::json::{Format, Object};
use crate::log;
use crate::outcome::Outcome;
use crate::queue::{DestinationStatus, LatestDomains};
use crate::site::Settings;
use crate::sys;
use crate::tls_policy::Rules;
use crate::tls_policy::sts::Policies;
use crate::wrap::wrapped;

/// Writes the destinations, sorted by name, and then the addresses that are down: some lines for
/// each, or an object with JSON. The lines of a destination that is down tell of its address, too.
///
/// # Errors
/// The errors of `out`.
pub fn hosts(
    mut statuses: Vec<DestinationStatus>,
    mut down: Vec<DownAddress>,
    (settings, sts): (&Settings, &Policies),
    format: Format,
    out: &mut dyn Write,
) -> io::Result<()> {
    statuses.sort_by_cached_key(|status| status.destination.to_string());
    down.sort_by(|a, b| a.address.cmp(&b.address));
    if format == Format::Text {
        let down_hosts: Vec<_> = statuses.iter().filter(|status| status.down.is_some()).filter_map(address).collect();
        down.retain(|down| !down_hosts.contains(&down.address));
    }
    let destinations = statuses.iter().map(|status| Row::of_destination(status, settings, sts));
    destinations.chain(down.iter().map(Row::of_address)).try_for_each(|row| match format {
        Format::Text => writeln!(out, "{}", row.text()),
        Format::Json => writeln!(out, "{}", row.json()),
    })
}

/// The address of the last failure of a destination, as [`DownAddress`] has it.
fn address(status: &DestinationStatus) -> Option<Endpoint> {
    let host = &status.last_failure.as_ref()?.host;
    let (_, rest) = host.split_once('[')?;
    let (ip, port) = rest.rsplit_once("]:")?;
    Some(place(&SocketAddr::new(ip.parse().ok()?, port.parse().ok()?).into()))
}

/// What is listed about a destination or an address.
struct Row {
    /// `destination` or `address`, and its name.
    name: (&'static str, String),
    state: &'static str,
    /// The address of this host to which the state of an address applies; `None` if the system chooses.
    source: Option<String>,
    /// The numbers of running jobs, of jobs that may run, and of ready jobs.
    jobs: Option<[usize; 3]>,
    /// When it went down and when it is probed next, in seconds since 1970.
    down: Option<(u64, u64)>,
    /// If the limits of the destination let no message start now: when the next one can start, in seconds
    /// since 1970, and the limit.
    paced: Option<(u64, String)>,
    /// The latest domains whose mail goes there, if the name does not have them.
    domains: LatestDomains,
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
    fn of_destination(status: &DestinationStatus, settings: &Settings, sts: &Policies) -> Self {
        let last = status.last_failure.as_deref();
        let policy = match &*status.destination {
            Destination::Remote(target, _) => {
                let (config, table) = (&settings.config.remote, &*settings.tls_policies);
                let rules = Rules { config, table, dns: None, sts: Some(sts) };
                tls_policy(target, rules, &settings.credentials)
            }
            _ => Vec::new(),
        };
        Self {
            name: ("destination", status.destination.listed_name()),
            state: status.state,
            source: None,
            jobs: Some([status.running, status.limit, status.ready]),
            down: status.down.map(times),
            paced: status.paced.map(|(wait, reason)| (sys::now().saturating_add(wait.as_secs()), reason.to_string())),
            domains: status.domains.clone(),
            policy,
            tls: status.tls.name(),
            host: host(last).or_else(|| status.address.as_ref().map(ToString::to_string)),
            reply: last.map(reply),
        }
    }

    fn of_address(address: &DownAddress) -> Self {
        Self {
            name: ("address", address.address.to_string()),
            source: address.source.map(|source| source.to_string()),
            state: "down",
            jobs: None,
            down: Some(times((address.since, address.next_probe))),
            paced: None,
            domains: LatestDomains::default(),
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
        let LatestDomains { names, more } = &self.domains;
        let domains = (!names.is_empty()).then(|| {
            let mut names: Vec<&str> = names.iter().map(|name| &**name).collect();
            names.sort_unstable();
            format!("for {}{}", names.join(", "), if *more { " and others" } else { "" })
        });
        let down = self.down.map(|(since, probe)| {
            format!("since {}, next probe {}", log::local_timestamp(since), log::local_timestamp(probe))
        });
        let paced = self
            .paced
            .as_ref()
            .map(|(next, reason)| format!("paced by {reason}, next message {}", log::local_timestamp(*next)));
        let source = self.source.as_ref().map(|source| format!("for connections from {source}"));
        let policy = (!self.policy.is_empty()).then(|| {
            let last = match self.tls {
                "" => String::new(),
                "-" => ", last plaintext".to_owned(),
                version => format!(", last {version}"),
            };
            format!("TLS {}{last}", self.policy.join(" or "))
        });
        let last: Vec<&str> = [&self.host, &self.reply].into_iter().flatten().map(String::as_str).collect();
        let last = (!last.is_empty()).then(|| last.join(": "));
        let details =
            [source, domains, down, paced, last, policy].into_iter().flatten().map(|line| format!("    {line}"));
        let lines = std::iter::once(text).chain(details).map(|line| wrapped(&line.replace(char::is_control, " "), 6));
        lines.collect::<Vec<_>>().join("\n")
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
        object.some_text("source", self.source.as_deref());
        if let Some((next, reason)) = &self.paced {
            object.text("paced", reason).text("next", &log::timestamp(*next));
        }
        if !self.domains.names.is_empty() {
            object.texts("domains", &self.domains.names).flag("more_domains", self.domains.more);
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
