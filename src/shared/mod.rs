//! Asks the shared store for the counts that several hosts keep together, and for what they tell each
//! other.
//!
//! Each host counts for itself as well, all the time. An answer of the store can only make a limit
//! stricter than the host's own count: so a store that lies, or that is away, loosens none. The
//! exception is the greylist, in which an answer can say that another host has seen a client
//! before.
//!
//! A question is a script that the store runs as one step, with the store's own clock, so that the
//! clocks of the hosts do not matter. The answer about a count is a list of numbers and nothing else.
//! Every key expires. All names are in the keys as hashes.
//!
//! Hosts that share a secret also keep texts for each other: policies and keys of other domains. These
//! are sealed, since a store that lies could make up any text.
//!
//! This module knows nothing of connections: those are in `shared_store`.
//!
//! - `scripts`: the scripts
//! - `seal`: texts that only the hosts can read and make

mod scripts;
mod seal;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

pub use scripts::PROBE;
pub use seal::Seal;

/// The beginning of every key. The number changes if the meaning of the keys changes, so that two
/// versions of penfold can use the same store.
const PREFIX: &str = "penfold:1";
/// The length of a hash in a key, in octets.
const HASH: usize = 16;
/// The minimum time between two warnings about texts of others.
const WARN_PAUSE: Duration = Duration::from_secs(3600);

/// A script with its keys and arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The script, in Lua.
    pub script: &'static str,
    /// The keys that the script uses.
    pub keys: Vec<String>,
    /// The other arguments of the script.
    pub arguments: Vec<String>,
    /// The number of numbers in the answer; 0 if the answer is a text.
    pub numbers: usize,
}

/// A store that several hosts share.
pub trait Store: fmt::Debug + Send + Sync {
    /// Whether the configuration names a store. If not, no question is made.
    fn is_used(&self) -> bool;

    /// Returns the numbers that the script returns, exactly as many as the question expects.
    /// Returns `None` if the store does not answer, or answers anything else.
    fn ask(&self, question: &Question) -> Option<Vec<u64>>;

    /// Returns the text that the script returns. Returns `None` if the store does not answer, or
    /// answers anything else.
    fn ask_text(&self, question: &Question) -> Option<String>;

    /// The seal of the hosts that keep texts for each other; `None` if they keep none.
    fn seal(&self) -> Option<Arc<Seal>>;
}

/// The shared store, if there is one.
#[derive(Debug, Clone, Default)]
pub struct Shared(Option<Arc<dyn Store>>);

/// The state of a pair of a sender and a recipient in the shared greylist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greylisted {
    /// The network of the client has passed.
    Passed,
    /// The pair passes after this number of seconds.
    Waits(u64),
}

/// The limits of the greylist.
#[derive(Debug, Clone, Copy)]
pub struct GreylistLimits {
    /// The time after which a pair passes.
    pub delay: Duration,
    /// The time after which a pair that was tried once is forgotten, in seconds.
    pub tried_within: u64,
    /// The time after which a network that has passed is forgotten, in seconds.
    pub passed_for: u64,
    /// The maximum number of pairs of one network.
    pub max_waiting: usize,
}

/// The failed logins that all hosts have counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// Those of the client.
    pub client: u64,
    /// Those of the account.
    pub account: u64,
    /// Whether the client has authenticated to the account before.
    pub is_known: bool,
}

/// A client and an account for whose failed logins a host asks.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// The client's network; empty if it is not known.
    pub client: &'a str,
    /// The account, in lower case; may be empty.
    pub account: &'a str,
    /// The maximum numbers of failures that are counted: of a client, and of an account.
    pub max: (u32, u32),
}

impl Shared {
    /// The counts that this store keeps.
    pub fn in_store(store: Arc<dyn Store>) -> Self {
        Self(Some(store))
    }

    /// Counts one message or recipient within the last hour, if that is within the limit. `kind` says
    /// what is counted, and `name` for whom. Returns whether it is within the limit.
    pub fn count(&self, kind: &str, name: &str, limit: usize) -> Option<bool> {
        self.used()?;
        match self.ask(scripts::COUNT, vec![key(kind, &[name])], vec![limit.to_string(), "1".to_owned()], 2)?[..] {
            [0, _] => Some(false),
            [1, _] => Some(true),
            _ => None,
        }
    }

    /// The number of messages or recipients within the last hour. Nothing is counted.
    pub fn total(&self, kind: &str, name: &str) -> Option<u64> {
        self.used()?;
        let answer = self.ask(scripts::COUNT, vec![key(kind, &[name])], vec!["0".to_owned(), "0".to_owned()], 2)?;
        answer.get(1).copied()
    }

