//! Checks by DMARC whether SPF or DKIM vouches for the domain in From, and finds out what the
//! domain's owner asks for if neither does.
//!
//! The rules are those of RFC 9989, which replaced RFC 7489 and RFC 9091 in May 2026. Aggregate
//! reports follow RFC 9990. Failure reports (RFC 9991) are not sent. RFC 9989 differs from RFC
//! 7489, which opendmarc in Debian implements, mainly in these points:
//!
//! - A walk up the DNS tree finds the organizational domain. No list of public suffixes is needed.
//! - `np` is the policy for names that do not exist, `psd` marks where an organization begins, and
//!   `t=y` lowers the policy by one level. `pct`, `rf` and `ri` are ignored.
//! - A record without `p` counts as `p=none` if it asks for reports.
//!
//! [`evaluate`] gets the domains in From ([`Authors`]) and the domains for which SPF and DKIM vouch
//! ([`Identifier`]). A message passes if one of the domains for which SPF and DKIM vouch is
//! *aligned* with the domain in From: equal, or with the same organizational domain if the record
//! allows it. A failed look-up matters only if its answer could change the result. A domain that is
//! not at or below the organizational domain of the author is never looked up, and the records of
//! all authors are looked up before those of other names. So a stranger cannot suspend the policy
//! of a domain by the choice of other names.
//!
//! - `authors`: the domains of the authors, read from the field From
//! - `evaluate`: pass or fail, and the policy
//! - `record`: DMARC records, and the addresses for reports in them
//! - `reports`: aggregate reports (RFC 9990)
//! - `text`: comments, quoted strings, encoded words and domains in From
//! - `walk`: the walk up the DNS tree, and the organizational domain

mod authors;
mod evaluate;
mod record;
pub mod reports;
mod text;
mod walk;

use std::fmt;

use super::spf::{Identity, SpfResult};
use super::{dkim, spf};

pub use authors::{AuthorScan, Authors, MAX_AUTHORS};
pub use evaluate::evaluate;
pub use record::{Alignment, Psd, Record, ReportUri};
pub use walk::{Found, MAX_QUERIES, Trouble, organizational_domain, policy_record, record_names};

/// What the owner of a domain asks receivers to do with mail that fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// The owner asks for nothing in particular.
    #[default]
    None,
    /// Receivers should treat the mail as suspicious.
    Quarantine,
    /// Receivers should reject the mail.
    Reject,
}

impl Policy {
    /// Returns the word for the policy in a record.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::None, Self::Quarantine, Self::Reject].into_iter().find(|policy| word.eq_ignore_ascii_case(policy.name()))
    }

    /// Returns the policy that applies in place of this one while the owner is testing (`t=y`).
    fn lowered(self) -> Self {
        match self {
            Self::Reject => Self::Quarantine,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The result for a message, in the words of RFC 8601.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An aligned domain has passed SPF or DKIM.
    Pass,
    /// No record applies, or From has no domain.
    None,
    /// The record that applies cannot be used, or From may have more domains than were checked.
    PermError,
    /// The DNS did not answer in time.
    TempError,
    /// A record applies, and no aligned domain has passed SPF or DKIM.
    Fail,
}

impl Outcome {
    /// Returns the keyword for the result.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::None => "none",
            Self::PermError => "permerror",
            Self::TempError => "temperror",
            Self::Fail => "fail",
        }
    }
}

/// The mechanism that vouches for a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// SPF vouches for the domain in MAIL, or for the domain in HELO if the reverse-path is null.
    /// If the message has a sender, a pass for the HELO domain does not count (RFC 9989 3.2.4).
    Spf,
    /// A DKIM signature vouches for the domain in its `d=`.
    Dkim,
}

/// What a mechanism says about a domain. Results of other kinds do not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouches {
    /// The mechanism has passed.
    Yes,
    /// The mechanism could not find out, because the DNS did not answer.
    Unknown,
}

/// A domain that a mechanism vouches for, or may vouch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identifier<'a> {
    /// The domain for which the mechanism vouches.
    pub domain: &'a str,
    /// The mechanism that vouches.
    pub mechanism: Mechanism,
    /// What the mechanism says about the domain.
    pub vouches: Vouches,
}

/// Returns the SPF result that counts for DMARC: the one for the sender, or the one for HELO if the
/// reverse-path is null. Returns `None` if SPF has no result for the name that counts.
pub fn sender_check(all: &[spf::Checked], has_sender: bool) -> Option<&spf::Checked> {
    let identity = if has_sender { Identity::MailFrom } else { Identity::Hello };
    all.iter().find(|checked| checked.identity == identity)
}

/// Returns the domains for which SPF and DKIM vouch, or may vouch. `spf` is the result that
/// [`sender_check`] returns.
pub fn identifiers<'a>(spf: Option<&'a spf::Checked>, dkim: &'a [dkim::Checked]) -> Vec<Identifier<'a>> {
    let by_spf = spf.and_then(|checked| {
        let vouches = match checked.result {
            SpfResult::Pass => Vouches::Yes,
            SpfResult::TempError => Vouches::Unknown,
            _ => return None,
        };
        Some(Identifier { domain: &checked.domain, mechanism: Mechanism::Spf, vouches })
    });
    let by_dkim = dkim.iter().filter_map(|checked| {
        let vouches = match checked.status {
            dkim::Status::Pass => Vouches::Yes,
            dkim::Status::TempError => Vouches::Unknown,
            _ => return None,
        };
        Some(Identifier { domain: &checked.domain, mechanism: Mechanism::Dkim, vouches })
    });
    by_spf.into_iter().chain(by_dkim).collect()
}

/// The result for a message, with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The DMARC result.
    pub outcome: Outcome,
    /// The policy that the owner of the domain asks for. It is [`Policy::None`] unless the outcome
    /// is [`Outcome::Fail`], or [`Outcome::TempError`] with a record.
    pub policy: Policy,
    /// Whether `t=y` has lowered the policy.
    pub is_testing: bool,
    /// Whether From is missing, has no domain, or may have more domains than were checked.
    pub is_unclear: bool,
    /// The domain in From to which the result applies; empty if there is none.
    pub domain: Box<str>,
    /// The record that applies, and the domain at which it was found; `None` if no record applies.
    pub found: Option<Found>,
    /// Whether SPF has passed for an aligned domain.
    pub spf: bool,
    /// Whether a DKIM signature of an aligned domain has passed.
    pub dkim: bool,
    /// The reason for the outcome, or the reason why From is unclear. If From is clear, the text is
    /// empty for pass and fail.
    pub reason: &'static str,
}

impl Checked {
    /// Returns whether a failed look-up leaves open what the owner of the domain asks for.
    pub fn is_undecided(&self) -> bool {
        self.outcome == Outcome::TempError && (self.found.is_none() || self.policy != Policy::None)
    }

    /// Returns the text in parentheses after the result in Authentication-Results: the policy that
    /// applies, or the reason.
    pub fn comment(&self) -> String {
        match (&self.found, self.outcome) {
            (Some(found), Outcome::Pass) => format!("p={}", found.record.policy.unwrap_or_default()),
            (Some(_), Outcome::Fail) if self.is_testing => format!("policy {} while its owner is testing", self.policy),
            (Some(_), Outcome::Fail) => format!("policy {}", self.policy),
            _ => self.reason.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
