//! Parses DMARC records (RFC 9989 4.7 and 4.8).
//!
//! A record begins with `v=DMARC1`. Unknown tags and malformed values are ignored. If a tag occurs
//! twice, the first one counts. Upper and lower case are the same in names and values, except in
//! `DMARC1`.

use super::Policy;
use crate::address::Address;
use crate::aggregate::uri::{self, is_mailto};

/// The maximum number of addresses for reports that are read from a tag.
pub const MAX_URIS: usize = 5;
/// The maximum length of a record, in octets. A longer text does not count as a DMARC record.
const MAX_RECORD: usize = 8192;

/// A DMARC record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `p`: the policy for the domain itself; `None` if the tag is missing or malformed.
    pub policy: Option<Policy>,
    /// `sp`: the policy for names below the domain.
    pub subdomains: Option<Policy>,
    /// `np`: the policy for names below the domain that do not exist.
    pub nonexistent: Option<Policy>,
    /// Whether `sp` or `np` is present and malformed.
    pub has_bad_policy: bool,
    /// `adkim`: how similar the domain of a signature must be to the domain in From.
    pub dkim: Alignment,
    /// `aspf`: how similar the domain of the envelope sender must be to the domain in From.
    pub spf: Alignment,
    /// `psd`: whether other organizations register names below the domain.
    pub psd: Psd,
    /// `t`: whether the owner is testing the policy.
    pub is_testing: bool,
    /// `rua`: the addresses for aggregate reports.
    pub rua: Vec<ReportUri>,
    /// Whether `rua` has a valid URI of any scheme.
    pub has_rua: bool,
    /// `fo`: which failure reports are asked for; `0` by default.
    pub fo: Box<str>,
}

/// How similar two domains must be to be aligned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Alignment {
    /// They must have the same organizational domain.
    #[default]
    Relaxed,
    /// They must be identical.
    Strict,
}

/// Whether other organizations register names below a domain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Psd {
    /// The record does not say.
    #[default]
    Unknown,
    /// The domain is a public suffix.
    Yes,
    /// The domain is an organizational domain.
    No,
}

/// An address for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportUri {
    /// The address to which reports are sent.
    pub address: Address,
    /// The maximum size of a report in octets, from a suffix such as `!10m`; `None` for any size.
    /// The suffix is obsolete, but still respected.
    pub max_size: Option<u64>,
}

impl Record {
    /// Parses a record. Returns `None` if the text is not a DMARC record of version 1.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.get(..text.len()).filter(|text| text.len() <= MAX_RECORD)?;
        let mut tags = text.split(|&b| b == b';').map(tag);
        let (name, version) = tags.next()??;
        if !name.eq_ignore_ascii_case("v") || version != "DMARC1" {
            return None;
        }
        let mut record = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in tags.flatten() {
            let name = name.to_ascii_lowercase();
            if !seen.contains(&name) {
                record.take(&name, value);
                // Only names of known tags are remembered, so that the list of tags that have
                // occurred stays short.
                if KNOWN.contains(&name.as_str()) {
                    seen.push(name);
                }
            }
        }
        Some(record)
    }

    fn take(&mut self, name: &str, value: &str) {
        let alignment = |value: &str| match value {
            "s" | "S" => Alignment::Strict,
            _ => Alignment::Relaxed,
        };
        match name {
            "p" => self.policy = Policy::parse(value),
            "sp" => {
                self.subdomains = Policy::parse(value);
                self.has_bad_policy |= self.subdomains.is_none();
            }
            "np" => {
                self.nonexistent = Policy::parse(value);
                self.has_bad_policy |= self.nonexistent.is_none();
            }
            "adkim" => self.dkim = alignment(value),
            "aspf" => self.spf = alignment(value),
            "psd" => {
                self.psd = match value {
                    "y" | "Y" => Psd::Yes,
                    "n" | "N" => Psd::No,
                    _ => Psd::Unknown,
                }
            }
            "t" => self.is_testing = value.eq_ignore_ascii_case("y"),
            "rua" => (self.rua, self.has_rua) = uris(value),
            "fo" if is_fo(value) => self.fo = value.to_ascii_lowercase().into(),
            _ => {}
        }
    }

    /// Returns the record as it applies to messages (RFC 9989 4.10.1). If `p` is missing or
    /// malformed, or if `sp` or `np` is malformed, a record that asks for reports applies with all
    /// policies `none`, and any other record does not apply. Returns `None` if the record does not
    /// apply.
    pub fn usable(self) -> Option<Self> {
        if self.policy.is_some() && !self.has_bad_policy {
            return Some(self);
        }
        let none = Self { policy: Some(Policy::None), subdomains: None, nonexistent: None, ..self };
        none.has_rua.then_some(none)
    }
}

