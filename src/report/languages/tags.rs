//! Reads the language tags (RFC 5646) in header fields, and finds the language that fits one.

use crate::message::field::fields;

/// The maximum length of a field that is read, in octets.
const MAX_FIELD: usize = 1000;
/// The maximum number of tags that are read in a field.
const MAX_TAGS: usize = 20;

/// Returns the tags of the languages that the sender of a message reads, the preferred one first:
/// those in Accept-Language, and then those in Content-Language (RFC 3282).
pub fn wanted(header: &[u8]) -> Vec<String> {
    let list = |name: &str| {
        let field = fields(header).find(|field| field.is(name)).map(|field| field.text());
        let text = field.filter(|text| text.len() <= MAX_FIELD).unwrap_or_default();
        let mut tags: Vec<(u16, String)> = text.split(',').take(MAX_TAGS).filter_map(tag).collect();
        tags.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        tags.into_iter().map(|(_, tag)| tag).collect::<Vec<_>>()
    };
    [list("Accept-Language"), list("Content-Language")].concat()
}

/// Reads an element of a list: a tag, and perhaps a weight such as `q=0.8`. Returns the weight in
/// thousandths, and the tag. `None` if the language is not wanted or the element is malformed.
fn tag(element: &str) -> Option<(u16, String)> {
    let (tag, weight) = element.split_once(';').unwrap_or((element, "q=1"));
    let weight = weight.trim().strip_prefix("q=")?.trim();
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    let part: u16 = format!("{part:0<3}").get(..3)?.parse().ok()?;
    let weight = whole.parse::<u16>().ok()?.checked_mul(1000)?.checked_add(part)?;
    let tag = tag.trim();
    (weight > 0 && is_tag(tag)).then(|| (weight, tag.to_owned()))
}

/// Whether a text has the form of a language tag.
pub fn is_tag(text: &str) -> bool {
    let is_part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    text.len() <= 35 && text.split('-').all(is_part) && text.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Returns the tag among `tags` that fits a wanted one best: the same tag, or else one with fewer
/// subtags (RFC 4647 3.4), or else one that has more of them. Chinese is written in two scripts,
/// and the script follows from the region.
pub fn best<'a>(wanted: &str, tags: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let tags: Vec<&str> = tags.collect();
    let mut range = match wanted.to_ascii_lowercase() {
        zh if zh == "zh" || ["zh-cn", "zh-sg", "zh-my"].iter().any(|region| zh.starts_with(region)) => {
            "zh-hans".to_owned()
        }
        zh if ["zh-tw", "zh-hk", "zh-mo"].iter().any(|region| zh.starts_with(region)) => "zh-hant".to_owned(),
        other => other,
    };
    loop {
        if let Some(tag) = tags.iter().find(|tag| tag.eq_ignore_ascii_case(&range)) {
            return Some(tag);
        }
        match range.rfind('-') {
            Some(end) => range.truncate(end),
            None => break,
        }
    }
    let is_longer = |tag: &&&str| tag.split('-').next().is_some_and(|first| first.eq_ignore_ascii_case(&range));
    tags.iter().find(is_longer).filter(|_| range != "zh").copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_sorted_by_weight() {
        for (header, want) in [
            ("", ""),
            ("Accept-Language: de-DE, en-US\nContent-Language: fr\n", "de-DE en-US fr"),
            ("Accept-Language: a;q=0.1,b;q=1.0, c;q=0, d ; q=0.55,*, e\n", "b e d a"),
            ("accept-language: de;q=, fr;x=1, it;q=9.9999, a b, -x, \u{e9}\n", "it"),
            ("Content-Language: en (English)\nContent-Language: de\n", ""),
            ("Content-Language:\n de\n", "de"),
        ] {
            assert_eq!(wanted(header.as_bytes()).join(" "), want, "{header}");
        }
        let long = format!("Content-Language: {}\n", "de,".repeat(400));
        assert!(wanted(long.as_bytes()).is_empty());
        assert_eq!(wanted(format!("Content-Language: {}\n", "de,".repeat(300)).as_bytes()).len(), MAX_TAGS);
    }

    #[test]
    fn a_language_is_found_by_a_longer_or_a_shorter_tag() {
        let tags = ["de", "en", "pt", "sr-Latn", "zh-Hans"];
        for (wanted, want) in [
            ("de", Some("de")),
            ("DE-at-1996", Some("de")),
            ("pt-BR", Some("pt")),
            ("sr", Some("sr-Latn")),
            ("sr-RS", Some("sr-Latn")),
            ("zh", Some("zh-Hans")),
            ("zh-CN", Some("zh-Hans")),
            ("zh-hans-SG", Some("zh-Hans")),
            ("zh-TW", None),
            ("zh-Hant", None),
            ("d", None),
            ("den", None),
        ] {
            assert_eq!(best(wanted, tags.into_iter()), want, "{wanted}");
        }
    }
}
