//! Lists what the postmaster should look at now.

use crate::stats::Gauges;

/// The number of days before a certificate expires in which it is mentioned.
const CERTIFICATE_DAYS: u64 = 14;
/// The part of a file system that should be free, as a divisor.
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

fn matters(gauges: &Gauges) -> Vec<String> {
    let mut matters = Vec::new();
    if gauges.workers == 0 {
        matters.push("no daemon is running".to_owned());
    } else if !gauges.is_scanned {
        matters.push("the spool is still being read".to_owned());
    }
    for certificate in &gauges.certificates {
        match certificate.expires.checked_sub(gauges.now) {
            None => matters.push(format!("{}: the certificate has expired", certificate.file)),
            Some(left) if left < CERTIFICATE_DAYS * DAY => {
                matters.push(format!("{}: the certificate expires in {} days", certificate.file, left / DAY));
            }
            Some(_) => {}
        }
    }
    matters.extend(scarce(gauges));
    let down = gauges.destinations.iter().find(|(state, _)| *state == "down").map_or(0, |(_, count)| *count);
    if down > 0 {
        matters.push(format!("{} down; see penfoldctl hosts", several(down, "destination is", "destinations are")));
    }
    if let Some(old) = gauges.queue.as_ref().and_then(|queue| queue.ages.last().copied()).filter(|old| *old > 0) {
        let (what, verb) = (several(old, "message", "messages"), if old == 1 { "is" } else { "are" });
        matters.push(format!("{what} {verb} older than a day; see penfoldctl queue"));
    }
    if let Some(held) = gauges.held.filter(|held| *held > 0) {
        matters.push(format!("{} held", several(held, "message is", "messages are")));
    }
    matters
}

/// What is scarce on the spool's file system.
pub fn scarce(gauges: &Gauges) -> Vec<String> {
    let kinds = [("octets", gauges.disk), ("inodes", gauges.inodes)];
    // Some file systems have no fixed number of inodes, and say 0.
    let is_scarce = |(free, all): &(u64, u64)| *all > 0 && *free < all / MIN_FREE;
    let kinds = kinds.into_iter().filter_map(|(what, numbers)| Some((what, numbers.filter(is_scarce)?)));
    let text = |(what, (free, all)): (&str, (u64, u64))| {
        let percent = u128::from(free) * 100 / u128::from(all);
        format!("the spool's file system has {percent} % of its {what} free")
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
    use crate::stats::{Census, Certificate};

    #[test]
    fn each_matter_has_a_line() {
        let fine =
            Gauges { workers: 1, is_scanned: true, disk: Some((50, 100)), inodes: Some((0, 0)), ..Gauges::default() };
        assert_eq!(text(&fine), "Nothing needs attention now.\n\n");
        let certificate = |file: &str, expires| Certificate { file: file.into(), expires };
        let ill = Gauges {
            now: 100 * DAY,
            certificates: vec![
                certificate("a", 99 * DAY),
                certificate("b", 103 * DAY + 1),
                certificate("c", 120 * DAY),
            ],
            disk: Some((9, 100)),
            inodes: Some((10, 1000)),
            destinations: vec![("up", 5), ("down", 1)],
            queue: Some(Census { ages: [9, 0, 0, 0, 0, 2], ..Census::default() }),
            held: Some(3),
            ..Gauges::default()
        };
        let expected = "Needs attention now\n  no daemon is running\n  a: the certificate has expired\n  \
                        b: the certificate expires in 3 days\n  the spool's file system has 9 % of its octets free\n  \
                        the spool's file system has 1 % of its inodes free\n  \
                        1 destination is down; see penfoldctl hosts\n  \
                        2 messages are older than a day; see penfoldctl queue\n  3 messages are held\n\n";
        assert_eq!(text(&ill), expected);
    }
}
