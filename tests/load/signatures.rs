//! DKIM: the memory and the time that signatures take.

use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use penfold::dns::lookup::{Lookup, OnlyTxt};
use penfold::mailauth::dkim::{MAX_HEADER, Signer, SigningKey, Verifier};

use crate::turn;

const RSA: &[u8] = include_bytes!("../../src/mailauth/dkim/tests/rsa.pem");
const ED25519: &[u8] = include_bytes!("../../src/mailauth/dkim/tests/ed25519.pem");
const NOW: u64 = 1_800_000_000;
const MEGABYTE: usize = 1 << 20;
/// The memory that a message may take while it arrives, in octets: the header, which is kept, and
/// what the allocator adds.
const WHILE_ARRIVING: u64 = (4 * MAX_HEADER) as u64;
/// The memory that the check of a message with the worst header may take, in octets.
const AT_THE_END: u64 = 8 << 20;

/// Returns a DNS in which every name has the same key.
fn dns_with(key: String) -> impl Lookup {
    OnlyTxt(move |_: &str| Ok(vec![key.clone().into_bytes()]))
}

fn key(pem: &[u8]) -> SigningKey {
    SigningKey::from_pem(pem).expect("a key")
}

/// Runs a test once more, in a process of its own, so that no other test uses its memory. Returns
/// whether this is that process.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "PENFOLD_TEST_ALONE";
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = Command::new(env::current_exe().expect("a program"));
    let output = command.args(["--exact", test]).env(ALONE, "1").output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    false
}

/// The private memory of this process, in octets.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// The growth of the memory while `step` runs several times, in octets.
fn growth(times: usize, mut step: impl FnMut()) -> u64 {
    let before = memory();
    let after = (0..times).map(|_| {
        step();
        memory()
    });
    after.max().unwrap_or_default().saturating_sub(before)
}

/// The beginning of a header with ten signatures that need ten different hashes.
fn ten_signatures() -> String {
    let field = |number: usize| {
        let form = ["simple/simple", "relaxed/relaxed"][number % 2];
        let length = [String::new(), format!(" l={};", 1000 * number)][usize::from(number > 1)].clone();
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; c={form}; d=x.test; s=s; h=From;{length}\n \
             bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\n"
        )
    };
    (0..10).map(field).collect::<String>() + "From: jon@x.test\n"
}

#[test]
fn a_message_of_50_megabytes_is_verified_and_signed_in_bounded_memory() {
    let _turn = turn();
    if !is_alone("signatures::a_message_of_50_megabytes_is_verified_and_signed_in_bounded_memory") {
        return;
    }
    for (text, megabytes) in [("A line of a text, with blanks.  \n", 50), ("\n", 5), (" ", 5), ("x", 50), (" x  x", 5)]
    {
        let body = text.repeat(MEGABYTE / text.len());
        let (mut verifier, mut signer) = (Verifier::new(), Signer::new());
        verifier.feed((ten_signatures() + "\n").as_bytes());
        signer.feed(b"From: jon@x.test\n\n");
        let grown = growth(megabytes, || {
            verifier.feed(body.as_bytes());
            signer.feed(body.as_bytes());
        });
        assert!(grown < WHILE_ARRIVING, "{grown} octets more for {text:?}");
        let checked = verifier.finish().verify(&dns_with(key(RSA).record()), NOW);
        assert_eq!(checked.len(), 10);
        assert!(checked.iter().all(|checked| !checked.is_pass()));
        let fields = signer.finish(&[("x.test", "s", &key(RSA))], NOW).expect("a signature");
        assert!(fields.starts_with("DKIM-Signature: "));
    }
}

