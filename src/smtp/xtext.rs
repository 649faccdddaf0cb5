//! Encodes and decodes xtext: printable ASCII in which `+` and `=` are written as `+2B` and `+3D` (RFC 3461 4).

use crate::characters::is_misleading;
use crate::envelope::MAX_ORCPT;

/// Whether a value is strictly valid xtext: it is not empty, and its hexadecimal digits are in
/// upper case.
pub fn is_valid(value: &str) -> bool {
    let is_upper = |digits: &str| digits.len() == 2 && !digits.bytes().any(|b| b.is_ascii_lowercase());
    let has_upper_digits = value.split('+').skip(1).all(|rest| rest.get(..2).is_some_and(is_upper));
    !value.is_empty() && has_upper_digits && decode(value.as_bytes()).is_some()
}

/// Encodes a text as xtext.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if !b"+=".contains(&byte) => encoded.push(char::from(byte)),
            _ => encoded += &format!("+{byte:02X}"),
        }
    }
    encoded
}

/// Decodes xtext, with hexadecimal digits in upper or lower case. Returns `None` if the value is
/// malformed.
pub fn decode(value: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut octets = value.iter();
    while let Some(&octet) = octets.next() {
        decoded.push(match octet {
            b'+' => {
                let mut digit = || octets.next().and_then(|&d| char::from(d).to_digit(16));
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'=' => return None,
            b'!'..=b'~' => octet,
            _ => return None,
        });
    }
    Some(decoded)
}

/// Whether a value is an address in the form `utf-8-addr-unitext` or `utf-8-addr-xtext` (RFC 6533
/// 3): UTF-8, in which `\x{HEX}` may stand for a character. No character is a control character, a
/// blank or misleading, not even in the form `\x{HEX}`.
pub fn is_valid_utf8_address(value: &str) -> bool {
    decode_utf8_address(value).is_some_and(|address| !address.is_empty())
}

/// Decodes an address that [`is_valid_utf8_address`] accepts. Returns `None` if the value is
/// malformed.
pub fn decode_utf8_address(value: &str) -> Option<String> {
    let is_bad = |c: char| c.is_control() || c.is_whitespace() || is_misleading(c);
    let (mut decoded, mut rest) = (String::with_capacity(value.len()), value);
    loop {
        let (plain, escaped) = rest.split_once('\\').map_or((rest, None), |(plain, escaped)| (plain, Some(escaped)));
        if plain.chars().any(|c| is_bad(c) || c == '=') {
            return None;
        }
        decoded.push_str(plain);
        let Some(escaped) = escaped else { return Some(decoded) };
        let (digits, after) = escaped.strip_prefix("x{")?.split_once('}')?;
        let is_hex = (2..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let c = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex).and_then(char::from_u32)?;
        decoded.push(Some(c).filter(|c| !is_bad(*c))?);
        rest = after;
    }
}

/// Returns the ORCPT (a type, a semicolon and an address) that names an address. Returns `None` if it
/// would be longer than [`MAX_ORCPT`].
pub fn orcpt_of(address: &str) -> Option<Box<str>> {
    let is_ascii = address.is_ascii();
    let orcpt = if is_ascii { encode(address) } else { encode_utf8_address(address) };
    let orcpt = format!("{};{orcpt}", if is_ascii { "rfc822" } else { "utf-8" });
    (orcpt.len() <= MAX_ORCPT).then(|| orcpt.into())
}

/// Returns a valid ORCPT for a host. If the host does not offer SMTPUTF8, the result is ASCII. An
/// address of the type `utf-8` never contains `+`, which we accept from clients (RFC 6533 3).
pub fn orcpt_for(orcpt: Box<str>, offers_utf8: bool) -> Option<Box<str>> {
    let (kind, address) = orcpt.split_once(';')?;
    if !orcpt.is_ascii() && !offers_utf8 {
        return Some(format!("{kind};{}", encode_utf8_address(&decode_utf8_address(address)?)).into());
    }
    if kind.eq_ignore_ascii_case("utf-8") && address.contains('+') {
        return Some(format!("{kind};{}", address.replace('+', "\\x{2B}")).into());
    }
    Some(orcpt)
}

/// Writes an address in the form `utf-8-addr-xtext`, which is ASCII: each character that the form
/// does not allow becomes `\x{HEX}`.
fn encode_utf8_address(address: &str) -> String {
    use std::fmt::Write;
    address.chars().fold(String::with_capacity(address.len()), |mut encoded, c| {
        match c {
            '!'..='~' if !"\\+=".contains(c) => encoded.push(c),
            // Writing to a string cannot fail.
            c => _ = write!(encoded, "\\x{{{:02X}}}", u32::from(c)),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orcpt_becomes_ascii_for_a_host_without_smtputf8() {
        for (orcpt, ascii) in [
            ("rfc822;jon+2B@x.test", "rfc822;jon+2B@x.test"),
            ("utf-8;j\\x{F6}n@x.test", "utf-8;j\\x{F6}n@x.test"),
            ("utf-8;j\u{f6}n@x.test", "utf-8;j\\x{F6}n@x.test"),
            ("utf-8;\u{7528}+\\x{3D}\u{1f600}@x.test", "utf-8;\\x{7528}\\x{2B}\\x{3D}\\x{1F600}@x.test"),
        ] {
            let converted = orcpt_for(orcpt.into(), false).expect(orcpt);
            assert_eq!(&*converted, ascii);
            let address =
                |orcpt: &str| orcpt.strip_prefix("utf-8;").map(|address| decode_utf8_address(address).expect(ascii));
            assert_eq!(address(orcpt), address(&converted));
        }
    }

    #[test]
    fn orcpt_keeps_its_characters_for_a_host_with_smtputf8() {
        for (orcpt, sent) in [
            ("rfc822;jon+2B@x.test", "rfc822;jon+2B@x.test"),
            ("utf-8;j\\x{F6}n@x.test", "utf-8;j\\x{F6}n@x.test"),
            ("utf-8;j\u{f6}n@x.test", "utf-8;j\u{f6}n@x.test"),
            ("UTF-8;j\u{f6}n+a+@x.test", "UTF-8;j\u{f6}n\\x{2B}a\\x{2B}@x.test"),
            ("utf-8;a+b@x.test", "utf-8;a\\x{2B}b@x.test"),
        ] {
            assert_eq!(orcpt_for(orcpt.into(), true).as_deref(), Some(sent));
        }
        assert_eq!(orcpt_for("utf-8;a+b@x.test".into(), false).as_deref(), Some("utf-8;a\\x{2B}b@x.test"));
    }

    #[test]
    fn orcpt_names_an_address() {
        let long = format!("{}@x.test", "+".repeat(162));
        for (address, orcpt) in [
            ("jon+list@x.test", Some("rfc822;jon+2Blist@x.test")),
            ("\"a b\"@x.test", Some("rfc822;\"a+20b\"@x.test")),
            ("j\u{f6}n+a@x.test", Some("utf-8;j\\x{F6}n\\x{2B}a@x.test")),
            (&long, Some(&*format!("rfc822;{}@x.test", "+2B".repeat(162)))),
            (&format!("+{long}"), None),
        ] {
            assert_eq!(orcpt_of(address).as_deref(), orcpt, "{address}");
        }
    }

    #[test]
    fn xtext_is_printable_and_escaped() {
        for (value, is_xtext) in [
            ("<>", true),
            ("jon@here", true),
            ("e+3Dmc2@example.com", true),
            ("+2B", true),
            ("a=b", false),
            ("", false),
            ("+", false),
            ("a+3", false),
            ("+3d", false),
            ("+3G", false),
            ("++2B", false),
            ("a\u{fc}", false),
            ("+\u{fc}", false),
        ] {
            assert_eq!(is_valid(value), is_xtext, "{value}");
        }
        for (value, address) in [
            ("b\\x{FC}cher@x.test", Some("b\u{fc}cher@x.test")),
            ("b\u{fc}cher\\x{2B}a@x.test", Some("b\u{fc}cher+a@x.test")),
            ("\\x{10FFFF}", Some("\u{10ffff}")),
            ("", Some("")),
            ("a=b", None),
            ("a b", None),
            ("a\u{85}", None),
            ("\\x{0A}", None),
            ("\\x{20}", None),
            ("\\x{2028}", None),
            ("\\x{202E}", None),
            ("a\u{202e}b", None),
            ("\\x{200B}", None),
            ("\\x{200D}", Some("\u{200d}")),
            ("\\x{D800}", None),
            ("\\x{110000}", None),
            ("\\x{+1}", None),
            ("\\x{}", None),
            ("\\x{FC", None),
            ("\\", None),
            ("\\\\", None),
        ] {
            assert_eq!(decode_utf8_address(value).as_deref(), address, "{value}");
        }
        assert_eq!(decode(b"jon+2Blist+3d"), Some(b"jon+list=".to_vec()));
        assert_eq!(decode(b"a b"), None);
    }
}