    /// Returns the failed logins of a client and an account.
    pub fn failures(&self, login: Login<'_>) -> Option<Failures> {
        self.login("look", login)
    }

    /// Counts a failed login. Returns the failures with this one.
    pub fn failed(&self, login: Login<'_>) -> Option<Failures> {
        self.login("failed", login)
    }

    /// Notes that a client has authenticated to an account. The note expires after some weeks.
    pub fn succeeded(&self, login: Login<'_>) {
        self.login("succeeded", login);
    }

    fn login(&self, step: &str, login: Login<'_>) -> Option<Failures> {
        self.used()?;
        let Login { client, account, max } = login;
        let keys =
            vec![key("login-client", &[client]), key("login-account", &[account]), key("login", &[client, account])];
        // What is not known is not counted.
        let max_of = |name: &str, max: u32| if name.is_empty() { 0 } else { max };
        let arguments = [max_of(client, max.0), max_of(account, max.1)].map(|max| max.to_string());
        let arguments = [step.to_owned()].into_iter().chain(arguments).collect();
        match self.ask(scripts::LOGIN, keys, arguments, 3)?[..] {
            [client, account, known @ (0 | 1)] => Some(Failures { client, account, is_known: known == 1 }),
            _ => None,
        }
    }

    /// Records an attempt of a network to send to a recipient, and returns the state of the pair.
    /// `pair` is the pair of sender and recipient.
    pub fn greylist(&self, network: &str, pair: &str, limits: GreylistLimits) -> Option<Greylisted> {
        self.greylist_step("try", network, pair, limits)
    }

    /// Returns the state of a pair without recording an attempt.
    pub fn greylist_peek(&self, network: &str, pair: &str, limits: GreylistLimits) -> Option<Greylisted> {
        self.greylist_step("look", network, pair, limits)
    }

    /// Records that a network has passed.
    pub fn greylist_passed(&self, network: &str, limits: GreylistLimits) {
        self.greylist_step("passed", network, "", limits);
    }

    fn greylist_step(&self, step: &str, network: &str, pair: &str, limits: GreylistLimits) -> Option<Greylisted> {
        self.used()?;
        let GreylistLimits { delay, tried_within, passed_for, max_waiting } = limits;
        let keys = vec![key("greylist-passed", &[network]), key("greylist", &[network])];
        let numbers = [delay.as_secs(), tried_within, passed_for, max_waiting as u64].map(|number| number.to_string());
        let arguments = [step.to_owned(), hash(&[pair])].into_iter().chain(numbers).collect();
        match self.ask(scripts::GREYLIST, keys, arguments, 2)?[..] {
            [1, 0] => Some(Greylisted::Passed),
            [0, left] if (1..=delay.as_secs()).contains(&left) => Some(Greylisted::Waits(left)),
            _ => None,
        }
    }

    /// Whether the hosts keep texts for each other.
    pub fn keeps_texts(&self) -> bool {
        self.used().and_then(Store::seal).is_some()
    }

    /// Keeps a text for the other hosts, for this number of seconds. An earlier text of the same kind
    /// and name is replaced. Without a secret of the hosts, nothing is kept.
    pub fn keep(&self, kind: &str, name: &str, text: &str, seconds: u64) {
        let Some(seal) = self.used().and_then(Store::seal) else { return };
        let Some(sealed) = seal.close(&sealed_name(kind, name), text) else { return };
        self.ask(scripts::KEEP, vec![key(kind, &[name])], vec![sealed, seconds.to_string()], 1);
    }

    /// Returns the text that a host with the same secret has kept. It may be older than the last one,
    /// since the store can put an old text back.
    pub fn recall(&self, kind: &str, name: &str) -> Option<String> {
        let store = self.used()?;
        let seal = store.seal()?;
        let keys = vec![key(kind, &[name])];
        let question = Question { script: scripts::RECALL, keys, arguments: Vec::new(), numbers: 0 };
        let sealed = store.ask_text(&question).filter(|sealed| !sealed.is_empty())?;
        let text = seal.open(&sealed_name(kind, name), &sealed);
        if text.is_none() {
            warn_of_foreign_text();
        }
        text
    }

    fn used(&self) -> Option<&dyn Store> {
        self.0.as_deref().filter(|store| store.is_used())
    }

