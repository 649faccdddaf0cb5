//! penfold-smtp(7): each line of the table of wrong input is tried.

use std::collections::BTreeSet;

use common::client::Client;
use common::{Daemon, Site, pages};
use penfold::envelope::{MAX_ENVID, MAX_ORCPT};

/// The lines of the table in a subsection of the page, without its heading.
fn lines(subsection: &str) -> Vec<Vec<String>> {
    let page = pages::page("penfold-smtp.7");
    let (_, rest) = page.split_once(&format!("\n.Ss {subsection}\n")).expect(subsection);
    let (_, table) = rest.split_once(".Bl -column").expect("a table");
    let (table, _) = table.split_once("\n.El\n").expect("its end");
    let lines = table.lines().skip(2).map(|line| line.strip_prefix(".It ").expect("a line"));
    lines.map(|line| line.split(" Ta ").map(str::to_owned).collect()).collect()
}

/// Where a line of the table is tried.
#[derive(Clone, Copy)]
enum Place {
    Smtp,
    /// The client may not relay, and some extensions are withheld.
    Stranger,
    Lmtp,
}

use Place::{Lmtp, Smtp, Stranger};

const MAIL: &str = "MAIL FROM:<a@b.example>";
const BINARY: &str = "MAIL FROM:<a@b.example> BODY=BINARYMIME";
const RCPT: &str = "RCPT TO:<jon@razorback>";
/// A chunk with its octets.
const CHUNK: &str = "BDAT 6\r\nA: b";

