//! Numbers by family and labels, with their sums and differences, and as text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::family::Family;

/// The upper ends of the ranges of delays, in milliseconds. The last range has no end.
pub(super) const DELAYS: [u64; 23] = [
    10,
    25,
    50,
    100,
    250,
    500,
    1000,
    2500,
    5000,
    10_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    7_200_000,
    14_400_000,
    28_800_000,
    86_400_000,
    172_800_000,
    432_000_000,
];

/// The maximum length of a label, in bytes.
const MAX_LABEL: usize = 100;
/// The labels under which the rest of a family is counted.
const OTHER: &str = "other";

/// Numbers by family and labels. A number that is zero is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<(Family, String), u64>);

/// The delays of delivered messages, as numbers of recipients in ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delays {
    /// The number in each range of [`Delays::ends`]; the last range has no end.
    pub ranges: [u64; DELAYS.len() + 1],
    /// The sum of all delays.
    pub sum: Duration,
}

/// Joins labels. Characters that separate labels or numbers, and control characters, are replaced.
pub(super) fn join(labels: &[&str]) -> String {
    let mut joined = String::new();
    for (at, label) in labels.iter().enumerate() {
        if at > 0 {
            joined.push('|');
        }
        let start = joined.len();
        for c in label.chars() {
            if joined.len() - start + c.len_utf8() > MAX_LABEL {
                break;
            }
            joined.push(if matches!(c, '|' | ',') || c.is_control() { '_' } else { c });
        }
    }
    joined
}

impl Counts {
    /// Returns no numbers.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds to a number. `labels` are the labels joined by `|`.
    pub fn add(&mut self, family: Family, labels: &str, count: u64) {
        if count > 0 {
            let number = self.0.entry((family, labels.to_owned())).or_default();
            *number = number.saturating_add(count);
        }
    }

