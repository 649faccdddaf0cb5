//! Parses tag lists such as `name=value; name=value` (RFC 6376 3.2). Every signature field and
//! every key record consists of such a list.

use std::ops::Range;

/// The maximum number of tags in a list.
const MAX_TAGS: usize = 64;

/// A tag of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag<'a> {
    /// The name. Upper and lower case differ.
    pub name: &'a str,
    /// The value, without white space around it.
    pub value: &'a str,
    /// The range of octets of the value in the text, with the white space around it.
    pub place: Range<usize>,
}

/// The tags of a list, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags<'a>(Vec<Tag<'a>>);

impl<'a> Tags<'a> {
    /// Parses a list. Line ends count as white space. Returns `None` if the list is malformed or a
    /// name occurs twice.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut tags: Vec<Tag<'a>> = Vec::new();
        let mut start = 0;
        for item in text.split(';') {
            let end = start + item.len();
            if !item.trim_ascii().is_empty() {
                let (name, value) = item.split_once('=')?;
                let place = end - value.len()..end;
                let tag = Tag { name: name.trim_ascii(), value: value.trim_ascii(), place };
                let is_new = tags.iter().all(|other| other.name != tag.name);
                if !is_name(tag.name) || !is_value(tag.value) || !is_new || tags.len() == MAX_TAGS {
                    return None;
                }
                tags.push(tag);
            }
            start = end + 1;
        }
        Some(Self(tags))
    }

    /// Returns the tag with a name. Returns `None` if there is none.
    pub fn tag(&self, name: &str) -> Option<&Tag<'a>> {
        self.0.iter().find(|tag| tag.name == name)
    }

    /// Returns the value of the tag with a name. Returns `None` if there is none.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.tag(name).map(|tag| tag.value)
    }

    /// Returns the name of the first tag. Returns `None` if the list is empty.
    pub fn first(&self) -> Option<&'a str> {
        self.0.first().map(|tag| tag.name)
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_value(value: &str) -> bool {
    value.bytes().all(|b| !b.is_ascii_control() || b.is_ascii_whitespace())
}

/// Splits a value such as that of `h=`, in which colons stand between the parts, and returns the
/// parts. White space around the parts is removed.
pub fn parts(value: &str) -> impl Iterator<Item = &str> {
    value.split(':').map(str::trim_ascii)
}

/// Decodes base64 with white space anywhere in it. Returns `None` if the text is malformed or the
/// result would be longer than `limit` octets.
pub fn base64(value: &str, limit: usize) -> Option<Vec<u8>> {
    let compact: Vec<u8> = value.bytes().filter(|b| !b.is_ascii_whitespace()).take(limit.div_ceil(3) * 4 + 1).collect();
    // The padding is not required, because some signers leave it out.
    let bare = compact.strip_suffix(b"==").or_else(|| compact.strip_suffix(b"=")).unwrap_or(&compact);
    let decoded = data_encoding::BASE64_NOPAD.decode(bare).ok()?;
    (decoded.len() <= limit).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_parsed_with_places() {
        let text = " a=b;\n\tc_1 = d = e\n ; h=From : to;";
        let tags = Tags::parse(text.as_bytes()).expect("a list");
        assert_eq!((tags.get("a"), tags.get("c_1"), tags.get("x")), (Some("b"), Some("d = e"), None));
        assert_eq!(&text[tags.tag("c_1").expect("a tag").place.clone()], " d = e\n ");
        assert_eq!(parts(tags.get("h").expect("a tag")).collect::<Vec<_>>(), ["From", "to"]);
        assert_eq!(tags.first(), Some("a"));
        assert_eq!(Tags::parse(b" \n"), Some(Tags::default()));
    }

    #[test]
    fn a_malformed_list_is_rejected() {
        for bad in
            [&b"a"[..], b"a=b; a=c", b"=b", b"1=b", b"a b=c", b"a=\0", b"a=\xff", b"a-b=c", "\u{e4}=b".as_bytes()]
        {
            assert_eq!(Tags::parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
        let many: String = (0..=MAX_TAGS).map(|number| format!("t{number}=;")).collect();
        assert_eq!(Tags::parse(many.as_bytes()), None);
    }

    #[test]
    fn base64_is_decoded_up_to_a_limit() {
        for (text, limit, octets) in [
            ("YWJj", 3, Some(&b"abc"[..])),
            ("Y W\n\tJj", 3, Some(b"abc")),
            ("YWJj", 2, None),
            ("YWI=", 3, Some(b"ab")),
            ("YWI", 3, Some(b"ab")),
            ("YQ==", 3, Some(b"a")),
            ("", 3, Some(b"")),
            ("Y", 3, None),
            ("YW=J", 3, None),
            ("Y?Jj", 3, None),
            ("YWJjYWJj", 3, None),
        ] {
            assert_eq!(base64(text, limit).as_deref(), octets, "{text}");
        }
    }
}
