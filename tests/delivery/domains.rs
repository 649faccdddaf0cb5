//! Local domains with users, mailboxes and tables of their own: RCPT, VRFY, `sendmail -bv`, explain and
//! delivery find the same user, and a login is one of its own domain.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use common::client::Client;
use common::dovecot::Dovecot;
use common::homes::messages;
use common::remote::{Remote, Sink};
use common::{Daemon, Site};

/// The password "pencil".
pub(super) const PENCIL: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
/// The password "password", hashed by `openssl passwd -6`.
pub(super) const CRYPT: &str =
    "{SHA512-CRYPT}$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/";

/// A site with its usual domains, razorback and razorback.test, and two more groups: shop.test and
/// store.test, with users of their own below `shop`, and far.test, whose mail goes to a store.
fn site(store: &str, settings: &str) -> Site {
    let mut site = Site::with(settings);
    let path = |name: &str| format!("{:?}", site.path(name).display().to_string());
    let (users, aliases) = (format!("\"file:{}\"", site.path("shop-users").display()), path("shop-aliases"));
    let mailbox = path("mail/{domain}/{user}");
    for (section, key, value) in [
        ("domain#1", "names", "[\"shop.test\", \"store.test\"]"),
        ("domain#1", "users", &users),
        ("domain#1", "aliases", &aliases),
        ("domain#1", "mailbox", &mailbox),
        ("domain#2", "names", "[\"far.test\"]"),
        ("domain#2", "mailbox", &format!("{store:?}")),
        ("domain#2", "subaddress", "\"-\""),
        ("domain#2", "postmaster", "\"jon\""),
    ] {
        site.set(section, key, value);
    }
    site.write("shop-users", &format!("anna:{CRYPT}:\njon@store.test:{PENCIL}:\n"));
    site.write("shop-aliases", "sales: anna, jon@razorback\n");
    site.write("users", &format!("jon:{PENCIL}:\nmary::\nroot::\n"));
    site
}

