//! penfold-satellite(7): a host that sends through a provider.

use std::net::{Ipv4Addr, TcpListener};

use common::pages;
use common::remote::{Conduct, Offer, Remote, Sink};
use common::scram::Scram;
use common::tls::Authority;

use crate::reader::Reader;

/// The rest of the world: the provider.
const WORLD: &str = "smtp.example.net A 203.0.113.25\n";

#[test]
fn the_page() {
    let Some(mut reader) = Reader::at("desk.home.arpa", WORLD) else { return };
    let (machine, authority) = (&reader.machine, Authority::new());
    machine.run("ln -sf /usr/local/sbin/penfoldctl /usr/sbin/sendmail");
    machine.write("/usr/local/share/ca-certificates/provider.crt", &authority.root_pem());
    machine.run("update-ca-certificates > /dev/null 2>&1");
    machine.world_has("203.0.113.25/32");
    // The provider accepts the password of the page, and only the sender to whom it belongs.
    let scram = Scram { password: "hush".to_owned(), lies: false, iterations: 4096 };
    let mut keywords = Sink::default().keywords;
    keywords.push("AUTH SCRAM-SHA-256".to_owned());
    let tls = Some(Offer::implicit(&authority.leaf("smtp.example.net", 30)));
    let sink = Sink { scram: Some(scram), tls, keywords, ..Sink::default() };
    let refused = "550 5.7.1 not your address";
    let sink = sink.reply("MAIL FROM:<root@", refused).reply("MAIL FROM:<you@", refused);
    let provider = machine.world(|| {
        let listener = TcpListener::bind((Ipv4Addr::new(203, 0, 113, 25), 465)).expect("an address of the world");
        Remote::start(listener, Conduct::Sink(sink))
    });
    reader.follow("penfold-satellite.7", &pages::page("penfold-satellite.7"));
    let messages = provider.messages(3);
    let mut seen: Vec<(String, String)> = Vec::new();
    for message in &messages {
        let text = String::from_utf8_lossy(&message.data).into_owned();
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).expect("a subject").to_owned();
        assert!(text.contains("\r\nFrom: jo@example.net\r\n") || text.contains("<jo@example.net>\r\n"), "{text}");
        seen.push((subject.trim_end().to_owned(), message.recipients.concat()));
    }
    seen.sort();
    let of = |subject: &str| seen.iter().find(|(seen, _)| seen == subject).map(|(_, to)| to.as_str()).expect("sent");
    assert!(seen.len() == 3 && of("for root").contains("<jo@example.net>"), "{seen:?}");
    assert!(of("for ann").contains("<ann@example.org>") && of("later").contains("<ann@example.org>"), "{seen:?}");
}
