//! Messages that try to avoid the policy of a domain.

use super::*;

/// Mail programs show bank.test for these fields. So either bank.test is found in the fields, or
/// From is unclear.
#[test]
fn a_malformed_from_hides_no_author() {
    let (long, malformed) = ("From is too long", "a domain in From is malformed");
    for (from, domains, reason) in [
        ("<ceo\\@bank.test>", "bank.test", ""),
        ("<ceo@\\bank.test>", "bank.test", malformed),
        ("ceo@bank\\.test", "bank.test", malformed),
        ("ceo@ba\\nk.test\\", "bank.test", malformed),
        ("ceo@bank\\ .test", "bank.test", malformed),
        ("\\\" <ceo@bank.test> \"", "bank.test", ""),
        ("\\( <ceo@bank.test> )", "bank.test", ""),
        ("<ceo@bank.test\u{a0}>", "", malformed),
        ("<ceo@bank.test\u{ad}>", "bank.test", ""),
        ("<a@evil.test>, <ceo@bank.test\u{200b}\u{a0}>", "evil.test", malformed),
        ("<ceo@bank\"\".test>", "bank", malformed),
        ("<ceo@bank. \"test\">", "bank", malformed),
        ("<ceo@\"bank.test\">", "", malformed),
        ("<ceo@ba\u{1}nk.test>", "ba", malformed),
        ("<ceo@[bank.test]>", "bank.test", malformed),
        ("<ceo@bank.test?>", "bank.test", malformed),
        ("ceo@[bank.test]", "bank.test", ""),
        ("'ceo@bank.test'", "bank.test", ""),
        ("[ceo@bank.test] <a@evil.test>", "bank.test evil.test", ""),
        ("ceo@bank\"\".test", "bank", malformed),
        ("ceo@bank\" \".test", "bank", malformed),
        ("ceo@bank\"\".test, <a@evil.test>", "bank evil.test", malformed),
        ("\\ ceo@bank\"\".test \"<a@evil.test>", "evil.test bank", malformed),
        ("ceo@bank.test\u{a0} <a@evil.test>", "evil.test", malformed),
        ("<ceo@bank.test'>", "bank.test", ""),
        ("<'ceo@bank.test''>", "bank.test", malformed),
        ("<ceo@x.test'.bank.test>", "", malformed),
        ("ceo@bank\u{1}.test <a@evil.test>", "evil.test", malformed),
        ("=?a?q?<ceo@bank.test>?= <a@evil.test>", "bank.test evil.test", ""),
        ("=?a?q?ceo@bank.test?=@evil.test", "bank.test evil.test", malformed),
        ("<=?a?q?ceo@bank.test?=>", "bank.test", malformed),
        ("=?a?q?ceo@bank.test?=", "", malformed),
        ("=?a?q?ceo=40bank.test?=", "", malformed),
        ("ceo@=?a?q?bank.test?=", "", malformed),
        ("ceo@=?a?q?bank.test?=, <a@evil.test>", "evil.test", malformed),
        ("ceo\u{ff20}bank.test", "", malformed),
        ("<ceo@[192.0.2.1]bank.test>", "[192.0.2.1]", malformed),
        ("ceo@ <bank.test>", "", ""),
        ("Team @ <ceo@bank.test>", "bank.test", ""),
        ("ceo@bank..test", "", malformed),
        ("a@-", "", malformed),
        (&*format!("\"{}\" <ceo@bank.test>", "A\n ".repeat(11_000)), "", long),
        (&*format!("({}) <ceo@bank.test>", "A\n ".repeat(11_000)), "", long),
        // Some mail programs end a domain at a backslash.
        ("<ceo@bank.test\\x>", "bank.testx", malformed),
        ("ceo@bank.test\\x, <a@evil.test>", "bank.testx evil.test", malformed),
        ("Foo @ A\\\" <ceo@bank.test> \"<a@evil.test>", "bank.test evil.test a", ""),
        // A valid address need not have a domain of the DNS, and is shown beside other addresses.
        ("ceo@a-.bank.test, <a@evil.test>", "evil.test", malformed),
        ("ceo@a-.bank.test x, <a@evil.test>", "evil.test", malformed),
        ("ceo@a-. bank.test; <a@evil.test>", "evil.test", malformed),
        ("Eve <a@evil.test>, ceo@a-.bank.test (a)", "evil.test", malformed),
        ("ceo@secure+.bank.test, <a@evil.test>", "evil.test", malformed),
        ("ceo@www/login.bank.test, Eve <a@evil.test>", "evil.test", malformed),
        (&*format!("ceo@{}.bank.test, <a@evil.test>", "a".repeat(64)), "evil.test", malformed),
        // Some mail programs show a name as an address if no other address follows it.
        ("\"ceo@bank.test\", a@evil.test", "evil.test", malformed),
        ("\"ceo@bank.test\"; a@evil.test", "evil.test", malformed),
        ("\"ceo\u{ff20}bank.test\", a@evil.test", "evil.test", malformed),
        ("\"ceo@bank.test\" (CEO), Eve <a@evil.test>", "evil.test", malformed),
        ("\"ceo@bank.test\"@, a@evil.test", "evil.test", malformed),
        ("<\"ceo@bank.test\">, <a@evil.test>", "evil.test", malformed),
        ("<\"ceo@bank.test\" a@evil.test>", "evil.test", malformed),
        ("ceo\u{ff20}bank.test, <a@evil.test>", "evil.test", malformed),
        ("a@evil.test, =?utf-8?q?ceo@bank.test?=", "evil.test", malformed),
        ("=?utf-8?q?ceo@bank.test?= , a@evil.test", "evil.test", malformed),
        ("=?utf-8?q?ceo@bank.test?= <>, a@evil.test", "evil.test", malformed),
        ("=?utf-8?q?ceo=40bank.test?=, a@evil.test", "evil.test", malformed),
        ("=?utf-8?q?ceo=EF=BC=A0bank.test?=, a@evil.test", "evil.test", malformed),
        ("\"=?utf-8?q?ceo=40bank.test?=\", a@evil.test", "evil.test", malformed),
        ("\"=\\?utf-8?q?ceo=40bank.test?=\", a@evil.test", "evil.test", malformed),
        ("<=?utf-8?q?ceo=40bank.test?=>, <a@evil.test>", "evil.test", malformed),
        ("\\ =?utf-8?q?ceo=40bank.test?=, a@evil.test", "evil.test", malformed),
        ("=?utf-8?b?Y2VvQGJhbmsudGVzdA==?=, a@evil.test", "evil.test", malformed),
        ("=?utf-8?b?Y2VvQ?= =?utf-8?b?GJhbmsudGVzdA==?=, a@evil.test", "evil.test", malformed),
        ("=?utf-8?q?=?utf-8?b?Y2VvQGJhbmsudGVzdA==?=, a@evil.test", "evil.test", malformed),
        ("=?utf-7?q?ceo+AEA-bank.test?=, a@evil.test", "evil.test", malformed),
        ("a@1,b@2,c@3,d@4,e@5,ceo@bank.test", "1 2 3 4 5", "From has too many domains"),
    ] {
        let found = Authors::of_header(format!("From: {from}\n").as_bytes());
        assert_eq!((&*found.domains.join(" "), found.reason), (domains, reason), "{from:.80?}");
        assert_eq!(found.has_more, !reason.is_empty(), "{from:.80?}");
        let zone = Zone::new("_dmarc.bank.test TXT v=DMARC1; p=reject\n_dmarc.evil.test TXT v=DMARC1; p=none");
        let checked = evaluate(&zone, &found, &[]);
        assert!(checked.policy == Policy::Reject || checked.is_unclear, "{from:.80?}");
    }
}

