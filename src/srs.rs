//! Rewrites the sender of a forwarded message, and takes the original sender out of a rewritten
//! address again (the Sender Rewriting Scheme).
//!
//! The next host compares the sender's domain with the host that forwards the message (SPF), so the
//! sender gets a domain of the forwarding host. The local part contains the original sender, so
//! that a bounce can be sent back without any state:
//!
//! ```text
//! SRS0=HASH=TT=domain=local@forwarder    for local@domain
//! SRS1=HASH=first==H=TT=domain=local@forwarder    for SRS0=H=TT=domain=local@first
//! ```
//!
//! `TT` is the day on which the address was made, in base 32, and `HASH` the beginning of a MAC of
//! the rest. A rewritten sender that is forwarded once more becomes an SRS1 address, and that
//! address does not grow at further hosts. `H`, and everything after it, only means something to
//! the first forwarder.
//!
//! The same secrets make marks of copies, which only say that this host has made them.
//!
//! Only this host, or hosts with the same secret, can make an address that [`reverse`] accepts. So
//! a stranger cannot have mail relayed to an address of the stranger's choice. The MAC covers the
//! text in lower case, and is compared without regard to case, because some hosts change the case
//! of a local part. It is written in base 32, because some hosts refuse `/` and `+` in a sender.

use data_encoding::BASE32_NOPAD;
use ring::hmac;

use crate::address::{Address, parse_domain};

/// The number of characters of a MAC: each stands for 5 bits.
const HASH: usize = 6;
/// The number of days for which an SRS0 address is valid.
const VALID_DAYS: u64 = 21;
/// Days are counted modulo this number, which two characters can express.
const DAYS: u64 = 1024;
const DAY: u64 = 86_400;
/// The maximum length of a rewritten address in bytes: that of a path without angle brackets
/// (RFC 5321 4.5.3.1.3).
const MAX_REWRITTEN: usize = 254;

/// A secret that authenticates rewritten addresses.
#[derive(Debug, Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// Makes a secret of any bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// A secret for rewriting that is derived from a key with other uses.
    #[must_use]
    pub fn derived(key: &[u8]) -> Self {
        let master = hmac::Key::new(hmac::HMAC_SHA256, key);
        Self::new(hmac::sign(&master, b"sender rewriting").as_ref())
    }

    /// The MAC of several parts. No part may contain a NUL.
    fn hash(&self, parts: &[&str]) -> String {
        let text = parts.join("\0").to_ascii_lowercase();
        let mut hash = BASE32_NOPAD.encode(hmac::sign(&self.0, text.as_bytes()).as_ref());
        hash.truncate(HASH);
        hash
    }

    /// Whether a MAC is that of these parts. The time that this takes does not depend on the MAC.
    fn has_made(&self, hash: &str, parts: &[&str]) -> bool {
        let made = self.hash(parts);
        hash.len() == made.len()
            && made.bytes().zip(hash.bytes()).fold(0, |differences, (a, b)| differences | (a ^ b.to_ascii_uppercase()))
                == 0
    }
}

/// Whether a local part has the form of a rewritten one.
#[must_use]
pub fn is_rewritten(local: &str) -> bool {
    tagged(local, "SRS0").or_else(|| tagged(local, "SRS1")).is_some()
}

/// The text after a tag, with the separator at its front; `None` if there is another tag.
fn tagged<'a>(local: &'a str, tag: &str) -> Option<&'a str> {
    let (front, rest) = local.split_at_checked(tag.len())?;
    (front.eq_ignore_ascii_case(tag) && rest.starts_with(['=', '+', '-'])).then_some(rest)
}

/// Rewrites a sender into an address at `domain`, which must be in canonical form. `now` is in
/// seconds since 1970. Returns `None` if the sender cannot be rewritten: it has no domain, has an
/// address literal instead, is not ASCII, or is too long.
#[must_use]
pub fn forward(secret: &Secret, sender: &Address, domain: &str, now: u64) -> Option<Address> {
    let (local, sender_domain) = (sender.local(), sender.domain());
    if sender_domain.is_empty() || sender.literal().is_some() || !sender.is_ascii() {
        return None;
    }
    let local = if let Some((first, rest)) = forwarded_before(local, sender_domain) {
        format!("SRS1={}={first}={rest}", secret.hash(&["SRS1", first, rest]))
    } else {
        let day = day(now);
        format!("SRS0={}={day}={sender_domain}={local}", secret.hash(&["SRS0", &day, sender_domain, local]))
    };
    if local.len() + domain.len() >= MAX_REWRITTEN {
        return None;
    }
    Address::new(&local, domain).ok()
}

/// If a sender was rewritten before: the first forwarder, and the text after `SRS0` in the address
/// that it has made.
fn forwarded_before<'a>(local: &'a str, domain: &'a str) -> Option<(&'a str, &'a str)> {
    if let Some(rest) = tagged(local, "SRS0") {
        return Some((domain, rest));
    }
    let (_, first, rest) = three(tagged(local, "SRS1")?)?;
    is_at(rest, first).then_some((first, rest))
}

