//! Authenticates clients with accounts from a users file.
//!
//! A [`Server`] is one exchange. It takes the client's responses and returns [`Step`]s.
//! SCRAM-SHA-256 requires a {SCRAM-SHA-256} secret; PLAIN and LOGIN work with any secret. With
//! SCRAM-SHA-256-PLUS the client proves that both sides use the same TLS connection
//! (`tls-exporter`, RFC 9266). If SCRAM-SHA-256-PLUS was offered, but the client says that it was
//! not, the client is refused: a third party has changed the offer. A client that requests to act
//! as another user is refused, too.
//!
//! An exchange for an account that does not exist or cannot log in takes the same steps and the
//! same time as any other exchange. It uses a secret like those of other accounts, and fails at the
//! end. At most two passwords are checked at a time, so that the memory in use is bounded. An
//! attempt that waits too long for its check fails temporarily.

use std::net::IpAddr;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::BASE64;

use super::Mechanism;
use super::prep::prepare;
use super::scram::{self, Key, Keys};
use super::secret::{ITERATIONS, Scram, Secret};
use super::throttle::Throttle;

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A challenge for the client.
    Challenge(Vec<u8>),
    /// The client is authenticated as this user.
    Accepted(String),
    /// The credentials are wrong, or the user cannot log in.
    Rejected,
    /// Too many attempts by the client, or for the account, have failed. The password was not
    /// checked.
    Blocked,
    /// The response does not conform to the mechanism.
    Malformed,
    /// A temporary failure, with the reason for the log.
    Temporary(String),
}

/// An account that can log in.
#[derive(Debug, Clone)]
pub struct Account {
    /// The name of the account.
    pub login: String,
    /// The stored form of its password.
    pub secret: Secret,
}

/// The source of accounts.
pub trait Accounts: Send + Sync {
    /// The account with this name; `None` if there is none, or if the account cannot log in.
    fn find(&self, name: &str) -> Option<Account>;

    /// The canonical form of a name, with a domain. The account need not exist.
    fn qualify(&self, name: &str) -> String;

    /// The domain of a name in canonical form, that of a name without a domain included; `None` if the
    /// name is no address.
    fn domain(&self, name: &str) -> Option<String>;

    /// Whether the user with this login, which may lack a domain, is the same in all local domains that
    /// share the accounts of its domain.
    fn is_one_user(&self, _login: &str) -> bool {
        false
    }

    /// Whether the accounts of a domain have users who are the same in all domains that share them.
    fn has_users_of_all_domains(&self, _domain: &str) -> bool {
        false
    }

    /// One secret of each [`Secret::kind`] that the accounts have.
    fn kinds(&self) -> Vec<Secret>;

    /// Whether any account can log in, and whether all accounts that can log in can use SCRAM.
    fn abilities(&self) -> Abilities;
}

/// The abilities of a set of accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Whether at least one account can log in.
    pub login: bool,
    /// Whether each account that can log in has a secret for SCRAM.
    pub scram: bool,
}

impl Abilities {
    /// Returns the abilities of accounts that have secrets of these kinds.
    pub fn of<'s>(kinds: impl IntoIterator<Item = &'s Secret>) -> Self {
        let mut kinds = kinds.into_iter().map(|secret| matches!(secret, Secret::Scram(_))).peekable();
        let login = kinds.peek().is_some();
        Self { login, scram: login && kinds.all(|is_scram| is_scram) }
    }
}

/// One exchange.
pub struct Server<'a> {
    accounts: &'a dyn Accounts,
    mechanism: Mechanism,
    /// The channel binding of the TLS connection, if there is one.
    binding: Option<Vec<u8>>,
    /// The counts of failures that may block the exchange, and the address of the client.
    guard: Option<(&'a Throttle, Option<IpAddr>)>,
    name: String,
    state: State,
}

enum State {
    Start,
    /// PLAIN and SCRAM: waits for the initial response.
    Initial,
    /// LOGIN: waits for the name.
    Name,
    /// LOGIN: waits for the password.
    Password,
    /// SCRAM: waits for the proof.
    Proof(Box<Challenge>),
    /// SCRAM: the server's proof was sent; waits for an empty response.
    Proved(String),
    Over,
}