/// The input of each line of the table: its place, the commands before it, and examples.
fn examples() -> Vec<(&'static str, Place, &'static [&'static str], Vec<String>)> {
    let lines = |examples: &[&str]| examples.iter().map(|line| format!("{line}\r\n")).collect::<Vec<_>>();
    let mail = |parameters: &[&str]| parameters.iter().map(|last| format!("{MAIL} {last}\r\n")).collect::<Vec<_>>();
    let rcpt = |parameters: &[&str]| parameters.iter().map(|last| format!("{RCPT} {last}\r\n")).collect::<Vec<_>>();
    let (envid, orcpt) = ("x".repeat(MAX_ENVID + 1), "x".repeat(MAX_ORCPT));
    vec![
        ("an unknown command", Smtp, &[], lines(&["WHAT"])),
        ("a command that smtp.disable withholds", Stranger, &[], lines(&["VRFY jon"])),
        ("a command out of order", Smtp, &[], lines(&[RCPT, "DATA"])),
        ("a bare CR or LF in a command", Smtp, &[], vec!["NOOP\rQUIT\r\n".into(), "NOOP\n".into()]),
        ("a command line of more than 2048 octets", Smtp, &[], lines(&[&format!("NOOP {}", "x".repeat(2042))])),
        ("LHLO by SMTP", Smtp, &[MAIL], lines(&["LHLO x"])),
        ("HELO or EHLO by LMTP", Lmtp, &[MAIL], lines(&["HELO x", "EHLO x"])),
        ("RCPT by LMTP for another host", Lmtp, &[MAIL], lines(&["RCPT TO:<a@b.example>"])),
        ("ETRN by a stranger", Stranger, &[], lines(&["ETRN site.example"])),
        ("ETRN with a malformed argument", Stranger, &[], lines(&["ETRN", "ETRN @"])),
        ("MAIL with an unknown parameter", Smtp, &[], mail(&["COLOR=red"])),
        ("MAIL with a parameter that is not offered", Stranger, &[], mail(&["RET=FULL", "HOLDFOR=9"])),
        ("MAIL with REQUIRETLS, without TLS", Smtp, &[], mail(&["REQUIRETLS"])),
        ("RCPT with a parameter that is not offered", Stranger, &[MAIL], rcpt(&["NOTIFY=NEVER", "ORCPT=rfc822;x"])),
        ("a parameter that is given twice", Smtp, &[], mail(&["SIZE=1 SIZE=1", "RET=FULL ret=FULL"])),
        (
            "malformed SIZE, BODY, RET, BY, MT-PRIORITY",
            Smtp,
            &[],
            mail(&["SIZE=x", "BODY=9BIT", "RET=ALL", "BY=60", "MT-PRIORITY=10"]),
        ),
        ("BODY=BINARYMIME where it is not offered", Stranger, &[], lines(&[BINARY])),
        ("ENVID that is not xtext, or is too long", Smtp, &[], mail(&["ENVID=a+2", &format!("ENVID={envid}")])),
        ("malformed NOTIFY", Smtp, &[MAIL], rcpt(&["NOTIFY=ALL", "NOTIFY=NEVER,DELAY"])),
        (
            "ORCPT that is not xtext, or is too long",
            Smtp,
            &[MAIL],
            rcpt(&["ORCPT=rfc822;a+2", &format!("ORCPT=rfc822;{orcpt}")]),
        ),
        ("SIZE above the limit", Smtp, &[], mail(&["SIZE=70000"])),
        ("MAIL with a malformed address", Smtp, &[], lines(&["MAIL FROM:<a@@b.example>"])),
        ("RCPT with a malformed address", Smtp, &[MAIL], lines(&["RCPT TO:<a@@b.example>"])),
        ("an address outside ASCII without SMTPUTF8", Smtp, &[], lines(&["MAIL FROM:<\u{fc}@b.example>"])),
        (
            "MAIL with a U-label that IDNA refuses",
            Smtp,
            &[],
            lines(&["MAIL FROM:<a@\u{301}b.example> SMTPUTF8", "MAIL FROM:<a@\u{fc}.xn--a> SMTPUTF8"]),
        ),
        ("BDAT without a valid size", Smtp, &[MAIL, RCPT], lines(&["BDAT", "BDAT -1", "BDAT 5 FIRST"])),
        ("BDAT where CHUNKING is not offered", Stranger, &[MAIL, RCPT], lines(&["BDAT 6 LAST\r\nQUIT"])),
        ("BDAT before RCPT", Smtp, &[MAIL], lines(&["BDAT 6\r\nQUIT", "BDAT 6 LAST\r\nQUIT"])),
        ("BDAT after the last chunk", Smtp, &[MAIL, RCPT, "BDAT 6 LAST\r\nA: b"], lines(&["BDAT 6 LAST\r\nQUIT"])),
        ("RCPT, DATA or MAIL between two chunks", Smtp, &[MAIL, RCPT, CHUNK], lines(&[RCPT, "DATA", MAIL])),
        ("DATA after BODY=BINARYMIME", Smtp, &[BINARY, RCPT], lines(&["DATA"])),
        ("BDAT 0 LAST as the only chunk", Smtp, &[MAIL, RCPT], lines(&["BDAT 0 LAST"])),
        ("a last chunk that does not come", Smtp, &[MAIL, RCPT, CHUNK], vec![String::new()]),
        (
            "a message with a bare CR or LF, or a NUL",
            Smtp,
            &[MAIL, RCPT],
            lines(&["BDAT 6 LAST\r\na\rb\n", "BDAT 6 LAST\r\na\nbc", "BDAT 6 LAST\r\na\0bc"]),
        ),
        ("a binary message whose header is not text", Smtp, &[BINARY, RCPT], lines(&["BDAT 8 LAST\r\nword\r\n"])),
        (
            "a message above the limit",
            Smtp,
            &[MAIL, RCPT],
            lines(&[&format!("BDAT 70000 LAST\r\n{}", "x".repeat(69998))]),
        ),
    ]
}

/// Sends the commands and the input. Then the session either ends or takes another command.
fn try_input(daemon: &Daemon, hello: &str, before: &[&str], input: &str, reply: &str, ends: bool) {
    let mut client = Client::before_banner(daemon.connect());
    client.expect("220 ");
    client.send_text(&format!("{hello} client.example\r\n"));
    while client.expect("250").starts_with("250-") {}
    before.iter().for_each(|line| _ = client.ask(line, "250 "));
    client.send_bytes(input.as_bytes());
    let got = client.read_line().unwrap_or_default();
    assert!(got.starts_with(&format!("{reply} ")), "{input:.80?}: {got}, and not {reply}");
    if ends { client.expect_end() } else { _ = client.ask("NOOP", "250 ") }
}

#[test]
fn each_line_of_the_table_of_wrong_input_holds() {
    let mut smtp = Site::with("limits.message_size = \"64K\"");
    smtp.set("limits", "data_timeout", "\"1s\"");
    let mut stranger = Site::with("relay.networks = []\nrelay.etrn = [\"site.example\"]");
    stranger.set("smtp", "disable", "[\"CHUNKING\", \"DSN\", \"VRFY\"]");
    let mut lmtp = Site::with("");
    lmtp.set("listen", "kind", "\"lmtp\"");
    let daemons = [smtp.start(), stranger.start(), lmtp.start()];
    let table = lines("Wrong input");
    let examples = examples();
    let told: BTreeSet<&str> = table.iter().map(|line| line[1].as_str()).collect();
    assert_eq!(told, examples.iter().map(|(input, ..)| *input).collect());
    for (what, place, before, inputs) in examples {
        let line = table.iter().find(|line| line[1] == what).expect(what);
        let hello = if matches!(place, Lmtp) { "LHLO" } else { "EHLO" };
        for input in inputs {
            let daemon = &daemons[place as usize];
            try_input(daemon, hello, before, &input, &line[0], line[2] == "session ends");
        }
    }
}
