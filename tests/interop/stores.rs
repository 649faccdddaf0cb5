//! Dovecot as a mail store that takes mail by LMTP, and as an LMTP proxy in front of penfold.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::dovecot::Dovecot;
use common::{Site, free_port};
use nix::unistd::{User, geteuid};

const TEXT: &str = "From: anna@example.net\r\nSubject: hello\r\nMessage-ID: <x@example.net>\r\n\r\nHow are you?\r\n";

/// The settings of a Dovecot whose users are bin, daemon and games. The mailbox of daemon is full,
/// and the Sieve script of games refuses all mail: Dovecot accepts it and sends a refusal back through
/// the server at `port`.
fn settings(site: &Site, owner: &User, port: u16) -> String {
    let dir = site.path("store");
    for name in ["", "bin", "daemon", "games"] {
        fs::create_dir(dir.join(name)).expect("a directory");
        common::own(&dir.join(name));
    }
    let user =
        |name: &str, more: &str| format!("{name}::{}:{}::{}/{name}::{more}\n", owner.uid, owner.gid, dir.display());
    let full = user("daemon", "userdb_quota_rule=*:storage=1B");
    site.write("store/people", &[user("bin", ""), full, user("games", "")].concat());
    site.write("store/games/.dovecot.sieve", "require \"reject\";\nreject \"No games here\";\n");
    format!(
        "protocols = lmtp\nmail_location = maildir:~/Maildir\nfirst_valid_uid = 1\nauth_username_format = %Ln\n\
         mail_plugins = quota\nsubmission_host = 127.0.0.1:{port}\npostmaster_address = postmaster@razorback\n\
         passdb {{\n driver = static\n args = nopassword=y\n}}\n\
         userdb {{\n driver = passwd-file\n args = {dir}/people\n}}\n\
         plugin {{\n quota = count:user\n quota_vsizes = yes\n quota_rule = *:storage=1M\n quota_grace = 0\n\
         quota_full_tempfail = no\n sieve = file:~/sieve;active=~/.dovecot.sieve\n}}\n\
         protocol lmtp {{\n mail_plugins = quota sieve\n}}\n\
         service lmtp {{\n unix_listener {dir}/lmtp {{\n user = {}\n mode = 0600\n }}\n}}\n",
        owner.name,
        dir = dir.display(),
    )
}

/// A site with a store for these users of the configuration. Returns the owner of its mailboxes and its socket,
/// too.
fn site_with_store(users: &str) -> (Site, User, PathBuf) {
    let mut site = Site::with("auth.users = \"none\"\nrelay.networks = []\nqueue.retry_min = \"1s\"");
    let owner = if geteuid().is_root() { User::from_name("nobody") } else { User::from_uid(geteuid()) };
    let socket = site.path("store/lmtp");
    site.set("local", "users", &format!("{users:?}"));
    site.set("local", "mailbox", &format!("\"lmtp:{}\"", socket.display()));
    site.set("", "socket", &format!("{:?}", site.path("run/sock")));
    // Only root's penfold makes the directory of its socket.
    if !geteuid().is_root() {
        fs::create_dir(site.path("run")).expect("a directory");
    }
    (site, owner.ok().flatten().expect("the owner of the mailboxes"), socket)
}

/// The messages of a Maildir.
fn mail(site: &Site, user: &str) -> Vec<String> {
    let entries = fs::read_dir(site.path("store").join(user).join("Maildir/new")).into_iter().flatten().flatten();
    entries.map(|entry| fs::read_to_string(entry.path()).expect("a message in UTF-8")).collect()
}