/// Whether a text can follow `SRS0` in an address at `domain`.
fn is_at(rest: &str, domain: &str) -> bool {
    rest.starts_with(['=', '+', '-']) && parse_domain(domain).is_ok_and(|parsed| !parsed.starts_with('['))
}

/// Splits a text after a tag: a separator, two parts that end in `=`, and the rest.
fn three(text: &str) -> Option<(&str, &str, &str)> {
    let (hash, rest) = text.get(1..)?.split_once('=')?;
    let (second, rest) = rest.split_once('=')?;
    Some((hash, second, rest))
}

/// Returns the address to which a bounce for a rewritten address goes: the original sender or, for
/// an SRS1 address, the address at the first forwarder. The domain of the rewritten address is not
/// looked at. `now` is in seconds since 1970. Returns `None` if the local part is not that of a
/// rewritten address, if no secret has made its MAC, or if it is too old or from the future.
#[must_use]
pub fn reverse(secrets: &[Secret], local: &str, now: u64) -> Option<Address> {
    let is_made = |hash: &str, parts: &[&str]| {
        // All secrets are tried, so that the time does not show which of them fits.
        secrets.iter().fold(false, |is_made, secret| is_made | secret.has_made(hash, parts))
    };
    if let Some((hash, first, rest)) = tagged(local, "SRS1").and_then(three) {
        let is_valid = is_at(rest, first) && is_made(hash, &["SRS1", first, rest]);
        return Address::new(&format!("SRS0{rest}"), first).ok().filter(|_| is_valid);
    }
    let (hash, day, rest) = tagged(local, "SRS0").and_then(three)?;
    let (domain, original) = rest.split_once('=')?;
    let is_valid = is_made(hash, &["SRS0", day, domain, original]) && is_recent(day, now);
    Address::new(original, domain).ok().filter(|_| is_valid)
}

/// Makes the mark of a copy of the message with this Message-ID. `now` is in seconds since 1970.
#[must_use]
pub fn mark(secret: &Secret, message_id: &str, now: u64) -> String {
    let day = day(now);
    format!("{}={day}", secret.hash(&["copy", &day, message_id]))
}

/// Whether a text is such a mark for this Message-ID: made with one of the secrets, and no more than
/// three weeks ago.
#[must_use]
pub fn is_mark(secrets: &[Secret], text: &str, message_id: &str, now: u64) -> bool {
    text.split_once('=').is_some_and(|(hash, day)| {
        is_recent(day, now) && secrets.iter().any(|secret| secret.has_made(hash, &["copy", day, message_id]))
    })
}

/// The day of a time, in two characters.
fn day(now: u64) -> String {
    let day = now / DAY % DAYS;
    [day >> 5, day & 31].iter().map(|&n| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[n as usize])).collect()
}

