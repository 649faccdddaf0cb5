//! Mail to other hosts: who is tried, in which order, and when that is enough.
//!
//! A [`Courier`] belongs to one worker. It tries the hosts of a destination until
//! each recipient is settled, and keeps the connection that worked for the next
//! message to the same destination. At most [`MAX_TRIES`] addresses are tried in
//! one attempt, and none is begun after [`PATIENCE`].
//!
//! The policy is in [`after`]. What is said of a recipient in the end is what the
//! host said that came furthest, in doubt the preferred one. A connection kept from
//! an earlier message that turns out to be closed is replaced without a word. Does
//! not decide when the next attempt is, and writes nothing down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Consignment;
use super::client::{Answer, Connection, Manner, Security, Stage};
use super::credentials::Credentials;
use super::hosts::Peer;
pub use super::hosts::Target;
use crate::config::{Config, RemoteTls};
use crate::dns::Dns;
use crate::outcome::{Fate, Outcome};
use crate::reply::Status;
use crate::tls;

/// Addresses tried in one attempt.
const MAX_TRIES: usize = 20;
/// For how long an attempt looks for a host that takes the message.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Takes mail to other hosts, one message at a time.
#[derive(Debug)]
pub struct Courier {
    dns: Arc<Dns>,
    local: Vec<SocketAddr>,
    kept: Option<Kept>,
}

/// A connection for the next message.
#[derive(Debug)]
struct Kept {
    /// The destination to which it leads.
    key: String,
    /// What held when it was made.
    tls: RemoteTls,
    connection: Connection,
}

/// What holds for an attempt.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// What makes connections of TLS.
    pub tls: &'a tls::Client,
    /// Who this server is at which host.
    pub credentials: &'a Credentials,
}

/// What is known of the recipients so far, in their order.
struct Attempt<'a> {
    what: &'a Consignment<'a>,
    answers: Vec<Option<Answer>>,
    tried: Vec<SocketAddr>,
    begun: Instant,
}

/// What to do about a recipient after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Ask the next host.
    NextHost,
    /// That is it, for this attempt.
    Settled,
}

/// What an answer means for its recipient. Delivered and refused are final, unless
/// the refusal came before MAIL and so cannot have been about the message. What is
/// deferred may be taken by the next host (a greylist may not be everywhere), but
/// not once the dot is sent: a host that then says nothing may have the message,
/// and one that then says no has looked at it. Nor will another host help a
/// message that cannot be read.
fn after(answer: &Answer) -> Next {
    match answer.outcome.fate {
        Fate::Delivered => Next::Settled,
        Fate::Failed if answer.stage < Stage::MailFrom => Next::NextHost,
        Fate::Failed => Next::Settled,
        Fate::Deferred if answer.stage < Stage::AfterDot => Next::NextHost,
        Fate::Deferred => Next::Settled,
    }
}

impl Courier {
    /// A courier without a connection. `local` is where this daemon listens, to
    /// which no mail is sent.
    pub fn new(dns: Arc<Dns>, local: Vec<SocketAddr>) -> Self {
        Self { dns, local, kept: None }
    }

    /// Delivers `what` to the destination `to`, which the queue calls `key`. One
    /// outcome for each recipient, in order.
    pub fn deliver(&mut self, terms: Terms<'_>, key: &str, to: &Target, what: &Consignment<'_>) -> Vec<Outcome> {
        let mut attempt = Attempt::new(what);
        self.use_kept(key, terms.config.remote.tls, &mut attempt);
        if !attempt.is_over() {
            self.try_hosts(terms, key, to, &mut attempt);
        }
        attempt.outcomes()
    }

    /// The destination to which a connection is kept.
    pub fn holds(&self) -> Option<&str> {
        self.kept.as_ref().map(|kept| kept.key.as_str())
    }

    /// Says QUIT where a connection is kept.
    pub fn close(&mut self) {
        if let Some(kept) = self.kept.take() {
            kept.connection.quit();
        }
    }

    fn use_kept(&mut self, key: &str, tls: RemoteTls, attempt: &mut Attempt<'_>) {
        if self.kept.as_ref().is_some_and(|kept| kept.key != key || kept.tls != tls) {
            self.close();
        }
        let Some(Kept { mut connection, .. }) = self.kept.take() else { return };
        let address = connection.peer().address;
        let answers = connection.send(&attempt.consignment());
        // It was closed while nobody used it; the host is tried as if for the first time.
        // So is one that wants another login than when the connection was made.
        if !connection.is_usable() && answers.iter().all(|a| a.stage <= Stage::MailFrom) {
            connection.quit();
            return;
        }
        attempt.tried.push(address);
        attempt.note_all(answers);
        self.keep(key, tls, connection);
    }

