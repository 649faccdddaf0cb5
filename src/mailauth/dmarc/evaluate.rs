//! Decides whether a message passes DMARC, and which policy applies if not (RFC 9989 5.3).

use std::cmp::Reverse;

use super::authors::Authors;
use super::record::{Alignment, Record};
use super::walk::{Found, Records, Trouble, is_at_or_below, organizational};
use super::{Checked, Identifier, Mechanism, Outcome, Policy, Vouches};
use crate::mailauth::lookup::Lookup;

/// The maximum number of look-ups for one message: several walks, but not all that a hostile
/// message could ask for.
const MAX_LOOKUPS: usize = 60;

/// Checks a message: the domains in its From, and the domains that SPF and DKIM have vouched for.
///
/// If From has several domains, each is checked, and the result with the strictest policy counts.
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

/// Orders results: first by the policy that applies, then by how little the message has shown.
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

/// The record that applies to a domain: its own, that of its organizational domain, or that of the
/// public suffix above (RFC 9989 4.10.1).
fn applicable(records: &Records<'_>, domain: &str) -> Result<Option<Found>, Trouble> {
    if let Some(record) = records.get(domain)? {
        return Ok(Some(Found { domain: domain.into(), record }));
    }
    let mut walked = records.walk(domain)?;
    let organization = organizational(domain, &walked);
    let at = walked.iter().position(|found| *found.domain == *organization);
    // If the organizational domain has no record, the walk has ended at a public suffix.
    Ok(at.or(walked.len().checked_sub(1)).map(|at| walked.swap_remove(at)))
}

/// Whether the domain of an identifier is aligned with the domain in From.
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
    // Domains without a common parent have no common organizational domain, so that nothing needs
    // to be looked up for them.
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

/// The policy that a record asks for, without regard to `t`.
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
            // Nobody knows, so the milder policy applies.
            None => existing.min(nonexistent),
        },
    }
}
