//! Replies, written and read.

use super::*;

#[test]
fn a_reply_is_written_line_by_line_with_its_status() {
    let mut out = Vec::new();
    unknown_user(&"elvis@razorback").write_to(&mut out);
    assert_eq!(out, b"550 5.1.1 <elvis@razorback> User unknown\r\n");
    out.clear();
    help().write_to(&mut out);
    let text = String::from_utf8(out).expect("ASCII");
    assert!(text.lines().rev().skip(1).all(|l| l.starts_with("214-2.0.0 ")));
    assert!(text.lines().next_back().is_some_and(|l| l.starts_with("214 2.0.0 ")));
}

#[test]
fn replies_of_others_are_read_whatever_they_look_like() {
    for (given, shown, status) in [
        ("250 2.1.5 ok\r\n", "250 2.1.5 ok", Some(Status(2, 1, 5))),
        ("250-one\r\n250 two\r\n", "250 one two", None),
        ("550-5.1.1 no\r\n550 5.1.1 such user\r\n", "550 5.1.1 no such user", Some(Status(5, 1, 1))),
        ("450\r\n", "450", None),
        ("450 4.7.2\r\n", "450 4.7.2", Some(Status(4, 7, 2))),
        ("250 a\x1b[31mb\tc\r\n", "250 a?[31mb?c", None),
        ("554 5.7.1234 x\r\n", "554 5.7.1234 x", None),
    ] {
        let reply = Reply::read_all(given.as_bytes()).expect(given);
        assert_eq!((reply.to_string().as_str(), reply.status()), (shown, status));
    }
    for given in ["", "25", "hello", "999 x", "150 x", "250x", "250-a\r\n251 b\r\n"] {
        assert_eq!(Reply::read_all(given.as_bytes()), None, "{given}");
    }
}

#[test]
fn a_reply_without_end_is_cut_off() {
    let mut reader = ReplyReader::default();
    let line = [b"250-".as_slice(), &[b'x'; 5000]].concat();
    for _ in 0..10_000 {
        assert_eq!(reader.line(&line), Ok(None));
    }
    let reply = reader.line(b"250 end").expect("well formed").expect("complete");
    assert_eq!(reply.lines().len(), MAX_LINES);
    assert!(reply.lines().iter().all(|l| l.len() <= MAX_LINE));
}
