//! Users of a real Dovecot, looked up at its auth-userdb sockets.

use std::fs;

use common::client::TEXT;
use common::dovecot::Dovecot;
use common::{Site, own};
use nix::unistd::{Group, User, geteuid};

/// Dovecot answers at three sockets: one for the group of the server, one that the server may not
/// use, and one at which Dovecot answers only about users whose mail belongs to whoever asks.
#[test]
fn dovecot_looks_up_users_and_errors_say_what_it_needs() {
    let mut site = Site::with("relay.networks = []\nauth.users = \"none\"");
    let is_root = geteuid().is_root();
    let server = if is_root { User::from_name("nobody") } else { User::from_uid(geteuid()) };
    let server = server.ok().flatten().expect("the server's user");
    let group = Group::from_gid(server.gid).ok().flatten().expect("its group").name;
    let (dir, mail) = (site.path(""), site.path("mail"));
    let (dir, mail) = (dir.display(), mail.display());
    let user = |name: &str, home: &str, uid: u32| format!("{name}::{uid}:{}::{home}::\n", server.gid);
    let own_uid = server.uid.as_raw();
    let people = [
        user("jon@razorback", &format!("{mail}/jon"), own_uid),
        user("jon@example.net", &format!("{mail}/jon"), own_uid + 1),
        user("out@razorback", "/etc", own_uid),
        user("up@razorback", &format!("{mail}/../spool"), own_uid),
        user("stranger@razorback", &format!("{mail}/stranger"), own_uid + 1),
    ];
    site.write("people", &people.concat());
    let listener = |name: &str, mode: &str| format!(" unix_listener {dir}/{name}-userdb {{\n {mode}\n }}\n");
    let settings = format!(
        "passdb {{\n driver = static\n args = nopassword=y\n}}\n\
         userdb {{\n driver = passwd-file\n args = {dir}/people\n}}\nservice auth {{\n{}{}{}}}\n",
        listener("open", &format!("mode = 0660\n group = {group}")),
        listener("closed", "mode = 0600"),
        listener("partly", "mode = 0666"),
    );
    let Some(dovecot) = Dovecot::start(&site, &settings) else { return };
    dovecot.daemon.wait_until("its sockets", || site.path("partly-userdb").exists());
    site.set("local", "users", &format!("\"dovecot:{dir}/open-userdb\""));
    site.set("local", "mailbox", &format!("\"{mail}/~/Maildir\""));
    for (number, (domain, socket)) in [("example.net", "partly"), ("example.org", "closed")].iter().enumerate() {
        let table = format!("domain#{number}");
        site.set(&table, "names", &format!("[{domain:?}]"));
        site.set(&table, "users", &format!("\"dovecot:{dir}/{socket}-userdb\""));
        site.set(&table, "mailbox", &format!("\"lmtp:{dir}/lmtp\""));
    }
    fs::create_dir_all(site.path("mail/jon")).expect("a directory");
    own(&site.path("mail/jon"));
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.send("anna@example.net", &["Jon+list@razorback"], TEXT);
    daemon.wait_words(&[" sent to=<Jon+list@razorback> via=maildir"]);
    assert_eq!(fs::read_dir(site.path("mail/jon/Maildir/new")).expect("a Maildir").count(), 1);
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("RCPT TO:<nobody@razorback>", "550 5.1.1 ");
    for (name, why) in [
        ("out@razorback", "the home directory /etc is not below "),
        ("up@razorback", "/../spool is not below "),
        ("stranger@razorback", "the mailbox belongs to the user id "),
    ] {
        client.ask(&format!("RCPT TO:<{name}>"), "451 4.3.0 ");
        daemon.wait_log(|line| line.contains(&format!("recipient <{name}>: Dovecot at ")) && line.contains(why));
    }
    let needs = |socket: &str, mode: &str| {
        format!("Dovecot needs: service auth {{ unix_listener {socket}-userdb {{ group = {group}, mode = {mode} }} }}")
    };
    if is_root {
        let checked = site.penfoldd(&["-n"]).output().expect("penfoldd");
        let warnings = String::from_utf8_lossy(&checked.stderr).into_owned();
        for (address, needs) in
            [("jon@example.net", needs("partly", "0666")), ("jon@example.org", needs("closed", "0660"))]
        {
            client.ask(&format!("RCPT TO:<{address}>"), "451 4.3.0 ");
            daemon.wait_log(|line| {
                line.contains(&format!("recipient <{address}>: ask Dovecot at ")) && line.ends_with(&needs)
            });
            assert!(warnings.contains(&needs), "{needs}\n{warnings}");
        }
        assert_eq!(warnings.matches("Dovecot needs: ").count(), 2, "{warnings}");
    }
    // Without Dovecot nobody is unknown. The answers of a moment ago hold.
    drop(dovecot);
    client.ask("RCPT TO:<jon@razorback>", "250 ");
    client.ask("RCPT TO:<anna@razorback>", "451 4.3.0 ");
    let Some(_dovecot) = Dovecot::start(&site, &settings) else { return };
    daemon.wait_until("an answer", || client.ask("RCPT TO:<anna@razorback>", "").starts_with("550 5.1.1 "));
}
