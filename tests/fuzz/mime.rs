//! Converted messages: from pieces of messages, and mutated. Whatever comes in, the result can be
//! sent, and converting it again changes nothing.

use super::{mutate, repeat};
use common::chance::Chance;
use penfold::message::mime::{Conversion, Unconvertible, convert};

/// A text from pieces that mean something in a message.
fn text(chance: &mut Chance) -> Vec<u8> {
    const PIECES: [&str; 34] = [
        "Content-Type: multipart/mixed; boundary=a\n",
        "Content-Type: multipart/digest; boundary=\"b c\"\n",
        "Content-Type: multipart/signed; boundary=a\n",
        "Content-Type: message/rfc822\n",
        "Content-Type: text/plain; charset*0*=us-ascii''a\n",
        "Content-Type: multipart/mixed; boundary*1=c; boundary*0*=''b%20\n",
        "Content-Transfer-Encoding: 8bit\n",
        "Content-Transfer-Encoding: quoted-printable\n",
        "Content-Transfer-Encoding: base64\n",
        "Content-Transfer-Encoding: x-odd\n",
        "MIME-Version: 1.0\n",
        "From x\n",
        "Subject: x\n y\n",
        "Subject: \u{fc}\n",
        "\n",
        "\n\n",
        "\n--a\n",
        "\n--a--\n",
        "\n--b c \t\n",
        "\n--b c--\n",
        "--a\n",
        "\r\n",
        "\r",
        "text",
        " ",
        "=",
        "=3D",
        "--",
        "\u{fc}",
        "\0",
        "\t\n",
        "Content-Type: multipart/mixed; boundary*=''a%0D\n",
        "\n--a\r\r\n",
        "\n--a\r--\r\n",
    ];
    let mut text = Vec::new();
    for _ in 0..chance.of(0..40) {
        match chance.of(0..30) {
            0 => text.extend(std::iter::repeat_n(*chance.pick(b"x =-\xff\n\r"), chance.of(900..2200))),
            1 => text.extend(chance.octets(0..40)),
            _ => text.extend(chance.pick(&PIECES).bytes()),
        }
    }
    if chance.percent(50) { mutate(chance, &text) } else { text }
}

fn converted(text: &[u8], conversion: Conversion) -> Result<Vec<u8>, Unconvertible> {
    let mut out = Vec::new();
    convert(|| text, conversion, &|_| false, &mut out).expect("memory").map(|()| out)
}

#[test]
fn a_converted_message_can_be_sent_and_stays_the_same() {
    let mut counts = [0_u64; 2];
    repeat(|chance| {
        let text = text(chance);
        let conversion = Conversion { is_binary: chance.percent(50), keeps_eight_bit: chance.percent(30) };
        let out = match converted(&text, conversion) {
            Ok(out) => out,
            Err(why) => {
                assert_ne!(why, Unconvertible::Unfit, "{conversion:?}\n{:?}", String::from_utf8_lossy(&text));
                return counts[0] += 1;
            }
        };
        counts[1] += 1;
        let shown =
            || format!("{conversion:?}\n{:?}\n{:?}", String::from_utf8_lossy(&text), String::from_utf8_lossy(&out));
        assert!(!out.contains(&b'\r') && !out.contains(&0), "{}", shown());
        assert!(conversion.keeps_eight_bit || out.is_ascii(), "{}", shown());
        assert!(out.split(|&b| b == b'\n').all(|line| line.len() <= 998), "{}", shown());
        let again = converted(&out, Conversion { is_binary: false, ..conversion });
        let again = again.map(|text| String::from_utf8_lossy(&text).into_owned());
        assert_eq!(again.as_deref(), Ok(&*String::from_utf8_lossy(&out)), "{}", shown());
    });
    assert!(counts[0] > 0 && counts[1] > counts[0] / 4, "{counts:?}");
}
