//! Formats sizes, durations and times for people.

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use crate::log::span as duration;

/// Returns a number with a space between each three digits.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Returns a number and a word, which gets an `s` unless the number is one.
pub fn counted(number: usize, word: &str) -> String {
    format!("{} {word}{}", count(number as u64), if number == 1 { "" } else { "s" })
}

/// Returns a size in octets, such as `12.5 MiB`.
pub fn size(octets: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut size, mut unit) = (octets as f64, "octets");
    for next in units {
        if size < 1000.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    if unit == "octets" { format!("{octets} {unit}") } else { format!("{size:.1} {unit}") }
}

/// Returns a short duration, such as `12 ms` or `3.4 s`.
pub fn delay(delay: std::time::Duration) -> String {
    match delay.as_millis() {
        milliseconds @ 0..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{:.1} s", delay.as_secs_f64()),
        _ => duration(delay.as_secs()),
    }
}

/// Returns a time in seconds since 1970 in a format of strftime(3).
pub fn time(seconds: u64, zone: &TimeZone, format: &str) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.unwrap_or_default().to_zoned(zone.clone()).strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn numbers_are_formatted_for_people() {
        assert_eq!([7, 1000, 1_234_567].map(count), ["7", "1\u{202f}000", "1\u{202f}234\u{202f}567"]);
        assert_eq!([0, 1, 2].map(|number| counted(number, "message")), ["0 messages", "1 message", "2 messages"]);
        assert_eq!(
            [0, 999, 1000, 1 << 20, u64::MAX].map(size),
            ["0 octets", "999 octets", "1.0 KiB", "1.0 MiB", "16.0 EiB"]
        );
        assert_eq!(
            [0, 59, 60, 3600, 172_799, 172_800].map(duration),
            ["0 s", "59 s", "1 min", "1 h", "47 h", "2 days"]
        );
        assert_eq!([12, 3400, 61_000].map(|ms| delay(Duration::from_millis(ms))), ["12 ms", "3.4 s", "1 min"]);
        assert_eq!(time(86_400, &TimeZone::UTC, "%Y-%m-%d %H:%M"), "1970-01-02 00:00");
        assert_eq!(time(u64::MAX, &TimeZone::UTC, "%Y"), "1970");
    }
}
