//! Makes repeatable random choices, which follow from a seed and a name.
//!
//! Each thread has a [`Chance`] of its own, so that its choices do not depend on the speed of other
//! threads. The time at which a thread makes a choice is not repeatable.

use std::ops::Range;
use std::thread;
use std::time::Duration;

/// A sequence of random choices.
pub struct Chance(u64);

impl Chance {
    /// The sequence for a seed and a name.
    pub fn new(seed: u64, name: &str) -> Self {
        Self(name.bytes().fold(seed, |state, b| mix(state ^ u64::from(b))))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A random number in a range.
    pub fn of(&mut self, range: Range<usize>) -> usize {
        range.start + (self.next() % (range.end - range.start) as u64) as usize
    }

    /// Returns true in `times` of a hundred calls, on average.
    pub fn percent(&mut self, times: usize) -> bool {
        self.of(0..100) < times
    }

    /// One of several values, chosen at random.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.of(0..from.len())]
    }

    /// Sleeps for a random number of milliseconds in a range.
    pub fn pause(&mut self, range: Range<usize>) {
        thread::sleep(Duration::from_millis(self.of(range) as u64));
    }

    /// Random octets. The number of octets is random, too, within a range.
    pub fn octets(&mut self, range: Range<usize>) -> Vec<u8> {
        let count = self.of(range);
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Divides a text into at most `limit` pieces, some of which may be empty.
    pub fn pieces<'a>(&mut self, text: &'a [u8], limit: usize) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = (1..self.of(1..limit + 1)).map(|_| self.of(0..text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
    }
}

/// The mixing function of the generator splitmix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
