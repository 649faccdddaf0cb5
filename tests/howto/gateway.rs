//! penfold-gateway(7): a relay in front of a mail store, and a backup mail exchanger.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use common::client::Client;
use common::pages;
use common::remote::{Conduct, Remote, Sink};
use socket2::{Domain, Socket, Type};

use crate::reader::Reader;

/// The rest of the world.
const WORLD: &str = "example.net MX 10 mx.example.net\nmx.example.net A 203.0.113.9\n\
    9.113.0.203.in-addr.arpa PTR mx.example.net\nexample.net TXT v=spf1 a:mx.example.net -all\n";

const GATE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(common::debian::ADDRESS), 25);

/// A client at an address of the world, which has said EHLO to the gateway.
fn client(reader: &Reader, address: Ipv4Addr) -> Client {
    reader.machine.world(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((address, 0)).into()).expect("an address of the world");
        socket.connect(&GATE.into()).expect("the gateway listens");
        let mut client = Client::new(TcpStream::from(socket));
        client.ehlo();
        client
    })
}

fn serves(reader: &Reader, address: Ipv4Addr, port: u16, conduct: Sink) -> Remote {
    reader.machine.world(|| {
        let listener = TcpListener::bind((address, port)).expect("an address of the world");
        Remote::start(listener, Conduct::Sink(conduct))
    })
}

#[test]
fn the_page() {
    let Some(mut reader) = Reader::at("gate.example.org", WORLD) else { return };
    let (store, friend, stranger) =
        (Ipv4Addr::new(192, 0, 2, 30), common::debian::WORLD, Ipv4Addr::new(203, 0, 113, 9));
    reader.machine.world_has("192.0.2.30/32");
    reader.machine.world_has("203.0.113.9/32");
    let at_store = serves(&reader, store, 24, Sink::store());
    let at_friend = serves(&reader, friend, 25, Sink::default());
    reader.follow("penfold-gateway.7", &pages::page("penfold-gateway.7"));
    assert_eq!((at_store.messages(1).len(), at_friend.messages(1).len()), (1, 1));
    // What strangers get.
    for (recipient, reply) in [
        ("jon@example.org", "250 "),
        ("jon+list@example.org", "250 "),
        ("elvis@example.org", "550 5.1.1 <elvis@example.org> User unknown"),
        ("any@friend.example", "250 "),
        ("x@sub.friend.example", "550 5.7.1 "),
        ("greg@example.net", "550 5.7.1 "),
    ] {
        let mut client = client(&reader, stranger);
        client.ask("MAIL FROM:<greg@example.net>", "250 ");
        client.ask(&format!("RCPT TO:<{recipient}>"), reply);
    }
    // The store sends mail to everyone.
    let mut outgoing = client(&reader, store);
    outgoing.ask("MAIL FROM:<jon@example.org>", "250 ");
    outgoing.ask("RCPT TO:<greg@example.net>", "250 ");
    // While the friend is down, mail waits, and comes when it is asked for.
    drop(at_friend);
    let mut sender = client(&reader, stranger);
    sender.send("greg@example.net", &["anna@friend.example"], "Subject: x\r\n\r\nhello\r\n");
    reader.machine.run(
        "timeout 20 sh -c 'until penfoldctl queue --domain friend.example | grep -q deferred; do sleep 0.1; done'",
    );
    let at_friend = serves(&reader, friend, 25, Sink::default());
    let mut asks = client(&reader, friend);
    asks.ask("ETRN friend.example", "25");
    assert_eq!(at_friend.messages(1).len(), 1);
}
