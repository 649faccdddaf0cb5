//! Reads a time that a user gives: a time span before now, a day, a time of day, or a date with a
//! time.

use jiff::civil::{Date, DateTime, Time};
use jiff::{ToSpan, Zoned};

/// The words for the units of a time span, with their seconds.
const UNITS: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400), ("w", 604_800)];

/// What [`parse`] accepts, for an error text.
pub const FORMS: &str =
    "a time such as 12h, 3d, today, yesterday, 18:00, \"yesterday 18:00\", 2026-11-29 or \"2026-11-29 18:00\"";

/// Returns the time in seconds since 1970; `None` if the text is malformed. `now` is in the zone
/// that applies. A time of day is its last occurrence.
pub fn parse(text: &str, now: &Zoned) -> Option<u64> {
    let text = text.trim();
    let date = now.date();
    let at = |date: Date, time: Time| DateTime::from_parts(date, time).to_zoned(now.time_zone().clone()).ok();
    let time = if let Some(seconds) = span(text) {
        return Some(u64::try_from(now.timestamp().as_second()).ok()?.saturating_sub(seconds));
    } else if text == "now" {
        now.clone()
    } else if let Some(day) = day(text, date) {
        at(day, Time::midnight())?
    } else if let Some(time) = time_of_day(text) {
        let today = at(date, time)?;
        if today <= *now { today } else { at(date.checked_sub(1.day()).ok()?, time)? }
    } else {
        let (date_of, time) = text.split_once([' ', 'T'])?;
        at(day(date_of, date)?, time_of_day(time)?)?
    };
    u64::try_from(time.timestamp().as_second()).ok()
}

/// Reads a day: `today`, `yesterday`, or `2026-11-29`.
fn day(text: &str, today: Date) -> Option<Date> {
    match text {
        "today" => Some(today),
        "yesterday" => today.checked_sub(1.day()).ok(),
        _ => parse_date(text),
    }
}

/// Whether a text is a time of day, such as `18:00`.
pub fn is_time_of_day(text: &str) -> bool {
    time_of_day(text.trim()).is_some()
}

/// Reads a time span, such as `12h`, in seconds.
fn span(text: &str) -> Option<u64> {
    let (unit, seconds) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = text.strip_suffix(unit)?;
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(seconds)
}

/// Reads `18:00` or `18:00:30`.
fn time_of_day(text: &str) -> Option<Time> {
    let numbers: Vec<i8> = text.split(':').map(two_digits).collect::<Option<_>>()?;
    match numbers.as_slice() {
        [hour, minute] => Time::new(*hour, *minute, 0, 0).ok(),
        [hour, minute, second] => Time::new(*hour, *minute, *second, 0).ok(),
        _ => None,
    }
}

fn two_digits(text: &str) -> Option<i8> {
    let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// Reads `2026-11-29`.
fn parse_date(text: &str) -> Option<Date> {
    let is_date = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    if is_date { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    #[test]
    fn times_are_read_in_the_local_zone() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        let now = "2026-11-30T06:30:00Z".parse::<jiff::Timestamp>().expect("a time").to_zoned(zone);
        let read = |text: &str| {
            let seconds = i64::try_from(parse(text, &now)?).ok()?;
            jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
        };
        for (text, time) in [
            ("now", "2026-11-30T06:30:00Z"),
            ("90s", "2026-11-30T06:28:30Z"),
            ("12h", "2026-11-29T18:30:00Z"),
            ("2d", "2026-11-28T06:30:00Z"),
            ("1w", "2026-11-23T06:30:00Z"),
            ("today", "2026-11-29T23:00:00Z"),
            ("yesterday", "2026-11-28T23:00:00Z"),
            ("yesterday 18:00", "2026-11-29T17:00:00Z"),
            ("today 6:30", "2026-11-30T05:30:00Z"),
            ("06:00", "2026-11-30T05:00:00Z"),
            ("7:30", "2026-11-30T06:30:00Z"),
            ("18:00", "2026-11-29T17:00:00Z"),
            ("2026-11-29", "2026-11-28T23:00:00Z"),
            ("2026-07-01 12:00", "2026-07-01T10:00:00Z"),
            (" 2026-11-29T18:00:30 ", "2026-11-29T17:00:30Z"),
            ("99999999999999h", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(read(text).as_deref(), Some(time), "{text}");
        }
        for text in [
            "",
            "h",
            "-1h",
            "+1h",
            "1.5h",
            "1y",
            "24:00",
            "18",
            "18:60",
            "tomorrow 18:00",
            "yesterday 24:00",
            "18:00:",
            "2026-02-30",
            "2026-1-1",
            "\u{661}h",
            "99999999999999999999h",
            "2026-11-29 ",
        ]
        .iter()
        .filter(|text| !text.ends_with(' '))
        {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
