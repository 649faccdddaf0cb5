//! Writes the numbers in the OpenMetrics text format 1.0, and in the older text format of
//! Prometheus, which differs in the names of counters in comments.
//!
//! Addresses of people and clients do not occur here.

use std::fmt::Write;

use super::counts::{Counts, Delays};
use super::family::{EVENTS, Family, ORIGINS, PLACES};
use super::gauges::{AGES, Census, Gauges};
use super::live::{RESULTS, VERSIONS, VIAS};

/// The text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
}

impl Exposition {
    /// Returns the media type of the text.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The families that are counters: the name without `_total`, and the help text.
const COUNTERS: [(Family, &str, &str); 13] = [
    (Family::Accepted, "accepted_messages", "Messages accepted."),
    (Family::Octets, "accepted_bytes", "Size of the accepted messages."),
    (Family::Recipients, "accepted_recipients", "Recipients of the accepted messages."),
    (Family::TlsIn, "accepted_tls", "Messages accepted over the network, by TLS version."),
    (Family::Refused, "refused_commands", "Commands refused, by the rule that refuses."),
    (Family::Attempts, "attempts", "Delivery attempts for one recipient, by way and result."),
    (Family::Deferred, "deferred", "Attempts that failed temporarily, by destination and reason."),
    (Family::Failed, "failed", "Recipients that failed permanently, by reason."),
    (Family::SentTo, "sent", "Recipients that other hosts accepted, by domain."),
    (Family::TlsOut, "sent_tls", "Recipients that other hosts accepted, by TLS version."),
    (Family::Events, "events", "Other events."),
    (Family::Check, "checks", "Results of SPF, DKIM, DMARC and ARC."),
    (Family::Filter, "filter_results", "Results of filters."),
];

/// Text that is being written.
struct Metrics {
    text: String,
    format: Exposition,
}

/// Returns all numbers as text. `counts` are those since the start of the daemon; `None` if no
/// daemon runs.
pub fn text(counts: Option<&Counts>, gauges: &Gauges, format: Exposition) -> String {
    let mut out = Metrics { text: String::new(), format };
    out.gauge("up", "", "Whether the daemon runs.", [(vec![], u64::from(counts.is_some()) as f64)]);
    out.gauge("build_info", "", "The version of penfold.", [(vec![("version", gauges.version)], 1.0)]);
    if let Some(queue) = &gauges.queue {
        out.queue(queue, counts.is_some());
    }
    let held = gauges.held.map(|held| (vec![], held as f64));
    out.gauge("held_messages", "", "Messages that are held.", held);
    out.system(gauges);
    let Some(counts) = counts else { return out.end() };
    let started = [(vec![], gauges.started as f64)];
    out.gauge("start_time_seconds", "seconds", "When the daemon started, in seconds since 1970.", started);
    out.gauge("workers", "", "Threads that deliver.", [(vec![], gauges.workers as f64)]);
    out.gauge("connections", "", "Open connections from clients.", [(vec![], gauges.connections.0 as f64)]);
    out.gauge("max_connections", "", "The limit on these connections.", [(vec![], gauges.connections.1 as f64)]);
    let states = gauges.destinations.iter().map(|(state, count)| (vec![("state", *state)], *count as f64));
    out.gauge("destinations", "", "Destinations used recently, by state.", states);
    out.counters(counts);
    out.delays(counts);
    out.end()
}

impl Metrics {
    /// Writes what is known about the queue. Jobs are known only to a daemon.
    fn queue(&mut self, queue: &Census, has_jobs: bool) {
        self.gauge("queue_messages", "", "Messages in the queue.", [(vec![], queue.messages as f64)]);
        self.gauge("queue_bytes", "bytes", "Size of the files of these messages.", [(vec![], queue.octets as f64)]);
        let ages = AGES.iter().zip(queue.ages).map(|((age, _), count)| (vec![("up_to", *age)], count as f64));
        self.gauge("queue_age_messages", "", "Messages in the queue by age.", ages);
        let oldest = [(vec![], queue.oldest as f64)];
        self.gauge("queue_oldest_seconds", "seconds", "Age of the oldest message.", oldest);
        if !has_jobs {
            return;
        }
        let states =
            [("waiting", queue.waiting), ("until", queue.until), ("ready", queue.ready), ("running", queue.running)];
        let states = states.map(|(state, count)| (vec![("state", state)], count as f64));
        self.gauge("queue_jobs", "", "Jobs, each one message and one destination, by state.", states);
        let all = [(vec![], queue.all_destinations as f64)];
        self.gauge("queue_destinations", "", "Destinations with jobs.", all);
        let named = queue.public_destinations();
        let named = named.iter().map(|load| (vec![("destination", &*load.name)], load.jobs as f64));
        self.gauge("queue_destination_jobs", "", "Jobs of the destinations with the most jobs.", named);
    }

