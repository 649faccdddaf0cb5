//! Authenticates clients by asking Dovecot, over Dovecot's auth-client socket.
//!
//! The protocol is that of [`crate::dovecot`]. A connection begins with a handshake in which Dovecot
//! lists its mechanisms. Each exchange has a connection of its own. Clients are offered the
//! mechanisms that both Dovecot and penfold support, but none with channel binding, because Dovecot
//! does not see the TLS connection. Dovecot's list is requested again when it is older than 30
//! seconds. While Dovecot is not available, the last list is offered, and AUTH gets a temporary
//! failure.
//!
//! Every line and every wait is bounded. A malformed answer ends the exchange with
//! [`Step::Temporary`], whose reason contains no client input.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::BASE64;

use super::Mechanism;
use super::server::Step;
use crate::dovecot::{Link, malformed, unescape};

/// The maximum number of lines that are read in the handshake, or while waiting for an answer.
const MAX_LINES: usize = 1000;
/// The time limit of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit for an answer. Dovecot delays answers after failures.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the list of mechanisms is used before it is requested again.
const MECHANISMS_LIFETIME: Duration = Duration::from_secs(30);
/// The maximum length of a user's name, in octets.
const MAX_NAME: usize = 255;
/// The id of an exchange. It is always the same, since each exchange has a connection of its own.
const ID: &str = "1";

/// The authentication service of Dovecot.
#[derive(Debug)]
pub struct Dovecot {
    path: PathBuf,
    /// The mechanisms to offer, and the time of the last request for them. The time is `None`
    /// before the first request. The lock is held during a request.
    known: Mutex<(Vec<Mechanism>, Option<Instant>)>,
}

/// The client of an exchange.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The client's IP address, if it has one.
    pub address: Option<IpAddr>,
    /// Whether the connection is encrypted.
    pub is_secure: bool,
}

/// One exchange with Dovecot.
#[derive(Debug)]
pub struct Exchange {
    link: Link,
    mechanism: Mechanism,
    peer: Peer,
    begun: bool,
    name: String,
}

/// An answer of Dovecot.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// CONT: a challenge.
    Continue(Vec<u8>),
    /// OK: the authenticated user.
    Accepted(String),
    /// FAIL: authentication failed. The value is the user name that the client claimed, if Dovecot
    /// reports it.
    Rejected(Option<String>),
    /// FAIL for a temporary reason.
    Temporary,
    /// A line that does not concern this exchange.
    Other,
}

impl Dovecot {
    /// The Dovecot that listens on the socket at `path`. The function makes no connection.
    pub fn at(path: &Path) -> Self {
        // Most installations of Dovecot offer these two mechanisms. They are used if the first
        // handshake fails.
        let known = Mutex::new((vec![Mechanism::Plain, Mechanism::Login], None));
        Self { path: path.to_owned(), known }
    }

    /// The mechanisms that both Dovecot and penfold support.
    pub fn mechanisms(&self) -> Vec<Mechanism> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.1.is_none_or(|when| when.elapsed() > MECHANISMS_LIFETIME) {
            match open(&self.path) {
                Ok((_, mechanisms)) => known.0 = mechanisms,
                Err(e) => ::log::error!("ask Dovecot at {}: {e}", self.path.display()),
            }
            known.1 = Some(Instant::now());
        }
        known.0.clone()
    }

    /// Begins an exchange.
    ///
    /// # Errors
    /// The reason why Dovecot is not available.
    pub fn begin(&self, mechanism: Mechanism, peer: Peer) -> Result<Exchange, String> {
        match open(&self.path) {
            Ok((link, _)) => Ok(Exchange { link, mechanism, peer, begun: false, name: String::new() }),
            Err(e) => Err(format!("ask Dovecot at {}: {e}", self.path.display())),
        }
    }
}

impl Exchange {
    /// The user name that the client claims; empty until Dovecot has reported it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes a response of the client, and returns the next step. `None` stands for AUTH without an
    /// initial response.
    pub fn step(&mut self, response: Option<&[u8]>) -> Step {
        match self.ask(response) {
            Ok(Answer::Continue(challenge)) => Step::Challenge(challenge),
            Ok(Answer::Accepted(user)) => {
                self.name.clone_from(&user);
                Step::Accepted(user)
            }
            Ok(Answer::Rejected(user)) => {
                self.name = user.unwrap_or_default();
                Step::Rejected
            }
            Ok(Answer::Temporary | Answer::Other) => Step::Temporary("Dovecot reports a temporary failure".to_owned()),
            Err(e) => Step::Temporary(format!("Dovecot: {e}")),
        }
    }

    fn ask(&mut self, response: Option<&[u8]>) -> io::Result<Answer> {
        let response = response.map(|response| BASE64.encode(response));
        let line = if std::mem::replace(&mut self.begun, true) {
            format!("CONT\t{ID}\t{}\n", response.unwrap_or_default())
        } else {
            self.request(response)
        };
        self.link.set_deadline(Instant::now() + ANSWER_TIMEOUT);
        self.link.send(&line)?;
        for _ in 0..MAX_LINES {
            match answer(&self.link.line()?) {
                Some(Answer::Other) => {}
                Some(answer) => return Ok(answer),
                None => break,
            }
        }
        Err(malformed("its answer is malformed"))
    }

