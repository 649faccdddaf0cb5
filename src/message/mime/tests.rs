use super::*;

const SEVEN: (bool, bool) = (false, false);
const EIGHT: (bool, bool) = (false, true);

fn converted(text: &[u8], (is_binary, keeps_eight_bit): (bool, bool)) -> Result<String, Unconvertible> {
    let mut out = Vec::new();
    let done = convert(|| text, Conversion { is_binary, keeps_eight_bit }, &|field| field.is("Drop"), &mut out)
        .expect("memory");
    let out = String::from_utf8(out).expect("text");
    assert!(keeps_eight_bit || out.is_ascii());
    assert!(out.lines().all(|line| line.len() <= MAX_LINE) && !out.contains('\r') && !out.contains('\0'));
    done.map(|()| out)
}

#[track_caller]
fn check(text: &str, form: (bool, bool), want: &str) {
    assert_eq!(converted(text.as_bytes(), form).as_deref(), Ok(want), "{text}");
}

#[test]
fn a_message_without_parts_gets_the_shorter_encoding() {
    const VERSION: &str = "MIME-Version: 1.0\n";
    let x = "x".repeat(1000);
    check(
        "A: b\n\n\u{f6}ffnen \n",
        SEVEN,
        &format!(
            "A: b\n{VERSION}Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n=C3=B6ffnen=20\n"
        ),
    );
    check(
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nA: b\n\n\u{416}\u{416}\n\u{416}\n",
        SEVEN,
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\nA: b\n\n0JbQlg0K0JYNCg==\n",
    );
    let bare = converted(b"\n\xf6\n", SEVEN).expect("converted");
    assert_eq!(
        bare,
        format!(
            "{VERSION}Content-Type: text/plain; charset=unknown-8bit\nContent-Transfer-Encoding: quoted-printable\n\n=F6\n"
        )
    );
    // Only long lines are a reason if the host has 8BITMIME.
    check(
        "A: b\nContent-Transfer-Encoding: 8bit\n\n\u{f6}\n",
        EIGHT,
        "A: b\nContent-Transfer-Encoding: 8bit\n\n\u{f6}\n",
    );
    let long = converted(format!("MIME-Version: 1.0\n\n{x}\n").as_bytes(), EIGHT).expect("converted");
    assert!(long.starts_with("MIME-Version: 1.0\nContent-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: quoted-printable\n\nxxx"), "{long}");
    assert_eq!(long.split_once("\n\n").map(|(_, body)| body.replace("=\n", "")), Some(format!("{x}\n")));
    // A label that says more than there is is lowered, and so nothing else is changed.
    check(
        "Content-Transfer-Encoding: 8bit\n\nx\n\0\n".replace("\0\n", "").as_str(),
        SEVEN,
        "Content-Transfer-Encoding: 7bit\n\nx\n",
    );
    check("A: b\nDrop: c\n\nx", SEVEN, "A: b\n\nx");
    check("", SEVEN, "");
    check("A: b", SEVEN, "A: b\n");
    check("A: b\nno field\n", SEVEN, "A: b\nno field\n");
    check(
        "A: b\nMIME-Version: 1.0\nContent-Type: x/y\nno field \u{f6}\n",
        SEVEN,
        "A: b\nMIME-Version: 1.0\nContent-Type: x/y\nContent-Transfer-Encoding: quoted-printable\n\nno field =C3=B6\n",
    );
}

#[test]
fn each_part_is_converted_on_its_own_and_the_structure_stays() {
    check(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"a b\"\nContent-Transfer-Encoding: 8bit\n\n\
         pr\u{e4}ambel\n--a b \t\n\n\u{f6}\n\n--a b\nContent-Type: multipart/alternative; boundary=in\n\n\
         --in\nContent-Type: text/plain\n\nplain --a b\n--in\nContent-Type: text/html\nContent-Transfer-Encoding: 8BIT\n\n<\u{f6}>\n--in--\n\
         --a b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: x\n\n\u{f6}\n--a b--\nepilog\u{fc}e\n--a b\n",
        SEVEN,
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"a b\"\nContent-Transfer-Encoding: 7bit\n\n\
         pr??ambel\n--a b \t\nContent-Transfer-Encoding: quoted-printable\n\n=C3=B6\n\n--a b\nContent-Type: multipart/alternative; boundary=in\n\n\
         --in\nContent-Type: text/plain\n\nplain --a b\n--in\nContent-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<=C3=B6>\n--in--\n\
         --a b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\n\
         Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n=C3=B6\n--a b--\nepilog??e\n--a b\n",
    );
    // The line end before a boundary is not part of the text.
    check(
        "Content-Type: multipart/mixed; boundary=x\n\n--x\n\n\u{416}\u{416}\u{416}\n--x\n\n\u{416}\u{416}\u{416}\n\n--x--",
        SEVEN,
        "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Transfer-Encoding: base64\n\n0JbQltCW\n--x\nContent-Transfer-Encoding: base64\n\n0JbQltCWDQo=\n--x--",
    );
    // A part of a digest is a message.
    check(
        "Content-Type: multipart/digest; boundary=x\n\n--x\n\nA: b\nMIME-Version: 1.0\nContent-Type: a/b\n\n\u{f6}\n--x--\n",
        SEVEN,
        "Content-Type: multipart/digest; boundary=x\n\n--x\n\nA: b\nMIME-Version: 1.0\nContent-Type: a/b\nContent-Transfer-Encoding: quoted-printable\n\n=C3=B6\n--x--\n",
    );
}