    /// Adds all numbers of `other`.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|((family, labels), count)| self.add(*family, labels, *count));
    }

    /// Returns the numbers that have grown since `earlier`, as differences.
    pub fn since(&self, earlier: &Self) -> Self {
        let grown = self.0.iter().filter_map(|(key, count)| {
            let before = earlier.0.get(key).copied().unwrap_or_default();
            (*count > before).then(|| (key.clone(), count - before))
        });
        Self(grown.collect())
    }

    /// Whether all numbers are zero.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a number. `labels` are the labels joined by `|`.
    pub fn get(&self, family: Family, labels: &str) -> u64 {
        self.0.get(&(family, labels.to_owned())).copied().unwrap_or_default()
    }

    /// Returns the sum of a family.
    pub fn total(&self, family: Family) -> u64 {
        self.of(family).fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Returns the sum of the numbers of a family that have this first or second label.
    pub fn with_label(&self, family: Family, position: usize, label: &str) -> u64 {
        let matching = self.of(family).filter(|(labels, _)| labels.split('|').nth(position) == Some(label));
        matching.fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Returns the numbers of a family, sorted by their labels, which are joined by `|`.
    pub fn of(&self, family: Family) -> impl Iterator<Item = (&str, u64)> {
        let from = (family, String::new());
        let same = self.0.range(from..).take_while(move |((other, _), _)| *other == family);
        same.map(|((_, labels), count)| (labels.as_str(), *count))
    }

    /// Returns the largest numbers of a family, the largest first, at most `max` of them, and the
    /// sum of all others.
    pub fn top(&self, family: Family, max: usize) -> (Vec<(&str, u64)>, u64) {
        let mut all: Vec<_> = self.of(family).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        let rest = all.iter().skip(max).fold(0, |sum: u64, (_, count)| sum.saturating_add(*count));
        all.truncate(max);
        (all, rest)
    }

    /// Sums up a family by its first label (0) or its second one (1).
    pub fn by_label(&self, family: Family, position: usize) -> Self {
        let mut sums = Self::default();
        for (labels, count) in self.of(family) {
            sums.add(family, labels.split('|').nth(position).unwrap_or(OTHER), count);
        }
        sums
    }

    /// Returns the delays of the messages that were delivered to a place: `local`, `remote` or
    /// `store`.
    pub fn delays(&self, place: &str) -> Delays {
        let mut delays = Delays::default();
        for (labels, count) in self.of(Family::Delay) {
            let Some((of, range)) = labels.split_once('|') else { continue };
            let range = range.parse().ok().and_then(|range: usize| delays.ranges.get_mut(range));
            if let Some(range) = range.filter(|_| of == place) {
                *range = range.saturating_add(count);
            }
        }
        delays.sum = Duration::from_millis(self.get(Family::DelaySum, place));
        delays
    }

    /// Removes the personal families.
    pub fn drop_personal(&mut self) {
        self.0.retain(|(family, _), _| !family.is_personal());
    }

    /// Adds the number with the labels `from` to the one with the labels `to`, and removes the first.
    pub(super) fn rename(&mut self, family: Family, from: &str, to: &str) {
        if let Some(count) = self.0.remove(&(family, from.to_owned())) {
            self.add(family, to, count);
        }
    }

    /// If a family with arbitrary labels has more than `max` numbers, keeps the `keep` largest ones, and adds the others
    /// to one number for the rest.
    pub fn fold(&mut self, max: usize, keep: usize) {
        for family in Family::all().filter(|family| family.is_open()) {
            if self.of(family).nth(max).is_none() {
                continue;
            }
            let (top, rest) = self.top(family, keep);
            let top: Vec<_> = top.into_iter().map(|(labels, count)| ((family, labels.to_owned()), count)).collect();
            self.0.retain(|(other, _), _| *other != family);
            self.0.extend(top);
            self.add(family, &vec![OTHER; family.labels().len()].join("|"), rest);
        }
    }

    /// Returns the numbers as lines of text, each of at most `max` bytes, for [`Counts::read`].
    pub(super) fn lines(&self, max: usize) -> Vec<String> {
        let mut lines = vec![String::new()];
        for ((family, labels), count) in &self.0 {
            let mut item = String::new();
            // Writing to a string cannot fail.
            let _ = write!(item, "{}|{labels}={count}", family.name());
            match lines.last_mut() {
                Some(line) if line.is_empty() => *line = item,
                Some(line) if line.len() + item.len() < max => {
                    line.push(',');
                    line.push_str(&item);
                }
                _ => lines.push(item),
            }
        }
        lines.retain(|line| !line.is_empty());
        lines
    }

    /// Adds the numbers of a line. Malformed and unknown items are skipped.
    pub(super) fn read(&mut self, line: &str) {
        for item in line.split(',') {
            let Some((key, count)) = item.rsplit_once('=') else { continue };
            let Some((name, labels)) = key.split_once('|') else { continue };
            let (Some(family), Ok(count)) = (Family::parse(name), count.parse()) else { continue };
            let parts: Vec<_> = labels.split('|').collect();
            if parts.len() == family.labels().len() && join(&parts) == labels {
                self.add(family, labels, count);
            }
        }
    }
}

impl Delays {
    /// Returns the upper ends of the ranges in seconds; the last range has none.
    pub fn ends() -> impl Iterator<Item = Option<f64>> {
        DELAYS.iter().map(|end| Some(*end as f64 / 1000.0)).chain([None])
    }

    /// Returns the number of recipients.
    pub fn count(&self) -> u64 {
        self.ranges.iter().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    /// Returns the delay that `percent` percent of the recipients do not exceed, interpolated within
    /// its range; `None` if there is no recipient.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = (u128::from(total) * u128::from(percent)).div_ceil(100).max(1) as u64;
        let mut below = 0u64;
        for (at, &count) in self.ranges.iter().enumerate() {
            if below.saturating_add(count) >= rank {
                let start = at.checked_sub(1).and_then(|at| DELAYS.get(at)).copied().unwrap_or(0);
                // The last range has no end, so that its start is the best that is known.
                let end = DELAYS.get(at).copied().unwrap_or(start);
                let part = (rank - below) as f64 / count.max(1) as f64;
                return Some(Duration::from_millis(start + ((end - start) as f64 * part) as u64));
            }
            below = below.saturating_add(count);
        }
        None
    }
}

/// Returns the number of the range to which a delay belongs.
pub(super) fn delay_range(delay: Duration) -> usize {
    let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    DELAYS.partition_point(|end| *end < delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_were_written() {
        let mut counts = Counts::default();
        counts.add(Family::Accepted, "network", 3);
        counts.add(Family::Deferred, "example.org|no answer from host", 2);
        counts.add(Family::Sender, &join(&["<\u{fc}|a,b\n=1@example.org>"]), u64::MAX);
        counts.add(Family::Failed, "loop", 0);
        for max in [1, 60, 4000] {
            let (mut read, lines) = (Counts::default(), counts.lines(max));
            lines.iter().for_each(|line| read.read(line));
            assert_eq!(read, counts, "{lines:?}");
        }
        assert_eq!(counts.lines(1).len(), 3);
        counts.add(Family::Sender, &join(&["<\u{fc}|a,b\n=1@example.org>"]), 1);
        assert_eq!(counts.total(Family::Sender), u64::MAX);
    }

    #[test]
    fn malformed_text_counts_nothing() {
        let mut counts = Counts::default();
        for line in [
            "",
            ",,=,|=",
            "accepted=1",
            "accepted|network",
            "accepted|network=-1",
            "accepted|network=99999999999999999999",
            "accepted|a|b=1",
            "deferred|example.org=1",
            "bogus|network=1",
            "accepted|a\nb=1",
            &format!("accepted|{}=1", "a".repeat(200)),
        ] {
            counts.read(line);
            assert!(counts.is_empty(), "{line}");
        }
    }

    #[test]
    fn a_family_that_grows_too_large_keeps_its_largest_numbers() {
        let mut counts = Counts::default();
        (0..50).for_each(|n| counts.add(Family::Deferred, &format!("d{n}|x"), n));
        counts.add(Family::Accepted, "network", 1);
        let total = counts.total(Family::Deferred);
        counts.fold(49, 2);
        assert_eq!(counts.of(Family::Deferred).count(), 49, "not yet");
        counts.fold(48, 2);
        let left: Vec<_> = counts.of(Family::Deferred).collect();
        assert_eq!(left, [("d48|x", 48), ("d49|x", 49), ("other|other", total - 97)]);
        assert_eq!((counts.total(Family::Deferred), counts.total(Family::Accepted)), (total, 1));
        assert_eq!(counts.top(Family::Deferred, 1), (vec![("other|other", total - 97)], 97));
        assert_eq!(counts.by_label(Family::Deferred, 1).get(Family::Deferred, "x"), 97);
        assert_eq!(counts.with_label(Family::Deferred, 0, "d49"), 49);
    }

    #[test]
    fn differences_and_percentiles() {
        let (mut before, mut after) = (Counts::default(), Counts::default());
        before.add(Family::Accepted, "network", 2);
        after.merge(&before);
        after.add(Family::Accepted, "network", 1);
        after.add(Family::Delay, "local|0", 98);
        after.add(Family::Delay, "local|6", 2);
        after.add(Family::Delay, "local|99", 2);
        after.add(Family::DelaySum, "local", 2500);
        let new = after.since(&before);
        assert_eq!(new.get(Family::Accepted, "network"), 1);
        let delays = new.delays("local");
        assert_eq!((delays.count(), delays.sum), (100, Duration::from_millis(2500)));
        let at = |percent| delays.percentile(percent).map(|delay| delay.as_millis());
        assert_eq!([at(49), at(98), at(99), at(100)], [Some(5), Some(10), Some(750), Some(1000)]);
        assert_eq!(new.delays("remote").percentile(50), None);
        assert_eq!([0, 10, 11, 432_001_000].map(|ms| delay_range(Duration::from_millis(ms))), [0, 0, 1, 23]);
    }
}
