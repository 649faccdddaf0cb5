//! Random and mutated input for the parts that face a network or local users.
//!
//! Most tests run for `PENFOLD_FUZZ` seconds, three by default. `make fuzz` gives each of them some
//! five minutes, and takes an hour.
//! A failure prints the seed, and `PENFOLD_FUZZ_SEED` makes the same choices again.
//!
//! - `addresses`: addresses, domains and xtext, in ASCII and UTF-8
//! - `auth`: AUTH commands and responses, and the answers of Dovecot, with the real daemon
//! - `chunks`: messages in random chunks, alone and with the real daemon
//! - `control`: the control socket, with the real daemon
//! - `dkim`: signed messages, signature fields, key records and ARC chains
//! - `dmarc`: DMARC records, From, and Authentication-Results fields
//! - `dropped`: files in the drop directory, with the real daemon
//! - `filters`: packets of milters and answers of policy services
//! - `mime`: messages converted for other hosts
//! - `proxy`: PROXY headers and XCLIENT attributes
//! - `reports`: the originals, replies and texts of which reports are made
//! - `sasl`: SASL exchanges without a connection
//! - `spf`: SPF records, names and senders
//! - `srs`: rewritten senders of forwarded mail
//! - `status`: requests to the status page, alone and with the real daemon
//! - `sts`: MTA-STS records and policies
//! - `tls`: octets before, during and after a TLS handshake
//! - `tls_reports`: records that ask for TLS reports, and the facts in reports
//! - `tlsa`: TLSA records and the certificates of hosts

mod addresses;
mod auth;
mod chunks;
mod control;
#[cfg(feature = "mailauth")]
mod dkim;
#[cfg(feature = "mailauth")]
mod dmarc;
mod dropped;
#[cfg(feature = "filters")]
mod filters;
mod mime;
mod proxy;
mod reports;
mod sasl;
#[cfg(feature = "mailauth")]
mod spf;
mod srs;
mod status;
mod sts;
mod tls;
mod tls_reports;
mod tlsa;

use std::time::{Duration, Instant, SystemTime};
use std::{env, thread};

use common::chance::Chance;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// The duration of a test, in seconds.
fn seconds() -> u64 {
    number("PENFOLD_FUZZ").unwrap_or(3)
}

/// The seed of this run. It is printed, and cargo shows the output if the test fails.
fn seed() -> u64 {
    let clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_nanos() as u64);
    let seed = number("PENFOLD_FUZZ_SEED").unwrap_or_else(clock);
    println!("PENFOLD_FUZZ_SEED={seed}");
    seed
}

/// Repeats a random step until the time is up. On a busy machine, which does fewer steps than a test
/// expects, this takes longer.
fn repeat(mut step: impl FnMut(&mut Chance)) {
    const LEAST_STEPS: usize = 100;
    let (mut chance, start, time) = (Chance::new(seed(), ""), Instant::now(), Duration::from_secs(seconds()));
    let mut steps = 0;
    while start.elapsed() < time || (steps < LEAST_STEPS && start.elapsed() < 10 * time) {
        step(&mut chance);
        steps += 1;
    }
}

/// Repeats a random step in several threads until the time is up. The step gets the number of its
/// thread.
fn repeat_in_threads(threads: u8, step: impl Fn(u8, &mut Chance) + Sync) {
    let (seed, end) = (seed(), Instant::now() + Duration::from_secs(seconds()));
    thread::scope(|scope| {
        for number in 0..threads {
            let step = &step;
            scope.spawn(move || {
                let mut chance = Chance::new(seed, &number.to_string());
                while Instant::now() < end {
                    step(number, &mut chance);
                }
            });
        }
    });
}

/// A random mutation of a text: one to four octets are changed, removed or inserted, or a part is
/// removed or repeated.
fn mutate(chance: &mut Chance, text: &[u8]) -> Vec<u8> {
    const SPICE: &[u8] = b"\0\t\n\r ,=*%{}$\x01\xff\x80pnyracvise0189AZ";
    let mut text = text.to_vec();
    for _ in 0..chance.of(1..5) {
        let (at, octet) = (chance.of(0..text.len() + 1), *chance.pick(SPICE));
        match chance.of(0..6) {
            0 => text.insert(at, octet),
            1 if at < text.len() => text[at] = octet,
            2 if at < text.len() => drop(text.remove(at)),
            3 => text.truncate(at),
            4 => text.extend_from_within(at..),
            _ if at < text.len() => text[at] ^= 1 << chance.of(0..8),
            _ => {}
        }
    }
    text
}