/// Honest mail, and bounces whose From has no domain.
#[test]
fn an_ordinary_from_is_clear() {
    for (from, domains) in [
        ("'news@acme.com' <news@acme.com>", "acme.com"),
        ("'news@acme.com'", "acme.com"),
        ("=?UTF-8?Q?Jos=C3=A9_@_Acme?= <jose@acme.com>", "acme.com"),
        ("=?UTF-8?Q?Acme_@_Jos=C3=A9?=\n =?UTF-8?Q?_Inc?= <jose@acme.com>", "acme.com"),
        ("Acme @ =?UTF-8?Q?Jos=C3=A9?= <jose@acme.com>", "acme.com"),
        ("Jobs @ O'Reilly <j@oreilly.com>", "oreilly.com"),
        ("Deals @ 50% off <x@y.example>", "y.example"),
        ("Deals @ 50% off, today <x@y.example>", "50 y.example"),
        ("Foo @ \"Bar\" <x@y.example>", "y.example"),
        ("Foo @ \"Bar, Inc\" <x@y.example>", "y.example"),
        ("Foo @ [Bar] <x@y.example>", "y.example"),
        ("Foo @ - <x@y.example>", "y.example"),
        ("Foo @ C++ | x@y.example <x@y.example>", "y.example"),
        ("John Doe [john@acme.com]", "acme.com"),
        ("John Doe [john@acme.com] <john@acme.com>", "acme.com"),
        ("john@acme.com\" <john@acme.com>", "acme.com"),
        ("M\u{fc}ller @ O'Reilly <j@oreilly.com>", "oreilly.com"),
        ("\"news@acme.com\" <news@acme.com>, \"x@acme.com\" <x@acme.com>", "acme.com"),
        ("\"news@acme.com\"\n (news) <news@acme.com>", "acme.com"),
        ("\"'news@acme.com' via List @ Acme, Inc.\" <list@acme.com>", "acme.com"),
        ("\"Acme @ =?utf-8?q?Jos=40?=\" <jose@acme.com>", "acme.com"),
        ("\"a@b\"@acme.com", "acme.com"),
        ("a@acme.com (\"a@b\" =?utf-8?q?a=40b?=)", "acme.com"),
        ("=?iso-8859-1?Q?M=FCller?=, Jon <jon@acme.com>", "acme.com"),
        ("jon@acme.com (=?iso-2022-jp?B?GyRCM1RiMnEbKEI=?=)", "acme.com"),
        ("=?ISO-2022-JP?B?GyRCM1RiMnEbKEI=?= <shop@acme.com>", "acme.com"),
        ("=?UTF-8?B?5qW95aSp5biC5aC0QOOCt+ODp+ODg+ODlw==?=\n <shop@acme.com>", "acme.com"),
        ("楽天\u{ff20}ショップ！ <shop@acme.com>", "acme.com"),
        ("\"楽天\u{ff20}ショップ, 東京\" <shop@acme.com>", "acme.com"),
        ("Jobs @ O'Reilly.com Media <j@oreilly.com>", "oreilly.com"),
        ("Jobs @ St. Mary's Hospital <j@acme.com>", "acme.com"),
        ("Jobs @Acme <j@acme.com>, Shop@Acme <s@acme.com>", "acme.com"),
        ("楽天 @ ショップ <shop@acme.com>", "acme.com"),
        ("Shop@楽天！ <shop@acme.com>", "acme.com"),
        ("Jon Doe <'jon@acme.com'>", "acme.com"),
        ("jon@localhost", "localhost"),
        ("<jon@localhost>", "localhost"),
        ("jon@localhost, Jon <jon@acme.com>", "localhost acme.com"),
        ("Support @ Foo\\Bar <a@acme.com>", "acme.com foobar"),
        ("MAILER-DAEMON (Mail Delivery System)", ""),
        ("Mail Delivery System <MAILER-DAEMON>", ""),
        ("undisclosed:;", ""),
        ("<>", ""),
        ("", ""),
    ] {
        let found = Authors::of_header(format!("From: {from}\n").as_bytes());
        assert_eq!((&*found.domains.join(" "), found.reason), (domains, ""), "{from}");
        assert!(!evaluate(&Zone::new(""), &found, &[]).is_unclear, "{from}");
    }
    // Names in Latin-1 and in Shift_JIS, in which 0x40 is also the second octet of a character.
    for from in [&b"Foo @ Caf\xe9 <x@y.example>"[..], b"\x83@\x8e\x91@\x83V\x83\x87\x83b\x83v <x@y.example>"] {
        let found = Authors::of_header(&[b"From: ", from].concat());
        assert_eq!((&*found.domains.join(" "), found.reason), ("y.example", ""), "{}", from.escape_ascii());
    }
    for (header, is_unclear, reason) in [
        ("To: a@x.test\n", true, "there is no From"),
        ("From: ceo@\n", true, "From has no domain"),
        ("From:\n", false, "From has no domain"),
        ("From: <>\n", false, "From has no domain"),
        ("From: jon\n", false, "From has no domain"),
        ("From: a@x.test\n", false, "no record"),
        ("From: a@[192.0.2.1]\n", false, "From has an address literal"),
    ] {
        let checked = evaluate(&Zone::new(""), &Authors::of_header(header.as_bytes()), &[]);
        assert_eq!((checked.outcome, checked.is_unclear, checked.reason), (Outcome::None, is_unclear, reason));
    }
}

