//! Writes the text of a report in a form that every mail system passes on: folded lines and MIME
//! parts.

use crate::message::mime;

pub(super) use crate::message::mime::MAX_LINE;

/// The width at which text is folded, in columns.
const WIDTH: usize = 72;
/// The maximum length of one piece of a long word, in characters.
const MAX_PIECE: usize = 900;

/// The characters of Chinese and Japanese that must not begin a line, and those that must not end
/// one.
const NO_START: &str = "、。，．・：；？！）］｝」』】〉》”’ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ…).,:;!?]}>";
const NO_END: &str = "（［｛「『【〈《“‘([{<";

/// The blanks at which a line must not end, as before a French colon.
const NO_BREAK: [char; 2] = ['\u{a0}', '\u{202f}'];

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
/// is too long for a line of mail is cut into pieces, and Chinese or Japanese text between any two
/// characters.
pub(super) fn flow(out: &mut String, indent: &str, text: &str) {
    let mut column = out.rsplit('\n').next().unwrap_or_default().chars().map(columns).sum::<usize>();
    let is_blank = |c: char| c.is_whitespace() && !NO_BREAK.contains(&c);
    for (n, word) in text.split(is_blank).filter(|word| !word.is_empty()).enumerate() {
        for (m, piece) in pieces(word).into_iter().enumerate() {
            let (width, blank) = (piece.chars().map(columns).sum::<usize>(), usize::from(m == 0));
            if column + blank + width > WIDTH && n + m > 0 {
                *out += &format!("\n{indent}");
                column = indent.len();
            } else if n > 0 && m == 0 {
                out.push(' ');
                column += 1;
            }
            *out += &piece;
            column += width;
        }
    }
}

/// Cuts a word into pieces between which a line may end.
fn pieces(word: &str) -> Vec<String> {
    let (mut pieces, mut piece, mut length) = (Vec::new(), String::new(), 0);
    let mut last = None;
    for c in word.chars() {
        let may_end = |last: char| {
            let is_wide = columns(last) == 2 || columns(c) == 2;
            length >= MAX_PIECE || (is_wide && !NO_START.contains(c) && !NO_END.contains(last))
        };
        if last.is_some_and(may_end) {
            pieces.push(std::mem::take(&mut piece));
            length = 0;
        }
        piece.push(c);
        length += 1;
        last = Some(c);
    }
    pieces.push(piece);
    pieces
}

/// The columns that a character has in a terminal: two for the characters of East Asia, and none for
/// marks that are drawn above or below others, or not at all.
fn columns(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x610..=0x61a | 0x64b..=0x65f | 0x200b..=0x200f | 0x2060..=0x206f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe4f => 2,
        0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
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
        *out += &mime::quoted_printable(content);
    }
    // The line break before a boundary belongs to the boundary (RFC 2046 5.1.1).
    out.push('\n');
}

/// Appends the rest of a MIME part with text, like [`body`]. In base64, text of many scripts is less
/// than half as long as in quoted-printable.
pub(super) fn text_body(out: &mut String, boundary: &str, text: &str) {
    let outside = text.bytes().filter(|b| !b.is_ascii()).count();
    if outside * 6 < text.len() {
        return body(out, boundary, text.as_bytes());
    }
    *out += "Content-Transfer-Encoding: base64\n\n";
    *out += &mime::base64(text.replace('\n', "\r\n").as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_folded_at_blanks_and_between_the_characters_of_east_asia() {
        for (text, width) in [
            ("あなたのメッセージは、以下のアドレスに配達できませんでした。".repeat(5), 72),
            ("您的邮件未能送达以下地址。".repeat(9), 72),
            ("The mailbox example@example.org does not exist. ".repeat(5), 72),
            ("\u{648}\u{651}".repeat(20) + " ", 72),
            ("x".repeat(2000), 900),
            ("Les pièces jointes\u{a0}: le message. ".repeat(9), 72),
        ] {
            let mut out = String::new();
            flow(&mut out, "    ", &text);
            for line in out.lines() {
                let columns: usize = line.chars().map(columns).sum();
                assert!(columns <= width + 4 && !line.trim_start().starts_with(['、', '。', ':']), "{line}");
            }
            let joined: String = out.lines().map(str::trim).collect();
            assert_eq!(joined.replace(' ', ""), text.replace(' ', ""));
            assert_eq!(out.lines().count() > 1, out.len() > 80, "{out}");
        }
    }

    #[test]
    fn text_is_encoded_in_the_shorter_form() {
        for (text, encoding) in [
            ("Hello\n", ""),
            ("Viele Grüße aus der Stadt am Rhein\n", "quoted-printable"),
            ("Сообщение не доставлено\n", "base64"),
        ] {
            let mut out = String::new();
            text_body(&mut out, "=_x", text);
            let head = if encoding.is_empty() {
                "\n".to_owned()
            } else {
                format!("Content-Transfer-Encoding: {encoding}\n\n")
            };
            assert!(out.starts_with(&head) && out.ends_with("\n\n") && out.is_ascii(), "{out}");
        }
    }
}
