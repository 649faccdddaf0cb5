//! DKIM keys that the hosts of a site keep for each other in the shared store.
//!
//! A host that does not know a key asks the store before it asks the DNS. What it finds goes into its DNS
//! cache, and what it finds in the DNS goes into the store, each for the lifetime that the DNS has set.
//! A text is `END|RECORD,RECORD,...`: the time at which the records end, and the records in base64. It is
//! sealed, so only a host with the same secret can have made it.

use std::time::Duration;

use data_encoding::BASE64_NOPAD;

use crate::dns::Dns;
use crate::mailauth::dkim::Signatures;
use crate::shared::Shared;

/// What the texts are called in the store.
const KIND: &str = "dkim";
/// The maximum number of keys of a message for which the store is asked. Few messages have more.
const MAX_KEYS: usize = 4;
/// The maximum time for which records are valid, in seconds: that of the DNS cache.
const MAX_LIFETIME: u64 = 86_400;

/// Asks the store for the keys of signatures that this host does not know. Returns the names of those that
/// the store does not have either.
pub fn recall(shared: &Shared, dns: &Dns, signatures: &Signatures, now: u64) -> Vec<String> {
    if !shared.keeps_texts() {
        return Vec::new();
    }
    let mut names = signatures.key_names();
    names.truncate(MAX_KEYS);
    names.retain(|name| dns.known_txt(name).is_none());
    names.retain(|name| match shared.recall(KIND, name).and_then(|text| read(&text, now)) {
        Some((records, lifetime)) => {
            dns.learn_txt(name, records, lifetime);
            false
        }
        None => true,
    });
    names
}

/// Keeps keys for the other hosts, if the DNS has them.
pub fn tell(shared: &Shared, dns: &Dns, names: &[String], now: u64) {
    for name in names {
        let Some((records, left)) = dns.known_txt(name) else { continue };
        let records: Vec<String> = records.iter().map(|record| BASE64_NOPAD.encode(record)).collect();
        let seconds = left.as_secs().min(MAX_LIFETIME);
        if seconds > 0 && !records.is_empty() {
            shared.keep(KIND, name, &format!("{}|{}", now + seconds, records.join(",")), seconds);
        }
    }
}

/// Reads the records of a key, and how long they are valid.
fn read(text: &str, now: u64) -> Option<(Vec<Vec<u8>>, Duration)> {
    let (end, records) = text.split_once('|')?;
    let left = end.parse::<u64>().ok()?.checked_sub(now).filter(|left| (1..=MAX_LIFETIME).contains(left))?;
    let records: Option<Vec<_>> = records.split(',').map(|one| BASE64_NOPAD.decode(one.as_bytes()).ok()).collect();
    Some((records?, Duration::from_secs(left)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_until_their_end() {
        let records = Some((vec![b"v=DKIM1".to_vec(), vec![0xfc]], Duration::from_secs(60)));
        let none = || Some((vec![Vec::new()], Duration::from_secs(1)));
        for (text, want) in [
            ("1060|dj1ES0lNMQ,/A", records),
            ("1001|", none()),
            ("1000|dj1ES0lNMQ", None),
            ("999|dj1ES0lNMQ", None),
            ("87401|dj1ES0lNMQ", None),
            ("x|dj1ES0lNMQ", None),
            ("1060|dj1ES0lNMQ==", None),
            ("1060", None),
            ("", None),
        ] {
            assert_eq!(read(text, 1000), want, "{text}");
        }
    }
}
