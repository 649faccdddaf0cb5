//! System users, a users file and the users of a mail store beside each other: RCPT, VRFY, `sendmail -bv`
//! and explain say the same about an address.
//!
//! System users need root; otherwise the test is reported as skipped.

use std::process::Command;

use common::homes::Homes;
use common::remote::{Remote, Sink};
use common::{built, programs};

/// The address, the reply to RCPT, and what `sendmail -bv` says about it.
const ADDRESSES: &[(&str, &str, &str)] = &[
    // System users.
    ("jon@razorback", "250", "mailbox {home}/jon/Maildir"),
    ("MARY+x@razorback.test", "250", "mailbox {home}/mary/Maildir"),
    ("anna@razorback", "550 5.1.1", "user unknown"),
    ("sales@razorback", "250", "mailbox {home}/elvis/Maildir"),
    ("no-such-user-@razorback", "550 5.1.1", "user unknown"),
    // A users file.
    ("anna@shop.test", "250", "mailbox {mail}/shop.test/anna"),
    ("Anna+x@shop.test", "250", "mailbox {mail}/shop.test/anna"),
    ("jon@shop.test", "550 5.1.1", "user unknown"),
    ("mary@shop.test", "550 5.1.1", "user unknown"),
    ("sales@shop.test", "550 5.1.1", "user unknown"),
    ("postmaster@shop.test", "250", "mailbox {home}/jon/Maildir"),
    // The users of a store.
    ("jon@far.test", "250", "{store}"),
    ("eve+x@far.test", "250", "{store}"),
    ("anna@far.test", "550 5.1.1", "user unknown"),
    ("full@far.test", "552 5.2.2", "5.2.2 the mailbox is full"),
    ("off@far.test", "550 5.2.1", "5.2.1 refused by the next host"),
    ("busy@far.test", "451 4.4.3", "{store}"),
    ("sales@far.test", "250", "mailbox {mail}/shop.test/anna"),
    ("postmaster@far.test", "250", "mailbox {home}/jon/Maildir"),
];

/// A store that knows jon and eve+x, and has trouble with some.
fn store() -> Remote {
    let rules = [
        ("jon@", "250 2.1.5 ok"),
        ("eve+x@", "250 2.1.5 ok"),
        ("full@", "552 5.2.2 full"),
        ("off@", "550 5.2.1 disabled"),
        ("busy@", "451 4.3.0 later"),
        ("", "550 5.1.1 unknown"),
    ];
    let rule = |sink: Sink, (name, reply): (&str, &str)| sink.reply(&format!("RCPT TO:<{name}"), reply);
    Remote::with(rules.into_iter().fold(Sink::store(), rule))
}

#[test]
fn all_say_the_same_about_an_address_whatever_kind_its_user_is() {
    let store = store();
    let settings = "local.postmaster = \"jon\"\nlocal.users = \"system\"";
    let Some(mut homes) = Homes::new(settings) else { return };
    let at_store = format!("lmtp://{}", store.host_port());
    let directory = homes.site.path("").display().to_string();
    let file = |name: &str| format!("{directory}/{name}");
    let (users, mail, aliases) = (file("shop-users"), file("mail/{domain}/{user}"), file("far-aliases"));
    for (section, key, value) in [
        ("domain#1", "names", "[\"shop.test\"]".to_owned()),
        ("domain#1", "users", format!("\"file:{users}\"")),
        ("domain#1", "mailbox", format!("{mail:?}")),
        ("domain#2", "names", "[\"far.test\"]".to_owned()),
        ("domain#2", "users", "\"any\"".to_owned()),
        ("domain#2", "mailbox", format!("{at_store:?}")),
        ("domain#2", "aliases", format!("{aliases:?}")),
    ] {
        homes.site.set(section, key, &value);
    }
    homes.site.write("shop-users", "anna::\n");
    homes.site.write("aliases", "sales: elvis\n");
    homes.site.write("far-aliases", "sales: anna@shop.test\n");
    let daemon = homes.start();
    let inside = |command: &Command| programs::code_and_text(&homes.mounts.inside(command).output().expect("it runs"));
    let mut client = daemon.greeted();
    for (address, reply, way) in ADDRESSES {
        client.ask("MAIL FROM:<x@elsewhere.test>", "250");
        // VRFY asks no store.
        let is_asked = address.ends_with("@far.test") && !way.starts_with("mailbox");
        client.ask(&format!("VRFY {address}"), if is_asked { "252" } else { reply });
        client.ask(&format!("RCPT TO:<{address}>"), reply);
        // Now the answer of the store is remembered. VRFY tells from it only whether the user exists.
        let wanted = if ["250", "550 5.1.1"].contains(reply) { reply } else { "25" };
        client.ask(&format!("VRFY {address}"), wanted);
        client.ask("RSET", "250");
        let (home, mail) = (file("home"), file("mail"));
        let way = way.replace("{home}", &home).replace("{mail}", &mail).replace("{store}", &at_store);
        let (code, text) = inside(&programs::command(&homes.site, "sendmail", &["-bv", address]));
        let wanted = match *reply {
            "550 5.1.1" => 67,
            "550 5.2.1" | "552 5.2.2" => 69,
            _ => 0,
        };
        assert!(code == wanted && text.contains(&way), "{address}: {code} {text}");
        let mut explain = Command::new(built::program("penfoldctl"));
        explain.arg("-f").arg(homes.site.path("penfold.conf")).args(["explain", "--no-dns", address]);
        let (_, text) = inside(&explain);
        let place = way.trim_start_matches("mailbox ");
        let (begin, wanted) = match *reply {
            "250" => ("accepted; goes to ", place.to_owned()),
            "451 4.4.3" => ("deferred at RCPT: ", format!("at RCPT: {reply} ")),
            _ => ("refused at RCPT: ", format!("at RCPT: {reply} ")),
        };
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with(begin) && first.contains(&wanted), "{address}: {text}");
    }
}
