//! The cases that are stopped at every step: messages, and the obstacles on their way.

/// Where the mailboxes of a scene are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mailboxes {
    /// On the file system of the spool. Their directories exist.
    There,
    /// On the file system of the spool. Their directories do not exist yet.
    Missing,
    /// On another file system than the spool.
    Elsewhere,
    /// On the file system of the spool, but behind a bind mount, so that nothing can be renamed
    /// into them.
    Bound,
    /// In home directories of system users, on the file system of the spool.
    Homes,
    /// In home directories of system users. The Maildirs do not exist yet.
    NewHomes,
    /// In home directories of system users, behind a bind mount, so that nothing can be linked into
    /// them.
    BoundHomes,
    /// Those of the domain other.test, which has users and aliases of its own, on another file system
    /// than the spool; all others on that of the spool.
    TwoDomains,
    /// On the file system of the spool, and with a quota.
    Limited,
    /// In home directories of system users, and with a quota.
    LimitedHomes,
}

impl Mailboxes {
    /// Whether the mailboxes are those of system users.
    pub fn are_homes(self) -> bool {
        matches!(self, Self::Homes | Self::NewHomes | Self::BoundHomes | Self::LimitedHomes)
    }

    /// Whether the mailboxes have a quota.
    pub fn are_limited(self) -> bool {
        matches!(self, Self::Limited | Self::LimitedHomes)
    }
}

/// A message, and the obstacles on its way.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// The parameters of MAIL.
    pub mail: &'static str,
    pub to: &'static [&'static str],
    /// The local recipients, some of jon, ada, bob and cyd.
    pub local: &'static [&'static str],
    /// Whether far@far.test is a recipient.
    pub far: bool,
    /// The recipients whose mail a store takes by LMTP.
    pub stored: &'static [&'static str],
    /// Whether the first attempt for a recipient is deferred.
    pub deferred: bool,
    /// The number of reports that the sender gets.
    pub reports: usize,
    /// The number of further spool entries that are made for the members of an alias or a
    /// `.forward`.
    pub passed: usize,
    /// Whether the message is longer than the part that the spool keeps in memory.
    pub long: bool,
    pub mailboxes: Mailboxes,
    /// The fault rules that every process of the scene has, in addition to the tested one.
    pub always: &'static str,
    /// The fault rules that only the first process has.
    pub first: &'static str,
    /// The least number of steps. If the case has fewer, the test fails, since it would show
    /// nothing.
    pub least: usize,
}

impl Case {
    /// Whether the message waits for its release.
    pub fn is_held(&self) -> bool {
        self.mail.contains("HOLDFOR")
    }
}

pub const PLAIN: Case = Case {
    name: "",
    mail: "",
    to: &["jon@razorback"],
    local: &[],
    far: false,
    stored: &[],
    deferred: false,
    reports: 0,
    passed: 0,
    long: false,
    mailboxes: Mailboxes::There,
    always: "",
    first: "",
    least: 0,
};

const LIST: &[&str] = &["ada", "bob", "cyd"];
const NO_TMPFILE: &str = "open spool/new * EOPNOTSUPP";
const NO_RENAME: &str = "rename /mail/ 1-2 EXDEV";