    fn try_hosts(&mut self, terms: Terms<'_>, key: &str, to: &Target, attempt: &mut Attempt<'_>) {
        let groups = match to.groups(&self.dns, &terms.config.hostname) {
            Ok(groups) => groups,
            Err(outcome) => return attempt.note_nowhere(outcome),
        };
        for group in groups {
            let found = to.look_up(&self.dns, &group, &self.local);
            if let Some(outcome) = found.trouble {
                attempt.note_nowhere(outcome);
            }
            if found.ourselves {
                return attempt.note_nowhere(to.loops());
            }
            for peer in found.peers {
                if attempt.is_over() {
                    return;
                }
                if attempt.may_try(&peer) && !self.try_host(terms, key, (to, &peer), attempt) {
                    return attempt.note_nowhere(to.loops());
                }
            }
        }
    }

    /// Whether `peer` is someone else.
    fn try_host(
        &mut self,
        terms: Terms<'_>,
        key: &str,
        (to, peer): (&Target, &Peer),
        attempt: &mut Attempt<'_>,
    ) -> bool {
        attempt.tried.push(peer.address);
        let config = terms.config;
        let login = match to {
            Target::Hosts(_) => terms.credentials.find(&peer.identity()),
            // Whoever the DNS names gets no secret.
            Target::Mx { .. } => None,
        };
        let manner = Manner {
            id: attempt.what.id,
            hostname: &config.hostname,
            limit: config.remote.timeout,
            tls: terms.tls,
            security: Security::of(peer, config.remote.tls, login.is_some()),
            is_ours: matches!(to, Target::Hosts(_)),
            login: login.as_deref(),
        };
        let mut connection = match Connection::open(peer, &manner) {
            Ok(connection) => connection,
            Err(answer) => {
                attempt.note_everyone(&answer);
                return true;
            }
        };
        // Where the configuration names a host, it may well have this one's name, as
        // a content filter at another port does.
        if matches!(to, Target::Mx { .. }) && connection.is_named(&config.hostname) {
            connection.quit();
            return false;
        }
        let answers = connection.send(&attempt.consignment());
        attempt.note_all(answers);
        self.keep(key, config.remote.tls, connection);
        true
    }

    fn keep(&mut self, key: &str, tls: RemoteTls, connection: Connection) {
        self.close();
        if connection.is_usable() {
            self.kept = Some(Kept { key: key.to_owned(), tls, connection });
        } else {
            connection.quit();
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.close();
    }
}

impl<'a> Attempt<'a> {
    fn new(what: &'a Consignment<'a>) -> Self {
        Self { what, answers: vec![None; what.recipients.len()], tried: Vec::new(), begun: Instant::now() }
    }

    /// The recipients that may be asked for elsewhere, by place.
    fn open(&self) -> impl Iterator<Item = usize> {
        let is_open = |answer: &Option<Answer>| answer.as_ref().is_none_or(|a| after(a) == Next::NextHost);
        (0..).zip(&self.answers).filter(move |(_, answer)| is_open(answer)).map(|(at, _)| at)
    }

    fn is_over(&self) -> bool {
        self.open().next().is_none() || self.tried.len() >= MAX_TRIES || self.begun.elapsed() > PATIENCE
    }

    fn may_try(&self, peer: &Peer) -> bool {
        !self.tried.contains(&peer.address)
    }

    /// The message for those who have not got it.
    fn consignment(&self) -> Consignment<'a> {
        let recipients = self.open().filter_map(|at| self.what.recipients.get(at).copied()).collect();
        Consignment { recipients, ..self.what.clone() }
    }

    /// Notes the answers to [`Attempt::consignment`].
    fn note_all(&mut self, answers: Vec<Answer>) {
        let open: Vec<_> = self.open().collect();
        for (at, answer) in open.into_iter().zip(answers) {
            note(&mut self.answers[at], answer);
        }
    }

    fn note_everyone(&mut self, answer: &Answer) {
        let open: Vec<_> = self.open().collect();
        open.into_iter().for_each(|at| note(&mut self.answers[at], answer.clone()));
    }

    /// There was no host to ask.
    fn note_nowhere(&mut self, outcome: Outcome) {
        self.note_everyone(&Answer { stage: Stage::Connect, outcome });
    }

    fn outcomes(self) -> Vec<Outcome> {
        let nobody = || Outcome::deferred(Status(4, 4, 0), "no host could be tried");
        self.answers.into_iter().map(|answer| answer.map_or_else(nobody, |a| a.outcome)).collect()
    }
}

/// Keeps what says more: an answer from further on in a dialogue, or a deferral,
/// since a host that may come back is a reason to wait.
fn note(slot: &mut Option<Answer>, answer: Answer) {
    match slot {
        Some(old) if after(&answer) == Next::Settled || answer.stage > old.stage => *old = answer,
        Some(old) if old.outcome.fate == Fate::Failed => *old = answer,
        Some(_) => {}
        None => *slot = Some(answer),
    }
}
