//! Letting people log in against accounts of our own.
//!
//! A [`Server`] is one exchange: responses in, [`Step`]s out. SCRAM-SHA-256 needs a
//! {SCRAM-SHA-256} secret; PLAIN and LOGIN do with any. With SCRAM-SHA-256-PLUS the
//! client proves that its TLS connection is ours (`tls-exporter`, RFC 9266); one that
//! thinks we could not do that, when we have offered it, was lied to on the way and
//! is refused. Who speaks for somebody else is refused, too.
//!
//! An account that does not exist, or may not log in, goes through the same steps in
//! the same time, with a secret like those of others, and fails at the end. Passwords
//! are checked two at a time, so that nobody takes all memory; who would wait too
//! long for that hears so.

use std::net::IpAddr;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::BASE64;

use super::Mechanism;
use super::prep::prepare;
use super::scram::{self, Key, Keys};
use super::secret::{ITERATIONS, Scram, Secret};
use super::throttle::Throttle;

/// What an exchange comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The client is to answer this.
    Challenge(Vec<u8>),
    /// It is who it says, under this name.
    Accepted(String),
    /// It is not, or may not log in.
    Rejected,
    /// Who it says it is has failed too often: whether it is right is not looked at.
    Blocked,
    /// What it says is no response of the mechanism.
    Malformed,
    /// It cannot be told now; why, for the log.
    Temporary(String),
}

/// An account that may log in.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its name with a domain.
    pub login: String,
    /// What is kept of its password.
    pub secret: Secret,
}

/// Where accounts are.
pub trait Accounts: Send + Sync {
    /// The account of a name, if it may log in.
    fn find(&self, name: &str) -> Option<Account>;

    /// The name with a domain, whether there is such an account or not.
    fn qualify(&self, name: &str) -> String;

    /// A secret for each kind that accounts have ([`Secret::kind`]).
    fn kinds(&self) -> Vec<Secret>;

    /// Whether anybody may log in, and whether all of them can by SCRAM.
    fn abilities(&self) -> Abilities;
}

/// What accounts can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// At least one may log in.
    pub login: bool,
    /// All that may have a secret that is good for SCRAM.
    pub scram: bool,
}

/// One exchange.
pub struct Server<'a> {
    accounts: &'a dyn Accounts,
    mechanism: Mechanism,
    /// What binds to the TLS connection, if there is one.
    binding: Option<Vec<u8>>,
    /// Who has failed too often, and where this client is.
    guard: Option<(&'a Throttle, Option<IpAddr>)>,
    name: String,
    state: State,
}

enum State {
    Start,
    /// PLAIN and SCRAM: what comes first was asked for.
    Asked,
    /// LOGIN: the name was asked for.
    Name,
    /// LOGIN: the password was asked for.
    Password,
    /// SCRAM: the proof was asked for.
    Proof(Box<Challenge>),
    /// SCRAM: the server has proved itself, and awaits nothing.
    Proved(String),
    Over,
}

/// What was said up to the proof.
struct Challenge {
    /// The account, if there is one that may log in.
    login: Option<String>,
    keys: Keys,
    /// What c= is to be.
    bound: Vec<u8>,
    nonce: String,
    /// The two first messages.
    said: String,
}

/// The longest name, in octets.
const LONGEST_NAME: usize = 255;

impl<'a> Server<'a> {
    /// An exchange by a mechanism that was offered. With `binding` the one bound to
    /// the TLS connection was offered, too.
    pub fn new(accounts: &'a dyn Accounts, mechanism: Mechanism, binding: Option<Vec<u8>>) -> Self {
        Self { accounts, mechanism, binding, guard: None, name: String::new(), state: State::Start }
    }

    /// Lets nobody find out, by a client at `host`, whether a password is right for whom
    /// has failed too often: it ends as soon as the name is known.
    pub fn guarded(mut self, throttle: &'a Throttle, host: Option<IpAddr>) -> Self {
        self.guard = Some((throttle, host));
        self
    }

