//! Collects the facts about a message that a DMARC report shows, and reads and writes them for the
//! state directory.
//!
//! A row is one line of text with `|` between its parts. Names come from strangers. So characters
//! that are unusual in names become `?`, and long names are cut. A row that is read back may be any
//! text, because the file may be damaged.

use std::net::IpAddr;

use super::super::{Checked, Outcome, Policy};
use crate::aggregate::{Bounds, Facts};
use crate::mailauth::is_at_or_below;
use crate::mailauth::{dkim, spf};

/// The maximum number of signatures in a row.
const MAX_SIGNATURES: usize = 8;
/// The maximum length of a name, in octets.
const MAX_NAME: usize = 255;

/// What was done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It was accepted like any other message.
    Accepted,
    /// It was accepted, because a forwarder that this host trusts vouches for it.
    Forwarded,
    /// It was put into quarantine.
    Quarantined,
    /// It was rejected.
    Rejected,
}

/// A signature, and its result in the words of RFC 8601.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signature {
    /// The domain, `d=`.
    pub domain: String,
    /// The selector, `s=`.
    pub selector: String,
    /// The result of the verification, in the words of RFC 8601.
    pub result: String,
}

/// The facts about a message that a report shows. Messages with the same facts share a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    /// The address of the client.
    pub source: IpAddr,
    /// What was done with the message: `none`, `pass`, `quarantine` or `reject`.
    pub disposition: String,
    /// Whether DKIM has passed for an aligned domain.
    pub dkim: bool,
    /// Whether SPF has passed for an aligned domain.
    pub spf: bool,
    /// The reason why the disposition differs from the one that the domain asks for; empty if they
    /// are the same.
    pub reason: String,
    /// The domain in From.
    pub header_from: String,
    /// The domain of the envelope sender; empty for the null sender.
    pub envelope_from: String,
    /// The domain that SPF has checked, and the result; both are empty if SPF was not checked.
    pub spf_result: (String, String),
    /// The signatures, the most important ones first.
    pub signatures: Vec<Signature>,
}

impl Row {
    /// Returns the row for a message, as [`Row::new`] does, from the results of the SPF and DKIM
    /// checks. `envelope_from` is the domain of the envelope sender; empty if there is none.
    pub fn of(
        checked: &Checked,
        source: IpAddr,
        action: Action,
        envelope_from: &str,
        spf: Option<&spf::Checked>,
        dkim: &[dkim::Checked],
    ) -> Option<Self> {
        let result = spf.map(|checked| checked.result.to_string()).unwrap_or_default();
        let spf = (spf.map_or("", |checked| &checked.domain), &*result);
        let signature = |checked: &dkim::Checked| Signature {
            domain: checked.domain.clone(),
            selector: checked.selector.clone(),
            result: checked.status.word().to_owned(),
        };
        Self::new(checked, source, action, envelope_from, spf, dkim.iter().map(signature).collect())
    }

    /// Returns the row for a message. Returns `None` if the DMARC result is neither pass nor fail,
    /// or if the domain asks for no reports.
    pub fn new(
        checked: &Checked,
        source: IpAddr,
        action: Action,
        envelope_from: &str,
        spf_result: (&str, &str),
        mut signatures: Vec<Signature>,
    ) -> Option<Self> {
        let found = checked.found.as_ref().filter(|found| !found.record.rua.is_empty())?;
        let (disposition, reason) = disposition(checked, action)?;
        let author = &*checked.domain;
        // Signatures that pass come first, and among them those closest to the author's domain (RFC
        // 9990 3.1.3).
        signatures.sort_by_key(|signature| match &*signature.result {
            "pass" if signature.domain == author => 0,
            "pass" if is_at_or_below(&signature.domain, &found.domain) => 1,
            "pass" => 2,
            _ => 3,
        });
        signatures.truncate(MAX_SIGNATURES);
        for signature in &mut signatures {
            signature.domain = clean(&signature.domain);
            signature.selector = clean(&signature.selector);
            signature.result = clean(&signature.result);
        }
        Some(Self {
            source: source.to_canonical(),
            disposition: disposition.to_owned(),
            dkim: checked.dkim,
            spf: checked.spf,
            reason: reason.to_owned(),
            header_from: clean(author),
            envelope_from: clean(envelope_from),
            spf_result: (clean(spf_result.0), clean(spf_result.1)),
            signatures,
        })
    }
}

