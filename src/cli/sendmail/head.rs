//! Changes the header of a message on standard input before sendmail(8) passes it to the daemon.
//!
//! Finds the recipients in Resent-To, Resent-Cc and Resent-Bcc or, if the header has none of these
//! fields, in To, Cc and Bcc. Removes every Bcc and Resent-Bcc. If From is missing, adds it with
//! the sender's name. No other field changes: the daemon completes the header later. Sendmail and
//! the daemon find the end of the header by the same rules (`message::field`). A header longer than
//! [`MAX_HEADER`] is not searched for recipients.

use std::io::{self, Read};

use super::Failure;
use crate::address::Address;
use crate::characters;
use crate::message::encoded_words;
use crate::message::field::{Field, Section, State, fields};
use crate::message::recipients::{Unreadable, recipients};

/// The longest header that is searched, in octets.
pub const MAX_HEADER: usize = 1 << 20;

/// The front of a message: its header, and the part of its body that was read along with the
/// header.
#[derive(Debug)]
pub struct Head {
    header: Section,
    /// The part of the body that was read along with the header.
    body: Vec<u8>,
}

impl Head {
    /// Reads the header of a message whose lines end in LF.
    ///
    /// # Errors
    /// The errors of `text`.
    pub fn read(text: &mut dyn Read) -> io::Result<Self> {
        let mut head = Self { header: Section::new(MAX_HEADER), body: Vec::new() };
        let mut piece = vec![0; 32 << 10];
        while head.header.state() == State::Open {
            match text.read(&mut piece) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(0) => head.header.finish(),
                Ok(count) => head.body.extend_from_slice(head.header.feed(piece.get(..count).unwrap_or_default())),
            }
        }
        Ok(head)
    }

    fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        fields(self.header.header())
    }

    fn is_complete(&self) -> bool {
        self.header.state() == State::Complete
    }

    /// The recipients that the header names.
    ///
    /// # Errors
    /// If a list cannot be read, or the header is too long.
    pub fn recipients(&self) -> Result<Vec<Address>, Failure> {
        if !self.is_complete() {
            return Err(Failure::data("the header is too long to look for recipients"));
        }
        let found = |names: [&str; 3]| self.fields().filter(move |field| is_one_of(field, &names)).collect::<Vec<_>>();
        let mut lists = found(["Resent-To", "Resent-Cc", "Resent-Bcc"]);
        if lists.is_empty() {
            lists = found(["To", "Cc", "Bcc"]);
        }
        let mut all = Vec::new();
        for field in lists {
            all.extend(read_list(field.body)?);
        }
        Ok(all)
    }

    /// Whether a field of the header has an address outside ASCII, so that the message needs
    /// SMTPUTF8. Other text outside ASCII, as in Subject, does not count: most hosts accept such
    /// text without SMTPUTF8, and programs on Unix hosts have always sent it so.
    pub fn has_utf8_address(&self) -> bool {
        const FIELDS: [&str; 11] = [
            "From",
            "Sender",
            "Reply-To",
            "To",
            "Cc",
            "Resent-From",
            "Resent-Sender",
            "Resent-To",
            "Resent-Cc",
            "Disposition-Notification-To",
            "Errors-To",
        ];
        let lists = self.fields().filter(|field| is_one_of(field, &FIELDS) && !field.body.is_ascii());
        lists.filter_map(|field| recipients(field.body).ok()).flatten().any(|address| !address.is_ascii())
    }

    /// Returns the part of the message that was read, in the form for the daemon: without Bcc and,
    /// if From is missing, with a From of the value `author`.
    pub fn finish(&self, author: Option<&str>) -> Vec<u8> {
        let remainder = self.header.remainder();
        let mut out = Vec::with_capacity(self.header.header().len() + remainder.len() + self.body.len() + 256);
        let is_kept = |field: &Field<'_>| !is_one_of(field, &["Bcc", "Resent-Bcc"]);
        self.fields().filter(is_kept).for_each(|field| out.extend_from_slice(field.raw));
        let has_from = self.fields().any(|field| field.is("From"));
        if let Some(author) = author.filter(|_| !has_from) {
            out.extend_from_slice(format!("From: {author}\n").as_bytes());
        }
        if self.is_complete() && !remainder.starts_with(b"\n") {
            out.push(b'\n');
        }
        out.extend_from_slice(remainder);
        out.extend_from_slice(&self.body);
        out
    }
}

fn is_one_of(field: &Field<'_>, names: &[&str]) -> bool {
    names.iter().any(|name| field.is(name))
}

/// Reads a list of addresses with commas between them. An address may have no domain.
///
/// # Errors
/// The first part of the list that is not an address.
pub fn read_list(value: &[u8]) -> Result<Vec<Address>, Failure> {
    let unreadable = |Unreadable(part)| Failure::data(format!("'{}' cannot be read as an address", shown(&part)));
    recipients(value).map_err(unreadable)
}

/// Returns a part of a list as an error message shows it: shortened, without characters that could mislead.
fn shown(value: &[u8]) -> String {
    const MAX_SHOWN: usize = 200;
    let text = String::from_utf8_lossy(value.trim_ascii());
    text.chars().take(MAX_SHOWN).map(characters::shown).collect()
}

/// Returns the value of From for a name, which may be empty, and an address.
pub fn author(name: &str, address: &Address) -> String {
    let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let name = name.trim();
    if name.is_empty() {
        address.to_string()
    } else if name.is_ascii() {
        format!("\"{}\" <{address}>", name.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        format!("{} <{address}>", encoded_words::write(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(mut text: &[u8]) -> Head {
        Head::read(&mut text).expect("memory")
    }

    #[test]
    fn recipients_are_found_and_bcc_is_removed() {
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
    fn only_addresses_outside_ascii_need_smtputf8() {
        for (text, is_needed) in [
            ("From: a@x.test\nSubject: gr\u{fc}n\n\n", false),
            ("From: J\u{f6}n <jon@b\u{fc}cher.example>\n\n", false),
            ("X: j\u{f6}n@x.test\n\n", false),
            ("To: a@x.test\n\nTo: j\u{f6}n@x.test\n", false),
            ("To: a@x.test,\n J\u{f6}n <j\u{f6}n@x.test>\n\n", true),
            ("reply-to: \u{7528}\u{6237}\n\n", true),
        ] {
            assert_eq!(head(text.as_bytes()).has_utf8_address(), is_needed, "{text}");
        }
        assert!(!head(b"To: j\xf6n@x.test\n\n").has_utf8_address());
    }

    #[test]
    fn names_are_quoted_or_encoded() {
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
