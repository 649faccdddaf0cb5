//! Reads the table `[policy]` of penfold.conf(5), the rules for clients that may not relay.
//!
//! The modules `screen` and `policy` apply the rules.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::document::Section;
use super::{TableFile, values};
use crate::address::{Address, parse_domain};
use crate::envelope::Folder;

/// The bounds of `policy.dnsbl_threshold`, and of the absolute value of a list's weight.
const WEIGHT: RangeInclusive<usize> = 1..=1000;
/// The maximum of `policy.greet_delay`. Clients wait at least five minutes for the banner (RFC 5321
/// 4.5.3.2.1), so they do not give up.
const MAX_GREET_DELAY: Duration = Duration::from_secs(60);
/// The bounds of `policy.messages_per_hour` and similar limits. Zero means no limit.
pub(super) const PER_HOUR_OR_NONE: RangeInclusive<usize> = 0..=10_000_000;
/// The maximum number of lists in `policy.dnsbl`, and in `policy.sender_lists`. The number is
/// limited because each list costs a look-up for each client.
const MAX_LISTS: usize = 32;
/// Whether this build has the checks that `policy.spf` and `policy.dmarc` control.
const HAS_MAILAUTH: bool = cfg!(feature = "mailauth");
/// Whether this build verifies the ARC chains to which `policy.arc_sealers` applies.
const HAS_ARC: bool = cfg!(feature = "arc");

/// The rules for clients that may not relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The access table.
    pub access: TableFile,
    /// The table of copies: who gets a copy of each message.
    pub always_bcc: TableFile,
    /// The DNS lists in which the client's address is looked up.
    pub dnsbl: Vec<DnsList>,
    /// A client is refused if the weights of the lists that contain it add up to at least this
    /// number.
    pub dnsbl_threshold: i32,
    /// The DNS lists in which the domains of HELO and of the sender are looked up.
    pub sender_lists: Vec<DnsList>,
    /// The pause before the banner; zero for none.
    pub greet_delay: Duration,
    /// Whether a client is refused if it greets with a name or an address of this host.
    pub refuses_own_hello: bool,
    /// Whether a sender is refused if its domain accepts no mail.
    pub refuses_sender_domain: bool,
    /// How SPF results are used.
    pub spf: Spf,
    /// How DMARC results are used.
    pub dmarc: Dmarc,
    /// The domains, in canonical form, that are trusted as sealers (ARC). If the newest seal of a
    /// message is by one of these domains and says that DMARC had passed, a failure of DMARC does
    /// not count.
    pub arc_sealers: Vec<String>,
    /// The sender of aggregate reports; `None` if none are kept or sent.
    pub dmarc_reports: Option<Address>,
    /// The clients whose first attempt is deferred.
    pub greylist: Greylist,
    /// The time after which a greylisted client may try again.
    pub greylist_delay: Duration,
    /// What happens to a message in quarantine.
    pub quarantine: Quarantine,
    /// The maximum number of messages per hour from a client's network; zero for no limit.
    pub messages_per_hour: usize,
    /// The maximum number of unknown recipients per hour that a client's network may name; zero for
    /// no limit.
    pub unknown_recipients_per_hour: usize,
}

/// How SPF results are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spf {
    /// SPF is not evaluated.
    None,
    /// The result is recorded in a field of the message, and DMARC uses it.
    Mark,
    /// If the result is `fail`, the recipient is refused. Other results are used as with `Mark`.
    Refuse,
}

/// How DMARC results are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dmarc {
    /// DMARC is not evaluated.
    None,
    /// The result is recorded in a field of the message, but refuses nothing.
    Mark,
    /// A message that fails is refused or put into quarantine, if the author's domain asks for
    /// that.
    Obey,
}

/// The clients to which the greylist applies, so that their first attempt is deferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greylist {
    /// No client is greylisted.
    None,
    /// Clients without a verified name, clients on a DNS list, and clients whose SPF result is
    /// softfail.
    Suspicious,
    /// All clients are greylisted.
    All,
}

/// What happens to a message in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quarantine {
    /// The message stays in the queue until an administrator releases or removes it.
    Hold,
    /// The message is delivered into this folder of the recipient's Maildir.
    Folder(Folder),
}