/// penfold is started by root, is confined, and has system users as recipients, but no process of
/// theirs runs: Dovecot alone writes into their mailboxes.
#[test]
fn dovecot_takes_mail_by_lmtp_and_refuses_some_recipients() {
    let (site, owner, socket) = site_with_store("system");
    let daemon = site.start();
    let dovecots = settings(&site, &owner, daemon.port);
    // While the store does not run, mail waits.
    daemon.greeted().send("anna@example.net", &["bin@razorback"], TEXT);
    let words = [" deferred to=<bin@razorback> via=lmtp host=", "dsn=4.4.1", "connecting: No such file or directory"];
    daemon.wait_words(&words);
    let Some(dovecot) = Dovecot::start(&site, &dovecots) else { return };
    dovecot.daemon.wait_until("its socket", || Path::new(&socket).exists());
    site.penfoldctl(&["flush"]);
    daemon.wait_words(&[" sent to=<bin@razorback> via=lmtp host=", "code=250"]);
    let first = mail(&site, "bin").remove(0);
    let top = "Return-Path: <anna@example.net>\nDelivered-To: bin@razorback\nReceived: from razorback.test";
    assert!(first.starts_with(top), "{first}");
    assert!(["Return-Path:", "Delivered-To:"].iter().all(|field| first.matches(field).count() == 1), "{first}");
    assert!(first.ends_with(&TEXT.replace("\r\n", "\n")), "{first}");

    // One of three recipients gets the message, and the sender a report about each of the others.
    let names = ["bin@razorback", "daemon@razorback", "games@razorback"];
    daemon.greeted().send("bin@razorback", &names, TEXT);
    daemon.wait_words(&[" failed to=<daemon@razorback> via=lmtp", "code=552 dsn=5.2.2"]);
    daemon.wait_words(&[" sent to=<games@razorback> via=lmtp"]);
    daemon.wait_until("the message and two reports", || mail(&site, "bin").len() == 4);
    for words in ["rfc822; daemon@razorback", "No games here"] {
        let all = mail(&site, "bin");
        let reports = all.iter().filter(|text| text.contains("multipart/report") && text.contains(words));
        assert_eq!(reports.count(), 1, "{words}: {all:?}\n{}", dovecot.daemon.log());
    }
    assert!(mail(&site, "daemon").is_empty() && mail(&site, "games").is_empty());
    assert!(daemon.settles(&site) && !daemon.log().contains("via=maildir"), "{}", daemon.log());
    // Connections were kept: there were at least four transactions. Some may have run at the same time.
    let dovecots = dovecot.daemon.log();
    assert!(dovecots.matches("Connect from local").count() <= 3, "{dovecots}");

    // A store is a recipient's mailbox: the message was delivered, and not relayed.
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<bin@razorback>", "250 ");
    client.ask("RCPT TO:<bin@razorback> NOTIFY=SUCCESS", "250 ");
    client.ask("DATA", "354 ");
    client.ask(&format!("{TEXT}."), "250 ");
    let has_report = || mail(&site, "bin").iter().any(|text| text.contains("\nAction: delivered\n"));
    daemon.wait_until("a report of success", has_report);

    // Dovecot does not know SMTPUTF8. It takes such messages all the same, but a sender outside ASCII
    // for an empty one.
    for (sender, kept, subject) in
        [("anna@example.net", "anna@example.net", "gr\u{fc}n"), ("\u{e4}nne@example.net", "", "green")]
    {
        client.ask(&format!("MAIL FROM:<{sender}> BODY=8BITMIME SMTPUTF8"), "250 ");
        client.ask("RCPT TO:<bin@razorback>", "250 ");
        client.ask("DATA", "354 ");
        client.ask(&format!("{}.", TEXT.replace("hello", subject)), "250 ");
        let words = [format!("Return-Path: <{kept}>\n"), format!("Subject: {subject}\n")];
        let has_both = |text: &String| words.iter().all(|word| text.contains(word));
        daemon.wait_until("a message in UTF-8", || mail(&site, "bin").iter().any(has_both));
    }

    // A message that comes back from the store is recognized.
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("RCPT TO:<bin@razorback>", "250 ");
    client.ask("DATA", "354 ");
    client.ask(&format!("{}.", first.replace('\n', "\r\n")), "554 5.4.6 ");
}

