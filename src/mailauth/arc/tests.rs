use super::*;
use crate::mailauth::dkim::tests::{MESSAGE, NOW, Zone, ed25519, rsa, zone};
use crate::mailauth::dkim::{MAX_HEADER, Reason as Why, Verifier};
use crate::outcome::NoAnswer;

/// Verifies the chain of a message, and checks that the result does not depend on how the text is
/// split.
fn check(message: &str, zone: &Zone) -> Chain {
    let in_pieces = |size| {
        let mut verifier = Verifier::new();
        message.as_bytes().chunks(size).for_each(|piece| verifier.feed(piece));
        verify(&verifier.finish(), zone, NOW)
    };
    let chain = in_pieces(message.len().max(1));
    assert_eq!(in_pieces(7), chain);
    chain
}

/// Seals a message: puts a new set before it.
fn seal(message: &str, results: &str, chain: Status) -> Result<String, NotSealed> {
    let mut sealer = Sealer::new();
    message.as_bytes().chunks(11).for_each(|piece| sealer.feed(piece));
    Ok(sealer.finish(("example.org", "r", &rsa()), results, chain, NOW)? + message)
}

/// Returns a message with a valid chain of `count` sets. The message was altered before each new
/// set.
fn sealed(count: usize) -> String {
    (1..=count).fold(MESSAGE.to_owned(), |message, number| {
        let chain = if number == 1 { Status::None } else { Status::Pass };
        let altered = message.replacen("\nSubject: ", &format!("\nSubject: [{number}] "), 1);
        seal(&altered, &format!("mx{number}.test;\n\tspf=pass"), chain).expect("a set")
    })
}

#[test]
fn a_message_without_sets_has_no_chain() {
    for message in ["", "\n", MESSAGE] {
        assert_eq!(check(message, &zone()), Chain { status: Status::None, reason: None, sets: Vec::new() });
    }
}

#[test]
fn chains_pass_and_say_who_has_said_what() {
    for count in [1, 2, 3, MAX_SETS] {
        let chain = check(&sealed(count), &zone());
        assert_eq!((chain.status, &chain.reason), (Status::Pass, &None), "{count}");
        let said: Vec<_> = chain.sets.iter().map(|set| (set.domain.clone(), set.results.clone())).collect();
        let wanted = (1..=count).map(|number| ("example.org".to_owned(), format!("mx{number}.test;\tspf=pass")));
        assert_eq!(said, wanted.collect::<Vec<_>>());
    }
    assert_eq!(seal(&sealed(MAX_SETS), "mx.test; none", Status::Pass), Err(NotSealed::TooMany));
}

#[test]
fn a_set_has_three_folded_fields_the_newest_on_top() {
    let message = sealed(2);
    let fields = message.strip_suffix("\n\nHello  Ann,\n\ntea is ready. \n\n\n").expect("the body is unchanged");
    let names: Vec<_> =
        fields.lines().filter(|line| !line.starts_with('\t')).filter_map(|line| line.split(':').next()).collect();
    let set = ["ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"];
    assert_eq!(names, [&set[..], &set, &["From", "To", "Subject", "Message-ID"]].concat());
    assert!(fields.lines().all(|line| line.len() < 78), "{fields}");
    assert!(fields.starts_with("ARC-Seal: i=2; a=rsa-sha256; cv=pass; d=example.org; s=r;"), "{fields}");
    assert!(fields.contains("ARC-Authentication-Results: i=1; mx1.test;\n\tspf=pass\n"), "{fields}");
}

#[test]
fn a_broken_chain_fails_with_a_reason() {
    let seal_of = |number: usize| Reason::Seal(number, Why::Mismatch);
    let message = Reason::Message(Why::Mismatch);
    for (from, to, reason) in [
        ("i=1; mx1", "i=1; mx9", seal_of(1)),
        ("i=2; mx2", "i=2; mx9", seal_of(2)),
        ("i=3; mx3", "i=3; mx9", seal_of(3)),
        ("tea is", "tea was", Reason::Message(Why::BodyAltered)),
        ("Subject: [3]", "Subject: [4]", message.clone()),
        ("From: Jon", "From: Eve <eve@x.test>\nFrom: Jon", message.clone()),
        ("ARC-Seal: i=3; a=rsa-sha256; cv=pass", "ARC-Seal: i=3; a=rsa-sha256; cv=fail", Reason::Reported),
        ("ARC-Seal: i=3; a=rsa-sha256; cv=pass", "ARC-Seal: i=3; a=rsa-sha256; cv=none", Reason::Result(3)),
        ("ARC-Seal: i=2; a=rsa-sha256; cv=pass", "ARC-Seal: i=2; a=rsa-sha256; cv=fail", Reason::Result(2)),
        ("ARC-Seal: i=1; a=rsa-sha256; cv=none", "ARC-Seal: i=1; a=rsa-sha256; cv=pass", Reason::Result(1)),
        ("ARC-Seal: i=2; a=rsa-sha256; cv=pass", "ARC-Seal: i=2; a=rsa-sha1; cv=pass", Reason::Seal(2, Why::Sha1)),
        ("ARC-Seal: i=2; a=", "ARC-Seal: i=2; h=From; a=", Reason::Seal(2, Why::Malformed("h="))),
        ("ARC-Seal: i=2;", "ARC-Seal: i=4;", Reason::Sets),
        ("ARC-Seal: i=2;", "ARC-Seal: i=0;", Reason::Sets),
        ("ARC-Seal: i=2;", "ARC-Seal: i=1;", Reason::Sets),
        ("ARC-Seal: i=2;", "ARC-Seal:", Reason::Sets),
        ("ARC-Seal: i=3;", "ARC-Other: i=3;", Reason::Sets),
        ("ARC-Message-Signature: i=1;", "ARC-Message-Signature: i=01x;", Reason::Sets),
        ("ARC-Authentication-Results: i=2;", "ARC-Authentication-Results: i=20;", Reason::Sets),
        ("\nFrom:", "\nARC-Seal: i=1\nFrom:", Reason::Sets),
        ("ARC-Message-Signature: i=3; a=", "ARC-Message-Signature: i=3; l=5; a=", Reason::Message(Why::BodyAltered)),
        ("h=From:From", "h=ARC-Seal:From:From", Reason::Message(Why::Malformed("h="))),
        ("h=From:From", "h=To", Reason::Message(Why::FromNotSigned)),
    ] {
        let altered = sealed(3).replacen(from, to, 1);
        assert_ne!(altered, sealed(3), "{from}");
        let chain = check(&altered, &zone());
        assert_eq!(chain, Chain { status: Status::Fail, reason: Some(reason), sets: Vec::new() }, "{from} {to}");
    }
}

