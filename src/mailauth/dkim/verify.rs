//! Verifies the signatures of a message.

use super::body::{Hasher, Hashes};
use super::header::{Front, Header, append_own};
use super::record::Record;
use super::signature::{Claim, Kind, Signature};
use super::{Checked, MAX_SIGNATURES, Reason, Status};
use crate::dns::lookup::Lookup;
use crate::message::field::Field;
use crate::outcome::NoAnswer;

/// The maximum number of records of one name that are tried as keys.
const MAX_RECORDS: usize = 5;
/// Collects from a message what the verification of its signatures needs.
#[derive(Debug)]
pub struct Verifier {
    front: Front,
    /// The hashes of the body. They begin when the header is complete.
    body: Hasher,
    claims: Vec<(usize, Claim)>,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Verifier {
    /// Returns a verifier that has not taken any text yet.
    pub fn new() -> Self {
        Self { front: Front::new(), body: Hasher::default(), claims: Vec::new() }
    }

    /// Takes the next piece of the text. Lines end in LF, and the text may be split anywhere.
    pub fn feed(&mut self, text: &[u8]) {
        let was_open = self.front.is_open();
        let rest = self.front.feed(text);
        if was_open && !self.front.is_open() {
            self.begin_body();
        }
        self.body.feed(rest);
    }

    /// Ends the message, and returns its signatures, which are not verified yet.
    pub fn finish(mut self) -> Signatures {
        let was_open = self.front.is_open();
        self.front.finish();
        if was_open {
            self.begin_body();
        }
        let Self { front, body, claims } = self;
        Signatures { front, claims, hashes: body.finish() }
    }

    /// Finds the signatures in the complete header, and begins the hashes of the body that they
    /// need.
    fn begin_body(&mut self) {
        let header = Header::new(self.front.header());
        let claim = |(place, field): (usize, Field<'_>)| (place, Claim::parse(Kind::Dkim, field.body));
        self.claims = header.named("dkim-signature").take(MAX_SIGNATURES).map(claim).collect();
        if !self.front.is_too_long() {
            let readable = self.claims.iter().filter_map(|(_, claim)| claim.signature.as_ref().ok());
            let wanted = readable.map(|signature| (signature.body_form, signature.length));
            #[cfg(feature = "arc")]
            let wanted = wanted.chain(crate::mailauth::arc::wanted(&header));
            self.body = Hasher::new(wanted);
            self.body.feed(self.front.body());
        }
    }
}

/// The signatures of a message that has arrived.
#[derive(Debug)]
pub struct Signatures {
    front: Front,
    /// The signature fields, each with its place in the header, from top to bottom.
    claims: Vec<(usize, Claim)>,
    hashes: Hashes,
}

impl Signatures {
    /// Returns the header of the message. If the header is longer than [`MAX_HEADER`], returns its
    /// beginning.
    ///
    /// [`MAX_HEADER`]: super::MAX_HEADER
    pub fn header(&self) -> &[u8] {
        self.front.header()
    }

    /// Returns the DNS names of the keys that [`Signatures::verify`] will look up, from top to bottom.
    pub fn key_names(&self, now: u64) -> Vec<String> {
        names(self.claims.iter().map(|(_, claim)| claim).filter(|claim| self.check_body(claim, now).is_ok()))
    }

    /// Verifies the signatures, from top to bottom. `now` is the time in seconds since 1970. All
    /// keys are looked up at the same time, so only the slowest answer costs time.
    pub fn verify(&self, lookup: &dyn Lookup, now: u64) -> Vec<Checked> {
        let early: Vec<_> = self.claims.iter().map(|(_, claim)| self.check_body(claim, now)).collect();
        let can_pass = self.claims.iter().zip(&early).filter(|(_, early)| early.is_ok());
        let keys = Keys::look_up(lookup, can_pass.map(|((_, claim), _)| claim));
        let header = Header::new(self.header());
        let check = |((place, claim), early): (&(usize, Claim), Result<&Signature, Reason>)| {
            checked(claim, early.and_then(|signature| check_key(&keys, &header, *place, (claim, signature))))
        };
        self.claims.iter().zip(early).map(check).collect()
    }

    /// Checks everything about a signature that needs no key.
    fn check_body<'c>(&self, claim: &'c Claim, now: u64) -> Result<&'c Signature, Reason> {
        if self.front.is_too_long() {
            return Err(Reason::HeaderTooLong);
        }
        let signature = claim.signature.as_ref().map_err(Reason::clone)?;
        self.check_hash(signature)?;
        if signature.expires.is_some_and(|end| end < now) {
            return Err(Reason::Expired);
        }
        Ok(signature)
    }

