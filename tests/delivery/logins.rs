//! Accounts that several tables `[[domain]]` share: which addresses are a user's own, and which limits the
//! user has.

use common::Site;
use common::dovecot::stand_in;

use super::domains::{CRYPT, PENCIL, SUBMISSION, check_logins, login};

/// A site whose users files have accounts for the users of other places. The user jon of the file `users` is
/// also that of c.test and g.test, where g.test has mailboxes in a users file of others.
fn site_with_shared_accounts() -> Site {
    let mut site = Site::with(SUBMISSION);
    let file = |name: &str| format!("\"file:{}\"", site.path(name).display());
    let (users, first, second, others) = (file("users"), file("first"), file("second"), file("others"));
    let any = "\"any\"".to_owned();
    for (number, names, users, auth) in [
        (1, "[\"a.test\", \"b.test\"]", &any, &first),
        (2, "[\"c.test\"]", &any, &users),
        (3, "[\"d.test\"]", &second, &second),
        (4, "[\"e.test\"]", &second, &second),
        (5, "[\"g.test\"]", &others, &users),
        (6, "[\"h.test\"]", &any, &second),
    ] {
        let section = format!("domain#{number}");
        for (key, value) in [("names", names), ("users", users), ("auth", auth), ("mailbox", "\"lmtp:/nonexistent\"")] {
            site.set(&section, key, value);
        }
    }
    site.write("users", &format!("jon:{PENCIL}:\nroot::\n"));
    site.write("first", &format!("jon:{CRYPT}:\nann:{CRYPT}:\nann@b.test:{PENCIL}:\n"));
    site.write("second", &format!("jon:{CRYPT}:\nsue@h.test:{PENCIL}:\n"));
    site.write("others", &format!("jon:{CRYPT}:\n"));
    site
}

/// Which addresses are a user's own is what the accounts say, wherever the mailboxes are.
#[test]
fn users_may_send_from_each_address_with_which_they_can_log_in() {
    let site = site_with_shared_accounts();
    site.write("senders", "jon info@razorback\njon@e.test news@e.test\nsue *\n");
    let daemon = site.start();
    let first: &[&str] = &["jon@a.test", "jon@b.test", "jon+x@b.test"];
    let second: &[&str] = &["jon@d.test", "jon@e.test", "jon@h.test", "news@e.test"];
    let local: &[&str] = &["jon@razorback", "jon@razorback.test", "jon@c.test", "info@razorback"];
    // The jon of the file `others` is another person than the one who may log in for that domain.
    let strangers: &[&str] = &["jon@g.test", "jon@b.test", "jon@e.test", "ann@c.test"];
    check_logins(
        &daemon,
        &[
            ("jon@a.test", "password", first, local),
            ("jon@b.test", "password", first, second),
            ("jon@d.test", "password", second, first),
            ("jon@e.test", "password", second, local),
            ("jon@h.test", "password", second, &["sue@h.test"]),
            ("jon", "pencil", local, strangers),
            ("jon@c.test", "pencil", local, strangers),
            ("jon@g.test", "pencil", &["jon@g.test", "jon+x@g.test"], local),
            // Two lines have the name ann, so each of its addresses is another user's.
            ("ann@a.test", "password", &["ann@a.test"], &["ann@b.test", "jon@a.test"]),
            ("ann@b.test", "pencil", &["ann@b.test"], &["ann@a.test"]),
            ("sue@h.test", "pencil", &["sue@h.test"], &["sue@d.test"]),
            ("sue@d.test", "pencil", &[], &[]),
        ],
    );
    daemon.wait_log(|line| line.contains(" auth user=jon@g.test "));
    // An explanation is about the account that the name leads to.
    for (name, account, sender) in [
        ("jon@b.test", "jon@a.test", "jon@b.test"),
        ("jon@e.test", "jon@d.test", "jon@h.test"),
        ("Jon@C.test", "jon", "jon@razorback"),
        ("ann", "ann", ""),
    ] {
        let arguments = ["explain", "--no-dns", "--login", name, "--from", sender, "jon@razorback"];
        let explained = site.penfoldctl(&arguments);
        match sender {
            "" => assert!(explained.contains("there is no account ann that can log in"), "{explained}"),
            _ => assert!(explained.contains(&format!("{account} may send from <{sender}>")), "{explained}"),
        }
    }
}

