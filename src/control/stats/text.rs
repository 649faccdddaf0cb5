//! Writes the numbers as text for people.

use std::fmt::Write;
use std::time::Duration;

use super::{Period, mean};
use crate::log;
use crate::stats::{Counts, Family};

/// Text that is being written.
struct Page<'a> {
    out: String,
    counts: &'a Counts,
    rows: usize,
}

/// Returns the numbers of a period. Each list has at most `rows` rows.
pub fn text(counts: &Counts, period: &Period, rows: usize) -> String {
    let mut page = Page { out: heading(period), counts, rows };
    if counts.is_empty() {
        page.line("Nothing was counted.");
        return page.out;
    }
    page.accepted();
    page.delivered();
    page.list("Deferred (attempts), by destination and reason", Family::Deferred);
    page.list("Failed (recipients), by reason", Family::Failed);
    page.list("Refused (commands), by reason", Family::Refused);
    page.list("Refused (commands), by client", Family::RefusedClient);
    page.senders();
    page.list("Sent to other hosts (recipients), by domain", Family::SentTo);
    page.list("Checks (messages)", Family::Check);
    page.list("Filters (messages)", Family::Filter);
    page.list("Other events", Family::Events);
    page.out
}

/// Returns the first line, which says what period the numbers belong to.
fn heading(period: &Period) -> String {
    let hours = period.until.saturating_sub(period.from) / 60;
    let (from, until) = (local(period.from), local(period.until));
    let zone = zone_name(period.until);
    let cut = if period.is_cut { " (earlier numbers are not kept)" } else { "" };
    format!("Mail from {from} to {until} ({zone}), {} h {} min{cut}\n\n", hours / 60, hours % 60)
}

/// Returns a time as local time.
fn local(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()).unwrap_or_default();
    time.to_zoned(log::zone().clone()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// Returns the name of the local zone at a time.
fn zone_name(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()).unwrap_or_default();
    time.to_zoned(log::zone().clone()).strftime("%Z").to_string()
}

impl Page<'_> {
    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn row(&mut self, count: u64, what: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.out, "{count:>9}  {what}");
    }

    fn accepted(&mut self) {
        let counts = self.counts;
        let messages = counts.total(Family::Accepted);
        self.line("Accepted");
        self.row(messages, &format!("messages, {} in all", octets(counts.total(Family::Octets))));
        self.row(counts.total(Family::Recipients), "recipients");
        for (origin, words) in [
            ("network", "messages from clients without a login"),
            ("login", "from clients with a login"),
            ("local", "from programs on this host"),
        ] {
            let count = counts.get(Family::Accepted, origin);
            if count > 0 {
                self.row(count, words);
            }
        }
        self.shares("of the messages over the network", Family::TlsIn);
        self.line("");
    }

    fn delivered(&mut self) {
        let counts = self.counts;
        self.line("Delivered (recipients)");
        self.row(counts.with_label(Family::Attempts, 1, "sent"), "in all");
        for (via, words) in [
            ("maildir", "into Maildirs"),
            ("mbox", "into mbox files"),
            ("command", "to commands"),
            ("lmtp", "to mail stores"),
            ("smtp", "to other hosts"),
            ("forward", "forwarded"),
            ("list", "to lists"),
            ("hold", "held by the routes"),
            ("discard", "discarded by the routes"),
        ] {
            let count = counts.get(Family::Attempts, &format!("{via}|sent"));
            if count > 0 {
                self.row(count, words);
            }
        }
        self.shares("of those to other hosts", Family::TlsOut);
        self.line("");
        let places = [("local", "into mailboxes"), ("store", "to mail stores"), ("remote", "to other hosts")];
        let delays = places.map(|(place, words)| (words, counts.delays(place)));
        if delays.iter().all(|(_, delays)| delays.count() == 0) {
            return;
        }
        self.line("Delay               half   90 %   95 %   99 %   mean");
        for (words, delays) in delays.iter().filter(|(_, delays)| delays.count() > 0) {
            let at = |percent| span(delays.percentile(percent).unwrap_or_default());
            let mean = span(Duration::from_secs_f64(mean(delays)));
            let row = format!("  {words:<16}{:>6} {:>6} {:>6} {:>6} {mean:>6}", at(50), at(90), at(95), at(99));
            self.line(&row);
        }
        self.line("");
    }

    /// Writes the share of encrypted messages.
    fn shares(&mut self, of: &str, family: Family) {
        let (all, plain) = (self.counts.total(family), self.counts.get(family, "none"));
        if all == 0 {
            return;
        }
        let percent = |count: u64| u128::from(count) * 100 / u128::from(all);
        let versions = self.counts.of(family).filter(|(version, _)| *version != "none");
        let versions: Vec<_> = versions.map(|(version, count)| format!("{version} {} %", percent(count))).collect();
        let versions = if versions.is_empty() { String::new() } else { format!(": {}", versions.join(", ")) };
        // Writing to a string cannot fail.
        let _ = writeln!(self.out, "{:>7} %  {of} with TLS{versions}", percent(all.saturating_sub(plain)));
    }

    /// Writes the largest numbers of a family, unless there are none.
    fn list(&mut self, title: &str, family: Family) {
        let (top, rest) = self.counts.top(family, self.rows);
        if top.is_empty() {
            return;
        }
        self.line(title);
        let is_cause = matches!(family, Family::Deferred | Family::Failed);
        for (labels, count) in &top {
            let (first, last) = labels.rsplit_once('|').map_or((None, *labels), |(first, last)| (Some(first), last));
            // A cause is written as words. A rule keeps its name, by which trace and the log call it.
            let last = if is_cause { last.replace(['_', '-'], " ") } else { last.to_owned() };
            self.row(*count, &first.map_or_else(|| last.clone(), |first| format!("{first}  {last}")));
        }
        if rest > 0 {
            self.row(rest, "others");
        }
        self.line("");
    }

    fn senders(&mut self) {
        let counts = self.counts;
        let (top, rest) = counts.top(Family::Account, self.rows);
        if !top.is_empty() {
            self.line("Accepted (messages), by account");
            for (account, count) in top {
                let recipients = counts.get(Family::AccountRecipients, account);
                self.row(
                    count,
                    &format!("{account}, {recipients} {}", if recipients == 1 { "recipient" } else { "recipients" }),
                );
            }
            if rest > 0 {
                self.row(rest, "others");
            }
            self.line("");
        }
        self.list("Accepted (messages), by client without a login", Family::Client);
        self.list("Accepted (messages), by sender", Family::Sender);
    }
}

