//! Writes quoted-printable and base64 (RFC 2045 6.7 and 6.8), from pieces of any size.

use data_encoding::BASE64;

use super::MAX_LINE;

/// The maximum width of a line, in columns.
const WIDTH: usize = 76;
/// The maximum width of a line of a part that is quoted-printable already.
const MAX_KEPT: usize = MAX_LINE - 8;
/// The number of octets in a line of base64.
const GROUP: usize = WIDTH / 4 * 3;

/// Writes quoted-printable.
#[derive(Debug, Default)]
pub struct QuotedPrintable {
    column: usize,
    /// The last octet, whose form depends on the next one.
    held: Option<u8>,
    /// Whether the text is quoted-printable already: then `=` stays, and only the octets and lines
    /// that cannot be sent are changed.
    is_encoded: bool,
    /// The number of octets after a kept `=` before which no line may end.
    glued: u8,
}

impl QuotedPrintable {
    /// A writer for text that is quoted-printable already.
    pub fn mend() -> Self {
        Self { is_encoded: true, ..Self::default() }
    }

    /// Takes octets of a line.
    pub fn feed(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        for &octet in octets {
            if let Some(held) = self.held.replace(octet) {
                self.put(held, Some(octet), out);
            }
        }
    }

    /// Ends a line.
    pub fn end_line(&mut self, out: &mut Vec<u8>) {
        self.finish(out);
        out.push(b'\n');
        (self.column, self.glued) = (0, 0);
    }

    /// Writes what is held.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(held) = self.held.take() {
            self.put(held, None, out);
        }
    }

    fn put(&mut self, octet: u8, next: Option<u8>, out: &mut Vec<u8>) {
        let room = if self.is_encoded { MAX_KEPT } else { WIDTH - 1 };
        let is_blank = matches!(octet, b' ' | b'\t');
        let is_plain = matches!(octet, b' '..=b'~' | b'\t') && octet != b'=';
        // A `=` that escapes nothing must not seem to escape what is written after it.
        let has_meaning =
            octet == b'=' && next.is_none_or(|next| next.is_ascii_hexdigit() || matches!(next, b' ' | b'\t'));
        let is_kept = self.is_encoded && (is_plain || has_meaning);
        let mut is_escaped = if self.is_encoded { !is_kept } else { !is_plain || is_blank && next.is_none() };
        // A kept `=` must stay on one line with the two digits after it.
        let width = if is_escaped || octet == b'=' { 3 } else { 1 };
        if self.column + width > room && (self.glued == 0 || octet == b'=') {
            out.extend_from_slice(b"=\n");
            self.column = 0;
        }
        // No line may look like a boundary.
        is_escaped |= self.column == 0 && octet == b'-' && next == Some(b'-');
        self.glued = if is_kept && octet == b'=' { 2 } else { self.glued.saturating_sub(1) };
        if is_escaped {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.extend_from_slice(&[b'=', DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]);
            self.column += 3;
        } else {
            out.push(octet);
            self.column += 1;
        }
    }
}

/// Whether an octet has three characters in quoted-printable.
pub fn is_escaped(octet: u8) -> bool {
    !matches!(octet, b' '..=b'~' | b'\t') || octet == b'='
}

/// Writes base64.
#[derive(Debug, Default)]
pub struct Base64 {
    group: Vec<u8>,
}

impl Base64 {
    /// Takes octets.
    pub fn feed(&mut self, mut octets: &[u8], out: &mut Vec<u8>) {
        while !octets.is_empty() {
            let (front, rest) = octets.split_at(octets.len().min(GROUP - self.group.len()));
            self.group.extend_from_slice(front);
            octets = rest;
            if self.group.len() == GROUP {
                self.finish(out);
            }
        }
    }

    /// Writes what is left.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.group.is_empty() {
            out.extend_from_slice(BASE64.encode(&self.group).as_bytes());
            out.push(b'\n');
            self.group.clear();
        }
    }
}

/// Returns a text in quoted-printable. Every line of the result has an end.
pub fn quoted_printable(text: &[u8]) -> String {
    let (mut writer, mut out) = (QuotedPrintable::default(), Vec::new());
    for line in text.strip_suffix(b"\n").unwrap_or(text).split(|&b| b == b'\n') {
        writer.feed(line, &mut out);
        writer.end_line(&mut out);
    }
    String::from_utf8(out).unwrap_or_default()
}

