//! Writes and reads encoded words: text outside ASCII in header fields (RFC 2047).

use data_encoding::{BASE64, BASE64_NOPAD, HEXUPPER_PERMISSIVE};

/// The maximum number of octets of text in one encoded word. The word has at most 75 characters.
const MAX_IN_WORD: usize = 45;

/// Returns a text as encoded words (RFC 2047 2).
pub fn write(text: &str) -> String {
    let mut words = vec![String::new()];
    for c in text.chars() {
        if words.last().is_some_and(|word| word.len() + c.len_utf8() > MAX_IN_WORD) {
            words.push(String::new());
        }
        words.iter_mut().last().into_iter().for_each(|word| word.push(c));
    }
    let words: Vec<String> = words.iter().map(|w| format!("=?UTF-8?B?{}?=", BASE64.encode(w.as_bytes()))).collect();
    words.join(" ")
}

/// Decodes the encoded words in a text. `None` if a word is malformed, or has a character set other
/// than UTF-8, ASCII and Latin-1.
pub fn read(text: &str) -> Option<String> {
    let (mut out, mut rest) = (String::new(), text);
    // A character may be cut between two words, so the octets of neighbors are decoded together.
    let mut octets: Vec<u8> = Vec::new();
    while let Some((before, word)) = rest.split_once("=?") {
        // Blanks between two encoded words are not shown.
        if octets.is_empty() || !before.trim().is_empty() {
            out += std::str::from_utf8(&octets).ok()?;
            octets.clear();
            out += before;
        }
        let mut parts = word.splitn(3, '?');
        let (charset, encoding, word) = (parts.next()?, parts.next()?, parts.next()?);
        let (word, after) = word.split_once("?=")?;
        octets.extend(in_utf8(charset, decoded(encoding, word)?)?);
        rest = after;
    }
    out += std::str::from_utf8(&octets).ok()?;
    Some(out + rest)
}

fn decoded(encoding: &str, word: &str) -> Option<Vec<u8>> {
    match encoding {
        "B" | "b" => BASE64_NOPAD.decode(word.trim_end_matches('=').as_bytes()).ok(),
        "Q" | "q" => {
            let (mut out, mut octets) = (Vec::new(), word.bytes());
            while let Some(octet) = octets.next() {
                out.push(match octet {
                    b'_' => b' ',
                    b'=' => {
                        let digits = [octets.next()?, octets.next()?];
                        HEXUPPER_PERMISSIVE.decode(&digits).ok()?.pop()?
                    }
                    other => other,
                });
            }
            Some(out)
        }
        _ => None,
    }
}

/// Converts octets of a character set into UTF-8. A language tag may follow the name of the
/// character set (RFC 2231 5).
fn in_utf8(charset: &str, octets: Vec<u8>) -> Option<Vec<u8>> {
    let name = charset.split('*').next()?.to_ascii_lowercase();
    match &*name {
        "utf-8" | "us-ascii" => Some(octets),
        "iso-8859-1" => Some(octets.into_iter().map(char::from).collect::<String>().into_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_are_read() {
        for (text, want) in [
            ("", Some("")),
            ("Lunch = good?", Some("Lunch = good?")),
            ("=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", Some("Gr\u{fc}\u{df}e")),
            ("Re: =?UTF-8?q?a_b=3F?= c", Some("Re: a b? c")),
            ("=?utf-8?b?w7w=?= =?utf-8?B?w7w?=  =?utf-8*de?Q?x?= y", Some("\u{fc}\u{fc}x y")),
            ("=?utf-8?Q?=C3?= =?utf-8?Q?=BC?=", Some("\u{fc}")),
            ("=?ISO-8859-1?Q?=FC=DF?=", Some("\u{fc}\u{df}")),
            ("=?utf-8?Q?=C3?=", None),
            ("=?utf-8?Q?=C3?= x", None),
            ("=?utf-8?Q?=G0?=", None),
            ("=?utf-8?Q?=+1?=", None),
            ("=?utf-8?Q?=C", None),
            ("=?utf-8?X?a?=", None),
            ("=?koi8-r?Q?a?=", None),
            ("=?", None),
            ("=?utf-8?B?%?=", None),
        ] {
            assert_eq!(read(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for text in ["\u{f6}", "Nicht zugestellt: ", &"\u{4f60}\u{597d} ".repeat(40), &"\u{1f600}".repeat(30)] {
            let words = write(text);
            assert!(words.is_ascii() && words.split(' ').all(|word| word.len() <= 75), "{words}");
            assert_eq!(read(&words).as_deref(), Some(text));
        }
    }
}
