//! Clients that send letters through the front, each until it is acknowledged, as other mail servers
//! do.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::TIMEOUT;
use common::books::Letter;
use common::dialog::Wire;

/// The pause of a client before it tries again.
const PAUSE: Duration = Duration::from_millis(50);

/// The load of all clients.
#[derive(Default)]
pub struct Load {
    /// Set by the test, to end the load.
    pub stopped: AtomicBool,
    sent: Mutex<Sent>,
    grown: Condvar,
}

/// What became of the letters.
#[derive(Default, Clone)]
pub struct Sent {
    /// The acknowledged letters.
    pub taken: Vec<Taken>,
    /// How many times a letter was sent whole without an answer, by token: it may have been taken.
    pub unanswered: HashMap<String, usize>,
    /// The refusals, which were all temporary.
    pub refusals: Vec<String>,
}

/// An acknowledged letter: its token, and the local part of its recipients.
#[derive(Clone)]
pub struct Taken {
    pub token: String,
    pub user: String,
}

enum Answer {
    Taken,
    Refused(String),
    /// The connection was lost; true if it was after the final dot.
    Lost(bool),
}

impl Load {
    /// A client that sends letters to `user@domain`, for each of the domains, until the load is
    /// stopped. `name` is the beginning of its tokens.
    ///
    /// # Panics
    /// If a letter is refused permanently, or cannot be sent for a long time.
    pub fn send(&self, to: SocketAddr, name: &str, user: &str, domains: &[&str]) {
        let recipients: Vec<String> = domains.iter().map(|domain| format!("{user}@{domain}")).collect();
        for number in 0.. {
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            let token = format!("{name}{number}");
            let end = Instant::now() + 2 * TIMEOUT;
            while !self.offer(to, &recipients, &token) {
                assert!(Instant::now() < end, "{token} was not taken; {:?}", self.sent().refusals);
                thread::sleep(PAUSE);
            }
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            sent.taken.push(Taken { token, user: user.to_owned() });
            drop(sent);
            self.grown.notify_all();
        }
    }

    fn offer(&self, to: SocketAddr, recipients: &[String], token: &str) -> bool {
        let answer = converse(to, recipients, Letter::new(token)).unwrap_or(Answer::Lost(false));
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Answer::Taken => return true,
            Answer::Lost(false) => {}
            Answer::Lost(true) => *sent.unanswered.entry(token.to_owned()).or_default() += 1,
            Answer::Refused(reply) => {
                assert!(reply.starts_with('4'), "{token}: {reply}");
                sent.refusals.push(reply);
            }
        }
        false
    }

    /// What was sent so far.
    pub fn sent(&self) -> Sent {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this many more letters are acknowledged.
    pub fn wait_more(&self, count: usize) {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = sent.taken.len() + count;
        let waited = self.grown.wait_timeout_while(sent, 2 * TIMEOUT, |sent| sent.taken.len() < wanted);
        let (sent, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "{} of {wanted} letters; {:?}", sent.taken.len(), sent.refusals);
    }
}

fn converse(to: SocketAddr, recipients: &[String], letter: Letter<'_>) -> Result<Answer, String> {
    let mut wire = Wire::new(TcpStream::connect(to).map_err(|e| e.to_string())?, false);
    let banner = wire.read_line()?.ok_or("no banner")?;
    if !banner.starts_with("220 ") {
        return Ok(Answer::Refused(banner));
    }
    let mut lines = vec!["HELO client.test".to_owned(), "MAIL FROM:<ret@razorback.test>".to_owned()];
    lines.extend(recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
    lines.push("DATA".to_owned());
    for line in lines {
        let reply = wire.ask(&line)?;
        if !reply.starts_with(['2', '3']) {
            return Ok(Answer::Refused(reply));
        }
    }
    if wire.send(letter.stuffed().as_bytes()).is_err() {
        return Ok(Answer::Lost(true));
    }
    let Ok(Some(reply)) = wire.read_line() else { return Ok(Answer::Lost(true)) };
    let _ = wire.send(b"QUIT\r\n");
    Ok(if reply.starts_with("250 ") { Answer::Taken } else { Answer::Refused(reply) })
}
