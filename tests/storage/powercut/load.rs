//! Clients that send mail until the power is cut, and record the replies.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::host::Paths;
use super::people::{Kinds, NEW_USERS};
use common::books::{Answer, Letter, keep, offer, offer_locally};

/// A letter that a client has offered.
#[derive(Debug, Clone)]
pub struct Offered {
    /// The token, from which the letter's text follows.
    pub token: String,
    /// The recipients of the letter.
    pub to: Vec<String>,
    /// When the client began to send the letter.
    pub began: Instant,
    /// When the client had read the 250; `None` if it got none.
    pub taken: Option<Instant>,
    /// The reply, for the report of a failure.
    #[allow(dead_code, reason = "it is in the Debug form")]
    pub answer: Answer,
}

/// Offers a letter to a daemon, and waits for the reply.
pub fn send(address: SocketAddr, token: &str, to: &[&str]) -> Offered {
    record(token, to, |letter| offer(address, to, letter))
}

/// Offers a letter with `offer`.
fn record(token: &str, to: &[&str], offer: impl FnOnce(Letter<'_>) -> Answer) -> Offered {
    let began = Instant::now();
    let answer = offer(Letter::new(token));
    let taken = (answer == Answer::Taken).then(Instant::now);
    Offered { token: token.to_owned(), to: to.iter().map(|&to| to.to_owned()).collect(), began, taken, answer }
}

/// The clients of one daemon, or of its successors.
pub struct Load {
    address: SocketAddr,
    paths: Paths,
    kinds: Kinds,
    count: AtomicU64,
    ended: AtomicBool,
}

impl Load {
    /// Clients of the daemon at this address, with these configurations. `kinds` has the recipients, and
    /// `first` is the number of the first letter.
    pub fn new(address: SocketAddr, paths: Paths, kinds: Kinds, first: u64) -> Self {
        Self { address, paths, kinds, count: AtomicU64::new(first), ended: AtomicBool::new(false) }
    }

    /// Offers the next letter.
    fn offer(&self) -> Offered {
        let number = self.count.fetch_add(1, Ordering::Relaxed) as usize;
        // The shift lets letters of every kind be long now and then, since the length follows from
        // the number.
        let kind = self.kinds[(number + number / self.kinds.len()) % self.kinds.len()];
        let to: Vec<String> = kind.iter().map(|to| to.replace("new@", &format!("u{}@", number % NEW_USERS))).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        // A local user may choose the time from which a letter is delivered.
        if to.iter().any(|to| to.starts_with("held@")) {
            let offer = |letter: Letter<'_>| offer_locally(&self.paths.config, "HOLDFOR=1", &to, letter);
            return record(&format!("held-{number}"), &to, offer);
        }
        // sendmail(8) keeps a letter if it finds no daemon. Every second time, the daemon is told to
        // take it, as if it had just started. The others wait for the next start or the next telling.
        if to.iter().any(|to| to.starts_with("kept@")) {
            let letter = record(&format!("kept-{number}"), &to, |letter| keep(&self.paths.without_daemon, &to, letter));
            if number.is_multiple_of(2) {
                self.wake();
            }
            return letter;
        }
        let must_be_converted = to.iter().any(|to| to.starts_with("odd@"));
        send(self.address, &format!("{}-{number}", if must_be_converted { "odd" } else { "letter" }), &to)
    }

    /// Tells the daemon that there is something in the drop directory. It may be gone already.
    fn wake(&self) {
        if let Ok(mut stream) = UnixStream::connect(&self.paths.socket) {
            let _ = stream.write_all(b"dropped\n").and_then(|()| stream.read_to_end(&mut Vec::new()));
        }
    }

    /// Offers a letter that must be accepted.
    ///
    /// # Panics
    /// If it is not accepted.
    pub fn taken(&self) -> Offered {
        let letter = self.offer();
        assert!(letter.taken.is_some(), "{letter:?}");
        letter
    }

    /// Says that the power will be cut or the daemon ended: from now on an offer may fail.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    /// Plays a client that offers letters until one is not accepted. Returns the letters.
    ///
    /// # Panics
    /// If a letter is not accepted before [`Load::end`].
    pub fn client(&self) -> Vec<Offered> {
        let mut offered = Vec::new();
        while !self.ended.load(Ordering::SeqCst) {
            let letter = self.offer();
            assert!(letter.taken.is_some() || self.ended.load(Ordering::SeqCst), "{letter:?}");
            offered.push(letter);
        }
        offered
    }
}

/// Random choices, which differ from run to run.
pub struct Chance(u64);

impl Chance {
    /// Choices that follow from the present time.
    pub fn new() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64 | 1))
    }

    /// A number from 0 up to, but not including, the limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// Sleeps for a random time of up to this many milliseconds, often much less.
    pub fn wait(&mut self, milliseconds: u64) {
        let limit = (milliseconds * 1000) >> (3 * self.below(4));
        thread::sleep(Duration::from_micros(self.below(limit.max(1))));
    }
}