/// Whether a day is not longer ago than [`VALID_DAYS`]. The clock of the host that made the address
/// may be a day ahead.
fn is_recent(text: &str, now: u64) -> bool {
    (0..=VALID_DAYS + 1).any(|ago| {
        let at = (now + DAY).saturating_sub(ago * DAY);
        day(at).eq_ignore_ascii_case(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_255_200;

    fn address(text: &str) -> Address {
        Address::parse(text).expect(text)
    }

    fn secret() -> Secret {
        Secret::new(b"tattoo you")
    }

    fn forwarded(sender: &str, by: &str) -> String {
        forward(&secret(), &address(sender), by, NOW).map_or_else(String::new, |address| address.to_string())
    }

    fn reversed(local: &str) -> Option<String> {
        reverse(&[secret()], local, NOW).map(|address| address.to_string())
    }

    #[test]
    fn a_sender_is_rewritten_and_found_again() {
        for sender in [
            "jon@example.com",
            "Jon.Smith+x@example.com",
            "a=b==c=@example.com",
            "\"j doe\"@example.com",
            "\"a@b\\\"c\"@example.com",
            "srs0@example.com",
            "SRS0x=y@example.com",
            "SRS1=broken@example.com",
            "\"srs1=a=not,host==b\"@example.com",
        ] {
            let text = forwarded(sender, "fwd.test");
            let rewritten = address(&text);
            assert!(is_rewritten(rewritten.local()) && rewritten.domain() == "fwd.test", "{text}");
            assert_eq!(reversed(rewritten.local()).as_deref(), Some(sender), "{text}");
        }
        let text = forwarded("Jon@example.com", "fwd.test");
        let (hash, rest) = text.strip_prefix("SRS0=").and_then(|text| text.split_once('=')).expect("a hash");
        assert!(hash.len() == HASH && hash.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()), "{text}");
        assert_eq!(rest, format!("{}=example.com=Jon@fwd.test", day(NOW)));
    }

    #[test]
    fn an_address_does_not_grow_at_further_hosts() {
        let first = forwarded("jon@example.com", "one.test");
        let second = forwarded(&first, "two.test");
        let third = forwarded(&second, "three.test");
        assert!(second.starts_with("SRS1=") && third.starts_with("SRS1="), "{second} {third}");
        assert_eq!(second.len() + 2, third.len());
        // A bounce of the third host goes to the first, which knows the sender.
        assert_eq!(reversed(address(&third).local()).as_ref(), Some(&first));
        assert_eq!(reversed(address(&first).local()).as_deref(), Some("jon@example.com"));
        // Other forwarders use other separators and MACs.
        for first in ["SRS0+aB/4=7X=example.com=jon@one.test", "srs0-x=y@one.test", "SRS0=@one.test"] {
            let second = address(&forwarded(first, "two.test"));
            let back = first.replacen("srs0", "SRS0", 1);
            assert_eq!(reversed(second.local()), Some(back), "{second}");
        }
    }

    #[test]
    fn what_cannot_be_rewritten_stays_as_it_is() {
        let long = format!("{}@example.com", "x".repeat(240));
        for sender in ["jon", "jon@[192.0.2.1]", &long] {
            assert_eq!(forwarded(sender, "fwd.test"), "", "{sender}");
        }
        let umlaut = Address::parse("j\u{f6}n@example.com").expect("an address");
        assert_eq!(forward(&secret(), &umlaut, "fwd.test", NOW), None);
    }

    #[test]
    fn a_mark_is_for_one_message_and_three_weeks() {
        let mark = mark(&secret(), "<a@b.test>", NOW);
        let is = |text: &str, id: &str, now: u64| is_mark(&[Secret::new(b"other"), secret()], text, id, now);
        assert!(is(&mark, "<a@b.test>", NOW) && is(&mark.to_lowercase(), "<A@B.test>", NOW), "{mark}");
        assert!(is(&mark, "<a@b.test>", NOW + 21 * DAY) && !is(&mark, "<a@b.test>", NOW + 23 * DAY), "{mark}");
        assert!(!is(&mark, "<a@c.test>", NOW) && !is_mark(&[], &mark, "<a@b.test>", NOW));
        for text in ["", "=", &mark[1..], &format!("{mark}A"), &mark.replace('=', ""), &format!(" {mark}")] {
            assert!(!is(text, "<a@b.test>", NOW), "{text}");
        }
    }

    #[test]
    fn a_changed_case_is_tolerated_and_any_other_change_is_not() {
        for sender in ["Jon@Example.com", "SRS0=AbCd=xY=example.com=jon@one.test"] {
            let rewritten = address(&forwarded(sender, "fwd.test")).local().to_owned();
            for changed in [rewritten.to_lowercase(), rewritten.to_uppercase()] {
                let back = reversed(&changed).expect("the case does not count");
                assert!(back.eq_ignore_ascii_case(sender), "{back}");
            }
            for at in 0..rewritten.len() {
                for other in "=A2z.@\0 -".chars() {
                    let mut changed = rewritten.clone();
                    changed.replace_range(at..=at, &other.to_string());
                    let is_same = changed.eq_ignore_ascii_case(&rewritten) || at == 4 && "=+-".contains(other);
                    assert!(is_same || reversed(&changed).is_none(), "{changed:?}");
                }
            }
            // A border between two parts cannot be moved.
            let moved =
                rewritten.replace("example.com=jon", "example.co=mjon").replace("example.com=Jon", "example.co=mJon");
            assert!(moved != rewritten && reversed(&moved).is_none(), "{moved}");
        }
        for local in [
            "",
            "SRS0",
            "SRS0=",
            "SRS0=a",
            "SRS0=a=b",
            "SRS0=a=b=c",
            "SRS1=a=b",
            "SRS1==",
            "jon",
            "SRS1====",
            "S\u{f6}",
        ] {
            assert!(reversed(local).is_none(), "{local}");
        }
    }

    #[test]
    fn an_address_expires_after_three_weeks() {
        let rewritten = forward(&secret(), &address("jon@example.com"), "fwd.test", NOW).expect("a sender");
        for (days, expected) in
            [(-2, false), (-1, true), (0, true), (21, true), (22, false), (1022, false), (1023, true), (1024, true)]
        {
            let then = NOW.saturating_add_signed(days * DAY as i64);
            let result = reverse(&[secret()], rewritten.local(), then);
            assert_eq!(result.is_some(), expected, "{days}");
        }
        // A clock that was never set may show the time 0.
        assert!(is_recent(&day(0), 0) && !is_recent(&day(40 * DAY), 0) && !is_recent("", 0) && !is_recent("A!", 0));
    }

    #[test]
    fn every_secret_verifies_and_no_other_does() {
        let old = Secret::derived(&[7; 32]);
        let rewritten = forward(&old, &address("jon@example.com"), "fwd.test", NOW).expect("a sender");
        assert!(reverse(&[secret(), old], rewritten.local(), NOW).is_some());
        assert_eq!(reverse(&[secret(), Secret::new(&[7; 32])], rewritten.local(), NOW), None);
        assert_eq!(reverse(&[], rewritten.local(), NOW), None);
    }
}
