//! Messages in random chunks: the reader alone, and the daemon.

use common::Site;
use common::chance::Chance;
use common::client::Client;
use penfold::smtp::chunk::{Chunk, ChunkReader};

use super::{mutate, repeat, seed};

/// The text, the binary body, and whether the message is flawed.
type Message = (Vec<u8>, Vec<u8>, bool);

fn read(pieces: &[&[u8]], is_binary: bool) -> Message {
    let (mut reader, mut text, mut body) = (ChunkReader::new(is_binary), Vec::new(), Vec::new());
    pieces.iter().for_each(|piece| body.extend_from_slice(reader.feed(piece, &mut text)));
    reader.finish(&mut text);
    (text, body, reader.is_flawed())
}

/// A text in which ends of lines and lookalikes of them are frequent.
fn text(chance: &mut Chance) -> Vec<u8> {
    let words: &[&[u8]] = &[b"\r\n", b"\r\n", b"\r\n", b"a: b", b".", b" ", b"\r", b"\n", b"\0", b"\xff"];
    // Half of the texts have no flaw.
    let words = if chance.percent(50) { &words[..6] } else { words };
    (0..chance.of(0..20)).flat_map(|_| chance.pick(words).to_vec()).collect()
}

/// The boundaries between chunks mean nothing, a flaw is always found, and no octet of a valid
/// message is lost.
#[test]
fn a_message_is_the_same_in_all_chunks() {
    repeat(|chance| {
        let (wire, is_binary) = (text(chance), chance.percent(50));
        let shown = wire.escape_ascii();
        let whole = read(&[&wire], is_binary);
        assert_eq!(read(&chance.pieces(&wire, 8), is_binary), whole, "{shown}");
        let (text, body, is_flawed) = whole;
        let lines = wire.strip_suffix(&body[..]).expect("the end is the body");
        let without = lines.escape_ascii().to_string().replace("\\r\\n", "");
        assert_eq!(is_flawed, without.contains("\\r") || without.contains("\\n"), "{shown}");
        if !is_flawed {
            let restored = String::from_utf8_lossy(&text).replace('\n', "\r\n");
            let lines = String::from_utf8_lossy(lines);
            assert!(restored == lines || (body.is_empty() && restored == format!("{lines}\r\n")), "{shown}");
        }
        let argument = mutate(chance, b"18446744073709551615 LAST");
        if let Some(Chunk { size, is_last }) = Chunk::parse(&argument) {
            let printed = format!("{size}{}", if is_last { " LAST" } else { "" });
            assert_eq!(Chunk::parse(printed.as_bytes()), Some(Chunk { size, is_last }), "{}", argument.escape_ascii());
        }
    });
}

/// Every chunk gets one reply, also after an error. A message is accepted if and only if it has no
/// flaw. Its octets are never taken for commands.
#[test]
fn every_chunk_gets_its_reply() {
    let site = Site::new();
    let daemon = site.start();
    let mut chance = Chance::new(seed(), "");
    let mut accepted = 0;
    for _ in 0..100 {
        let mut client = Client::before_banner(daemon.connect());
        client.expect("220 ");
        client.ehlo();
        let body = [b"QUIT\r\nA: b\r\n", &text(&mut chance)[..]].concat();
        let pieces = chance.pieces(&body, 6);
        let mut sent = b"MAIL FROM:<jon@razorback>\r\nRCPT TO:<jon@razorback>\r\n".to_vec();
        for (number, piece) in pieces.iter().enumerate() {
            let last = if number + 1 == pieces.len() { " LAST" } else { "" };
            sent.extend_from_slice(format!("BDAT {}{last}\r\n", piece.len()).as_bytes());
            sent.extend_from_slice(piece);
        }
        sent.extend_from_slice(b"QUIT\r\n");
        chance.pieces(&sent, 5).iter().for_each(|piece| client.send_bytes(piece));
        let shown = sent.escape_ascii();
        client.expect("250 2.1.0 ");
        client.expect("250 2.1.5 ");
        let replies: Vec<String> = pieces.iter().map(|_| client.read_line().expect("a reply")).collect();
        client.expect("221 ");
        client.expect_end();
        let is_valid = !read(&[&body], false).2 && !body.contains(&0);
        let is_accepted = replies.last().is_some_and(|reply| reply.contains("accepted"));
        assert!(is_accepted == is_valid, "{replies:?} {shown}");
        let is_in_order =
            replies.iter().skip_while(|reply| reply.starts_with("250 2.0.0 ")).all(|r| r.starts_with("554 "));
        assert!(is_in_order, "{replies:?} {shown}");
        accepted += usize::from(is_accepted);
    }
    assert!(accepted > 10, "only {accepted} accepted messages");
    assert_eq!(daemon.wait_mail(&site, "jon", accepted).len(), accepted);
}