/// A DNS list, and what an answer in it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsList {
    /// The zone of the list, in lower case.
    pub zone: String,
    /// The answers that count; `None` for any answer.
    pub answers: Option<Answers>,
    /// The number that an answer adds to the sum that is compared with the threshold. The number is
    /// negative for a list of good clients.
    pub weight: i32,
}

/// A pattern of answers of a DNS list: a range for each octet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers([RangeInclusive<u8>; 4]);

impl Answers {
    /// Returns whether an answer matches the pattern.
    pub fn contains(&self, answer: Ipv4Addr) -> bool {
        self.0.iter().zip(answer.octets()).all(|(range, octet)| range.contains(&octet))
    }

    /// Reads four octets with dots between them. An octet is a number, a range such as `2..11`, or
    /// `*`. The first octet must include 127. Returns `None` if the text has another form.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains('-') {
            return None;
        }
        let mut octets = text.replace("..", "-").split('.').map(octet).collect::<Option<Vec<_>>>()?.into_iter();
        let ranges = [octets.next()?, octets.next()?, octets.next()?, octets.next()?];
        (octets.next().is_none() && ranges.first()?.contains(&127)).then_some(Self(ranges))
    }
}

/// Writes the text from which [`Answers::parse`] reads the pattern.
impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.0.iter().map(|range| match (*range.start(), *range.end()) {
            (0, 255) => "*".to_owned(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}..{last}"),
        });
        f.write_str(&octets.collect::<Vec<_>>().join("."))
    }
}

/// Reads one octet of a pattern. The caller has replaced the two dots of a range by `-`.
fn octet(text: &str) -> Option<RangeInclusive<u8>> {
    let number = |text: &str| text.parse::<u8>().ok().filter(|_| !text.starts_with('+'));
    match text.split_once('-') {
        None if text == "*" => Some(0..=255),
        None => number(text).map(|number| number..=number),
        Some((first, last)) => Some(number(first)?..=number(last)?).filter(|range| !range.is_empty()),
    }
}

impl DnsList {
    /// Reads `zone`, `zone=answers`, `zone*weight` or `zone=answers*weight`.
    fn parse(text: &str) -> Option<Self> {
        let weight = |(rest, digits): (&str, &str)| Some((rest.to_owned(), digits.parse::<i32>().ok()?));
        let (rest, weight) = text.rsplit_once('*').and_then(weight).unwrap_or((text.to_owned(), 1));
        let (zone, answers) = match rest.split_once('=') {
            Some((zone, answers)) => (zone, Some(Answers::parse(answers)?)),
            None => (&*rest, None),
        };
        let zone = parse_domain(zone).ok().filter(|zone| !zone.starts_with('[') && zone.contains('.'))?;
        let is_good = WEIGHT.contains(&(usize::try_from(weight.unsigned_abs()).ok()?));
        is_good.then(|| Self { zone: zone.into(), answers, weight })
    }

    /// Returns the name of the list for replies and the log. If the first label of the zone looks
    /// like the secret key of a customer, that label is left out.
    pub fn name(&self) -> &str {
        const MIN_KEY: usize = 20;
        match self.zone.split_once('.') {
            Some((key, rest)) if key.len() >= MIN_KEY && rest.contains('.') => rest,
            _ => &self.zone,
        }
    }
}

