//! Binary messages of the SMTP client, by BDAT.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;

use super::*;
use penfold::spool::Measure;

/// A binary message as it is stored, and on the wire. The body has bare line ends, a NUL, and what
/// would end a message after DATA.
const STORED: &[u8] = b"A: b\n c\n\n\r\n.\r\n\n.\n\0\rQUIT\r\nend";
const WIRE: &[u8] = b"A: b\r\n c\r\n\r\n\r\n.\r\n\n.\n\0\rQUIT\r\nend";

/// What a server has seen: the number of connections, and the commands without EHLO and QUIT, with
/// the octets of each chunk.
pub type Seen = (usize, Vec<(String, Vec<u8>)>);

/// Serves one connection after the other, until a client sends STOP. Replies 250 to everything but
/// BDAT, whose replies are in `replies`.
pub fn serve(listener: &TcpListener, replies: &[&str]) -> Seen {
    let (mut seen, mut replies) = (Vec::new(), replies.iter());
    for connection in 0.. {
        let (stream, _) = listener.accept().expect("a client");
        let mut out = stream.try_clone().expect("a descriptor");
        let mut input = BufReader::new(stream);
        let mut reply = |text: &str| _ = out.write_all(format!("{text}\r\n").as_bytes());
        reply("220 sink.test");
        let mut line = String::new();
        while input.read_line(&mut line).is_ok_and(|count| count > 0) {
            let command = std::mem::take(&mut line).trim_end().to_owned();
            let size: Option<u64> = command.strip_prefix("BDAT ").and_then(|rest| rest.split(' ').next()?.parse().ok());
            let mut octets = Vec::new();
            // An error is the end of the connection.
            let _ = (&mut input).take(size.unwrap_or(0)).read_to_end(&mut octets);
            match command.get(..4) {
                Some("STOP") => return (connection, seen),
                Some("EHLO") => {
                    reply("250-sink.test\r\n250-PIPELINING\r\n250-SIZE\r\n250-CHUNKING\r\n250 BINARYMIME");
                    continue;
                }
                Some("QUIT") => break,
                Some("BDAT") => reply(replies.next().unwrap_or(&"250 ok")),
                _ => reply("250 ok"),
            }
            seen.push((command, octets));
        }
    }
    (0, seen)
}

/// Sends a message `count` times, whose content has `size` bytes. `measure` is the measure in its
/// head; `None` if it has none. Returns the outcomes, and what the server has seen.
fn send(
    text: &[u8],
    replies: &'static [&str],
    count: usize,
    size: usize,
    measure: Option<Measure>,
) -> (Vec<Outcome>, Seen) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let address = listener.local_addr().expect("bound");
    let server = thread::spawn(move || serve(&listener, replies));
    let mut sender = Sender::new();
    sender.body = Body::Binary;
    let letter = Letter::new(text);
    let file = File::open(&letter.0).expect("a file");
    let content = Content::new(&file, 0, size as u64).binary(true).measured(measure);
    let outcomes =
        (0..count).map(|_| sender.send(&host(address), &["elvis@x.test"], content.clone()).remove(0)).collect();
    sender.remote.close();
    let mut stream = TcpStream::connect(address).expect("the server");
    stream.write_all(b"STOP\r\n").expect("the server");
    (outcomes, server.join().expect("a server"))
}

#[test]
fn a_binary_message_is_sent_octet_for_octet() {
    let (outcomes, (connections, seen)) = send(STORED, &["250 ok", "250 ok"], 2, STORED.len(), None);
    assert!(outcomes.iter().all(|o| o.fate == Delivered), "{outcomes:?}");
    let transaction = [
        (format!("MAIL FROM:<jon@razorback.test> SIZE={} BODY=BINARYMIME", WIRE.len()), b"".to_vec()),
        ("RCPT TO:<elvis@x.test>".to_owned(), b"".to_vec()),
        (format!("BDAT {} LAST", WIRE.len()), WIRE.to_vec()),
    ];
    assert_eq!((connections, seen), (1, [transaction.clone(), transaction].concat()));
}

/// The first reply to BDAT, the fate of its message, and the number of connections for this message
/// and another one.
#[test]
fn every_reply_to_bdat_has_its_outcome() {
    for (reply, fate, connections) in [
        ("452 4.3.1 full", Deferred, 1),
        ("552 5.3.4 too big", Failed, 1),
        ("503 5.5.1 no BDAT", Failed, 1),
        ("421 4.3.2 later", Deferred, 2),
        ("354 go on", Deferred, 2),
        ("no reply", Deferred, 2),
        ("250 ok\r\n250 one more", Delivered, 2),
        ("554 no\r\n250 one more", Failed, 2),
    ] {
        let replies: &'static [&str] = Vec::leak(vec![reply, "250 ok"]);
        let (outcomes, (counted, seen)) = send(STORED, replies, 2, STORED.len(), None);
        let fates: Vec<_> = outcomes.iter().map(|outcome| outcome.fate).collect();
        assert_eq!((fates, counted), (vec![fate, Delivered], connections), "{reply}: {outcomes:?}");
        assert_eq!(seen.iter().filter(|(command, _)| command.starts_with("BDAT")).count(), 2, "{reply}: {seen:?}");
    }
}

/// The host must not take a part of a message for the whole.
#[test]
fn a_message_of_another_size_is_never_completed() {
    let text = [STORED, &[b'x'; 200_000]].concat();
    let (stored, wire) = (text.len(), WIRE.len() as u64 + 200_000);
    for (size, measured) in
        [(stored + 9, wire + 9), (stored, wire + 1), (stored, wire - 1), (stored, 100_000), (stored, 0)]
    {
        let measure = Some(Measure { size: measured, is_ascii: true, has_long_lines: false });
        let (outcomes, (_, seen)) = send(&text, &["250 ok"], 1, size, measure);
        assert!(outcomes[0].fate == Deferred && outcomes[0].why.contains("reading the message"), "{outcomes:?}");
        let chunk = seen.iter().find(|(command, _)| command.starts_with("BDAT"));
        assert!(chunk.is_none_or(|(_, octets)| (octets.len() as u64) < measured), "{measured}");
    }
}
