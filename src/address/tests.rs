use super::*;

#[test]
fn an_address_keeps_its_meaning_and_not_its_spelling() {
    for (given, written) in [
        ("jon@RazorBack", "jon@razorback"),
        ("\"jon\"@razorback", "jon@razorback"),
        ("\"j on\"@x.org", "\"j on\"@x.org"),
        ("\"a\\\"b\"@x.org", "\"a\\\"b\"@x.org"),
        ("\"a\\b\"@x.org", "ab@x.org"),
        ("a..b@x.org", "\"a..b\"@x.org"),
        ("\"a@b\"@x.org", "\"a@b\"@x.org"),
        ("x@[192.0.2.1]", "x@[192.0.2.1]"),
        ("x@[ipv6:2001:DB8:0::1]", "x@[IPv6:2001:db8::1]"),
        ("postmaster", "postmaster"),
        ("a%b@c", "a%b@c"),
        ("host!user@c", "host!user@c"),
    ] {
        let address = Address::parse(given).expect(given);
        assert_eq!(address.to_string(), written);
        assert_eq!(Address::parse(written).expect(written), address);
    }
}

#[test]
fn each_malformed_address_has_its_error() {
    use AddressError::*;
    let long = format!("{}@{}", "a".repeat(200), "b.".repeat(100) + "c");
    for (given, why) in [
        ("", Empty),
        ("@x", BadLocal),
        ("a@", BadDomain),
        ("a@x.", BadDomain),
        ("a@x..y", BadDomain),
        ("a@-x", BadDomain),
        ("a@[1.2.3]", BadLiteral),
        ("a@[IPv6:zz]", BadLiteral),
        ("a@[1.2.3.4", BadLiteral),
        ("a b@x", Trailing),
        ("a,b@x", BadLocal),
        ("\"a@x", BadLocal),
        ("a@x y", Trailing),
        (long.as_str(), TooLong),
    ] {
        assert_eq!(Address::parse(given), Err(why), "{given}");
    }
}

#[test]
fn paths_are_read_as_rfc_5321_and_users_write_them() {
    for (given, address, rest) in [
        ("<a@b>", "<a@b>", ""),
        (" <a@b> SIZE=3", "<a@b>", " SIZE=3"),
        (" a@b", "<a@b>", ""),
        ("a@b BODY=8BITMIME", "<a@b>", " BODY=8BITMIME"),
        ("<>", "<>", ""),
        ("< a@b >", "<a@b>", ""),
        ("<@one,@two:a@b>", "<a@b>", ""),
        ("<@[IPv6:::1],@two:a@b>", "<a@b>", ""),
        ("<Postmaster>", "<Postmaster>", ""),
        ("<\"a>b\"@c> X", "<\"a>b\"@c>", " X"),
    ] {
        let (got, left) = parse_path(given.as_bytes()).expect(given);
        assert_eq!((path(got.as_ref()).as_str(), left), (address, rest.as_bytes()), "{given}");
    }
    assert_eq!(parse_path(b"<a@b"), Err(AddressError::BadPath));
    assert_eq!(parse_path(b"<@one a@b>"), Err(AddressError::BadPath));
    assert_eq!(parse_path(b"a@b>"), Err(AddressError::Trailing));
    assert_eq!(parse_path(b""), Err(AddressError::Empty));
    assert_eq!(parse_path(b"<a@b\x00c>"), Err(AddressError::BadDomain));
}

