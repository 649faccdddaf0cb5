//! penfold-containers(7): a server in a container, with Podman.

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use common::client::Client;
use common::debian::{ADDRESS, WORLD};
use common::{built, pages};

use crate::reader::Reader;

/// The domain of a client.
const CLIENT: &str = "example.net MX 10 mx.example.net\nmx.example.net A 203.0.113.25\n";

#[test]
fn the_page() {
    let Some(mut reader) = Reader::at("mail.example.org", CLIENT) else { return };
    source_at(&reader);
    reader.machine.install(&["podman", "make"]);
    let registry = fs::read_to_string(built::source("tests/howto/registry.sh")).expect("a script");
    reader.machine.write("/root/registry.sh", &registry);
    reader.machine.run("sh registry.sh");
    reader.follow("penfold-containers.7", &pages::page("penfold-containers.7"));
    is_confined(&reader);
    serves_others(&reader);
}

/// Copies the source of penfold to where the page has it.
fn source_at(reader: &Reader) {
    let place = reader.machine.path("/root/penfold");
    fs::create_dir(&place).expect("a directory");
    let parts = ["Cargo.toml", "Cargo.lock", "Makefile", "README", "NEWS", "LICENSE", "etc", "man", "src", "tests"];
    let copied = Command::new("cp").arg("-R").args(parts.map(built::source)).arg(&place).status();
    assert!(copied.expect("cp").success());
}

/// The server has no rights, and writes to its volumes only.
fn is_confined(reader: &Reader) {
    let status = reader.machine.run("podman exec penfold cat /proc/1/status");
    let has = |line: &str| status.lines().any(|has| has.split_whitespace().eq(line.split_whitespace()));
    assert!(has("Uid: 10025 10025 10025 10025") && has("CapBnd: 0000000000000000") && has("NoNewPrivs: 1"), "{status}");
    for path in ["/etc/penfold/new", "/usr/sbin/new", "/new", "/home/new"] {
        assert!(!reader.machine.shell(&format!("podman exec penfold touch {path}")).status.success(), "{path}");
    }
    reader
        .machine
        .run("podman exec penfold touch /var/spool/penfold/new/x && podman exec penfold rm /var/spool/penfold/new/x");
}

/// A host of the world sends mail to port 25, and the server sees its address. If the server cannot
/// be asked, the container is not healthy.
fn serves_others(reader: &Reader) {
    let machine = &reader.machine;
    machine.world(|| {
        let stream = TcpStream::connect((ADDRESS, 25)).expect("the port is mapped");
        let mut client = Client::new(stream);
        client.ehlo();
        client.send("jon@example.net", &["ann@example.org"], "Subject: from the world\r\n\r\nhello\r\n");
        let submission = TcpStream::connect((ADDRESS, 587)).expect("the port is mapped");
        assert!(Client::new(submission).ehlo().iter().any(|line| line.contains("STARTTLS")));
    });
    let arrived = "for i in $(seq 200); do podman exec penfold grep -rq 'from the world' /var/mail/ann/new && exit; \
                   sleep 0.1; done; exit 1";
    machine.run(arrived);
    let log = machine.run("podman logs penfold 2>&1");
    assert!(log.contains(&format!("peer=unknown[{WORLD}] ")), "{log}");
    machine.run("podman exec penfold rm /run/penfold/penfold.sock");
    assert!(!machine.shell("podman healthcheck run penfold").status.success());
}
