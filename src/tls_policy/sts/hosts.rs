//! Policies that the hosts of a site keep for each other in the shared store: a policy is fetched by one
//! host, and stays in force at all of them.
//!
//! A text has the same form as in the journal of the cache. It is sealed, so only a host with the same
//! secret can have made it. It is checked like a policy that was just fetched.

use super::cache::{from_text, to_text};
use super::policy::StsPolicy;
use crate::shared::Shared;

/// What the texts are called in the store.
const KIND: &str = "mta-sts";
/// The maximum time for which a policy is kept, in seconds: 35 days, as long as anything in the store.
/// The hosts renew a policy in use before.
const MAX_KEPT: u64 = 35 * 86_400;

/// The maximum time by which the clock of another host may be ahead, in seconds.
const MAX_AHEAD: u64 = 300;

/// Returns the policy of a domain that another host has fetched, if the policy is still valid.
pub(super) fn policy_of(shared: &Shared, domain: &str, now: u64) -> Option<StsPolicy> {
    let (mut policy, _) = from_text(&shared.recall(KIND, domain)?)?;
    // Only by a little, or the policy would never end.
    let is_past = policy.fetched <= now.saturating_add(MAX_AHEAD);
    policy.fetched = policy.fetched.min(now);
    (is_past && policy.is_valid(now)).then_some(policy)
}

/// Keeps a policy that was just fetched for the other hosts.
pub(super) fn tell(shared: &Shared, domain: &str, policy: &StsPolicy, now: u64) {
    let seconds = policy.end().saturating_sub(now).min(MAX_KEPT);
    if seconds > 0 {
        shared.keep(KIND, domain, &to_text(policy, now), seconds);
    }
}
