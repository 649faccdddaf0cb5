//! What a submitted message is given, tried with headers that nobody would write:
//! a generator puts them together from what headers are made of, and from any
//! octets. Nothing panics, no octet of a body changes, the pieces in which a text
//! comes make no difference, and Python's email package (`submit_reads.py`, where
//! python3 is installed) reads what it could read before, and finds what was missing.

use std::io::Write;
use std::process::{Command, Stdio};

use penfold::submit::{Letter, Terms};

/// Messages, a few seconds' worth.
const COUNT: usize = 3000;

/// What headers are made of.
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

/// Whole lines, so that many headers are such as people write.
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

/// A generator of numbers: the same ones at every run (xorshift).
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

    /// A message: some lines, some words, some octets, and a body.
    fn message(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        let (lines, words) = (self.below(8), if self.below(3) == 0 { self.below(30) } else { 0 });
        (0..lines).for_each(|_| text.extend_from_slice(self.one(LINES).as_bytes()));
        (0..words).for_each(|_| text.extend_from_slice(self.one(WORDS).as_bytes()));
        if self.below(10) == 0 {
            let octets = self.below(40);
            // A bare CR is refused before a letter is made of it.
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
}

fn terms() -> Terms {
    Terms {
        hostname: "mx.test".into(),
        domain: "razorback.test".into(),
        id: "ID".into(),
        date: "Sat, 21 Nov 2026 11:00:00 +0000".into(),
        sender: Some("jon@razorback.test".parse().expect("an address")),
        identity: None,
        rewriting: None,
    }
}

/// What comes out when the text comes in pieces cut by the dice.
fn pass(text: &[u8], dice: &mut Dice) -> Vec<u8> {
    let (mut letter, mut out, mut rest) = (Letter::new(terms()), Vec::new(), text);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(dice.below(rest.len()) + 1);
        letter.feed(piece, &mut out).expect("memory");
        rest = after;
    }
    letter.finish(&mut out).expect("memory");
    assert_eq!(letter.refusal(), None);
    out
}

#[test]
fn no_header_is_too_strange_and_no_body_is_touched() {
    let (mut dice, mut pairs) = (Dice(0x1234_5678_9abc), Vec::new());
    for _ in 0..COUNT {
        let text = dice.message();
        let sent = pass(&text, &mut dice);
        assert_eq!(pass(&text, &mut dice), sent, "cut otherwise: {:?}", String::from_utf8_lossy(&text));
        let body = b"\nTo: the body\nFrom \xff\0\n";
        assert_eq!(text.ends_with(body), sent.ends_with(body), "{:?}", String::from_utf8_lossy(&text));
        for message in [&text, &sent] {
            pairs.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
            pairs.extend_from_slice(message);
        }
    }
    read_by_python(pairs);
}

fn read_by_python(pairs: Vec<u8>) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/submit_reads.py");
    let child = Command::new("python3")
        .args(["-B", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: python3 is not installed");
        return;
    };
    // It says nothing before it has read all, but may end early.
    let _ = child.stdin.take().expect("a pipe").write_all(&pairs);
    let output = child.wait_with_output().expect("python3 ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let good: usize = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    assert!(good > COUNT / 10, "only {good} messages could be read before");
}