/// The names in the signatures of one author cannot use up the look-ups for another.
#[test]
fn look_ups_for_one_author_leave_those_for_others() {
    let zone = "_dmarc.evil.test TXT v=DMARC1; p=none\n_dmarc.bank.test TXT v=DMARC1; p=reject; sp=none; np=reject";
    let deep: Vec<String> = (0..10).map(|n| format!("dkim:a{n}.b{n}.c{n}.d{n}.e{n}.f{n}.evil.test?")).collect();
    let others = "evil.test ceo.bank.test";
    assert_eq!(check(zone, others, &deep.join(" ")), "fail reject");
    let many = format!("{others} a.b.c.d.e.f.g.one.test a.b.c.d.e.f.g.two.test a.b.c.d.e.f.g.three.test");
    assert_eq!(check(zone, &many, &deep.join(" ")), "fail reject");
    let aligned: Vec<String> = (0..20).map(|n| format!("dkim:a{n}.b{n}.c{n}.d{n}.e{n}.f{n}.bank.test")).collect();
    let unaligned = "_dmarc.bank.test TXT v=DMARC1; p=reject; psd=y";
    assert_eq!(check(unaligned, "bank.test", &aligned.join(" ")), "fail reject", "too many look-ups align nothing");
}

/// A failed look-up leaves open which policy applies, unless the other answers settle it.
#[test]
fn a_policy_that_is_not_known_is_told_from_none() {
    let zone = "_dmarc.lost.test FAIL\n_dmarc.r.test TXT v=DMARC1; p=reject\n_dmarc.n.test TXT v=DMARC1; p=none\n\
                _dmarc.q.test TXT v=DMARC1; p=quarantine\n_dmarc.t.test TXT v=DMARC1; p=quarantine; t=y";
    for (from, passed, is_undecided) in [
        ("lost.test", "", true),
        ("a.lost.test", "", true),
        ("r.test", "dkim:r.test?", true),
        ("q.test", "spf:a.q.test?", true),
        ("n.test", "dkim:n.test?", false),
        ("t.test", "dkim:t.test?", false),
        ("r.test", "dkim:r.test? spf:r.test", false),
        ("r.test", "", false),
        ("evil.test", "", false),
        ("lost.test q.test", "", true),
        ("r.test n.test", "dkim:r.test?", true),
        ("lost.test r.test", "", false),
    ] {
        let checked = evaluate(&Zone::new(zone), &authors(from), &identifiers(passed));
        assert_eq!(checked.is_undecided(), is_undecided, "{from} {passed}");
    }
}

