//! The header section of a message that a program gives, before the daemon completes it.
//!
//! Finds the recipients in To, Cc and Bcc (those of Resent-, where there are any,
//! instead), takes every Bcc out, and gives a message that has no From one with the
//! sender's name. Nothing else changes. Where the header ends is what the daemon would say
//! too: see `submit`. A header of more than [`MAX_HEADER`] octets is not looked through.

use std::io::{self, Read};

use data_encoding::BASE64;
use memchr::memchr;

use super::Failure;
use crate::address::Address;
use crate::message::recipients::{Unreadable, recipients};
use crate::submit::{fields, is_postmark, name};

/// As much is looked at.
pub const MAX_HEADER: usize = 1 << 20;

/// The start of a message.
#[derive(Debug, Default)]
pub struct Head {
    /// What was read: the header, and perhaps some of the body.
    held: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether that is all of the header.
    is_whole: bool,
}

impl Head {
    /// Reads the header off a message whose lines end in LF.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn read(text: &mut dyn Read) -> io::Result<Self> {
        let mut head = Self::default();
        let mut piece = vec![0; 32 << 10];
        while head.held.len() <= MAX_HEADER {
            match text.read(&mut piece) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(0) => {
                    head.is_whole = true;
                    break;
                }
                Ok(count) => head.held.extend_from_slice(piece.get(..count).unwrap_or_default()),
            }
            if head.find_end() {
                break;
            }
        }
        // A postmark that no field follows is the body's.
        if head.end <= head.start {
            (head.start, head.end) = (0, 0);
        }
        Ok(head)
    }

    fn find_end(&mut self) -> bool {
        while let Some(tail) = self.held.get(self.end..)
            && let Some(at) = memchr(b'\n', tail)
        {
            let line = tail.get(..at).unwrap_or_default();
            let continues = self.end > self.start && matches!(line, [b' ' | b'\t', ..]);
            if !continues && name(line).is_none() {
                if self.end > 0 || !is_postmark(line) {
                    self.is_whole = true;
                    return true;
                }
                self.start = at + 1;
            }
            self.end += at + 1;
        }
        false
    }

    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        fields(self.held.get(self.start..self.end).unwrap_or_default())
    }

    /// Who is to get the message, as its header says.
    ///
    /// # Errors
    /// A list that cannot be read, or a header that is too long.
    pub fn recipients(&self) -> Result<Vec<Address>, Failure> {
        if !self.is_whole {
            return Err(Failure::data("the header is too long to look for recipients"));
        }
        let found = |names: [&str; 3]| self.fields().filter(move |field| is_one_of(field, &names)).collect::<Vec<_>>();
        let mut lists = found(["Resent-To", "Resent-Cc", "Resent-Bcc"]);
        if lists.is_empty() {
            lists = found(["To", "Cc", "Bcc"]);
        }
        let mut all = Vec::new();
        for field in lists {
            let value = name(field).and_then(|(_, start)| field.get(start..)).unwrap_or_default();
            all.extend(read_list(value)?);
        }
        Ok(all)
    }

    /// The message as the daemon gets it, up to where reading it has stopped. `author` is
    /// put into From, where that is missing.
    pub fn finish(&self, author: Option<&str>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len() + 256);
        let is_kept = |field: &&[u8]| !is_one_of(field, &["Bcc", "Resent-Bcc"]);
        self.fields().filter(is_kept).for_each(|field| out.extend_from_slice(field));
        let has_from = self.fields().any(|field| is_one_of(field, &["From"]));
        if let Some(author) = author.filter(|_| !has_from) {
            out.extend_from_slice(format!("From: {author}\n").as_bytes());
        }
        let body = self.held.get(self.end..).unwrap_or_default();
        if self.is_whole && !body.starts_with(b"\n") {
            out.push(b'\n');
        }
        out.extend_from_slice(body);
        out
    }
}

fn is_one_of(field: &[u8], names: &[&str]) -> bool {
    name(field).is_some_and(|(own, _)| names.iter().any(|name| own.eq_ignore_ascii_case(name.as_bytes())))
}

