//! Converted messages: Python's email package finds the same parts with the same octets as before,
//! and signed parts are still valid for openssl and gpg.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use common::chance::Chance;
use common::programs::{feed, python};
use data_encoding::BASE64;
use penfold::message::mime::{Conversion, Unconvertible, convert};

/// The number of random messages.
const MESSAGES: usize = 1000;

fn converted(text: &[u8], conversion: Conversion) -> Result<Vec<u8>, Unconvertible> {
    let mut out = Vec::new();
    convert(|| text, conversion, &|_| false, &mut out).expect("memory").map(|()| out)
}

/// A text as it is sent.
fn wire(text: &[u8]) -> Vec<u8> {
    let mut wire: Vec<u8> = text.iter().flat_map(|&b| if b == b'\n' { vec![b'\r', b'\n'] } else { vec![b] }).collect();
    if !text.ends_with(b"\n") {
        wire.extend(b"\r\n");
    }
    wire
}

/// Makes random messages.
struct Writer<'a> {
    chance: &'a mut Chance,
    /// The end of a line in the body.
    end: &'static str,
    is_binary: bool,
    boundaries: usize,
    parts: usize,
}

impl Writer<'_> {
    /// The content of a part.
    fn content(&mut self, is_ascii: bool) -> Vec<u8> {
        const PIECES: [&str; 14] =
            ["a word", "=", "=3D", " ", "\t", "--", "--=_b", "From x", ".", "..", "\u{7f}", "\u{1b}", "end", "=\n"];
        let chance = &mut *self.chance;
        let mut text = Vec::new();
        for _ in 0..chance.of(0..12) {
            match chance.of(0..12) {
                0..4 => text.extend(chance.pick(&PIECES).replace('\n', self.end).bytes()),
                4..8 => text.extend(self.end.bytes()),
                8 => text.extend(std::iter::repeat_n(b'x', chance.of(1..1200))),
                9 if !is_ascii => text.extend("gr\u{fc}\u{df}e \u{416}".bytes()),
                10 if !is_ascii => text.extend(chance.octets(0..300).iter().map(|b| b | 0x80)),
                11 if !is_ascii && self.is_binary => text.extend(chance.octets(0..300)),
                _ => text.extend(b"text"),
            }
        }
        text
    }

    /// A header with these fields, and a part's or a message's body.
    fn leaf(&mut self, is_typed: bool, out: &mut Vec<u8>) {
        const TYPES: [&str; 6] = [
            "text/plain; charset=utf-8",
            "TEXT/HTML;\n charset=\"iso-8859-1\"",
            "application/octet-stream; name=\"a;b\"",
            "image/png (a comment)",
            "audio/x; a*=us-ascii'en'b%20c",
            "nonsense",
        ];
        let content = self.content(false);
        let content = &content[..];
        let fits = content.is_ascii() && !content.iter().any(|b| matches!(b, 0 | b'\r'));
        let (encoding, body) = match self.chance.of(0..6) {
            0 => (Some("base64"), self.base64(content)),
            1 if !self.is_binary => {
                let escaped = content.iter().flat_map(|&b| if b == b'=' { b"=3D".to_vec() } else { vec![b] });
                (Some("Quoted-Printable"), escaped.chain(*b"=\nx").collect())
            }
            2 if fits => (Some("7bit"), content.to_vec()),
            2 | 3 => (Some(if self.is_binary { "binary" } else { "8bit" }), content.to_vec()),
            _ => (None, content.to_vec()),
        };
        if is_typed || self.chance.percent(70) {
            out.extend(format!("Content-Type: {}\n", self.chance.pick(&TYPES)).bytes());
        }
        if let Some(encoding) = encoding {
            out.extend(format!("Content-Transfer-Encoding: {encoding}\n").bytes());
        }
        if self.chance.percent(20) {
            out.extend(format!("X-Long: {} {}\n", "x".repeat(600), "y".repeat(600)).bytes());
        }
        out.push(b'\n');
        out.extend(body);
    }

    fn base64(&mut self, content: &[u8]) -> Vec<u8> {
        let width = *self.chance.pick(&[76, 2000]);
        let encoded = BASE64.encode(content);
        encoded.as_bytes().chunks(width).flat_map(|line| [line, self.end.as_bytes()].concat()).collect()
    }

    fn part(&mut self, depth: usize, is_typed: bool, out: &mut Vec<u8>) {
        self.parts += 1;
        match self.chance.of(0..10) {
            0..4 if depth < 4 => self.multipart(depth, out),
            4 if depth < 4 => {
                out.extend(b"Content-Type: message/rfc822\n\nSubject: enclosed\n");
                self.part(depth + 1, false, out);
            }
            5 if depth > 0 => {
                out.extend(b"Content-Type: multipart/signed; boundary=\"=_signed\"\n\n--=_signed\n\n");
                let content = self.content(true);
                out.extend(
                    content
                        .split(|&b| b == b'\n')
                        .map(|line| &line[..line.len().min(900)])
                        .collect::<Vec<_>>()
                        .join(&b'\n'),
                );
                out.extend(b"\n--=_signed\nContent-Type: application/x-signature\n\nsignature\n--=_signed--\n");
            }
            _ => self.leaf(is_typed, out),
        }
    }

    fn multipart(&mut self, depth: usize, out: &mut Vec<u8>) {
        self.boundaries += 1;
        let boundary = format!("=_b{}_ x", self.boundaries);
        let kind = *self.chance.pick(&["mixed", "alternative", "Related", "digest"]);
        let parameter = match self.chance.of(0..3) {
            0 => format!("boundary=\"{boundary}\""),
            1 => format!("x=y;\n\tBoundary = \"{boundary}\" ; z"),
            _ => format!("boundary*0*=us-ascii''{}; boundary*1=x", boundary[..boundary.len() - 1].replace(' ', "%20")),
        };
        out.extend(format!("Content-Type: multipart/{kind}; {parameter}\n").bytes());
        if self.chance.percent(30) {
            out.extend(b"Content-Transfer-Encoding: 8bit\n");
        }
        out.extend(b"\n");
        if self.chance.percent(30) {
            out.extend("Pr\u{e4}ambel\n".bytes());
        }
        for _ in 0..self.chance.of(1..4) {
            out.extend(format!("--{boundary}\n").bytes());
            self.part(depth + 1, kind == "digest", out);
            out.extend(b"\n");
        }
        if self.chance.percent(90) {
            out.extend(format!("--{boundary}--\n").bytes());
        }
    }
}

