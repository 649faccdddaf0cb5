//! Says what the postmaster should look at now, for the report and the status page.

use crate::stats::Gauges;

/// The number of days before a certificate expires in which it is mentioned.
const CERTIFICATE_DAYS: u64 = 14;
/// The part of a file system, and of the places for connections, that should be free, as a divisor.
const MIN_FREE: u64 = 10;
/// Seconds in a day.
const DAY: u64 = 86_400;

/// Returns a section with a line for each matter, and an empty line behind it.
pub fn text(gauges: &Gauges) -> String {
    let matters = matters(gauges);
    if matters.is_empty() {
        return "Nothing needs attention now.\n\n".to_owned();
    }
    let lines: String = matters.iter().map(|matter| format!("  {matter}\n")).collect();
    format!("Needs attention now\n{lines}\n")
}

/// Returns a sentence about each thing that needs attention.
pub fn matters(gauges: &Gauges) -> Vec<String> {
    let mut matters = Vec::new();
    let mut add = |matter: String| matters.push(matter);
    match &gauges.queue {
        _ if gauges.workers == 0 => add("No daemon is running.".to_owned()),
        None => add("The queue does not answer.".to_owned()),
        Some(queue) if queue.running >= gauges.workers => add(format!("All {} workers are busy.", gauges.workers)),
        Some(_) => {}
    }
    if gauges.workers > 0 && !gauges.is_scanned {
        add("The spool is still being read after the start, so the numbers are too low.".to_owned());
    }
    if let Some((_, down @ 1..)) = gauges.destinations.iter().find(|(state, _)| *state == "down") {
        add(format!("{} down: see penfoldctl hosts.", several(*down, "destination is", "destinations are")));
    }
    if let Some(old @ 1..) = gauges.queue.as_ref().and_then(|queue| queue.ages.last().copied()) {
        add(format!("{} older than a day: see penfoldctl queue.", several(old, "message is", "messages are")));
    }
    if let Some(held @ 1..) = gauges.held {
        add(format!("{} held: see penfoldctl queue --state held.", several(held, "message is", "messages are")));
    }
    scarce(gauges).into_iter().for_each(|matter| add(format!("The {matter}.")));
    let (open, most) = gauges.connections;
    if most > 0 && open >= most - most / MIN_FREE as usize {
        add(format!("{open} of {most} connections are open."));
    }
    if let Some(why) = gauges.shared.as_ref().and_then(|shared| shared.why_away.as_ref()) {
        add(format!("The shared store is away, and this host counts alone: {why}."));
    }
    for certificate in &gauges.certificates {
        let file = &certificate.file;
        match certificate.expires.checked_sub(gauges.now).map(|left| left / DAY) {
            None => add(format!("The certificate {file} has expired.")),
            Some(0) => add(format!("The certificate {file} expires within a day.")),
            Some(days @ ..CERTIFICATE_DAYS) => add(format!("The certificate {file} expires in {days} days.")),
            Some(_) => {}
        }
    }
    matters
}

/// What is scarce on the spool's file system: clauses that need an article.
pub fn scarce(gauges: &Gauges) -> Vec<String> {
    let kinds = [("octets", gauges.disk), ("inodes", gauges.inodes)];
    // Some file systems have no fixed number of inodes, and say 0.
    let is_scarce = |(free, all): &(u64, u64)| *all > 0 && *free < all / MIN_FREE;
    let kinds = kinds.into_iter().filter_map(|(what, numbers)| Some((what, numbers.filter(is_scarce)?)));
    let text = |(what, (free, all)): (&str, (u64, u64))| {
        let percent = u128::from(free) * 100 / u128::from(all);
        format!("spool's file system has only {percent} % of its {what} free")
    };
    kinds.map(text).collect()
}

/// Returns a number with the word for one or for several.
fn several(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Census, Certificate, SharedState};

    #[test]
    fn each_matter_has_a_sentence() {
        let queue = |running, old| Some(Census { running, ages: [9, 0, 0, 0, 0, old], ..Census::default() });
        let fine = Gauges {
            workers: 1,
            is_scanned: true,
            queue: queue(0, 0),
            connections: (89, 100),
            disk: Some((50, 100)),
            inodes: Some((0, 0)),
            shared: Some(SharedState { store: "s".into(), why_away: None, since: 0, unasked: 0 }),
            ..Gauges::default()
        };
        assert_eq!(text(&fine), "Nothing needs attention now.\n\n");
        let certificate = |file: &str, expires| Certificate { file: file.into(), expires };
        let ill = Gauges {
            now: 100 * DAY,
            queue: queue(2, 2),
            held: Some(3),
            workers: 2,
            connections: (90, 100),
            destinations: vec![("up", 5), ("down", 1)],
            certificates: vec![
                certificate("a", 99 * DAY),
                certificate("b", 103 * DAY + 1),
                certificate("c", 101 * DAY - 1),
                certificate("d", 120 * DAY),
            ],
            disk: Some((9, 100)),
            inodes: Some((10, 1000)),
            shared: Some(SharedState {
                store: "s".into(),
                why_away: Some("no answer in time".into()),
                since: 0,
                unasked: 0,
            }),
            ..Gauges::default()
        };
        let expected = "Needs attention now
  All 2 workers are busy.
  The spool is still being read after the start, so the numbers are too low.
  1 destination is down: see penfoldctl hosts.
  2 messages are older than a day: see penfoldctl queue.
  3 messages are held: see penfoldctl queue --state held.
  The spool's file system has only 9 % of its octets free.
  The spool's file system has only 1 % of its inodes free.
  90 of 100 connections are open.
  The shared store is away, and this host counts alone: no answer in time.
  The certificate a has expired.
  The certificate b expires in 3 days.
  The certificate c expires within a day.

";
        assert_eq!(text(&ill), expected);
        assert_eq!(matters(&Gauges { queue: None, ..fine.clone() }), ["The queue does not answer."]);
        assert_eq!(matters(&Gauges { workers: 0, is_scanned: false, ..fine }), ["No daemon is running."]);
    }
}
