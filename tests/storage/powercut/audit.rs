//! Counts what became of every letter after a power cut.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display, Formatter};
use std::ops::AddAssign;

use super::disks::Moment;
use super::load::Offered;
use super::people::Found;
use common::books::{Books, Letter, without_added_fields, without_conversion};
use common::remote::Received;

/// The counts of one power cut, or the sum of several.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// The number of power cuts.
    pub cuts: usize,
    /// The number of letters whose 250 the client had read before the cut.
    pub acknowledged: usize,
    /// The number of acknowledged letters that a recipient, or for a bounce the sender, never gets.
    pub lost: usize,
    /// The number of letters that are in a local mailbox twice, and of bounces that were sent
    /// twice.
    pub doubled: usize,
    /// The number of incomplete files in mailboxes, and of incomplete messages at the remote host.
    pub damaged: usize,
    /// The number of letters without a 250 that only some of their recipients got.
    pub partial: usize,
    /// The number of spool entries that penfoldd cannot deliver, bounce or set aside.
    pub stuck: usize,
    /// The number of files in `spool/bad`, parts of letters that were just getting their name. They
    /// are no error: if such a letter was acknowledged, it also counts as lost.
    pub torn: usize,
}

impl Tally {
    /// The names of the columns when a tally is printed as a line.
    pub const HEAD: &str = "cuts acknowledged lost doubled damaged partial stuck torn";

    /// Whether nothing is lost, doubled, damaged, partial or stuck.
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

/// The recipients at the remote host and in the store, which may get a letter twice.
const ELSEWHERE: [&str; 5] = ["far", "sto", "stp", "odd", "held"];

/// All mail that has arrived when the spool is empty.
#[derive(Default)]
pub struct Arrived {
    /// The contents of the mailboxes that must have a letter exactly once, by user.
    local: BTreeMap<String, Books>,
    /// The contents of the mailboxes that must have a letter at least once, by user.
    often: BTreeMap<String, Books>,
    /// The number of copies that the remote host and the store have of each letter, by token and
    /// recipient.
    far: HashMap<(String, String), usize>,
    damaged: usize,
    /// The number of entries left in the spool.
    pub stuck: usize,
    /// The number of files in `spool/bad`.
    pub torn: usize,
}

impl Arrived {
    /// Counts the contents of the mailboxes, and `remote`, the messages that the remote host has
    /// accepted.
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
        let text = match token.split('-').next() {
            Some("odd") => without_conversion(&text).unwrap_or_else(|| text.clone()),
            Some("held") => without_added_fields(&text),
            _ => text.clone(),
        };
        if text.ends_with(&Letter::new(token).text()) {
            for recipient in &message.recipients {
                let user = recipient.trim_start_matches('<').split('@').next().unwrap_or_default();
                *self.far.entry((token.to_owned(), user.to_owned())).or_default() += 1;
            }
        } else {
            self.complain(&[format!("{token} at the remote peer is not whole:\n{text}")]);
        }
    }

    /// The number of copies for each recipient of a letter. Where more than one copy is allowed, it
    /// is at most 1.
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
                user if ELSEWHERE.contains(&user) => {
                    let copies = self.far.get(&(letter.token.clone(), user.to_owned()));
                    vec![(user.to_owned(), copies.copied().unwrap_or(0).min(1))]
                }
                "fay" => vec![count("gus", Books::letters)],
                "sales" => ["lou", "jon"].map(|user| count(user, Books::letters)).to_vec(),
                user => vec![count(user, Books::letters)],
            })
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect()
    }

    /// Counts what became of the letters that were offered around a cut.
    ///
    /// # Panics
    /// If a letter arrived that was not sent before the cut.
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
            // If only the remote host or the store has a letter, the letter may have been sent after the image
            // was cloned, so it does not count as partial.
            let is_here = counts.iter().any(|(user, count)| !ELSEWHERE.contains(&user.as_str()) && *count > 0);
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
