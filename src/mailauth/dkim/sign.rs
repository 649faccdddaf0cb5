//! Signs outgoing messages, with `c=relaxed/relaxed`.
//!
//! All instances of the fields in [`SIGNED`] are signed. The fields in [`OVERSIGNED`] are named in
//! `h=` once more than they occur. So nobody can add another instance of such a field without
//! breaking the signature (RFC 6376 8.15). Fields that mailing lists add, such as List-Id, are not
//! named once more.

use std::{fmt, io};

use data_encoding::BASE64;

use super::body::Hasher;
use super::canon::{self, Canon};
use super::header::{Front, Header};
use super::key::SigningKey;

/// The fields that are named in `h=` once more than they occur.
const OVERSIGNED: &[&str] = &[
    "From",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];
/// The fields that are signed if the message has them.
const SIGNED: &[&str] = &[
    "Sender",
    "Auto-Submitted",
    "Content-Disposition",
    "Content-ID",
    "Content-Description",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Date",
    "Resent-Message-ID",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
    "TLS-Required",
    "TLS-Report-Domain",
    "TLS-Report-Submitter",
];
/// The maximum number of instances of a field that are signed, from the bottom up.
const MAX_INSTANCES: usize = 8;
/// The maximum width of the lines of a signature field, in columns.
const WIDTH: usize = 76;

/// The reason why a message was not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSigned {
    /// The header is longer than [`MAX_HEADER`](super::MAX_HEADER).
    HeaderTooLong,
    /// The message has no From field.
    NoFrom,
    /// The system has no random numbers.
    NoRandom,
}

impl fmt::Display for NotSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeaderTooLong => "the header is too long",
            Self::NoFrom => "the message has no From",
            Self::NoRandom => "the system has no random numbers",
        })
    }
}

impl std::error::Error for NotSigned {}

/// Collects from a message what its signatures need. The text must be the final one. Only fields
/// that are not signed, such as Received, may be added later.
#[derive(Debug)]
pub struct Signer {
    front: Front,
    body: Hasher,
}

/// A message that has ended: its header, and the hash of its body in the relaxed form.
pub(in crate::mailauth) struct Ended {
    front: Front,
    /// The hash.
    pub hash: Vec<u8>,
}

impl Ended {
    /// Returns the header.
    pub fn header(&self) -> Header<'_> {
        Header::new(self.front.header())
    }
}

