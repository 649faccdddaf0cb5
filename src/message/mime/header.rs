//! What the header of a message or of a part says about its body, and the header of a converted
//! part.

use super::content_type::{ContentType, word};
use super::fit::fitted;
use super::{Form, Unconvertible};
use crate::message::field::{Field, fields};

/// The field that names the encoding of a body.
const ENCODING: &str = "Content-Transfer-Encoding";

/// What a header says about its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The kind of the body.
    pub kind: Kind,
    /// The encoding of the body.
    pub encoding: Encoding,
    /// Whether the body is text: its type is `text`, or is missing or malformed.
    pub is_text: bool,
    /// Whether the header has Content-Type.
    pub has_type: bool,
    /// Whether the header has MIME-Version.
    pub has_version: bool,
}

/// How a body is structured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It has no parts.
    Leaf,
    /// It has parts between lines with this boundary. In a multipart/digest a part without
    /// Content-Type is a message.
    Multipart {
        /// The boundary.
        boundary: Vec<u8>,
        /// Whether it is a multipart/digest.
        is_digest: bool,
    },
    /// It is a message.
    Message,
    /// It must not be changed, for this reason.
    Fixed(Unconvertible),
}

/// The value of Content-Transfer-Encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// 7bit, or no such field.
    SevenBit,
    /// 8bit.
    EightBit,
    /// binary.
    Binary,
    /// quoted-printable.
    QuotedPrintable,
    /// base64.
    Base64,
    /// Any other value.
    Unknown,
}

impl Facts {
    /// Reads a header. `is_digest` is whether the part belongs to a multipart/digest.
    pub fn read(header: &[u8], is_digest: bool) -> Self {
        let first = |name: &str| fields(header).find(|field| field.is(name));
        let (encoding, declared) = (first(ENCODING), first("Content-Type"));
        let encoding = encoding.map_or(Encoding::SevenBit, |field| Encoding::parse(field.body));
        let has_type = declared.is_some();
        let kind = declared.and_then(|field| ContentType::parse(field.body));
        let is_text = if has_type { kind.as_ref().is_none_or(|kind| kind.main == "text") } else { !is_digest };
        let is_identity = matches!(encoding, Encoding::SevenBit | Encoding::EightBit | Encoding::Binary);
        let kind = match kind {
            None if is_digest && !has_type && is_identity => Kind::Message,
            None => Kind::Leaf,
            Some(kind) if kind.is("multipart", "signed") => Kind::Fixed(Unconvertible::Signed),
            Some(kind) if kind.is("multipart", "encrypted") => Kind::Fixed(Unconvertible::Encrypted),
            Some(ContentType { main, sub, boundary: Some(boundary) }) if main == "multipart" => {
                Kind::Multipart { boundary, is_digest: sub == "digest" }
            }
            Some(kind) if is_identity && (kind.is("message", "rfc822") || kind.is("message", "news")) => Kind::Message,
            // The types of RFC 6532 and RFC 6533 may be encoded, the older ones may not.
            Some(kind) if kind.main == "message" && is_identity && !kind.sub.starts_with("global") => {
                Kind::Fixed(Unconvertible::FixedEncoding)
            }
            Some(_) => Kind::Leaf,
        };
        Self { kind, encoding, is_text, has_type, has_version: first("MIME-Version").is_some() }
    }
}

impl Encoding {
    fn parse(body: &[u8]) -> Self {
        match word(body).as_str() {
            "" | "7bit" | "7-bit" => Self::SevenBit,
            "8bit" | "8-bit" => Self::EightBit,
            "binary" => Self::Binary,
            "quoted-printable" => Self::QuotedPrintable,
            "base64" => Self::Base64,
            _ => Self::Unknown,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::SevenBit => "7bit",
            Self::EightBit => "8bit",
            Self::Binary => "binary",
            Self::QuotedPrintable => "quoted-printable",
            Self::Base64 => "base64",
            Self::Unknown => "x-unknown",
        }
    }

    /// The encoding to declare for a body that fits without a change and has this encoding; `None`
    /// if the declaration fits, too.
    pub fn lowered(self, form: &Form<'_>) -> Option<Self> {
        match self {
            Self::EightBit | Self::Binary if !form.keeps_eight_bit => Some(Self::SevenBit),
            Self::Binary => Some(Self::EightBit),
            _ => None,
        }
    }
}

/// The changes to a header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// The new encoding; `None` if it stays.
    pub encoding: Option<Encoding>,
    /// Whether MIME-Version is added.
    pub adds_version: bool,
    /// The character set of the field Content-Type that is added; `None` if none is added.
    pub charset: Option<&'static str>,
}

