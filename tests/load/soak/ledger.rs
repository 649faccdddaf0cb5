//! The ledger of a soak: every offered letter, its fate, and whether the mail that has arrived
//! agrees with the fate.
//!
//! An accepted letter is once in each of its mailboxes. At each of its other hosts it arrives at
//! least once, or its failure is reported once. If a recipient always fails, that is reported once:
//! to the sender, or to the postmaster for the null sender. A letter whose fate the client does not
//! know arrives as if it were accepted, or nowhere; a rejected letter arrives nowhere. No other
//! mail arrives. Errors are returned as lines of text.

use std::collections::{BTreeMap, HashMap, HashSet};

use common::Site;
use common::books::{Books, Letter, without_conversion};
use common::remote::Received;

/// The addresses to which clients send, and the destinations of each address.
pub const ADDRESSES: [(&str, &[End]); 14] = [
    ("jon@razorback", &[End::Mailbox("jon")]),
    ("ada@razorback", &[End::Mailbox("ada")]),
    ("fay@razorback", &[End::Mailbox("gus")]),
    ("list@razorback", &[End::Mailbox("ada"), End::Mailbox("bob"), End::Mailbox("cyd")]),
    ("both@razorback", &[End::Mailbox("eve"), End::Host("else@two.test")]),
    ("forward@razorback", &[End::Host("away@one.test")]),
    ("a@one.test", &[End::Host("a@one.test")]),
    ("b@two.test", &[End::Host("b@two.test")]),
    ("c@three.test", &[End::Host("c@three.test")]),
    ("dead@razorback", &[End::Nobody("void@two.test")]),
    ("void@one.test", &[End::Nobody("void@one.test")]),
    ("hal@shop.test", &[End::Mailbox("hal")]),
    ("jon@shop.test", &[End::Mailbox("ivy")]),
    ("team@shop.test", &[End::Mailbox("hal"), End::Mailbox("bob"), End::Host("else@two.test")]),
];

/// The lines of the aliases table for [`ADDRESSES`].
pub const ALIASES: [&str; 4] =
    ["list: ada, bob, cyd", "both: eve, else@two.test", "forward: away@one.test", "dead: void@two.test"];

/// The users of the domain shop.test, the last of whom gets the mail of unknown ones.
pub const SHOP: [&str; 2] = ["hal", "ivy"];

/// The aliases of shop.test.
pub const SHOP_ALIASES: &str = "team: hal, bob@razorback, else@two.test\n";

/// How the token of a letter ends if the letter has the null sender.
pub const NULL: &str = "-null";

/// The local users with mailboxes.
pub const USERS: [&str; 8] = ["jon", "ada", "bob", "cyd", "eve", "gus", SHOP[0], SHOP[1]];

