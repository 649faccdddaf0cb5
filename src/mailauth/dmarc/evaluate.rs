//! Decides whether a message passes DMARC, and which policy applies to a message that fails (RFC
//! 9989 5.3).

use std::cmp::Reverse;

use super::authors::Authors;
use super::record::{Alignment, Record};
use super::walk::{Found, Records, Trouble, organizational};
use super::{Checked, Identifier, Mechanism, Outcome, Policy, Vouches};
use crate::dns::lookup::Lookup;
use crate::mailauth::is_at_or_below;

/// The maximum number of look-ups of records for one message. It is enough for the walks up the DNS
/// tree from all authors and some other names, but a hostile message could ask for more.
const MAX_LOOKUPS: usize = 60;

/// Checks whether SPF or DKIM vouches for the domains in the From field of a message. `identifiers`
/// are all domains, in From or not, for which SPF and DKIM vouch.
///
/// If From has several domains, each is checked, and the result that is worst for the message
/// applies.
pub fn evaluate(lookup: &dyn Lookup, authors: &Authors, identifiers: &[Identifier<'_>]) -> Checked {
    let records = Records::new(lookup, MAX_LOOKUPS);
    // The records and policies of all authors come first, so that the names in signatures cannot
    // use up the look-ups for the authors.
    let begun: Vec<_> = authors.domains.iter().map(|domain| begin(&records, domain)).collect();
    let checked = begun.into_iter().map(|checked| check(&records, checked, identifiers));
    let worst = checked.min_by_key(|checked| Reverse(severity(checked)));
    // The From of a bounce may have no domain, as in `MAILER-DAEMON`. Without an `@`, mail programs
    // show no domain either.
    let is_hidden = authors.domains.is_empty() && (authors.fields == 0 || authors.has_at);
    let is_unclear = authors.has_more || is_hidden;
    match worst {
        None if authors.has_more => Checked { is_unclear, ..of("", Outcome::PermError, authors.reason) },
        None if authors.fields == 0 => Checked { is_unclear, ..of("", Outcome::None, "there is no From") },
        None => Checked { is_unclear, ..of("", Outcome::None, "From has no domain") },
        Some(worst) if authors.has_more && worst.outcome != Outcome::Fail => {
            Checked { is_unclear, ..of(&worst.domain, Outcome::PermError, authors.reason) }
        }
        Some(worst) if authors.has_more => Checked { is_unclear, reason: authors.reason, ..worst },
        Some(worst) => worst,
    }
}

/// Returns a result without a record.
fn of(domain: &str, outcome: Outcome, reason: &'static str) -> Checked {
    Checked {
        outcome,
        policy: Policy::None,
        is_testing: false,
        is_unclear: false,
        domain: domain.into(),
        found: None,
        spf: false,
        dkim: false,
        reason,
    }
}

/// Returns a value by which results are ordered. The first part says what the policy of the domain
/// does to the message, from nothing to rejection. The second part is the outcome, from pass to
/// fail.
fn severity(checked: &Checked) -> (u8, u8) {
    let rank = match checked.outcome {
        Outcome::Fail => 4,
        Outcome::TempError => 3,
        Outcome::PermError => 2,
        Outcome::None => 1,
        Outcome::Pass => 0,
    };
    let harm = match (checked.outcome, checked.policy) {
        (Outcome::Fail, Policy::Reject) => 3,
        _ if checked.is_undecided() => 2,
        (Outcome::Fail, Policy::Quarantine) => 1,
        _ => 0,
    };
    (harm, rank)
}

/// Looks up the record and the policy that apply to a domain in From. If there is a record, the
/// outcome is fail until something is found that vouches for the domain.
fn begin(records: &Records<'_>, domain: &str) -> Checked {
    if domain.starts_with('[') {
        return of(domain, Outcome::None, "From has an address literal");
    }
    let found = match applicable(records, domain) {
        Ok(Some(found)) => found,
        Ok(None) => return of(domain, Outcome::None, "no record"),
        Err(trouble) => return of(domain, Outcome::TempError, reason(trouble)),
    };
    let Some(record) = found.record.usable() else {
        return of(domain, Outcome::PermError, "the record has no valid policy");
    };
    let found = Found { domain: found.domain, record };
    let asked = policy(records, domain, &found);
    let is_testing = asked != Policy::None && found.record.is_testing;
    let policy = if is_testing { asked.lowered() } else { asked };
    Checked { policy, is_testing, found: Some(found), ..of(domain, Outcome::Fail, "") }
}

/// Checks whether one of the identifiers vouches for a domain with a record.
fn check(records: &Records<'_>, mut checked: Checked, identifiers: &[Identifier<'_>]) -> Checked {
    let Some(found) = &checked.found else { return checked };
    let mut trouble = None;
    for identifier in identifiers {
        let answer = is_aligned(records, &checked.domain, &found.record, identifier);
        match (answer, identifier.vouches) {
            (Ok(true), Vouches::Yes) if identifier.mechanism == Mechanism::Spf => checked.spf = true,
            (Ok(true), Vouches::Yes) => checked.dkim = true,
            (Ok(true), Vouches::Unknown) => trouble = Some(Trouble::Dns),
            // If there are too many look-ups, the message itself is to blame, so this counts like a
            // domain that is not aligned.
            (Ok(false), _) | (Err(Trouble::TooMany), _) => {}
            (Err(error), _) => trouble = Some(error),
        }
    }
    if checked.spf || checked.dkim {
        return Checked { outcome: Outcome::Pass, policy: Policy::None, is_testing: false, ..checked };
    }
    if let Some(trouble) = trouble {
        checked.outcome = Outcome::TempError;
        checked.reason = reason(trouble);
    }
    checked
}

