use super::*;

const MESSAGE: &[u8] = b"Received: x\nSubject: a\n b\nX-Spam: no\nx-spam: maybe\n\nbody\n";

fn field(name: &str, value: &str) -> NewField {
    NewField { name: name.into(), value: value.into() }
}

/// The text after these changes to the header.
fn changed(content: &[u8], change: impl FnOnce(&mut Header)) -> String {
    let mut text = Text::read(&content).expect("read").expect("short");
    change(&mut text.header);
    let changes = text.into_changes();
    let mut out = Vec::new();
    changes.apply(&mut &*content, &mut out).expect("applied");
    String::from_utf8(out).expect("text")
}

impl Content for &[u8] {
    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(*self))
    }
}

#[test]
fn fields_are_counted_as_filters_count_them() {
    let original = String::from_utf8(MESSAGE.to_vec()).expect("text");
    for (change, want) in [
        (&(|_: &mut Header| {}) as &dyn Fn(&mut Header), original.clone()),
        (&|h| h.insert(0, &field("A", "1"), false).expect("added"), format!("A: 1\n{original}")),
        (&|h| h.insert(1, &field("A", "1"), true).expect("added"), format!("A:1\n{original}")),
        (
            &|h| {
                h.insert(0, &field("A", "1"), false).expect("added");
                h.insert(1, &field("B", "2"), false).expect("added");
            },
            format!("B: 2\nA: 1\n{original}"),
        ),
        (&|h| h.insert(2, &field("A", "1"), false).expect("added"), original.replace("Subject:", "A: 1\nSubject:")),
        (&|h| h.insert(99, &field("A", "1"), false).expect("added"), original.replace("\n\n", "\nA: 1\n\n")),
        (&|h| h.add(&field("A", "1\n 2"), false).expect("added"), original.replace("\n\n", "\nA: 1\n 2\n\n")),
        (
            &|h| h.change(2, &field("X-SPAM", "yes"), false).expect("changed"),
            original.replace("x-spam: maybe", "X-SPAM: yes"),
        ),
        (&|h| h.change(1, &field("x-spam", ""), false).expect("removed"), original.replace("X-Spam: no\n", "")),
        (&|h| h.change(0, &field("x-spam", ""), false).expect("removed"), original.replace("X-Spam: no\n", "")),
        (&|h| h.change(3, &field("x-spam", ""), false).expect("none"), original.clone()),
        (
            &|h| h.change(3, &field("X-Spam", "new"), false).expect("added"),
            original.replace("\n\n", "\nX-Spam: new\n\n"),
        ),
        (
            &|h| {
                h.insert(1, &field("A", "1"), false).expect("added");
                h.change(1, &field("A", ""), false).expect("removed");
            },
            original.clone(),
        ),
    ] {
        assert_eq!(changed(MESSAGE, change), want);
    }
}

#[test]
fn a_message_of_any_form_is_written_as_it_was() {
    for text in ["", "\n", "body only\n", "\nbody\n", "A: b\n", "A: b\n\n", "A: b\nstray\nC: d\n\nbody\n", "A: b"] {
        let copy = changed(text.as_bytes(), |_| {});
        assert_eq!(copy, if text == "A: b" { "A: b\n" } else { text }, "{text:?}");
        let longer = changed(text.as_bytes(), |header| header.add(&field("X", "y"), false).expect("added"));
        assert_eq!(longer.matches("X: y\n").count(), 1, "{text:?}");
    }
}

#[test]
fn a_header_has_a_maximum_length() {
    let long = [b"A: ".as_slice(), &vec![b'x'; MAX_HEADER], b"\n\nbody\n"].concat();
    assert!(Text::read(&long.as_slice()).expect("read").is_none());
    let many = "A:\n".repeat(MAX_FIELDS);
    assert!(Text::read(&many.as_bytes()).expect("read").is_some());
    assert!(Text::read(&format!("{many}B:\n").as_bytes()).expect("read").is_none());
    let mut text = Text::read(&MESSAGE).expect("read").expect("short");
    let big = field("X", &"y".repeat(60_000));
    assert!((0..30).any(|_| text.header.add(&big, false).is_err()));
    let mut text = Text::read(&MESSAGE).expect("read").expect("short");
    // The work is bounded even if the header does not grow.
    assert!((0..30).any(|_| text.header.change(1, &field("Subject", &"y".repeat(60_000)), false).is_err()));
}

#[test]
fn a_new_body_has_lines_that_end_in_lf_and_a_maximum_size() {
    let scratch = || File::options().read(true).write(true).create_new(true).open(scratch_path());
    let rooms = std::cell::Cell::new(usize::MAX);
    let has_room = || Ok(rooms.replace(rooms.get().saturating_sub(1)) > 0);
    let body = |pieces: &[&[u8]], limit| {
        let mut body = NewBody::new(limit, &scratch, &has_room);
        pieces.iter().try_for_each(|piece| body.take(piece))?;
        let mut text = Vec::new();
        let body = body.end()?;
        // Two readers one after the other get the same text.
        body.open()?.read_to_end(&mut Vec::new())?;
        body.open()?.read_to_end(&mut text)?;
        Ok::<_, Trouble>(text)
    };
    for (pieces, want) in [
        (&[&b"a\r\nb\r\n"[..]][..], &b"a\nb\n"[..]),
        (&[b"a\r", b"\nb\r", b"\n"], b"a\nb\n"),
        (&[b"a\nb\rc\r\rd"], b"a\nb\nc\n\nd\n"),
        (&[b"a\0b"], b"ab\n"),
        (&[b""], b""),
    ] {
        assert_eq!(body(pieces, 1000), Ok(want.to_vec()));
    }
    let large = b"0123456789\r\n".repeat(20_000);
    assert_eq!(body(&[&large, b"end"], 1 << 20).map(|text| text.len()), Ok(11 * 20_000 + 4));
    assert!(body(&[&large], 1000).is_err());
    // The room is looked for again while the file grows.
    for (count, is_stored) in [(0, false), (1, false), (2, true)] {
        rooms.set(count);
        assert_eq!(body(&[&large[..large.len() - 1], b"\n"], 1 << 20).is_ok(), is_stored, "{count}");
    }
    rooms.set(0);
    assert!(body(&[b"small"], 1000).is_ok());
}

fn scratch_path() -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("penfold-body-{}", std::process::id()));
    let _ = crate::sys::disk::remove(&path);
    path
}

#[test]
fn a_new_body_replaces_the_old_one() {
    for text in [MESSAGE, b"A: b\nstray\n", b"A: b\n"] {
        let mut changes = Text::read(&text).expect("read").expect("short").into_changes();
        changes.body = Some(Body::Memory(b"new\n".to_vec()));
        let mut out = Vec::new();
        changes.apply(&mut &*text, &mut out).expect("applied");
        assert!(out.ends_with(b"\n\nnew\n") && !changes.is_empty());
    }
}
