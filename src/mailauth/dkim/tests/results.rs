//! Tests each result of a verification, with its reason.

use super::*;

const TAGS: &str = "v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=r; h=From:Subject";

fn result(tags: &str) -> (Status, Option<Reason>) {
    let message = signed(tags, MESSAGE, &rsa());
    let [result] = <[_; 1]>::try_from(results(&message, &zone())).expect("one signature");
    result
}

#[test]
fn a_signature_passes_in_each_form() {
    for header in ["simple", "relaxed"] {
        for body in ["simple", "relaxed"] {
            let message = signed(&TAGS.replace("relaxed/relaxed", &format!("{header}/{body}")), MESSAGE, &rsa());
            let checked = verify(&message, &zone());
            assert!(checked.iter().all(Checked::is_pass) && checked.len() == 1, "{checked:?}");
            assert_eq!((&*checked[0].domain, &*checked[0].selector), ("example.org", "r"));
            assert_eq!(checked[0].mark.len(), 12);
            assert!(message.contains(&format!("b={}", checked[0].mark)));
        }
    }
    assert_eq!(results(MESSAGE, &zone()), []);
    assert_eq!(results("", &zone()), []);
}

#[test]
fn the_tags_of_a_signature_decide() {
    let with = |more: &str| format!("{TAGS}; {more}");
    let without = |old: &str, new: &str| TAGS.replacen(old, new, 1);
    for (tags, reason) in [
        (with("t=1700000000"), None),
        (with("x=1800000001"), None),
        (with("x=99999999999999999999999999999999"), None),
        (with("q=dns/txt:other"), None),
        (with("i=@example.org"), None),
        (with("i=jon@mail.EXAMPLE.org"), None),
        (with("z=From:x|To:y; unknown=1"), None),
        (without("d=example.org", "d=EXAMPLE.ORG"), None),
        (without("From:Subject", "from : FROM:\n subject:Subject:x-absent"), None),
        (without("c=relaxed/relaxed", "c=relaxed"), None),
        (without("v=1", "v=2"), Some(Reason::Version)),
        (without("v=1; ", ""), Some(Reason::Malformed("v="))),
        (without("a=rsa-sha256; ", ""), Some(Reason::Malformed("a="))),
        (without("rsa-sha256", "rsa-sha512"), Some(Reason::Algorithm)),
        (without("rsa-sha256", "rsa-sha1"), Some(Reason::Sha1)),
        (without("d=example.org; ", ""), Some(Reason::Malformed("d="))),
        (without("d=example.org", "d=[192.0.2.1]"), Some(Reason::Malformed("d="))),
        (without("d=example.org", "d=a..b"), Some(Reason::Malformed("d="))),
        (without("s=r; ", ""), Some(Reason::Malformed("s="))),
        (without("; h=From:Subject", ""), Some(Reason::Malformed("h="))),
        (without("From:Subject", "From::Subject"), Some(Reason::Malformed("h="))),
        (without("From:Subject", "Subject:To"), Some(Reason::FromNotSigned)),
        (with("q=dns/other"), Some(Reason::Query)),
        (with("i=@example.net"), Some(Reason::Identity)),
        (with("i=@badexample.org"), Some(Reason::Identity)),
        (with("i=@org"), Some(Reason::Identity)),
        (with("i=example.org"), Some(Reason::Malformed("i="))),
        (with("x=1799999999"), Some(Reason::Expired)),
        (with("t=5; x=5"), Some(Reason::Malformed("x="))),
        (with("t=now"), Some(Reason::Malformed("t="))),
        (with("x="), Some(Reason::Malformed("x="))),
        (with("v=1"), Some(Reason::Malformed("tag list"))),
        (with("a"), Some(Reason::Malformed("tag list"))),
    ] {
        // The function `signed` cannot read a malformed tag list. So it signs with good tags, which
        // are then replaced.
        let made = match reason {
            Some(Reason::Malformed("tag list")) => signed(TAGS, MESSAGE, &rsa()).replacen(TAGS, &tags, 1),
            _ => signed(&tags, MESSAGE, &rsa()),
        };
        let wanted = (reason.as_ref().map_or(Status::Pass, Reason::status), reason);
        assert_eq!(results(&made, &zone()), [wanted], "{tags}");
    }
    assert_eq!(result(&without("relaxed/relaxed", "relaxed/simple")), (Status::Pass, None));
    let unknown = signed(TAGS, MESSAGE, &rsa()).replacen("relaxed/relaxed", "relaxed/strict", 1);
    assert_eq!(results(&unknown, &zone()), [(Status::Neutral, Some(Reason::Canonicalization))]);
}