/// The work for a message does not grow with the number of its From fields.
#[test]
fn the_from_fields_that_are_read_are_bounded() {
    let field = |size: usize, domain: &str| format!("From: {}<ceo@{domain}>\n", "A\n ".repeat(size / 3));
    for (header, domains) in [
        (field(0, "bank.test").repeat(9) + &field(0, "late.test"), "bank.test late.test"),
        (field(0, "bank.test").repeat(10) + &field(0, "late.test"), "bank.test"),
        (field(15_000, "bank.test") + &field(15_000, "late.test"), "bank.test late.test"),
        (field(15_000, "bank.test").repeat(2) + &field(15_000, "late.test"), "bank.test"),
        (field(15_000, "bank.test").repeat(3) + &field(0, "late.test"), "bank.test"),
    ] {
        let found = Authors::of_header(header.as_bytes());
        assert_eq!(found.domains.join(" "), domains, "{}", header.len());
        assert!(found.has_more, "{}", header.len());
    }
}

/// Mail programs show the first or the last From field.
#[test]
fn a_second_from_field_makes_the_author_unclear() {
    for (header, is_unclear) in [
        ("From: a@x.test\n", false),
        ("From: a@x.test\nFrom: a@x.test\n", true),
        ("From: a@x.test\nfrom : b@x.test\n", true),
        ("From: MAILER-DAEMON\nFrom:\n", true),
        ("From: a@x.test\nResent-From: b@y.test\n\nFrom: b@y.test\n", false),
    ] {
        let checked = evaluate(&Zone::new(""), &Authors::of_header(header.as_bytes()), &identifiers("dkim:x.test"));
        assert_eq!(checked.is_unclear, is_unclear, "{header}");
        assert_eq!(checked.reason == "there is more than one From", is_unclear, "{header}");
    }
}
