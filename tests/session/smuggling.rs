//! Only CR LF . CR LF ends a message (RFC 5321 4.1.1.4), and no lookalike does.
//!
//! SMTP smuggling (CVE-2023-51764, -51765, -51766): if two servers disagree on the end of a
//! message, a second message with a forged sender can hide in the first. Every lookalike is sent
//! whole, cut in two at every byte near it, byte by byte, and across likely buffer boundaries. A
//! message with a lookalike gets one reply, which is a rejection if there is a bare CR or LF. The
//! hidden message is never executed. A clean message arrives byte for byte.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use common::dialog::Wire;
use common::{Daemon, Site};

/// Lookalikes of CR LF . CR LF with a bare CR or LF. A message with one is rejected.
const FLAWED: &[&str] = &[
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r.\r\n",
    "\r\n.\r",
    "\r.\n",
    "\n.\r",
    "\r\n.\r\r\n",
    "\r\r\n.\r\r\n",
    "\r\n\r.\r\n",
    "\n\n.\r\n",
    "\n\r.\r\n",
    "\r\n.\n\r\n",
    "\r\n.\n\n",
    "\n\r\n.\n\r\n",
    "\r\n.\r\0\n",
    "\r\n\n.\n\r\n",
    "\r\n\0.\n",
    "\n.\0\r\n",
    "\r\0\n.\r\0\n",
    "\r\n.\r \n",
    "\r\r\n.\n",
    "\r\n.\rQUIT\r\n",
];

/// Lookalikes without a bare CR or LF. They are part of the text.
const CLEAN: &[&str] = &[
    "\r\n.\0\r\n",
    "\r\n\0.\r\n",
    "\r\n. \r\n",
    "\r\n .\r\n",
    "\r\n..\r\n",
    "\r\n.\t\r\n",
    "\r\n.\u{85}\r\n",
    "\r\n.\\r\\n\r\n",
    "\r\n.=0D=0A\r\n",
    "\r\n\u{2024}\r\n",
    "\u{2028}.\u{2028}",
    "\x0b.\x0b",
    "\x0c.\x0c",
];

const HIDDEN: &str = "MAIL FROM:<admin@razorback>\r\nRCPT TO:<root@razorback>\r\nDATA\r\n\
                      Subject: smuggled\r\n\r\nsmuggled\r\n.\r\n";

const HEADER: &str = "Subject: lookalike\r\n\r\n";

/// How the bytes of a message are divided into writes.
#[derive(Debug, Clone, Copy)]
enum Writes {
    One,
    TwoAt(usize),
    Bytes,
}

/// A message, the way in which it is sent, and its recipient.
#[derive(Debug, Clone)]
struct Case {
    text: Vec<u8>,
    writes: Writes,
    to: &'static str,
}

#[test]
fn a_lookalike_with_a_bare_cr_or_lf_is_refused_in_every_split() {
    let site = Site::new();
    let daemon = site.start();
    let mut cases = Vec::new();
    for lookalike in FLAWED {
        let (text, at) = smuggler(0, lookalike);
        cases.extend(every_way(&text, at, lookalike.len()));
    }
    // If a server reads in blocks of one of these sizes, the lookalike lies across a boundary.
    for lookalike in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r\n.\r\r\n"] {
        for block in [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
            for before in 0..=lookalike.len() {
                let (text, _) = smuggler(block - before, lookalike);
                cases.push(Case { text, writes: Writes::One, to: "jon" });
            }
        }
    }
    play(&daemon, &cases, |reply| reply.starts_with("554 5.6.0 "));
    assert!(daemon.settles(&site), "left in the spool: {:?}", site.spooled());
    assert_eq!((site.mail("jon").len(), site.mail("root").len()), (0, 0));
}

#[test]
fn a_lookalike_without_one_is_text() {
    let site = Site::new();
    let daemon = site.start();
    let mut cases = Vec::new();
    for lookalike in CLEAN {
        let (text, at) = smuggler(0, lookalike);
        cases.extend(every_way(&text, at, lookalike.len()));
    }
    // If the lookalike has a NUL, the message may also be rejected.
    play(&daemon, &cases, |reply| reply.starts_with("250 2.0.0 ") || reply.starts_with('5'));
    assert!(daemon.settles(&site), "left in the spool: {:?}", site.spooled());
    assert_eq!(site.mail("root").len(), 0);
    for message in site.mail("jon") {
        assert!(message.ends_with(b"\nsmuggled\n"), "{}", String::from_utf8_lossy(&message));
    }
}

