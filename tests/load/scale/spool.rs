//! Makes a spool with any number of deferred messages, by writing it directly to disk.
//!
//! The entries look as if penfold had tried each once, a minute ago: queued heads in `cur/`, see
//! `src/spool/head/mod.rs`, with one recipient and a line of content each. Nothing is synced.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Creates `count` entries in `cur/` of a spool; entry `n` is for `recipient(n)`.
pub fn fill(spool: &Path, count: usize, recipient: impl Fn(usize) -> String) {
    let cur = spool.join("cur");
    fs::create_dir_all(&cur).expect("cur/");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    for number in 0..count {
        let micros = (now - 7200) * 1_000_000 + number as u64;
        let text = entry(now - 60, &recipient(number));
        fs::write(cur.join(format!("{}{},S={}", digits(micros, 11), digits(number as u64, 8), text.len())), text)
            .expect("an entry");
    }
}

fn entry(last: u64, recipient: &str) -> String {
    let first = padded("penfold/1 head=0000000000 body=8bit origin=client from=<jon@razorback.test>");
    let second = padded(&format!("T {last:010} {0:010} {0:016x} {0:016x} to=<{recipient}>", 0));
    let head = format!("{first}{second}\n");
    let length = format!("head={:010}", head.len());
    head.replacen("head=0000000000", &length, 1) + "Subject: deferred\n\nHow are you?\n"
}

fn padded(line: &str) -> String {
    let length = (line.len() + 1).next_multiple_of(64);
    format!("{line:width$}\n", width = length - 1)
}

/// A number as `count` digits of a queue id.
fn digits(mut number: u64, count: usize) -> String {
    let mut digits = vec![b'0'; count];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[(number & 31) as usize];
        number >>= 5;
    }
    String::from_utf8(digits).expect("ASCII")
}
