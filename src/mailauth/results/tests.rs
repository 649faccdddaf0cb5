use super::*;
#[cfg(feature = "arc")]
use crate::mailauth::arc;
use crate::mailauth::spf::{Identity, SpfResult};
use crate::mailauth::{dkim, dmarc, spf};

/// Returns results as a session makes them.
fn all() -> Results {
    let mut results = Results::default();
    results.add(One::new("spf", "pass").property("smtp.mailfrom", "jon@example.org"));
    results.add(
        One::new("dkim", "fail")
            .comment("the body was altered")
            .property("header.d", "example.org")
            .property("header.s", "2026a")
            .property("header.a", "rsa-sha256"),
    );
    results.add(One::new("dmarc", "pass").comment("p=reject").property("header.from", "example.org"));
    results.add(One::new("iprev", "pass").property("policy.iprev", "2001:db8::1"));
    results
}

#[test]
fn one_field_has_all_results() {
    let text = field(&all(), "mx.example.net");
    assert_eq!(
        text,
        "Authentication-Results: mx.example.net;\n\
         \tspf=pass smtp.mailfrom=jon@example.org;\n\
         \tdkim=fail (the body was altered) header.d=example.org header.s=2026a\n\
         \t\theader.a=rsa-sha256;\n\
         \tdmarc=pass (p=reject) header.from=example.org;\n\
         \tiprev=pass policy.iprev=\"2001:db8::1\"\n"
    );
    assert_eq!(field(&Results::default(), "mx.example.net"), "Authentication-Results: mx.example.net; none\n");
}

/// Each method writes the properties that RFC 8601 registers for it.
#[test]
fn the_results_of_the_methods() {
    let spf = |identity, result| spf::Checked {
        result,
        identity,
        domain: "example.org".into(),
        explanation: None,
        mechanism: "ip4:192.0.2.0/24".into(),
    };
    let signature = dkim::Checked {
        domain: "example.org".into(),
        selector: "2026a".into(),
        algorithm: Some(dkim::Algorithm::Ed25519Sha256),
        mark: "ab/+cd==".into(),
        status: dkim::Status::Policy,
        reason: Some(dkim::Reason::Expired),
        is_testing: true,
    };
    let checked = dmarc::Checked {
        outcome: dmarc::Outcome::None,
        policy: dmarc::Policy::None,
        is_unclear: false,
        is_testing: false,
        domain: "example.org".into(),
        found: None,
        spf: false,
        dkim: false,
        reason: "no record",
    };
    let address = "::ffff:192.0.2.1".parse().expect("an address");
    for (one, text) in [
        (
            One::spf(&spf(Identity::MailFrom, SpfResult::Pass), "a@example.org"),
            "spf=pass (ip4:192.0.2.0/24) smtp.mailfrom=a@example.org",
        ),
        (
            One::spf(&spf(Identity::Hello, SpfResult::SoftFail), ""),
            "spf=softfail (ip4:192.0.2.0/24) smtp.helo=example.org",
        ),
        (
            One::dkim(&signature),
            "dkim=policy (signature has expired; its owner is testing) header.d=example.org header.s=2026a \
             header.a=ed25519-sha256 header.b=\"ab/+cd==\"",
        ),
        (One::no_dkim(), "dkim=none (no signature)"),
        (One::dmarc(&checked), "dmarc=none (no record) header.from=example.org"),
        (One::iprev(address, Some("a.test"), false), "iprev=pass (a.test) policy.iprev=192.0.2.1"),
        (One::iprev(address, None, false), "iprev=fail (no verified name) policy.iprev=192.0.2.1"),
        (One::iprev(address, None, true), "iprev=temperror (the look-up has failed) policy.iprev=192.0.2.1"),
    ] {
        let mut results = Results::default();
        results.add(one);
        let written = field(&results, "mx.test").replace("\n\t\t", " ");
        assert_eq!(written.trim_end(), format!("Authentication-Results: mx.test;\n\t{text}"));
    }
    #[cfg(feature = "arc")]
    for (status, reason, domains, text) in [
        (arc::Status::None, None, &[][..], "arc=none (no chain)"),
        (arc::Status::Pass, None, &["a.test", "b.test"], "arc=pass (i=2) header.d=b.test"),
        (arc::Status::Fail, Some(arc::Reason::Reported), &[], "arc=fail (a sealer found the chain broken)"),
    ] {
        let sealed = |domain: &&str| arc::Sealed { domain: (*domain).to_owned(), results: "x; none".to_owned() };
        let mut results = Results::default();
        results.add(One::arc(&arc::Chain { status, reason, sets: domains.iter().map(sealed).collect() }));
        assert_eq!(field(&results, "mx.test"), format!("Authentication-Results: mx.test;\n\t{text}\n"));
    }
    let dkim = [signature.clone(), dkim::Checked { status: dkim::Status::Pass, ..signature }];
    let spf = spf(Identity::MailFrom, SpfResult::TempError);
    let identifiers = dmarc::identifiers(Some(&spf), &dkim);
    let vouches: Vec<_> = identifiers.iter().map(|one| (one.mechanism, one.vouches)).collect();
    let expected = [(dmarc::Mechanism::Spf, dmarc::Vouches::Unknown), (dmarc::Mechanism::Dkim, dmarc::Vouches::Yes)];
    assert_eq!(vouches, expected);
}