fn sendmail(site: &Site, arguments: &[&str]) -> (i32, String) {
    let program = site.path("sendmail");
    if !program.exists() {
        symlink(env!("CARGO_BIN_EXE_penfoldctl"), &program).expect("a link");
    }
    let mut command = Command::new(program);
    command.args(arguments).arg("-C").arg(site.path("penfold.conf")).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The address, the reply to RCPT, and where `sendmail -bv` says that its mail goes.
const ADDRESSES: &[(&str, &str, &str)] = &[
    ("jon@razorback", "250", "mailbox {mail}/jon"),
    ("anna@razorback", "550 5.1.1", ""),
    ("anna@shop.test", "250", "mailbox {mail}/shop.test/anna"),
    ("ANNA+x@Store.test", "250", "mailbox {mail}/store.test/anna"),
    ("jon@store.test", "250", "mailbox {mail}/store.test/jon"),
    ("jon@shop.test", "550 5.1.1", ""),
    ("mary@shop.test", "550 5.1.1", ""),
    ("sales@store.test", "250", "anna@shop.test: mailbox {mail}/shop.test/anna"),
    ("sales@razorback", "550 5.1.1", ""),
    ("postmaster@shop.test", "250", "root@razorback: mailbox {mail}/root"),
    ("mary@far.test", "250", "{store}"),
    ("mary-x@far.test", "250", "{store}"),
    ("mary+x@far.test", "550 5.1.1", ""),
    ("postmaster@far.test", "250", "jon@far.test: {store}"),
];

#[test]
fn all_ask_the_domain_of_an_address() {
    let store = Remote::with(Sink::store());
    let site = site(&format!("lmtp://{}", store.host_port()), "");
    let daemon = site.start();
    let mut client = daemon.greeted();
    for (address, reply, way) in ADDRESSES {
        client.ask("MAIL FROM:<x@elsewhere.test>", "250");
        client.ask(&format!("RCPT TO:<{address}>"), reply);
        client.ask("RSET", "250");
        client.ask(&format!("VRFY {address}"), if *reply == "250" { "25" } else { "550" });
        let (code, text) = sendmail(&site, &["-bv", address]);
        let mail = site.path("mail").display().to_string();
        let way = way.replace("{mail}", &mail).replace("{store}", &format!("lmtp://{}", store.host_port()));
        let explained = site.penfoldctl(&["explain", "--no-dns", address]);
        match *reply {
            "250" => assert!(code == 0 && text.contains(&way), "{address}: {code} {text}"),
            _ => assert!(code == 67 && text.contains("user unknown"), "{address}: {code} {text}"),
        }
        let end = if *reply == "250" { "250 " } else { "550 5.1.1" };
        assert!(explained.contains(end), "{address}: {explained}");
    }
    let explained = site.penfoldctl(&["explain", "--no-dns", "nobody@store.test"]);
    assert!(explained.contains("domain.users") && explained.contains("domain.names"), "{explained}");
}

#[test]
fn mail_goes_to_the_users_of_its_domain() {
    let store = Remote::with(Sink::store());
    let site = site(&format!("lmtp://{}", store.host_port()), "");
    let daemon = site.start();
    daemon.submit(&["jon@razorback", "jon@store.test", "sales@shop.test", "mary-x@far.test", "anna+y@store.test"]);
    assert!(daemon.settles(&site), "{}", daemon.log());
    let count = |name: &str| messages(&site.path("mail").join(name)).len();
    assert_eq!(site.mail("jon").len(), 1, "{}", daemon.log());
    assert_eq!((count("store.test/jon"), count("shop.test/anna"), count("store.test/anna")), (1, 1, 1));
    let stored = store.messages(1);
    assert_eq!(stored.len(), 1);
    store.look(|seen| {
        let is_named = |line: &str| line.contains("RCPT TO:<mary-x@far.test>");
        assert!(seen.commands.iter().any(|command| is_named(&command.line)), "{:?}", seen.commands);
    });
}

/// Logs in. Returns the client if that succeeds.
pub(super) fn login(daemon: &Daemon, mechanism: &str, name: &str, password: &str) -> Option<Client> {
    let base64 = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
    let mut client = daemon.greeted();
    if mechanism == "LOGIN" {
        client.ask("AUTH LOGIN", "334");
        client.ask(&base64(name), "334");
        client.send_text(&format!("{}\r\n", base64(password)));
    } else {
        client.send_text(&format!("AUTH PLAIN {}\r\n", base64(&format!("\0{name}\0{password}"))));
    }
    let reply = client.read_line().expect("a reply");
    assert!(reply.starts_with("235 ") || reply.starts_with("535 "), "{name}: {reply}");
    reply.starts_with("235 ").then_some(client)
}

pub(super) const SUBMISSION: &str = "listen.auth = \"always\"\nlisten.kind = \"submission\"\nrelay.networks = []";

/// Logs in with each name and password, and tries which senders the account may use.
pub(super) fn check_logins(daemon: &Daemon, cases: &[(&str, &str, &[&str], &[&str])]) {
    for (name, password, own, others) in cases {
        for mechanism in ["PLAIN", "LOGIN"] {
            let client = login(daemon, mechanism, name, password);
            assert_eq!(client.is_some(), !own.is_empty(), "{mechanism} {name}: {}", daemon.log());
            let Some(mut client) = client else { continue };
            for (senders, reply) in [(own, "250"), (others, "550 5.7.1")] {
                for sender in *senders {
                    client.ask(&format!("MAIL FROM:<{sender}>"), reply);
                    client.ask("RSET", "250");
                }
            }
        }
    }
}

#[test]
fn a_login_is_one_of_its_own_domain() {
    let site = site("lmtp:/nonexistent", SUBMISSION);
    // A line without a domain is about the users of [local].
    site.write("senders", "anna@shop.test news@razorback\nanna root@razorback\n");
    let daemon = site.start();
    check_logins(
        &daemon,
        &[
            ("jon", "pencil", &["jon@razorback", "jon@razorback.test", "jon@far.test"], &["jon@shop.test"]),
            ("jon@razorback.test", "pencil", &["jon@razorback"], &["jon@store.test"]),
            // anna is the same in both domains; the other jon is in one of them only.
            ("anna@shop.test", "password", &["anna@shop.test", "anna@store.test"], &["anna@razorback"]),
            ("anna@store.test", "password", &["news@razorback"], &["root@razorback"]),
            ("anna@store.test", "password", &["anna@shop.test", "anna+x@store.test"], &["jon@store.test"]),
            ("jon@store.test", "pencil", &["jon@store.test"], &["jon@shop.test", "jon@razorback"]),
            ("jon@shop.test", "pencil", &[], &[]),
            ("anna", "password", &[], &[]),
            ("anna@razorback", "password", &[], &[]),
            ("anna@shop.test", "pencil", &[], &[]),
        ],
    );
    daemon.wait_log(|line| line.contains(" auth user=anna@shop.test "));
}

#[test]
fn some_domains_can_have_their_accounts_in_dovecot() {
    let mut site = site("lmtp:/nonexistent", SUBMISSION);
    let socket = site.path("dovecot/auth-client");
    site.set("domain#2", "auth", &format!("\"dovecot:{}\"", socket.display()));
    site.set("domain#3", "names", "[\"near.test\"]");
    site.set("domain#3", "auth", &format!("\"dovecot:{}\"", socket.display()));
    // This Dovecot says for one of its users that he is another's, and for one that she is in another of its
    // domains.
    site.write(
        "passwd",
        "mary@far.test:{PLAIN}paper::::::\nbob@far.test:{PLAIN}paper::::::user=jon@razorback\n\
         amy@far.test:{PLAIN}paper::::::user=amy@near.test\n",
    );
    let settings = format!(
        "disable_plaintext_auth = no\nauth_mechanisms = plain login\n\
         service auth {{\n unix_listener auth-client {{\n  mode = 0666\n }}\n}}\n\
         passdb {{\n driver = passwd-file\n args = {}\n}}\n",
        site.path("passwd").display()
    );
    let Some(_dovecot) = Dovecot::start(&site, &settings) else { return };
    let daemon = site.start();
    let offered = daemon.client().ehlo();
    assert!(offered.iter().any(|line| line.ends_with("AUTH PLAIN LOGIN")), "{offered:?}");
    check_logins(
        &daemon,
        &[
            ("mary@far.test", "paper", &["mary@far.test"], &["mary@razorback"]),
            ("mary@far.test", "pencil", &[], &[]),
            ("amy@far.test", "paper", &["amy@near.test"], &["amy@far.test"]),
            ("jon", "pencil", &["jon@razorback"], &["jon@far.test"]),
            ("anna@store.test", "password", &["anna@shop.test"], &["jon@far.test"]),
            // Dovecot is not asked about the users of other domains.
            ("mary@razorback", "paper", &[], &[]),
        ],
    );
    let base64 = data_encoding::BASE64.encode(b"\0bob@far.test\0paper");
    daemon.greeted().ask(&format!("AUTH PLAIN {base64}"), "454 4.7.0");
    daemon.wait_log(|line| line.contains("Dovecot names a user of others, jon@razorback"));
    let explained = site.penfoldctl(&["explain", "--no-dns", "--login", "Mary@Far.test", "mary@far.test"]);
    assert!(explained.contains("mary@far.test may send from <mary@far.test>"), "{explained}");
}

#[test]
fn newaliases_checks_the_aliases_of_all_domains() {
    let site = site("lmtp:/nonexistent", "");
    site.write("aliases", "a: jon\n");
    site.configure();
    let (code, text) = sendmail(&site, &["-bi"]);
    let path = |name| site.path(name).display().to_string();
    assert_eq!((code, text), (0, format!("{}: 1 alias\n{}: 1 alias\n", path("aliases"), path("shop-aliases"))));
    site.write("shop-aliases", "wrong\n");
    assert_eq!(sendmail(&site, &["-bi"]).0, 65);
}

/// A broken table of one domain keeps waiting only mail for that domain.
#[test]
fn an_error_in_one_table_concerns_one_domain() {
    let site = site("lmtp:/nonexistent", "");
    site.write("shop-users", "anna:\n");
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<x@elsewhere.test>", "250");
    client.ask("RCPT TO:<anna@shop.test>", "451");
    client.ask("RCPT TO:<jon@razorback>", "250");
    client.ask("RCPT TO:<mary@far.test>", "250");
    drop(client);
    fs::remove_file(site.path("shop-users")).expect("it is there");
    let output = site.penfoldd(&["-n"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(78) && text.contains("domain.users: "), "{text}");
}

/// Where Dovecot is asked about everybody else, a client cannot choose the domain of its account, and
/// nobody logs in for a domain without accounts.
#[test]
fn dovecot_gives_no_domain_to_a_client() {
    let mut site = site("lmtp:/nonexistent", SUBMISSION);
    let socket = site.path("dovecot/auth-client");
    site.set("auth", "users", &format!("\"dovecot:{}\"", socket.display()));
    site.set("domain#2", "auth", "\"none\"");
    // This Dovecot removes the domain of a name, as many do.
    site.write("passwd", "bob:{PLAIN}paper::::::\n");
    let settings = format!(
        "disable_plaintext_auth = no\nauth_mechanisms = plain login\nauth_username_format = %Ln\n\
         service auth {{\n unix_listener auth-client {{\n  mode = 0666\n }}\n}}\n\
         passdb {{\n driver = passwd-file\n args = {}\n}}\n",
        site.path("passwd").display()
    );
    let Some(_dovecot) = Dovecot::start(&site, &settings) else { return };
    let daemon = site.start();
    check_logins(
        &daemon,
        &[
            ("bob", "paper", &["bob@razorback"], &["bob@shop.test"]),
            ("bob@bank.test", "paper", &["bob@razorback"], &["bob@bank.test"]),
            ("bob@far.test", "paper", &[], &[]),
            ("bob@shop.test", "paper", &[], &[]),
            ("bob@\u{ff53}hop.test", "paper", &[], &[]),
            ("anna@Shop.test", "password", &["anna@store.test"], &["bob@razorback"]),
            ("bob@not a domain", "paper", &[], &[]),
        ],
    );
    assert!(!daemon.log().contains(" auth user=bob@bank.test "), "{}", daemon.log());
}

/// A users file that others share has no accounts for a domain with users of its own, or without accounts.
#[test]
fn a_domain_without_accounts_has_none_in_the_file_of_others() {
    let mut site = site("lmtp:/nonexistent", SUBMISSION);
    site.set("domain#2", "auth", "\"none\"");
    site.set("domain#2", "users", "\"any\"");
    site.set("domain#3", "names", "[\"other.test\"]");
    site.set("domain#3", "users", "\"any\"");
    site.set("domain#3", "mailbox", "\"lmtp:/nonexistent\"");
    site.write(
        "users",
        &format!(
            "jon:{PENCIL}:\nroot::\njon@far.test:{PENCIL}:\njon@other.test:{PENCIL}:\nann-x:{PENCIL}:\nann:{PENCIL}:\n"
        ),
    );
    site.set("local", "subaddress", "\"-\"");
    let daemon = site.start();
    check_logins(
        &daemon,
        &[
            ("jon@far.test", "pencil", &[], &[]),
            ("jon@other.test", "pencil", &[], &[]),
            ("jon@razorback", "pencil", &["jon@razorback"], &["jon@far.test", "jon@other.test"]),
            // A whole name that is a user is not a detail of another.
            ("ann", "pencil", &["ann@razorback", "ann-y@razorback"], &["ann-x@razorback"]),
        ],
    );
}

/// A site like that of [`site`] with one more domain, third.test. There is an anna in each of the three
/// users files, and the one of shop.test and store.test has another password.
fn site_with_annas(settings: &str) -> Site {
    let mut site = site("lmtp:/nonexistent", &format!("{SUBMISSION}\n{settings}"));
    let users = format!("\"file:{}\"", site.path("third-users").display());
    let mailbox = format!("{:?}", site.path("mail/{domain}/{user}"));
    for (key, value) in [("names", "[\"third.test\"]"), ("users", &users), ("mailbox", &mailbox)] {
        site.set("domain#3", key, value);
    }
    site.write("third-users", &format!("anna:{PENCIL}:\n"));
    site.add("users", &format!("anna:{PENCIL}:"));
    site
}

#[test]
fn equal_names_in_several_users_files_are_accounts_of_their_own() {
    let site = site_with_annas("");
    let daemon = site.start();
    check_logins(
        &daemon,
        &[
            ("anna@shop.test", "password", &["anna@store.test"], &["anna@third.test", "anna@razorback"]),
            ("anna@shop.test", "pencil", &[], &[]),
            ("anna@third.test", "pencil", &["anna@third.test"], &["anna@shop.test", "anna@razorback"]),
            ("anna@third.test", "password", &[], &[]),
            ("anna", "pencil", &["anna@razorback.test"], &["anna@third.test", "anna@store.test"]),
            ("anna", "password", &[], &[]),
        ],
    );
    // The same holds for the author in the header.
    for (name, password, author, reply) in [
        ("anna@shop.test", "password", "anna@third.test", "550 5.7.1"),
        ("anna@third.test", "pencil", "anna@shop.test", "550 5.7.1"),
        ("anna@third.test", "pencil", "anna@third.test", "250"),
    ] {
        let mut client = login(&daemon, "PLAIN", name, password).expect("an account");
        client.begin(name, &["jon@razorback"]);
        client.ask(&format!("From: {author}\r\n\r\nHello\r\n."), reply);
    }
}

#[test]
fn the_hourly_limits_count_each_account_with_the_limit_of_its_domain() {
    let mut site = site_with_annas("submission.messages_per_hour = 4");
    for (section, messages, recipients) in [("domain#1", "2", "3"), ("domain#3", "3", "2")] {
        site.set(section, "messages_per_hour", messages);
        site.set(section, "recipients_per_hour", recipients);
    }
    let daemon = site.start();
    let enter = |name: &str, password: &str| login(&daemon, "PLAIN", name, password).expect("an account");
    let uses_up = |name: &str, password: &str, sender: &str, verb: &str, count: usize| {
        let mut client = enter(name, password);
        let (what, line) = match verb {
            "MAIL" => ("messages", format!("MAIL FROM:<{sender}>")),
            _ => ("recipients", "RCPT TO:<jon@razorback>".to_owned()),
        };
        if verb == "RCPT" {
            client.ask(&format!("MAIL FROM:<{sender}>"), "250 ");
        }
        for _ in 0..count {
            client.ask(&line, "250 ");
            if verb == "MAIL" {
                client.ask("RSET", "250 ");
            }
        }
        client.ask(&line, &format!("450 4.7.1 Your limit of {count} {what} an hour"));
    };
    // jon, of the same users file as one anna, has a count of his own. The recipients come first, since
    // they need a message.
    uses_up("jon@store.test", "pencil", "jon@store.test", "RCPT", 3);
    uses_up("anna@third.test", "pencil", "anna@third.test", "RCPT", 2);
    uses_up("anna@shop.test", "password", "anna@shop.test", "MAIL", 2);
    // The other name of that account has the same count.
    enter("anna@store.test", "password").ask("MAIL FROM:<anna@store.test>", "450 4.7.1 Your limit of 2 messages");
    uses_up("anna", "pencil", "anna@razorback", "MAIL", 4);
    let mut client = enter("anna@third.test", "pencil");
    for reply in ["250 ", "250 ", "450 4.7.1 Your limit of 3 messages an hour"] {
        client.ask("MAIL FROM:<anna@third.test>", reply);
        client.ask("RSET", "250 ");
    }
    enter("jon@store.test", "pencil").ask("MAIL FROM:<jon@store.test>", "250 ");
    for words in ["account=jon@store.test recipients=3", "account=anna@third.test recipients=2"] {
        daemon.wait_words(&[" limit ", words]);
    }
    for (account, limit) in [("anna@shop.test", 2), ("anna", 4), ("anna@third.test", 3)] {
        daemon.wait_words(&[&format!(" limit account={account} messages={limit}")]);
    }
}
