use super::*;

/// Describes the lines of a text up to the end of its header, with one word for each line. Fails if
/// the result depends on how the text is split.
fn lines(text: &[u8]) -> Vec<String> {
    let read = |cuts: &[usize]| {
        let (mut reader, mut found, mut start) = (Lines::default(), Vec::new(), 0);
        let mut is_over = false;
        let mut add = |piece: Piece<'_>| match piece {
            Piece::Line(part, raw) if !is_over => {
                assert!(raw.len() <= MAX_LINE);
                is_over = part == Part::End;
                found.push(match part {
                    Part::Field(name, body) => {
                        let text = |text| String::from_utf8_lossy(text).chars().take(20).collect::<String>();
                        format!("{}={}", text(name), text(body.trim_ascii()))
                    }
                    other => format!("{other:?}"),
                });
            }
            _ => {}
        };
        for &cut in cuts.iter().chain([&text.len()]) {
            let mut piece = &text[start..cut];
            while let Some(piece) = reader.next(&mut piece) {
                add(piece);
            }
            start = cut;
        }
        reader.finish().into_iter().for_each(add);
        found
    };
    let expected = read(&[]);
    for cut in 0..text.len() {
        assert_eq!(read(&[cut]), expected, "cut at {cut}");
    }
    let octets: Vec<usize> = (0..text.len()).collect();
    assert_eq!(read(&octets), expected, "octet by octet");
    expected
}

/// Returns the header of a text, the rest, and the state of the header. Fails if the result depends
/// on how the text is split.
fn section(text: &[u8], limit: usize) -> (Vec<u8>, Vec<u8>, State) {
    let read = |cut: usize| {
        let mut section = Section::new(limit);
        let (front, back) = text.split_at(cut);
        let mut rest = section.feed(front).to_vec();
        rest.extend_from_slice(section.feed(back));
        section.finish();
        let remainder = [section.remainder(), &rest].concat();
        (section.header().to_vec(), remainder, section.state())
    };
    let expected = read(0);
    for cut in 0..text.len() {
        assert_eq!(read(cut), expected, "cut at {cut}");
    }
    expected
}