/// A hostile value cannot end its quotes, its comment or its line.
#[test]
fn values_of_strangers_are_quoted() {
    let write = |one: One| {
        let mut results = Results::default();
        results.add(one);
        field(&results, "mx.test").strip_prefix("Authentication-Results: mx.test;\n\t").expect("a front").to_owned()
    };
    for (value, written) in [
        ("a@b.test", "a@b.test"),
        ("@b.test", "@b.test"),
        ("b.test", "b.test"),
        ("a;dkim=pass@b.test", "\"a;dkim=pass@b.test\""),
        ("\"a b\"@b.test", "\"\\\"a b\\\"@b.test\""),
        ("a/b=c@b.test", "\"a/b=c@b.test\""),
        ("a@[192.0.2.1]", "\"a@[192.0.2.1]\""),
        ("a..b@c.test", "\"a..b@c.test\""),
        ("a\nX: y", "\"a?X: y\""),
        ("\u{fc}@b.test", "\"?@b.test\""),
        ("\\", "\"\\\\\""),
    ] {
        let text = write(One::new("spf", "pass").property("smtp.mailfrom", value));
        assert_eq!(text, format!("spf=pass smtp.mailfrom={written}\n"));
    }
    for (comment, written) in [
        ("a (b", "(a \\(b)"),
        ("); dkim=pass (", "(\\); dkim=pass \\()"),
        ("\\", "(\\\\)"),
        ("a\r\nb", "(a??b)"),
        ("a  b ", "(a b )"),
    ] {
        let text = write(One::new("spf", "fail").comment(comment));
        assert_eq!(text, format!("spf=fail {written}\n"), "{comment:?}");
    }
}

#[test]
fn long_values_and_many_results_are_cut() {
    let mut results = Results::default();
    for _ in 0..100 {
        let one = One::new("dkim", "permerror").comment(&"(".repeat(5000)).property("header.s", &"\"".repeat(5000));
        results.add(one);
    }
    let text = field(&results, "mx.test");
    assert_eq!(text.matches("dkim=").count(), MAX_RESULTS);
    assert!(text.lines().all(|line| line.len() <= 998), "{text}");
    assert!(text.len() < 30_000);
}

#[test]
fn fields_that_claim_to_be_ours() {
    for value in [
        "mx.example.net; spf=pass",
        "mx.example.net;none",
        "  MX.Example.NET ; none",
        "\n\tmx.example.net;\n\tspf=pass",
        "mx.example.net 1; none",
        "mx.example.net/1; none",
        "mx.example.net(a); none",
        "(a) mx.example.net; none",
        "(a (b) \\) c)mx.example.net; none",
        "\"mx.example.net\"; none",
        "\"mx.\\example.net\" 1; none",
        "mx.example.net.; none",
        "mx.example.net\tspf=pass",
        "mx.example.net\0; none",
        // These have no identifier that can be read.
        "",
        " ",
        "mx",
        "spf=pass smtp.mailfrom=example.org",
        "spf =pass",
        "; spf=pass",
        "(open; none",
        "\"open; none",
        "\"\"; none",
        "\"mx\"\".example.net\"; none",
        "(a =?utf-8?q?=29_mx.example.net=3B_dmarc=3Dpass_=28?= b) other.test; none",
        "=?utf-8?q?mx.example.net?=; none",
        "\"=?utf-8?q?mx.example.net?=\"; none",
        "\u{a0}other.test; none",
    ] {
        assert!(claims_to_be(value.as_bytes(), "mx.example.net"), "{value:?}");
    }
    for value in [
        "example.net; spf=pass",
        "mx2.example.net; spf=pass",
        "xmx.example.net; none",
        "mx.example.net.evil.test; none",
        "mx.example.org; spf=pass (mx.example.net)",
        "other (mx.example.net); none",
        "other (=?utf-8?q?mx.example.net?=); none",
        "other; dkim=pass (=?utf-8?q?=29?=) header.i=\u{fc}@b.test",
        "\"other\" 1; none",
        "mx-example-net; none",
    ] {
        assert!(!claims_to_be(value.as_bytes(), "mx.example.net"), "{value:?}");
    }
    assert!(claims_to_be("m\u{fc}ller.example; none".as_bytes(), "xn--mller-kva.example"));
    assert!(claims_to_be(b"\xff\xfe", "mx.example.net"));
    assert!(claims_to_be(b"\xff\xfe; none", "mx.example.net"));
    assert!(!claims_to_be("m\u{fc}ller.example; none".as_bytes(), "mx.example.net"));
    let long = format!("{}mx.example.org; none", " ".repeat(3000));
    assert!(claims_to_be(long.as_bytes(), "mx.example.net"), "it is not read to its end");
}

