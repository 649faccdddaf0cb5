//! The order in which the files of the drop directory are taken: users take turns, so that none of
//! them delays the others for long, and the older files of a user come first.
//!
//! However many files there are, only a limited number of names is kept in memory. The files that are
//! left out are found when the directory is read again.

use std::collections::HashMap;
use std::ffi::OsString;

/// The maximum number of names in memory.
const MAX_NAMES: usize = 20_000;
/// The maximum number of files of one user that are taken in one round.
pub const PER_USER: usize = 100;

/// The names of files, by user.
#[derive(Debug)]
pub struct Turns {
    /// The times and names of the files of each user.
    names: HashMap<u32, Vec<(i64, OsString)>>,
    total: usize,
    /// The number of names that each user may have here. Fewer if there are many names.
    most: usize,
}

impl Default for Turns {
    fn default() -> Self {
        Self { names: HashMap::new(), total: 0, most: MAX_NAMES }
    }
}

impl Turns {
    /// Adds a file. Returns false if there is no place for more.
    pub fn add(&mut self, uid: u32, time: i64, name: OsString) -> bool {
        let of_user = self.names.entry(uid).or_default();
        of_user.push((time, name));
        self.total += 1;
        if of_user.len() >= 2 * self.most {
            self.total -= keep_oldest(of_user, self.most);
        }
        while self.total > MAX_NAMES && self.most > 1 {
            self.most /= 2;
            for of_user in self.names.values_mut() {
                self.total -= keep_oldest(of_user, self.most);
            }
        }
        self.most > 1 || self.total < MAX_NAMES
    }

    /// Whether there is no file of a user for whom `is_wanted` is true.
    pub fn is_empty(&self, is_wanted: impl Fn(u32) -> bool) -> bool {
        !self.names.iter().any(|(uid, names)| !names.is_empty() && is_wanted(*uid))
    }

    /// Removes and returns the names of the next round: the first of each user, then the second of
    /// each user, and so on.
    pub fn round(&mut self, is_wanted: impl Fn(u32) -> bool) -> Vec<OsString> {
        let mut turns = Vec::new();
        for (_, of_user) in self.names.iter_mut().filter(|(uid, _)| is_wanted(**uid)) {
            of_user.sort_unstable();
            let count = of_user.len().min(PER_USER);
            turns.extend(of_user.drain(..count).enumerate().map(|(turn, (_, name))| (turn, name)));
        }
        turns.sort_unstable();
        turns.into_iter().map(|(_, name)| name).collect()
    }
}

/// Leaves the `most` oldest files. Returns how many were removed.
fn keep_oldest(of_user: &mut Vec<(i64, OsString)>, most: usize) -> usize {
    let before = of_user.len();
    of_user.sort_unstable();
    of_user.truncate(most);
    before - of_user.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_take_turns_and_older_files_come_first() {
        let mut turns = Turns::default();
        assert!((0..500).rev().all(|n| turns.add(1, n, format!("many{n:03}").into())));
        assert!(turns.add(2, 9, "later".into()) && turns.add(2, 3, "early".into()));
        let names = turns.round(|_| true);
        assert_eq!(names.len(), PER_USER + 2);
        assert_eq!(names[..5], ["early", "many000", "later", "many001", "many002"]);
        assert_eq!(turns.round(|_| true)[..2], ["many100", "many101"]);
        assert!(turns.is_empty(|uid| uid != 1) && !turns.is_empty(|_| true) && turns.round(|uid| uid != 1).is_empty());
    }

    #[test]
    fn one_user_with_many_files_hides_nobody_and_takes_little_memory() {
        let mut turns = Turns::default();
        for n in (0..1_000_000).rev() {
            assert!(turns.add(1, n, n.to_string().into()));
            assert!(turns.total <= MAX_NAMES);
        }
        assert!(turns.add(2, 0, "other".into()));
        assert_eq!(turns.round(|_| true)[..3], ["0", "other", "1"]);
    }

    #[test]
    fn very_many_users_end_the_reading() {
        let mut turns = Turns::default();
        let added = (0..1_000_000).take_while(|n| turns.add(n % 30_000, 0, n.to_string().into())).count();
        assert!((MAX_NAMES / 2..=MAX_NAMES).contains(&added), "{added}");
        assert!(!turns.is_empty(|_| true) && turns.round(|_| true).len() > MAX_NAMES / 2);
    }
}
