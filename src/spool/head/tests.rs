//! Heads that are written can be read, and nothing else can.

use super::*;
use crate::envelope::{Action, ByMode, DeliverBy, MessageTls, Notify, Ret};

fn queued(envelope: &Envelope) -> String {
    super::queued(envelope, Marks::default(), None, 0)
}

fn action(n: usize) -> Action {
    let user = (n % 10 > 4).then(|| "jon".into());
    match n % 5 {
        1 => Action::Direct,
        2 => Action::Expand,
        3 => Action::Run { command: "</a b\" to=<x@y> do=expand %41\u{f6}\t'".into(), user },
        4 => Action::Append { file: "/var/mail/a b%".into(), user },
        _ => Action::Deliver,
    }
}

fn envelope(recipients: usize) -> Envelope {
    let address = |text: String| Address::parse(&text).expect("an address");
    let recipient = |n| Recipient {
        address: address(format!("\"j {n}\"@x.org")),
        original: (n % 2 == 0).then(|| address(format!("list{n}@y.org"))),
        action: action(n),
        options: RcptOptions::default(),
    };
    Envelope {
        sender: Some(address("\"a > b\"@x.org".to_owned())),
        recipients: (0..recipients).map(recipient).collect(),
        options: MailOptions { body: Body::EightBit, ..MailOptions::default() },
        origin: Origin::Report,
    }
}

#[test]
fn a_queued_head_can_be_read_back() {
    for count in [1, 2, 100] {
        let envelope = envelope(count);
        let text = queued(&envelope) + "Received: x\n";
        let head = read(text.as_bytes()).expect("a head");
        assert_eq!((head.sender, head.options, head.origin), (envelope.sender, envelope.options, envelope.origin));
        assert_eq!(
            head.recipients.iter().map(|entry| entry.recipient.clone()).collect::<Vec<_>>(),
            envelope.recipients
        );
        assert_eq!(&text[head.content as usize..], "Received: x\n");
        for entry in head.recipients {
            assert_eq!((entry.offset as usize % ALIGN, entry.record), (0, DeliveryState::FRESH));
            assert_eq!(text.as_bytes()[entry.offset as usize], b'T');
        }
    }
}

#[test]
fn the_options_of_mail_and_rcpt_can_be_read_back() {
    let by = |mode, trace| Some(DeliverBy { deadline: -5, mode, trace });
    let none = MailOptions::default();
    for (options, fields) in [
        (none.clone(), ""),
        (MailOptions { body: Body::Binary, utf8: true, ..none.clone() }, " binary=yes utf=yes"),
        (
            MailOptions { ret: Some(Ret::Full), envid: Some("a+2B<%".into()), ..none.clone() },
            " ret=full envid=a+2B%3C%25",
        ),
        (MailOptions { ret: Some(Ret::Headers), priority: -9, ..none.clone() }, " ret=hdrs priority=-9"),
        (MailOptions { deliver_by: by(ByMode::Return, true), ..none.clone() }, " by=-5:RT"),
        (MailOptions { deliver_by: by(ByMode::Notify, false), release: Some(7), ..none.clone() }, " by=-5:N release=7"),
        (MailOptions { release: Some(7), hold_for: Some(5), ..none.clone() }, " release=7:5"),
        (MailOptions { priority: 1, tls: MessageTls::Required, ..none.clone() }, " priority=1 tls=required"),
        (MailOptions { tls: MessageTls::Indifferent, ..none.clone() }, " tls=indifferent"),
    ] {
        let mut envelope = Envelope { options, ..envelope(4) };
        let notify = |value| RcptOptions { notify: Notify::parse(value), orcpt: None };
        envelope.recipients[1].options = notify("never");
        envelope.recipients[2].options = notify("failure,success");
        envelope.recipients[3].options = RcptOptions { notify: None, orcpt: Some("rfc822;a<%@x.org".into()) };
        let text = queued(&envelope);
        let first = text.lines().next().expect("a line").trim_end();
        assert!(first.ends_with(&format!(" from=<\"a > b\"@x.org>{fields}")), "{first}");
        for field in [" notify=never ", " notify=success,failure ", " orcpt=rfc822;a%3C%25@x.org "] {
            assert!(text.contains(field), "{text}");
        }
        let head = read(text.as_bytes()).expect("a head");
        assert_eq!(head.options, envelope.options);
        let options = |recipients: Vec<Recipient>| recipients.into_iter().map(|to| to.options).collect::<Vec<_>>();
        let read_back = head.recipients.into_iter().map(|entry| entry.recipient).collect();
        assert_eq!(options(read_back), options(envelope.recipients));
    }
}