    fn request(&self, response: Option<String>) -> String {
        let mut line = format!("AUTH\t{ID}\t{}\tservice=smtp", self.mechanism);
        if let Some(address) = self.peer.address {
            line.push_str(&format!("\trip={address}"));
        }
        if self.peer.is_secure {
            line.push_str("\tsecured");
        }
        // The initial response has to be the last field.
        if let Some(response) = response {
            line.push_str(&format!("\tresp={response}"));
        }
        line + "\n"
    }
}

/// Parses a line of Dovecot, without its LF; `None` if the line is malformed.
pub fn answer(line: &[u8]) -> Option<Answer> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.split('\t');
    let verb = fields.next()?;
    if !matches!(verb, "CONT" | "OK" | "FAIL") || fields.next() != Some(ID) {
        return Some(Answer::Other);
    }
    let user = || {
        line.split('\t').skip(2).find_map(|field| field.strip_prefix("user=")).and_then(|user| unescape(user, MAX_NAME))
    };
    Some(match verb {
        "CONT" => Answer::Continue(BASE64.decode(fields.next().unwrap_or_default().as_bytes()).ok()?),
        "OK" => Answer::Accepted(user().filter(|user| !user.is_empty())?),
        _ if fields.any(|field| field == "temp" || field == "code=temp_fail") => Answer::Temporary,
        _ => Answer::Rejected(user()),
    })
}

/// The mechanism in a line of the handshake; `None` if there is none, or if it is not supported.
fn offered(line: &[u8]) -> Option<Mechanism> {
    let mut fields = std::str::from_utf8(line).ok()?.split('\t');
    let mechanism = fields.next().filter(|verb| *verb == "MECH").and_then(|_| Mechanism::parse(fields.next()?))?;
    matches!(mechanism, Mechanism::ScramSha256 | Mechanism::Plain | Mechanism::Login).then_some(mechanism)
}

/// Connects to Dovecot; returns the connection and the supported mechanisms.
fn open(path: &Path) -> io::Result<(Link, Vec<Mechanism>)> {
    let mut link = Link::open(path, Instant::now() + HANDSHAKE_TIMEOUT)?;
    // Dovecot requires a process id that no other current connection has. It need not be the
    // real one, so a random number is sent.
    let number = getrandom::u32().map_err(|e| io::Error::other(e.to_string()))? >> 1 | 1;
    link.send(&format!("VERSION\t1\t1\nCPID\t{number}\n"))?;
    let (mut found, mut is_version_1) = (Vec::new(), false);
    for _ in 0..MAX_LINES {
        match link.line()?.as_slice() {
            b"DONE" if is_version_1 => {
                found.sort_unstable_by_key(|m| Mechanism::ALL.iter().position(|other| other == m));
                found.dedup();
                return Ok((link, found));
            }
            line if line.starts_with(b"VERSION\t1\t") => is_version_1 = true,
            line => found.extend(offered(line)),
        }
    }
    Err(malformed("it does not use version 1 of the protocol"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_dovecot_are_read() {
        for (line, wanted) in [
            ("CONT\t1\t", Some(Answer::Continue(Vec::new()))),
            ("CONT\t1\tcj0x", Some(Answer::Continue(b"r=1".to_vec()))),
            ("CONT\t1\t!", None),
            ("CONT\t2\tcj0x", Some(Answer::Other)),
            ("OK\t1\tuser=jon", Some(Answer::Accepted("jon".to_owned()))),
            ("OK\t1\tproxy\tuser=j\u{1}1n", None),
            ("OK\t1", None),
            ("OK\t1\tuser=", None),
            ("OK\t1\tuser=a\u{1}nb", None),
            ("FAIL\t1\tuser=jon", Some(Answer::Rejected(Some("jon".to_owned())))),
            ("FAIL\t1", Some(Answer::Rejected(None))),
            ("FAIL\t1\tuser=jon\ttemp", Some(Answer::Temporary)),
            ("FAIL\t1\tuser=jon\tcode=temp_fail", Some(Answer::Temporary)),
            ("SPID\t4", Some(Answer::Other)),
            ("", Some(Answer::Other)),
        ] {
            assert_eq!(answer(line.as_bytes()), wanted, "{line:?}");
        }
        assert_eq!(answer(b"OK\t1\tuser=\xff"), None);
    }

    #[test]
    fn only_supported_mechanisms_are_offered() {
        for (line, wanted) in [
            ("MECH\tPLAIN\tplaintext", Some(Mechanism::Plain)),
            ("MECH\tSCRAM-SHA-256\tmutual-auth", Some(Mechanism::ScramSha256)),
            ("MECH\tSCRAM-SHA-256-PLUS", None),
            ("MECH\tXOAUTH2", None),
            ("MECH\tANONYMOUS\tanonymous", None),
            ("MECH", None),
            ("MECHA\tPLAIN", None),
        ] {
            assert_eq!(offered(line.as_bytes()), wanted, "{line}");
        }
    }
}