    /// Who the client says it is, with a domain; empty before it has.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Goes on with what the client said; `None` if it has said nothing with AUTH.
    pub fn step(&mut self, response: Option<&[u8]>) -> Step {
        let is_scram = matches!(self.mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus);
        match (std::mem::replace(&mut self.state, State::Over), response) {
            (State::Start, None) if self.mechanism == Mechanism::Login => self.ask(State::Name, b"Username:"),
            (State::Start, None) => self.ask(State::Asked, b""),
            (State::Start | State::Name, Some(name)) if self.mechanism == Mechanism::Login => self.login_name(name),
            (State::Password, Some(password)) => self.check(password),
            (State::Start | State::Asked, Some(text)) if self.mechanism == Mechanism::Plain => self.plain(text),
            (State::Start | State::Asked, Some(text)) if is_scram => self.first(text).unwrap_or_else(|step| step),
            (State::Proof(challenge), Some(text)) => self.last(*challenge, text).unwrap_or_else(|step| step),
            (State::Proved(login), Some(b"")) => Step::Accepted(login),
            _ => Step::Malformed,
        }
    }

    fn ask(&mut self, state: State, challenge: &[u8]) -> Step {
        self.state = state;
        Step::Challenge(challenge.to_vec())
    }

    fn login_name(&mut self, name: &[u8]) -> Step {
        match self.take_name(name) {
            Ok(()) => self.ask(State::Password, b"Password:"),
            Err(step) => step,
        }
    }

    /// RFC 4616: for whom, NUL, who, NUL, password.
    fn plain(&mut self, text: &[u8]) -> Step {
        let mut fields = text.split(|&b| b == 0);
        let (Some(whom), Some(name), Some(password), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Step::Malformed;
        };
        if password.is_empty() {
            return Step::Malformed;
        }
        if let Err(step) = self.take_name(name) {
            return step;
        }
        match std::str::from_utf8(whom) {
            Ok(whom) if self.is_me(whom) => self.check(password),
            Ok(_) => Step::Rejected,
            Err(_) => Step::Malformed,
        }
    }

    /// Whether it is the client's own name in whose name it wants to act.
    fn is_me(&self, whom: &str) -> bool {
        whom.is_empty() || self.accounts.qualify(whom) == self.name
    }

    fn take_name(&mut self, name: &[u8]) -> Result<(), Step> {
        let name = std::str::from_utf8(name).ok().and_then(prepare);
        let name = name.filter(|name| (1..=LONGEST_NAME).contains(&name.len()));
        self.name = self.accounts.qualify(&name.ok_or(Step::Malformed)?);
        match self.guard {
            Some((throttle, host)) if throttle.is_blocked(host, &self.name) => Err(Step::Blocked),
            _ => Ok(()),
        }
    }

    fn check(&self, password: &[u8]) -> Step {
        let account = self.accounts.find(&self.name);
        let (login, secret) = match account {
            Some(account) => (Some(account.login), Some(account.secret)),
            None => (None, self.likely()),
        };
        let secret = secret.unwrap_or_else(|| Secret::Scram(decoy(&self.name, ITERATIONS, 16)));
        let Some(_turn) = Turn::take() else { return Step::Temporary("too many log in at once".to_owned()) };
        match login {
            Some(login) if secret.verify(password) => Step::Accepted(login),
            Some(_) => Step::Rejected,
            None => {
                secret.verify(password);
                Step::Rejected
            }
        }
    }