    fn ask(&self, script: &'static str, keys: Vec<String>, arguments: Vec<String>, numbers: usize) -> Option<Vec<u64>> {
        let answer = self.used()?.ask(&Question { script, keys, arguments, numbers })?;
        (answer.len() == numbers).then_some(answer)
    }
}

/// Returns the question that shows whether a store can run scripts and keep keys. The answer is the
/// number, and the time of the store. `host` is the name of this host.
pub fn probe(host: &str, number: u32) -> Question {
    let keys = vec![key("probe", &[host])];
    Question { script: PROBE, keys, arguments: vec![number.to_string()], numbers: 2 }
}

/// Warns of a text that no host with the secret of this one has sealed, at most once an hour.
fn warn_of_foreign_text() {
    static WARNED: Mutex<Option<Instant>> = Mutex::new(None);
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.is_none_or(|at| at.elapsed() >= WARN_PAUSE) {
        *warned = Some(Instant::now());
        ::log::warn!("the shared store has a policy or a key that no host with this shared.secret has put there");
    }
}

/// The name under which a text is sealed.
fn sealed_name(kind: &str, name: &str) -> String {
    format!("{kind}\0{name}")
}

/// The key of something of this kind.
fn key(kind: &str, names: &[&str]) -> String {
    format!("{PREFIX}:{kind}:{}", hash(names))
}

/// The hash of several names.
fn hash(names: &[&str]) -> String {
    let digest = digest(&SHA256, names.join("\0").as_bytes());
    HEXLOWER.encode(digest.as_ref().get(..HASH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A store that gives one answer to every question.
    #[derive(Debug)]
    struct Fixed(Vec<u64>, Mutex<Vec<Question>>);

    impl Store for Fixed {
        fn is_used(&self) -> bool {
            true
        }

        fn ask(&self, question: &Question) -> Option<Vec<u64>> {
            self.1.lock().expect("whole").push(question.clone());
            Some(self.0.clone())
        }

        fn ask_text(&self, _: &Question) -> Option<String> {
            None
        }

        fn seal(&self) -> Option<Arc<Seal>> {
            None
        }
    }

    const LIMITS: GreylistLimits =
        GreylistLimits { delay: Duration::from_secs(300), tried_within: 1000, passed_for: 2000, max_waiting: 50 };
    const LOGIN: Login<'static> = Login { client: "192.0.2.1", account: "jon", max: (60, 120) };

    #[test]
    fn only_answers_that_a_script_can_give_count() {
        let shared = |numbers: &[u64]| Shared::in_store(Arc::new(Fixed(numbers.to_vec(), Mutex::default())));
        for (numbers, counted, greylisted, failures) in [
            (&[0, 7][..], Some(false), Some(Greylisted::Waits(7)), None),
            (&[1, 0], Some(true), Some(Greylisted::Passed), None),
            (&[1, 7], Some(true), None, None),
            (&[0, 0], Some(false), None, None),
            (&[0, 301], Some(false), None, None),
            (&[2, 0], None, None, None),
            (&[u64::MAX, u64::MAX], None, None, None),
            (&[], None, None, None),
            (&[1], None, None, None),
            (&[5, 6, 1], None, None, Some(Failures { client: 5, account: 6, is_known: true })),
            (&[5, 6, 2], None, None, None),
        ] {
            let shared = shared(numbers);
            assert_eq!(shared.count("messages", "jon", 300), counted, "{numbers:?}");
            assert_eq!(shared.greylist("192.0.2.0/24", "a b", LIMITS), greylisted, "{numbers:?}");
            assert_eq!(shared.failures(LOGIN), failures, "{numbers:?}");
        }
        assert_eq!(Shared::default().count("messages", "jon", 300), None);
    }

    #[test]
    fn keys_have_a_version_and_no_names() {
        let store = Arc::new(Fixed(vec![1, 0], Mutex::default()));
        let shared = Shared::in_store(Arc::clone(&store) as Arc<dyn Store>);
        shared.count("messages", "jon@example.org", 300);
        shared.failed(LOGIN);
        shared.greylist("192.0.2.0/24", "jon@example.org mary@example.org", LIMITS);
        let questions = store.1.lock().expect("whole");
        assert_eq!(questions.len(), 3);
        for question in questions.iter() {
            let text = format!("{:?} {:?}", question.keys, question.arguments);
            assert!(!["jon", "mary", "192", "example"].iter().any(|name| text.contains(name)), "{text}");
            assert!(question.keys.iter().all(|key| key.starts_with("penfold:1:") && key.len() < 80), "{text}");
        }
    }
}
