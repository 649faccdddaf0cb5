//! Users of a real Dovecot that has them in SQL or in LDAP: recipients, and clients that log in.

use std::fs;
use std::process::{Command, Stdio};

use common::client::TEXT;
use common::dovecot::Dovecot;
use common::{Daemon, Site, unpacked};
use nix::unistd::{Group, User, geteuid};

/// The names of the users, all at razorback. The mailbox of the last one belongs to another system user.
const NAMES: [&str; 4] = ["jon", "ann", "o'hara", "other"];

/// The system user that penfoldd runs as.
fn server() -> User {
    let server = if geteuid().is_root() { User::from_name("nobody") } else { User::from_uid(geteuid()) };
    server.ok().flatten().expect("the server's user")
}

/// The text that `row` makes of each user: of the name, the home directory and the user id.
fn for_each_user(site: &Site, row: impl Fn(&str, &str, u32) -> String) -> String {
    let uid = server().uid.as_raw();
    let home = |name: &str| site.path("mail/people").join(name).display().to_string();
    NAMES.map(|name| row(name, &home(name), if name == "other" { uid + 1 } else { uid })).concat()
}

/// A site without users of its own, and a Dovecot that asks this driver.
fn with_users_of(driver: &str, module: &str) -> Option<(Site, Dovecot)> {
    if !unpacked::dovecot_has(module) {
        return None;
    }
    let mut site = Site::with("relay.networks = []\nlisten.auth = \"always\"");
    let (dir, mail) = (site.path("").display().to_string(), site.path("mail").display().to_string());
    site.set("auth", "users", &format!("\"dovecot:{dir}/auth-client\""));
    site.set("local", "users", &format!("\"dovecot:{dir}/auth-userdb\""));
    site.set("local", "mailbox", &format!("\"{mail}/~/Maildir\""));
    let group = Group::from_gid(server().gid).ok().flatten().expect("its group").name;
    let source = format!("{{\n driver = {driver}\n args = {dir}/source.conf\n}}\n");
    // Dovecot knows nobody with an apostrophe unless it is told to, and delays logins after failures.
    let settings = format!(
        "auth_username_chars =\nauth_failure_delay = 0\ndisable_plaintext_auth = no\n\
         passdb {source}userdb {source}service auth {{\n \
         unix_listener {dir}/auth-userdb {{\n mode = 0660\n group = {group}\n }}\n \
         unix_listener {dir}/auth-client {{\n mode = 0666\n }}\n}}\n\
         service anvil {{\n unix_listener anvil-auth-penalty {{\n mode = 0\n }}\n}}\n"
    );
    let dovecot = Dovecot::start(&site, &settings)?;
    dovecot.daemon.wait_until("its socket", || site.path("auth-client").exists());
    Some((site, dovecot))
}

/// What a client gets while Dovecot can ask its source of users, while it cannot, and after that.
fn holds<Away, Back>(site: &Site, goes_away: impl FnOnce() -> Away, comes_back: impl FnOnce(Away) -> Back) {
    let daemon = site.start();
    daemon.greeted().send("anna@example.net", &["Jon+list@razorback"], TEXT);
    daemon.wait_words(&[" sent to=<Jon+list@razorback> via=maildir"]);
    assert_eq!(fs::read_dir(site.path("mail/people/jon/Maildir/new")).expect("a Maildir").count(), 1);
    let rcpt = |name: &str, begins: &str| {
        let mut client = daemon.greeted();
        client.ask("MAIL FROM:<anna@example.net>", "250 ");
        client.ask(&format!("RCPT TO:<{name}@razorback>"), begins)
    };
    let login = |password: &str, begins: &str| {
        let base64 = data_encoding::BASE64.encode(format!("\0jon@razorback\0{password}").as_bytes());
        daemon.greeted().ask(&format!("AUTH PLAIN {base64}"), begins);
    };
    rcpt("o'hara", "250 ");
    rcpt("*", "550 5.1.1 ");
    rcpt("other", "451 4.3.0 ");
    daemon.wait_words(&["recipient <other@razorback>: Dovecot at ", "the mailbox belongs to the user id "]);
    login("pencil", "235 ");
    daemon.wait_words(&[" auth user=jon@razorback "]);

    let away = goes_away();
    rcpt("ann", "451 4.3.0 ");
    daemon.wait_words(&["recipient <ann@razorback>: ask Dovecot at "]);
    login("pencil", "454 4.7.0 ");
    let _back = comes_back(away);
    daemon.wait_until("an answer", || rcpt("nobody", "").starts_with("550 5.1.1 "));
    rcpt("ann", "250 ");
    login("pencil", "235 ");
    login("stencil", "535 ");
}

