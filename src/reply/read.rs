//! Assembles a reply from the lines of another host, and tolerates deviations from RFC 5321.
//!
//! A line needs only three digits. A hyphen after the digits means that more lines follow; a blank,
//! another character or nothing means that the line is the last. Lines without a code are accepted
//! between the first and the last line. A line may end with LF alone (see [`crate::smtp::line`]).
//! Empty lines before a reply are skipped. Text that is not UTF-8 is read as Latin-1. Codes outside
//! 200 to 599 are kept, and mean neither success nor failure.
//!
//! If the lines have different codes of one class, the last code counts. If the codes are of
//! different classes, the reply is unclear ([`Reply::is_unclear`]) and counts as a temporary
//! refusal. In both cases the text is quoted in full. Lines and octets are bounded, and control
//! characters are replaced.

use std::borrow::Cow;

use super::{MAX_LINE, MAX_LINES, Reply, Status};
use crate::characters;

/// The code of an unclear reply.
const UNCLEAR: u16 = 400;
/// The maximum number of characters quoted from a line that is not a reply.
const QUOTED: usize = 80;

/// Assembles a reply from its lines.
#[derive(Debug, Default)]
pub struct ReplyReader {
    /// The codes of the first and of the last line so far; `None` before the first line.
    codes: Option<(u16, u16)>,
    /// Whether the codes of the lines are of different classes.
    is_unclear: bool,
    status: Option<Status>,
    /// For each line, its text without code and status, and the whole line.
    lines: Vec<(String, String)>,
}

/// The error for a line that is not part of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl ReplyReader {
    /// Takes one line, without its line end. Returns the reply if the line is the last one.
    ///
    /// # Errors
    /// [`Malformed`] if the first line has no code.
    pub fn line(&mut self, line: &[u8]) -> Result<Option<Reply>, Malformed> {
        let line = line.get(..MAX_LINE + 4).unwrap_or(line);
        let line = if self.codes.is_none() { line.trim_ascii_start() } else { line };
        let Some((code, is_last, text)) = split(line).filter(|(code, ..)| self.codes.is_none() || is_usual_code(*code))
        else {
            return match self.codes {
                None if line.is_empty() => Ok(None),
                None => Err(Malformed),
                Some(_) => {
                    self.keep(clean(line), clean(line));
                    Ok(None)
                }
            };
        };
        let (first, _) = self.codes.unwrap_or((code, code));
        self.codes = Some((first, code));
        self.is_unclear |= first / 100 != code / 100;
        let text = clean(text.get(..MAX_LINE).unwrap_or(text));
        let text = match Status::read(&text) {
            Some((status, rest)) if code != 354 => {
                self.status.get_or_insert(status);
                rest.to_owned()
            }
            _ => text,
        };
        self.keep(text, clean(line));
        Ok(if is_last { self.end() } else { None })
    }

    /// Ends a reply whose last line never came. Returns the part that was received, if that part is
    /// a refusal.
    pub fn cut_short(&mut self) -> Option<Reply> {
        self.end().filter(Reply::is_refusal)
    }

    fn keep(&mut self, text: String, line: String) {
        if self.lines.len() < MAX_LINES {
            self.lines.push((text.trim_end().to_owned(), line.trim_end().to_owned()));
        }
    }

    fn end(&mut self) -> Option<Reply> {
        let Self { codes, is_unclear, status, lines } = std::mem::take(self);
        let (first, last) = codes?;
        let code = if is_unclear { UNCLEAR } else { last };
        let is_mixed = is_unclear || first != last;
        let quoted = || lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join(" ");
        let quoted = is_mixed.then(quoted);
        let lines = lines.into_iter().map(|(text, _)| text).chain(quoted).map(Cow::from).collect();
        Some(Reply { code, status, lines, is_mixed })
    }
}

impl Reply {
    /// Whether the lines have codes of different classes. If so, later replies over the connection
    /// may be answers to any command.
    pub fn is_unclear(&self) -> bool {
        self.code == UNCLEAR && self.is_mixed
    }

    /// Parses a whole reply; for tests.
    pub fn read_all(text: &[u8]) -> Option<Self> {
        let mut reader = ReplyReader::default();
        text.split_inclusive(|&b| b == b'\n').find_map(|line| reader.line(line.trim_ascii_end()).ok().flatten())
    }
}

/// Returns the start of a line that is not a reply, for an error message.
pub fn quoted(line: &[u8]) -> String {
    let text = clean(line.get(..4 * QUOTED).unwrap_or(line));
    match text.trim().char_indices().nth(QUOTED) {
        Some((at, _)) => format!("{}...", text.trim().get(..at).unwrap_or_default()),
        None => text.trim().to_owned(),
    }
}

fn is_usual_code(code: u16) -> bool {
    (200..600).contains(&code)
}

/// Splits a line into its code, a bool that is true for the last line, and its text. Returns `None`
/// if the line has no code.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3).filter(|(digits, _)| digits.iter().all(u8::is_ascii_digit))?;
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b'-', text)) => Some((code, false, text)),
        Some((b' ' | b'\t', text)) => Some((code, true, text)),
        Some((next, _)) if next.is_ascii_digit() => None,
        Some(_) => Some((code, true, rest)),
    }
}

