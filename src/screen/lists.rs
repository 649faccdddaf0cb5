//! Finds out for a session which DNS lists contain a client's address or a domain (RFC 5782).
//!
//! A list that does not work is ignored, because its answers would refuse all mail or none. A list
//! does not work in these cases:
//!
//! - It gives no answer.
//! - Its answer is outside of 127.0.0.0/8.
//! - Its answer is in 127.255.255.0/24, by which lists say that they do not serve this resolver.
//! - It contains the test entry that no list may contain: 127.0.0.1, or the domain `invalid`.
//!
//! The test entry is looked up together with the first use of a list, and again after an hour. The
//! trouble of a list is logged at most once an hour.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::address::parse_domain;
use crate::config::policy::DnsList;
use crate::dns::Begun;
use crate::dns::Dns;
use crate::outcome::NoAnswer;
use crate::policy::strangers::Listed;

/// The minimum time between two look-ups of a list's test entry, and between two log entries about
/// the list's trouble.
const PERIOD: Duration = Duration::from_secs(3600);

/// What is known about the lists, for all sessions.
#[derive(Debug, Default)]
pub struct Lists {
    /// The state of each list, by its zone. The zones come from the configuration, so the map is
    /// small.
    known: Mutex<HashMap<Box<str>, Known>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Known {
    /// The time at which the test entry was looked up, and whether the list contains it; `None` if
    /// it was never looked up.
    tested: Option<(Instant, bool)>,
    /// The time at which trouble was last logged; `None` if it never was.
    logged: Option<Instant>,
}

/// The look-ups that have begun for one address or domain, in several lists.
#[derive(Debug, Default)]
pub struct Asked {
    zones: Vec<Zone>,
}

/// A look-up in one zone.
struct Zone {
    /// The lists of the configuration that have this zone, each with its position in the
    /// configuration. These lists differ in the answers that they count.
    lists: Vec<(usize, DnsList)>,
    answers: Begun<Ipv4Addr>,
    /// The look-up of the test entry; `None` if the list was tested lately.
    test: Option<Begun<Ipv4Addr>>,
}

/// The answers of a list, or the reason why it is ignored.
type Answers = Result<Vec<Ipv4Addr>, Trouble>;

/// The reason why a list is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    NoAnswer(NoAnswer),
    /// The answer is not one that a DNS list gives.
    Strange(Ipv4Addr),
    /// The list contains the test entry, and so perhaps everything.
    Everything,
}

impl Lists {
    /// Begins to look up an address.
    pub fn begin_address(&self, dns: &Dns, lists: &[DnsList], address: IpAddr, until: Instant) -> Asked {
        self.begin(dns, lists, &reversed(address), "1.0.0.127", until)
    }

    /// Begins to look up a domain. If `domain` cannot be a host's domain in the DNS, nothing is
    /// looked up.
    pub fn begin_domain(&self, dns: &Dns, lists: &[DnsList], domain: &str, until: Instant) -> Asked {
        match parse_domain(domain) {
            Ok(domain) if domain.contains('.') && !domain.starts_with('[') && domain.parse::<Ipv4Addr>().is_err() => {
                self.begin(dns, lists, &domain, "invalid", until)
            }
            _ => Asked::default(),
        }
    }

    fn begin(&self, dns: &Dns, lists: &[DnsList], what: &str, test: &str, until: Instant) -> Asked {
        let mut asked = Asked::default();
        for (index, list) in lists.iter().enumerate() {
            let is_same = |zone: &&mut Zone| zone.lists.first().is_some_and(|(_, first)| first.zone == list.zone);
            if let Some(zone) = asked.zones.iter_mut().find(is_same) {
                zone.lists.push((index, list.clone()));
                continue;
            }
            let look_up = |what: &str| dns.begin_ipv4(&format!("{what}.{}", list.zone), until);
            let is_tested = self.is_everything(list).is_some();
            let test = (!is_tested).then(|| look_up(test));
            asked.zones.push(Zone { lists: vec![(index, list.clone())], answers: look_up(what), test });
        }
        asked
    }