/// Returns a number of octets in units for people.
pub fn octets(octets: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| octets >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", octets as f64 / *size as f64),
        None => format!("{octets} octets"),
    }
}

/// Returns a time span in units for people.
fn span(span: Duration) -> String {
    match span.as_millis() {
        0..1000 => format!("{}ms", span.as_millis()),
        1000..60_000 => format!("{:.1}s", span.as_secs_f64()),
        60_000..3_600_000 => format!("{}m", span.as_secs() / 60),
        3_600_000..172_800_000 => format!("{}h", span.as_secs() / 3600),
        _ => format!("{}d", span.as_secs() / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_numbers_with_their_words() {
        let mut counts = Counts::default();
        for (family, labels, count) in [
            (Family::Accepted, "network", 3),
            (Family::Octets, "network", 4_560_000),
            (Family::TlsIn, "TLS1.3", 2),
            (Family::TlsIn, "none", 1),
            (Family::Attempts, "smtp|sent", 7),
            (Family::Attempts, "smtp|deferred", 9),
            (Family::Delay, "remote|6", 100),
            (Family::DelaySum, "remote", 75_000),
            (Family::Deferred, "a.example|no_answer-from_host", 9),
            (Family::Refused, "own-hello", 4),
            (Family::Account, "jon", 5),
            (Family::AccountRecipients, "jon", 50),
            (Family::Client, "[192.0.2.1]", 2),
            (Family::Client, "[192.0.2.2]", 1),
        ] {
            counts.add(family, labels, count);
        }
        let text = text(&counts, &Period { from: 0, until: 3660, is_cut: true }, 1);
        for line in [
            "        3  messages, 4.3 MiB in all",
            "     66 %  of the messages over the network with TLS: TLS1.3 66 %",
            "        7  to other hosts",
            "  to other hosts   750ms  950ms  975ms  995ms  750ms",
            "        4  own-hello",
            "        9  a.example  no answer from host",
            "        5  jon, 50 recipients",
            "        2  [192.0.2.1]",
            "        1  others",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(text.contains(", 1 h 1 min (earlier numbers are not kept)\n"), "{text}");
    }
}
