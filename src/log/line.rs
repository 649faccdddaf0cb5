//! Reads the line of an event back: its id, its word, and its pairs of key and value.
//!
//! The line may come from a file that is not trusted, so any text can be read without harm.

use std::borrow::Cow;

use crate::json::Object;

/// The keys whose values are numbers.
const NUMBERS: &[&str] = &[
    "code",
    "cut",
    "delay",
    "jobs",
    "messages",
    "more",
    "priority",
    "recipients",
    "size",
    "uid",
    "unknown_recipients",
    "unlisted",
];
/// The keys that may occur several times in a line.
const LISTS: &[&str] = &["added", "dkim", "rcpt", "removed", "spf"];

/// The line of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// The queue id or session id, or `-`.
    pub id: &'a str,
    /// The word for the event, such as `accept`.
    pub event: &'a str,
    /// The keys and values, in the order of the line. A key may occur several times.
    pub pairs: Vec<(&'a str, Cow<'a, str>)>,
}

impl<'a> Line<'a> {
    /// Reads a line; `None` if it is not the line of an event.
    pub fn parse(line: &'a str) -> Option<Self> {
        let (id, rest) = line.split_once(' ')?;
        let (event, mut rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let is_word = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if !is_word(id) || !is_word(event) {
            return None;
        }
        let mut pairs = Vec::new();
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=')?;
            if !is_word(key) {
                return None;
            }
            let (value, after) = value(after)?;
            pairs.push((key, value));
            rest = match after.strip_prefix(' ') {
                Some(rest) => rest,
                None if after.is_empty() => after,
                None => return None,
            };
        }
        Some(Self { id, event, pairs })
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_ref())
    }

    /// Adds the id, the event and the pairs to a JSON object. A key that may occur several times
    /// becomes an array. A value `-` means that there is none, and is left out. The number of
    /// recipients, which is `to` in the line, is `recipients`, since `to` is an address elsewhere.
    pub fn write_to(&self, object: &mut Object) {
        if self.id != "-" {
            object.text("id", self.id);
        }
        object.text("event", self.event);
        let mut lists: Vec<&str> = Vec::new();
        for (key, value) in &self.pairs {
            let name = if self.event == "accept" && *key == "to" { "recipients" } else { key };
            if LISTS.contains(key) {
                if !lists.contains(key) {
                    lists.push(key);
                    object.texts(name, self.all(key));
                }
            } else if NUMBERS.contains(&name) && is_number(value) {
                object.number(name, value);
            } else if value != "-" {
                object.text(name, value);
            }
        }
    }

    /// All values of a key.
    pub fn all<'s>(&'s self, key: &'s str) -> impl Iterator<Item = &'s str> + use<'s, 'a> {
        self.pairs.iter().filter(move |(name, _)| *name == key).map(|(_, value)| value.as_ref())
    }
}

/// Whether a text is a number in JSON: digits, with a fraction or without.
fn is_number(text: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    is_digits(whole) && is_digits(fraction) && (whole == "0" || !whole.starts_with('0'))
}

/// Reads a value, and returns also the text after it.
fn value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Some((Cow::Borrowed(value), rest));
    };
    let end = quoted.find(['"', '\\'])?;
    if let Some(rest) = quoted[end..].strip_prefix('"') {
        return Some((Cow::Borrowed(&quoted[..end]), rest));
    }
    let mut value = quoted[..end].to_owned();
    let mut rest = quoted[end..].chars();
    loop {
        match rest.next()? {
            '"' => return Some((Cow::Owned(value), rest.as_str())),
            '\\' => match rest.next()? {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                'u' => {
                    let (digits, after) = rest.as_str().strip_prefix('{')?.split_once('}')?;
                    value.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                    rest = after.chars();
                }
                c => value.push(c),
            },
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::push;
    use super::*;

    #[test]
    fn values_are_read_as_they_were_written() {
        for text in [
            "<a@b>",
            "",
            "two words",
            "a\r\n4FQ sent x=y",
            "\"\\",
            "\\\"x\\\\",
            "\u{1b}[2J\u{85}",
            "a\u{202e}b\u{2028}\u{200b}",
            "j\u{f6}n \u{200d}'",
            "=",
            "a=b",
        ] {
            let mut line = "1K0T sent".to_owned();
            push(&mut line, "to", text);
            push(&mut line, "reply", text);
            push(&mut line, "to", "x");
            let read = Line::parse(&line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((read.id, read.event), ("1K0T", "sent"));
            assert_eq!(read.all("to").collect::<Vec<_>>(), [text, "x"], "{line}");
            assert_eq!(read.get("reply"), Some(text));
            assert_eq!(read.get("none"), None);
        }
        assert_eq!(Line::parse("1K0T done"), Some(Line { id: "1K0T", event: "done", pairs: vec![] }));
    }

    #[test]
    fn a_line_becomes_json_with_numbers_and_lists() {
        for (line, json) in [
            (
                "1K accept from=<a@b> to=2 size=10 tls=- user=- rcpt=<x@y> rcpt=\"<\\\"z w\\\"@y>\"",
                r#"{"id":"1K","event":"accept","from":"<a@b>","recipients":2,"size":10,"rcpt":["<x@y>","<\"z w\"@y>"]}"#,
            ),
            (
                "1K sent to=<x@y> delay=0.1 code=250 dsn=2.0.0",
                r#"{"id":"1K","event":"sent","to":"<x@y>","delay":0.1,"code":250,"dsn":"2.0.0"}"#,
            ),
            (
                "1K checked spf=pass:x spf=none:y arc=none",
                r#"{"id":"1K","event":"checked","spf":["pass:x","none:y"],"arc":"none"}"#,
            ),
            ("- dmarc-report size=007 code=1.", r#"{"event":"dmarc-report","size":"007","code":"1."}"#),
            ("1K done", r#"{"id":"1K","event":"done"}"#),
        ] {
            let mut object = Object::new();
            Line::parse(line).unwrap_or_else(|| panic!("{line}")).write_to(&mut object);
            assert_eq!(object.to_string(), json);
        }
    }

    #[test]
    fn other_text_is_not_an_event() {
        for text in [
            "",
            " ",
            "penfoldd",
            "penfoldd 1.0 started",
            "s1 lost: Connection reset",
            "1K0T sent to",
            "1K0T sent to=\"x",
            "1K0T sent to=\"x\"y=z",
            "1K0T sent to=\"\\u{d800}\"",
            "1K0T sent to=\"\\u{110000000}\"",
            "1K0T sent to=\"\\",
            "1K0T sent to=x  b=c",
            "1K0T sent \u{f6}=c",
        ] {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }
}
