//! penfold-growing(7): from one host to many. The machine plays the mail store, the hosts mx1 and mx2,
//! and the world plays the front.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use common::client::Client;
use common::{Site, haproxy, pages};
use socket2::{Domain, Socket, Type};

use crate::reader::Reader;

const PAGE: &str = "penfold-growing.7";

/// The rest of the world.
const WORLD: &str = "friend.example MX 10 mx.friend.example\nmx.friend.example A 192.0.2.1\n\
    1.2.0.192.in-addr.arpa PTR mx.friend.example\nfriend.example TXT v=spf1 mx ip4:203.0.113.9 -all\n\
    25.2.0.192.in-addr.arpa PTR mail.example.org\n";

/// The address of the front.
const FRONT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 8)), 25);

/// The address of a client.
const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// A client of the front.
fn client(reader: &Reader) -> Client {
    reader.machine.world(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((CLIENT, 0)).into()).expect("an address of the world");
        socket.connect(&FRONT.into()).expect("the front listens");
        let mut client = Client::new(TcpStream::from(socket));
        client.ehlo();
        client
    })
}

#[test]
fn the_page() {
    let Some(mut reader) = Reader::at("mail.example.org", WORLD) else { return };
    // What the page takes from penfold-server(7).
    reader.machine.install(&["dovecot-imapd", "dovecot-lmtpd", "curl"]);
    reader.machine.run("certbot certonly -d mail.example.org");
    reader.machine.run("ip address add 192.0.2.11/32 dev lo");
    // The front, hosts that are down, and a client.
    for address in ["192.0.2.8/32", "192.0.2.12/32", "192.0.2.13/32", "203.0.113.9/32"] {
        reader.machine.world_has(address);
    }
    let page = pages::page(PAGE);
    let (page, death) = page.split_once(".Ss A host dies\n").expect("a section");
    reader.follow(PAGE, page);

    // The front passes mail on to the only host that is up, which sees the client.
    let route = ["route", "add", "192.0.2.11/32", "dev", "world", "src", "192.0.2.8"];
    assert!(reader.machine.in_world("ip").args(route).status().expect("ip").success());
    let site = Site::new();
    let hosts = [11, 12, 13].map(|last| SocketAddr::from(([192, 0, 2, last], 25)));
    haproxy::configure(&site, FRONT, &hosts);
    let Some(_haproxy) = reader.machine.world(|| haproxy::start(&site)) else { return };
    client(&reader).send("greg@friend.example", &["ann@example.org"], "Subject: three\r\n\r\nhello\r\n");
    reader.machine.run(
        "timeout 20 sh -c 'until doveadm fetch -u ann@example.org hdr.received subject three | grep -F 203.0.113.9
         do sleep 0.1; done'",
    );

    // The host dies with a message that waits for the store.
    reader.machine.run("systemctl stop dovecot");
    client(&reader).send("greg@friend.example", &["ann@example.org"], "Subject: four\r\n\r\nhello\r\n");
    reader.machine.run(
        "systemctl kill -s KILL penfold; systemctl stop penfold; mkdir /srv/mx1; mv /var/spool/penfold /srv/mx1
         systemctl start dovecot penfold",
    );
    reader.follow(PAGE, death);
    reader.machine.run("doveadm fetch -u ann@example.org hdr.subject subject four | grep four");
}
