//! One record as a line: `CHECKSUM TIME KEY VALUE`, ending in LF.
//!
//! The checksum (FNV-1a, eight hexadecimal digits) covers the rest of the line, so that blocks of
//! zeros and partial lines, which a power cut may leave, are not taken for records. The checksum
//! does not protect against attackers: only the server's user can write the files. The time is in
//! seconds since 1970. In key and value, `%`, blanks and every byte that is not printable ASCII are
//! written as `%XX`. An empty value is an empty field.

use std::fmt::Write;

/// The maximum length of a line, in bytes with its LF.
pub(super) const MAX_LINE: usize = 4096;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The time at which the record was written, in seconds since 1970.
    pub time: u64,
    /// The key, such as an account.
    pub key: String,
    /// The value, which each kind of state defines.
    pub value: String,
}

impl Record {
    /// The record as a line; `None` if the line is longer than [`MAX_LINE`].
    pub(super) fn to_line(&self) -> Option<String> {
        let mut text = format!("{} ", self.time);
        escape(&mut text, &self.key);
        text.push(' ');
        escape(&mut text, &self.value);
        let line = format!("{:08x} {text}\n", checksum(text.as_bytes()));
        (line.len() <= MAX_LINE).then_some(line)
    }

    /// Reads a line without its LF. Returns `None` for any text that [`Record::to_line`] does not
    /// write.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        if line.len() >= MAX_LINE {
            return None;
        }
        let line = std::str::from_utf8(line).ok()?;
        let (sum, text) = line.split_once(' ')?;
        if sum != format!("{:08x}", checksum(text.as_bytes())) {
            return None;
        }
        let mut fields = text.split(' ');
        let (time, key, value) = (fields.next()?, fields.next()?, fields.next()?);
        let is_number = time.bytes().all(|b| b.is_ascii_digit());
        let time = time.parse().ok().filter(|_| is_number && fields.next().is_none())?;
        Some(Self { time, key: unescape(key)?, value: unescape(value)? })
    }
}

/// The FNV-1a hash of a text, with 32 bits.
fn checksum(text: &[u8]) -> u32 {
    text.iter().fold(0x811c_9dc5, |sum: u32, &b| (sum ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

fn escape(out: &mut String, text: &str) {
    for b in text.bytes() {
        // Writing to a string cannot fail.
        let _ = match b {
            b'!'..=b'~' if b != b'%' => write!(out, "{}", char::from(b)),
            _ => write!(out, "%{b:02X}"),
        };
    }
}

fn unescape(field: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: u64, key: &str, value: &str) -> Record {
        Record { time, key: key.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for (time, key, value) in [
            (0, "", ""),
            (1_764_450_000, "jon@razorback", "message"),
            (u64::MAX, "a b%41\n", "\0\u{fc}\u{202e} %"),
            (1, &"k".repeat(2000), &"v".repeat(2000)),
        ] {
            let written = record(time, key, value);
            let line = written.to_line().expect("short");
            assert!(line.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)), "{line:?}");
            assert_eq!(line.matches('\n').count(), 1);
            assert_eq!(Record::parse(line.trim_end_matches('\n').as_bytes()), Some(written));
        }
        assert_eq!(record(1, &"k".repeat(MAX_LINE), "").to_line(), None);
        assert_eq!(record(1, &"\u{fc}".repeat(700), "").to_line(), None, "six bytes each");
    }

    #[test]
    fn other_bytes_are_not_a_record() {
        let line = record(1_764_450_000, "jon", "message").to_line().expect("short");
        let line = line.trim_end();
        let sum = |text: &str| format!("{:08x} {text}", checksum(text.as_bytes()));
        assert!(Record::parse(sum("1 a b").as_bytes()).is_some());
        for text in
            ["", " ", "1", "1 a", "1 a b c", "-1 a b", "+1 a b", "99999999999999999999 a b", "1 %4 b", "1 %zz b"]
        {
            assert_eq!(Record::parse(sum(text).as_bytes()), None, "{text}");
        }
        for at in 0..line.len() {
            assert_eq!(Record::parse(&line.as_bytes()[..at]), None, "cut at {at}");
            let mut damaged = line.as_bytes().to_vec();
            damaged[at] ^= 1;
            assert_eq!(Record::parse(&damaged), None, "damaged at {at}");
        }
        assert_eq!(Record::parse(&[0; 512]), None);
        assert_eq!(Record::parse(b"\xff\xfe"), None);
    }
}
