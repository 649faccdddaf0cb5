//! TLS as a server, with random octets in place of a handshake or of the data after the handshake.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use common::TIMEOUT;
use common::chance::Chance;
use common::tls::Authority;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::repeat_in_threads;

/// The longest session. A handshake, a command, a reply and the close of the connection may take a
/// second each; the rest is for a busy machine.
const MAX_SESSION: Duration = Duration::from_secs(8);

/// The session ends in time even if the client keeps its end open, and the daemon continues.
#[test]
fn random_octets_end_one_session_and_nothing_else() {
    let authority = Authority::new();
    let site = authority.site("listen.tls = \"implicit\"\nlimits.command_timeout = \"1s\"");
    let daemon = site.start();
    let connect = || {
        let stream = daemon.connect();
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        stream
    };
    repeat_in_threads(12, |_, chance| disturbed(&authority, connect(), chance));
    let (mut stream, name) = (connect(), ServerName::try_from("razorback.test").expect("a name"));
    let mut client = ClientConnection::new(authority.client(), name).expect("a client");
    let mut banner = [0; 4];
    rustls::Stream::new(&mut client, &mut stream).read_exact(&mut banner).expect("a banner");
    let log = daemon.log();
    assert!(banner == *b"220 " && !log.contains("bug: ") && log.contains("tls-failed"), "{log}");
}

/// Plays a client that performs a part of a handshake, perhaps with wrong octets, and then sends
/// random octets.
fn disturbed(authority: &Authority, stream: TcpStream, chance: &mut Chance) {
    let (start, name) = (Instant::now(), ServerName::try_from("razorback.test").expect("a name"));
    let mut client = ClientConnection::new(authority.client(), name).expect("a client");
    for _ in 0..chance.of(0..4) {
        let mut words = Vec::new();
        let _ = client.write_tls(&mut words);
        let at = chance.of(0..200);
        if chance.percent(25)
            && let Some(octet) = words.get_mut(at)
        {
            *octet ^= 1 << chance.of(0..8);
        }
        if (&stream).write_all(&words).is_err() || client.wants_write() {
            break;
        }
        let _ = client.read_tls(&mut &stream);
        if client.process_new_packets().is_err() {
            break;
        }
    }
    // If the handshake is complete, the random octets may be sent encrypted.
    if !client.is_handshaking() && chance.percent(50) {
        let _ = client.writer().write_all(&chance.octets(0..600));
        let _ = client.write_tls(&mut &stream);
    }
    if chance.percent(70) {
        let mut garbage = chance.octets(0..600);
        // A TLS record's header announces more content than ever follows.
        if chance.percent(30) {
            garbage.splice(0..0, [*chance.pick(&[20, 21, 22, 23]), 3, 3, 0x40, 0]);
        }
        let _ = (&stream).write_all(&garbage);
    }
    if chance.percent(75) {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut received = Vec::new();
    let ended = (&stream).take(1 << 16).read_to_end(&mut received);
    let is_late = ended.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    assert!(!is_late && start.elapsed() < MAX_SESSION, "{:?}", start.elapsed());
}