    /// Waits for look-ups, and adds up the weights of the lists that contain the addresses or
    /// domains. A list that contains several of them counts only once.
    pub fn wait(&self, asked: impl IntoIterator<Item = Asked>) -> Listed {
        let (listed, zones) = self.gather(asked);
        zones
            .iter()
            .filter_map(|(list, answer)| Some((list, answer.as_ref().err()?)))
            .for_each(|(l, e)| self.log(l, e));
        listed
    }

    /// Waits for look-ups as [`Lists::wait`] does, but logs nothing. Returns also the answer of
    /// each zone in words.
    pub fn explain(&self, asked: impl IntoIterator<Item = Asked>) -> (Listed, Vec<String>) {
        let (listed, zones) = self.gather(asked);
        let told = zones.iter().map(|(list, answer)| match answer {
            Ok(answers) if answers.is_empty() => format!("{}: not listed", list.name()),
            Ok(answers) => {
                let answers: Vec<String> = answers.iter().map(ToString::to_string).collect();
                format!("{}: listed ({})", list.name(), answers.join(", "))
            }
            Err(trouble) => format!("{} counts for nothing: {}", list.name(), text(trouble)),
        });
        (listed, told.collect())
    }

    /// Waits for look-ups, and returns the sum of their lists and the answer of each zone.
    fn gather(&self, asked: impl IntoIterator<Item = Asked>) -> (Listed, Vec<(DnsList, Answers)>) {
        let mut found: Vec<(usize, DnsList)> = Vec::new();
        let mut zones: Vec<(DnsList, Answers)> = Vec::new();
        for zone in asked.into_iter().flat_map(|asked| asked.zones) {
            let Zone { lists, answers, test } = zone;
            let Some(first) = lists.first().map(|(_, first)| first.clone()) else { continue };
            let answers = self.answers(&first, answers.wait(), test.map(Begun::wait));
            if let Ok(answers) = &answers {
                let is_in = |list: &DnsList| match &list.answers {
                    Some(pattern) => answers.iter().any(|answer| pattern.contains(*answer)),
                    None => !answers.is_empty(),
                };
                let new = lists.into_iter().filter(|(_, list)| is_in(list));
                let new: Vec<_> = new.filter(|(index, _)| !found.iter().any(|(known, _)| known == index)).collect();
                found.extend(new);
            }
            zones.push((first, answers));
        }
        found.sort_by_key(|(index, _)| *index);
        let mut listed = Listed::default();
        for (_, list) in found {
            listed.sum = listed.sum.saturating_add(list.weight);
            if list.weight > 0 && !listed.names.iter().any(|name| name == list.name()) {
                listed.names.push(list.name().to_owned());
            }
        }
        (listed, zones)
    }

    /// Returns the answers of a list. There are none if the list does not contain the address or
    /// the domain. The error is the reason why the list is ignored.
    fn answers(
        &self,
        list: &DnsList,
        answers: Result<Vec<Ipv4Addr>, NoAnswer>,
        test: Option<Result<Vec<Ipv4Addr>, NoAnswer>>,
    ) -> Result<Vec<Ipv4Addr>, Trouble> {
        let is_everything = match test {
            Some(test) => {
                let contains = !contents(test)?.is_empty();
                self.with(list, |known| known.tested = Some((Instant::now(), contains)));
                contains
            }
            None => self.is_everything(list).unwrap_or(false),
        };
        let answers = contents(answers)?;
        if is_everything { Err(Trouble::Everything) } else { Ok(answers) }
    }

    /// Returns whether a list contains its test entry. Returns `None` if the entry was not looked
    /// up within the last hour.
    fn is_everything(&self, list: &DnsList) -> Option<bool> {
        let tested = self.with(list, |known| known.tested);
        tested.filter(|(when, _)| when.elapsed() < PERIOD).map(|(_, contains)| contains)
    }

    fn log(&self, list: &DnsList, trouble: &Trouble) {
        let is_due = self.with(list, |known| {
            let is_due = known.logged.is_none_or(|when| when.elapsed() >= PERIOD);
            if is_due {
                known.logged = Some(Instant::now());
            }
            is_due
        });
        if is_due {
            ::log::warn!("the DNS list {} counts for nothing: {}", list.name(), text(trouble));
        }
    }