/// Some programs strip these characters from the identifier, as they strip blanks.
#[test]
fn blanks_outside_ascii_hide_no_identifier() {
    for blank in
        "\u{85}\u{a0}\u{1680}\u{2000}\u{2003}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{1c}\u{1f}".chars()
    {
        for value in
            ["_mx.example.net; none", "mx.example.net_; none", "_ mx.example.net; none", " _\"mx.example.net\"_"]
        {
            let value = value.replace('_', &blank.to_string());
            assert!(claims_to_be(value.as_bytes(), "mx.example.net"), "{value:?}");
        }
    }
}

/// A field that this server has written is recognized as its own.
#[test]
fn our_own_field_claims_to_be_ours() {
    for host in ["mx.example.net", "localhost", "xn--mller-kva.example"] {
        let text = field(&all(), host);
        let value = text.strip_prefix("Authentication-Results:").expect("the name");
        assert!(claims_to_be(value.as_bytes(), host));
    }
}

#[cfg(feature = "arc")]
#[test]
fn dmarc_has_passed_only_if_a_field_clearly_says_so() {
    for value in [
        "mx.test; dmarc=pass header.from=example.org",
        " mx.test 1;\tspf=fail smtp.mailfrom=x;\tdmarc=pass (p=NONE sp=NONE (x)) header.from=Example.ORG",
        "mx.test;dmarc/1 = (a) pass action=none header.from=\"example.org\";",
        "\"mx.test\"; DMARC=Pass policy.dmarc=reject header.from=example.org; dkim=pass header.b=\"a=;\"",
        "mx.test; dkim=pass header.b=ab==; dmarc=pass header.from=example.org",
    ] {
        assert!(says_dmarc_passed(value.as_bytes(), "example.org"), "{value}");
    }
    for value in [
        "",
        "mx.test",
        "mx.test; none",
        "mx.test; dmarc=fail header.from=example.org",
        "mx.test; dmarc=none (dmarc=pass header.from=example.org)",
        "mx.test; dmarc=pass",
        "mx.test; dmarc=pass header.from=example.net",
        "mx.test; dmarc=pass header.from=a.example.org",
        "mx.test; dmarc=pass header.from=example.org header.from=example.net",
        "mx.test; dmarc=pass header.from=example.org; dmarc=fail header.from=example.org",
        "mx.test; dmarc=passed header.from=example.org",
        "mx.test; x-dmarc=pass header.from=example.org",
        "mx.test; spf=pass dmarc=pass header.from=example.org",
        "mx.test; spf=pass (; dmarc=pass header.from=example.org)",
        "mx.test; spf=pass smtp.mailfrom=\"; dmarc=pass header.from=example.org\"",
        "mx.test; dmarc=pass header.from=example.org (open",
        "mx.test; dmarc=pass header.from=example.org \"open",
        "dmarc=pass header.from=example.org",
        "; dmarc=pass header.from=example.org",
        "mx.test; dmarc==pass header.from=example.org",
        "mx.test; dmarc=pass header.from==example.org",
    ] {
        assert!(!says_dmarc_passed(value.as_bytes(), "example.org"), "{value}");
    }
    let said = "mx.test; dmarc=pass header.from=xn--mller-kva.example; x=".to_owned();
    assert!(says_dmarc_passed(
        (said.clone() + &"(".repeat(4000) + &")".repeat(4000)).as_bytes(),
        "xn--mller-kva.example"
    ));
    assert!(says_dmarc_passed(
        "mx.test; dmarc=pass header.from=m\u{fc}ller.example".as_bytes(),
        "xn--mller-kva.example"
    ));
    assert!(!says_dmarc_passed((said + &"=".repeat(20_000)).as_bytes(), "xn--mller-kva.example"), "it is too long");
    assert!(!says_dmarc_passed(b"mx.test; dmarc=pass header.from=\xff", "example.org"));
}

/// A field that this server has written can be read by others.
#[cfg(feature = "arc")]
#[test]
fn our_own_field_says_that_dmarc_has_passed() {
    let text = field(&all(), "mx.example.net");
    let value = text.strip_prefix("Authentication-Results:").expect("the name");
    assert!(says_dmarc_passed(value.as_bytes(), "example.org"));
}