    /// Returns whether the header was too long to be kept.
    #[cfg(feature = "arc")]
    pub(in crate::mailauth) fn is_too_long(&self) -> bool {
        self.front.is_too_long()
    }

    /// Checks that the body is the one that was signed.
    pub(in crate::mailauth) fn check_hash(&self, signature: &Signature) -> Result<(), Reason> {
        let (hash, length) = self.hashes.get(signature.body_form, signature.length).ok_or(Reason::BodyAltered)?;
        if signature.length.is_some_and(|limit| limit > length) {
            return Err(Reason::BodyTooShort);
        }
        if hash != signature.body_hash {
            return Err(Reason::BodyAltered);
        }
        if signature.length.is_some_and(|limit| limit < length) {
            return Err(Reason::Appended);
        }
        Ok(())
    }
}

/// The TXT records of a key, or the reason why there are none.
type Answer = Result<Vec<Vec<u8>>, NoAnswer>;

/// The keys of some signatures as the DNS has them, each with its DNS name.
pub struct Keys(Vec<(String, Answer)>);

impl Keys {
    /// Looks up the keys of all claims (signature fields that were read) at the same time.
    pub fn look_up<'c>(lookup: &dyn Lookup, claims: impl IntoIterator<Item = &'c Claim>) -> Self {
        let names = names(claims);
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let answers = lookup.txt_of_all(&asked);
        Self(names.into_iter().zip(answers).collect())
    }

    /// Verifies a signature of a text. Returns whether the key is only for tests.
    pub fn verify(&self, claim: &Claim, signature: &Signature, text: &[u8]) -> Result<bool, Reason> {
        let name = claim.key_name();
        let found = self.0.iter().find(|(other, _)| *other == name).ok_or(Reason::NoKey)?;
        let records = found.1.as_ref().map_err(no_key)?;
        verify_with(records, signature, text)
    }
}

/// Returns the DNS names of the keys of claims, each once.
fn names<'c>(claims: impl IntoIterator<Item = &'c Claim>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in claims.into_iter().map(Claim::key_name) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Verifies a signature field at this place of the header. Returns whether the key is only for tests.
fn check_key(
    keys: &Keys,
    header: &Header<'_>,
    place: usize,
    (claim, signature): (&Claim, &Signature),
) -> Result<bool, Reason> {
    let mut text = header.signed(&signature.names, signature.header_form, Some(place));
    let own = header.at(place).ok_or(Reason::Mismatch)?;
    append_own(&own, signature.place.clone(), signature.header_form, &mut text);
    keys.verify(claim, signature, &text)
}

/// Verifies a signature of a text with the records of its key. Returns whether the domain is only
/// testing (`t=y`). If all records fail, the error is that of the record that came closest to
/// success.
fn verify_with(records: &[Vec<u8>], signature: &Signature, text: &[u8]) -> Result<bool, Reason> {
    let mut reason = None;
    for record in records.iter().take(MAX_RECORDS) {
        match verify_with_one(record, signature, text) {
            Ok(is_testing) => return Ok(is_testing),
            Err(Reason::Mismatch) => reason = Some(Reason::Mismatch),
            // A record that cannot be parsed may belong to another protocol, for example below a
            // wildcard. So its error is returned only if no other record fails for another reason.
            Err(new) => reason = reason.filter(|old| !matches!(old, Reason::Record(_))).or(Some(new)),
        }
    }
    Err(reason.unwrap_or(Reason::NoKey))
}

fn verify_with_one(record: &[u8], signature: &Signature, text: &[u8]) -> Result<bool, Reason> {
    let record = Record::parse(record)?;
    if !record.fits(signature.algorithm) {
        return Err(Reason::KeyType);
    }
    if record.is_strict && !signature.is_exact {
        return Err(Reason::Identity);
    }
    if record.verifies(text, &signature.octets) { Ok(record.is_testing) } else { Err(Reason::Mismatch) }
}

/// Returns the reason that follows from a failed look-up of a key.
fn no_key(why: &NoAnswer) -> Reason {
    match why {
        NoAnswer::NxDomain | NoAnswer::NoData | NoAnswer::BadName => Reason::NoKey,
        why => Reason::NoAnswer(why.clone()),
    }
}

fn checked(claim: &Claim, verified: Result<bool, Reason>) -> Checked {
    let status = verified.as_ref().map_or_else(Reason::status, |_| Status::Pass);
    Checked {
        domain: claim.domain.clone(),
        selector: claim.selector.clone(),
        algorithm: claim.algorithm,
        mark: claim.mark.clone(),
        status,
        is_testing: verified.as_ref().is_ok_and(|&is_testing| is_testing),
        reason: verified.err(),
    }
}