#[test]
fn broken_structures_lose_nothing() {
    // Without a boundary, or without a line that has it, there is one part.
    for kind in ["multipart/mixed", "multipart/mixed; boundary=\"\"", "multipart/mixed; boundary=x"] {
        check(
            &format!("MIME-Version: 1.0\nContent-Type: {kind}\n\n--y\n\n\u{f6}\n--x--\n"),
            SEVEN,
            &format!(
                "MIME-Version: 1.0\nContent-Type: {kind}\nContent-Transfer-Encoding: quoted-printable\n\n=2D-y\n\n=C3=B6\n=2D-x--\n"
            ),
        );
    }
    // The last boundary is missing, within another multipart body and at the end; headers are cut off.
    check(
        "Content-Type: multipart/mixed; boundary=x\n--x\nContent-Type: multipart/mixed; boundary=y\n\n--y\n\n\u{f6}\n--x\nContent-Type: a/b\n--x\n\ntext \u{f6}",
        SEVEN,
        "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/mixed; boundary=y\n\n--y\nContent-Transfer-Encoding: quoted-printable\n\n=C3=B6\n--x\nContent-Type: a/b\n--x\nContent-Transfer-Encoding: quoted-printable\n\ntext =C3=B6",
    );
    // The boundary of the outer body counts, and a longer line is no boundary.
    check(
        "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/mixed; boundary=x\n\n--xy\n--x\n\n\u{f6}\n--x-- y\n--x--\n",
        SEVEN,
        "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/mixed; boundary=x\n\n--xy\n--x\nContent-Transfer-Encoding: quoted-printable\n\n=C3=B6\n=2D-x-- y\n--x--\n",
    );
    // What looks like a postmark begins the body.
    check(
        "Content-Type: multipart/mixed; boundary=x\n\n--x\nFrom a\n\u{416}\u{416}\u{416}\n--x--\n",
        SEVEN,
        "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Transfer-Encoding: base64\n\nRnJvbSBhDQrQltCW0JY=\n--x--\n",
    );
    check(
        "From a\n\n\u{f6}\n",
        SEVEN,
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nFrom a\n\n=C3=B6\n",
    );
    // A header that is cut off at a message.
    check("Content-Type: message/rfc822", SEVEN, "Content-Type: message/rfc822\n");
    check("Content-Type: message/rfc822\nstray", SEVEN, "Content-Type: message/rfc822\n\nstray");
}

#[test]
fn a_changed_line_becomes_no_field_and_no_boundary() {
    // A line ends a header that is a field after the conversion.
    for (header, stray, changed) in [
        ("Content-Type: multipart/mixed; boundary=x", "\0A: b\n--x", "?A: b\n--x"),
        ("Content-Transfer-Encoding: quoted-printable", "\u{f6}A: b", "=C3=B6A: b"),
        ("Content-Transfer-Encoding: 8bit\nContent-Type: message/rfc822", "A\n", "A\n"),
    ] {
        let want = format!("{}\n\n{changed}\n", header.replace("8bit", "7bit"));
        check(&format!("{header}\n{stray}\n"), SEVEN, &want);
    }
    // Text outside the parts.
    let (head, blanks) = ("Content-Type: multipart/mixed; boundary=\"x?\"\n\n", " ".repeat(992));
    for (text, changed) in [
        ("--x\0".to_owned(), "?-x?".to_owned()),
        (format!("--x?{blanks}   y"), format!("?-x?{blanks}  \n y")),
        (format!("y{}--x?", "y".repeat(997)), format!("y{}\n?-x?", "y".repeat(997))),
        ("--x".to_owned(), "--x".to_owned()),
    ] {
        let end = "\n--x?\n\ntext\n--x?--\n";
        check(&format!("{head}{text}{end}"), SEVEN, &format!("{head}{changed}{end}"));
    }
    // Base64 with a long line, and a postmark.
    let base64 = "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Transfer-Encoding: base64\n\n";
    let (front, back) = ("QUJD".repeat(19), " ".repeat(997));
    check(
        &format!("{base64}{front}--x{back}\n--x--\n"),
        SEVEN,
        &format!(
            "{base64}{front}\n --x{}\n{}\n--x--\n",
            &back[..72],
            [&back[..76]; 12].join("\n") + "\n" + &back[..13]
        ),
    );
    check("From \u{f6}\nA: b\n\n", SEVEN, "From ??\nA: b\n\n");
}

