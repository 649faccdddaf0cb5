//! Answers `penfoldctl status`: the daemon and what it is doing, as text for people or as JSON.

use std::fmt::Write;
use std::net::SocketAddr;

use super::list::age;
use super::stats::octets;
use crate::activity::Activity;
use crate::config::{Filter, FilterProtocol, Kind, ListenTls};
use crate::json::{Format, Object};
use crate::log;
use crate::spool::QueueId;
use crate::stats::{Census, Gauges, SharedState};

/// The number of running attempts that the text names; JSON has all of them.
const MAX_RUNNING: usize = 20;
/// The seconds of a day.
const DAY: u64 = 86_400;

/// What is known about the daemon.
pub struct Status {
    /// The numbers.
    pub gauges: Gauges,
    /// The path of the configuration.
    pub file: String,
    /// The time since which the configuration is in force, in seconds since 1970.
    pub since: u64,
    /// The sockets on which the daemon listens.
    pub listeners: Vec<Listening>,
    /// The attempts that run, the longest first: the message, the seconds since the attempt began,
    /// and what the worker is doing.
    pub running: Vec<(QueueId, u64, Activity)>,
    /// The filters.
    pub filters: Vec<Filter>,
    /// The name servers.
    pub resolver: Vec<SocketAddr>,
    /// The drop directory, and the number of messages that wait in it; `None` if there is none.
    pub dropped: Option<(String, usize)>,
}

/// A listening socket.
#[derive(Debug, Clone)]
pub struct Listening {
    /// The address and port, or the path of a Unix socket.
    pub address: String,
    /// The clients that it is for.
    pub kind: Kind,
    /// How its connections are encrypted.
    pub tls: ListenTls,
}

impl Listening {
    fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Smtp => "smtp",
            Kind::Submission => "submission",
            Kind::Lmtp => "lmtp",
            Kind::Status => "status",
        }
    }

    /// How the connections are encrypted. Where TLS would be offered, there may be no certificate.
    fn tls(&self, has_certificate: bool) -> &'static str {
        match self.tls {
            ListenTls::Offered if has_certificate => "offered",
            ListenTls::None | ListenTls::Offered => "none",
            ListenTls::Required => "required",
            ListenTls::Implicit => "implicit",
        }
    }
}

/// Writes a status.
pub fn write(status: &Status, format: Format) -> String {
    match format {
        Format::Text => text(status),
        Format::Json => format!("{}\n", json(status)),
    }
}

/// The text of a status. Each line begins with a word that says what it is about.
fn text(status: &Status) -> String {
    let gauges = &status.gauges;
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<15}{text}");
    };
    let up = age(gauges.now.saturating_sub(gauges.started));
    let (version, pid) = (gauges.version, std::process::id());
    line("penfoldd", format!("{version}, pid {pid}, running for {up}, since {}", log::local_timestamp(gauges.started)));
    line("configuration", format!("{}, in force since {}", status.file, log::local_timestamp(status.since)));
    let has_certificate = !gauges.certificates.is_empty();
    for listening in &status.listeners {
        let (address, kind) = (&listening.address, listening.kind());
        line("listening", format!("{address}  {kind}, tls {}", listening.tls(has_certificate)));
    }
    for certificate in &gauges.certificates {
        line("certificate", format!("{}, {}", certificate.file, validity(certificate.expires, gauges.now)));
    }
    line("queue", queue(gauges));
    if let Some((directory, count)) = &status.dropped {
        let messages = if *count == 1 { "1 message waits".to_owned() } else { format!("{count} messages wait") };
        line("drop", format!("{messages} in {directory}"));
    }
    line("workers", format!("{} of {} busy", status.running.len(), gauges.workers));
    for (id, seconds, Activity { stage, since, host }) in status.running.iter().take(MAX_RUNNING) {
        let (attempt, since) = (age(*seconds), age(since.as_secs()));
        line("", format!("{id}  {attempt}, {stage} for {since}  {host}").trim_end().to_owned());
    }
    if let Some(more) = status.running.len().checked_sub(MAX_RUNNING).filter(|more| *more > 0) {
        line("", format!("and {more} more"));
    }
    line("connections", format!("{} of {} from clients", gauges.connections.0, gauges.connections.1));
    let states = gauges.destinations.iter().map(|(state, count)| format!("{count} {state}"));
    line("destinations", states.collect::<Vec<_>>().join(", "));
    for filter in &status.filters {
        line("filter", format!("{}  {}", filter.socket, protocol(filter)));
    }
    if let Some(SharedState { store, why_away, since, unasked }) = &gauges.shared {
        let since = log::local_timestamp(*since);
        line(
            "shared store",
            match why_away {
                None if *unasked > 0 => {
                    format!("{store}, answers since {since}; busy {unasked} times, when this host counted alone")
                }
                None => format!("{store}, answers since {since}"),
                Some(why) => format!("{store}, away since {since}: {why}; this host counts alone"),
            },
        );
    }
    let servers: Vec<_> = status.resolver.iter().map(ToString::to_string).collect();
    line("resolver", if servers.is_empty() { "no name server".to_owned() } else { servers.join(", ") });
    if let Some((free, all)) = gauges.disk {
        line("spool", format!("{} of {} free", octets(free), octets(all)));
    }
    out
}

