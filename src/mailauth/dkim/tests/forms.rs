//! Tests the canonical forms with the examples of RFC 6376 3.4, and with random text.

use common::chance::Chance;

use super::super::canon::{Body, Canon, field};
use crate::message::field::fields;

fn body_in_pieces<'a>(form: Canon, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let (mut body, mut out) = (Body::new(form), Vec::new());
    for piece in pieces {
        body.feed(piece, &mut |text| out.extend_from_slice(text));
    }
    body.finish(&mut |text| out.extend_from_slice(text));
    String::from_utf8(out).expect("text")
}

fn body(form: Canon, text: &str) -> String {
    body_in_pieces(form, [text.as_bytes()])
}

fn header(form: Canon, text: &str) -> String {
    let mut out = Vec::new();
    fields(text.as_bytes()).for_each(|f| field(form, f.name, f.raw, f.body, &mut out));
    String::from_utf8(out).expect("text")
}

#[test]
fn the_examples_of_the_rfc() {
    let fields = "A: X\nB : Y\t\n\tZ  \n";
    assert_eq!(header(Canon::Relaxed, fields), "a:X\r\nb:Y Z\r\n");
    assert_eq!(header(Canon::Simple, fields), "A: X\r\nB : Y\t\r\n\tZ  \r\n");
    let text = " C \nD \t E\n\n\n";
    assert_eq!(body(Canon::Relaxed, text), " C\r\nD E\r\n");
    assert_eq!(body(Canon::Simple, text), " C \r\nD \t E\r\n");
}

#[test]
fn the_ends_of_bodies() {
    for (text, simple, relaxed) in [
        ("", "\r\n", ""),
        ("\n", "\r\n", ""),
        ("\n\n", "\r\n", ""),
        (" \n", " \r\n", ""),
        ("\t \n \n", "\t \r\n \r\n", ""),
        ("a", "a\r\n", "a\r\n"),
        ("a ", "a \r\n", "a\r\n"),
        ("a\n", "a\r\n", "a\r\n"),
        ("a\n\n", "a\r\n", "a\r\n"),
        ("a\n \n", "a\r\n \r\n", "a\r\n"),
        ("\na", "\r\na\r\n", "\r\na\r\n"),
        ("a\n\n b", "a\r\n\r\n b\r\n", "a\r\n\r\n b\r\n"),
        ("a\r\n", "a\r\r\n", "a\r\r\n"),
    ] {
        assert_eq!(body(Canon::Simple, text), simple, "{text:?}");
        assert_eq!(body(Canon::Relaxed, text), relaxed, "{text:?}");
    }
}

#[test]
fn fields_without_a_value_or_a_line_end() {
    for (text, simple, relaxed) in [
        ("A:\n", "A:\r\n", "a:\r\n"),
        ("A: \n \n", "A: \r\n \r\n", "a:\r\n"),
        ("A: b", "A: b\r\n", "a:b\r\n"),
        ("A:b\n\tc\n d", "A:b\r\n\tc\r\n d\r\n", "a:b c d\r\n"),
    ] {
        assert_eq!(header(Canon::Simple, text), simple, "{text:?}");
        assert_eq!(header(Canon::Relaxed, text), relaxed, "{text:?}");
    }
}

/// Returns random text with many blanks and line ends. Some runs of them are long.
fn random_text(chance: &mut Chance) -> String {
    let mut text = String::new();
    for _ in 0..chance.of(0..40) {
        let word = *chance.pick(&["a", "bc", " ", "\t", "\n", "\n\n", " \n", "\r", "\u{e4}", "long word "]);
        let count = if chance.percent(5) { chance.of(1..3000) } else { 1 };
        text += &word.repeat(count);
    }
    text
}

/// Returns the canonical form of a whole text, computed step by step as the RFC describes it.
fn by_definition(form: Canon, text: &str) -> String {
    let ended = if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    let squeeze = |line: &str| {
        let mut squeezed = String::new();
        for c in line.trim_end_matches([' ', '\t']).chars() {
            let is_blank = matches!(c, ' ' | '\t');
            if !(is_blank && squeezed.ends_with(' ')) {
                squeezed.push(if is_blank { ' ' } else { c });
            }
        }
        squeezed
    };
    let lines =
        ended.split_terminator('\n').map(|line| if form == Canon::Relaxed { squeeze(line) } else { line.to_owned() });
    let mut lines: Vec<_> = lines.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    if lines.is_empty() && form == Canon::Simple {
        lines.push(String::new());
    }
    lines.into_iter().map(|line| line + "\r\n").collect()
}

/// Checks random bodies. The canonical form is the one that the RFC defines, however the text is
/// split. Bringing a text into its canonical form twice has the same result as once. Added blanks
/// do not change the relaxed form.
#[test]
fn the_form_of_a_body_has_its_properties() {
    let mut chance = Chance::new(1, "bodies");
    for _ in 0..2000 {
        let text = random_text(&mut chance);
        for form in [Canon::Simple, Canon::Relaxed] {
            let whole = body(form, &text);
            assert_eq!(whole, by_definition(form, &text), "{text:?}");
            assert_eq!(body_in_pieces(form, chance.pieces(text.as_bytes(), 9)), whole, "{text:?}");
            assert_eq!(body(form, &whole.replace("\r\n", "\n")), whole, "{text:?}");
        }
        let respaced = text.replace(' ', " \t ").replace('\n', " \n") + "\n \n";
        assert_eq!(body(Canon::Relaxed, &respaced), body(Canon::Relaxed, &text), "{text:?}");
    }
}

/// Checks random fields. Bringing a field into the relaxed form twice has the same result as once.
/// Folding and added blanks do not change the result.
#[test]
fn the_form_of_a_header_has_its_properties() {
    let mut chance = Chance::new(1, "headers");
    for _ in 0..2000 {
        let words: Vec<_> = (0..chance.of(0..6)).map(|_| *chance.pick(&["a", "B;", "c=d", ":", "\u{e4}"])).collect();
        let plain = format!("Name: {}\n", words.join(" "));
        let relaxed = header(Canon::Relaxed, &plain);
        assert_eq!(relaxed, format!("name:{}\r\n", words.join(" ")));
        assert_eq!(header(Canon::Relaxed, &relaxed.replace("\r\n", "\n")), relaxed);
        let mut folded = "nAME".to_owned() + *chance.pick(&["", " ", "\t"]) + ":";
        for word in &words {
            folded += *chance.pick(&[" ", "\t", "\n ", " \n\t ", "\n \n "]);
            folded += word;
        }
        folded += *chance.pick(&["\n", " \n", "\n \n"]);
        assert_eq!(header(Canon::Relaxed, &folded), relaxed, "{folded:?}");
        assert_eq!(header(Canon::Simple, &folded), folded.replace('\n', "\r\n"), "{folded:?}");
    }
}