#[test]
fn a_utf8_address_is_written_with_its_local_part_and_a_labels() {
    for (given, written, is_ascii) in [
        ("j\u{f6}n@x.org", "j\u{f6}n@x.org", false),
        ("\"j\u{f6}n\"@x.org", "j\u{f6}n@x.org", false),
        ("\"j\u{f6} n\"@x.org", "\"j\u{f6} n\"@x.org", false),
        ("\u{7528}\u{6237}", "\u{7528}\u{6237}", false),
        ("jon@b\u{fc}cher.example", "jon@xn--bcher-kva.example", true),
        ("jon@B\u{dc}CHER.Example", "jon@xn--bcher-kva.example", true),
        ("jon@bu\u{308}cher.example", "jon@xn--bcher-kva.example", true),
        ("jon@XN--BCHER-KVA.example", "jon@xn--bcher-kva.example", true),
        ("jon@fa\u{df}.example", "jon@xn--fa-hia.example", true),
        ("jon@\u{ff58}\u{ff4e}--bcher-kva.example", "jon@xn--bcher-kva.example", true),
        ("jon@x\u{3002}\u{4f8b}\u{3048}", "jon@x.xn--r8jz45g", true),
        ("jon@_x.b\u{fc}cher.example", "jon@_x.xn--bcher-kva.example", true),
        // A local part may contain the zero-width non-joiner, which Persian spelling needs.
        (
            "\u{646}\u{627}\u{645}\u{647}\u{200c}\u{627}\u{6cc}@x.org",
            "\u{646}\u{627}\u{645}\u{647}\u{200c}\u{627}\u{6cc}@x.org",
            false,
        ),
    ] {
        let address = Address::parse(given).expect(given);
        assert_eq!((address.to_string().as_str(), address.is_ascii()), (written, is_ascii), "{given}");
        assert_eq!(Address::parse(written).expect(written), address, "{given}");
    }
    let text = "<j\u{f6}n@b\u{fc}cher.example> SMTPUTF8";
    let (path_read, rest) = parse_path(text.as_bytes()).expect(text);
    assert_eq!((path(path_read.as_ref()).as_str(), rest), ("<j\u{f6}n@xn--bcher-kva.example>", &b" SMTPUTF8"[..]));
}

#[test]
fn each_malformed_utf8_address_has_its_error() {
    use AddressError::*;
    for (given, why) in [
        // C1 control characters, line and paragraph separators, blanks, marks of direction, and
        // invisible characters.
        ("j\u{85}n@x", BadLocal),
        ("j\u{2028}n@x", BadLocal),
        ("j\u{2029}n@x", BadLocal),
        ("\"j\u{2028}n\"@x", BadLocal),
        ("j\u{a0}n@x", BadLocal),
        ("j\u{3000}n@x", BadLocal),
        ("gpj.\u{202e}n@x", BadLocal),
        ("\u{feff}jon@x", BadLocal),
        ("j\u{ad}on@x", BadLocal),
        ("j\u{200b}on@x", BadLocal),
        ("j\u{2060}on@x", BadLocal),
        ("j\u{180e}on@x", BadLocal),
        ("jon\u{e0041}@x", BadLocal),
        ("\"j\\\u{f6}n\"@x", BadLocal),
        ("@\u{fc}", BadLocal),
        ("j\u{fffd}n@x", NotUtf8),
        // IDNA rejects these labels, or maps them to ASCII characters that a domain must not have.
        ("a@\u{ad}", BadDomain),
        ("a@x.\u{ad}.y", BadDomain),
        ("a@\u{301}x", BadDomain),
        ("a@\u{fc}.xn--a", BadDomain),
        ("a@\u{fc}.xn--\u{fc}", BadDomain),
        ("a@\u{ff20}x", BadDomain),
        ("a@x\u{2100}y", BadDomain),
        ("a@\u{ff3b}192.0.2.1]", BadDomain),
        ("a@\u{fc}.-x", BadDomain),
        ("a@\u{fc}.", BadDomain),
        ("a@\u{5d0}1a.x", BadDomain),
        ("a@\u{fffd}", BadDomain),
        ("a@[\u{fc}]", BadLiteral),
        ("a@\u{fc} y", Trailing),
    ] {
        assert_eq!(Address::parse(given), Err(why), "{given:?}");
    }
    for given in [&b"j\xf6n@x"[..], b"a@\xfc", b"\"\xc3\"@x", b"\xed\xa0\x80@x", b"\xf8\x88\x80\x80\x80@x"] {
        assert_eq!(parse_path(given), Err(NotUtf8), "{}", given.escape_ascii());
    }
}