/// The names of the tags that are read.
const KNOWN: &[&str] = &["v", "p", "sp", "np", "adkim", "aspf", "psd", "t", "rua", "ruf", "fo"];

impl Default for Record {
    fn default() -> Self {
        Self {
            policy: None,
            subdomains: None,
            nonexistent: None,
            has_bad_policy: false,
            dkim: Alignment::Relaxed,
            spf: Alignment::Relaxed,
            psd: Psd::Unknown,
            is_testing: false,
            rua: Vec::new(),
            has_rua: false,
            fo: "0".into(),
        }
    }
}

/// Returns the name and the value of a tag, without blanks around them. Returns `None` if the text
/// is not a tag.
fn tag(text: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim_ascii(), value.trim_ascii());
    let is_tag = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphabetic())
        && !value.is_empty()
        && value.bytes().all(|b| (b' '..=b'~').contains(&b));
    is_tag.then_some((name, value))
}

/// Returns whether a value is valid for `fo`: `0`, `1`, `d` and `s` with colons between them, each
/// at most once, but not both `0` and `1`.
fn is_fo(value: &str) -> bool {
    let parts: Vec<String> = value.split(':').map(|part| part.trim_ascii().to_ascii_lowercase()).collect();
    let is_known = |part: &String| ["0", "1", "d", "s"].contains(&part.as_str());
    let is_unique = |at: usize, part: &String| !parts[..at].contains(part);
    parts.iter().enumerate().all(|(at, part)| is_known(part) && is_unique(at, part))
        && !(parts.iter().any(|p| p == "0") && parts.iter().any(|p| p == "1"))
}

/// Returns the addresses in a list of URIs, and whether the list has a valid URI of any scheme. At
/// most [`MAX_URIS`] addresses are returned. Malformed URIs are ignored.
fn uris(value: &str) -> (Vec<ReportUri>, bool) {
    let parts = || value.split(',').map(str::trim_ascii);
    let has_any = parts().any(|uri| has_scheme(uri) && (mailto(uri).is_some() || !is_mailto(uri)));
    (parts().filter_map(mailto).take(MAX_URIS).collect(), has_any)
}

/// Returns whether a text has the form of a URI: a scheme, a colon and something after it (RFC 3986
/// 3.1).
fn has_scheme(uri: &str) -> bool {
    uri.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
            && !rest.is_empty()
            && rest.bytes().all(|b| b.is_ascii_graphic())
    })
}

/// Parses a `mailto:` URI with one address (RFC 6068), and perhaps `!` and a size after it. Returns
/// `None` if the URI has another form.
fn mailto(uri: &str) -> Option<ReportUri> {
    let (rest, max_size) = match uri.rsplit_once('!').filter(|_| is_mailto(uri)) {
        Some((rest, limit)) => (rest, Some(size(limit)?)),
        None => (uri, None),
    };
    Some(ReportUri { address: uri::mailto(rest)?, max_size })
}

/// Parses a size, such as `10m`: digits, and perhaps a unit, which is a power of 1024. Returns the
/// size in octets.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    // If the number is too large for its type, the size is practically unlimited.
    is_number.then(|| digits.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(unit))
}