/// Reads the table `[policy]`. `default` has the values of the keys that are missing.
pub(super) fn policy(mut section: Section<'_, '_>, default: Policy) -> Policy {
    let policy = Policy {
        access: super::keys::table_file(&mut section, "access", default.access),
        always_bcc: super::keys::table_file(&mut section, "always_bcc", default.always_bcc),
        dnsbl: lists(&mut section, "dnsbl").unwrap_or(default.dnsbl),
        dnsbl_threshold: section.take("dnsbl_threshold", threshold).unwrap_or(default.dnsbl_threshold),
        sender_lists: lists(&mut section, "sender_lists").unwrap_or(default.sender_lists),
        greet_delay: section.take("greet_delay", greet_delay).unwrap_or(default.greet_delay),
        refuses_own_hello: refuses(&mut section, "own_hello").unwrap_or(default.refuses_own_hello),
        refuses_sender_domain: refuses(&mut section, "sender_domain").unwrap_or(default.refuses_sender_domain),
        spf: match built(&mut section, "spf", &["none", "mark", "refuse"]) {
            Some("none") => Spf::None,
            Some("mark") => Spf::Mark,
            Some("refuse") => Spf::Refuse,
            _ => default.spf,
        },
        dmarc: match built(&mut section, "dmarc", &["none", "mark", "obey"]) {
            Some("none") => Dmarc::None,
            Some("mark") => Dmarc::Mark,
            Some("obey") => Dmarc::Obey,
            _ => default.dmarc,
        },
        arc_sealers: sealers(&mut section).unwrap_or(default.arc_sealers),
        dmarc_reports: reports(&mut section).unwrap_or(default.dmarc_reports),
        greylist: match section.take("greylist", values::word(&["none", "suspicious", "all"])) {
            Some("none") => Greylist::None,
            Some("suspicious") => Greylist::Suspicious,
            Some("all") => Greylist::All,
            _ => default.greylist,
        },
        greylist_delay: section.take("greylist_delay", greylist_delay).unwrap_or(default.greylist_delay),
        quarantine: section.take("quarantine", quarantine).unwrap_or(default.quarantine),
        messages_per_hour: section
            .take("messages_per_hour", values::count(PER_HOUR_OR_NONE))
            .unwrap_or(default.messages_per_hour),
        unknown_recipients_per_hour: section
            .take("unknown_recipients_per_hour", values::count(PER_HOUR_OR_NONE))
            .unwrap_or(default.unknown_recipients_per_hour),
    };
    section.finish();
    policy
}

/// Returns the defaults of the table, whose access table is `access` and whose table of copies is
/// `always_bcc`.
pub(super) fn defaults(access: TableFile, always_bcc: TableFile) -> Policy {
    Policy {
        access,
        always_bcc,
        dnsbl: Vec::new(),
        dnsbl_threshold: 1,
        sender_lists: Vec::new(),
        greet_delay: Duration::ZERO,
        refuses_own_hello: true,
        refuses_sender_domain: true,
        spf: if HAS_MAILAUTH { Spf::Mark } else { Spf::None },
        dmarc: if HAS_MAILAUTH { Dmarc::Mark } else { Dmarc::None },
        arc_sealers: Vec::new(),
        dmarc_reports: None,
        greylist: Greylist::None,
        greylist_delay: Duration::from_secs(5 * 60),
        quarantine: Quarantine::Hold,
        messages_per_hour: 0,
        unknown_recipients_per_hour: 0,
    }
}

fn lists(section: &mut Section<'_, '_>, key: &'static str) -> Option<Vec<DnsList>> {
    let lists = section.take_all(key, |value| {
        value.as_str().and_then(DnsList::parse).ok_or_else(|| {
            "expected the zone of a list, with answers in 127.0.0.0/8 and a weight if wanted, such as \
             \"list.example\" or \"list.example=127.0.0.2..11*3\""
                .to_owned()
        })
    })?;
    if lists.len() > MAX_LISTS {
        section.error(key, &format!("expected at most {MAX_LISTS} lists"));
        return None;
    }
    Some(lists)
}

fn threshold(value: &DeValue<'_>) -> Result<i32, String> {
    values::count(WEIGHT)(value).map(|number| i32::try_from(number).unwrap_or(1))
}

fn refuses(section: &mut Section<'_, '_>, key: &'static str) -> Option<bool> {
    section.take(key, values::word(&["refuse", "accept"])).map(|word| word == "refuse")
}