/// A local part of 64 octets and a domain of 255 octets are accepted (RFC 5321 4.5.3.1, RFC 1035).
/// Somewhat longer local parts are accepted too, because real addresses have them.
#[test]
fn addresses_have_limits_in_octets() {
    use AddressError::*;
    let domain = |length: usize| {
        let labels = format!("{}.", "d".repeat(63)).repeat(4);
        labels.get(..length).expect("at most 256").to_owned()
    };
    let label = |u: usize| format!("a@{}", "\u{fc}".repeat(u));
    for (given, wanted) in [
        (format!("{}@x", "l".repeat(64)), None),
        (format!("{}@{}", "l".repeat(64), domain(254)), None),
        (format!("{}@{}", "l".repeat(64), domain(255)), None),
        (format!("{}@{}", "l".repeat(65), domain(255)), Some(TooLong)),
        (format!("a@{}", domain(255) + "d"), Some(BadDomain)),
        (format!("{}@x", "l".repeat(MAX_ADDRESS - 2)), None),
        (format!("{}@x", "l".repeat(MAX_ADDRESS - 1)), Some(TooLong)),
        (format!("a@{}", "d".repeat(63)), None),
        (format!("a@{}", "d".repeat(64)), Some(BadDomain)),
        // Each of these characters is two octets long.
        (format!("{}@x", "\u{f6}".repeat(MAX_ADDRESS / 2 - 1)), None),
        (format!("{}@x", "\u{f6}".repeat(MAX_ADDRESS / 2)), Some(TooLong)),
        // An A-label has at most 63 octets, no matter how long its U-label is.
        (label(50), None),
        (label(80), Some(BadDomain)),
        (format!("a@{}", "\u{fc}.".repeat(84) + "x"), Some(BadDomain)),
        (label(100_000), Some(BadDomain)),
        ("\u{f6}".repeat(1_000_000), Some(TooLong)),
    ] {
        assert_eq!(Address::parse(&given).err(), wanted, "{} octets: {:.80}", given.len(), given);
    }
}

#[test]
fn domains_are_compared_as_a_labels() {
    for (one, other, is_same) in [
        ("example.org", "EXAMPLE.org", true),
        ("b\u{fc}cher.example", "xn--bcher-kva.EXAMPLE", true),
        ("B\u{dc}CHER.example", "bu\u{308}cher.example", true),
        ("[IPv6:2001:db8::1]", "[ipv6:2001:DB8:0::1]", true),
        ("example.org", "example.org.", false),
        ("example.org", "example.net", false),
        ("fa\u{df}.example", "fass.example", false),
        // These domains only look alike.
        ("ex\u{430}mple.org", "example.org", false),
        ("[192.0.2.1]", "192.0.2.1", false),
        ("", "", false),
        ("\u{ad}", "\u{ad}", false),
    ] {
        assert_eq!(is_same_domain(one, other), is_same, "{one} {other}");
        let canonical = parse_domain(one).ok().zip(parse_domain(other).ok());
        assert_eq!(canonical.is_some_and(|(one, other)| one == other), is_same, "{one} {other}");
    }
}

/// No input makes a parser panic, and an address that a parser accepts is the same after it has
/// been written and read back.
#[test]
fn any_octets_are_read_or_rejected() {
    let pieces: [&[u8]; 20] = [
        b"@",
        b"<",
        b">",
        b"\"",
        b"\\",
        b"[",
        b"]",
        b":",
        b".",
        b"-",
        b"xn--",
        b"a",
        b"Z9",
        b" ",
        b"\0",
        b"\xff",
        "\u{fc}".as_bytes(),
        "\u{202e}".as_bytes(),
        "\u{10ffff}".as_bytes(),
        "\u{5d0}".as_bytes(),
    ];
    let mut seed = 1_u64;
    for _ in 0..20_000 {
        let mut text = Vec::new();
        for _ in 0..=(seed >> 60) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.extend_from_slice(pieces[usize::try_from(seed >> 33).expect("31 bits") % pieces.len()]);
        }
        seed = seed.wrapping_add(1);
        let Ok((Some(address), _)) = parse_path(&text) else { continue };
        let written = path(Some(&address));
        let again = parse_path(written.as_bytes()).map(|(address, _)| address);
        assert_eq!(again, Ok(Some(address.clone())), "{}", text.escape_ascii());
        // The folded form is an address, too, and the same one.
        let folded =
            Address::new(&fold(address.local()), address.domain()).map(|folded| fold(folded.local()).into_owned());
        assert!(folded.as_deref() == Ok(&fold(address.local())) || folded == Err(AddressError::TooLong), "{written}");
    }
}
