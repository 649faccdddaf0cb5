//! DKIM and ARC: signatures of penfold are verified by dkimpy and OpenDKIM, and theirs by penfold.
//! Random changes to signed messages have the same result with all three. Chains that penfold and
//! dkimpy extend in turn are valid for both.

use std::fs;
use std::process::Command;

use common::chance::Chance;
use common::programs::feed;
use common::{Site, built, unpacked};
use data_encoding::BASE64;
use penfold::dns::lookup::{Lookup, OnlyTxt};
#[cfg(feature = "arc")]
use penfold::mailauth::arc::{self, Sealer};
use penfold::mailauth::dkim::{Checked, Signer, SigningKey, Verifier};
use penfold::outcome::NoAnswer;

const RSA: &[u8] = include_bytes!("../../src/mailauth/dkim/tests/rsa.pem");
const ED25519: &[u8] = include_bytes!("../../src/mailauth/dkim/tests/ed25519.pem");
/// The same key as dkimpy reads it.
const SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
/// The time of the signatures, in seconds since 1970.
const NOW: u64 = 1_780_000_000;
const DOMAIN: &str = "example.org";
const CANONS: [&str; 4] = ["simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"];

/// A DNS with the keys `r` and `e` of [`DOMAIN`].
struct Keys {
    rsa: SigningKey,
    ed25519: SigningKey,
}

impl Keys {
    fn new() -> Self {
        let key = |pem| SigningKey::from_pem(pem).expect("a key");
        Self { rsa: key(RSA), ed25519: key(ED25519) }
    }

    /// The names and texts of the records.
    fn records(&self) -> [(String, String); 2] {
        let name = |selector| format!("{selector}._domainkey.{DOMAIN}");
        [(name("r"), self.rsa.record()), (name("e"), self.ed25519.record())]
    }

    /// The signatures of penfold, one by each key.
    fn sign(&self, message: &str) -> String {
        let mut signer = Signer::new();
        signer.feed(message.as_bytes());
        let keys = [(DOMAIN, "r", &self.rsa), (DOMAIN, "e", &self.ed25519)];
        signer.finish(&keys, NOW).expect("signatures")
    }

    fn verify(&self, message: &str) -> Vec<Checked> {
        let mut verifier = Verifier::new();
        verifier.feed(message.as_bytes());
        verifier.finish().verify(&self.dns(), NOW)
    }

    /// A DNS with these records.
    fn dns(&self) -> impl Lookup + use<> {
        let records = self.records();
        OnlyTxt(move |name: &str| {
            let found = records.iter().find(|(other, _)| name == other);
            found.map(|(_, text)| vec![text.clone().into_bytes()]).ok_or(NoAnswer::NxDomain)
        })
    }

    /// The results of penfold in the words of the scripts.
    fn words(&self, message: &str) -> String {
        let checked = self.verify(message);
        let words: Vec<_> = checked.iter().map(|checked| if checked.is_pass() { "pass" } else { "fail" }).collect();
        words.join(" ")
    }
}

/// A random message, with LF.
fn message(chance: &mut Chance) -> String {
    message_with(chance, &[" ", " ", "", "  ", "\n "])
}