/// The state of a SCRAM exchange that waits for the client's proof.
struct Challenge {
    /// The name of the account, if it exists and can log in.
    login: Option<String>,
    keys: Keys,
    /// The value that the client has to send, encoded in base64, in the attribute `c=`.
    bound: Vec<u8>,
    nonce: String,
    /// The client's first message without its header, and the challenge, joined by a comma.
    messages: String,
}

/// The maximum length of a name, in bytes.
const MAX_NAME: usize = 255;

impl<'a> Server<'a> {
    /// An exchange with a mechanism that was offered. If there is a `binding`, SCRAM-SHA-256-PLUS
    /// was offered, too.
    pub fn new(accounts: &'a dyn Accounts, mechanism: Mechanism, binding: Option<Vec<u8>>) -> Self {
        Self { accounts, mechanism, binding, guard: None, name: String::new(), state: State::Start }
    }

    /// Guards the exchange: it ends with [`Step::Blocked`] as soon as the name is known, if too
    /// many attempts by the client at `host`, or for the account, have failed.
    pub fn guarded(mut self, throttle: &'a Throttle, host: Option<IpAddr>) -> Self {
        self.guard = Some((throttle, host));
        self
    }

    /// The name of the account that the client claims; if there is no such account, the claimed name.
    pub fn account(&self) -> String {
        self.accounts.find(&self.name).map_or_else(|| self.name.clone(), |account| account.login)
    }

    /// The user name that the client claims, with a domain; empty until it is known.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes a response of the client, and returns the next step. `None` stands for AUTH without an
    /// initial response.
    pub fn step(&mut self, response: Option<&[u8]>) -> Step {
        let is_scram = matches!(self.mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus);
        match (std::mem::replace(&mut self.state, State::Over), response) {
            (State::Start, None) if self.mechanism == Mechanism::Login => self.ask(State::Name, b"Username:"),
            (State::Start, None) => self.ask(State::Initial, b""),
            (State::Start | State::Name, Some(name)) if self.mechanism == Mechanism::Login => self.login_name(name),
            (State::Password, Some(password)) => self.check(password),
            (State::Start | State::Initial, Some(text)) if self.mechanism == Mechanism::Plain => self.plain(text),
            (State::Start | State::Initial, Some(text)) if is_scram => self.first(text).unwrap_or_else(|step| step),
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

    /// PLAIN (RFC 4616): authorization identity, NUL, name, NUL, password.
    fn plain(&mut self, text: &[u8]) -> Step {
        let mut fields = text.split(|&b| b == 0);
        let (Some(identity), Some(name), Some(password), None) =
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
        match std::str::from_utf8(identity) {
            Ok(identity) if self.is_own(identity) => self.check(password),
            Ok(_) => Step::Rejected,
            Err(_) => Step::Malformed,
        }
    }

    /// Whether the authorization identity is absent or the client's own name.
    fn is_own(&self, identity: &str) -> bool {
        identity.is_empty() || self.accounts.qualify(identity) == self.name
    }

    fn take_name(&mut self, name: &[u8]) -> Result<(), Step> {
        let name = std::str::from_utf8(name).ok().and_then(prepare);
        let name = name.filter(|name| (1..=MAX_NAME).contains(&name.len()));
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
        let Some(_permit) = CheckPermit::acquire() else {
            return Step::Temporary("too many passwords are being checked".to_owned());
        };
        match login {
            Some(login) if secret.verify(password) => Step::Accepted(login),
            Some(_) => Step::Rejected,
            None => {
                secret.verify(password);
                Step::Rejected
            }
        }
    }

    /// The first message of SCRAM: `flag,a=identity,n=name,r=nonce`.
    fn first(&mut self, text: &[u8]) -> Result<Step, Step> {
        let text = std::str::from_utf8(text).map_err(|_| Step::Malformed)?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(identity), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Step::Malformed);
        };
        let mut attributes = bare.split(',');
        let name = scram::value(attributes.next(), 'n').and_then(scram::unescape).ok_or(Step::Malformed)?;
        let nonce = scram::value(attributes.next(), 'r').filter(|n| scram::is_nonce(n)).ok_or(Step::Malformed)?;
        let identity = match identity {
            "" => String::new(),
            identity => scram::value(Some(identity), 'a').and_then(scram::unescape).ok_or(Step::Malformed)?,
        };
        self.take_name(name.as_bytes())?;
        let mut bound = text.as_bytes()[..text.len() - bare.len()].to_vec();
        bound.extend_from_slice(self.channel(flag)?);
        if !self.is_own(&identity) {
            return Err(Step::Rejected);
        }
        let own_nonce = scram::nonce().ok_or_else(|| Step::Temporary("no random numbers".to_owned()))?;
        let (login, scram) = self.keys();
        let nonce = format!("{nonce}{own_nonce}");
        let challenge = format!("r={nonce},s={},i={}", BASE64.encode(&scram.salt), scram.iterations);
        let messages = format!("{bare},{challenge}");
        let state = State::Proof(Box::new(Challenge { login, keys: scram.keys, bound, nonce, messages }));
        Ok(self.ask(state, challenge.as_bytes()))
    }

