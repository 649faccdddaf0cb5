//! Quoting and escaping of values and lines, so that no input can forge a line.

use std::fmt;

use crate::characters::is_misleading;

pub(super) fn push(line: &mut String, key: &str, value: &str) {
    use fmt::Write;
    // Writing to a string cannot fail.
    let _ = write!(line, " {key}={}", Value(value));
}

/// Pairs of key and value as in the line of an event, each after a blank.
pub fn pairs(pairs: &[(&str, &str)]) -> String {
    let mut line = String::new();
    pairs.iter().for_each(|(key, value)| push(&mut line, key, value));
    line
}

/// A value: unchanged if it is plain ASCII, otherwise quoted and escaped.
pub(super) struct Value<'a>(pub(super) &'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if !self.0.is_empty() && self.0.bytes().all(plain) {
            return f.write_str(self.0);
        }
        f.write_str("\"")?;
        self.0.chars().try_for_each(|c| match c {
            '"' | '\\' => write!(f, "\\{c}"),
            c if is_escaped(c) => write!(f, "{}", c.escape_default()),
            c => write!(f, "{c}"),
        })?;
        f.write_str("\"")
    }
}

/// Whether a character is escaped: a control character, or one that could mislead a reader of the
/// log.
fn is_escaped(c: char) -> bool {
    c.is_control() || is_misleading(c)
}

/// A line with its control and misleading characters escaped.
pub(super) struct Clean<'a>(pub(super) &'a str);

impl fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.chars().any(is_escaped) {
            return f.write_str(self.0);
        }
        self.0
            .chars()
            .try_for_each(|c| if is_escaped(c) { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_forge_a_line() {
        for (value, shown) in [
            ("<a@b>", "<a@b>"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("a\r\n4FQ sent", "\"a\\r\\n4FQ sent\""),
            ("\"\\", "\"\\\"\\\\\""),
            ("\u{1b}[2J\u{85}", "\"\\u{1b}[2J\\u{85}\""),
            ("a\u{202e}b\u{2028}\u{200b}", "\"a\\u{202e}b\\u{2028}\\u{200b}\""),
            ("j\u{f6}n \u{200d}", "\"j\u{f6}n \u{200d}\""),
        ] {
            assert_eq!(Value(value).to_string(), shown);
        }
        assert_eq!(Clean("a\u{202e}b").to_string(), "a\\u{202e}b");
        assert_eq!(Clean("a\nb\tc").to_string(), "a\\nb\\tc");
    }
}
