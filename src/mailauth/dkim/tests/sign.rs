//! Tests signing, and which changes a signed message survives.

use super::*;

fn sign(message: &str, keys: &[(&str, &str, &SigningKey)]) -> Result<String, NotSigned> {
    let mut signer = Signer::new();
    message.as_bytes().chunks(5).for_each(|piece| signer.feed(piece));
    signer.finish(keys, NOW)
}

/// Returns [`MESSAGE`] with a signature by each of the two keys.
fn signed_by_both() -> String {
    let fields = sign(MESSAGE, &[("example.org", "r", &rsa()), ("example.org", "e", &ed25519())]);
    fields.expect("signatures") + MESSAGE
}

#[test]
fn signatures_of_two_keys_pass_side_by_side() {
    let checked = verify(&signed_by_both(), &zone());
    assert!(checked.iter().all(Checked::is_pass), "{checked:?}");
    let selectors: Vec<_> = checked.iter().map(|checked| (&*checked.selector, checked.algorithm)).collect();
    assert_eq!(selectors, [("r", Some(Algorithm::RsaSha256)), ("e", Some(Algorithm::Ed25519Sha256))]);
}

#[test]
fn a_signature_field_is_folded() {
    let long = format!("{}.{}.example.org", "a".repeat(63), "b".repeat(63));
    for domain in ["example.org", &long] {
        let field = sign(MESSAGE, &[(domain, "2026a", &rsa())]).expect("a signature");
        assert!(field.starts_with("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;"), "{field}");
        assert!(field.ends_with('\n') && !field.contains("\n\n") && field.is_ascii(), "{field}");
        for line in field.lines() {
            assert!(line.len() < 76 || line.contains(domain), "{line}");
            assert_eq!(line.trim_end(), line);
        }
        assert!(field.lines().skip(1).all(|line| line.starts_with('\t') && line.trim().len() > 1), "{field}");
        assert!(field.contains(&format!("t={NOW};")));
    }
}

#[test]
fn from_and_the_usual_fields_are_oversigned() {
    let field = sign(MESSAGE, &[("example.org", "e", &ed25519())]).expect("a signature");
    let compact: String = field.chars().filter(|c| !c.is_whitespace()).collect();
    assert!(
        compact.contains(";h=From:From:Reply-To:To:To:Cc:Subject:Subject:Date:Message-ID:Message-ID:"),
        "{compact}"
    );
    for name in ["From", "To", "Cc", "Subject", "Date", "Reply-To", "Content-Type", "MIME-Version"] {
        for place in ["From: Jon", "\n\nHello"] {
            let forged = match place {
                "From: Jon" => signed_by_both().replacen(place, &format!("{name}: x\n{place}"), 1),
                _ => signed_by_both().replacen(place, &format!("\n{name}: x{place}"), 1),
            };
            let wanted = (Status::Fail, Some(Reason::Mismatch));
            assert_eq!(results(&forged, &zone()), [wanted.clone(), wanted], "{forged}");
        }
    }
}

/// A relay may add trace fields and fold fields in another way. A mailing list may add its own
/// fields.
#[test]
fn fields_that_relays_and_lists_add_break_nothing() {
    for (from, to) in [
        ("", "Received: by relay.example\n\twith SMTP\nAuthentication-Results: x; none\n"),
        ("From: Jon", "List-Id: <x>\nList-Unsubscribe: <mailto:x@y>\nSender: x@y\nFrom: Jon"),
        ("Subject: Tea  time", "SUBJECT:\n\tTea\n time "),
        ("ready. \n\n\n", "ready.\n"),
    ] {
        let message = signed_by_both().replacen(from, to, 1);
        assert_eq!(results(&message, &zone()), [(Status::Pass, None), (Status::Pass, None)], "{message}");
    }
}

#[test]
fn what_mailing_lists_alter_fails_with_a_reason() {
    for (from, to, reason) in [
        ("ready. \n", "ready. \n-- \nThe tea list\n", Reason::BodyAltered),
        ("\n\nHello", "\n\nThis list is for tea.\n\nHello", Reason::BodyAltered),
        ("Hello", "hello", Reason::BodyAltered),
        ("Subject: Tea", "Subject: [tea] Tea", Reason::Mismatch),
        ("From: Jon <jon@example.org>", "From: Jon via tea <tea@lists.example>", Reason::Mismatch),
        ("Message-ID: <1@example.org>\n", "", Reason::Mismatch),
    ] {
        let message = signed_by_both().replacen(from, to, 1);
        assert_ne!(message, signed_by_both());
        let wanted = (Status::Fail, Some(reason));
        assert_eq!(results(&message, &zone()), [wanted.clone(), wanted], "{message}");
    }
}

#[test]
fn messages_of_all_shapes_are_signed() {
    for message in [
        "From: jon@example.org",
        "From: jon@example.org\n",
        "From: jon@example.org\n\n",
        "From: jon@example.org\n\n\n\n",
        "From: jon@example.org\n\nx",
        "From: jon@example.org\n\n.\n \n\tx  \n\r\n",
        "From: jon@example.org\nno field\n\nx",
        "From jon Mon Nov 30\nFrom : jon@example.org\n\nx\n",
        "From: a@example.org\nFrom: b@example.org\nTo: a\nTo: b\nTo: c\n\nx\n",
    ] {
        let fields = sign(message, &[("example.org", "e", &ed25519())]).expect("a signature");
        assert_eq!(
            results(&(fields + message.trim_start_matches("From jon Mon Nov 30\n")), &zone()),
            [(Status::Pass, None)],
            "{message:?}"
        );
    }
    for message in ["", "\n", "\nFrom: x\n", "To: x\n\nFrom: x\n", "x\nFrom: x\n"] {
        assert_eq!(sign(message, &[]), Err(NotSigned::NoFrom), "{message:?}");
    }
    let long = format!("From: x\nX: {}\n\n", "x".repeat(MAX_HEADER));
    assert_eq!(sign(&long, &[]), Err(NotSigned::HeaderTooLong));
}