/// Checks whether the fields of a header can be sent.
///
/// # Errors
/// The reason why not.
pub fn check(header: &[u8], form: &Form<'_>, is_kept: impl Fn(&Field<'_>) -> bool) -> Result<(), Unconvertible> {
    for field in fields(header).filter(is_kept) {
        fitted(&field, form.keeps_eight_bit)?;
    }
    Ok(())
}

/// Appends a header with its changes to `out`.
///
/// # Errors
/// As for [`check`].
pub fn write(
    header: &[u8],
    change: Change,
    form: &Form<'_>,
    is_kept: impl Fn(&Field<'_>) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), Unconvertible> {
    let mut encoding = change.encoding;
    for field in fields(header).filter(is_kept) {
        if change.encoding.is_some() && field.is(ENCODING) {
            if let Some(encoding) = encoding.take() {
                add(ENCODING, encoding.name(), out);
            }
            continue;
        }
        out.extend_from_slice(&fitted(&field, form.keeps_eight_bit)?);
        if !out.ends_with(b"\n") {
            out.push(b'\n');
        }
    }
    if change.adds_version {
        add("MIME-Version", "1.0", out);
    }
    if let Some(charset) = change.charset {
        add("Content-Type", &format!("text/plain; charset={charset}"), out);
    }
    if let Some(encoding) = encoding {
        add(ENCODING, encoding.name(), out);
    }
    Ok(())
}

fn add(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{name}: {value}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_what_kind_of_body_follows() {
        let multipart = |is_digest| Kind::Multipart { boundary: b"x".to_vec(), is_digest };
        for (header, is_digest, kind, is_text) in [
            ("", false, Kind::Leaf, true),
            ("", true, Kind::Message, false),
            ("Content-Transfer-Encoding: base64\n", true, Kind::Leaf, false),
            ("content-type: text/html\n", true, Kind::Leaf, true),
            ("Content-Type: nonsense\n", true, Kind::Leaf, true),
            ("Content-Type: image/png\nContent-Type: message/rfc822\n", false, Kind::Leaf, false),
            ("Content-Type: multipart/digest;\n boundary=x\n", false, multipart(true), false),
            (
                "Content-Type: multipart/x;boundary=x\nContent-Transfer-Encoding: base64\n",
                false,
                multipart(false),
                false,
            ),
            ("Content-Type: multipart/mixed\n", false, Kind::Leaf, false),
            ("Content-Type: message/rfc822\n", false, Kind::Message, false),
            ("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n", false, Kind::Leaf, false),
            ("Content-Type: message/global\n", false, Kind::Leaf, false),
            ("Content-Type: multipart/signed; boundary=x\n", false, Kind::Fixed(Unconvertible::Signed), false),
            ("Content-Type: MULTIPART/Encrypted\n", false, Kind::Fixed(Unconvertible::Encrypted), false),
            ("Content-Type: message/partial\n", false, Kind::Fixed(Unconvertible::FixedEncoding), false),
            ("Content-Type: message/delivery-status\n", false, Kind::Fixed(Unconvertible::FixedEncoding), false),
            ("Content-Type: message/external-body\n", false, Kind::Fixed(Unconvertible::FixedEncoding), false),
        ] {
            let facts = Facts::read(header.as_bytes(), is_digest);
            assert_eq!((facts.kind, facts.is_text), (kind, is_text), "{header}");
        }
        for (value, want) in [
            ("", Encoding::SevenBit),
            (" (x) 8BIT (y)", Encoding::EightBit),
            ("binary;", Encoding::Binary),
            ("Quoted-Printable", Encoding::QuotedPrintable),
            (" base64", Encoding::Base64),
            ("x-uuencode", Encoding::Unknown),
        ] {
            assert_eq!(Encoding::parse(value.as_bytes()), want, "{value}");
        }
    }

    #[test]
    fn fields_are_replaced_and_added() {
        let written = |header: &str, change| {
            let mut out = Vec::new();
            let form = Form { is_binary: false, keeps_eight_bit: false, drops: &|_| false };
            write(header.as_bytes(), change, &form, |field| !field.is("Drop"), &mut out).expect("a header that fits");
            String::from_utf8(out).expect("text")
        };
        let change = Change { encoding: Some(Encoding::Base64), adds_version: true, charset: Some("utf-8") };
        const NEW: &str = "Content-Transfer-Encoding: base64\n";
        const ADDED: &str = "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n";
        assert_eq!(written("A: b\nDrop: c\n d", change), format!("A: b\n{ADDED}{NEW}"));
        let header = "content-transfer-encoding: 8bit\nA: b\n c\nContent-Transfer-Encoding:\n 7bit\nD: e";
        assert_eq!(written(header, change), format!("{NEW}A: b\n c\nD: e\n{ADDED}"));
        assert_eq!(written(header, Change::default()), format!("{header}\n"));
    }
}
