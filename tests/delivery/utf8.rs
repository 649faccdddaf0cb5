//! Addresses outside ASCII (RFC 6531): users, aliases, commands, files, lists, sendmail(8), and what
//! comes back from a host without SMTPUTF8.

use std::fs;

use common::Site;
use common::programs::{code_and_text, sendmail};
use common::remote::{Remote, Sink};

#[test]
fn addresses_outside_ascii_lead_everywhere() {
    let site = Site::with("local.domains = [\"razorback\", \"b\u{fc}cher.example\"]");
    let dir = site.path("mail").display().to_string();
    let aliases = "gr\u{fc}\u{df}e: jon\nbefehl\u{fc}: \"|env >{}/env.new; mv {}/env.new {}/env\"\n\
        k\u{e4}sten: {}/k\u{e4}sten\nliste: :include:{}/liste, root\nb\u{fc}ro: :include:{}/liste, root\n\
        an\u{3b1}: \\jo\u{308}rg\n";
    site.write("aliases", &aliases.replace("{}", &dir));
    site.write("mail/liste", "J\u{f6}rg <J\u{d6}RG@b\u{fc}cher.example>, d\u{f6}rte@far.test, ann@far.test\n");
    site.add("users", "j\u{f6}rg::");
    site.add("virtual", "\u{7528}\u{6237}@xn--bcher-kva.example j\u{f6}rg");
    let far = Remote::with(Sink { keywords: vec!["8BITMIME".into()], ..Sink::default() });
    site.add("routes", &format!("far.test {}", far.host_port()));
    let daemon = site.start();
    // sendmail takes addresses from the command line and from the header.
    let text = "From: \u{e4}nn@razorback\nTo: J\u{f6}rg <j\u{f6}rg@b\u{fc}cher.example>,\n gr\u{fc}\u{df}e, befehl\u{fc}\n\
        Cc: k\u{e4}sten@razorback, an\u{3b1}\nBcc: \u{7528}\u{6237}@b\u{fc}cher.example\n\nhello\n";
    let sent = sendmail(&site, &["-t", "-f", "\u{e4}nn@razorback"], text.as_bytes());
    assert_eq!(code_and_text(&sent), (0, String::new()), "{}", daemon.log());
    let text_of = |mail: &[u8]| String::from_utf8(mail.to_vec()).expect("UTF-8");
    // Three addresses lead to this user: in UTF-8, in another normalization form, and by the virtual
    // table.
    let mails = daemon.wait_mail(&site, "j\u{f6}rg", 3);
    for mail in mails.iter().map(|mail| text_of(mail)) {
        assert!(mail.starts_with("Return-Path: <\u{e4}nn@razorback>\nDelivered-To: j"), "{mail}");
        assert!(mail.contains("From: \u{e4}nn@razorback\n") && !mail.contains("Bcc"), "{mail}");
    }
    assert!(text_of(&daemon.wait_mail(&site, "jon", 1)[0]).contains("Delivered-To: jon@razorback\n"));
    daemon.wait_until("a command", || site.path("mail/env").exists());
    let environment = fs::read_to_string(site.path("mail/env")).expect("text");
    for line in ["SENDER=\u{e4}nn@razorback", "RECIPIENT=befehl\u{fc}@razorback", "LOCAL=befehl\u{fc}"] {
        assert!(environment.lines().any(|found| found == line), "{line}: {environment}");
    }
    daemon
        .wait_until("a file", || fs::read_to_string(site.path("mail/k\u{e4}sten")).is_ok_and(|t| t.contains("hello")));
    daemon.wait_words(&["sent to=\"<k\u{e4}sten@razorback>\"", "via=mbox"]);
    assert!(daemon.settles(&site), "{}", daemon.log());
    // Only the members of a list that need SMTPUTF8 fail at a host without it.
    let sent = sendmail(&site, &["-f", "jon@razorback", "liste"], b"Subject: x\n\nlist\n");
    assert_eq!(code_and_text(&sent), (0, String::new()), "{}", daemon.log());
    daemon.wait_words(&["failed to=\"<d\u{f6}rte@far.test>\"", "dsn=5.6.7"]);
    assert!(daemon.settles(&site), "{}", daemon.log());
    assert_eq!(far.messages(1)[0].recipients, ["<ann@far.test>"]);
    assert_eq!((site.mail("j\u{f6}rg").len(), site.mail("jon").len()), (4, 2));
    // The name of the list does not make the header need SMTPUTF8.
    let sent = sendmail(&site, &["-f", "jon@razorback", "b\u{fc}ro"], b"Subject: x\n\nlist\n");
    assert_eq!(code_and_text(&sent), (0, String::new()), "{}", daemon.log());
    assert!(daemon.settles(&site), "{}", daemon.log());
    let sent = text_of(&far.messages(2)[1].data);
    assert!(sent.starts_with("Delivered-To: b\\x{FC}ro@razorback\r\n"), "{sent}");
    assert_eq!((site.mail("j\u{f6}rg").len(), site.mail("jon").len()), (5, 3));
}
