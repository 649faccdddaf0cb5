//! Decodes xtext: printable ASCII in which `+` and `=` are written as `+2B` and `+3D` (RFC 3461 4).

/// Whether a value is strictly valid xtext: it is not empty, and its hexadecimal digits are in
/// upper case.
pub fn is_valid(value: &str) -> bool {
    let is_upper = |digits: &str| digits.len() == 2 && !digits.bytes().any(|b| b.is_ascii_lowercase());
    let has_upper_digits = value.split('+').skip(1).all(|rest| rest.get(..2).is_some_and(is_upper));
    !value.is_empty() && has_upper_digits && decode(value.as_bytes()).is_some()
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(decode(b"jon+2Blist+3d"), Some(b"jon+list=".to_vec()));
        assert_eq!(decode(b"a b"), None);
    }
}
