//! The move from Postfix in penfold-migration(7).

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use common::remote::{Conduct, Remote, Sink};
use common::{built, pages};

use crate::reader::Reader;

/// The rest of the world: a provider whose host is down at first.
const WORLD: &str = "example.net MX 10 mx.example.net\nmx.example.net A 203.0.113.25\n\
    mx.example.org A 192.0.2.25\nexample.org MX 10 mx.example.org\n";

#[test]
fn the_page() {
    let Some(mut reader) = Reader::at("mx.example.org", WORLD) else { return };
    let machine = &reader.machine;
    machine.world_has("203.0.113.25/32");
    // A host with the Postfix of Debian, whose queue has a message, and with the source of penfold.
    machine.write("/etc/mailname", "example.org\n");
    machine.run("echo postfix postfix/main_mailer_type select Internet Site | debconf-set-selections");
    machine.install(&["postfix", "make"]);
    machine.run(
        "postconf -e mydestination=example.org,mx.example.org,localhost home_mailbox=Maildir/ && echo root: you >> /etc/aliases && \
         newaliases && systemctl restart postfix && printf 'Subject: old\\n\\nhello\\n' | sendmail -f you@example.org greg@example.net && \
         timeout 20 sh -c 'until postqueue -p | grep -q 203.0.113.25; do sleep 0.1; done'",
    );
    fs::create_dir(machine.path("/root/penfold")).expect("a directory");
    for name in ["Makefile", "etc", "man", "Cargo.toml"] {
        let mut copy = std::process::Command::new("cp");
        copy.arg("-r").arg(built::source(name)).arg(machine.path("/root/penfold"));
        assert!(copy.status().is_ok_and(|status| status.success()), "{name}");
    }
    let page = pages::page("penfold-migration.7");
    let (from_postfix, _) = page.split_once(".Sh SETTINGS OF POSTFIX").expect("the section after the move");
    reader.follow("penfold-migration.7", from_postfix);
    let machine = &reader.machine;
    // The message is in the queue of penfold now, and mail of all kinds comes to it.
    assert!(machine.run("penfoldctl queue").contains("greg@example.net"));
    machine.run("printf 'Subject: new\\n\\nhello\\n' | sendmail you@example.org greg@example.net");
    let provider = machine.world(|| {
        let listener = TcpListener::bind((Ipv4Addr::new(203, 0, 113, 25), 25)).expect("an address of the world");
        Remote::start(listener, Conduct::Sink(Sink::default()))
    });
    machine.run("penfoldctl flush");
    assert_eq!(provider.messages(2).len(), 2);
    machine.run(
        "until grep -q 'Subject: new' /home/you/Maildir/new/*; do sleep 0.1; done; test -z \"$(pgrep -x master)\"",
    );
}