#[test]
fn the_octets_of_a_signature_are_bounded_and_checked() {
    let message = signed(TAGS, MESSAGE, &rsa());
    let start = message.find(" b=").expect("b=") + 3;
    let end = start + message[start..].find('\n').expect("a line end");
    let with = |b: &str| format!("{}{b}{}", &message[..start], &message[end..]);
    for (b, status) in [("", Status::Neutral), ("?", Status::Neutral), ("AAAA", Status::Fail)] {
        assert_eq!(results(&with(b), &zone())[0].0, status, "{b}");
    }
    assert_eq!(results(&with(&"A".repeat(1364)), &zone())[0].0, Status::Fail);
    assert_eq!(results(&with(&"A".repeat(1368)), &zone())[0].0, Status::Neutral);
    // White space in `b=` does not matter.
    let folded = message[start..end].split_at(7);
    assert_eq!(results(&with(&format!("\n {} \n\t{} ", folded.0, folded.1)), &zone())[0].0, Status::Pass);
}

/// Anybody may have added the part of the body after `l=` octets.
#[test]
fn a_body_that_goes_on_after_the_signed_part_does_not_pass() {
    let body = "Hello Ann,\r\n\r\ntea is ready.\r\n".len();
    let with = |length: usize| format!("{TAGS}; l={length}");
    assert_eq!(result(&with(body)), (Status::Pass, None));
    for length in [0, 1, body - 1] {
        assert_eq!(result(&with(length)), (Status::Policy, Some(Reason::Appended)), "{length}");
    }
    assert_eq!(result(&with(body + 1)), (Status::Fail, Some(Reason::BodyTooShort)));
    let message = signed(&with(body), MESSAGE, &rsa());
    let footer = message.clone() + "buy more tea\n";
    assert_eq!(results(&footer, &zone()), [(Status::Policy, Some(Reason::Appended))]);
    let altered = message.replace("Ann", "Bob");
    assert_eq!(results(&altered, &zone()), [(Status::Fail, Some(Reason::BodyAltered))]);
}

#[test]
fn expired_and_altered_are_told_apart() {
    let expired = signed(&format!("{TAGS}; x=1700000000"), MESSAGE, &rsa());
    assert_eq!(results(&expired, &zone()), [(Status::Policy, Some(Reason::Expired))]);
    let altered = expired.replace("tea is", "tea was");
    assert_eq!(results(&altered, &zone()), [(Status::Fail, Some(Reason::BodyAltered))]);
}

#[test]
fn the_key_record_decides() {
    let message = signed(TAGS, MESSAGE, &rsa());
    let below = signed(&format!("{TAGS}; i=x@sub.example.org"), MESSAGE, &rsa());
    let (rsa, edwards) = (rsa().record(), ed25519().record());
    let small = "v=DKIM1; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBANmBe10IgY+u7h3enWTukkqtUD5PR52Tb/mPfjC0QJTocVBq6Za/Pl\
                 zfV+Py92VaCak19F4WrbVTK5Gg5tW220MCAwEAAQ==";
    for (records, message, reason) in [
        (Ok(&[&*rsa][..]), &message, None),
        (Ok(&["v=spf1 -all", &rsa]), &message, None),
        (Ok(&[&rsa, "v=spf1 -all"]), &message, None),
        (Ok(&[&edwards, &rsa]), &message, None),
        (Ok(&[&rsa.replace("v=DKIM1", "v=DKIM1; t=y")]), &message, None),
        (Ok(&[&rsa.replace("v=DKIM1", "v=DKIM1; t=s")]), &message, None),
        (Ok(&[&rsa.replace("v=DKIM1", "v=DKIM1; t=s")]), &below, Some(Reason::Identity)),
        (Ok(&[&rsa]), &below, None),
        (Ok(&[]), &message, Some(Reason::NoKey)),
        (Ok(&[&edwards]), &message, Some(Reason::KeyType)),
        (Ok(&["v=DKIM1; p="]), &message, Some(Reason::Revoked)),
        (Ok(&["v=spf1 -all", "v=DKIM1; p="]), &message, Some(Reason::Revoked)),
        (Ok(&["v=DKIM1; p=", "v=spf1 -all"]), &message, Some(Reason::Revoked)),
        (Ok(&[small]), &message, Some(Reason::KeySize(512))),
        (Ok(&[&rsa.replace("k=rsa", "h=sha1")]), &message, Some(Reason::KeyHash)),
        (Err(NoAnswer::NxDomain), &message, Some(Reason::NoKey)),
        (Err(NoAnswer::NoData), &message, Some(Reason::NoKey)),
        (Err(NoAnswer::BadName), &message, Some(Reason::NoKey)),
        (Err(NoAnswer::Timeout), &message, Some(Reason::NoAnswer(NoAnswer::Timeout))),
        (Err(NoAnswer::ServFail), &message, Some(Reason::NoAnswer(NoAnswer::ServFail))),
    ] {
        let answer = records.map(|records| records.iter().map(|record| record.as_bytes().to_vec()).collect());
        let zone = Zone([("r._domainkey.example.org".to_owned(), answer.clone())].into());
        let wanted = (reason.as_ref().map_or(Status::Pass, Reason::status), reason);
        assert_eq!(results(message, &zone), [wanted], "{answer:?}");
    }
    let testing = Zone::of(&[("r._domainkey.example.org", &rsa.replace("v=DKIM1", "v=DKIM1; t=y"))]);
    assert!(verify(&message, &testing)[0].is_testing);
}

