//! Writes and reads requests on the control socket: words on one line, separated by single blanks.
//!
//! A word may be any text, because quoted addresses and names of programs may contain blanks. So
//! `%` and all bytes that are not printable ASCII, including blanks, are written as `%XX`. An empty
//! word is the empty text between two blanks. A malformed request is rejected, never truncated, and
//! so is a request longer than [`MAX_REQUEST`].

use std::fmt::Write;

/// The maximum length of a request line with its line feed, in bytes.
pub const MAX_REQUEST: usize = 1024;

/// Returns the line for these words, with a line feed at its end.
pub fn write(words: &[&str]) -> String {
    let mut line = String::new();
    for (n, word) in words.iter().enumerate() {
        if n > 0 {
            line.push(' ');
        }
        for b in word.bytes() {
            if b.is_ascii_graphic() && b != b'%' {
                line.push(b.into());
            } else {
                // Writing to a string cannot fail.
                let _ = write!(line, "%{b:02X}");
            }
        }
    }
    line.push('\n');
    line
}

/// Returns the words of a line that is given without its line feed; `None` if a word is malformed.
pub fn read(line: &[u8]) -> Option<Vec<String>> {
    line.split(|&b| b == b' ').map(word).collect()
}

/// Decodes one word of a line; `None` if it is malformed.
fn word(mut text: &[u8]) -> Option<String> {
    let mut word = Vec::with_capacity(text.len());
    while let Some((&first, rest)) = text.split_first() {
        text = rest;
        if first == b'%' {
            let (digits, rest) = text.split_first_chunk::<2>()?;
            let digit = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            word.push(digit(digits[0])? << 4 | digit(digits[1])?);
            text = rest;
        } else if first.is_ascii_graphic() {
            word.push(first);
        } else {
            return None;
        }
    }
    String::from_utf8(word).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_were_written() {
        for (words, line) in [
            (&["queue"][..], "queue\n"),
            (&["flush", "example.org"], "flush example.org\n"),
            (&["verify", "\"john smith\"@example.org"], "verify \"john%20smith\"@example.org\n"),
            (&["verify", "\"a%20b\"@example.org"], "verify \"a%2520b\"@example.org\n"),
            (&["flush", "a\nwake b"], "flush a%0Awake%20b\n"),
            (&["submit", ""], "submit \n"),
            (&["submit", "php-fpm: pool www"], "submit php-fpm:%20pool%20www\n"),
            (&["verify", "j\u{f6}n\0\t", ""], "verify j%C3%B6n%00%09 \n"),
        ] {
            assert_eq!(write(words), line);
            assert_eq!(
                read(line.trim_end_matches('\n').as_bytes()).as_deref(),
                Some(&words.iter().map(ToString::to_string).collect::<Vec<_>>()[..])
            );
        }
    }

    #[test]
    fn a_malformed_line_is_rejected() {
        for line in
            ["verify %", "verify %4", "verify %zz", "verify %+1", "verify a\tb", "queue\r", "verify %ff", "\u{f6}"]
        {
            assert_eq!(read(line.as_bytes()), None, "{line:?}");
        }
    }
}
