//! Answers `penfoldctl stats` and `penfoldctl top`: what was counted, as text for people, as JSON, or
//! for monitors.
//!
//! - `attention`: what the postmaster should look at, for the report and the status page
//! - `text`: the numbers as text for people

use jiff::Zoned;

use crate::json::Object;
use crate::log;
use crate::state::State;
use crate::stats::openmetrics::{self, Exposition};
use crate::stats::{self, Counts, Delays, Family, Gauges};
use crate::when;

mod attention;
mod text;

pub use attention::{matters, scarce};
pub use text::octets;

/// The default number of rows of each list in text.
const ROWS: usize = 10;
/// The maximum number of rows of each list.
const MAX_ROWS: usize = 1000;
/// The answer if the period ends before it starts.
pub const WRONG_ORDER: &str = "--since is not before --until";

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Report,
    Json,
    Monitor(Exposition),
    /// The numbers since the start of the daemon, one a line, for `penfoldctl top`.
    Raw,
}

/// A request for numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    form: Form,
    from: u64,
    until: u64,
    rows: usize,
}

impl Query {
    /// Reads the words of a request: the form, the start and the end of the period, and the number of
    /// rows of each list. A word `-` stands for the default. A time is one that a user gives, or
    /// a number of seconds since 1970. `now` is in the zone that applies. Returns `None` if a word is
    /// malformed.
    pub fn parse(words: &[&str], now: &Zoned) -> Option<Self> {
        let [form, from, until, rows] = words else { return None };
        let number = |word: &str, default: u64| if word == "-" { Some(default) } else { word.parse().ok() };
        let time = |word: &str, default: u64| number(word, default).or_else(|| when::parse(word, now));
        let form = match *form {
            "text" => Form::Text,
            "report" => Form::Report,
            "json" => Form::Json,
            "openmetrics" => Form::Monitor(Exposition::OpenMetrics),
            "prometheus" => Form::Monitor(Exposition::Prometheus),
            "raw" => Form::Raw,
            _ => return None,
        };
        let rows = usize::try_from(number(rows, ROWS as u64)?).ok().filter(|rows| (1..=MAX_ROWS).contains(rows))?;
        let (is_time_of_day, from, until) = (when::is_time_of_day(until), time(from, 0)?, time(until, u64::MAX)?);
        // From 18:00 until 06:00 is a night, whatever the time is now.
        let until = if is_time_of_day && until <= from { until.saturating_add(86_400) } else { until };
        Some(Self { form, from, until, rows })
    }

    /// Whether the period starts before it ends.
    pub fn is_in_order(&self) -> bool {
        self.from < self.until
    }
}

/// Returns the answer. `gauges` has the present state, and whether a daemon runs.
pub fn answer(state: &State, query: &Query, gauges: &Gauges) -> String {
    let is_running = gauges.workers > 0;
    match query.form {
        Form::Monitor(format) => {
            let counts = is_running.then(stats::since_start);
            return openmetrics::text(counts.as_ref(), gauges, format);
        }
        Form::Raw => return raw(&stats::since_start(), gauges),
        _ => {}
    }
    let (counts, first) = stats::read(state, (query.from, query.until), gauges.now);
    let period = Period::new((query.from, query.until), first, gauges.now);
    match query.form {
        Form::Json => format!("{}\n", json(&counts, &period)),
        Form::Report => {
            format!("{}{}", attention::text(gauges), text::text(&counts, &period, query.rows))
        }
        _ => text::text(&counts, &period, query.rows),
    }
}

/// The time to which numbers belong, in seconds since 1970.
struct Period {
    from: u64,
    until: u64,
    /// Whether the numbers begin later than was asked for.
    is_cut: bool,
}

impl Period {
    /// The part of a period that was asked for, for which there are numbers. `first` is the time of the
    /// first numbers that are kept. If there are none, the period stays whole, up to now.
    fn new((from, until): (u64, u64), first: Option<u64>, now: u64) -> Self {
        let (first, until) = (first.unwrap_or(now).min(now), until.min(now));
        let start = if first < until { from.max(first) } else { from };
        // Without --since, the start is that of the numbers.
        let start = if start == 0 { first } else { start };
        Self { from: start.min(until), until, is_cut: from > 0 && first > from.saturating_add(3600) }
    }
}

/// Writes the numbers as one JSON object.
fn json(counts: &Counts, period: &Period) -> Object {
    let mut object = Object::new();
    object.text("from", &log::timestamp(period.from)).text("until", &log::timestamp(period.until));
    for family in Family::all().filter(|family| !matches!(family, Family::Delay | Family::DelaySum)) {
        let rows = counts.top(family, MAX_ROWS).0.into_iter().map(|(labels, count)| {
            let mut row = Object::new();
            for (name, label) in family.labels().iter().zip(labels.split('|')) {
                row.text(name, label);
            }
            row.number("count", count);
            row
        });
        object.objects(family.name(), rows);
    }
    let places = ["local", "remote", "store"].map(|place| (place, counts.delays(place)));
    object.objects(
        "delays",
        places.iter().filter(|(_, delays)| delays.count() > 0).map(|(place, delays)| {
            let mut row = Object::new();
            row.text("place", place).number("count", delays.count()).number("mean", seconds(mean(delays)));
            for percent in [50, 90, 95, 99] {
                let delay = delays.percentile(percent).unwrap_or_default();
                row.number(&format!("p{percent}"), seconds(delay.as_secs_f64()));
            }
            row
        }),
    );
    object
}