/// A random message, as it is stored and as it is sent.
fn message(chance: &mut Chance, is_binary: bool) -> (Vec<u8>, Vec<u8>) {
    let end = if is_binary { "\r\n" } else { "\n" };
    let mut writer = Writer { chance, end, is_binary, boundaries: 0, parts: 0 };
    let mut text = b"From: jon@example.org\nSubject: x\n".to_vec();
    if writer.chance.percent(80) {
        text.extend(b"MIME-Version: 1.0\n");
    }
    writer.part(0, false, &mut text);
    if !is_binary {
        return (text.clone(), wire(&text));
    }
    // All line ends of the structure become CR LF, in the stored form only those of the body.
    let header = text.windows(2).position(|pair| pair == b"\n\n").map_or(text.len(), |at| at + 2);
    let mut body = Vec::new();
    for (at, &b) in text.iter().enumerate().skip(header) {
        if b == b'\n' && text[at - 1] != b'\r' {
            body.push(b'\r');
        }
        body.push(b);
    }
    let stored = [&text[..header], &body].concat();
    (stored, [wire(&text[..header]), body].concat())
}

#[test]
fn python_finds_the_same_parts_with_the_same_octets() {
    let (mut pairs, mut kept) = (String::new(), 0);
    for number in 0..MESSAGES {
        let mut chance = Chance::new(number as u64, "mime");
        let (is_binary, keeps_eight_bit) = (number % 3 == 0, number % 5 == 0);
        let (stored, sent) = message(&mut chance, is_binary);
        let out = match converted(&stored, Conversion { is_binary, keeps_eight_bit }) {
            Ok(out) => out,
            Err(Unconvertible::Encoding) => continue,
            Err(why) => panic!("{number}: {why}\n{}", String::from_utf8_lossy(&stored)),
        };
        assert!(keeps_eight_bit || out.is_ascii(), "{number}");
        assert!(out.split(|&b| b == b'\n').all(|line| line.len() <= 998), "{number}");
        kept += 1;
        writeln!(pairs, "{number} {} {}", BASE64.encode(&sent), BASE64.encode(&wire(&out))).expect("a string");
    }
    assert!(kept > MESSAGES * 3 / 4, "{kept}");
    let Some(output) = python("interop/mime_parts.py", pairs.as_bytes()) else { return };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said == format!("{kept} messages are the same\n"), "{said}{output:?}");
}

