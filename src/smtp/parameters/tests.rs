//! Tables of parameters: those that a client sends, and those that a host gets.

use super::*;

fn words(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split_ascii_whitespace().map(|word| word.split_once('=').unwrap_or((word, "")))
}

const NOW: u64 = 1_795_255_200;

fn all() -> Extensions {
    Extensions {
        size: Some(0),
        eight_bit: true,
        binary_mime: true,
        dsn: true,
        smtp_utf8: true,
        deliver_by: Some(60),
        future_release: Some(FutureRelease { max_interval: 86_400, max_time: NOW + 7 * 86_400 }),
        mt_priority: true,
        require_tls: true,
        ..Extensions::default()
    }
}

/// What a host that offers everything gets for parameters. `None` stands for no error.
fn mail(text: &str, offered: &Extensions) -> Result<String, ParameterError> {
    let parsed = MailParameters::parse(words(text), offered, NOW)?;
    Ok(MailParameters { size: parsed.size, ..parsed }.at(NOW).to_string())
}

#[test]
fn mail_parameters_are_parsed_and_printed() {
    let long = format!("ENVID={}", "x".repeat(MAX_ENVID + 1));
    for (text, want) in [
        ("", Ok("")),
        ("SIZE=0", Ok(" SIZE=0")),
        ("size=10 Body=8bitmime", Ok(" SIZE=10 BODY=8BITMIME")),
        ("BODY=7BIT SIZE=18446744073709551616", Ok(" SIZE=18446744073709551615")),
        ("AUTH=<>", Ok("")),
        ("AUTH=e+3Dmc2@example.com SIZE=1", Ok(" SIZE=1")),
        ("AUTH", Ok("")),
        ("AUTH=a+3d", Ok("")),
        ("SIZE", Err(Malformed("SIZE"))),
        ("SIZE=-1", Err(Malformed("SIZE"))),
        ("SIZE=1k", Err(Malformed("SIZE"))),
        ("BODY=BINARYMIME", Ok(" BODY=BINARYMIME")),
        ("BODY=", Err(Malformed("BODY"))),
        ("SMTPUTF8 BODY=8BITMIME", Ok(" BODY=8BITMIME SMTPUTF8")),
        ("SMTPUTF8=yes", Err(Malformed("SMTPUTF8"))),
        ("ret=hdrs", Ok(" RET=HDRS")),
        ("RET=full ENVID=QQ314159", Ok(" RET=FULL ENVID=QQ314159")),
        ("RET=", Err(Malformed("RET"))),
        ("ENVID=a=b", Err(Malformed("ENVID"))),
        ("ENVID=a+2b", Err(Malformed("ENVID"))),
        (&long, Err(Malformed("ENVID"))),
        ("BY=120;R", Ok(" BY=120;R")),
        ("BY=-120;nt", Ok(" BY=-120;NT")),
        ("BY=000000060;RT", Ok(" BY=60;RT")),
        ("BY=59;R", Err(OutOfBounds("BY"))),
        ("BY=59;N", Ok(" BY=59;N")),
        ("BY=0;R", Err(Malformed("BY"))),
        ("BY=-1;R", Err(Malformed("BY"))),
        ("BY=1000000000;R", Err(Malformed("BY"))),
        ("BY=1;T", Err(Malformed("BY"))),
        ("BY=1", Err(Malformed("BY"))),
        ("BY=1;", Err(Malformed("BY"))),
        ("BY=+-1;N", Err(Malformed("BY"))),
        ("HOLDFOR=86400", Ok("")),
        ("HOLDFOR=86401", Err(OutOfBounds("HOLDFOR"))),
        ("HOLDFOR=1e3", Err(Malformed("HOLDFOR"))),
        ("HOLDUNTIL=2026-11-21T12:00:00Z", Ok("")),
        ("HOLDUNTIL=2026-11-21T12:00:00+02:00", Ok("")),
        ("HOLDUNTIL=2026-11-23T12:00:00Z", Err(OutOfBounds("HOLDUNTIL"))),
        ("HOLDUNTIL=2026-11-21", Err(Malformed("HOLDUNTIL"))),
        ("HOLDUNTIL=2026-11-21T12:00:00Z HOLDFOR=1", Err(ParameterError::Contradictory(TWO_TIMES))),
        ("HOLDFOR=60 BY=60;R", Ok(" BY=60;R")),
        ("HOLDFOR=61 BY=60;R", Err(ParameterError::Contradictory(HELD_TOO_LONG))),
        ("BY=-5;N HOLDFOR=1", Err(ParameterError::Contradictory(HELD_TOO_LONG))),
        ("MT-PRIORITY=-9", Ok(" MT-PRIORITY=-9")),
        ("MT-PRIORITY=9 SIZE=1", Ok(" SIZE=1 MT-PRIORITY=9")),
        ("MT-PRIORITY=10", Err(Malformed("MT-PRIORITY"))),
        ("MT-PRIORITY=+1", Err(Malformed("MT-PRIORITY"))),
        ("requiretls SIZE=1", Ok(" SIZE=1 REQUIRETLS")),
        ("REQUIRETLS=yes", Err(Malformed("REQUIRETLS"))),
        ("REQUIRETLS RequireTLS", Err(ParameterError::Repeated("RequireTLS".into()))),
        ("SIZE=1 size=x", Err(ParameterError::Repeated("size".into()))),
        ("NOTIFY=never", Err(Unknown("NOTIFY".into()))),
        ("r\u{1b}t", Err(Unknown("r?t".into()))),
    ] {
        assert_eq!(mail(text, &all()), want.map(str::to_owned), "{text}");
    }
    let long = "x".repeat(99);
    assert_eq!(mail(&long, &all()), Err(Unknown("x".repeat(MAX_KEYWORD))));
}