#[test]
fn a_clean_message_arrives_byte_for_byte_in_every_split() {
    let site = Site::new();
    let daemon = site.start();
    let wire = b"Subject: clean\r\n\r\n..\r\n...x\r\n\r\n\xe4\xff \x01\ttab\r\n . \r\nMAIL FROM:<a@b>\r\nend\r\n.\r\n";
    let text = b"Subject: clean\n\n.\n..x\n\n\xe4\xff \x01\ttab\n . \nMAIL FROM:<a@b>\nend\n";
    let splits = (1..wire.len()).map(Writes::TwoAt).chain([Writes::One, Writes::Bytes]);
    let cases: Vec<_> = splits.map(|writes| Case { text: wire.to_vec(), writes, to: "jon" }).collect();
    play(&daemon, &cases, |reply| reply.starts_with("250 2.0.0 "));
    let messages = daemon.wait_mail(&site, "jon", cases.len());
    assert_eq!(messages.len(), cases.len());
    for message in messages {
        let message_shown = String::from_utf8_lossy(&message);
        assert!(message.ends_with(&[b"\n", &text[..]].concat()), "{message_shown}");
        assert!(message.starts_with(b"Return-Path: <client@frogbog>\n"), "{message_shown}");
    }
}

/// A message in which another one hides behind a lookalike. Returns the text, and the position of
/// the lookalike: `padding`, or a little more if the header needs it.
fn smuggler(padding: usize, lookalike: &str) -> (Vec<u8>, usize) {
    let mut text = HEADER.to_owned();
    while text.len() + 100 < padding {
        text.push_str(&"x".repeat(70));
        text.push_str("\r\n");
    }
    text.push_str(&"y".repeat(padding.saturating_sub(text.len()).max(5)));
    let at = text.len();
    (format!("{text}{lookalike}{HIDDEN}").into_bytes(), at)
}

/// The ways of sending a text: in one write, byte by byte, and cut in two at every position around
/// the lookalike and around the real end.
fn every_way(text: &[u8], at: usize, length: usize) -> Vec<Case> {
    let near = at - 1..=at + length + 5;
    let end = text.len() - 6..text.len();
    let splits = near.chain(end).map(Writes::TwoAt).chain([Writes::One, Writes::Bytes]);
    splits.map(|writes| Case { text: text.to_vec(), writes, to: "jon" }).collect()
}

/// Plays each case in a session of its own, four at a time. Asserts that each message gets exactly
/// one reply, which is `wanted`, and then the reply to QUIT.
fn play(daemon: &Daemon, cases: &[Case], wanted: impl Fn(&str) -> bool + Sync) {
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for quarter in cases.chunks(cases.len().div_ceil(4)) {
            let (failures, wanted) = (&failures, &wanted);
            scope.spawn(move || {
                for case in quarter {
                    let failure = match session(daemon, case) {
                        Ok(replies) if replies.len() == 2 && wanted(&replies[0]) && replies[1].starts_with("221") => {
                            None
                        }
                        Ok(replies) => Some(format!("{replies:?}")),
                        Err(why) => Some(why),
                    };
                    let shown = || String::from_utf8_lossy(&case.text).escape_debug().to_string();
                    let shown = failure.map(|f| format!("{:?} {}: {f}", case.writes, shown()));
                    failures.lock().expect("no panic").extend(shown);
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// Plays a case. Returns all replies after the 354, up to the end of the connection.
fn session(daemon: &Daemon, case: &Case) -> Result<Vec<String>, String> {
    let mut wire = Wire::new(daemon.connect(), false);
    wire.read_line()?;
    let rcpt = format!("RCPT TO:<{}@razorback>", case.to);
    for (line, code) in
        [("HELO frogbog", "250"), ("MAIL FROM:<client@frogbog>", "250"), (&rcpt, "250"), ("DATA", "354")]
    {
        let reply = wire.ask(line)?;
        if !reply.starts_with(code) {
            return Err(format!("{line}: {reply}"));
        }
    }
    let parts: Vec<&[u8]> = match case.writes {
        Writes::One => vec![&case.text],
        Writes::TwoAt(at) => vec![&case.text[..at], &case.text[at..]],
        Writes::Bytes => case.text.chunks(1).collect(),
    };
    for (number, part) in parts.iter().enumerate() {
        if number == 1 {
            // After this pause the server has usually read the first part.
            thread::sleep(Duration::from_millis(1));
        }
        wire.send(part).map_err(|error| error.to_string())?;
    }
    wire.send(b"QUIT\r\n").map_err(|error| error.to_string())?;
    let mut replies = Vec::new();
    while let Some(reply) = wire.read_line()? {
        replies.push(reply);
    }
    Ok(replies)
}
