//! TXT records in the cache, which the hosts of a site keep for each other.

use std::time::Duration;

use trust_dns_resolver::proto::rr::RecordType;

use super::answer::{Data, Datum};
use super::begun::parse;
use super::{Dns, MAX_TEXTS};

impl Dns {
    /// Whether the cache has an answer about the TXT records of a name, also if that is that there are none.
    pub fn knows_txt(&self, name: &str) -> bool {
        let Ok((text, _)) = parse(name) else { return false };
        self.running().is_ok_and(|running| running.cache.find(&text, RecordType::TXT, false).is_some())
    }

    /// Returns the TXT records of a name that are in the cache, and how long they stay there. Nothing is
    /// looked up.
    pub fn known_txt(&self, name: &str) -> Option<(Vec<Vec<u8>>, Duration)> {
        let (text, _) = parse(name).ok()?;
        let (found, left) = self.running().ok()?.cache.find_with_lifetime(&text, RecordType::TXT)?;
        let text = |datum: &Datum| if let Datum::Text(text) = datum { Some(text.to_vec()) } else { None };
        Some((found.ok()?.list.iter().filter_map(text).collect(), left))
    }

    /// Puts the TXT records of a name into the cache, for this time. They do not count as secured by
    /// DNSSEC.
    pub fn learn_txt(&self, name: &str, records: Vec<Vec<u8>>, lifetime: Duration) {
        let (Ok((text, _)), Ok(running)) = (parse(name), self.running()) else { return };
        let list = records.into_iter().take(MAX_TEXTS).map(|record| Datum::Text(record.into())).collect();
        let found = Ok(Data { list, is_secure: false, alias_of: None });
        let seconds = lifetime.as_secs().try_into().unwrap_or(u32::MAX);
        running.cache.keep(&text, RecordType::TXT, false, &found, seconds);
    }
}