/// Returns octets in lines of base64.
pub fn base64(octets: &[u8]) -> String {
    let (mut writer, mut out) = (Base64::default(), Vec::new());
    writer.feed(octets, &mut out);
    writer.finish(&mut out);
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(mut writer: QuotedPrintable, text: &[u8]) -> String {
        let mut out = Vec::new();
        for line in text.split_inclusive(|&b| b == b'\n') {
            for octet in line.strip_suffix(b"\n").unwrap_or(line) {
                writer.feed(&[*octet], &mut out);
            }
            if line.ends_with(b"\n") {
                writer.end_line(&mut out);
            }
        }
        writer.finish(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn quoted_printable_is_as_the_rfc_wants_it() {
        let x75 = "x".repeat(75);
        for (text, want) in [
            ("", ""),
            ("a = b\n", "a =3D b\n"),
            ("\u{f6}", "=C3=B6"),
            ("a \nb\t\n \nc \td\n", "a=20\nb=09\n=20\nc \td\n"),
            ("a\rb\0\u{7f}\n", "a=0Db=00=7F\n"),
            ("--a\n-b\n -- \n---\n", "=2D-a\n-b\n --=20\n=2D--\n"),
            (&format!("{x75}\n"), &format!("{x75}\n")),
            (&format!("{x75}y\n"), &format!("{x75}=\ny\n")),
            (&format!("{x75}--a\n"), &format!("{x75}=\n=2D-a\n")),
            (&format!("{}=\n", "x".repeat(73)), &format!("{}=\n=3D\n", "x".repeat(73))),
            (&format!("{}=\n", "x".repeat(72)), &format!("{}=3D\n", "x".repeat(72))),
            (&format!("{} \n", "x".repeat(74)), &format!("{}=\n=20\n", "x".repeat(74))),
        ] {
            assert_eq!(quoted(QuotedPrintable::default(), text.as_bytes()), want, "{text:?}");
            let end = if text.ends_with('\n') { "" } else { "\n" };
            assert_eq!(quoted_printable(text.as_bytes()), format!("{want}{end}"));
        }
    }

    #[test]
    fn what_is_quoted_printable_already_is_changed_only_where_it_cannot_be_sent() {
        let long = "x".repeat(MAX_KEPT - 1);
        for (text, want) in [
            ("a=3Db=\n=C3\u{b6} \n", "a=3Db=\n=C3=C2=B6 \n"),
            ("a=\u{b6}==4==\n", "a=3D=C2=B6=3D=4=3D=\n"),
            (&format!("{long}=3D--\n"), &format!("{long}=\n=3D--\n")),
            (&format!("{long}yz--\n"), &format!("{long}y=\nz--\n")),
            (&format!("{long}y--\n"), &format!("{long}y=\n=2D-\n")),
        ] {
            assert_eq!(quoted(QuotedPrintable::mend(), text.as_bytes()), want);
        }
        let escapes = "=41".repeat(400);
        let mended = quoted(QuotedPrintable::mend(), escapes.as_bytes());
        assert!(mended.lines().all(|line| line.len() <= MAX_LINE && line.trim_end_matches('=').len() % 3 == 0));
        assert_eq!(mended.replace("=\n", ""), escapes);
    }

    #[test]
    fn base64_has_lines_of_76_characters() {
        for length in 0..200 {
            let text: Vec<u8> = (0..length).collect();
            for piece in [1, 7, 57, 200] {
                let (mut writer, mut out) = (Base64::default(), Vec::new());
                text.chunks(piece).for_each(|piece| writer.feed(piece, &mut out));
                writer.finish(&mut out);
                assert_eq!(out, base64(&text).into_bytes());
                let lines: Vec<_> = out.split(|&b| b == b'\n').collect();
                assert!(lines.iter().all(|line| line.len() <= WIDTH) && lines.last() == Some(&&b""[..]));
                assert_eq!(BASE64.decode(&lines.concat()).expect("base64"), text);
            }
        }
    }
}