/// The two files of the journal have room for about 60,000 rows.
impl Facts for Row {
    const BOUNDS: Bounds = Bounds {
        name: "dmarc",
        max_size: 8 << 20,
        max_wait: 30,
        max_pending: 200,
        domain_rows: usize::MAX,
        domain_bytes: usize::MAX,
        report_rows: 1000,
    };

    fn to_text(&self) -> String {
        let Self { source, disposition, reason, header_from, envelope_from, spf_result: (domain, result), .. } = self;
        let (dkim, spf) = (u8::from(self.dkim), u8::from(self.spf));
        let mut text =
            format!("{source}|{disposition}|{dkim}{spf}|{reason}|{header_from}|{envelope_from}|{domain}|{result}");
        for Signature { domain, selector, result } in &self.signatures {
            text += &format!("|{domain}|{selector}|{result}");
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('|').collect();
        let ([source, disposition, aligned, reason, header_from, envelope_from, domain, result], rest) =
            parts.split_first_chunk::<8>()?;
        if !rest.len().is_multiple_of(3) || !parts.iter().all(|part| clean(part) == **part) {
            return None;
        }
        let (dkim, spf) = match *aligned {
            "00" => (false, false),
            "01" => (false, true),
            "10" => (true, false),
            "11" => (true, true),
            _ => return None,
        };
        let is_word = DISPOSITIONS.contains(disposition) && REASONS.contains(reason);
        let signature = |part: &[&str]| match part {
            [domain, selector, result] => Some(Signature {
                domain: (*domain).to_owned(),
                selector: (*selector).to_owned(),
                result: (*result).to_owned(),
            }),
            _ => None,
        };
        let row = Self {
            source: source.parse().ok()?,
            disposition: (*disposition).to_owned(),
            dkim,
            spf,
            reason: (*reason).to_owned(),
            header_from: (*header_from).to_owned(),
            envelope_from: (*envelope_from).to_owned(),
            spf_result: ((*domain).to_owned(), (*result).to_owned()),
            signatures: rest.chunks(3).filter_map(signature).collect(),
        };
        (is_word && row.to_text() == text).then_some(row)
    }
}

const DISPOSITIONS: [&str; 4] = ["none", "pass", "quarantine", "reject"];
const REASONS: [&str; 4] = ["", "policy_test_mode", "local_policy", "trusted_forwarder"];

/// Returns the disposition, and the reason why it is not the one that the domain asks for. The
/// reason is empty if the domain asks for this disposition. Returns `None` if the message is not
/// reported.
fn disposition(checked: &Checked, action: Action) -> Option<(&'static str, &'static str)> {
    let record = &checked.found.as_ref()?.record;
    let done = match action {
        Action::Accepted | Action::Forwarded => Policy::None,
        Action::Quarantined => Policy::Quarantine,
        Action::Rejected => Policy::Reject,
    };
    match checked.outcome {
        Outcome::Pass if record.policy.unwrap_or_default() > Policy::None => Some(("pass", "")),
        Outcome::Pass => Some(("none", "")),
        Outcome::Fail if action == Action::Forwarded => Some((done.name(), "trusted_forwarder")),
        Outcome::Fail if done == checked.policy && checked.is_testing => Some((done.name(), "policy_test_mode")),
        Outcome::Fail if done == checked.policy => Some((done.name(), "")),
        Outcome::Fail => Some((done.name(), "local_policy")),
        _ => None,
    }
}

/// Returns a name with `?` in place of unusual characters, so that it cannot contain the separator
/// `|`.
fn clean(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-._:".contains(c) { c } else { '?' };
    name.chars().take(MAX_NAME).map(|c| if c == '?' { c } else { keep(c) }).collect()
}