#[test]
fn a_derived_entry_has_its_derivation() {
    let steps = vec![Step::list("staff"), Step::forward("j\u{f6}n <x>", ".forward+a%b")];
    let derivation = Derivation { steps: steps.clone(), shares: vec![7, 0, u32::MAX], folder: None };
    let text = derived(&envelope(3), &derivation, None, None);
    assert!(text.contains(" past=list:staff past=forward:j%C3%B6n%20%3Cx>/.forward+a%25b "), "{text}");
    let head = read(text.as_bytes()).expect("a head");
    assert_eq!(head.steps, steps);
    assert_eq!(head.recipients.iter().map(|entry| entry.share).collect::<Vec<_>>(), [7, 0, u32::MAX]);
    // The head of a received message has no field of a derivation, so that earlier versions can
    // read it.
    let text = queued(&envelope(3));
    assert!(!text.contains(" past=") && !text.contains(" may="));
    let head = read(text.as_bytes()).expect("a head");
    assert!(head.steps.is_empty() && head.recipients.iter().all(|entry| entry.share == 0));
    for (count, is_read) in [(32, true), (33, false)] {
        let derivation = Derivation { steps: vec![Step::list("x"); count], shares: Vec::new(), folder: None };
        assert_eq!(read(derived(&envelope(1), &derivation, None, None).as_bytes()).is_ok(), is_read, "{count}");
    }
}

#[test]
fn a_message_in_quarantine_has_a_reason_or_a_folder() {
    let folder = Folder::parse(".Junk E-mail").expect("a folder");
    let long = "\u{20ac}".repeat(MAX_REASON);
    for (reason, read_back) in [
        ("example.org asks for quarantine (DMARC)", "example.org asks for quarantine (DMARC)"),
        (" 100%\r\nto=<x@y> ", "100%\r\nto=<x@y>"),
        ("", "unknown"),
        (&long, &long[..MAX_REASON / 3 * 3]),
    ] {
        let text = super::queued(&envelope(2), Marks { reason: Some(reason), folder: None }, None, 0);
        let head = read(text.as_bytes()).expect("a head");
        assert_eq!((head.reason.as_deref(), head.folder, head.recipients.len()), (Some(read_back), None, 2));
    }
    let text = super::queued(&envelope(2), Marks { reason: None, folder: Some(&folder) }, None, 0);
    assert!(text.contains(" folder=.Junk%20E-mail "), "{text}");
    assert_eq!(read(text.as_bytes()).expect("a head").folder, Some(folder.clone()));
    // A message that is derived from a message with a folder goes into the same folder.
    let derivation = Derivation { folder: Some(folder.clone()), ..Derivation::default() };
    assert_eq!(read(derived(&envelope(1), &derivation, None, None).as_bytes()).expect("a head").folder, Some(folder));
    for bad in ["folder=../..%20%20%20%20", "folder=Junk%20E-mailx", "folder=<a@b>%20E-mai", "folder=.a folder=.b    "]
    {
        assert_eq!(read(text.replace("folder=.Junk%20E-mail", bad).as_bytes()), Err(MALFORMED), "{bad}");
    }
    assert!(!queued(&envelope(2)).contains("reason=") && !queued(&envelope(2)).contains("folder="));
}

#[test]
fn a_head_says_at_most_once_whether_the_message_needs_tls() {
    let options = MailOptions { tls: MessageTls::Required, ..MailOptions::default() };
    let text = queued(&Envelope { options, ..envelope(1) });
    for odd in ["tls=Required", "tls=optional", "tls=required tls=required", "tls=required tls=indifferent"] {
        let text = text.replacen("tls=required", odd, 1);
        // A line that has become longer loses some of the blanks at its end.
        let text = text.replacen(&format!("{}\n", " ".repeat(odd.len() - 12)), "\n", 1);
        assert_eq!(read(text.as_bytes()), Err(MALFORMED), "{text}");
    }
    assert!(read(text.as_bytes()).is_ok());
}