/// The addresses of a list, with or without domains.
///
/// # Errors
/// The first part that is no address.
pub fn read_list(value: &[u8]) -> Result<Vec<Address>, Failure> {
    let wrong = |Unreadable(part)| Failure::data(format!("'{}' cannot be read as an address", shown(&part)));
    recipients(value).map_err(wrong)
}

fn shown(value: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(value.trim_ascii());
    text.chars().take(MOST).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A name and an address, as From has them.
pub fn author(name: &str, address: &Address) -> String {
    let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let name = name.trim();
    if name.is_empty() {
        address.to_string()
    } else if name.is_ascii() {
        format!("\"{}\" <{address}>", name.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        format!("{} <{address}>", encoded(name))
    }
}

/// As encoded words (RFC 2047 2), none longer than 75 octets.
fn encoded(name: &str) -> String {
    const MOST: usize = 45;
    let mut words = vec![String::new()];
    for c in name.chars() {
        if words.last().is_some_and(|word| word.len() + c.len_utf8() > MOST) {
            words.push(String::new());
        }
        words.iter_mut().last().into_iter().for_each(|word| word.push(c));
    }
    let words: Vec<String> = words.iter().map(|w| format!("=?UTF-8?B?{}?=", BASE64.encode(w.as_bytes()))).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(mut text: &[u8]) -> Head {
        Head::read(&mut text).expect("memory")
    }

    #[test]
    fn recipients_are_found_and_bcc_goes() {
        for (text, recipients, left) in [
            ("To: a@x.test, \"B, C\" <b@x.test>\ncc: root\n\nhi\n", "a@x.test b@x.test root", None),
            (
                "Bcc: a@x.test,\n b@x.test\nTo: c@x.test\nX: 1\n\nhi\n",
                "a@x.test b@x.test c@x.test",
                Some("To: c@x.test\nX: 1\n\nhi\n"),
            ),
            ("To: team: a@x.test, b@x.test;\nCc: (who) c@x.test (c)\n\n", "a@x.test b@x.test c@x.test", None),
            (
                "To: a@x.test\nResent-To: b@x.test\nResent-Bcc: c@x.test\n\n",
                "b@x.test c@x.test",
                Some("To: a@x.test\nResent-To: b@x.test\n\n"),
            ),
            ("To: undisclosed-recipients:;\nBcc:\n\n", "", Some("To: undisclosed-recipients:;\n\n")),
            ("Subject: no end\nTo: a@x.test\n", "a@x.test", Some("Subject: no end\nTo: a@x.test\n\n")),
            ("To: a@x.test\nno field\nBcc: b@x.test\n", "a@x.test", Some("To: a@x.test\n\nno field\nBcc: b@x.test\n")),
            ("From jon Mon\nTo: a@x.test\n\n", "a@x.test", Some("To: a@x.test\n\n")),
            ("no header: at all?\n", "", None),
            ("just text\n", "", Some("\njust text\n")),
            ("", "", Some("\n")),
        ] {
            let head = head(text.as_bytes());
            let found: Vec<String> = head.recipients().expect(text).iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), recipients, "{text}");
            if let Some(left) = left {
                assert_eq!(String::from_utf8_lossy(&head.finish(None)), left, "{text}");
            }
        }
        assert!(head(b"To: <a@x.test\n\n").recipients().is_err());
        let long = format!("To: a@x.test\nX: {}\n\nhi\n", "x".repeat(2 * MAX_HEADER));
        assert!(head(long.as_bytes()).recipients().is_err());
    }

    #[test]
    fn a_name_is_written_so_that_it_can_be_read() {
        let address: Address = "jon@x.test".parse().expect("an address");
        for (name, want) in [
            ("Jon Postel", "\"Jon Postel\" <jon@x.test>"),
            ("a \"b\" \\c\nBcc: x", "\"a \\\"b\\\" \\\\c Bcc: x\" <jon@x.test>"),
            ("", "jon@x.test"),
            ("J\u{f6}n", "=?UTF-8?B?SsO2bg==?= <jon@x.test>"),
        ] {
            assert_eq!(author(name, &address), want);
        }
        let long = author(&"\u{f6}".repeat(60), &address);
        assert!(long.split(' ').all(|word| word.len() <= 75), "{long}");
    }
}