/// The cases: every path that a message can take, those that take longest first.
pub const CASES: &[Case] = &[
    Case {
        name: "mixed",
        to: &["jon@razorback", "list@razorback", "some@razorback", "far@far.test", "void@far.test"],
        local: &["jon", "ada", "bob", "cyd"],
        far: true,
        reports: 2,
        least: 60,
        ..PLAIN
    },
    Case { name: "released", mail: "HOLDFOR=1", to: &["far@far.test"], far: true, least: 6, ..PLAIN },
    Case {
        name: "copies-elsewhere",
        to: &["list@razorback"],
        local: LIST,
        mailboxes: Mailboxes::Elsewhere,
        least: 25,
        ..PLAIN
    },
    Case {
        name: "copies-first",
        to: &["list@razorback"],
        local: LIST,
        mailboxes: Mailboxes::Missing,
        least: 30,
        ..PLAIN
    },
    Case { name: "passed-on", to: &["club@razorback"], local: &["ada", "bob"], passed: 1, least: 25, ..PLAIN },
    Case {
        name: "success",
        to: &["jon@razorback NOTIFY=SUCCESS", "club@razorback NOTIFY=SUCCESS"],
        local: &["jon", "ada", "bob"],
        reports: 1,
        passed: 1,
        least: 35,
        ..PLAIN
    },
    Case { name: "several", to: &["jon@razorback", "ada@razorback"], local: &["jon", "ada"], least: 18, ..PLAIN },
    Case { name: "aliases-long", to: &["list@razorback"], local: LIST, long: true, least: 25, ..PLAIN },
    Case { name: "bounce-unknown", to: &["some@razorback"], local: &["ada"], reports: 1, least: 25, ..PLAIN },
    Case { name: "bounce-550", to: &["void@far.test"], reports: 1, least: 18, ..PLAIN },
    Case { name: "bounce-of-two", to: &["void@far.test", "void2@far.test"], reports: 1, least: 18, ..PLAIN },
    Case {
        name: "deferred-here",
        local: &["jon"],
        deferred: true,
        first: "rename /mail/ 1-2 ENOMEM",
        least: 20,
        ..PLAIN
    },
    Case {
        name: "domains",
        to: &["ada@razorback", "list@other.test", "bob@other.test"],
        local: LIST,
        mailboxes: Mailboxes::TwoDomains,
        least: 30,
        ..PLAIN
    },
    Case {
        name: "domain-elsewhere",
        to: &["cyd@other.test"],
        local: &["cyd"],
        mailboxes: Mailboxes::TwoDomains,
        least: 12,
        ..PLAIN
    },
    Case {
        name: "quota-copies",
        to: &["list@razorback"],
        local: LIST,
        mailboxes: Mailboxes::Limited,
        least: 20,
        ..PLAIN
    },
    Case { name: "quota", local: &["jon"], mailboxes: Mailboxes::Limited, least: 4, ..PLAIN },
    Case { name: "copy-bound", local: &["jon"], mailboxes: Mailboxes::Bound, least: 18, ..PLAIN },
    Case { name: "copy-bound-long", local: &["jon"], mailboxes: Mailboxes::Bound, long: true, least: 18, ..PLAIN },
    Case { name: "copy-refused", local: &["jon"], first: NO_RENAME, least: 18, ..PLAIN },
    Case { name: "copy-elsewhere", local: &["jon"], mailboxes: Mailboxes::Elsewhere, least: 12, ..PLAIN },
    Case { name: "deferred-far", to: &["slow@far.test"], far: true, deferred: true, least: 5, ..PLAIN },
    Case { name: "far", to: &["far@far.test"], far: true, least: 5, ..PLAIN },
    Case { name: "odd-converted", to: &["far@far.test"], far: true, least: 7, ..PLAIN },
    Case { name: "binary", mail: "BODY=BINARYMIME", local: &["jon"], least: 16, ..PLAIN },
    Case {
        name: "stored",
        to: &["a@store.test", "b@store.test", "full@store.test"],
        stored: &["a@store.test", "b@store.test"],
        reports: 1,
        least: 18,
        ..PLAIN
    },
    Case {
        name: "stored-later",
        to: &["a@store.test", "slow@store.test"],
        stored: &["a@store.test", "slow@store.test"],
        deferred: true,
        least: 7,
        ..PLAIN
    },
    Case { name: "renamed", local: &["jon"], least: 4, ..PLAIN },
    Case { name: "renamed-first", local: &["jon"], mailboxes: Mailboxes::Missing, least: 7, ..PLAIN },
    Case { name: "renamed-long", local: &["jon"], long: true, least: 4, ..PLAIN },
    Case { name: "renamed-no-tmpfile", local: &["jon"], always: NO_TMPFILE, least: 5, ..PLAIN },
    Case { name: "renamed-no-tmpfile-long", local: &["jon"], long: true, always: NO_TMPFILE, least: 5, ..PLAIN },
    Case {
        name: "home-of-another",
        to: &["fay@razorback"],
        local: &["jon"],
        passed: 1,
        mailboxes: Mailboxes::Homes,
        least: 20,
        ..PLAIN
    },
    Case {
        name: "homes",
        to: &["jon@razorback", "ada@razorback"],
        local: &["jon", "ada"],
        mailboxes: Mailboxes::Homes,
        least: 10,
        ..PLAIN
    },
    Case {
        name: "homes-mixed",
        to: &["list@razorback", "some@razorback", "fay@razorback", "void@far.test"],
        local: &["jon", "ada", "bob", "cyd"],
        reports: 2,
        passed: 1,
        mailboxes: Mailboxes::NewHomes,
        least: 40,
        ..PLAIN
    },
    Case { name: "home-bound", local: &["jon"], mailboxes: Mailboxes::BoundHomes, least: 10, ..PLAIN },
    Case { name: "home", local: &["jon"], mailboxes: Mailboxes::Homes, least: 5, ..PLAIN },
    Case { name: "home-first", local: &["jon"], mailboxes: Mailboxes::NewHomes, least: 5, ..PLAIN },
    Case {
        name: "home-quota",
        to: &["jon@razorback", "ada@razorback"],
        local: &["jon", "ada"],
        mailboxes: Mailboxes::LimitedHomes,
        least: 10,
        ..PLAIN
    },
    Case { name: "home-long", local: &["jon"], long: true, mailboxes: Mailboxes::Homes, least: 5, ..PLAIN },
];