    fn system(&mut self, gauges: &Gauges) {
        for (name, unit, what, numbers) in
            [("spool", "bytes", "Octets", gauges.disk), ("spool_inodes", "", "Inodes", gauges.inodes)]
        {
            let Some((free, all)) = numbers else { continue };
            let (name, help) =
                (|part: &str| [name, part, unit].join("_"), format!("{what} on the spool's file system"));
            let name = |part: &str| name(part).trim_end_matches('_').to_owned();
            self.gauge(&name("free"), unit, &format!("{help} that are free."), [(vec![], free as f64)]);
            self.gauge(&name("size"), unit, &format!("{help}."), [(vec![], all as f64)]);
        }
        let expiry = gauges.certificates.iter().map(|one| (vec![("file", &*one.file)], one.expires as f64));
        let shared = gauges.shared.as_ref().map(|shared| (vec![], u64::from(shared.why_away.is_none()) as f64));
        self.gauge("shared_store_up", "", "Whether the shared store answers.", shared);
        let help = "When a certificate expires, in seconds since 1970.";
        self.gauge("certificate_expiry_seconds", "seconds", help, expiry);
    }

    fn counters(&mut self, counts: &Counts) {
        for (family, name, help) in COUNTERS {
            let unit = if family == Family::Octets { "bytes" } else { "" };
            self.head(name, "counter", unit, help);
            // A counter that is absent until it is one would hide its first event.
            let known = known(family).into_iter().map(|labels| (counts.get(family, &labels), labels));
            let named: Vec<_> = if family.is_open() {
                counts.of(family).map(|(labels, count)| (count, labels.to_owned())).collect()
            } else {
                known.collect()
            };
            for (count, labels) in named {
                let labels: Vec<_> = family.labels().iter().copied().zip(labels.split('|')).collect();
                self.sample(&format!("{name}_total"), &labels, count as f64);
            }
        }
    }

    fn delays(&mut self, counts: &Counts) {
        let name = "delay_seconds";
        self.head(name, "histogram", "seconds", "Age of messages when they were delivered to a recipient.");
        for place in PLACES {
            let (delays, mut sum) = (counts.delays(place), 0);
            for (end, count) in Delays::ends().zip(delays.ranges) {
                sum += count;
                let end = end.map_or_else(|| "+Inf".to_owned(), |end| format!("{end:?}"));
                self.sample(&format!("{name}_bucket"), &[("place", place), ("le", &end)], sum as f64);
            }
            self.sample(&format!("{name}_count"), &[("place", place)], sum as f64);
            self.sample(&format!("{name}_sum"), &[("place", place)], delays.sum.as_secs_f64());
        }
    }