/// Returns octets as text, without characters that could mislead a terminal or a log.
fn clean(octets: &[u8]) -> String {
    let shown = |c: char| if c == '\t' { ' ' } else { characters::shown(c) };
    match std::str::from_utf8(octets) {
        Ok(text) => text.chars().map(shown).collect(),
        // If the line was cut off within a character, the text before that is still UTF-8.
        Err(e) if e.error_len().is_none() => String::from_utf8_lossy(octets).chars().map(shown).collect(),
        Err(_) => octets.iter().map(|&b| shown(b.into())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Option<(u16, String, Option<Status>)> {
        Reply::read_all(text).map(|reply| (reply.code(), reply.to_string(), reply.status()))
    }

    #[test]
    fn replies_with_deviations_are_read() {
        for (text, code, shown, status) in [
            ("250 2.1.5 ok\r\n", 250, "250 2.1.5 ok", Some(Status(2, 1, 5))),
            ("250-one\r\n250 two\r\n", 250, "250 one two", None),
            ("550-5.1.1 no\r\n550 5.1.1 such user\r\n", 550, "550 5.1.1 no such user", Some(Status(5, 1, 1))),
            ("450\r\n", 450, "450", None),
            ("450 4.7.2\r\n", 450, "450 4.7.2", Some(Status(4, 7, 2))),
            ("250 a\x1b[31mb\tc\r\n", 250, "250 a?[31mb c", None),
            ("554 5.7.1234 x\r\n", 554, "554 5.7.1234 x", None),
            // Deviations in line ends and blanks.
            ("550 no\n", 550, "550 no", None),
            ("550-no\n550 never\n", 550, "550 no never", None),
            ("\r\n\r\n550 no\r\n", 550, "550 no", None),
            ("  550 no\r\n", 550, "550 no", None),
            ("550\tno\r\n", 550, "550 no", None),
            ("550User unknown\r\n", 550, "550 User unknown", None),
            ("550: no\r\n", 550, "550 : no", None),
            ("550-\r\n550\r\n", 550, "550", None),
            // Text without a code between the first and the last line.
            (
                "550-no\r\nmore of it\r\n123 Main Street\r\n\r\n550 end\r\n",
                550,
                "550 no more of it 123 Main Street end",
                None,
            ),
            // Lines with different codes, and unusual codes.
            ("550-no\r\n554 5.7.1 spam\r\n", 554, "550-no 554 5.7.1 spam", Some(Status(5, 7, 1))),
            ("250-a\r\n251 b\r\n", 251, "250-a 251 b", None),
            ("250-ok\r\n550 no\r\n", 400, "250-ok 550 no", None),
            ("451-later\r\n550 never\r\n", 400, "451-later 550 never", None),
            ("550-no\r\n451-later\r\n550 no\r\n", 400, "550-no 451-later 550 no", None),
            ("354-go\r\n250 on\r\n", 400, "354-go 250 on", None),
            ("150 wait\r\n", 150, "150 wait", None),
            ("099 x\r\n", 99, "099 x", None),
            ("999 x\r\n", 999, "999 x", None),
            ("000\r\n", 0, "000", None),
        ] {
            assert_eq!(read(text.as_bytes()), Some((code, shown.to_owned(), status)), "{text:?}");
            let unclear = Reply::read_all(text.as_bytes()).is_some_and(|reply| reply.is_unclear());
            assert_eq!(unclear, code == 400, "{text:?}");
        }
        for text in ["", "25", "hello", "2500 x", "25O ok", "-250 ok", "SSH-2.0-x\r\n", "250-a\r\n", "250-a\r\nb\r\n"] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Reply::read_all(b"400 real\r\n").map(|reply| reply.is_unclear()), Some(false));
    }

    #[test]
    fn text_of_any_alphabet_is_kept_and_control_characters_are_replaced() {
        for (text, shown) in [
            (&b"550 unbekannter Empf\xe4nger"[..], "550 unbekannter Empf\u{e4}nger"),
            ("550 Empf\u{e4}nger \u{4f60}".as_bytes(), "550 Empf\u{e4}nger \u{4f60}"),
            (b"550 \x85\x9b2J\xff", "550 ??2J\u{ff}"),
            ("550 a\u{202e}b\u{2028}c\u{feff}\u{9b}d".as_bytes(), "550 a?b?c??d"),
            (
                "550 a\u{200b}\u{ad}\u{2060}\u{e0001} \u{200d}\u{3000}\u{65e5}".as_bytes(),
                "550 a???? \u{200d}\u{3000}\u{65e5}",
            ),
            (b"550 a\0b\rc", "550 a?b?c"),
        ] {
            assert_eq!(Reply::read_all(text).expect("a reply").to_string(), shown);
        }
        assert_eq!(quoted(b"  SSH-2.0-\x1b[2J \r"), "SSH-2.0-?[2J ?");
        assert_eq!(quoted(&[b'x'; 5000]).len(), QUOTED + 3);
    }

    #[test]
    fn a_refusal_without_its_last_line_counts() {
        let cut = |text: &[u8]| {
            let mut reader = ReplyReader::default();
            for line in text.split(|&b| b == b'\n') {
                assert_eq!(reader.line(line), Ok(None));
            }
            reader.cut_short().map(|reply| reply.to_string())
        };
        assert_eq!(cut(b"550-go\n550-away").as_deref(), Some("550 go away"));
        assert_eq!(cut(b"451-not now").as_deref(), Some("451 not now"));
        for text in [&b"250-fine"[..], b"354-go", b"999-x", b""] {
            assert_eq!(cut(text), None);
        }
    }

    #[test]
    fn a_reply_without_end_is_cut_off() {
        let mut reader = ReplyReader::default();
        let line = [b"250-".as_slice(), &[b'x'; 5000]].concat();
        for _ in 0..10_000 {
            assert_eq!(reader.line(&line), Ok(None));
        }
        let reply = reader.line(b"250 end").expect("well formed").expect("complete");
        assert_eq!(reply.lines().len(), MAX_LINES);
        assert!(reply.lines().iter().all(|l| l.len() <= MAX_LINE));
    }
}