#[test]
fn what_is_encoded_already_is_mended_or_returned() {
    check(
        "MIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\n=C3=B6=\n\u{f6} \n",
        SEVEN,
        "MIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\n=C3=B6=\n=C3=B6 \n",
    );
    let base64 = "QUJD".repeat(300);
    let mended =
        converted(format!("Content-Transfer-Encoding: base64\n\n{base64}\nQQ==\n").as_bytes(), EIGHT).expect("mended");
    assert_eq!(mended.replace('\n', ""), format!("Content-Transfer-Encoding: base64{base64}QQ=="));
    for (header, body) in [("base64", "QUJD\u{f6}\n"), ("x-uuencode", "\u{f6}\n")] {
        let text = format!("Content-Transfer-Encoding: {header}\n\n{body}");
        assert_eq!(converted(text.as_bytes(), SEVEN), Err(Unconvertible::Encoding));
        check(&text, EIGHT, &text);
    }
}

#[test]
fn a_binary_body_keeps_every_octet() {
    const BINARY: (bool, bool) = (true, false);
    let head = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\nContent-Transfer-Encoding: binary\n\n";
    let text = format!(
        "{head}--x\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\r\u{1}\n--x\nA\r\n\r\n--x\r\n\
         Content-Type: text/plain\r\n\r\nplain\r\ntext\r\n--x\r\nContent-Transfer-Encoding: binary\r\n\r\nsome text\rwith a CR\r\n--x--\r\n"
    );
    let want = head.replace("binary", "7bit")
        + "--x\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\nAA0BCi0teApBDQo=\n--x\n\
           Content-Type: text/plain\n\nplain\ntext\n--x\nContent-Transfer-Encoding: quoted-printable\n\nsome text=0Dwith a CR\n--x--\n";
    check(&text, BINARY, &want);
    // Without a line end at the end of the message none is added.
    for (body, encoded) in [("abc", "YWJj\n"), ("abc\r\n", ""), ("abc\r\n\r", "YWJjDQoN\n"), ("", "")] {
        let text = format!("MIME-Version: 1.0\nContent-Type: a/b\nContent-Transfer-Encoding: binary\n\n{body}");
        let (label, shown) =
            if encoded.is_empty() { ("7bit", body.replace('\r', "")) } else { ("base64", encoded.to_owned()) };
        check(
            &text,
            BINARY,
            &format!("MIME-Version: 1.0\nContent-Type: a/b\nContent-Transfer-Encoding: {label}\n\n{shown}"),
        );
    }
    // A host with 8BITMIME gets 8-bit text, but nothing binary.
    check(
        "A: b\nContent-Transfer-Encoding: binary\n\n\u{f6}\r\n",
        (true, true),
        "A: b\nContent-Transfer-Encoding: 8bit\n\n\u{f6}\n",
    );
    assert_eq!(converted(b"Content-Type: message/rfc822\n\nA: b\nc\r\n\r\n", BINARY), Err(Unconvertible::Header));
}

#[test]
fn no_cr_or_nul_of_a_binary_message_is_sent() {
    const BINARY: (bool, bool) = (true, true);
    let odd = "x\r.\rMAIL FROM:<a@b>";
    let encoded = odd.replace('\r', "%0D").replace(' ', "%20");
    // A boundary that cannot be sent is none, so there is one part.
    let out = converted(
        format!("Content-Type: multipart/mixed; boundary*=''{encoded}\n\n--{odd}\r\n\r\na\r\n--{odd}--\r\n").as_bytes(),
        BINARY,
    );
    let out = out.expect("converted");
    assert!(out.contains("\nContent-Transfer-Encoding: base64\n\n") && !out.contains("\n--"), "{out}");
    for text in [
        "Content-Type: multipart/mixed; boundary=x\n\n--x\r\nA: cr\r.\r\r\n\r\nb\r\n--x--\r\n",
        "Content-Type: multipart/mixed; boundary=x\n\n--x\r\nA: nul\0\r\n\r\nb\r\n--x--\r\n",
        "Content-Type: message/rfc822\n\nSubject: \u{fc}\r.\r\r\n\r\nb\r\n",
    ] {
        assert_eq!(converted(text.as_bytes(), BINARY), Err(Unconvertible::Header), "{text:?}");
    }
}

