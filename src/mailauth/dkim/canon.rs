//! Brings headers and bodies into the two canonical forms, `simple` and `relaxed`, that signatures
//! cover (RFC 6376 3.4).
//!
//! Lines of the text end in LF, and lines of the canonical form end in CR LF. A CR in the text is
//! an octet like any other.

use memchr::{memchr, memchr3};

/// A canonical form of the header or of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canon {
    /// Only the empty lines at the end of the body are ignored.
    Simple,
    /// White space, folding and the case of field names are ignored as well.
    Relaxed,
}

impl Canon {
    /// Returns the form with a name from `c=`. Returns `None` if the name is unknown.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "simple" => Some(Self::Simple),
            "relaxed" => Some(Self::Relaxed),
            _ => None,
        }
    }
}

/// Appends the canonical form of a field to `out`. `name` is the field's name without blanks, `raw`
/// is the whole field, and `body` is the part after the colon.
pub fn field(form: Canon, name: &[u8], raw: &[u8], body: &[u8], out: &mut Vec<u8>) {
    match form {
        Canon::Simple => simple_field(raw, out),
        Canon::Relaxed => {
            out.extend(name.iter().map(u8::to_ascii_lowercase));
            out.push(b':');
            relaxed_value(body, out);
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn simple_field(raw: &[u8], out: &mut Vec<u8>) {
    for line in raw.strip_suffix(b"\n").unwrap_or(raw).split(|&b| b == b'\n') {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends the relaxed form of a value: folding and the white space at both ends are removed, and
/// every other run of white space becomes one space.
fn relaxed_value(body: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let words = body.split(|&b| matches!(b, b' ' | b'\t' | b'\n')).filter(|word| !word.is_empty());
    for word in words {
        if out.len() > start {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

/// Returns the length of the text at the beginning of `rest` that the relaxed form leaves
/// unchanged. The first octet of `rest` must not be white space.
fn unchanged(rest: &[u8]) -> usize {
    let mut length = 0;
    while let Some(tail) = rest.get(length..)
        && let Some(found) = memchr3(b'\n', b' ', b'\t', tail)
    {
        let is_single = tail.get(found) == Some(&b' ')
            && tail.get(found + 1).is_some_and(|next| !matches!(next, b'\n' | b' ' | b'\t'));
        length += found;
        if !is_single {
            return length;
        }
        length += 1;
    }
    rest.len()
}

/// The number of octets that are collected before they are passed on together, because hashing many
/// small pieces is slow.
const BUFFER: usize = 4096;

/// A body that arrives in pieces and is brought into canonical form. At most [`BUFFER`] octets are
/// held in memory.
#[derive(Debug)]
pub struct Body {
    form: Canon,
    /// Canonical text that was not passed on yet.
    buffer: Vec<u8>,
    /// The number of line ends that belong to the body only if more text follows.
    line_ends: u64,
    /// Whether white space was read that belongs to the body only if more text follows in the same
    /// line.
    has_blank: bool,
    is_empty: bool,
}

impl Body {
    /// Returns a body that is empty so far.
    pub fn new(form: Canon) -> Self {
        Self { form, buffer: Vec::with_capacity(BUFFER), line_ends: 0, has_blank: false, is_empty: true }
    }

    /// Takes a piece of the body, and passes canonical text to `sink`.
    pub fn feed(&mut self, text: &[u8], sink: &mut impl FnMut(&[u8])) {
        let mut rest = text;
        while let Some(&first) = rest.first() {
            let is_blank = self.form == Canon::Relaxed && matches!(first, b' ' | b'\t');
            let length = match self.form {
                _ if first == b'\n' || is_blank => 1,
                Canon::Simple => memchr(b'\n', rest).unwrap_or(rest.len()),
                Canon::Relaxed => unchanged(rest),
            };
            let (run, after) = rest.split_at(length);
            rest = after;
            if first == b'\n' {
                self.line_ends += 1;
                self.has_blank = false;
            } else if is_blank {
                self.has_blank = true;
            } else {
                self.content(run, sink);
            }
        }
    }

    /// Passes on the rest when the body has ended.
    pub fn finish(mut self, sink: &mut impl FnMut(&[u8])) {
        if self.form == Canon::Simple || !self.is_empty {
            self.put(b"\r\n", sink);
        }
        sink(&self.buffer);
    }

    fn content(&mut self, run: &[u8], sink: &mut impl FnMut(&[u8])) {
        while self.line_ends > 0 {
            self.put(b"\r\n", sink);
            self.line_ends -= 1;
        }
        if self.has_blank {
            self.put(b" ", sink);
            self.has_blank = false;
        }
        self.is_empty = false;
        self.put(run, sink);
    }

    fn put(&mut self, octets: &[u8], sink: &mut impl FnMut(&[u8])) {
        if self.buffer.len() + octets.len() > BUFFER {
            sink(&self.buffer);
            self.buffer.clear();
        }
        if octets.len() > BUFFER {
            sink(octets);
        } else {
            self.buffer.extend_from_slice(octets);
        }
    }
}
