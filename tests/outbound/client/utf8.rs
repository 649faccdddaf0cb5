//! SMTPUTF8 as a client: messages that need it, at hosts that offer it and at hosts that do not.

use super::*;

const ADDRESS: &str = "5.6.7";
const HEADER: &str = "5.6.9";

/// A message that needs SMTPUTF8 gets it where it is offered. Elsewhere the recipients that need it
/// fail, and the others get the message without it. The domain of an address is an A-label.
#[test]
fn what_a_host_without_smtputf8_gets() {
    let (ascii, utf8) = ("Subject: x\n\nhello\n", "Subject: gr\u{fc}n\n\nhello\n");
    let body = "Subject: x\n\ngr\u{fc}n\n";
    // Whether the client gave SMTPUTF8, the sender, the message and the recipients; then what a host
    // without SMTPUTF8 gets, and the status of each recipient there.
    for (given, sender, text, recipients, mail, statuses) in [
        (true, "ann@b\u{fc}cher.example", ascii, "jon@b\u{fc}cher.example", "<ann@xn--bcher-kva.example>", "2.0.0"),
        (true, "ann@x.test", body, "jon@x.test", "<ann@x.test> BODY=8BITMIME", "2.0.0"),
        (true, "ann@x.test", ascii, "j\u{f6}n@x.test jon@x.test", "<ann@x.test>", "5.6.7 2.0.0"),
        (false, "ann@x.test", utf8, "jon@x.test j\u{f6}n@x.test", "<ann@x.test> BODY=8BITMIME", "2.0.0 5.6.7"),
        (false, "ann@x.test", utf8, "jon@x.test", "<ann@x.test> BODY=8BITMIME", "2.0.0"),
        (true, "ann@x.test", utf8, "jon@x.test jack@x.test", "", "5.6.9 5.6.9"),
        (true, "\u{e4}nn@x.test", ascii, "jon@x.test", "", ADDRESS),
        (true, "ann@x.test", utf8, "jon@x.test", "", HEADER),
    ] {
        let recipients: Vec<_> = recipients.split(' ').collect();
        for offers in [false, true] {
            let words: &[&str] = if offers { &["PIPELINING", "8BITMIME", "SMTPUTF8"] } else { &["8BITMIME"] };
            let remote = Remote::with(Sink { keywords: keywords(words), ..Sink::default() });
            let mut client = Sender { text: text.into(), utf8: given, sender: sender.to_owned(), ..Sender::new() };
            let outcomes = client.send_to(&host(remote.address), &recipients);
            client.remote.close();
            let found: Vec<_> = outcomes.iter().map(|outcome| outcome.status.to_string()).collect();
            let commands = remote.look(|seen| seen.commands.clone());
            let mails: Vec<_> = commands.iter().filter_map(|c| c.line.strip_prefix("MAIL FROM:")).collect();
            let what = format!("{given} {sender} {text:?} {recipients:?} {offers}: {commands:?}");
            if offers {
                assert!(found.iter().all(|status| status.starts_with('2')), "{found:?} {what}");
                let is_needed = given || !recipients.join("").is_ascii();
                assert_eq!((mails.len(), mails[0].contains(" SMTPUTF8")), (1, is_needed), "{what}");
                assert!(
                    commands.iter().any(|c| c.line.contains(&recipients[0].replace("b\u{fc}cher", "xn--bcher-kva"))),
                    "{what}"
                );
            } else {
                let is_as_wanted =
                    |(found, want): (&String, &str)| found == want || found.starts_with('2') && want.starts_with('2');
                assert!(
                    found.len() == recipients.len() && found.iter().zip(statuses.split(' ')).all(is_as_wanted),
                    "{found:?} {what}"
                );
                assert_eq!(mails.join(" "), mail, "{what}");
                assert!(commands.iter().all(|c| c.line.is_ascii()), "{what}");
            }
        }
    }
}

/// SMTPUTF8 includes 8BITMIME, also at a host that does not list it. BODY is not sent there.
#[test]
fn a_host_with_smtputf8_takes_eight_bit() {
    let remote = Remote::with(Sink { keywords: keywords(&["SMTPUTF8"]), ..Sink::default() });
    let text = "From: gr\u{fc}n <ann@x.test>\n\ngr\u{fc}n\n";
    let mut client = Sender { text: text.into(), utf8: true, ..Sender::new() };
    let outcome = client.send_one(&host(remote.address));
    assert_eq!(outcome.fate, Delivered, "{outcome:?}");
    assert_eq!(remote.messages(1)[0].data, text.replace('\n', "\r\n").as_bytes());
    let line = remote.look(|seen| seen.commands[1].line.clone());
    assert!(line.ends_with("> SMTPUTF8"), "{line}");
}

/// A host of a destination may offer SMTPUTF8 although another one does not.
#[test]
fn another_host_with_smtputf8_is_tried() {
    let without = Remote::with(Sink { keywords: keywords(&["8BITMIME"]), ..Sink::default() });
    let with = Remote::with(Sink { keywords: keywords(&["8BITMIME", "SMTPUTF8"]), ..Sink::default() });
    let mut client = Sender { utf8: true, ..Sender::new() };
    let outcomes = client.send_to(&hosts(&[without.address, with.address]), &["j\u{f6}n@x.test", "jon@x.test"]);
    assert!(outcomes.iter().all(|outcome| outcome.fate == Delivered), "{outcomes:?}");
    let recipients = [&without, &with].map(|remote| remote.messages(1)[0].recipients.join(" "));
    assert_eq!(recipients, ["<jon@x.test>", "<j\u{f6}n@x.test>"]);
}
