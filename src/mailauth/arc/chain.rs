//! Finds the ARC sets of a message, and puts them in order. A set is the three fields that one
//! server has added.

use super::{MAX_SETS, Reason};
use crate::mailauth::dkim::canon::{self, Canon};
use crate::mailauth::dkim::header::Header;
use crate::mailauth::dkim::tags::Tags;
use crate::message::field::Field;

/// The names of the three fields of a set, in the order in which a seal signs them.
const NAMES: [&str; 3] = ["arc-authentication-results", "arc-message-signature", "arc-seal"];

/// The three fields of a set.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    /// The field `ARC-Authentication-Results`.
    pub results: Field<'a>,
    /// The field `ARC-Message-Signature`.
    pub message: Field<'a>,
    /// The place of `message` among the fields of the header.
    pub place: usize,
    /// The field `ARC-Seal`.
    pub seal: Field<'a>,
}

impl Set<'_> {
    /// Returns the result that the seal states for the chain before it (`cv=`).
    pub fn result(&self) -> Option<String> {
        Some(Tags::parse(self.seal.body)?.get("cv")?.to_ascii_lowercase())
    }

    /// Appends the part of this set that a seal signs: the first two fields and, if `with_seal`,
    /// the set's own seal. `with_seal` is false for the set whose seal is the signing one, because
    /// a seal does not sign itself.
    pub fn append(&self, with_seal: bool, text: &mut Vec<u8>) {
        for field in [self.results, self.message, self.seal].iter().take(2 + usize::from(with_seal)) {
            canon::field(Canon::Relaxed, field.name, field.raw, field.body, text);
        }
    }
}

/// Returns the sets of a header, in the order in which they were added. If there is no chain, the
/// result is an empty list.
///
/// # Errors
/// The reason, if a set is incomplete or the sets are not numbered from 1 on.
pub fn sets<'a>(header: &Header<'a>) -> Result<Vec<Set<'a>>, Reason> {
    let [results, messages, seals] = NAMES.map(|name| header.named(name).count());
    if results.max(messages).max(seals) > MAX_SETS {
        return Err(Reason::TooMany);
    }
    let count = seals;
    if results != count || messages != count {
        return Err(Reason::Sets);
    }
    let [results, messages, seals] = NAMES.map(|name| in_order(header, name, count));
    let (results, messages, seals) = (results?, messages?, seals?);
    let sets = results.into_iter().zip(messages).zip(seals);
    let set = |(((_, results), (place, message)), (_, seal))| Set { results, message, place, seal };
    Ok(sets.map(set).collect())
}

/// Returns the fields with a name, in the order of their numbers. The numbers must be those from 1
/// to `count`.
fn in_order<'a>(header: &Header<'a>, name: &str, count: usize) -> Result<Vec<(usize, Field<'a>)>, Reason> {
    let mut ordered = vec![None; count];
    for (place, field) in header.named(name) {
        let at = number(field.body).ok_or(Reason::Sets)?.checked_sub(1).ok_or(Reason::Sets)?;
        let slot = ordered.get_mut(at).ok_or(Reason::Sets)?;
        if slot.replace((place, field)).is_some() {
            return Err(Reason::Sets);
        }
    }
    ordered.into_iter().collect::<Option<_>>().ok_or(Reason::Sets)
}

/// Returns the number of the set to which a field belongs (`i=`). In `ARC-Authentication-Results`
/// the number comes first, and what follows is no tag list.
fn number(body: &[u8]) -> Option<usize> {
    let first = body.split(|&b| b == b';').next()?;
    let number = |text: &[u8]| {
        let tags = Tags::parse(text)?;
        let number = tags.get("i")?;
        let is_number = (1..=2).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        if is_number { number.parse().ok() } else { None }
    };
    number(first).or_else(|| number(body))
}

/// Returns the value of `ARC-Authentication-Results` without its number and without line ends.
pub fn results(body: &[u8]) -> String {
    let after = body.iter().position(|&b| b == b';').map_or(body.len(), |at| at + 1);
    let text: Vec<u8> = body.get(after..).unwrap_or_default().iter().filter(|&&b| b != b'\n').copied().collect();
    String::from_utf8_lossy(&text).trim().to_owned()
}