/// RFC 8301: 1024 bits are the minimum, and verifiers need no more than 4096.
#[test]
fn rsa_keys_have_1024_to_4096_bits() {
    let record = |bits: usize| {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] = if bits.is_multiple_of(8) { 0xff } else { (1 << (bits % 8)) - 1 };
        let integer = |octets: &[u8]| {
            let length = u16::try_from(octets.len()).expect("small").to_be_bytes();
            [&[2, 0x82], &length[..], octets].concat()
        };
        let content = [integer(&[&[0], &modulus[..]].concat()), vec![2, 1, 3]].concat();
        let length = u16::try_from(content.len()).expect("small").to_be_bytes();
        let key = [&[0x30, 0x82], &length[..], &content].concat();
        format!("p={}", data_encoding::BASE64.encode(&der::subject_public_key_info(&key)))
    };
    for (bits, is_accepted) in
        [(512, false), (1016, false), (1023, false), (1024, true), (4096, true), (4097, false), (8192, false)]
    {
        let wanted = (!is_accepted).then_some(Reason::KeySize(bits));
        assert_eq!(Record::parse(record(bits).as_bytes()).err(), wanted, "{bits}");
    }
}

#[test]
fn at_most_ten_signatures_are_verified() {
    let one = signed(TAGS, MESSAGE, &rsa());
    let field = one.strip_suffix(MESSAGE).expect("the message is unchanged");
    for (count, verified) in [(9, 9), (10, 10), (11, 10), (40, 10)] {
        let message = field.repeat(count) + MESSAGE;
        let mut verifier = Verifier::new();
        verifier.feed(message.as_bytes());
        let checked = verifier.finish().verify(&zone(), NOW);
        assert_eq!(checked.len(), verified);
        assert!(checked.iter().all(Checked::is_pass));
    }
}

#[test]
fn a_header_that_is_too_long_is_not_verified() {
    let message = signed(TAGS, MESSAGE, &rsa());
    let padded = |length: usize| {
        let padding = "X-Padding: x\n".repeat(length / 13);
        message.replacen("\nFrom:", &format!("\n{padding}From:"), 1)
    };
    assert_eq!(verify_in(1 << 20, padded(MAX_HEADER - 2000).as_bytes(), &zone())[0].status, Status::Pass);
    let checked = verify_in(1 << 20, padded(MAX_HEADER).as_bytes(), &zone());
    assert_eq!(checked[0].reason, Some(Reason::HeaderTooLong));
    let endless = format!("DKIM-Signature: {}", "x".repeat(2 * MAX_HEADER));
    assert_eq!(verify_in(1 << 20, endless.as_bytes(), &zone()), []);
}

/// If `h=` names DKIM-Signature, the name stands for the other signatures, and never for the
/// signature itself.
#[test]
fn a_signature_may_sign_others_but_not_itself() {
    let first = signed(TAGS, MESSAGE, &rsa());
    let second = signed(&TAGS.replace("From:", "DKIM-Signature:From:"), &first, &rsa());
    assert_eq!(results(&second, &zone()), [(Status::Pass, None), (Status::Pass, None)]);
    let altered = second.replacen("s=r; h=From:S", "s=r; h=from:S", 1);
    assert_eq!(
        results(&altered, &zone()),
        [(Status::Fail, Some(Reason::Mismatch)), (Status::Fail, Some(Reason::Mismatch))]
    );
}
