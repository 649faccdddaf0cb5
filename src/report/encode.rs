//! Writes the text of a report in a form that every mail system passes on: folded lines and MIME
//! parts.

/// The maximum length of a line, in octets (RFC 5322 2.1.1).
pub(super) const MAX_LINE: usize = 998;
/// The width at which text is folded between words, in characters.
const WIDTH: usize = 72;
/// The maximum length of one piece of a long word, in characters.
const MAX_PIECE: usize = 900;
/// The maximum length of a line of quoted-printable, in octets, with the `=` of a soft line break.
const MAX_ENCODED: usize = 76;

/// Returns the first `max` characters of a text. If the text is longer, dots stand for the rest.
pub(super) fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or(text)),
        None => text.to_owned(),
    }
}

/// Appends a header field with free text. Characters that are not printable ASCII become `?`. If
/// `is_utf8` is true, only control characters do.
pub(super) fn fold(out: &mut String, name: &str, value: &str, is_utf8: bool) {
    let is_kept = |c: char| (' '..='~').contains(&c) || (is_utf8 && !c.is_ascii() && !c.is_control());
    let clean: String = value.chars().map(|c| if is_kept(c) { c } else { '?' }).collect();
    *out += &format!("{name}: ");
    flow(out, " ", &clean);
    out.push('\n');
}

/// Appends a paragraph with indented lines, and then an empty line.
pub(super) fn paragraph(out: &mut String, indent: &str, text: &str) {
    *out += indent;
    flow(out, indent, text);
    *out += "\n\n";
}

/// Appends words to the last line, and begins a new line whenever a word does not fit. A word that
/// is too long for a line of mail is cut into pieces.
pub(super) fn flow(out: &mut String, indent: &str, text: &str) {
    let mut column = out.len() - out.rfind('\n').map_or(0, |at| at + 1);
    for (n, word) in text.split_whitespace().enumerate() {
        let chars: Vec<char> = word.chars().collect();
        for (m, piece) in chars.chunks(MAX_PIECE).enumerate() {
            if column + 1 + piece.len() > WIDTH && n + m > 0 {
                *out += &format!("\n{indent}");
                column = indent.len();
            } else if n > 0 {
                out.push(' ');
                column += 1;
            }
            out.extend(piece);
            column += piece.len();
        }
    }
}

/// Appends the rest of a MIME part: the end of its header, its content, and the line break before
/// the next boundary.
pub(super) fn body(out: &mut String, boundary: &str, content: &[u8]) {
    if is_plain(content, boundary) {
        *out += &format!("\n{}", String::from_utf8_lossy(content));
        if !content.is_empty() && !content.ends_with(b"\n") {
            out.push('\n');
        }
    } else {
        *out += "Content-Transfer-Encoding: quoted-printable\n\n";
        quoted_printable(out, content);
    }
    // The line break before a boundary belongs to the boundary (RFC 2046 5.1.1).
    out.push('\n');
}

/// Whether a line looks like the boundary between two parts.
pub(super) fn is_boundary(line: &[u8], boundary: &str) -> bool {
    line.strip_prefix(b"--").is_some_and(|rest| rest.starts_with(boundary.as_bytes()))
}

/// Whether a MIME part needs no encoding. A part with the delivery status in ASCII never needs an
/// encoding: all its lines begin with the name of a field or with a blank, so none of them looks
/// like a boundary.
fn is_plain(content: &[u8], boundary: &str) -> bool {
    let is_clean = |line: &[u8]| line.iter().all(|&b| b == b'\t' || (b' '..=b'~').contains(&b));
    content.split(|&b| b == b'\n').all(|line| line.len() <= MAX_LINE && is_clean(line) && !is_boundary(line, boundary))
}

/// Appends text as quoted-printable (RFC 2045 6.7): octets that are not printable, and a blank at
/// the end of a line, become `=XX`.
fn quoted_printable(out: &mut String, content: &[u8]) {
    for line in content.strip_suffix(b"\n").unwrap_or(content).split(|&b| b == b'\n') {
        let mut column = 0;
        for (at, &b) in line.iter().enumerate() {
            let inside = at + 1 < line.len();
            let literal = matches!(b, b'!'..=b'<' | b'>'..=b'~') || (inside && matches!(b, b' ' | b'\t'));
            let octet = if literal { char::from(b).to_string() } else { format!("={b:02X}") };
            if column + octet.len() >= MAX_ENCODED {
                *out += "=\n";
                column = 0;
            }
            *out += &octet;
            column += octet.len();
        }
        out.push('\n');
    }
}
