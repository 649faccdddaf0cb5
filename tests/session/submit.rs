//! The header fields that a submitted message gets, tested with generated headers.
//!
//! A generator combines words of headers and random octets. Nothing panics, no octet of a body
//! changes, and the pieces in which a text arrives make no difference. If Python's email package
//! (`submit_reads.py`, where python3 is installed) could parse a message before, it can parse it
//! afterwards, and finds the added fields. For an authenticated user it finds no From or Sender
//! with another user's address, in any spelling (`submit_bound.py`). In well-formed lists of
//! recipients it finds the addresses that penfold finds (`recipients_read.py`).

use common::Site;
use common::programs::python;
use penfold::message::recipients::recipients;
use penfold::submit::senders::{Identity, Senders};
use penfold::submit::{HeaderFilter, Submission};

/// The number of generated messages.
const COUNT: usize = 3000;

/// Parts of headers, for the generator.
const WORDS: &[&str] = &[
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Date",
    "Message-ID",
    "Subject",
    "Received",
    ": ",
    ": ",
    ": ",
    ":",
    " ",
    " ",
    "\n",
    "\n ",
    "\n\t",
    ", ",
    ", ",
    ",",
    ";",
    "<",
    ">",
    "<jon>",
    "<jon@x.org>",
    "Jon <jon@x.org>",
    "Jon <jon>",
    "(",
    ")",
    "(a \\) b)",
    "\"",
    "\"J. D\"",
    "\\",
    "jon",
    "ann.doe",
    "elvis@y.test",
    "@",
    ".",
    "[192.0.2.1]",
    "[",
    "]",
    "staff: ",
    "staff: jon, ann;",
    "undisclosed-recipients:;",
    "=?utf-8?q?J=C3=B6n?=",
    "J\u{f6}n",
    "a b c",
    "<@a:b@c>",
    "Sat, 21 Nov 2026 10:00:00 +0000",
    "<1@x.org>",
    "From x\n",
    "\n\n",
];

/// Whole lines, so that many headers look like real ones.
const LINES: &[&str] = &[
    "From: Jon <jon@x.org>\n",
    "From: jon\n",
    "Sender: ann\n",
    "To: jon, \"Doe, Ann\" <ann>, bob@x.org\n",
    "Cc: Jon\n <jon>,\n\tann (the\n  other)\n",
    "To: staff: jon, ann@x.org;\n",
    "Reply-To: list@x.org\n",
    "Date: Sat, 21 Nov 2026 10:00:00 +0000\n",
    "Message-ID: <1@x.org>\n",
    "Subject: lunch\n on Friday\n",
    "To: =?utf-8?q?J=C3=B6n?= <jon>\n",
    "Cc: undisclosed-recipients:;\n",
    "X-Long: a\n b\n c\n",
];

/// Lines of a user who has logged in as jon, may send as info, and tries to send as elvis.
const HOSTILE: &[&str] = &[
    "jon@razorback.test",
    "jon@razorback.test",
    "<jon@razorback.test>",
    "<jon@razorback.test>",
    "Jon <jon+tag@razorback.test>",
    "<info@razorback.test>",
    "info",
    "\"jon\"@razorback.test",
    "elvis@y.test",
    "<elvis@y.test>",
    "Elvis <elvis@y.test>",
    "\"elvis@y.test\"",
    "\"elvis@y.test\" ",
    "\"<elvis@y.test>\" ",
    "(elvis@y.test)",
    "(<elvis@y.test>,",
    "=?utf-8?q?elvis=40y.test?=",
    "=?utf-8?b?ZWx2aXNAeS50ZXN0?= ",
    "=?utf-8?q?=3Celvis=40y.test=3E?= ",
    "=?utf-8?q?=0AFrom=3A_elvis=40y.test?= ",
    "staff: ",
    "staff: jon;",
    "staff: elvis@y.test;",
    ":;",
    ";",
    ", ",
    ", ",
    ",",
    "\n ",
    "\n\t",
    "\n \n ",
    " ",
    "(",
    ")",
    "((a) b)",
    "\"",
    "\\",
    "\\\"",
    "<",
    ">",
    "<@y.test:jon@razorback.test>",
    "@",
    "elvis@",
    "y.test",
    ".",
    "elvis",
    "J\u{f6}n ",
    "\0",
    "\u{b}",
    "\u{c}",
    "\u{85}",
    "\u{2028}",
    "[",
    "]",
];