/// Takes all that is written, without errors.
impl io::Write for Signer {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.feed(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

impl Signer {
    /// Returns a signer that has not taken any text yet.
    pub fn new() -> Self {
        Self { front: Front::new(), body: Hasher::new([(Canon::Relaxed, None)]) }
    }

    /// Takes the next piece of the text. Lines end in LF, and the text may be split anywhere.
    pub fn feed(&mut self, text: &[u8]) {
        let was_open = self.front.is_open();
        let rest = self.front.feed(text);
        if was_open && !self.front.is_open() {
            self.body.feed(self.front.body());
        }
        self.body.feed(rest);
    }

    /// Returns the text of the header so far.
    pub fn header(&self) -> &[u8] {
        self.front.header()
    }

    /// Ends the message.
    ///
    /// # Errors
    /// `HeaderTooLong` or `NoFrom`.
    pub(in crate::mailauth) fn end(mut self) -> Result<Ended, NotSigned> {
        if self.front.is_open() {
            self.front.finish();
            self.body.feed(self.front.body());
        }
        if self.front.is_too_long() {
            return Err(NotSigned::HeaderTooLong);
        }
        let hashes = self.body.finish();
        let hash = hashes.get(Canon::Relaxed, None).map(|(hash, _)| hash.to_vec()).unwrap_or_default();
        let ended = Ended { front: self.front, hash };
        if ended.header().named("from").next().is_none() {
            return Err(NotSigned::NoFrom);
        }
        Ok(ended)
    }

    /// Ends the message, and makes one signature with each key. Each element of `keys` is a domain,
    /// a selector and the key. `now` is the time in seconds since 1970. Returns the signature
    /// fields. Their lines end in LF.
    ///
    /// # Errors
    /// A [`NotSigned`].
    pub fn finish(self, keys: &[(&str, &str, &SigningKey)], now: u64) -> Result<String, NotSigned> {
        let ended = self.end()?;
        let header = ended.header();
        let names = names(&header);
        let lower: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let text = header.signed(&lower, Canon::Relaxed, None);
        let mut fields = String::new();
        for (domain, selector, key) in keys {
            let mut field = Folded::new("DKIM-Signature");
            field.tag("v", "1");
            field.tag("a", key.algorithm().name());
            field.tag("c", "relaxed/relaxed");
            field.tag("d", domain);
            field.tag("s", selector);
            field.tag("t", &now.to_string());
            field.list("h", &names);
            field.base64("bh", &ended.hash);
            fields += &field.sign(&text, key).ok_or(NotSigned::NoRandom)?;
        }
        Ok(fields)
    }
}

/// Returns the names of the signed fields in the order of `h=`.
pub fn names(header: &Header<'_>) -> Vec<&'static str> {
    let mut names = Vec::new();
    for (list, more) in [(OVERSIGNED, 1), (SIGNED, 0)] {
        for &name in list {
            let count = header.named(&name.to_ascii_lowercase()).count().min(MAX_INSTANCES);
            names.extend(std::iter::repeat_n(name, count + more));
        }
    }
    names
}

/// A signature field that is being written. It is folded between tags, and within lists of names.
pub struct Folded {
    text: String,
    /// The length of the last line, in columns.
    column: usize,
}

impl Folded {
    /// Begins a field with this name.
    pub fn new(name: &str) -> Self {
        Self { text: format!("{name}:"), column: name.len() + 1 }
    }

    /// Appends a tag.
    pub fn tag(&mut self, name: &str, value: &str) {
        self.word(&format!("{name}={value};"), " ");
    }

    /// Appends a tag with a list of names.
    pub fn list(&mut self, name: &str, values: &[&str]) {
        let count = values.len();
        for (at, value) in values.iter().enumerate() {
            let (front, blank) = if at == 0 { (format!("{name}="), " ") } else { (String::new(), "") };
            let end = if at + 1 == count { ";" } else { ":" };
            self.word(&format!("{front}{value}{end}"), blank);
        }
    }

    /// Appends a tag with octets in base64.
    pub fn base64(&mut self, name: &str, octets: &[u8]) {
        self.tag(name, &BASE64.encode(octets));
    }

    /// Appends `b=` with the signature of `text` and of this field, and ends the field. Returns the
    /// field, or `None` if the system has no random numbers.
    pub fn sign(mut self, text: &[u8], key: &SigningKey) -> Option<String> {
        self.word("b=", " ");
        let (name, body) = self.text.split_once(':')?;
        let mut signed = text.to_vec();
        canon::field(Canon::Relaxed, name.as_bytes(), self.text.as_bytes(), body.as_bytes(), &mut signed);
        signed.truncate(signed.len().saturating_sub(2));
        let mut signature = BASE64.encode(&key.sign(&signed)?);
        while !signature.is_empty() {
            let room = WIDTH.saturating_sub(self.column).clamp(1, signature.len());
            let rest = signature.split_off(room);
            self.text += &signature;
            signature = rest;
            if !signature.is_empty() {
                self.fold();
            }
        }
        self.text.push('\n');
        Some(self.text)
    }

    /// Appends `blank` and a word. If the line has no room for both, the word begins a new line
    /// instead.
    fn word(&mut self, word: &str, blank: &str) {
        if self.column + blank.len() + word.len() > WIDTH {
            self.fold();
        } else {
            self.text += blank;
            self.column += blank.len();
        }
        self.text += word;
        self.column += word.len();
    }

    fn fold(&mut self) {
        self.text += "\n\t";
        self.column = 8;
    }
}