#[test]
fn a_header_of_50_megabytes_is_read_in_bounded_memory() {
    let _turn = turn();
    if !is_alone("signatures::a_header_of_50_megabytes_is_read_in_bounded_memory") {
        return;
    }
    for line in
        ["a:\n", "DKIM-Signature: v=1; a=rsa-sha256; d=x.test; s=s; h=From; bh=; b=\n", "x", "a: b\n c\n", " \n"]
    {
        let text = line.repeat(MEGABYTE / line.len());
        let (mut verifier, mut signer) = (Verifier::new(), Signer::new());
        let start = ten_signatures();
        verifier.feed(start.as_bytes());
        signer.feed(start.as_bytes());
        let mut grown = growth(50, || {
            verifier.feed(text.as_bytes());
            signer.feed(text.as_bytes());
        });
        assert!(grown < 2 * WHILE_ARRIVING, "{grown} octets more for {line:?}");
        let before = memory();
        let checked = verifier.finish().verify(&dns_with(key(RSA).record()), NOW);
        assert!(checked.iter().all(|checked| !checked.is_pass()) && checked.len() == 10);
        grown += memory().saturating_sub(before);
        assert!(grown < AT_THE_END, "{grown} octets more for {line:?}");
    }
}

/// A header just below the limit, which all ten signatures sign, with as many fields as possible.
#[test]
fn the_worst_header_is_verified_in_bounded_memory_and_time() {
    let _turn = turn();
    if !is_alone("signatures::the_worst_header_is_verified_in_bounded_memory_and_time") {
        return;
    }
    let keys = [key(RSA)];
    let mut header = "From: jon@x.test\n".to_owned();
    for _ in 0..10 {
        let mut signer = Signer::new();
        signer.feed((header.clone() + "\n").as_bytes());
        header = signer.finish(&[("x.test", "s", &keys[0])], NOW).expect("a signature") + &header;
    }
    let room = (MAX_HEADER - header.len()) / 3 - 1;
    let message = header + &"a:\n".repeat(room) + "\n";
    let mut verifier = Verifier::new();
    let (before, start) = (memory(), Instant::now());
    verifier.feed(message.as_bytes());
    let checked = verifier.finish().verify(&dns_with(keys[0].record()), NOW);
    let grown = memory().saturating_sub(before);
    assert!(checked.iter().all(|checked| checked.is_pass()) && checked.len() == 10, "{checked:?}");
    assert!(grown < AT_THE_END, "{grown} octets");
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

/// Prints what a signature costs. Only a release build tells: `cargo test --release --test load --
/// --ignored --nocapture signatures::figures`.
#[test]
#[ignore = "a measurement"]
fn figures() {
    let _turn = turn();
    let header = "Received: from a.test by b.test\nFrom: Jon <jon@x.test>\nTo: ann@y.test\nSubject: tea\n\
                  Date: Mon, 30 Nov 2026 00:00:00 +0000\nMessage-ID: <1@x.test>\nMIME-Version: 1.0\n\n";
    let measure = |title: &str, rounds: u32, step: &mut dyn FnMut()| {
        step();
        let start = Instant::now();
        (0..rounds).for_each(|_| step());
        println!("{title}: {:.1} µs", start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
    };
    for size in [0, 4 << 10, 10 << 20] {
        let message = header.to_owned() + &"A line of a text, with blanks in it.\n".repeat(size / 37);
        let rounds = if size > MEGABYTE { 5 } else { 500 };
        for (name, pem) in [("rsa-2048", RSA), ("ed25519", ED25519)] {
            let key = key(pem);
            let sign = || {
                let mut signer = Signer::new();
                message.as_bytes().chunks(16 << 10).for_each(|piece| signer.feed(piece));
                signer.finish(&[("x.test", "s", &key)], NOW).expect("a signature")
            };
            measure(&format!("sign {name}, body of {size}"), rounds, &mut || drop(sign()));
            let (signed, zone) = (sign() + &message, dns_with(key.record()));
            measure(&format!("verify {name}, body of {size}"), rounds, &mut || {
                let mut verifier = Verifier::new();
                signed.as_bytes().chunks(16 << 10).for_each(|piece| verifier.feed(piece));
                assert!(verifier.finish().verify(&zone, NOW).iter().all(|checked| checked.is_pass()));
            });
        }
        measure(&format!("verify nothing, body of {size}"), rounds, &mut || {
            let mut verifier = Verifier::new();
            message.as_bytes().chunks(16 << 10).for_each(|piece| verifier.feed(piece));
            assert!(verifier.finish().verify(&dns_with(String::new()), NOW).is_empty());
        });
    }
}
