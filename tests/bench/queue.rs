//! Fills a spool with deferred messages for the benchmark, by writing the files directly.
//!
//! Each message has one recipient, in one of a thousand domains, and was tried a moment ago, so
//! that none is due during a measurement. The files have the form that penfold-spool(5) describes;
//! nothing is synced.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::time::{SystemTime, UNIX_EPOCH};

use common::Site;

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const DOMAINS: usize = 1000;

/// Writes this many entries into the spool of a site without a daemon.
///
/// # Errors
/// Errors of the system.
pub fn fill(site: &Site, count: usize) -> io::Result<()> {
    let cur = site.path("spool/cur");
    fs::DirBuilder::new().mode(0o700).create(&cur)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    let arrival = now.as_micros() - 600_000_000;
    for number in 0..count {
        let text = entry(number, now.as_secs());
        let id = [digits(arrival + number as u128, 11), digits(number as u128, 8)].concat();
        fs::write(cur.join(format!("{id},S={}", text.len())), text)?;
    }
    site.hand_over();
    Ok(())
}

fn entry(number: usize, tried: u64) -> String {
    let first = padded(&format!("penfold/1 head={:010} body=7bit origin=client from=<bench@client.test>", 0));
    let to = format!("to=<m{number}@d{}.elsewhere.test>", number % DOMAINS);
    let second = padded(&format!("T {tried:010} {:010} {:016x} {:016x} {to}", 0, 0, 0));
    let head = format!("{first}{second}\n");
    let head = head.replacen("head=0000000000", &format!("head={:010}", head.len()), 1);
    format!("{head}From: bench@client.test\nSubject: one of many\n\n{}\n", "x".repeat(72))
}

/// Pads a line of an entry's head with blanks: the length must be a multiple of 64 octets.
fn padded(line: &str) -> String {
    format!("{line:<width$}\n", width = (line.len() + 1).next_multiple_of(64) - 1)
}

fn digits(mut number: u128, count: usize) -> String {
    let mut text = vec!['0'; count];
    for digit in text.iter_mut().rev() {
        *digit = char::from(DIGITS[(number & 31) as usize]);
        number >>= 5;
    }
    text.into_iter().collect()
}