#[test]
fn the_last_boundary_line_alone_is_text() {
    check(
        "Content-Type: multipart/mixed; boundary=x\nContent-Transfer-Encoding: binary\n\n\r\n--x--",
        (true, true),
        "Content-Type: multipart/mixed; boundary=x\nContent-Transfer-Encoding: base64\nMIME-Version: 1.0\n\nDQotLXgtLQ==\n",
    );
}

#[test]
fn the_line_before_the_header_of_an_enclosed_message_is_made_to_fit() {
    for line in ["x\r.\ry", "x\0..y"] {
        check(
            &format!("Content-Type: message/rfc822\n\nFrom {line}\r\nA: b\r\n\r\nb\r\n"),
            (true, true),
            &format!("Content-Type: message/rfc822\n\nFrom {}\nA: b\n\nb\n", line.replace(['\r', '\0'], "?")),
        );
    }
}

#[test]
fn what_must_not_be_changed_is_kept_or_returned() {
    let signed = |kind: &str, text: &str| {
        format!(
            "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: {kind}; boundary=i\nContent-Transfer-Encoding: 8bit\n\n--i\nContent-Transfer-Encoding: 8bit\n\n{text}\n--i--\n--o\n\n\u{f6}\n--o--\n"
        )
    };
    let long = "x".repeat(999);
    for (kind, why) in [
        ("multipart/signed", Unconvertible::Signed),
        ("Multipart/Encrypted", Unconvertible::Encrypted),
        ("message/partial", Unconvertible::FixedEncoding),
        ("message/external-body", Unconvertible::FixedEncoding),
    ] {
        let text = signed(kind, "text");
        check(&text, SEVEN, &text.replace("\n\n\u{f6}\n", "\nContent-Transfer-Encoding: quoted-printable\n\n=C3=B6\n"));
        assert_eq!(converted(signed(kind, "\u{f6}").as_bytes(), SEVEN), Err(why));
        check(&signed(kind, "\u{f6}"), EIGHT, &signed(kind, "\u{f6}"));
        assert_eq!(converted(signed(kind, &long).as_bytes(), EIGHT), Err(why));
    }
}

#[test]
fn headers_are_folded_or_returned() {
    let (x, y) = ("x".repeat(700), "y".repeat(700));
    check(&format!("A: {x} {y}\n\nz\n"), EIGHT, &format!("A: {x}\n {y}\n\nz\n"));
    for (text, form, why) in [
        (format!("A: {x}{y}\n\nz\n"), EIGHT, Unconvertible::HeaderLine),
        ("A: \u{f6}\n\nz\n".to_owned(), SEVEN, Unconvertible::Header),
        ("Content-Type: message/rfc822\n\nA: \u{f6}\n\nz\n".to_owned(), SEVEN, Unconvertible::Header),
        ("A: b\n".repeat(MAX_HEADER / 5 + 1), SEVEN, Unconvertible::HeaderTooLong),
        ("A".repeat(MAX_HEADER + 2000), SEVEN, Unconvertible::HeaderTooLong),
    ] {
        assert_eq!(converted(text.as_bytes(), form), Err(why), "{text:.80}");
        let dropped = format!("Drop: {text:.2000}");
        assert!(
            why == Unconvertible::HeaderTooLong
                || text.contains("rfc822")
                || converted(dropped.as_bytes(), form).is_ok()
        );
    }
}

#[test]
fn parts_and_levels_are_bounded() {
    let parts = |count: usize| {
        format!("Content-Type: multipart/mixed; boundary=x\n\n{}--x--\n", "--x\n\n\u{f6}\n".repeat(count))
    };
    assert!(converted(parts(MAX_PARTS - 1).as_bytes(), SEVEN).is_ok());
    assert_eq!(converted(parts(MAX_PARTS).as_bytes(), SEVEN), Err(Unconvertible::TooManyParts));
    let nested = |levels: usize| {
        let level = |n: usize| match n % 2 {
            0 => format!("Content-Type: multipart/mixed; boundary=b{n}x\n\n--b{n}x\n"),
            _ => "Content-Type: message/rfc822\n\n".to_owned(),
        };
        (0..levels).map(level).collect::<String>() + "\n\u{f6}\n"
    };
    assert!(converted(nested(MAX_LEVELS).as_bytes(), SEVEN).is_ok());
    assert_eq!(converted(nested(MAX_LEVELS + 1).as_bytes(), SEVEN), Err(Unconvertible::TooDeep));
}
