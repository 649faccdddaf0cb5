//! Verifies the ARC chain of a message (RFC 8617 5.2).

use std::collections::BTreeSet;

use super::chain::{self, Set};
use super::{Chain, MAX_SETS, Reason, Sealed, Status};
use crate::dns::lookup::Lookup;
use crate::mailauth::dkim::canon::Canon;
use crate::mailauth::dkim::header::{Header, append_own};
use crate::mailauth::dkim::signature::{Claim, Kind, Signature};
use crate::mailauth::dkim::verify::Keys;
use crate::mailauth::dkim::{self, Signatures};

/// Returns which hash of the body is needed to verify the chain. Returns `None` if there is no
/// chain.
pub fn wanted(header: &Header<'_>) -> Option<(Canon, Option<u64>)> {
    let newest = chain::sets(header).ok()?.pop()?;
    let signature = Claim::parse(Kind::ArcMessage, newest.message.body).signature.ok()?;
    Some((signature.body_form, signature.length))
}

/// Returns the DNS names of the keys that [`verify`] will look up, so that a caller can look them
/// up earlier.
pub fn key_names(signatures: &Signatures) -> Vec<String> {
    let header = Header::new(signatures.header());
    let sets = chain::sets(&header).unwrap_or_default();
    let seals = sets.iter().map(|set| Claim::parse(Kind::ArcSeal, set.seal.body));
    let newest = sets.last().map(|set| Claim::parse(Kind::ArcMessage, set.message.body));
    let names = seals.chain(newest).filter(|claim| claim.signature.is_ok()).map(|claim| claim.key_name());
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Verifies the chain of a message.
pub fn verify(signatures: &Signatures, lookup: &dyn Lookup, now: u64) -> Chain {
    let header = Header::new(signatures.header());
    match chain::sets(&header) {
        Ok(sets) if sets.is_empty() => Chain { status: Status::None, reason: None, sets: Vec::new() },
        _ if signatures.is_too_long() => broken(Reason::HeaderTooLong),
        Ok(sets) => match verify_sets(&header, &sets, signatures, lookup, now) {
            Ok(domains) => {
                let sealed =
                    |(set, domain): (&Set<'_>, _)| Sealed { domain, results: chain::results(set.results.body) };
                Chain { status: Status::Pass, reason: None, sets: sets.iter().zip(domains).map(sealed).collect() }
            }
            Err(reason) => broken(reason),
        },
        Err(reason) => broken(reason),
    }
}

fn broken(reason: Reason) -> Chain {
    let is_temporary =
        matches!(reason, Reason::Message(dkim::Reason::NoAnswer(_)) | Reason::Seal(_, dkim::Reason::NoAnswer(_)));
    let status = if is_temporary { Status::TempError } else { Status::Fail };
    Chain { status, reason: Some(reason), sets: Vec::new() }
}

/// Verifies all sets. There must be at least one. Returns the domains of the seals.
fn verify_sets(
    header: &Header<'_>,
    sets: &[Set<'_>],
    signatures: &Signatures,
    lookup: &dyn Lookup,
    now: u64,
) -> Result<Vec<String>, Reason> {
    let newest = sets.last().ok_or(Reason::Sets)?;
    let results: Vec<_> = sets.iter().map(Set::result).collect();
    if results.last().is_some_and(|result| result.as_deref() == Some("fail")) {
        return Err(Reason::Reported);
    }
    for (at, result) in results.iter().enumerate() {
        let wanted = if at == 0 { "none" } else { "pass" };
        if result.as_deref() != Some(wanted) {
            return Err(Reason::Result(at + 1));
        }
    }
    let message = Claim::parse(Kind::ArcMessage, newest.message.body);
    let signature = check_message(&message, signatures, now).map_err(Reason::Message)?;
    let mut seals = Vec::with_capacity(MAX_SETS);
    for (at, set) in sets.iter().enumerate() {
        let claim = Claim::parse(Kind::ArcSeal, set.seal.body);
        if let Err(why) = &claim.signature {
            return Err(Reason::Seal(at + 1, why.clone()));
        }
        seals.push(claim);
    }
    let keys = Keys::look_up(lookup, seals.iter().chain([&message]));
    let mut text = header.signed(&signature.names, signature.header_form, Some(newest.place));
    append_own(&newest.message, signature.place.clone(), signature.header_form, &mut text);
    keys.verify(&message, signature, &text).map_err(Reason::Message)?;
    verify_seals(sets, &seals, &keys)?;
    Ok(seals.into_iter().map(|claim| claim.domain).collect())
}

/// Checks everything about the newest message signature that needs no key.
fn check_message<'c>(claim: &'c Claim, signatures: &Signatures, now: u64) -> Result<&'c Signature, dkim::Reason> {
    let signature = claim.signature.as_ref().map_err(dkim::Reason::clone)?;
    if signature.names.iter().any(|name| name == "arc-seal") {
        return Err(dkim::Reason::Malformed("h="));
    }
    signatures.check_hash(signature)?;
    if signature.expires.is_some_and(|end| end < now) {
        return Err(dkim::Reason::Expired);
    }
    Ok(signature)
}

/// Verifies the seals. Each seal signs all sets up to its own.
fn verify_seals(sets: &[Set<'_>], seals: &[Claim], keys: &Keys) -> Result<(), Reason> {
    let mut text = Vec::new();
    for (at, (set, claim)) in sets.iter().zip(seals).enumerate() {
        let signature = claim.signature.as_ref().map_err(|why| Reason::Seal(at + 1, why.clone()))?;
        let before = text.len();
        set.append(false, &mut text);
        append_own(&set.seal, signature.place.clone(), Canon::Relaxed, &mut text);
        keys.verify(claim, signature, &text).map_err(|why| Reason::Seal(at + 1, why))?;
        text.truncate(before);
        set.append(true, &mut text);
    }
    Ok(())
}