/// Dovecot has a file of SQLite open all the time and does not see when it is moved away. So the table is moved away.
#[test]
fn users_may_be_in_sql() {
    let Some((site, _dovecot)) = with_users_of("sql", "libdriver_sqlite.so") else { return };
    let (file, gid) = (site.path("users.db"), server().gid);
    let conf = format!(
        "driver = sqlite\nconnect = {}\npassword_query = SELECT name AS user, password FROM users WHERE name = '%u'\n\
         user_query = SELECT home, uid, {gid} AS gid, quota AS quota_rule FROM users WHERE name = '%u'\n",
        file.display()
    );
    site.write("source.conf", &conf);
    let rows = for_each_user(&site, |name, home, uid| {
        let [name, home] = [name, home].map(|text| text.replace('\'', "''"));
        format!("insert into users values ('{name}@razorback', '{{PLAIN}}pencil', '{home}', {uid}, '*:storage=1M');\n")
    });
    let run = |sql: &str| {
        let script = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])";
        let status = Command::new("python3").args(["-c", script]).arg(&file).arg(sql).status();
        assert!(status.is_ok_and(|status| status.success()));
    };
    run(&format!("create table users (name text, password text, home text, uid integer, quota text);\n{rows}"));
    holds(&site, || run("alter table users rename to away"), |()| run("alter table away rename to users"));
}

#[test]
fn users_may_be_in_ldap() {
    let Some((site, _dovecot)) = with_users_of("ldap", "libauthdb_ldap.so") else { return };
    let Some((_, schemas)) = unpacked::slapd() else { return };
    let socket = format!("ldapi://{}", site.path("ldapi").display().to_string().replace('/', "%2F"));
    let filter = "(&(objectClass=posixAccount)(mail=%u))";
    let conf = format!(
        "uris = {socket}\nbase = dc=example\nauth_bind = yes\npass_filter = {filter}\npass_attrs = mail=user\n\
         user_filter = {filter}\nuser_attrs = homeDirectory=home,uidNumber=uid,gidNumber=gid\n"
    );
    site.write("source.conf", &conf);
    let include = |name: &str| format!("include {}/{name}.schema\n", schemas.display());
    let conf = format!(
        "{}database ldif\nsuffix dc=example\ndirectory {}\naccess to attrs=userPassword by anonymous auth\n\
         access to * by * read\n",
        ["core", "cosine", "nis", "inetorgperson"].map(include).concat(),
        site.path("ldap").display(),
    );
    site.write("slapd.conf", &conf);
    fs::create_dir(site.path("ldap")).expect("a directory");
    let top = "dn: dc=example\nobjectClass: dcObject\nobjectClass: organization\no: example\n\n";
    let users = for_each_user(&site, |name, home, uid| {
        format!(
            "dn: cn={name},dc=example\nobjectClass: inetOrgPerson\nobjectClass: posixAccount\nsn: {name}\n\
             uid: {name}\nmail: {name}@razorback\nuserPassword: pencil\nuidNumber: {uid}\ngidNumber: {}\n\
             homeDirectory: {home}\n\n",
            server().gid
        )
    });
    site.write("users.ldif", &[top, &users].concat());
    let added = slapd(&site, &["-T", "add", "-l", &site.path("users.ldif").display().to_string()]).output();
    assert!(added.as_ref().is_ok_and(|added| added.status.success()), "{added:?}");
    let start = || {
        let command = slapd(&site, &["-d", "none", "-h", &socket]);
        Daemon::spawn_until(command, |line| line.contains("slapd starting").then_some(1))
            .unwrap_or_else(|log| panic!("slapd does not start:\n{log}"))
    };
    let slapd = start();
    holds(&site, || slapd.kill9(), |()| start());
}

/// A command that runs slapd with the configuration in the directory of the site.
fn slapd(site: &Site, options: &[&str]) -> Command {
    let (mut command, _) = unpacked::slapd().expect("it is there");
    command.args(options).arg("-f").arg(site.path("slapd.conf")).stdin(Stdio::null());
    command
}
