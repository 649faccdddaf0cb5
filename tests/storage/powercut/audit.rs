//! What a power cut cost: every letter that was offered, and what became of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display, Formatter};
use std::ops::AddAssign;

use super::disks::Moment;
use super::load::Offered;
use super::people::Found;
use common::books::{Books, Letter};
use common::remote::Received;

/// The sum of some cuts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Cuts.
    pub cuts: usize,
    /// Letters whose 250 was read before the cut.
    pub acknowledged: usize,
    /// Of those, the ones that a recipient, or for a bounce the sender, never gets.
    pub lost: usize,
    /// Letters that came twice to a mailbox here, and bounces that were sent twice.
    pub doubled: usize,
    /// Files in mailboxes and messages at the remote peer that are not whole.
    pub damaged: usize,
    /// Letters without a 250 that some of their recipients got, and others not.
    pub partial: usize,
    /// Entries that penfoldd cannot settle.
    pub stuck: usize,
    /// What became of letters that were just being linked: files in `spool/bad`. No
    /// flaw, for one that had been acknowledged is lost.
    pub torn: usize,
}

impl Tally {
    /// The names of the columns of its line.
    pub const HEAD: &str = "cuts acknowledged lost doubled damaged partial stuck torn";

    /// Whether all promises were kept.
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.damaged + self.partial + self.stuck == 0
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { cuts, acknowledged, lost, doubled, damaged, partial, stuck, torn } = self;
        write!(f, "{cuts:4} {acknowledged:12} {lost:4} {doubled:7} {damaged:7} {partial:7} {stuck:5} {torn:4}")
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.damaged += other.damaged;
        self.partial += other.partial;
        self.stuck += other.stuck;
        self.torn += other.torn;
    }
}

/// All that arrived somewhere.
#[derive(Default)]
pub struct Arrived {
    /// Of those here, who must have a letter once.
    local: BTreeMap<String, Books>,
    /// And who must have it once at least.
    often: BTreeMap<String, Books>,
    far: HashMap<String, usize>,
    damaged: usize,
    /// Entries that are left in the spool.
    pub stuck: usize,
    /// Files in `spool/bad`.
    pub torn: usize,
}

impl Arrived {
    /// What was found in the mailboxes, and what the remote peer was given.
    pub fn new(Found { once, often, damaged }: Found, remote: &[Received]) -> Self {
        let mut arrived = Self { local: once, often, ..Self::default() };
        arrived.complain(&damaged);
        remote.iter().for_each(|message| arrived.count_far(message));
        arrived
    }

    fn complain(&mut self, damaged: &[String]) {
        damaged.iter().for_each(|what| eprintln!("damaged: {:.600}", what));
        self.damaged += damaged.len();
    }

    fn count_far(&mut self, message: &Received) {
        let text = String::from_utf8_lossy(&message.data).replace("\r\n", "\n");
        let token = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default();
        if text.ends_with(&Letter::new(token).text()) {
            *self.far.entry(token.to_owned()).or_default() += 1;
        } else {
            self.complain(&[format!("{token} at the remote peer is not whole:\n{text}")]);
        }
    }

    /// How often each recipient of a letter got it; where more than once is as good, it is once.
    fn counts(&self, letter: &Offered) -> Vec<(String, usize)> {
        let count = |user: &str, of: fn(&Books, &str) -> usize| {
            let count = match self.often.get(user) {
                Some(books) => of(books, &letter.token).min(1),
                None => self.local.get(user).map_or(0, |books| of(books, &letter.token)),
            };
            (user.to_owned(), count)
        };
        letter
            .to
            .iter()
            .flat_map(|to| match to.split('@').next().unwrap_or_default() {
                "list" => ["ada", "bob", "cyd"].map(|user| count(user, Books::letters)).to_vec(),
                "void" => vec![count("ret", Books::reports)],
                "far" => vec![("far".to_owned(), self.far.get(&letter.token).copied().unwrap_or(0).min(1))],
                "fay" => vec![count("gus", Books::letters)],
                user => vec![count(user, Books::letters)],
            })
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect()
    }

    /// What became of the letters that were offered around a cut.
    ///
    /// # Panics
    /// When there is something that nobody had sent before the cut.
    pub fn audit(&self, offered: &[Offered], moment: Moment) -> Tally {
        let mut tally =
            Tally { cuts: 1, damaged: self.damaged, stuck: self.stuck, torn: self.torn, ..Tally::default() };
        let mut known = 0;
        for letter in offered.iter().filter(|letter| letter.began < moment.end) {
            let counts = self.counts(letter);
            let is_acknowledged = letter.taken.is_some_and(|taken| taken < moment.begin);
            let missing = counts.iter().filter(|(_, count)| *count == 0).count();
            let is_doubled = counts.iter().any(|(_, count)| *count > 1);
            let is_lost = is_acknowledged && missing > 0;
            // What only the remote peer has may have been sent after the image was cloned.
            let is_here = counts.iter().any(|(user, count)| user != "far" && *count > 0);
            let is_partial = !is_acknowledged && missing > 0 && is_here;
            tally.acknowledged += usize::from(is_acknowledged);
            tally.lost += usize::from(is_lost);
            tally.doubled += usize::from(is_doubled);
            tally.partial += usize::from(is_partial);
            if is_lost || is_doubled || is_partial {
                eprintln!("{letter:?}\n    acknowledged={is_acknowledged} {counts:?} {moment:?}");
            }
            known +=
                counts.iter().filter(|(user, _)| self.local.contains_key(user)).map(|(_, count)| count).sum::<usize>();
        }
        assert_eq!(self.local.values().map(Books::total).sum::<usize>(), known, "mail that nobody had sent");
        tally
    }
}