/// Runs a program in a directory, and returns its output if it succeeds.
fn run(directory: &Path, words: &[&str], input: &[u8]) -> Output {
    feed(Command::new(words[0]).args(&words[1..]).current_dir(directory).env("GNUPGHOME", directory), input)
}

/// A message that has a signed part and a part with octets above 127, converted.
fn with_signed(signed: &str) -> String {
    let text = format!(
        "From: jon@example.org\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=outer\n\n--outer\n{signed}\n\
         --outer\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGr\u{fc}\u{df}e aus der Ferne\n--outer--\n"
    );
    let out = converted(text.as_bytes(), Conversion { is_binary: false, keeps_eight_bit: false }).expect("converted");
    let out = String::from_utf8(out).expect("ASCII");
    assert!(out.contains("Gr=C3=BC=C3=9Fe"));
    let (_, rest) = out.split_once("--outer\n").expect("a boundary");
    rest.split("\n--outer\n").next().unwrap_or_default().to_owned()
}

/// A part that a signature covers. It has blanks at line ends, and its label says 8bit.
const SIGNED: &str = "Content-Type: text/plain\nContent-Transfer-Encoding: 8bit\n\nsigned =3D text \n-- \nFrom: me";

#[test]
fn signed_parts_are_still_valid() {
    let directory = std::env::temp_dir().join(format!("penfold-mime-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a scratch directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let cr_lf = |text: &str| text.replace('\n', "\r\n");
    fs::write(directory.join("content"), cr_lf(SIGNED)).expect("a file");

    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out certificate -subj /CN=jon";
    assert!(run(&directory, &make.split(' ').collect::<Vec<_>>(), b"").status.success());
    let sign = "openssl smime -sign -binary -in content -signer certificate -inkey key";
    let signed = run(&directory, &sign.split(' ').collect::<Vec<_>>(), b"");
    let signed = String::from_utf8(signed.stdout).expect("ASCII").replace('\r', "");
    let part = with_signed(signed.strip_prefix("MIME-Version: 1.0\n").expect("a message"));
    let verify: Vec<_> = "openssl smime -verify -noverify".split(' ').collect();
    let is_valid = |part: &str| run(&directory, &verify, cr_lf(part).as_bytes()).status.success();
    assert!(is_valid(&part) && !is_valid(&part.replace("8bit", "7bit")), "{part}");

    if Command::new("gpg").arg("--version").output().is_err() {
        common::skipped("gpg is not installed");
        return fs::remove_dir_all(&directory).expect("it is ours");
    }
    let key =
        ["gpg", "-q", "--batch", "--passphrase", "", "--quick-gen-key", "jon@example.org", "ed25519", "sign", "never"];
    assert!(run(&directory, &key, b"").status.success());
    let signature = run(&directory, &["gpg", "-q", "--batch", "--armor", "--detach-sign"], cr_lf(SIGNED).as_bytes());
    let signature = String::from_utf8(signature.stdout).expect("ASCII");
    let part = with_signed(&format!(
        "Content-Type: multipart/signed; micalg=pgp-sha512; protocol=\"application/pgp-signature\"; boundary=in\n\n\
         --in\n{SIGNED}\n--in\nContent-Type: application/pgp-signature\n\n{signature}\n--in--\n"
    ));
    let mut pieces = part.split("--in\n").skip(1);
    let content = pieces.next().and_then(|text| text.strip_suffix('\n')).expect("a part");
    let signature = pieces.next().and_then(|text| text.split_once("\n\n")).expect("a signature").1;
    fs::write(directory.join("signature"), signature.replace("--in--\n", "")).expect("a file");
    let is_valid = |content: &str| {
        run(&directory, &["gpg", "-q", "--batch", "--verify", "signature", "-"], cr_lf(content).as_bytes())
            .status
            .success()
    };
    assert!(is_valid(content) && !is_valid(&content.replace("8bit", "7bit")), "{part}");
    let _ = run(&directory, &["gpgconf", "--kill", "all"], b"");
    fs::remove_dir_all(&directory).expect("it is ours");
}