/// The numbers of the queue in words.
fn queue(gauges: &Gauges) -> String {
    let Some(census) = &gauges.queue else { return "the queue does not answer".to_owned() };
    // Held messages count, as in the listing of the queue. Their sizes are not known here.
    let held = gauges.held.unwrap_or(0);
    let count = census.messages + held;
    let messages = if count == 1 { "1 message".to_owned() } else { format!("{count} messages") };
    let without = if held > 0 { " without the held ones" } else { "" };
    let mut text = format!("{messages}, {} in the spool{without}", octets(census.octets));
    if census.jobs > 0 {
        let (ready, running, waiting, until) = (census.ready, census.running, census.waiting, census.until);
        text += &format!("; attempts: {running} running, {ready} ready, {waiting} deferred");
        if until > 0 {
            text += &format!(", {until} kept until a time");
        }
        text += &format!("; the oldest message is {} old", age(census.oldest));
    }
    match gauges.held {
        Some(0) => {}
        Some(held) => text += &format!("; {held} held"),
        None => text += "; the number of held messages is not known",
    }
    if !gauges.is_scanned {
        text += "; the spool is still being read";
    }
    text
}

/// How long a certificate is still valid.
fn validity(expires: u64, now: u64) -> String {
    match expires.checked_sub(now) {
        None => format!("expired on {}", log::local_timestamp(expires)),
        Some(left) if left < 2 * DAY => format!("expires in {}", age(left)),
        Some(left) => format!("{} days left", left / DAY),
    }
}

fn protocol(filter: &Filter) -> &'static str {
    match filter.protocol {
        FilterProtocol::Milter => "milter",
        FilterProtocol::Policy => "policy",
    }
}

/// A status as an object.
fn json(status: &Status) -> Object {
    let gauges = &status.gauges;
    let mut object = Object::new();
    object.text("version", gauges.version).number("pid", std::process::id());
    object.text("started", &log::timestamp(gauges.started));
    object.text("file", &status.file).text("since", &log::timestamp(status.since));
    let has_certificate = !gauges.certificates.is_empty();
    let listener = |listening: &Listening| {
        let mut object = Object::new();
        object.text("address", &listening.address).text("kind", listening.kind());
        object.text("tls", listening.tls(has_certificate));
        object
    };
    object.objects("listeners", status.listeners.iter().map(listener));
    object.objects(
        "certificates",
        gauges.certificates.iter().map(|certificate| {
            let mut object = Object::new();
            object.text("file", &certificate.file).text("expires", &log::timestamp(certificate.expires));
            object
        }),
    );
    if let Some(census) = &gauges.queue {
        object.object("queue", &queue_json(census, gauges));
    }
    if let Some(dropped) = &status.dropped {
        object.object("drop", &dropped_json(dropped));
    }
    let running = |(id, seconds, activity): &(QueueId, u64, Activity)| {
        let mut object = Object::new();
        object.text("id", &id.to_string()).number("seconds", seconds).text("stage", activity.stage);
        object.number("stage_seconds", activity.since.as_secs()).text("host", &activity.host);
        object
    };
    object.number("workers", gauges.workers).objects("running", status.running.iter().map(running));
    object.number("connections", gauges.connections.0).number("max_connections", gauges.connections.1);
    let mut destinations = Object::new();
    for (state, count) in &gauges.destinations {
        destinations.number(state, count);
    }
    object.object("destinations", &destinations);
    let filter = |filter: &Filter| {
        let mut object = Object::new();
        object.text("socket", &filter.socket.to_string()).text("protocol", protocol(filter));
        object
    };
    object.objects("filters", status.filters.iter().map(filter));
    if let Some(shared) = &gauges.shared {
        object.object("shared", &shared_json(shared));
    }
    object.texts("resolver", status.resolver.iter().map(ToString::to_string));
    if let Some((free, all)) = gauges.disk {
        object.number("disk_free", free).number("disk_size", all);
    }
    object
}

/// The numbers of the queue as an object.
fn queue_json(census: &Census, gauges: &Gauges) -> Object {
    let mut queue = Object::new();
    queue.number("messages", census.messages).number("octets", census.octets).number("oldest", census.oldest);
    queue.number("running", census.running).number("ready", census.ready);
    queue.number("deferred", census.waiting).number("scheduled", census.until);
    if let Some(held) = gauges.held {
        queue.number("held", held);
    }
    queue.flag("complete", gauges.is_scanned);
    queue
}

/// The shared store as an object.
fn shared_json(shared: &SharedState) -> Object {
    let mut object = Object::new();
    object.text("store", &shared.store).flag("answers", shared.why_away.is_none());
    object.text("since", &log::timestamp(shared.since)).number("unasked", shared.unasked);
    if let Some(why) = &shared.why_away {
        object.text("reason", why);
    }
    object
}

/// The drop directory as an object.
fn dropped_json((directory, count): &(String, usize)) -> Object {
    let mut object = Object::new();
    object.text("directory", directory).number("messages", *count);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_in_words() {
        let now = 1_795_255_200;
        for (expires, words) in [
            (now - 1, "expired on 2026-11-21 "),
            (now + 3 * 3600, "expires in 3h"),
            (now + 57 * DAY + 5, "57 days left"),
        ] {
            assert!(validity(expires, now).starts_with(words), "{}", validity(expires, now));
        }
    }
}