#[test]
fn parameters_of_an_extension_that_is_not_offered_are_unknown() {
    let none = Extensions::default();
    for (text, keyword) in [
        ("SMTPUTF8", "SMTPUTF8"),
        ("RET=FULL", "RET"),
        ("ENVID=x", "ENVID"),
        ("BY=1;N", "BY"),
        ("HOLDFOR=1", "HOLDFOR"),
        ("HOLDUNTIL=2026-11-21T12:00:00Z", "HOLDUNTIL"),
        ("MT-PRIORITY=1", "MT-PRIORITY"),
        ("REQUIRETLS", "REQUIRETLS"),
    ] {
        assert_eq!(mail(text, &none), Err(Unknown(keyword.into())));
        assert!(mail(text, &all()).is_ok(), "{text}");
    }
    assert_eq!(mail("BODY=BINARYMIME", &none), Err(Malformed("BODY")));
    let rcpt = |text| RcptParameters::parse(words(text), &none).map(|p| p.to_string());
    assert_eq!((rcpt(""), rcpt("Notify=never")), (Ok(String::new()), Err(Unknown("Notify".into()))));
}

const FULL: &str = "RET=FULL ENVID=x SMTPUTF8 BY=90;R MT-PRIORITY=3 HOLDFOR=9 REQUIRETLS";

#[test]
fn a_host_gets_the_parameters_that_it_supports() {
    let (none, eight_bit) = (Extensions::default(), Extensions { eight_bit: true, ..Extensions::default() });
    let size = Extensions { size: Some(0), ..eight_bit.clone() };
    let full = MailParameters::parse(words(FULL), &all(), NOW);
    let full = full.expect("parameters").options;
    for (extensions, body, is_ascii, want) in [
        (&none, Body::EightBit, false, ""),
        (&eight_bit, Body::SevenBit, true, ""),
        (&eight_bit, Body::EightBit, true, " BODY=8BITMIME"),
        (&eight_bit, Body::SevenBit, false, " BODY=8BITMIME"),
        (&eight_bit, Body::Binary, false, " BODY=8BITMIME"),
        (&size, Body::SevenBit, true, " SIZE=7"),
        (&size, Body::SevenBit, false, " SIZE=7 BODY=8BITMIME"),
        (
            &all(),
            Body::Binary,
            true,
            " SIZE=7 BODY=BINARYMIME SMTPUTF8 RET=FULL ENVID=x BY=80;R MT-PRIORITY=3 REQUIRETLS",
        ),
    ] {
        let options = &MailOptions { body, ..full.clone() };
        let parameters = MailParameters::for_host(extensions, Sent { options, size: 7, is_ascii }, NOW + 10);
        assert_eq!(parameters.to_string(), want, "{extensions:?} {body:?} {is_ascii}");
    }
}

#[test]
fn rcpt_parameters_are_parsed_and_printed() {
    let long = format!("ORCPT=rfc822;{}", "x".repeat(MAX_ORCPT));
    for (text, want) in [
        ("", Ok("")),
        ("notify=never", Ok(" NOTIFY=NEVER")),
        ("NOTIFY=delay,success ORCPT=rfc822;a+2Bb@x.test", Ok(" NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@x.test")),
        ("ORCPT=x400;/c+3Dde", Ok(" ORCPT=x400;/c+3Dde")),
        ("ORCPT=utf-8;b\\x{FC}cher@x.test", Ok(" ORCPT=utf-8;b\\x{FC}cher@x.test")),
        ("NOTIFY=", Err(Malformed("NOTIFY"))),
        ("NOTIFY=NEVER,SUCCESS", Err(Malformed("NOTIFY"))),
        ("ORCPT=a@x.test", Err(Malformed("ORCPT"))),
        ("ORCPT=;a@x.test", Err(Malformed("ORCPT"))),
        ("ORCPT=rfc822;", Err(Malformed("ORCPT"))),
        ("ORCPT=rfc822;a+2", Err(Malformed("ORCPT"))),
        ("ORCPT=utf-8;a\\x{110000}", Err(Malformed("ORCPT"))),
        (&long, Err(Malformed("ORCPT"))),
        ("NOTIFY=NEVER Notify=NEVER", Err(ParameterError::Repeated("Notify".into()))),
        ("SIZE=1", Err(Unknown("SIZE".into()))),
    ] {
        let parsed = RcptParameters::parse(words(text), &all());
        if let Ok(parsed) = &parsed {
            let for_host = RcptParameters::for_host(&Extensions::default(), &parsed.options);
            assert_eq!(
                (for_host.to_string().as_str(), RcptParameters::for_host(&all(), &parsed.options)),
                ("", parsed.clone())
            );
        }
        assert_eq!(parsed.map(|p| p.to_string()), want.map(str::to_owned), "{text}");
    }
}