    /// The channel binding that the client's flag selects (RFC 5802 6).
    fn channel(&self, flag: &str) -> Result<&[u8], Step> {
        match (flag, self.mechanism, &self.binding) {
            ("p=tls-exporter", Mechanism::ScramSha256Plus, Some(binding)) => Ok(binding),
            ("n", Mechanism::ScramSha256, _) | ("y", Mechanism::ScramSha256, None) => Ok(b""),
            // The client says that channel binding was not offered, although it was offered. So a
            // third party has hidden the offer from the client.
            ("y", Mechanism::ScramSha256, Some(_)) => Err(Step::Rejected),
            (flag, Mechanism::ScramSha256Plus, _) if flag.starts_with("p=") => Err(Step::Rejected),
            _ => Err(Step::Malformed),
        }
    }

    /// The name and the keys of the account, or `None` and a decoy that looks like real keys.
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

    /// A secret of the kind that an account with the claimed name might have. The choice among the
    /// existing kinds depends only on the name and on [`KEY`]. So the choice for a name changes
    /// only if a kind is added, or if the last secret of a kind is removed.
    fn likely(&self) -> Option<Secret> {
        self.accounts.kinds().into_iter().max_by_key(|secret| hidden(&secret.kind(), &self.name))
    }

    /// The last message of SCRAM: `c=binding,r=nonce,p=proof`.
    fn last(&mut self, challenge: Challenge, text: &[u8]) -> Result<Step, Step> {
        let text = std::str::from_utf8(text).map_err(|_| Step::Malformed)?;
        let (without, proof) = text.rsplit_once(",p=").ok_or(Step::Malformed)?;
        let mut attributes = without.split(',');
        let octets = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| Step::Malformed);
        let bound = octets(scram::value(attributes.next(), 'c').ok_or(Step::Malformed)?)?;
        let nonce = scram::value(attributes.next(), 'r').ok_or(Step::Malformed)?;
        let proof = Key::try_from(octets(proof)?).map_err(|_| Step::Malformed)?;
        let message = format!("{},{without}", challenge.messages);
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

/// The key from which the decoys of accounts that do not exist are derived.
static KEY: OnceLock<Key> = OnceLock::new();

/// Sets the key from which decoys are derived. If the key is the same after a restart, the decoys
/// are the same too, like the secrets of real accounts. Only the first call has an effect, and only
/// before the first decoy is made.
pub fn set_key(key: Key) {
    let _ = KEY.set(key);
}

fn hidden(what: &str, name: &str) -> Key {
    let key = KEY.get_or_init(|| {
        let mut key = Key::default();
        // Without random numbers SCRAM fails before the key is used for a decoy.
        let _ = getrandom::fill(&mut key);
        key
    });
    scram::sign(key, format!("{what}\0{}", name.to_lowercase()).as_bytes())
}

/// A secret that no password matches, with a salt of `length` bytes. The salt and the keys depend
/// only on `name` and on [`KEY`], so they stay the same for a name.
fn decoy(name: &str, iterations: u32, length: usize) -> Scram {
    let salt = hidden("salt", name).into_iter().cycle().take(length).collect();
    Scram { iterations, salt, keys: Keys { stored: hidden("stored", name), server: hidden("server", name) } }
}

/// A permit to check a password.
struct CheckPermit;

/// The maximum number of passwords checked at a time.
const MAX_CHECKS: usize = 2;
/// The maximum time that an attempt waits for a permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(20);

static RUNNING: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl CheckPermit {
    fn acquire() -> Option<Self> {
        let deadline = Instant::now() + PERMIT_TIMEOUT;
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= MAX_CHECKS {
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

impl Drop for CheckPermit {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}

#[cfg(test)]
mod tests;
