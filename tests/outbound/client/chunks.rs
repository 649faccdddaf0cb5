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
/// BDAT, whose replies are in `replies`. Some of them come in the wrong place: a reply that begins
/// with `RCPT: ` comes together with the reply to RCPT. A reply that begins with `early: ` comes
/// before the octets of the chunk are read. After one that begins with `unread: ` they are not read
/// at all, and the connection is closed after a while.
pub fn serve(listener: &TcpListener, replies: &[&str]) -> Seen {
    let (mut seen, mut replies) = (Vec::new(), replies.iter().peekable());
    let mut next = |place: &str| replies.next_if(|reply| reply.starts_with(place)).map(|reply| &reply[place.len()..]);
    for connection in 0.. {
        let (stream, _) = listener.accept().expect("a client");
        let mut out = stream.try_clone().expect("a descriptor");
        let mut input = BufReader::new(stream);
        let mut reply = |text: &str| _ = out.write_all(format!("{text}\r\n").as_bytes());
        reply("220 sink.test");
        let mut line = String::new();
        while input.read_line(&mut line).is_ok_and(|count| count > 0) {
            let command = std::mem::take(&mut line).trim_end().to_owned();
            let mut octets = Vec::new();
            match command.get(..4) {
                Some("STOP") => return (connection, seen),
                Some("EHLO" | "LHLO") => {
                    reply("250-sink.test\r\n250-PIPELINING\r\n250-SIZE\r\n250-CHUNKING\r\n250 BINARYMIME");
                    continue;
                }
                Some("QUIT") => break,
                Some("RCPT") => reply(&next("RCPT: ").map_or("250 ok".to_owned(), |more| format!("250 ok\r\n{more}"))),
                Some("BDAT") => {
                    if let Some(text) = next("unread: ") {
                        reply(text);
                        seen.push((command, octets));
                        thread::sleep(2 * LIMIT);
                        break;
                    }
                    let early = next("early: ");
                    early.iter().for_each(|text| reply(text));
                    let size = command.split(' ').nth(1).and_then(|size| size.parse().ok()).expect("a size");
                    // An error is the end of the connection.
                    let _ = (&mut input).take(size).read_to_end(&mut octets);
                    if early.is_none() {
                        reply(next("").unwrap_or("250 ok"));
                    }
                }
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
    let letter = Letter::new(text);
    let file = File::open(&letter.0).expect("a file");
    let content = Content::new(&file, 0, size as u64).binary(true).measured(measure);
    with_server(replies, |sender, address| {
        let outcome = |_| sender.send(&host(address), &["elvis@x.test"], content.clone()).remove(0);
        (0..count).map(outcome).collect()
    })
}

/// Sends binary messages to a server with `send`, which gets the server's address. Returns the
/// outcomes, and what the server has seen.
fn with_server(
    replies: &'static [&str],
    send: impl FnOnce(&mut Sender, SocketAddr) -> Vec<Outcome>,
) -> (Vec<Outcome>, Seen) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let address = listener.local_addr().expect("bound");
    let server = thread::spawn(move || serve(&listener, replies));
    let mut sender = Sender::new();
    sender.body = Body::Binary;
    let outcomes = send(&mut sender, address);
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

/// A reply in the wrong place, the fate of its message and its reason. The message is larger than the
/// buffers of the sockets. The next message takes another connection, so that the stray reply is not
/// taken for one of its own.
#[test]
fn a_reply_in_the_wrong_place_never_counts_for_the_message() {
    let text = [STORED, &vec![b'x'; 12 << 20]].concat();
    for (reply, fate, why) in [
        ("RCPT: 250 ok", Deferred, "the host spoke out of turn"),
        ("RCPT: 552 5.3.4 too big", Deferred, "552 5.3.4 too big"),
        ("early: 250 ok", Deferred, "the host spoke out of turn"),
        ("early: 452 4.3.1 full", Deferred, "452 4.3.1 full"),
        ("early: 552 5.3.4 too big", Failed, "552 5.3.4 too big"),
        ("unread: 250 ok", Deferred, "timed out while sending the message"),
        ("unread: 452 4.3.1 full", Deferred, "452 4.3.1 full"),
        ("unread: 552 5.3.4 too big", Failed, "552 5.3.4 too big"),
    ] {
        let replies: &'static [&str] = Vec::leak(vec![reply, "250 ok"]);
        let (outcomes, (connections, seen)) = send(&text, replies, 2, text.len(), None);
        assert_eq!((outcomes[0].fate, connections), (fate, 2), "{reply}: {outcomes:?}");
        assert!(outcomes[0].why.contains(why), "{reply}: {outcomes:?}");
        // The host never has the whole of the first message, and it has the second one.
        let whole = seen.iter().filter(|(_, octets)| octets.len() >= text.len()).count();
        assert_eq!((outcomes[1].fate, whole), (Delivered, 1), "{reply}: {outcomes:?}");
    }
}

/// A mail store has one reply for each recipient after the last chunk. The replies, the fates of three
/// recipients, and the number of connections for this message and another one.
#[test]
fn a_store_replies_about_each_recipient_after_bdat() {
    for (reply, fates, status, connections) in [
        ("250 a\r\n552 5.2.2 full\r\n451 4.3.0 later", [Delivered, Failed, Deferred], "4.3.0", 1),
        ("250 a\r\n552 5.2.2 full", [Delivered, Failed, Deferred], "4.4.2", 2),
        ("250 a\r\n421 4.3.2 down", [Delivered, Deferred, Deferred], "4.3.2", 2),
        ("421 4.3.2 down", [Deferred; 3], "4.3.2", 2),
        ("250 a\r\n250 b\r\n250 c\r\n550 d", [Delivered; 3], "2.0.0", 2),
    ] {
        let replies: &'static [&str] = Vec::leak(vec![reply, "250 a\r\n250 b\r\n250 c"]);
        let letter = Letter::new(STORED);
        let file = File::open(&letter.0).expect("a file");
        let content = Content::new(&file, 0, STORED.len() as u64).binary(true);
        let (outcomes, (counted, seen)) = with_server(replies, |sender, address| {
            let to = store(&format!("//{address}"));
            let recipients = ["ann@x.test", "bob@x.test", "cyd@x.test"];
            (0..2).flat_map(|_| sender.send(&to, &recipients, content.clone())).collect()
        });
        let found: Vec<_> = outcomes.iter().map(|outcome| outcome.fate).collect();
        assert_eq!((found, counted), ([fates, [Delivered; 3]].concat(), connections), "{reply}: {outcomes:?}");
        assert_eq!(outcomes[2].status.to_string(), status, "{reply}: {outcomes:?}");
        let chunks: Vec<_> = seen.iter().filter(|(command, _)| command.starts_with("BDAT")).collect();
        assert!(chunks.len() == 2 && chunks.iter().all(|(_, octets)| octets == WIRE), "{reply}: {seen:?}");
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