/// A user of several tables is one account, with one count and one limit.
#[test]
fn a_limit_that_is_not_that_of_the_account_has_a_warning() {
    let mut site = site_with_shared_accounts();
    for (section, key) in [
        ("domain#1", "messages_per_hour"),
        ("domain#2", "messages_per_hour"),
        ("domain#4", "recipients_per_hour"),
        ("domain#5", "messages_per_hour"),
        ("domain#6", "messages_per_hour"),
    ] {
        site.set(section, key, "2");
    }
    let warnings = |site: &Site| {
        let output = site.penfoldd(&["-n"]).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let about = text.lines().filter_map(|line| Some(line[line.find(": domain.")? + 2..].to_owned()));
        about.filter(|line| line.contains("_per_hour")).collect::<Vec<_>>()
    };
    let text = |key: &str, first: &str| {
        format!("domain.{key} has no effect on users whose line has no domain: they have the limit of {first}")
    };
    let second = [text("recipients_per_hour", "d.test"), text("messages_per_hour", "d.test")];
    assert_eq!(warnings(&site), [[text("messages_per_hour", "razorback")].as_slice(), &second].concat());
    let daemon = site.start();
    let mut client = login(&daemon, "PLAIN", "jon@c.test", "pencil").expect("an account");
    for _ in 0..3 {
        client.ask("MAIL FROM:<jon@c.test>", "250 ");
        client.ask("RSET", "250 ");
    }
    // Where each line has a domain, the limits of each domain apply.
    site.write("users", &format!("jon@c.test:{PENCIL}:\nroot@razorback::\n"));
    assert_eq!(warnings(&site), second);
    let mut client = login(&daemon, "PLAIN", "jon@c.test", "pencil").expect("an account");
    for reply in ["250 ", "250 ", "450 4.7.1 Your limit of 2 messages"] {
        client.ask("MAIL FROM:<jon@c.test>", reply);
        client.ask("RSET", "250 ");
    }
}

/// Two tables with the same Dovecot have the same accounts: it may name a user of the other one.
#[test]
fn two_tables_can_have_the_same_dovecot() {
    for (name, reply) in [("amy@near.test", "235 "), ("amy@far.test", "235 "), ("amy@else.test", "454 4.7.0")] {
        let mut site = Site::with(SUBMISSION);
        stand_in(&site.path("auth-client"), &format!("VERSION\t1\t2\nMECH\tPLAIN\nDONE\nOK\t1\tuser={name}\n"));
        let dovecot = format!("\"dovecot:{}\"", site.path("auth-client").display());
        for (section, names) in [("domain#1", "[\"far.test\"]"), ("domain#2", "[\"near.test\"]")] {
            site.set(section, "names", names);
            site.set(section, "auth", &dovecot);
        }
        // The tables have other users.
        site.set("domain#2", "users", "\"any\"");
        site.set("domain#2", "mailbox", "\"lmtp:/nonexistent\"");
        let daemon = site.start();
        let response = data_encoding::BASE64.encode(b"\0amy@far.test\0paper");
        let mut client = daemon.greeted();
        client.ask(&format!("AUTH PLAIN {response}"), reply);
        if reply == "235 " {
            client.ask(&format!("MAIL FROM:<{name}>"), "250 ");
        }
        // An explanation completes the name, as the daemon does before it asks Dovecot.
        let explained = site.penfoldctl(&["explain", "--no-dns", "--login", "Amy@Far.test", "jon@razorback"]);
        assert!(explained.contains("amy@far.test may send from <amy@far.test>"), "{explained}");
    }
}