#[test]
fn all_readers_agree_about_a_header() {
    let name = "x".repeat(MAX_LINE - 1);
    let long_cases = [
        // A name must end within the part of a line that is examined.
        (format!("{name}: y\nA: b\n\n"), "xxxxxxxxxxxxxxxxxxxx= A=b End", 2),
        (format!("{name}x: y\nA: b\n\n"), "Stray A=b End", 0),
        (format!("A: {name}{name}\n {name}{name}\nB: c\n"), "A=xxxxxxxxxxxxxxxxxxxx Continuation B=c", 2),
        // A postmark, too, must end within the part of a line that is examined.
        (format!("From {}\nA: b\n\n", "x".repeat(MAX_LINE - 6)), "Postmark A=b End", 1),
        (format!("From {}\nA: b\n\n", "x".repeat(MAX_LINE - 5)), "Stray A=b End", 0),
    ];
    // Each text comes with its lines, and the number of fields before the first stray line.
    let short_cases = [
        ("", "", 0),
        ("\n", "End", 0),
        ("A: b\n\nB: c\n", "A=b End", 1),
        ("A: b", "A=b", 1),
        ("a :b\nB\t: c\n\n", "a=b B=c End", 2),
        ("A:\n b\n\tc: d\nB: e\n\n", "A= Continuation Continuation B=e End", 2),
        // A line of blanks continues a field.
        ("A: b\n \t\nB: c\n\n", "A=b Continuation B=c End", 2),
        (" a\nB: c\n", "Stray B=c", 0),
        (" a: b\n c\n\n", "Stray Continuation End", 0),
        ("A: b\nno field\n c\nB: c\n\n", "A=b Stray Continuation B=c End", 1),
        ("two words: x\n", "Stray", 0),
        // A colon on a later line makes no field.
        ("To\n : eve\nA: b\n\n", "Stray Continuation A=b End", 0),
        ("\u{f6}: x\n", "Stray", 0),
        (": x\n", "Stray", 0),
        ("From a b\nA: b\n\n", "Postmark A=b End", 1),
        (">From a b\nA: b\n\n", "Postmark A=b End", 1),
        ("From a b", "Stray", 0),
        ("From a b\n A: b\n", "Postmark Stray", 0),
        ("From a b\nFrom c d\nA: b\n", "Postmark Stray A=b", 0),
        // After a field, a line `From ...` is no postmark, even if that field is removed later.
        ("Return-Path: a\nFrom a b\nA: b\n", "Return-Path=a Stray A=b", 1),
        ("From: a\n", "From=a", 1),
        ("From : a\n", "From=a", 1),
    ];
    for (text, want, strict) in long_cases.iter().map(|(text, w, n)| (text.as_str(), *w, *n)).chain(short_cases) {
        let found = lines(text.as_bytes());
        assert_eq!(found.join(" "), want, "{text:.60}");
        let (head, remainder, state) = section(text.as_bytes(), 1 << 20);
        assert_eq!((fields(&head).count(), state), (strict, State::Complete), "{text:.60}");
        assert!(fields(&head).all(|field| !field.name.is_empty()));
        let postmark = text.len() - head.len() - remainder.len();
        assert_eq!([&text.as_bytes()[..postmark], &head, &remainder].concat(), text.as_bytes());
        assert!(postmark == 0 || (strict > 0 && want.starts_with("Postmark")), "{text:.60}");
        // `fields`, which reads a complete text, finds the same fields as `Lines`, which reads
        // pieces.
        let names = |name: &[u8]| String::from_utf8_lossy(name).chars().take(20).collect::<String>();
        let expected: Vec<String> =
            fields(text.as_bytes()).filter(|f| !f.name.is_empty()).map(|f| names(f.name)).collect();
        let pieces: Vec<_> = found.iter().filter_map(|word| word.split_once('=')).map(|(name, _)| name).collect();
        assert_eq!(expected, pieces, "{text:.60}");
        let mut scanned = Vec::new();
        scan(text.as_bytes(), 1 << 20, |name, _| scanned.push(names(name))).expect("memory");
        assert_eq!(scanned, pieces, "{text:.60}");
        assert!(text.as_bytes().starts_with(header(text.as_bytes())));
    }
}

#[test]
fn a_field_is_found_by_its_name_and_unfolded() {
    let text = b"Subject : Lunch\n on\n\tFriday \nsubject: x\nTo:\n\nSubject: body\n";
    let found: Vec<_> = fields(text).filter(|field| field.is("SUBJECT")).map(|field| field.text()).collect();
    assert_eq!(found, ["Lunch on\tFriday", "x"]);
    assert_eq!(header(text), &text[..text.len() - "\nSubject: body\n".len()]);
    assert_eq!(header(b"A: b\nc"), b"A: b\nc");
}

#[test]
fn a_header_beyond_the_limit_is_not_complete() {
    let text = b"A: b\nB: c\nC: d\n\nbody\n";
    for limit in 0..16 {
        let (head, remainder, state) = section(text, limit);
        assert_eq!(state, if limit < 16 { State::TooLong } else { State::Complete }, "{limit}");
        assert_eq!([&head[..], &remainder].concat(), text);
        assert!(head.len() <= limit);
    }
    assert_eq!(section(text, 16).2, State::Complete);
    let mut names = Vec::new();
    scan(&text[..], 7, |name, body| names.push((name.to_vec(), body.to_vec()))).expect("memory");
    assert_eq!(names, [(b"A".to_vec(), b" b\n".to_vec()), (b"B".to_vec(), Vec::new())]);
}

#[test]
fn only_blanks_may_stand_between_a_name_and_its_colon() {
    assert_eq!(lines(b"A \t: b\n"), ["A=b"]);
    for text in [&b"A\r: b\n"[..], b"A\x0c: b\n", b"A\x0b : b\n", b" : b\n", b": b\n"] {
        assert_eq!(lines(text), ["Stray"], "{text:?}");
    }
}