    fn with<T>(&self, list: &DnsList, change: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(known.entry(list.zone.as_str().into()).or_default())
    }
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.lists).finish()
    }
}

/// Returns the answers of one look-up. There are none if the list does not contain the name that
/// was looked up.
fn contents(found: Result<Vec<Ipv4Addr>, NoAnswer>) -> Result<Vec<Ipv4Addr>, Trouble> {
    let answers = match found {
        Ok(answers) => answers,
        Err(NoAnswer::NxDomain | NoAnswer::NoData) => return Ok(Vec::new()),
        Err(why) => return Err(Trouble::NoAnswer(why)),
    };
    let is_strange = |answer: &&Ipv4Addr| matches!(answer.octets(), [127, 255, 255, _]) || !answer.is_loopback();
    match answers.iter().find(is_strange) {
        Some(strange) => Err(Trouble::Strange(*strange)),
        None => Ok(answers),
    }
}

fn text(trouble: &Trouble) -> String {
    match trouble {
        Trouble::NoAnswer(why) => format!("it does not answer ({why})"),
        Trouble::Strange(answer) => format!("it answers {answer}"),
        Trouble::Everything => {
            "it contains the test entry (127.0.0.1, or invalid), and so perhaps everything".to_owned()
        }
    }
}

/// Returns an address as the labels of a DNS name, in reverse order (RFC 5782 2.1, 2.4). For
/// example, 192.0.2.1 becomes `1.2.0.192`.
fn reversed(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect::<Vec<_>>().join(".")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(texts: &[&str]) -> Result<Vec<Ipv4Addr>, NoAnswer> {
        Ok(texts.iter().map(|text| text.parse().expect("an address")).collect())
    }

    #[test]
    fn an_address_is_asked_in_reverse() {
        for (address, want) in [
            ("192.0.2.1", "1.2.0.192"),
            ("::ffff:192.0.2.1", "1.2.0.192"),
            ("2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"),
        ] {
            assert_eq!(reversed(address.parse().expect(address)), want);
        }
    }

    #[test]
    fn a_list_in_trouble_counts_for_nothing() {
        let strange = |text: &str| Err(Trouble::Strange(text.parse().expect(text)));
        let list = DnsList { zone: "list.example".into(), answers: None, weight: 1 };
        let not_in = || Err(NoAnswer::NxDomain);
        for (found, test, want) in [
            (answers(&["127.0.0.2"]), not_in(), Ok(answers(&["127.0.0.2"]).expect("some"))),
            (not_in(), not_in(), Ok(Vec::new())),
            (Err(NoAnswer::NoData), not_in(), Ok(Vec::new())),
            (answers(&[]), not_in(), Ok(Vec::new())),
            (Err(NoAnswer::Timeout), not_in(), Err(Trouble::NoAnswer(NoAnswer::Timeout))),
            (answers(&["127.0.0.2"]), Err(NoAnswer::ServFail), Err(Trouble::NoAnswer(NoAnswer::ServFail))),
            (answers(&["127.0.0.2", "10.0.0.1"]), not_in(), strange("10.0.0.1")),
            (answers(&["127.255.255.254"]), not_in(), strange("127.255.255.254")),
            (answers(&["127.0.0.2"]), answers(&["127.0.0.2"]), Err(Trouble::Everything)),
            (not_in(), answers(&["127.0.0.2"]), Err(Trouble::Everything)),
        ] {
            let lists = Lists::default();
            let shown = format!("{found:?} {test:?}");
            let is_everything = test.is_ok();
            let is_tested = !matches!(test, Err(NoAnswer::ServFail));
            assert_eq!(lists.answers(&list, found, Some(test)), want, "{shown}");
            assert_eq!(lists.is_everything(&list), is_tested.then_some(is_everything), "{shown}");
            // The list is not tested again for an hour.
            if is_everything {
                assert_eq!(lists.answers(&list, answers(&["127.0.0.2"]), None), Err(Trouble::Everything));
            }
        }
    }
}
