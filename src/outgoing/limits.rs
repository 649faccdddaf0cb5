//! Limits on the mail for one destination: a rate, a pause and a number of connections.

use std::fmt;
use std::time::Duration;

use crate::config::parse_duration;

/// The maximum number of messages of a rate, and of connections.
const MAX_COUNT: u32 = 1_000_000;
/// The maximum pause.
const MAX_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// The limits on the mail for one destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of messages in any period of this length.
    pub rate: Option<Rate>,
    /// The minimum time between the beginnings of two attempts.
    pub pause: Option<Duration>,
    /// The maximum number of connections.
    pub connections: Option<usize>,
}

/// A number of messages in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The number of messages, at least 1.
    pub count: u32,
    /// The period.
    pub period: Period,
}

/// The period of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

/// The limit that keeps mail waiting. Its form is that of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A rate.
    Rate(Rate),
    /// A pause.
    Pause(Duration),
}

impl Limits {
    /// The limits that apply to a fallback host. The rate and the pause are those of the destination
    /// whose attempt it is.
    #[must_use]
    pub fn of_fallback(self) -> Self {
        Self { rate: None, pause: None, ..self }
    }
}

impl Period {
    /// The length of the period.
    pub fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 24 * 3600,
        })
    }
}

impl Rate {
    /// Reads a rate such as `60/m`; `None` if the text is malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let period = match unit {
            "s" => Period::Second,
            "m" => Period::Minute,
            "h" => Period::Hour,
            "d" => Period::Day,
            _ => return None,
        };
        Some(Self { count: parse_count(count)?, period })
    }
}

/// Reads a whole number from 1 to [`MAX_COUNT`].
pub fn parse_count(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|count| is_number && (1..=MAX_COUNT).contains(count))
}

/// Reads a pause such as `2s`; `None` if the text is malformed, or if the pause is too long.
pub fn parse_pause(text: &str) -> Option<Duration> {
    parse_duration(text).filter(|pause| !pause.is_zero() && *pause <= MAX_PAUSE)
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period {
            Period::Second => 's',
            Period::Minute => 'm',
            Period::Hour => 'h',
            Period::Day => 'd',
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => write!(f, "rate={rate}"),
            Self::Pause(pause) => write!(f, "pause={}", duration(*pause)),
        }
    }
}

/// A duration in the form of the table.
fn duration(time: Duration) -> String {
    match time.as_millis() {
        ms if ms % 1000 != 0 => format!("{ms}ms"),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms => format!("{}s", ms / 1000),
    }
}

/// The settings in the form of the table, such as `rate=60/m connections=2`.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = self.rate.map(Reason::Rate).into_iter().chain(self.pause.map(Reason::Pause));
        let mut all: Vec<String> = reasons.map(|reason| reason.to_string()).collect();
        all.extend(self.connections.map(|connections| format!("connections={connections}")));
        f.write_str(&all.join(" "))
    }
}