/// With users = "any", Dovecot says at RCPT which users it has, and whose mailbox is full. (Dovecot
/// itself looks at the quota at RCPT only if it is told to.)
#[test]
fn dovecot_says_at_rcpt_which_users_it_has_and_who_is_over_quota() {
    let (site, owner, socket) = site_with_store("any");
    let daemon = site.start();
    let dovecots = settings(&site, &owner, daemon.port) + "lmtp_rcpt_check_quota = yes\n";
    for name in ["", "cur", "new", "tmp"] {
        let folder = site.path("store/daemon/Maildir").join(name);
        fs::create_dir(&folder).expect("a directory");
        common::own(&folder);
    }
    site.write("store/daemon/Maildir/cur/1.one:2,", TEXT);
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    // While the store does not run, nothing is accepted, except for the postmaster.
    client.ask("RCPT TO:<bin@razorback>", "451 4.4.3 ");
    client.ask("RCPT TO:<postmaster@razorback>", "250 ");
    drop(daemon);
    let Some(dovecot) = Dovecot::start(&site, &dovecots) else { return };
    dovecot.daemon.wait_until("its socket", || Path::new(&socket).exists());
    // A restart forgets that the store was away.
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("RCPT TO:<bin@razorback>", "250 ");
    client.ask("RCPT TO:<nobody-of-this-name@razorback>", "550 5.1.1 ");
    client.ask("RCPT TO:<daemon@razorback>", "552 5.2.2 ");
    client.ask("DATA", "354 ");
    client.ask(&format!("{TEXT}."), "250 ");
    daemon.wait_words(&[" sent to=<bin@razorback> via=lmtp host=", "code=250"]);
    assert_eq!(mail(&site, "bin").len(), 1);
    // The store goes away again, and what it has accepted holds.
    drop(dovecot);
    let daemon = {
        drop(daemon);
        site.start()
    };
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("RCPT TO:<bin@razorback>", "250 ");
    client.ask("RCPT TO:<games@razorback>", "451 4.4.3 ");
}

/// Sends a message to three recipients from the address 127.0.0.9, and prints the replies.
const SCRIPT: &str = "
import smtplib, sys
client = smtplib.LMTP('127.0.0.1', int(sys.argv[1]), source_address=('127.0.0.9', 0))
client.ehlo()
print(client.mail('anna@example.net')[0])
print(*[client.rcpt(name + '@razorback')[0] for name in ('jon', 'elvis', 'root')])
code, text = client.data('Subject: three\\r\\n\\r\\nHow are you?\\r\\n')
print(code, text.decode())
print(client.getreply()[0])
client.quit()
";

/// Dovecot's LMTP proxy is in front of penfold, and passes on which recipient penfold refuses. It
/// names its client with XCLIENT if penfold trusts it.
#[test]
fn mail_comes_from_the_lmtp_proxy_of_dovecot() {
    for xclient in ["[]", "[\"127.0.0.1\"]"] {
        let site = Site::with(&format!("listen.kind = \"lmtp\"\nlisten.xclient = {xclient}"));
        let daemon = site.start();
        let port = free_port();
        let settings = format!(
            "protocols = lmtp\nlmtp_proxy = yes\npostmaster_address = postmaster@razorback\n\
             passdb {{\n driver = static\n args = proxy=y protocol=lmtp host=127.0.0.1 port={} nopassword=y\n}}\n\
             service lmtp {{\n inet_listener {{\n address = 127.0.0.1\n port = {port}\n }}\n}}\n",
            daemon.port,
        );
        let Some(dovecot) = Dovecot::start(&site, &settings) else { return };
        let output = Command::new("python3").args(["-c", SCRIPT]).arg(port.to_string()).output().expect("python3");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let logs = || format!("{output:?}\n{}\n{}", dovecot.daemon.log(), daemon.log());
        assert!(output.status.success() && lines.len() == 4, "{}", logs());
        assert_eq!((lines[0], lines[1], lines[3]), ("250", "250 550 250", "250"), "{}", logs());
        assert!(lines[2].starts_with("250 2.0.0 <jon@razorback> "), "{}", logs());
        for user in ["jon", "root"] {
            let mail = daemon.wait_mail(&site, user, 1);
            let text = String::from_utf8_lossy(&mail[0]);
            assert!(
                mail.len() == 1 && text.contains("(penfold) with LMTP id ") && text.contains("How are you?"),
                "{text}"
            );
        }
        let peer = if xclient == "[]" { " peer=localhost[127.0.0.1] " } else { "[127.0.0.9] via=[127.0.0.1] " };
        daemon.wait_words(&[" accept ", peer]);
    }
}
