//! penfold-server(7): a server for one domain, with Dovecot. penfold-filters(7) goes on there.

use std::net::{Ipv4Addr, TcpListener};

use common::remote::{Conduct, Remote, Sink};
use common::{keys, pages};

use crate::reader::Reader;

/// The rest of the world: a provider whose host is at another address.
const WORLD: &str = "example.net MX 10 mx.example.net\nmx.example.net A 203.0.113.25\n\
    25.113.0.203.in-addr.arpa PTR mx.example.net\nexample.net TXT v=spf1 ip4:192.0.2.1 -all\n";

const CERTIFICATE: &str = "/etc/letsencrypt/live/mail.example.org/cert.pem";

#[test]
fn the_pages() {
    let Some(mut reader) = Reader::at("mail.example.org", WORLD) else { return };
    let machine = &reader.machine;
    machine.world_has("203.0.113.25/32");
    let provider = machine.world(|| {
        let listener = TcpListener::bind((Ipv4Addr::new(203, 0, 113, 25), 25)).expect("an address of the world");
        Remote::start(listener, Conduct::Sink(Sink::default()))
    });
    reader.follow("penfold-server.7", &pages::page("penfold-server.7"));

    // What the provider got is signed with both keys.
    let [message] = &provider.messages(1)[..] else { panic!("more than one message") };
    assert!(message.sender.starts_with("<ann@example.org>"), "{}", message.sender);
    if let Some(signatures) = keys::verify(&message.data, &keys::read(&reader.printed())) {
        assert_eq!(signatures, ["2026a-rsa example.org True", "2026a-ed25519 example.org True"]);
    }

    #[cfg(feature = "filters")]
    reader.follow("penfold-filters.7", &pages::page("penfold-filters.7"));

    // After a renewal, both servers use the new certificate.
    let machine = &reader.machine;
    let before = machine.read(CERTIFICATE);
    machine.run("certbot renew");
    assert_ne!(machine.read(CERTIFICATE), before);
    for port in [465, 993] {
        machine.run(&format!(
            "served() {{ openssl s_client -connect 127.0.0.1:{port} < /dev/null 2> /dev/null | openssl x509; }}
             new() {{ openssl x509 -in {CERTIFICATE}; }}
             for time in $(seq 100); do [ \"$(served)\" = \"$(new)\" ] && exit; sleep 0.2; done; exit 1"
        ));
    }
}
