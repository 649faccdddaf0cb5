//! Decides whether a message passes DMARC, and which policy applies to a message that fails (RFC
//! 9989 5.3).

use std::cmp::Reverse;

use super::authors::Authors;
use super::record::{Alignment, Record};
use super::walk::{Found, Records, Trouble, is_at_or_below, organizational};
use super::{Checked, Identifier, Mechanism, Outcome, Policy, Vouches};
use crate::mailauth::lookup::Lookup;

/// The maximum number of look-ups for one message. It is enough for several walks up the DNS tree,
/// but a hostile message could ask for more.
const MAX_LOOKUPS: usize = 60;

/// Checks whether SPF or DKIM vouches for the domains in the From field of a message. `identifiers`
/// are the domains for which they vouch.
///
/// If From has several domains, each is checked, and the result with the strictest policy applies.
pub fn evaluate(lookup: &dyn Lookup, authors: &Authors, identifiers: &[Identifier<'_>]) -> Checked {
    let records = Records::new(lookup, MAX_LOOKUPS);
    let checked = authors.domains.iter().map(|domain| check(&records, domain, identifiers));
    let worst = checked.min_by_key(|checked| Reverse(severity(checked)));
    let none = |outcome, reason| Checked {
        outcome,
        policy: Policy::None,
        is_testing: false,
        domain: Box::default(),
        found: None,
        spf: false,
        dkim: false,
        reason,
    };
    match worst {
        None if authors.has_more => none(Outcome::PermError, "From is too long"),
        None if authors.fields == 0 => none(Outcome::None, "there is no From"),
        None => none(Outcome::None, "From has no domain"),
        Some(worst) if authors.has_more && worst.outcome != Outcome::Fail => {
            Checked { domain: worst.domain, ..none(Outcome::PermError, "From has too many domains") }
        }
        Some(worst) => worst,
    }
}

/// Returns a value by which results are ordered: first by the policy that applies, then by the
/// outcome, from pass to fail.
fn severity(checked: &Checked) -> (Policy, u8) {
    let rank = match checked.outcome {
        Outcome::Fail => 4,
        Outcome::TempError => 3,
        Outcome::PermError => 2,
        Outcome::None => 1,
        Outcome::Pass => 0,
    };
    (checked.policy, rank)
}

/// Checks one domain in From.
fn check(records: &Records<'_>, domain: &str, identifiers: &[Identifier<'_>]) -> Checked {
    let mut checked = Checked {
        outcome: Outcome::None,
        policy: Policy::None,
        is_testing: false,
        domain: domain.into(),
        found: None,
        spf: false,
        dkim: false,
        reason: "",
    };
    match examine(records, domain, identifiers, &mut checked) {
        Ok(outcome) => checked.outcome = outcome,
        Err(trouble) => {
            checked.outcome = Outcome::TempError;
            checked.reason = match trouble {
                Trouble::Dns => "the DNS did not answer",
                Trouble::TooMany => "there were too many look-ups",
            };
        }
    }
    checked
}

fn examine(
    records: &Records<'_>,
    domain: &str,
    identifiers: &[Identifier<'_>],
    checked: &mut Checked,
) -> Result<Outcome, Trouble> {
    if domain.starts_with('[') {
        checked.reason = "From has an address literal";
        return Ok(Outcome::None);
    }
    let Some(found) = applicable(records, domain)? else {
        checked.reason = "no record";
        return Ok(Outcome::None);
    };
    let Some(record) = found.record.usable() else {
        checked.reason = "the record has no valid policy";
        return Ok(Outcome::PermError);
    };
    let found = &*checked.found.insert(Found { domain: found.domain, record });
    let mut passed = (false, false);
    let mut trouble = None;
    for identifier in identifiers {
        let answer = is_aligned(records, domain, &found.record, identifier);
        match (answer, identifier.vouches) {
            (Ok(true), Vouches::Yes) if identifier.mechanism == Mechanism::Spf => passed.0 = true,
            (Ok(true), Vouches::Yes) => passed.1 = true,
            (Ok(true), Vouches::Unknown) => trouble = Some(Trouble::Dns),
            (Ok(false), _) => {}
            (Err(error), _) => trouble = Some(error),
        }
    }
    (checked.spf, checked.dkim) = passed;
    match trouble {
        _ if passed.0 || passed.1 => Ok(Outcome::Pass),
        Some(trouble) => Err(trouble),
        None => {
            let found = checked.found.as_ref();
            let asked = found.map_or(Policy::None, |found| policy(records, domain, found));
            checked.is_testing = asked != Policy::None && found.is_some_and(|found| found.record.is_testing);
            checked.policy = if checked.is_testing { asked.lowered() } else { asked };
            Ok(Outcome::Fail)
        }
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
