//! Converts a message for a host or a mailbox that cannot take it as it is: octets above 127 for a
//! host without 8BITMIME (RFC 6152), lines that are too long for SMTP, and binary bodies (RFC 3030).
//!
//! Each part is judged on its own. A part that must be converted becomes quoted-printable or
//! base64, whichever is shorter, and its octets stay the same after decoding. The other parts, the
//! order of the parts and their boundaries do not change. In the header the fields
//! Content-Transfer-Encoding, MIME-Version and Content-Type are replaced or added, free text gets
//! encoded words, and lines that are too long are folded. Text before the first part and after the
//! last part, which no reader shows, is made to fit: each octet that cannot be sent becomes `?`.
//!
//! The result never has a NUL, and has no CR: a host that takes a CR for a line end could be made to
//! see commands in a message.
//!
//! Some messages cannot be converted, and [`Unconvertible`] says why. For example, a signed part is
//! never changed, because the signature would be broken.
//!
//! A multipart body without a usable boundary counts as one part. If the last boundary is missing,
//! the last part ends at the end of the multipart body. A field that occurs twice has the meaning of
//! the first one.
//!
//! The message is read twice, and never held in memory: the first pass decides how each part is
//! encoded, and the second one writes. The memory is bounded by [`MAX_PARTS`], [`MAX_LEVELS`] and
//! [`MAX_HEADER`].
//!
//! - `content_type`: the field Content-Type
//! - `encode`: quoted-printable and base64
//! - `fit`: header fields with encoded words and folded lines
//! - `header`: what the header of a part says, and the header of a converted part
//! - `lines`: lines of a text or a binary body, in pieces of bounded size
//! - `scan`: finds the parts of a message
//! - `survey`: the first pass
//! - `write`: the second pass

mod content_type;
mod encode;
mod fit;
mod header;
mod lines;
mod scan;
mod survey;
mod write;

pub use encode::{base64, quoted_printable};

use std::fmt;
use std::io::{self, Read, Write};

use crate::message::field::Field;

/// The maximum number of parts. Multipart bodies and enclosed messages count as parts, too.
pub const MAX_PARTS: usize = 1000;
/// The maximum number of multipart bodies and messages that enclose a part.
pub const MAX_LEVELS: usize = 30;
/// The maximum length of the header of a message or of a part, in octets.
pub const MAX_HEADER: usize = 256 << 10;
/// The maximum length of a line in SMTP without its end, in octets (RFC 5321 4.5.3.1.6).
pub const MAX_LINE: usize = 998;

/// How a message is stored, and what it is converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversion {
    /// Whether the body is binary: the header has lines that end in LF, and everything after its
    /// empty line is as the client sent it, with lines that end in CR LF. Otherwise all lines end
    /// in LF.
    pub is_binary: bool,
    /// Whether octets above 127 may stay, because the host has 8BITMIME. Then only binary parts and
    /// lines that are too long are converted.
    pub keeps_eight_bit: bool,
}

/// A conversion, and what is left out.
#[derive(Clone, Copy)]
struct Form<'a> {
    is_binary: bool,
    keeps_eight_bit: bool,
    /// Whether a field of the message's own header is left out.
    drops: &'a dyn Fn(&Field<'_>) -> bool,
}

/// Why a message cannot be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unconvertible {
    /// A signed part must be converted.
    Signed,
    /// An encrypted part must be converted.
    Encrypted,
    /// A part must be converted whose type allows no encoding, such as message/partial or
    /// message/delivery-status.
    FixedEncoding,
    /// A part with an unknown encoding, or with octets that its encoding does not allow, must be
    /// converted.
    Encoding,
    /// A header field has octets that cannot be sent.
    Header,
    /// A line of a header is too long, and cannot be folded.
    HeaderLine,
    /// The header of the message or of a part is longer than [`MAX_HEADER`].
    HeaderTooLong,
    /// There are more than [`MAX_PARTS`] parts.
    TooManyParts,
    /// A part is enclosed in more than [`MAX_LEVELS`] others.
    TooDeep,
    /// The result has octets or lines that cannot be sent. The converter has a bug.
    Unfit,
}

impl fmt::Display for Unconvertible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signed => "a signed part would have to be changed",
            Self::Encrypted => "an encrypted part would have to be changed",
            Self::FixedEncoding => "a part whose type allows no encoding would have to be changed",
            Self::Encoding => "a part has octets that its Content-Transfer-Encoding does not allow",
            Self::Header => "a header field has octets that cannot be sent",
            Self::HeaderLine => "a line of a header is too long and cannot be folded",
            Self::HeaderTooLong => "a header is too long",
            Self::TooManyParts => "it has more than 1,000 parts",
            Self::TooDeep => "its parts are nested more than 30 levels deep",
            Self::Unfit => "the result has octets or lines that cannot be sent",
        })
    }
}

impl std::error::Error for Unconvertible {}

/// Why a pass over a message has stopped.
#[derive(Debug)]
enum Stop {
    Io(io::Error),
    Unconvertible(Unconvertible),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Unconvertible> for Stop {
    fn from(why: Unconvertible) -> Self {
        Self::Unconvertible(why)
    }
}

/// Converts a message. `content` opens the message, and is called twice. Fields of the message's own
/// header for which `drops` returns true are left out. The lines of the result end in LF, and it has no
/// CR and no NUL. If the message cannot be converted, the inner error says why, and nothing is written;
/// after `Unfit` the text that was written must not be used.
///
/// # Errors
/// Those of `content` and of `out`.
pub fn convert<R: Read>(
    content: impl Fn() -> R,
    conversion: Conversion,
    drops: &dyn Fn(&Field<'_>) -> bool,
    out: &mut dyn Write,
) -> io::Result<Result<(), Unconvertible>> {
    let Conversion { is_binary, keeps_eight_bit } = conversion;
    let form = &Form { is_binary, keeps_eight_bit, drops };
    let converted = survey::survey(content(), form).and_then(|parts| write::write(content(), form, &parts, out));
    match converted {
        Ok(()) => Ok(Ok(())),
        Err(Stop::Unconvertible(why)) => Ok(Err(why)),
        Err(Stop::Io(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests;
