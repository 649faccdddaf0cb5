//! penfold-dovecot(7): users, quotas and stores of Dovecot.

use std::process::Stdio;

use common::pages;

use crate::reader::Reader;

/// The rest of the world: the domain of a sender.
const WORLD: &str = "example.com MX 10 mx.example.com\nmx.example.com A 203.0.113.25\n";

/// The Dovecot of the other host, which has directories of its own for everything.
const STORE: &str = "protocols = lmtp\nssl = no\nbase_dir = /run/store\nstate_dir = /run/store\nlog_path = /run/store.log\n\
    instance_name = store\nmail_location = maildir:~/Maildir\npostmaster_address = postmaster@example.net\n\
    passdb {\n driver = static\n args = nopassword=y\n}\n\
    userdb {\n driver = static\n args = uid=vmail gid=vmail home=/var/vmail/store/%n allow_all_users=yes\n}\n\
    !include /etc/dovecot/conf.d/30-lmtp.conf\n";

#[test]
fn the_page() {
    let Some(mut reader) = Reader::at("mail.example.org", WORLD) else { return };
    let page = pages::page("penfold-dovecot.7");
    let (before, after) = page.split_once("On the proxy:\n").expect("the other host comes first");
    reader.follow("penfold-dovecot.7", before);
    // The other host is beside the machine.
    reader.machine.write("/etc/dovecot/store.conf", STORE);
    // It keeps its output open.
    let mut store = reader.machine.in_world("dovecot");
    store.args(["-c", "/etc/dovecot/store.conf"]).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(store.status().expect("nsenter").success());
    let above = "\n".repeat(before.lines().count() + 1);
    reader.follow("penfold-dovecot.7", &(above + after));
    let machine = &reader.machine;
    assert_eq!(machine.run("grep -h ^Subject /var/vmail/store/cy/Maildir/new/*"), "Subject: hello\n");
    assert_eq!(machine.run("find /var/vmail/example.net -path '*/new/*' | wc -l"), "0\n");
    // While the other host is away, its mail waits, and that for the mailboxes here does not.
    machine.run("doveadm -c /etc/dovecot/store.conf stop");
    machine.run("curl -sS smtp://127.0.0.1 --mail-from dee@example.com --mail-rcpt cy@example.net --mail-rcpt ann@example.org --crlf -T /home/you/hello");
    let traced = |name: &str, words: &str| {
        format!(
            "for time in $(seq 100); do penfoldctl trace {name} | grep -q '{words}' && exit; sleep 0.2; done; penfoldctl trace {name}; exit 1"
        )
    };
    machine.run(&traced("cy@example.net", "not delivered yet to <cy@example.net>: 451"));
    machine.run("for time in $(seq 100); do [ $(doveadm search -u ann@example.org all | wc -l) = 2 ] && exit; sleep 0.2; done; exit 1");
}