#[test]
fn messages_of_own_users_and_reports_to_domains_are_marked() {
    for origin in
        [Origin::Client, Origin::Own, Origin::DmarcReport, Origin::TlsReport, Origin::Report, Origin::Postmaster]
    {
        let text = queued(&Envelope { origin, ..envelope(1) });
        let words = [" own=yes ", " dmarc=yes ", " tlsrpt=yes "].map(|word| text.contains(word));
        let wanted = [Origin::Own, Origin::DmarcReport, Origin::TlsReport].map(|marked| origin == marked);
        assert_eq!((read(text.as_bytes()).map(|head| head.origin), words), (Ok(origin), wanted));
    }
    let text = queued(&Envelope { origin: Origin::DmarcReport, ..envelope(1) });
    let moved = text.replace("origin=client dmarc=yes", "dmarc=yes origin=client");
    assert_eq!(read(moved.as_bytes()).map(|head| head.origin), Ok(Origin::DmarcReport));
    for (from, to) in [
        (" dmarc=yes", " dmarc=yea"),
        ("client dmarc=yes", "report dmarc=yes"),
        ("origin=client dmarc=yes", "dmarc=yes origin=report"),
    ] {
        assert_eq!(read(text.replace(from, to).as_bytes()), Err(MALFORMED), "{to}");
    }
    let text = queued(&Envelope { origin: Origin::Own, ..envelope(1) });
    for (from, to) in [(" own=yes", " own=yea"), ("client own=yes", "report own=yes")] {
        assert_eq!(read(text.replace(from, to).as_bytes()), Err(MALFORMED), "{to}");
    }
}

#[test]
fn the_longest_heads_can_be_read_back() {
    let quotes = "\"".repeat(address::MAX_ADDRESS - 6);
    let long = Address::new(&quotes, "x.org").expect("the longest address");
    assert!(long.to_string().len() + 2 <= MAX_WRITTEN);
    let text = direct(Some(&long), &long) + "\n";
    assert!(text.len() <= MAX_DIRECT && length(text.as_bytes()) == Ok(MAX_DIRECT as u64));
    assert_eq!(read(text.as_bytes()).expect("a head").sender, Some(long.clone()));
    let wide = "\u{f6}".repeat(MAX_ACTION / 2);
    let action = Action::Run { command: wide.as_str().into(), user: Some(wide.as_str().into()) };
    let options = RcptOptions { notify: None, orcpt: Some("%".repeat(MAX_ORCPT).into()) };
    let recipient = Recipient { address: long.clone(), original: Some(long.clone()), action, options };
    let envelope = Envelope {
        sender: Some(long),
        recipients: vec![recipient; 3],
        options: MailOptions::default(),
        origin: Origin::Client,
    };
    let text = queued(&envelope);
    assert!(text.lines().all(|line| line.len() < MAX_LINE));
    assert_eq!(read(text.as_bytes()).expect("a head").recipients[2].recipient, envelope.recipients[2]);
}

#[test]
fn an_unknown_field_is_not_ignored() {
    let text = queued(&envelope(2));
    let edit = |from: &str, to: &str| text.replacen(from, to, 1).replacen(&" ".repeat(to.len() - from.len()), "", 1);
    for (from, to) in [(" body=", " seal=yes body="), (" orig=", " mark=never orig="), (" orig=", " mark=<x@y> orig=")]
    {
        assert_eq!(read(edit(from, to).as_bytes()), Err(UNKNOWN), "{to}");
    }
}

#[test]
fn damage_to_what_is_known_is_not_a_later_version() {
    let text = queued(&envelope(5));
    for (from, to) in [
        ("penfold/1 ", "penfold/1x"),
        ("penfold/1 ", "penfold/q "),
        (" body=8bit", " body=8bjt"),
        (" body=8bit", " body 8bit"),
        (" body=8bit", " Body=8bit"),
        (" body=8bit", " body=<>  "),
        (" origin=report", " origin=repnrt"),
        (" from=<", " from=x"),
        (" to=<", " to=x"),
        (" orig=<", " orig=x"),
        (" do=direct", " do=directly"),
        (" from=", " ret=some from="),
        (" from=", " utf=no from="),
        (" from=", " utf=yes utf=yes from="),
        (" from=", " envid= from="),
        (" from=", " by=5 from="),
        (" from=", " by=5:X from="),
        (" from=", " priority=0 from="),
        (" from=", " priority=10 from="),
        (" from=", " release=soon from="),
        (" from=", " release=7:soon from="),
        (" orig=", " notify=ever orig="),
        (" orig=", " orcpt=<x@y> orig="),
        (" orig=", " orcpt=a orcpt=a orig="),
        (" do=direct", " do=<x@y> "),
        (" do=direct", " may=-1   "),
        (" do=direct", " may=<x@y>"),
        (" do=expand", " as=jon   "),
        (" do=expand   ", " do=expand do=expand"),
        ("\nT ", "\nX "),
    ] {
        assert!(text.contains(from), "{from}");
        let damaged = text.replacen(from, to, 1).replacen(&" ".repeat(to.len().saturating_sub(from.len())), "", 1);
        assert!(matches!(read(damaged.as_bytes()), Err(Corrupt(_))), "{to}: {:?}", read(damaged.as_bytes()));
    }
}