/// A random message with one of these texts after the colon of a field.
fn message_with(chance: &mut Chance, starts: &[&str]) -> String {
    let mut text = format!("From: Jon <jon@{DOMAIN}>\nDate: Mon, 30 Nov 2026 00:00:00 +0000\n");
    for name in ["To", "to", "Cc", "Subject", "Message-ID", "Received", "X-Other", "Reply-To", "List-Id"] {
        if chance.percent(60) {
            text += &format!("{name}:{}", chance.pick(starts));
            for _ in 0..chance.of(1..6) {
                text += *chance.pick(&["word", "a@b.test,", "\u{fc}nicode", "<1@x>", "=?utf-8?q?x?="]);
                text += *chance.pick(&[" ", "  ", "\t", "\n\t", "\n  ", " \n "]);
            }
            text += "end\n";
        }
    }
    text.push('\n');
    for _ in 0..chance.of(0..30) {
        text += *chance.pick(&["word", " ", "\t", "\n", "\n\n", ".\n", " \n", "caf\u{e9} ", "a longer piece of text"]);
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text + *chance.pick(&["", "", "\n", "\n\n\n", " \n\n"])
}

/// A random change to a signed message, of which most break the signatures in some forms only.
fn change(chance: &mut Chance, message: &str) -> String {
    let (from, to) = *chance.pick(&[
        ("", "Received: by x.test\n"),
        ("From: Jon", "From: Jon\n "),
        ("From: Jon", "FROM: Jon"),
        ("From: Jon", "From:  Jon"),
        ("From: Jon", "From: jon"),
        ("From: Jon", "From: Eve <eve@x.test>\nFrom: Jon"),
        ("\n\n", "\nSubject: added\n\n"),
        ("\n\n", "\nX-Other: added\n\n"),
        ("\n\n", "\n\n\n"),
        ("Date: Mon", "Date:\n\tMon"),
        ("Mon, 30", "Tue, 31"),
        ("Subject:", "Subject: [list]"),
        ("word", "w\u{f6}rd"),
        ("end\n", "end \n"),
    ]);
    let end = *chance.pick(&["", "", "", "\n", "\n\n", " \n", "-- \na footer\n"]);
    message.replacen(from, to, 1) + end
}

fn wire(message: &str) -> String {
    message.replace('\n', "\r\n")
}

/// Lets dkimpy handle requests, and returns a line for each. `None` if dkimpy is not installed.
fn dkimpy(keys: &Keys, requests: &[String]) -> Option<Vec<String>> {
    // Debian's Python has the package, even if another Python comes first.
    let has_dkimpy = |python: &&str| {
        let output = Command::new(python).args(["-c", "import authres, dkim, nacl"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_dkimpy) else {
        common::skipped("python3-dkim, python3-nacl and python3-authres are not installed");
        return None;
    };
    let records = keys.records().map(|(name, text)| format!("key\t{name}\t{text}\n"));
    let input = [records.concat(), requests.concat()].concat();
    let mut command = Command::new(python);
    command.arg("-B").arg(built::source("tests/interop/dkimpy.py"));
    let output = feed(&mut command, input.as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), requests.len());
    Some(lines)
}

fn verify_request(message: &str) -> String {
    format!("verify\t{}\n", BASE64.encode(wire(message).as_bytes()))
}

#[test]
fn dkimpy_and_penfold_verify_signatures_of_penfold_alike() {
    let (keys, mut chance) = (Keys::new(), Chance::new(14, "ours"));
    let mut messages: Vec<String> = Vec::new();
    for _ in 0..150 {
        let message = message(&mut chance);
        let signed = keys.sign(&message) + &message;
        assert_eq!(keys.words(&signed), "pass pass", "{signed}");
        messages.extend([change(&mut chance, &signed), signed]);
    }
    let requests: Vec<_> = messages.iter().map(|message| verify_request(message)).collect();
    let Some(lines) = dkimpy(&keys, &requests) else { return };
    for (message, line) in messages.iter().zip(&lines) {
        assert_eq!(keys.words(message), *line, "{message}");
    }
    let failed = lines.iter().filter(|line| *line == "fail fail").count();
    assert!((50..150).contains(&failed), "{failed} changed messages failed");
}

#[test]
fn penfold_and_dkimpy_verify_signatures_of_dkimpy_alike() {
    let (keys, mut chance) = (Keys::new(), Chance::new(14, "dkimpy's"));
    let (mut messages, mut requests) = (Vec::new(), Vec::new());
    for number in 0..160 {
        let message = message(&mut chance);
        let (algorithm, selector, key) = match number % 2 {
            0 => ("rsa-sha256", "r", BASE64.encode(RSA)),
            _ => ("ed25519-sha256", "e", BASE64.encode(SEED.as_bytes())),
        };
        let canon = CANONS[number / 2 % 4];
        let length = if number % 5 == 0 { "length" } else { "" };
        let octets = BASE64.encode(wire(&message).as_bytes());
        requests.push(format!("sign\t{algorithm}\t{selector}\t{DOMAIN}\t{canon}\t{key}\t{length}\t{octets}\n"));
        messages.push((message, length));
    }
    let Some(lines) = dkimpy(&keys, &requests) else { return };
    let (mut changed, mut requests) = (Vec::new(), Vec::new());
    for ((message, length), line) in messages.iter().zip(lines) {
        let field = String::from_utf8(BASE64.decode(line.as_bytes()).expect("base64")).expect("text");
        let signed = field.replace('\r', "") + message;
        assert_eq!(keys.words(&signed), "pass", "{:?}\n{signed}", keys.verify(&signed));
        // With l=, penfold is stricter.
        if length.is_empty() {
            let message = change(&mut chance, &signed);
            requests.push(verify_request(&message));
            changed.push(message);
        }
    }
    let Some(lines) = dkimpy(&keys, &requests) else { return };
    for (message, line) in changed.iter().zip(&lines) {
        assert_eq!(keys.words(message), *line, "{message}");
    }
}

#[cfg(feature = "arc")]
fn chain(keys: &Keys, message: &str) -> arc::Chain {
    let mut verifier = Verifier::new();
    verifier.feed(message.as_bytes());
    arc::verify(&verifier.finish(), &keys.dns(), NOW)
}

/// Adds a set to a message, by penfold or by dkimpy.
#[cfg(feature = "arc")]
fn seal(keys: &Keys, message: &str, by_dkimpy: bool) -> Option<String> {
    let set = if by_dkimpy {
        let result = chain(keys, message).status.word();
        let stated =
            format!("Authentication-Results: mx.test; arc={result}; spf=pass smtp.mailfrom=jon@{DOMAIN}\n{message}");
        let octets = BASE64.encode(wire(&stated).as_bytes());
        let lines = dkimpy(keys, &[format!("seal\tr\t{DOMAIN}\t{}\tmx.test\t{octets}\n", BASE64.encode(RSA))])?;
        String::from_utf8(BASE64.decode(lines[0].as_bytes()).expect("base64")).expect("text").replace('\r', "")
    } else {
        let mut sealer = Sealer::new();
        sealer.feed(message.as_bytes());
        let status = chain(keys, message).status;
        let results = format!("mx.test;\n\tspf=pass smtp.mailfrom=jon@{DOMAIN};\n\tarc={}", status.word());
        sealer.finish((DOMAIN, "r", &keys.rsa), &results, status, NOW).expect("a set")
    };
    Some(set + message)
}

#[cfg(feature = "arc")]
#[test]
fn dkimpy_and_penfold_extend_chains_in_turn() {
    let (keys, mut chance) = (Keys::new(), Chance::new(14, "chains"));
    let mut messages = Vec::new();
    for round in 0..12 {
        let mut sealed = message(&mut chance);
        for number in 0..chance.of(1..4) {
            let Some(next) = seal(&keys, &sealed, (round + number) % 2 == 0) else { return };
            sealed = next;
            assert_eq!(chain(&keys, &sealed).status, arc::Status::Pass, "{:?}\n{sealed}", chain(&keys, &sealed));
            assert_eq!(chain(&keys, &sealed).sets.len(), number + 1);
            messages.push(sealed.clone());
        }
        for _ in 0..8 {
            messages.push(change(&mut chance, &sealed));
        }
        for (from, to) in [("cv=none", "cv=pass"), ("spf=pass", "spf=fail"), ("i=1; ", "i=2; "), ("cv=", "cv=fail; x=")]
        {
            messages.push(sealed.replacen(from, to, 1));
        }
    }
    let requests: Vec<_> =
        messages.iter().map(|message| format!("chain\t{}\n", BASE64.encode(wire(message).as_bytes()))).collect();
    let Some(lines) = dkimpy(&keys, &requests) else { return };
    for (message, line) in messages.iter().zip(&lines) {
        let chain = chain(&keys, message);
        assert_eq!(chain.status.word(), line, "{:?}\n{message}", chain.reason);
    }
    assert!(lines.iter().filter(|line| *line == "fail").count() > 40, "{lines:?}");
}

/// Runs OpenDKIM over files in a site's directory, and returns its output. `None` if it was not
/// unpacked.
fn opendkim(site: &Site, settings: &str, files: &[String]) -> Option<String> {
    let Some(tree) = unpacked::tree("opendkim") else {
        common::skipped("OpenDKIM is not unpacked in target/peers/opendkim.pkg (see tests/setup)");
        return None;
    };
    site.write("opendkim.conf", &format!("Syslog no\nRequireSafeKeys no\n{settings}"));
    let paths: Vec<_> = files.iter().map(|file| site.path(file).display().to_string()).collect();
    let mut command = Command::new(tree.join("usr/sbin/opendkim"));
    let libraries = ["usr/lib".to_owned(), format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)];
    let libraries = libraries.map(|place| tree.join(place).display().to_string());
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    command.arg("-x").arg(site.path("opendkim.conf")).arg("-t").arg(paths.join(","));
    let output = command.output().expect("OpenDKIM runs");
    Some([output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
}

/// Writes messages to files, and returns their names.
fn files(site: &Site, messages: &[String]) -> Vec<String> {
    let names = (0..messages.len()).map(|number| format!("message-{number}"));
    names.zip(messages).map(|(name, message)| (site.write(&name, &wire(message)), name).1).collect()
}

#[test]
fn opendkim_and_penfold_verify_signatures_of_penfold_alike() {
    let (keys, mut chance, site) = (Keys::new(), Chance::new(14, "to OpenDKIM"), Site::new());
    let records = keys.records().map(|(name, text)| format!("{name} {text}\n"));
    site.write("keys", &records.concat());
    let settings = format!("Mode v\nTestPublicKeys {}\n", site.path("keys").display());
    let mut passed = 0;
    for _ in 0..60 {
        let message = message(&mut chance);
        let one = |field: &str| format!("{field}{message}");
        let fields = keys.sign(&message);
        let (rsa, ed25519) = fields.split_at(fields.rfind("DKIM-Signature:").expect("two fields"));
        let mut messages = vec![one(rsa), one(ed25519)];
        messages.extend(messages.clone().iter().map(|signed| change(&mut chance, signed)));
        for (message, name) in messages.iter().zip(files(&site, &messages)) {
            let Some(said) = opendkim(&site, &settings, &[name]) else { return };
            let word = if said.contains(" succeeded") { "pass" } else { "fail" };
            assert_eq!(keys.words(message), word, "{said}\n{message}");
            passed += usize::from(word == "pass");
        }
    }
    assert!((120..200).contains(&passed), "{passed} of 240 messages passed");
}

#[test]
fn penfold_verifies_signatures_of_opendkim() {
    let (keys, mut chance, site) = (Keys::new(), Chance::new(14, "from OpenDKIM"), Site::new());
    for (file, octets) in [("rsa.pem", RSA), ("ed25519.pem", ED25519)] {
        fs::write(site.path(file), octets).expect("a scratch file");
    }
    for number in 0..40 {
        let canon = CANONS[number % 4];
        // With Ed25519 and the simple form of the header, OpenDKIM 2.11 does not verify its own signatures.
        let (algorithm, selector, key) = match canon.starts_with("relaxed") && number % 8 < 4 {
            true => ("ed25519-sha256", "e", "ed25519.pem"),
            false => ("rsa-sha256", "r", "rsa.pem"),
        };
        let settings = format!(
            "Mode s\nDomain {DOMAIN}\nSelector {selector}\nKeyFile {}\nSignatureAlgorithm {algorithm}\n\
             Canonicalization {}\nOversignHeaders From\n",
            site.path(key).display(),
            canon
        );
        // OpenDKIM does not see the blanks after a colon, and takes them for one space.
        let message = message_with(&mut chance, &[" "]);
        let names = files(&site, std::slice::from_ref(&message));
        let Some(said) = opendkim(&site, &settings, &names) else { return };
        let said = said.replace('\r', "");
        let field = said.split_once("DKIM-Signature:").map(|(_, rest)| format!("DKIM-Signature:{rest}"));
        let field = field.unwrap_or_else(|| panic!("{said}"));
        let end = field
            .match_indices('\n')
            .find(|(at, _)| !field[at + 1..].starts_with(['\t', ' ']))
            .map_or(field.len(), |(at, _)| at + 1);
        let signed = field[..end].to_owned() + &message;
        assert_eq!(keys.words(&signed), "pass", "{:?}\n{signed}", keys.verify(&signed));
    }
}