/// New fields that are not signed, and another folding of signed fields, leave the chain valid.
#[test]
fn changes_after_the_last_seal_of_unsigned_fields_pass() {
    for (from, to) in
        [("", "Received: by x.test\n"), ("\nFrom:", "\nX-Other: x\nFrom:"), ("mx2.test;\n\tspf", "mx2.test;  spf")]
    {
        assert_eq!(check(&sealed(3).replacen(from, to, 1), &zone()).status, Status::Pass, "{from} {to}");
    }
}

#[test]
fn the_keys_decide() {
    let name = "r._domainkey.example.org".to_owned();
    for (answer, status, reason) in [
        (Err(NoAnswer::NxDomain), Status::Fail, Why::NoKey),
        (Err(NoAnswer::Timeout), Status::TempError, Why::NoAnswer(NoAnswer::Timeout)),
        (Ok(vec![b"v=DKIM1; p=".to_vec()]), Status::Fail, Why::Revoked),
        (Ok(vec![ed25519().record().into_bytes()]), Status::Fail, Why::KeyType),
    ] {
        let chain = check(&sealed(2), &Zone([(name.clone(), answer)].into()));
        assert_eq!((chain.status, chain.reason), (status, Some(Reason::Message(reason))));
    }
    // If two sealers have different keys, the key of each seal is looked up.
    let mut sealer = Sealer::new();
    sealer.feed(MESSAGE.as_bytes());
    let first =
        sealer.finish(("example.org", "e", &ed25519()), "mx.test; none", Status::None, NOW).expect("a set") + MESSAGE;
    let second = seal(&first, "mx.test; none", Status::Pass).expect("a set");
    assert_eq!(check(&second, &zone()).status, Status::Pass);
    let only_second = Zone([(name, Ok(vec![rsa().record().into_bytes()]))].into());
    let chain = check(&second, &only_second);
    assert_eq!((chain.status, chain.reason), (Status::Fail, Some(Reason::Seal(1, Why::NoKey))));
}

#[test]
fn a_sealer_reports_a_broken_chain_once() {
    let broken = sealed(2).replacen("tea is", "tea was", 1);
    assert_eq!(check(&broken, &zone()).status, Status::Fail);
    let reported = seal(&broken, "mx.test; arc=fail", Status::Fail).expect("a set");
    assert!(reported.starts_with("ARC-Seal: i=3; a=rsa-sha256; cv=fail;"), "{reported}");
    let chain = check(&reported, &zone());
    assert_eq!((chain.status, chain.reason), (Status::Fail, Some(Reason::Reported)));
    assert_eq!(seal(&reported, "mx.test; arc=fail", Status::Fail), Err(NotSealed::Broken));
    assert_eq!(seal(&sealed(1), "mx.test; none", Status::TempError), Err(NotSealed::Unknown));
    let disordered = sealed(2).replacen("ARC-Seal: i=2;", "ARC-Seal: i=7;", 1);
    assert_eq!(seal(&disordered, "mx.test; arc=fail", Status::Fail), Err(NotSealed::Broken));
}

#[test]
fn chains_are_bounded() {
    let many = "ARC-Seal: i=1\n".repeat(MAX_SETS + 1) + MESSAGE;
    assert_eq!(check(&many, &zone()).reason, Some(Reason::TooMany));
    let padding = "X-Padding: x\n".repeat(MAX_HEADER / 13);
    let long = sealed(1).replacen("\nFrom:", &format!("\n{padding}From:"), 1);
    assert_eq!(check(&long, &zone()).reason, Some(Reason::HeaderTooLong));
    assert_eq!(seal(&long, "x", Status::Pass), Err(NotSealed::NotSigned(dkim::NotSigned::HeaderTooLong)));
    assert_eq!(seal("To: x\n\n", "x", Status::None), Err(NotSealed::NotSigned(dkim::NotSigned::NoFrom)));
}
