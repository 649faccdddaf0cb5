//! Computes the hashes of a message's body that its signatures need, all in one pass.

use std::fmt;

use ring::digest::{Context, Digest, SHA256};

use super::canon::{Body, Canon};

/// Identifies a hash: the canonical form of the body, and the number of octets that are hashed
/// (`l=`); `None` for all octets.
type Key = (Canon, Option<u64>);

/// The unfinished hashes of a body that arrives in pieces.
#[derive(Debug, Default)]
pub struct Hasher {
    streams: Vec<(Body, Tally)>,
}

/// The unfinished hashes of one canonical form.
struct Tally {
    form: Canon,
    /// The number of octets in this form so far.
    length: u64,
    sums: Vec<(Option<u64>, Context)>,
}

impl Hasher {
    /// Begins all hashes in `wanted`. A hash that occurs there several times is computed once.
    pub fn new(wanted: impl IntoIterator<Item = Key>) -> Self {
        let mut hasher = Self::default();
        for (form, limit) in wanted {
            let at = hasher.streams.iter().position(|(_, tally)| tally.form == form).unwrap_or_else(|| {
                hasher.streams.push((Body::new(form), Tally { form, length: 0, sums: Vec::new() }));
                hasher.streams.len() - 1
            });
            if let Some((_, tally)) = hasher.streams.get_mut(at)
                && tally.sums.iter().all(|(other, _)| *other != limit)
            {
                tally.sums.push((limit, Context::new(&SHA256)));
            }
        }
        hasher
    }

    /// Takes a piece of the body.
    pub fn feed(&mut self, text: &[u8]) {
        for (body, tally) in &mut self.streams {
            body.feed(text, &mut |octets| tally.take(octets));
        }
    }

    /// Ends the body, and returns its hashes.
    pub fn finish(self) -> Hashes {
        let mut hashes = Vec::new();
        for (body, mut tally) in self.streams {
            body.finish(&mut |octets| tally.take(octets));
            let sums = tally.sums.into_iter();
            hashes.extend(sums.map(|(limit, sum)| ((tally.form, limit), sum.finish(), tally.length)));
        }
        Hashes(hashes)
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tally({:?}, {} octets, {} hashes)", self.form, self.length, self.sums.len())
    }
}

impl Tally {
    fn take(&mut self, octets: &[u8]) {
        for (limit, sum) in &mut self.sums {
            let room = limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.length));
            let count = usize::try_from(room).unwrap_or(usize::MAX).min(octets.len());
            sum.update(octets.get(..count).unwrap_or_default());
        }
        self.length += octets.len() as u64;
    }
}

/// The hashes of a whole body.
#[derive(Debug, Default)]
pub struct Hashes(Vec<(Key, Digest, u64)>);

impl Hashes {
    /// Returns a hash, and the length of the whole body in the hash's canonical form. Returns
    /// `None` if the hash was not wanted.
    pub fn get(&self, form: Canon, limit: Option<u64>) -> Option<(&[u8], u64)> {
        let mut hashes = self.0.iter();
        hashes.find(|(key, ..)| *key == (form, limit)).map(|(_, digest, length)| (digest.as_ref(), *length))
    }
}