fn reason(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Dns => "the DNS did not answer",
        Trouble::TooMany => "there were too many look-ups",
    }
}

/// Returns the record that applies to a domain: its own, that of its organizational domain, or that
/// of the public suffix above (RFC 9989 4.10.1). Returns `None` if there is none.
fn applicable(records: &Records<'_>, domain: &str) -> Result<Option<Found>, Trouble> {
    if let Some(record) = records.get(domain)? {
        return Ok(Some(Found { domain: domain.into(), record }));
    }
    let mut walked = records.walk(domain)?;
    let organization = organizational(domain, &walked);
    let at = walked.iter().position(|found| *found.domain == *organization);
    // If the organizational domain has no record, the last record of the walk is that of a public
    // suffix.
    Ok(at.or(walked.len().checked_sub(1)).map(|at| walked.swap_remove(at)))
}

/// Returns whether the domain of an identifier is aligned with `domain`, the domain in From:
/// whether it is similar enough for the record.
fn is_aligned(
    records: &Records<'_>,
    domain: &str,
    record: &Record,
    identifier: &Identifier<'_>,
) -> Result<bool, Trouble> {
    let other = identifier.domain.trim_end_matches('.').to_ascii_lowercase();
    let alignment = match identifier.mechanism {
        Mechanism::Spf => record.spf,
        Mechanism::Dkim => record.dkim,
    };
    if other == domain || alignment == Alignment::Strict {
        return Ok(other == domain);
    }
    // If the top-level domains differ, the organizational domains differ, too, and nothing needs to
    // be looked up.
    let top = |name: &str| name.rsplit('.').next().map(str::to_owned);
    if top(&other) != top(domain) {
        return Ok(false);
    }
    let walked = records.walk(domain)?;
    let organization = organizational(domain, &walked);
    if !is_at_or_below(&other, organization) {
        return Ok(false);
    }
    let walked = records.walk(&other)?;
    Ok(organizational(&other, &walked) == organization)
}

/// Returns the policy that a record asks for, before `t=y` lowers it.
fn policy(records: &Records<'_>, domain: &str, found: &Found) -> Policy {
    let record = &found.record;
    let own = record.policy.unwrap_or_default();
    if *found.domain == *domain {
        return own;
    }
    let existing = record.subdomains.unwrap_or(own);
    match record.nonexistent.filter(|policy| *policy != existing) {
        None => existing,
        Some(nonexistent) => match records.exists(domain) {
            Some(true) => existing,
            Some(false) => nonexistent,
            // The DNS does not say whether the domain exists, so the milder policy applies.
            None => existing.min(nonexistent),
        },
    }
}