/// The mean delay in seconds.
fn mean(delays: &Delays) -> f64 {
    delays.sum.as_secs_f64() / delays.count().max(1) as f64
}

/// Seconds with three decimals.
fn seconds(seconds: f64) -> String {
    format!("{seconds:.3}")
}

/// Writes the numbers since the start of the daemon, and the present state, one a line.
fn raw(counts: &Counts, gauges: &Gauges) -> String {
    let queue = gauges.queue.clone().unwrap_or_default();
    let mut lines = vec![
        ("now", gauges.now),
        ("started", gauges.started),
        ("accepted", counts.total(Family::Accepted)),
        ("octets", counts.total(Family::Octets)),
        ("refused", counts.total(Family::Refused)),
        ("delivered", counts.with_label(Family::Attempts, 1, "sent")),
        ("deferred", counts.with_label(Family::Attempts, 1, "deferred")),
        ("failed", counts.with_label(Family::Attempts, 1, "failed")),
        ("connected", counts.get(Family::Events, "connection")),
        ("connections", gauges.connections.0 as u64),
        ("workers", gauges.workers as u64),
        ("messages", queue.messages as u64),
        ("queue_octets", queue.octets),
        ("waiting", (queue.waiting + queue.until) as u64),
        ("ready", queue.ready as u64),
        ("running", queue.running as u64),
        ("oldest", queue.oldest),
        ("held", gauges.held.unwrap_or(0) as u64),
    ];
    lines.extend(gauges.destinations.iter().map(|(state, count)| (*state, *count as u64)));
    let mut text: String = lines.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    text += &format!("clock {}\n", log::local_timestamp(gauges.now));
    for load in queue.destinations.iter().take(ROWS) {
        text += &format!("destination {} {} {} {}\n", load.jobs, load.running, load.oldest, load.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_request_are_read_in_the_zone_of_the_answer() {
        let zone = jiff::tz::TimeZone::posix("CET-1").expect("a zone");
        let now = "2026-11-30T06:30:00Z".parse::<jiff::Timestamp>().expect("a time").to_zoned(zone);
        let seconds = |time: &str| time.parse::<jiff::Timestamp>().expect("a time").as_second() as u64;
        for ((from, until), wanted) in [
            (("03:00", "-"), Some((seconds("2026-11-30T02:00:00Z"), u64::MAX))),
            (("18:00", "06:00"), Some((seconds("2026-11-29T17:00:00Z"), seconds("2026-11-30T05:00:00Z")))),
            (("yesterday 18:00", "today"), Some((seconds("2026-11-29T17:00:00Z"), seconds("2026-11-29T23:00:00Z")))),
            (("1000", "2000"), Some((1000, 2000))),
            (("-", "-"), Some((0, u64::MAX))),
            (("soon", "-"), None),
            (("-", "never"), None),
        ] {
            let query = Query::parse(&["text", from, until, "-"], &now);
            assert_eq!(query.map(|query| (query.from, query.until)), wanted, "{from} {until}");
        }
        let is_in_order =
            |from, until| Query::parse(&["text", from, until, "-"], &now).map(|query| query.is_in_order());
        assert_eq!([is_in_order("2h", "1h"), is_in_order("1h", "2h")], [Some(true), Some(false)]);
    }

    #[test]
    fn no_period_ends_before_it_starts() {
        const NOW: u64 = 1_000_000;
        for ((from, until), first, (start, end, is_cut)) in [
            ((0, u64::MAX), Some(500_000), (500_000, NOW, false)),
            ((0, u64::MAX), None, (NOW, NOW, false)),
            ((600_000, 700_000), Some(500_000), (600_000, 700_000, false)),
            ((400_000, 700_000), Some(500_000), (500_000, 700_000, true)),
            // The day before the first numbers.
            ((100_000, 200_000), Some(500_000), (100_000, 200_000, true)),
            ((100_000, 200_000), None, (100_000, 200_000, true)),
            ((0, 200_000), Some(500_000), (200_000, 200_000, false)),
            ((2_000_000, u64::MAX), Some(500_000), (NOW, NOW, false)),
        ] {
            let period = Period::new((from, until), first, NOW);
            assert_eq!((period.from, period.until, period.is_cut), (start, end, is_cut), "{from} {until} {first:?}");
        }
    }
}
