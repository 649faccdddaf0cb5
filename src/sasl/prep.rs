//! Brings names and passwords into canonical form: SASLprep (RFC 4013) without some of its checks.
//!
//! Space characters become blanks, invisible characters are removed, and the rest is normalized to
//! form KC, so that a password typed on another keyboard has the same bytes. Control characters are
//! refused. ASCII is unchanged. The tables are those of the Unicode version in use, not of version
//! 3.2. Neither unassigned characters nor the direction of text are checked, because every password
//! that an administrator could store should be accepted.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

/// The text in canonical form; `None` if it contains a control character.
pub fn prepare(text: &str) -> Option<Cow<'_, str>> {
    if text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Some(Cow::Borrowed(text));
    }
    let mapped = text.chars().filter(|c| !is_mapped_to_nothing(*c)).map(|c| if is_blank(c) { ' ' } else { c });
    let text: String = mapped.nfkc().collect();
    (!text.chars().any(char::is_control)).then_some(Cow::Owned(text))
}

/// Whether SASLprep removes a character (RFC 3454 B.1).
fn is_mapped_to_nothing(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{1806}' | '\u{180b}'..='\u{180d}' | '\u{200b}'..='\u{200d}'
        | '\u{2060}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

/// Whether SASLprep replaces a character by a blank (RFC 3454 C.1.2).
fn is_blank(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_4013_and_some_more() {
        for (given, wanted) in [
            ("I\u{ad}X", Some("IX")),
            ("user", Some("user")),
            ("USER", Some("USER")),
            ("\u{aa}", Some("a")),
            ("\u{2168}", Some("IX")),
            ("a\u{a0}b", Some("a b")),
            ("u\u{308}", Some("\u{fc}")),
            ("\u{7}", None),
            ("a\u{85}", None),
            ("", Some("")),
        ] {
            assert_eq!(prepare(given).as_deref(), wanted, "{given:?}");
        }
    }
}