#[test]
fn a_record_can_be_read_back() {
    for state in [
        State::Todo,
        State::Prepared { born: u64::MAX, inode: 1 },
        State::Reported { lead: 12, event: ReportedEvent::Failure },
        State::Reported { lead: 12, event: ReportedEvent::Success(Success::Expanded) },
        State::Reported { lead: 12, event: ReportedEvent::Delay },
        State::Forwarded { success: None },
        State::Forwarded { success: Some(Success::Expanded) },
        State::Unreported(Success::Delivered),
        State::Unreported(Success::Relayed),
        State::Done,
        State::Failed,
    ] {
        let record = DeliveryState { state, last: 1_795_000_000, warned: 7 };
        assert_eq!(DeliveryState::decode(&record.encode()), Ok(record));
    }
    for (state, number) in [("R", "0000000000000001 0000000000000005"), ("C", "0000000000000004 0000000000000000")] {
        let text = format!("{state} 0000000001 0000000000 {number} ");
        assert!(DeliveryState::decode(text.as_bytes()).is_err(), "{text}");
    }
    assert!(DeliveryState::decode(format!("S {0:010} {0:010} {0:016} {0:016} ", 0).as_bytes()).is_err());
}

#[test]
fn a_direct_head_can_be_read_back() {
    let address = Address::parse("jon+x@razorback").expect("an address");
    for sender in [None, Some(&address)] {
        let text = direct(sender, &address) + "Received: x\n\nhello\n";
        let head = read(text.as_bytes()).expect("a head");
        assert!(head.direct);
        assert_eq!((head.sender.as_ref(), &head.recipients[0].recipient.address), (sender, &address));
        assert_eq!(&text[head.content as usize..], "Received: x\n\nhello\n");
    }
}

#[test]
fn a_corrupt_head_is_an_error_and_never_a_panic() {
    let good = queued(&envelope(3)).into_bytes();
    for cut in 0..good.len() {
        assert!(read(&good[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x15;
        let _ = read(&bytes);
    }
    for version in ["penfold/2", "penfold/12"] {
        let text = queued(&envelope(3)).replace("penfold/1", version);
        assert!(matches!(read(text.as_bytes()), Err(Later(_))), "{text}");
    }
    for text in ["", "penfold/2 head=0000000001", "penfold/1 head=9999999999", "Return-Path: <>\n", "From x\n"] {
        assert!(read(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn the_measure_follows_the_length_of_the_head() {
    for (size, is_ascii, word) in
        [(0, true, "head=0000000257:000000000000:7bit "), (u64::MAX, false, ":18446744073709551615:8bit ")]
    {
        let measure = Some(Measure { size, is_ascii, has_long_lines: !is_ascii });
        let text = super::queued(&envelope(1), Marks::default(), measure, 0);
        assert!(text.contains(word), "{text}");
        assert_eq!(read(text.as_bytes()).expect("a head").measure, measure);
        assert_eq!(length(text.as_bytes()), Ok(text.len() as u64));
    }
    let text = super::queued(
        &envelope(1),
        Marks::default(),
        Some(Measure { size: 1, is_ascii: true, has_long_lines: false }),
        0,
    );
    for odd in [":000000000001", ":00000000000x:7bit", ":000000000001:6bit", ":000000000001:7bit:x"] {
        assert_eq!(read(text.replace(":000000000001:7bit", odd).as_bytes()), Err(MALFORMED), "{odd}");
    }
}

#[test]
fn a_head_is_padded_to_any_length_and_no_record_moves() {
    for count in [1, 3] {
        let plain = read(queued(&envelope(count)).as_bytes()).expect("a head");
        for more in [0, 1, 63, 64, 5000] {
            let text = super::queued(&envelope(count), Marks::default(), None, plain.content as usize + more);
            let head = read(text.as_bytes()).expect("a head");
            assert_eq!((text.len(), head.content), (plain.content as usize + more, text.len() as u64));
            assert_eq!(head.recipients, plain.recipients);
        }
        assert_eq!(super::queued(&envelope(count), Marks::default(), None, 1), queued(&envelope(count)));
    }
}
