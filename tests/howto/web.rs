//! penfold-web(7): the mail of a web server.

use std::net::{Ipv4Addr, TcpListener};

use common::pages;
use common::remote::{Conduct, Remote, Sink};

use crate::reader::Reader;

/// The rest of the world: the recipient's host.
const WORLD: &str = "example.net MX 10 mx.example.net\nmx.example.net A 203.0.113.25\n";

#[test]
fn the_page() {
    let Some(mut reader) = Reader::at("web.example.org", WORLD) else { return };
    let machine = &reader.machine;
    machine.run("ln -sf /usr/local/sbin/penfoldctl /usr/sbin/sendmail");
    machine.world_has("203.0.113.25/32");
    let provider = machine.world(|| {
        let listener = TcpListener::bind((Ipv4Addr::new(203, 0, 113, 25), 25)).expect("an address of the world");
        Remote::start(listener, Conduct::Sink(Sink::default()))
    });
    reader.follow("penfold-web.7", &pages::page("penfold-web.7"));
    // The first message, 19 of the script with the hole, and the one that was kept.
    let messages = provider.messages(21);
    assert_eq!(messages.len(), 21);
    let texts = messages.iter().map(|message| String::from_utf8_lossy(&message.data).into_owned());
    let of_daemon: Vec<String> = texts.filter(|text| text.contains("from uid 1 daemon, program php")).collect();
    let [kept] = of_daemon.as_slice() else { panic!("{of_daemon:?}") };
    assert!(kept.contains("X-PHP-Originating-Script: 0:contact.php"), "{kept}");
}