/// A destination of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The local mailbox of this user.
    Mailbox(&'static str),
    /// A recipient at another host, which usually accepts the recipient.
    Host(&'static str),
    /// A recipient at another host, which always rejects the recipient.
    Nobody(&'static str),
}

/// The fate of a letter, as far as its client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The client got a 250, with this text.
    Taken(String),
    /// The client got another reply, or did not complete the letter.
    Refused,
    /// The client completed the letter, and got no reply.
    Unheard,
}

/// A letter that a client has offered, and what came of it.
#[derive(Debug, Clone)]
pub struct Offered {
    pub token: String,
    pub to: Vec<&'static str>,
    pub fate: Fate,
}

impl Offered {
    fn ends(&self) -> HashSet<End> {
        let meant = ADDRESSES.iter().filter(|(address, _)| self.to.contains(address));
        meant.flat_map(|(_, ends)| ends.iter().copied()).collect()
    }
}

/// All mail that has arrived.
pub struct Arrived {
    mailboxes: HashMap<&'static str, Books>,
    reports: Books,
    /// The reports in the postmaster's mailbox, about letters with the null sender.
    postmaster: Books,
    /// The number of copies at other hosts, by the token of the letter and the recipient.
    elsewhere: HashMap<(String, String), usize>,
    /// Messages at other hosts that differ from their letter.
    pub damaged: Vec<String>,
}

impl Arrived {
    /// Collects the mail of a site, and `received`, the mail that other hosts have accepted.
    ///
    /// # Panics
    /// If a message in a mailbox is incomplete.
    pub fn collect(site: &Site, received: Vec<Received>) -> Self {
        let mailboxes = USERS.iter().map(|&user| (user, Books::of(site.mail(user)))).collect();
        let [reports, postmaster] = ["ret", "root"].map(|user| Books::of(site.mail(user)));
        let mut arrived = Self { mailboxes, reports, postmaster, elsewhere: HashMap::new(), damaged: Vec::new() };
        for message in received {
            arrived.enter(&message);
        }
        let for_postmaster = arrived.postmaster.reported().filter(|token| !token.ends_with(NULL));
        let for_nobody = arrived.reports.reported().filter(|token| token.ends_with(NULL));
        let strays = for_postmaster.chain(for_nobody).chain(arrived.postmaster.tokens());
        let strays: Vec<_> = strays.map(|token| format!("{token} was reported to somebody else")).collect();
        arrived.damaged.extend(strays);
        arrived
    }

    fn enter(&mut self, message: &Received) {
        let text = String::from_utf8_lossy(&message.data).replace("\r\n", "\n");
        // A letter with long lines is converted.
        let text = without_conversion(&text).unwrap_or(text);
        let token = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or("").to_owned();
        if !text.ends_with(&Letter::new(&token).text()) {
            self.damaged.push(format!("another host got this for a letter: {text:.400}"));
        }
        for recipient in &message.recipients {
            let recipient = recipient.trim_matches(['<', '>']).to_owned();
            *self.elsewhere.entry((token.clone(), recipient)).or_default() += 1;
        }
    }

    fn count(&self, token: &str, end: End) -> (usize, usize) {
        match end {
            End::Mailbox(user) => (self.mailboxes[user].letters(token), 0),
            End::Host(recipient) | End::Nobody(recipient) => {
                let there = self.elsewhere.get(&(token.to_owned(), recipient.to_owned()));
                let reports = if token.ends_with(NULL) { &self.postmaster } else { &self.reports };
                (there.copied().unwrap_or(0), reports.failures(token, recipient))
            }
        }
    }
}

/// The numbers of letters, for the last line that a soak prints.
#[derive(Debug, Default)]
pub struct Sum {
    pub offered: usize,
    pub without_sender: usize,
    pub taken: usize,
    pub unheard: usize,
    pub delivered: usize,
    pub sent: usize,
    pub sent_again: usize,
    pub failed: usize,
}

/// The errors, each a line of text with the queue id that it is about, if known. `withheld` has the
/// ids of the letters about which a report was withheld.
pub fn balance(
    offered: &[Offered],
    arrived: &Arrived,
    withheld: &HashSet<String>,
    sum: &mut Sum,
) -> Vec<(String, Option<String>)> {
    let mut wrong: Vec<_> = arrived.damaged.iter().map(|line| (line.clone(), None)).collect();
    for letter in offered {
        let found: BTreeMap<String, (End, (usize, usize))> = letter
            .ends()
            .into_iter()
            .map(|end| (format!("{end:?}"), (end, arrived.count(&letter.token, end))))
            .collect();
        sum.add(letter, found.values());
        let is_there = match letter.fate {
            Fate::Taken(_) => true,
            Fate::Refused => false,
            Fate::Unheard => found.values().any(|(_, counts)| *counts != (0, 0)),
        };
        let id = if let Fate::Taken(reply) = &letter.fate { reply.split(' ').nth(2) } else { None };
        // Reports to an address are limited, most of all those to the postmaster. The log names those that were
        // withheld.
        let may_be_silent = match id {
            Some(id) => withheld.contains(id),
            None => letter.token.ends_with(NULL) || !withheld.is_empty(),
        };
        if !found.values().all(|(end, counts)| is_right(*end, *counts, is_there, may_be_silent)) {
            let counts: Vec<_> = found.values().collect();
            let line =
                format!("{} to {:?}, {:?}: found (there, reported) {counts:?}", letter.token, letter.to, letter.fate);
            wrong.push((line, id.map(str::to_owned)));
        }
    }
    wrong.extend(strangers(offered, arrived).into_iter().map(|line| (line, None)));
    wrong
}

fn is_right(end: End, (there, reported): (usize, usize), is_there: bool, may_be_silent: bool) -> bool {
    match end {
        _ if !is_there => (there, reported) == (0, 0),
        End::Nobody(_) | End::Host(_) if may_be_silent && (there, reported) == (0, 0) => true,
        End::Mailbox(_) => there == 1,
        End::Host(_) => reported <= 1 && there + reported >= 1,
        End::Nobody(_) => (there, reported) == (0, 1),
    }
}

/// The mail that arrived at a destination to which no client has sent it, as lines of text.
fn strangers(offered: &[Offered], arrived: &Arrived) -> Vec<String> {
    let ends: HashMap<&str, HashSet<End>> = offered.iter().map(|o| (o.token.as_str(), o.ends())).collect();
    let is_meant =
        |token: &str, is_it: &dyn Fn(&End) -> bool| ends.get(token).is_some_and(|ends| ends.iter().any(is_it));
    let mut strangers = Vec::new();
    for (user, books) in &arrived.mailboxes {
        let stray = books.tokens().filter(|token| !is_meant(token, &|end| *end == End::Mailbox(user)));
        strangers.extend(stray.map(|token| format!("{token} is in the mailbox of {user}, to whom nobody wrote it")));
    }
    for (token, recipient) in arrived.elsewhere.keys() {
        if !is_meant(token, &|end| matches!(end, End::Host(r) | End::Nobody(r) if r == recipient)) {
            strangers.push(format!("{token} went to {recipient}, to whom nobody wrote it"));
        }
    }
    strangers
}

impl Sum {
    fn add<'a>(&mut self, letter: &Offered, found: impl Iterator<Item = &'a (End, (usize, usize))>) {
        self.offered += 1;
        self.without_sender += usize::from(letter.token.ends_with(NULL));
        self.taken += usize::from(matches!(letter.fate, Fate::Taken(_)));
        self.unheard += usize::from(letter.fate == Fate::Unheard);
        for (end, (there, reported)) in found {
            self.failed += reported;
            match end {
                End::Mailbox(_) => self.delivered += there,
                End::Host(_) | End::Nobody(_) => {
                    self.sent += there.min(&1);
                    self.sent_again += there.saturating_sub(1);
                }
            }
        }
    }
}
