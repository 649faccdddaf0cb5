//! Characters that could mislead a reader of a text that strangers have written.
//!
//! A text for people is shown without them (see [`shown`]). In JSON and in the log they are escaped.

/// Whether a character outside ASCII must not be in a local part or in a log line, although RFC 6531
/// allows all of them. A program that reads a log or a header could take such a character for the
/// end of a line or a word, display the text in a misleading order, or not display the character at
/// all.
pub fn is_misleading(c: char) -> bool {
    !c.is_ascii() && (c.is_control() || c.is_whitespace() || is_hidden(c))
}

/// Whether a character is not displayed itself, but ends a line or changes the order of others. The
/// joiners U+200C and U+200D are fine: Persian, Indic scripts and emoji need them.
pub fn is_hidden(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

/// Returns a character as it is shown to people: a question mark if it is a control character or
/// hidden. Any other blank than a space stays, since a language may need it.
pub fn shown(c: char) -> char {
    if c.is_control() || is_hidden(c) { '?' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_mislead_is_not_shown_and_letters_of_all_languages_are() {
        let hidden = "\u{202e}\u{2066}\u{2069}\u{200b}\u{ad}\u{2028}\u{2029}\u{feff}\u{e0001}\u{200e}\u{61c}";
        assert!(hidden.chars().all(|c| is_misleading(c) && is_hidden(c) && shown(c) == '?'));
        assert!("\u{1b}\u{7}\n\t\u{7f}\u{9b}".chars().all(|c| shown(c) == '?'));
        let letters = "a \u{e9}\u{200c}\u{200d}\u{1f468}\u{fe0f}\u{5d0}\u{a0}\u{3000}\u{202f}?";
        assert!(letters.chars().all(|c| shown(c) == c));
        assert!("\u{a0}\u{3000}\u{85}".chars().all(is_misleading) && !"\u{200c}\u{200d} \t".chars().any(is_misleading));
    }
}
