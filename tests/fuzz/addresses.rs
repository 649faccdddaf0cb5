//! Addresses, domains and xtext, in ASCII and in UTF-8: what is read can be written and read again
//! with the same meaning, and a form that must be ASCII is ASCII.

use super::{mutate, repeat};
use common::chance::Chance;
use penfold::address::{Address, fold, is_same_domain, is_same_local, parse_domain, parse_path, path};
use penfold::smtp::xtext;

/// A text from pieces that mean something in an address, a path, a domain or xtext.
fn text(chance: &mut Chance) -> Vec<u8> {
    const PIECES: [&str; 46] = [
        "jon",
        "J\u{d6}N",
        "o\u{308}",
        "\u{130}",
        "\u{df}",
        "\u{3c2}",
        "\u{7528}",
        "\u{1f600}",
        "\u{5d0}",
        "\u{660}",
        "\u{200d}",
        "\u{ad}",
        "\u{ff0e}",
        "\u{3002}",
        "\u{ff21}",
        "\u{2102}",
        "\u{202e}",
        "\u{85}",
        "\u{fffd}",
        "\u{344}",
        "xn--",
        "xn--bcher-kva",
        "XN--9ca",
        ".",
        "..",
        "-",
        "x.test",
        "b\u{fc}cher.example",
        "@",
        "\"",
        "\\",
        "<",
        ">",
        " ",
        ":",
        ",@a:",
        "[192.0.2.1]",
        "[IPv6:2001:DB8::1]",
        "+",
        "+2B",
        "+2b",
        "=",
        "\\x{F6}",
        "\\x{2B}",
        "\\x{D800}",
        "\\x{110000}",
    ];
    let pieces = (0..chance.of(0..9))
        .flat_map(|_| if chance.percent(5) { chance.octets(0..70) } else { chance.pick(&PIECES).bytes().collect() });
    let text: Vec<u8> = pieces.collect();
    if chance.percent(30) { mutate(chance, &text) } else { text }
}

#[test]
fn an_address_that_is_read_is_written_and_read_again() {
    let mut counts = [0_u64; 3];
    repeat(|chance| {
        let text = text(chance);
        canonical_forms(&String::from_utf8_lossy(&text), &mut counts[2]);
        let octets = match chance.of(0..3) {
            0 => text,
            1 => [&text, &b"@"[..], &self::text(chance)].concat(),
            _ => [b"<", &*text, b"@", &self::text(chance), b"> SIZE=1"].concat(),
        };
        let shown = String::from_utf8_lossy(&octets);
        let Ok((Some(address), _)) = parse_path(&octets) else { return counts[0] += 1 };
        counts[1] += 1;
        assert!(!address.to_string().contains(char::is_control), "{shown}");
        assert!(address.domain().is_ascii(), "{shown}");
        assert_eq!(address.is_ascii(), address.to_string().is_ascii(), "{shown}");
        assert_eq!(Address::parse(&address.to_string()).as_ref(), Ok(&address), "{shown}");
        assert_eq!(Address::new(address.local(), address.domain()).as_ref(), Ok(&address), "{shown}");
        let written = path(Some(&address)) + " BODY=7BIT";
        let (again, rest) = parse_path(written.as_bytes()).expect("a path");
        assert_eq!((again.as_ref(), rest), (Some(&address), &b" BODY=7BIT"[..]), "{shown}");
    });
    assert!(counts[1..].iter().all(|&count| count > counts[0] / 40), "{counts:?}");
}

/// Asserts that the canonical form of a domain and the folded form of a local part are their own
/// canonical and folded forms.
fn canonical_forms(text: &str, domains: &mut u64) {
    let folded = fold(text);
    assert_eq!(fold(&folded), folded, "{text:?}");
    assert!(is_same_local(text, &folded), "{text:?}");
    let Ok(domain) = parse_domain(text) else { return };
    *domains += 1;
    assert!(domain.is_ascii() && (1..256).contains(&domain.len()), "{text:?} {domain}");
    assert_eq!(parse_domain(&domain).as_ref(), Ok(&domain), "{text:?}");
    assert!(is_same_domain(text, &domain), "{text:?}");
}

#[test]
fn xtext_is_decoded_to_what_was_encoded() {
    let mut count = 0_u64;
    repeat(|chance| {
        let text = String::from_utf8_lossy(&text(chance)).into_owned();
        let encoded = xtext::encode(&text);
        assert!(xtext::is_valid(&encoded) || text.is_empty(), "{text:?} {encoded}");
        assert_eq!(xtext::decode(encoded.as_bytes()).as_deref(), Some(text.as_bytes()), "{encoded}");
        if let Some(decoded) = xtext::decode(text.as_bytes()).and_then(|octets| String::from_utf8(octets).ok()) {
            assert_eq!(xtext::decode(xtext::encode(&decoded).as_bytes()), Some(decoded.into()), "{text:?}");
        }
        if !xtext::is_valid_utf8_address(&text) {
            return;
        }
        count += 1;
        let ascii = xtext::orcpt_for(format!("utf-8;{text}").into(), false).expect("a valid ORCPT");
        let (kind, address) = ascii.split_once(';').expect("two parts");
        assert!(kind == "utf-8" && address.is_ascii() && xtext::is_valid_utf8_address(address), "{text:?} {ascii}");
        assert_eq!(xtext::decode_utf8_address(address), xtext::decode_utf8_address(&text), "{ascii}");
        let again = xtext::orcpt_for(ascii.clone(), false);
        assert_eq!(again, Some(ascii), "{text:?}");
    });
    assert!(count > 0);
}