/// Display names of addresses and groups.
const PHRASES: &[&str] = &[
    "Jon",
    "Jon Postel",
    "\"Postel, Jon\"",
    "\"J \\\"X\\\" <y@z.org>; P\"",
    "\"ann@x.org\"",
    "J. B. Postel",
    "=?utf-8?q?J=C3=B6n?=",
    "Jon (of\n 1983) Postel",
];

/// Well-formed addresses.
const ADDRESSES: &[&str] =
    &["jon@x.org", "jon.b+c@x.y.org", "o'hara@x.org", "\"j p\"@x.org", "jon@[192.0.2.1]", "{x}=y!z%w@x.org"];

/// Names of fields that a reader could take for From or Sender, or for the end of the header.
const NAMES: &[&str] = &[
    "From: ",
    "From: ",
    "From:",
    "FROM: ",
    "from : ",
    "From\t: ",
    "Sender: ",
    "Sender:",
    "sEnDeR : ",
    "From\u{b}: ",
    "From\0: ",
    " From: ",
    "\tSender: ",
    "X-A: b\n From: ",
    "Subject: a\n",
    "From ",
    ">From: ",
    "From: \nFrom: ",
    ": ",
    "\n",
];

/// A generator (xorshift) that gives the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("below a usize")
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// A random message: some lines, some words, some octets, and a body.
    fn message(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        let (lines, words) = (self.below(8), if self.below(3) == 0 { self.below(30) } else { 0 });
        (0..lines).for_each(|_| text.extend_from_slice(self.one(LINES).as_bytes()));
        (0..words).for_each(|_| text.extend_from_slice(self.one(WORDS).as_bytes()));
        if self.below(10) == 0 {
            let octets = self.below(40);
            // There is no bare CR: the session rejects it before the filter for submissions sees
            // it.
            text.extend((0..octets).map(|_| self.below(256) as u8).filter(|&b| b != b'\r'));
        }
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        if self.below(4) > 0 {
            text.extend_from_slice(b"\nTo: the body\nFrom \xff\0\n");
        }
        text
    }

    /// A random list of recipients that is well-formed.
    fn list(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.below(6) {
            let (name, blank) = (self.one(PHRASES), self.one(&[" ", "\n ", "\n\t"]));
            let address = self.one(ADDRESSES);
            text += &match self.below(5) {
                0 => format!("{address}, "),
                1 => format!("{address}{blank}(Jon \\) (there, <x@y.z>)),{blank}"),
                2 => format!("{name}:{blank}{address}, Ann <ann@x.org>; ,"),
                3 => format!("{name}: ;,"),
                _ => format!("{name}{blank}<{address}> ,{blank}"),
            };
        }
        text.trim_end_matches([',', ' ', '\n', '\t']).to_owned()
    }

    /// A random header with which jon tries to appear as another sender.
    fn hostile(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..=self.below(3) {
            text.extend_from_slice(self.one(NAMES).as_bytes());
            // Most fields begin with a well-formed address, because otherwise no header would be
            // accepted.
            let honest = self.below(4) > 0;
            text.extend_from_slice(if honest { self.one(&HOSTILE[..8]).as_bytes() } else { b"" });
            (0..self.below(if honest { 4 } else { 7 }))
                .for_each(|_| text.extend_from_slice(self.one(HOSTILE).as_bytes()));
            text.push(b'\n');
        }
        text.extend_from_slice(if self.below(2) == 0 { b"\nFrom: elvis@y.test\n" } else { b"" });
        text
    }
}