    /// SCRAM's first message: `flag,a=whom,n=name,r=nonce`.
    fn first(&mut self, text: &[u8]) -> Result<Step, Step> {
        let text = std::str::from_utf8(text).map_err(|_| Step::Malformed)?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(whom), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Step::Malformed);
        };
        let mut attributes = bare.split(',');
        let name = scram::value(attributes.next(), 'n').and_then(scram::unescape).ok_or(Step::Malformed)?;
        let nonce = scram::value(attributes.next(), 'r').filter(|n| scram::is_nonce(n)).ok_or(Step::Malformed)?;
        let whom = match whom {
            "" => String::new(),
            whom => scram::value(Some(whom), 'a').and_then(scram::unescape).ok_or(Step::Malformed)?,
        };
        self.take_name(name.as_bytes())?;
        let mut bound = text.as_bytes()[..text.len() - bare.len()].to_vec();
        bound.extend_from_slice(self.channel(flag)?);
        if !self.is_me(&whom) {
            return Err(Step::Rejected);
        }
        let own = scram::nonce().ok_or_else(|| Step::Temporary("no random numbers".to_owned()))?;
        let (login, scram) = self.keys();
        let nonce = format!("{nonce}{own}");
        let challenge = format!("r={nonce},s={},i={}", BASE64.encode(&scram.salt), scram.iterations);
        let said = format!("{bare},{challenge}");
        let state = State::Proof(Box::new(Challenge { login, keys: scram.keys, bound, nonce, said }));
        Ok(self.ask(state, challenge.as_bytes()))
    }

    /// What binds to the TLS connection, as the client's flag wants it (RFC 5802 6).
    fn channel(&self, flag: &str) -> Result<&[u8], Step> {
        match (flag, self.mechanism, &self.binding) {
            ("p=tls-exporter", Mechanism::ScramSha256Plus, Some(binding)) => Ok(binding),
            ("n", Mechanism::ScramSha256, _) | ("y", Mechanism::ScramSha256, None) => Ok(b""),
            // It was offered; who has not seen it has heard somebody else.
            ("y", Mechanism::ScramSha256, Some(_)) => Err(Step::Rejected),
            (flag, Mechanism::ScramSha256Plus, _) if flag.starts_with("p=") => Err(Step::Rejected),
            _ => Err(Step::Malformed),
        }
    }

    /// The account's keys, or some that look like it.
    fn keys(&self) -> (Option<String>, Scram) {
        if let Some(Account { login, secret: Secret::Scram(scram) }) = self.accounts.find(&self.name) {
            return (Some(login), scram);
        }
        let like = match self.likely() {
            Some(Secret::Scram(like)) => (like.iterations, like.salt.len()),
            _ => (ITERATIONS, 16),
        };
        (None, decoy(&self.name, like.0, like.1))
    }

    /// A secret of the kind that the client's account would have. It stays that kind as
    /// long as there is one of it, whatever other accounts come and go.
    fn likely(&self) -> Option<Secret> {
        self.accounts.kinds().into_iter().max_by_key(|secret| hidden(&secret.kind(), &self.name))
    }

    /// SCRAM's last message: `c=binding,r=nonce,p=proof`.
    fn last(&mut self, challenge: Challenge, text: &[u8]) -> Result<Step, Step> {
        let text = std::str::from_utf8(text).map_err(|_| Step::Malformed)?;
        let (without, proof) = text.rsplit_once(",p=").ok_or(Step::Malformed)?;
        let mut attributes = without.split(',');
        let octets = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| Step::Malformed);
        let bound = octets(scram::value(attributes.next(), 'c').ok_or(Step::Malformed)?)?;
        let nonce = scram::value(attributes.next(), 'r').ok_or(Step::Malformed)?;
        let proof = Key::try_from(octets(proof)?).map_err(|_| Step::Malformed)?;
        let message = format!("{},{without}", challenge.said);
        let is_proof = scram::is_proof(&challenge.keys.stored, message.as_bytes(), &proof);
        let is_fresh = scram::is_same(nonce.as_bytes(), challenge.nonce.as_bytes());
        let is_bound = scram::is_same(&bound, &challenge.bound);
        let Some(login) = challenge.login.filter(|_| is_proof && is_fresh && is_bound) else {
            return Err(Step::Rejected);
        };
        let signature = scram::sign(&challenge.keys.server, message.as_bytes());
        Ok(self.ask(State::Proved(login), format!("v={}", BASE64.encode(&signature)).as_bytes()))
    }
}

/// What the secrets of accounts that do not exist are made of.
static KEY: OnceLock<Key> = OnceLock::new();

/// Says what the secrets of accounts that do not exist are made of from now on: with
/// the same key as before a restart they stay what they were, as those of others do.
/// Has no effect after the first exchange, nor a second time.
pub fn set_key(key: Key) {
    let _ = KEY.set(key);
}

fn hidden(what: &str, name: &str) -> Key {
    let key = KEY.get_or_init(|| {
        let mut key = Key::default();
        // Without random numbers nobody gets as far as to see what is made of it.
        let _ = getrandom::fill(&mut key);
        key
    });
    scram::sign(key, format!("{what}\0{}", name.to_lowercase()).as_bytes())
}

/// A secret that nobody has the password of.
fn decoy(name: &str, iterations: u32, length: usize) -> Scram {
    let salt = hidden("salt", name).into_iter().cycle().take(length).collect();
    Scram { iterations, salt, keys: Keys { stored: hidden("stored", name), server: hidden("server", name) } }
}

/// The right to check a password.
struct Turn;

/// Passwords that are checked at once.
const AT_ONCE: usize = 2;
/// How long one may wait for his turn.
const PATIENCE: Duration = Duration::from_secs(20);

static RUNNING: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Turn {
    fn take() -> Option<Self> {
        let deadline = Instant::now() + PATIENCE;
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= AT_ONCE {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            running = FREED.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *running += 1;
        Some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}

#[cfg(test)]
mod tests;
