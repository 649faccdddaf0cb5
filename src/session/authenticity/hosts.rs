//! DKIM keys that the hosts of a site keep for each other in the shared store.
//!
//! A host that does not know a key asks the store before it asks the DNS. What it finds goes into its DNS
//! cache, and what it finds in the DNS goes into the store, each for the lifetime that the DNS has set.
//! A text is `MADE|SECONDS|RECORD,RECORD,...`: the time at which a host had the records from the DNS, how
//! long they are valid from then on, and the records in base64. It is sealed, so only a host with the same
//! secret can have made it. Strangers choose which keys there are: so only keys of signatures that pass
//! are kept, and only short ones.

use std::time::{Duration, Instant};

use data_encoding::BASE64_NOPAD;

use crate::config::key_name;
use crate::dns::Dns;
use crate::mailauth::dkim::{Checked, Signatures};
use crate::shared::Shared;

/// What the texts are called in the store.
const KIND: &str = "dkim";
/// The maximum number of keys of a message for which the store is asked. Few messages have more.
const MAX_KEYS: usize = 4;
/// The time after which no further key of a message is asked for.
const LIMIT: Duration = Duration::from_millis(100);
/// The maximum length of a text, in octets. The longest keys in use have 1.5 KiB.
const MAX_TEXT: usize = 4 << 10;
/// The maximum time for which records are valid, in seconds: that of the DNS cache.
const MAX_LIFETIME: u64 = 86_400;
/// The maximum time by which the clock of another host may be ahead, in seconds.
const MAX_AHEAD: u64 = 60;

/// Asks the store for the keys of signatures that this host does not know. Returns the names of those that
/// the store does not have either.
pub fn recall(shared: &Shared, dns: &Dns, signatures: &Signatures, now: u64) -> Vec<String> {
    if !shared.keeps_texts() {
        return Vec::new();
    }
    let mut names = signatures.key_names(now);
    names.truncate(MAX_KEYS);
    names.retain(|name| !dns.knows_txt(name));
    let since = Instant::now();
    names.retain(|name| {
        let text = if since.elapsed() < LIMIT { shared.recall(KIND, name) } else { None };
        let Some((records, lifetime)) = text.and_then(|text| read(&text, now)) else { return true };
        dns.learn_txt(name, records, lifetime);
        false
    });
    names
}

/// Keeps keys with which signatures have passed for the other hosts. `unknown` is what [`recall`] has
/// returned.
pub fn tell(shared: &Shared, dns: &Dns, unknown: &[String], checked: &[Checked], now: u64) {
    let since = Instant::now();
    for name in checked.iter().filter(|one| one.is_pass()).map(|one| key_name(&one.selector, &one.domain)) {
        if !unknown.contains(&name) || since.elapsed() >= LIMIT {
            continue;
        }
        let Some((records, left)) = dns.known_txt(&name) else { continue };
        let records: Vec<String> = records.iter().map(|record| BASE64_NOPAD.encode(record)).collect();
        let seconds = left.as_secs().min(MAX_LIFETIME);
        let text = format!("{now}|{seconds}|{}", records.join(","));
        if seconds > 0 && text.len() <= MAX_TEXT {
            shared.keep(KIND, &name, &text, seconds);
        }
    }
}

/// Reads the records of a key, and how long they are valid.
fn read(text: &str, now: u64) -> Option<(Vec<Vec<u8>>, Duration)> {
    let mut fields = text.splitn(3, '|');
    let (made, seconds) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    let records = fields.next()?.split(',').map(|one| BASE64_NOPAD.decode(one.as_bytes()).ok());
    let records: Vec<_> = records.collect::<Option<_>>()?;
    // A clock that differs must not make the time longer.
    let is_past = made <= now.saturating_add(MAX_AHEAD);
    let left = seconds.min(MAX_LIFETIME).checked_sub(now.saturating_sub(made)).filter(|left| is_past && *left > 0)?;
    Some((records, Duration::from_secs(left)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_until_their_end() {
        let records = |left| Some((vec![b"v=DKIM1".to_vec(), vec![0xfc]], Duration::from_secs(left)));
        for (text, want) in [
            ("1000|60|dj1ES0lNMQ,/A", records(60)),
            ("941|60|dj1ES0lNMQ,/A", records(1)),
            ("940|60|dj1ES0lNMQ,/A", None),
            ("1060|60|dj1ES0lNMQ,/A", records(60)),
            ("1061|60|dj1ES0lNMQ,/A", None),
            ("1000|99999999|dj1ES0lNMQ,/A", records(86_400)),
            ("0|99999999|dj1ES0lNMQ,/A", records(85_400)),
            ("1000|0|dj1ES0lNMQ", None),
            ("x|60|dj1ES0lNMQ", None),
            ("1000|-1|dj1ES0lNMQ", None),
            ("1000|60|dj1ES0lNMQ==", None),
            ("1000|60", None),
            ("", None),
        ] {
            assert_eq!(read(text, 1000), want, "{text}");
        }
    }
}