fn terms() -> Submission {
    Submission {
        hostname: "mx.test".into(),
        domain: "razorback.test".into(),
        id: "ID".into(),
        date: "Sat, 21 Nov 2026 11:00:00 +0000".into(),
        sender: Some("jon@razorback.test".parse().expect("an address")),
        identity: None,
        rewriting: None,
    }
}

/// Passes a text through the filter in random pieces. Returns the output, or `None` if the text is
/// rejected.
fn pass(submission: Submission, text: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
    let (mut filter, mut out, mut rest) = (HeaderFilter::new(submission), Vec::new(), text);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(dice.below(rest.len()) + 1);
        filter.feed(piece, &mut out).expect("memory");
        rest = after;
    }
    filter.finish(&mut out).expect("memory");
    filter.refusal().is_none().then_some(out)
}

/// A message in the form that the Python scripts read: its length, and then the message.
fn packed(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).expect("short").to_be_bytes(), message].concat()
}

#[test]
fn any_header_is_survived_and_no_body_changes() {
    let (mut dice, mut pairs) = (Dice(0x1234_5678_9abc), Vec::new());
    for _ in 0..COUNT {
        let text = dice.message();
        let sent = pass(terms(), &text, &mut dice).expect("nobody is bound");
        let again = pass(terms(), &text, &mut dice).expect("nobody is bound");
        assert_eq!(again, sent, "cut otherwise: {:?}", String::from_utf8_lossy(&text));
        let body = b"\nTo: the body\nFrom \xff\0\n";
        assert_eq!(text.ends_with(body), sent.ends_with(body), "{:?}", String::from_utf8_lossy(&text));
        pairs.extend([packed(&text), packed(&sent)].concat());
    }
    let Some(output) = python("session/submit_reads.py", &pairs) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let good: usize = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    assert!(good > COUNT / 10, "only {good} messages could be read before");
}

/// The identity of jon, who may also send as info.
fn jon(site: &Site) -> Identity {
    site.write("senders", "jon@razorback.test info@razorback.test\n");
    site.configure();
    let config = penfold::config::load(&site.path("penfold.conf")).expect("a configuration");
    Senders::open(&config).expect("a table").identity("jon@razorback.test").expect("an address")
}

#[test]
fn an_authenticated_user_cannot_appear_as_another_sender() {
    let (mut dice, site, mut taken) = (Dice(0x0ddb_a110), Site::new(), Vec::new());
    let jon = jon(&site);
    let mut refused = 0;
    for _ in 0..COUNT {
        let text = dice.hostile();
        let sender = [Some("jon@razorback.test"), Some("info@razorback.test"), None][dice.below(3)];
        let terms = || Submission {
            sender: sender.map(|address| address.parse().expect("an address")),
            identity: Some(jon.clone()),
            ..terms()
        };
        let sent = pass(terms(), &text, &mut dice);
        assert_eq!(pass(terms(), &text, &mut dice), sent, "cut otherwise: {:?}", String::from_utf8_lossy(&text));
        match sent {
            Some(sent) => taken.extend(packed(&sent)),
            None => refused += 1,
        }
    }
    assert!(refused > COUNT / 10, "only {refused} were refused");
    let Some(output) = python("session/submit_bound.py", &taken) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: usize = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    assert!(read > COUNT / 10, "only {read} messages could be read");
}

#[test]
fn recipients_are_those_found_by_python() {
    let mut dice = Dice(0x00c0_ffee);
    let lists: Vec<String> = (0..COUNT).map(|_| dice.list()).collect();
    let packed: Vec<u8> = lists.iter().flat_map(|list| packed(list.as_bytes())).collect();
    let Some(output) = python("session/recipients_read.py", &packed) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = String::from_utf8(output.stdout).expect("ASCII");
    assert_eq!(found.lines().count(), lists.len());
    for (list, found) in lists.iter().zip(found.lines()) {
        let read = recipients(list.as_bytes()).unwrap_or_else(|part| panic!("{list}: {part:?}"));
        let read: Vec<String> = read.iter().map(|a| format!("{:?}", a.to_string())).collect();
        assert_eq!(format!("[{}]", read.join(", ")), found, "{list}");
    }
}