/// Reads the word for a check that this build may lack. If the build lacks the check, only `none`
/// is accepted.
fn built(section: &mut Section<'_, '_>, key: &'static str, words: &'static [&'static str]) -> Option<&'static str> {
    let word = section.take(key, values::word(words))?;
    if !HAS_MAILAUTH && word != "none" {
        section.error(key, &not_built());
        return None;
    }
    Some(word)
}

fn not_built() -> String {
    "this penfold was built without mailauth; expected \"none\"".to_owned()
}

fn sealers(section: &mut Section<'_, '_>) -> Option<Vec<String>> {
    let sealers = section.take_all("arc_sealers", values::dns_name)?;
    if !HAS_ARC && !sealers.is_empty() {
        section.error("arc_sealers", "this penfold was built without the feature arc, and trusts no sealer");
        return None;
    }
    Some(sealers)
}

fn reports(section: &mut Section<'_, '_>) -> Option<Option<Address>> {
    let address = section.take("dmarc_reports", values::contact)?;
    if !HAS_MAILAUTH && address.is_some() {
        section.error("dmarc_reports", &not_built());
        return None;
    }
    Some(address)
}

fn greet_delay(value: &DeValue<'_>) -> Result<Duration, String> {
    if value.as_str().is_some_and(|text| matches!(text, "0s" | "0ms")) {
        return Ok(Duration::ZERO);
    }
    values::duration(value)
        .ok()
        .filter(|delay| *delay <= MAX_GREET_DELAY)
        .ok_or_else(|| "expected a duration with a unit of at most 60s, or \"0s\"".to_owned())
}

fn greylist_delay(value: &DeValue<'_>) -> Result<Duration, String> {
    /// The maximum of `policy.greylist_delay`. Sending servers give up after some days.
    const MAX: Duration = Duration::from_secs(24 * 3600);
    values::seconds(value)
        .and_then(|delay| if delay <= MAX { Ok(delay) } else { Err("expected at most 24h".to_owned()) })
}

fn quarantine(value: &DeValue<'_>) -> Result<Quarantine, String> {
    match value.as_str() {
        Some("hold") => Ok(Quarantine::Hold),
        other => other
            .and_then(Folder::parse)
            .map(Quarantine::Folder)
            .ok_or_else(|| "expected \"hold\" or a folder of a Maildir, such as \".Junk\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_answers_and_a_weight() {
        let list = |zone: &str, answers: Option<&str>, weight| {
            let answers = answers.map(|text| Answers::parse(text).expect(text));
            Some(DnsList { zone: zone.to_owned(), answers, weight })
        };
        for (text, want) in [
            ("Zen.example", list("zen.example", None, 1)),
            ("zen.example*3", list("zen.example", None, 3)),
            ("zen.example=127.0.0.2", list("zen.example", Some("127.0.0.2"), 1)),
            ("zen.example=127.0.0.2..11*3", list("zen.example", Some("127.0.0.2..11"), 3)),
            ("allow.example=127.0.*.1*-2", list("allow.example", Some("127.0.*.1"), -2)),
            ("allow.example=127.0.0.*", list("allow.example", Some("127.0.0.*"), 1)),
            ("allow.example=127.0.0.**-1000", list("allow.example", Some("127.0.0.*"), -1000)),
            ("", None),
            ("example", None),
            ("[192.0.2.1]", None),
            ("zen.example*0", None),
            ("zen.example*1001", None),
            ("zen.example*99999999999", None),
            ("zen.example=", None),
            ("zen.example=127.0.0", None),
            ("zen.example=127.0.0.1.2", None),
            ("zen.example=127.0.0.11..2", None),
            ("zen.example=127.0.0.2..", None),
            ("zen.example=127.0.0.2-11", None),
            ("zen.example=127.0.0.+2", None),
            ("zen.example=127.0.0.256", None),
            ("zen.example=10.0.0.1", None),
            ("zen.example=*.0.0.1", list("zen.example", Some("*.0.0.1"), 1)),
        ] {
            assert_eq!(DnsList::parse(text), want, "{text}");
        }
    }

    #[test]
    fn an_answer_is_compared_octet_by_octet() {
        for (pattern, inside, outside) in [
            ("127.0.0.2", "127.0.0.2", "127.0.0.3"),
            ("127.0.0.2..11", "127.0.0.11", "127.0.0.12"),
            ("127.0.*.1", "127.0.255.1", "127.1.0.1"),
        ] {
            let answers = Answers::parse(pattern).expect(pattern);
            let contains = |text: &str| answers.contains(text.parse().expect(text));
            assert!(contains(inside) && !contains(outside), "{pattern}");
        }
    }

    #[test]
    fn the_key_of_a_customer_is_not_shown() {
        for (zone, name) in [
            ("zen.example.org", "zen.example.org"),
            ("abcdefghijklmnopqrstuvwxyz.zen.example.net", "zen.example.net"),
            ("abcdefghijklmnopqrstuvwxyz.net", "abcdefghijklmnopqrstuvwxyz.net"),
        ] {
            assert_eq!(DnsList::parse(zone).expect(zone).name(), name);
        }
    }
}
