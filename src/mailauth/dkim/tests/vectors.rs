//! Tests the examples of RFC 6376 and RFC 8463.

use super::*;

/// The message of RFC 6376 A.2. RFC 8463 A.3 uses the same message.
const FIELDS_AND_BODY: &str = "From: Joe SixPack <joe@football.example.com>\n\
    To: Suzie Q <suzie@shopping.example.net>\n\
    Subject: Is dinner ready?\n\
    Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\n\
    Message-ID: <20030712040037.46341.5F8J@football.example.com>\n\
    \n\
    Hi.\n\
    \n\
    We lost the game. Are you hungry yet?\n\
    \n\
    Joe.\n";

const RFC_6376: &str = "DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
        4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
        KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
        4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
";

const RFC_8463: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
";

fn zone() -> Zone {
    Zone::of(&[
        (
            "brisbane._domainkey.example.com",
            "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt\
             IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhi\
             tdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB",
        ),
        (
            "brisbane._domainkey.football.example.com",
            "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        ),
        (
            "test._domainkey.football.example.com",
            "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR\
             6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5Qj\
             vHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
        ),
    ])
}

#[test]
fn the_signatures_of_the_rfcs_are_valid() {
    for (signatures, domain, algorithms) in [
        (RFC_6376, "example.com", &["rsa-sha256"][..]),
        (RFC_8463, "football.example.com", &["ed25519-sha256", "rsa-sha256"]),
    ] {
        let checked = verify(&format!("{signatures}{FIELDS_AND_BODY}"), &zone());
        assert!(checked.iter().all(Checked::is_pass), "{checked:?}");
        assert!(checked.iter().all(|checked| checked.domain == domain), "{checked:?}");
        let names = checked.iter().filter_map(|checked| checked.algorithm.map(Algorithm::name));
        assert_eq!(names.collect::<Vec<_>>(), algorithms);
    }
}

/// In the simple form, a change of any octet breaks the signature. In the relaxed form, blanks and
/// the case of names do not matter.
#[test]
fn an_altered_example_fails() {
    for (from, to, simple, relaxed) in [
        ("hungry", "angry", Some(Reason::BodyAltered), Some(Reason::BodyAltered)),
        ("Joe.\n", "Joe.\n\n\n", None, None),
        ("game. Are", "game.  Are", Some(Reason::BodyAltered), None),
        ("Joe.\n", "Joe. \n", Some(Reason::BodyAltered), None),
        ("Is dinner", "[list] Is dinner", Some(Reason::Mismatch), Some(Reason::Mismatch)),
        ("Is dinner", "Is\n dinner", Some(Reason::Mismatch), None),
        ("Subject: ", "SUBJECT :\t", Some(Reason::Mismatch), None),
        ("\n\nHi", "\nFrom: x@example.com\n\nHi", Some(Reason::Mismatch), Some(Reason::Mismatch)),
        ("\n\nHi", "\nX-Other: x\n\nHi", None, None),
    ] {
        let body = FIELDS_AND_BODY.replacen(from, to, 1);
        for (signatures, reason) in [(RFC_6376, simple), (RFC_8463, relaxed)] {
            let checked = verify(&format!("{signatures}{body}"), &zone());
            assert!(checked.iter().all(|checked| checked.reason == reason), "{from} {to}: {checked:?}");
        }
    }
}
