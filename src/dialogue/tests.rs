//! Tests the lines of dialogues, and their form in a file.

use super::*;

fn address(text: &str) -> Address {
    Address::parse(text).expect(text)
}

fn reply(text: &str) -> crate::reply::Reply {
    crate::reply::Reply::read_all(text.as_bytes()).expect(text)
}

/// The lines of a dialogue, with their marks and the recipients that they are about.
fn shown(dialogue: &Dialogue) -> Vec<String> {
    let about = |line: &Line| dialogue.recipient_of(line).map(|to| format!("[{to}] ")).unwrap_or_default();
    dialogue.lines.iter().map(|line| format!("{}{}{}", about(line), line.kind.mark(), line.text)).collect()
}

fn two_recipients() -> Dialogue {
    let recorder = Recorder::default();
    recorder.host("old.test[192.0.2.9]:25");
    recorder.begin();
    recorder.host("mx1.test[192.0.2.1]:25");
    recorder.remark("timed out while connecting");
    recorder.host("mx2.test[192.0.2.2]:25");
    recorder.reply(&reply("220 mx2.test\r\n"));
    recorder.command("EHLO a.test\r\n", None);
    recorder.reply(&reply("250-mx2.test\r\n250 PIPELINING\r\n"));
    // With PIPELINING the replies come after all commands.
    recorder.command("MAIL FROM:<ann@a.test>\r\n", None);
    recorder.command("RCPT TO:<jon@x.test>\r\n", Some(&address("jon@x.test")));
    recorder.command("RCPT TO:<bob@x.test>\r\n", Some(&address("bob@x.test")));
    recorder.command("DATA\r\n", None);
    recorder.reply(&reply("250 2.1.0 ok\r\n"));
    recorder.reply(&reply("250 2.1.5 ok\r\n"));
    recorder.reply(&reply("550 5.1.1 no \u{1b}[2Jbob\r\n"));
    recorder.remark("the connection was lost; see /var/spool/x");
    recorder.take("mx:x.test".to_owned(), 1_795_255_200)
}

#[test]
fn a_reply_follows_its_command_and_an_unanswered_command_is_shown() {
    assert_eq!(
        shown(&two_recipients()),
        [
            "mx1.test[192.0.2.1]:25",
            "timed out while connecting",
            "mx2.test[192.0.2.2]:25",
            "<- 220 mx2.test",
            "-> EHLO a.test",
            "<- 250-mx2.test",
            "<- 250 PIPELINING",
            "-> MAIL FROM:<ann@a.test>",
            "<- 250 2.1.0 ok",
            "[jon@x.test] -> RCPT TO:<jon@x.test>",
            "[jon@x.test] <- 250 2.1.5 ok",
            "[bob@x.test] -> RCPT TO:<bob@x.test>",
            "[bob@x.test] <- 550 5.1.1 no ?[2Jbob",
            "-> DATA",
            "the connection was lost; see /var/spool/x",
        ]
    );
}

#[test]
fn a_sender_sees_no_lines_about_other_recipients_and_no_names_of_files() {
    let dialogue = two_recipients();
    let name = |host: &str| host.split_once('[').map(|(name, _)| name.to_owned());
    assert_eq!(
        dialogue.lines_of(&address("bob@x.test"), name),
        [
            "mx2.test",
            "-> MAIL FROM:<...>",
            "<- 250 2.1.0 ok",
            "-> RCPT TO:<bob@x.test>",
            "<- 550 5.1.1 no ?[2Jbob",
            "-> DATA"
        ]
    );
    // A recipient for whom there was no command gets the last host.
    let lines = dialogue.lines_of(&address("eve@x.test"), name);
    assert_eq!((lines.len(), lines.iter().any(|line| line.contains("jon") || line.contains("bob"))), (8, false));
    assert_eq!(dialogue.lines_of(&address("bob@x.test"), |_| None), Vec::<String>::new());
    assert_eq!(Dialogue::default().lines_of(&address("bob@x.test"), name), Vec::<String>::new());
}

#[test]
fn a_file_has_the_last_dialogue_of_each_destination() {
    let dialogue = two_recipients();
    let other = Dialogue { destination: "mx:y.test".into(), ..dialogue.clone() };
    let later = Dialogue { time: 1_795_258_800, ..dialogue.clone() };
    let mut file = String::new();
    for added in [&dialogue, &other, &later] {
        file = add(&file, added);
    }
    let read = read(&file);
    assert_eq!(
        read.iter().map(|d| (d.time, &*d.destination)).collect::<Vec<_>>(),
        [(1_795_255_200, "mx:y.test"), (1_795_258_800, "mx:x.test")]
    );
    assert_eq!([shown(&read[0]), shown(&read[1])], [shown(&dialogue), shown(&dialogue)]);
}

#[test]
fn dialogues_are_bounded_and_refusals_stay() {
    let recorder = Recorder::default();
    recorder.begin();
    recorder.host("mx.test[192.0.2.1]:25");
    for number in 0..5000 {
        let to = address(&format!("recipient-{number:04}@x.test"));
        recorder.command(&format!("RCPT TO:<{to}>\r\n"), Some(&to));
        recorder.reply(&reply(if number == 7 { "550 5.1.1 unknown\r\n" } else { "250 2.1.5 ok\r\n" }));
    }
    let dialogue = recorder.take("mx:x.test".to_owned(), 0);
    let size = dialogue.lines.iter().map(|line| line.text.len()).sum::<usize>();
    assert!(size < 50 << 10, "{size}");
    let shown = shown(&dialogue);
    assert!(shown[0].ends_with("lines are left out") && shown[1].starts_with("mx.test["), "{:?}", &shown[..3]);
    assert!(shown.iter().any(|line| line.contains("550 5.1.1")), "{:?}", &shown[..5]);
    let mut file = String::new();
    for number in 0..9 {
        file = add(&file, &Dialogue { destination: format!("mx:{number}.test"), ..dialogue.clone() });
        assert!(file.len() as u64 <= MAX_FILE, "{}", file.len());
    }
    let read = read(&file);
    assert!((1..9).contains(&read.len()) && read.last().is_some_and(|last| last.destination == "mx:8.test"));
    assert!(read[0].lines.len() > 20, "{}", read[0].lines.len());
    // A long line is cut between characters.
    assert_eq!(plain(&"\u{f6}".repeat(400)).len(), 240);
}

#[test]
fn any_text_can_be_read() {
    for text in
        ["", "@", "@ ", "@x y\n=\n> \n>9 z\n<x y\n? z\n>", "> lost", "\u{0}@1 x\n> \u{9b}2J\n", "@1 x\n>4294967296 y"]
    {
        for dialogue in read(text) {
            let lines = dialogue.lines_of(&address("a@x.test"), |name| Some(name.to_owned()));
            assert!(!lines.concat().contains(char::is_control), "{text:?}");
            assert_eq!(read(&add("", &dialogue)).len(), 1, "{text:?}");
        }
    }
}