    /// Writes a gauge, unless it has no samples.
    fn gauge<'a>(
        &mut self,
        name: &str,
        unit: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            self.head(name, "gauge", unit, help);
            samples.for_each(|(labels, value)| self.sample(name, &labels, value));
        }
    }

    fn head(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        let total = if kind == "counter" && self.format == Exposition::Prometheus { "_total" } else { "" };
        self.line(format_args!("# TYPE penfold_{name}{total} {kind}"));
        if !unit.is_empty() && self.format == Exposition::OpenMetrics {
            self.line(format_args!("# UNIT penfold_{name} {unit}"));
        }
        self.line(format_args!("# HELP penfold_{name}{total} {help}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut text = String::new();
        for (at, (label, value)) in labels.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{label}=\"{}\"", if at > 0 { "," } else { "{" }, escaped(value));
        }
        text.push_str(if labels.is_empty() { "" } else { "}" });
        self.line(format_args!("penfold_{name}{text} {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn end(mut self) -> String {
        if self.format == Exposition::OpenMetrics {
            self.line(format_args!("# EOF"));
        }
        self.text
    }
}

/// Returns the labels that a family can have, joined by `|`, if they are fixed.
fn known(family: Family) -> Vec<String> {
    let words: &[&str] = match family {
        Family::Accepted | Family::Octets | Family::Recipients => &ORIGINS,
        Family::TlsIn | Family::TlsOut => &VERSIONS,
        Family::Events => &EVENTS,
        Family::Attempts => {
            let ways = VIAS.iter().flat_map(|via| RESULTS.iter().map(move |result| format!("{via}|{result}")));
            return ways.collect();
        }
        _ => &[],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Escapes the value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::gauges::{Certificate, Load};

    fn example() -> (Counts, Gauges) {
        let mut counts = Counts::default();
        counts.add(Family::Accepted, "network", 3);
        counts.add(Family::Deferred, "a\"b\\c.example|no route", 2);
        counts.add(Family::Delay, "remote|8", 2);
        counts.add(Family::DelaySum, "remote", 6500);
        counts.add(Family::Sender, "<jon@razorback>", 1);
        counts.add(Family::RefusedClient, "[192.0.2.1]", 1);
        let load = Load { name: "example.org".into(), jobs: 7, ..Load::default() };
        let queue = Census { messages: 12, destinations: vec![load], ..Census::default() };
        let certificate = Certificate { file: "/etc/penfold/cert.pem".into(), expires: 1_800_000_000 };
        let gauges =
            Gauges { queue: Some(queue), certificates: vec![certificate], disk: Some((5, 10)), ..Gauges::default() };
        (counts, gauges)
    }

    #[test]
    fn the_text_has_every_family_once_and_names_nobody() {
        let (counts, gauges) = example();
        let text = text(Some(&counts), &gauges, Exposition::OpenMetrics);
        for line in [
            "penfold_up 1",
            "penfold_accepted_messages_total{from=\"network\"} 3",
            "penfold_accepted_messages_total{from=\"login\"} 0",
            "penfold_deferred_total{destination=\"a\\\"b\\\\c.example\",reason=\"no route\"} 2",
            "penfold_delay_seconds_bucket{place=\"remote\",le=\"2.5\"} 0",
            "penfold_delay_seconds_bucket{place=\"remote\",le=\"5.0\"} 2",
            "penfold_delay_seconds_bucket{place=\"remote\",le=\"+Inf\"} 2",
            "penfold_delay_seconds_sum{place=\"remote\"} 6.5",
            "penfold_queue_messages 12",
            "penfold_queue_destination_jobs{destination=\"example.org\"} 7",
            "penfold_certificate_expiry_seconds{file=\"/etc/penfold/cert.pem\"} 1800000000",
            "penfold_spool_free_bytes 5",
            "# UNIT penfold_accepted_bytes bytes",
            "# TYPE penfold_accepted_bytes counter",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        let mut types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        let count = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), count);
        assert!(text.ends_with("\n# EOF\n") && !text.contains("jon@") && !text.contains("192.0.2.1"));
    }

    #[test]
    fn without_a_daemon_only_what_the_spool_tells_is_written() {
        let text = text(None, &example().1, Exposition::Prometheus);
        assert!(text.contains("penfold_up 0\n") && text.contains("penfold_queue_messages 12\n"));
        assert!(!text.contains("_total") && !text.contains("connections") && !text.contains("# EOF"));
    }

    #[test]
    fn the_older_format_names_counters_with_their_suffix() {
        let (counts, gauges) = example();
        let text = super::text(Some(&counts), &gauges, Exposition::Prometheus);
        assert!(text.contains("# TYPE penfold_accepted_messages_total counter\n") && !text.contains("# UNIT"));
    }
}
