//! Folds local parts for comparison.
//!
//! RFC 5321 leaves it to the host of a mailbox which local parts are the same. This host ignores
//! case, and it ignores in which of several ways a character is encoded: an `ö` may be one
//! character or an `o` with a combining mark, depending on the keyboard. So the folded form is in
//! lower case and in Unicode normalization form C, as RFC 8265 3.3 has it for user names and RFC
//! 6530 recommends for mailboxes. Characters that only look alike stay different.
//!
//! Only comparisons use the folded form. An address is stored, logged and passed on as it was given
//! (RFC 6531 3.2).

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

/// Returns the folded form of a local part.
pub fn fold(local: &str) -> Cow<'_, str> {
    if !local.is_ascii() {
        // The conversion to lower case may take a text out of the normalization form.
        let lower: String = local.nfc().flat_map(char::to_lowercase).collect();
        Cow::Owned(lower.nfc().collect())
    } else if local.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(local.to_ascii_lowercase())
    } else {
        Cow::Borrowed(local)
    }
}

/// Whether two local parts are the same.
pub fn is_same_local(one: &str, other: &str) -> bool {
    fold(one) == fold(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_parts_are_the_same_in_any_case_and_encoding() {
        for (one, other, is_same) in [
            ("jon", "JON", true),
            ("j\u{f6}rn", "J\u{d6}RN", true),
            ("j\u{f6}rn", "jo\u{308}rn", true),
            ("J\u{d6}RN", "JO\u{308}RN", true),
            ("\u{130}x", "i\u{307}x", true),
            ("\u{7528}\u{6237}", "\u{7528}\u{6237}", true),
            ("jorn", "j\u{f6}rn", false),
            ("stra\u{df}e", "strasse", false),
            ("\u{430}nn", "ann", false),
        ] {
            assert_eq!(is_same_local(one, other), is_same, "{one} {other}");
            assert_eq!(fold(&fold(one)), fold(one), "{one}");
        }
        assert!(matches!(fold("jon"), Cow::Borrowed(_)));
    }
}
