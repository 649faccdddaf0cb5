//! Mail to other hosts: who is tried, in which order, and when that is enough.
//!
//! A [`Courier`] belongs to one worker. It tries the hosts of a destination until
//! each recipient is settled, and keeps the connection that worked for the next
//! message to the same destination, or to another that the same host serves. At most
//! [`MAX_TRIES`] addresses are tried in one attempt, and none is begun after [`PATIENCE`];
//! how many connections lead to an address is for `addresses` to say.
//!
//! The policy is in [`after`]. What is said of a recipient in the end is what the
//! host said that came furthest, in doubt the preferred one. A connection kept from
//! an earlier message that turns out to be closed is replaced without a word. Does
//! not decide when the next attempt is, and writes nothing down; what the attempt showed
//! of the destination, its [`Contact`], is the queue's to judge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use addresses::{Addresses, Admission, Permit, place};
use client::{Answer, Connection, Manner, Security, Stage};
use credentials::Credentials;
use hosts::Peer;
pub use hosts::Target;

use super::Consignment;
use crate::config::{Config, RemoteTls};
use crate::dns::Dns;
use crate::outcome::{Contact, Fate, Outcome};
use crate::reply::Status;
use crate::timeouts::{Hurry, Patience, Trust};
use crate::tls;

pub mod addresses;
mod client;
pub mod credentials;
mod hosts;

/// Addresses tried in one attempt.
const MAX_TRIES: usize = 20;
/// For how long an attempt looks for a host that takes the message.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Takes mail to other hosts, one message at a time.
#[derive(Debug)]
pub struct Courier {
    shared: Shared,
    kept: Option<Kept>,
}

/// What all couriers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Who knows where hosts are.
    pub dns: Arc<Dns>,
    /// Where this daemon listens: no mail is sent there.
    pub local: Vec<SocketAddr>,
    /// How many connections lead where.
    pub addresses: Arc<Addresses>,
    /// How long hosts may be silent that have not proved themselves.
    pub patience: Arc<Patience>,
}

/// A connection for the next message.
#[derive(Debug)]
struct Kept {
    /// The destination to which it leads.
    key: Arc<str>,
    /// What held when it was made.
    tls: RemoteTls,
    /// Whether the DNS led to it: then it serves other destinations of that host as well.
    by_dns: bool,
    connection: Connection,
    /// Lives as long as the connection.
    _permit: Permit,
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
    /// What the queue thinks of the destination.
    pub trust: Trust,
}

/// What came of an attempt.
#[derive(Debug)]
pub struct Attempted {
    /// An outcome for each recipient, in order; they mean nothing where the contact says that
    /// nothing was tried.
    pub outcomes: Vec<Outcome>,
    /// What it showed of the destination.
    pub contact: Contact,
    /// The address that was used last, or for which others have to wait, as [`place`] has it.
    pub address: Option<SocketAddr>,
}

/// What is known of the recipients so far, in their order.
struct Attempt<'a> {
    what: &'a Consignment<'a>,
    answers: Vec<Option<Answer>>,
    tried: Vec<SocketAddr>,
    begun: Instant,
    trust: Trust,
    /// A host answered, at the address in `tried` that is the last one.
    has_answered: bool,
    /// Why no host could be reached.
    unreachable: Option<Outcome>,
    /// A host was given up before its time.
    is_cut: bool,
    /// An address to which no other connection may lead now.
    crowded: Option<SocketAddr>,
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
    /// A courier without a connection.
    pub fn new(shared: Shared) -> Self {
        Self { shared, kept: None }
    }

    /// Delivers `what` to the destination `to`, which the queue calls `key`.
    pub fn deliver(&mut self, terms: Terms<'_>, key: &Arc<str>, to: &Target, what: &Consignment<'_>) -> Attempted {
        let mut attempt = Attempt::new(what, terms.trust);
        if self.kept.as_ref().is_some_and(|kept| kept.key == *key) {
            self.use_kept(terms, key, &mut attempt);
        }
        if !attempt.is_over() {
            self.try_hosts(terms, key, to, &mut attempt);
        }
        attempt.end()
    }

    /// The destination to which a connection is kept, and its address.
    pub fn holds(&self) -> Option<(Arc<str>, SocketAddr)> {
        self.kept.as_ref().map(|kept| (Arc::clone(&kept.key), place(kept.connection.peer().address)))
    }

    /// Says QUIT where a connection is kept.
    pub fn close(&mut self) {
        if let Some(kept) = self.kept.take() {
            kept.connection.quit();
        }
    }

    /// Uses the connection that is kept, unless it was made by other rules. False if it
    /// was of no use.
    fn use_kept(&mut self, terms: Terms<'_>, key: &Arc<str>, attempt: &mut Attempt<'_>) -> bool {
        let Some(mut kept) = self.kept.take() else { return false };
        if kept.tls != terms.config.remote.tls {
            kept.connection.quit();
            return false;
        }
        let address = kept.connection.peer().address;
        kept.connection.set_hurry(Hurry::new(&self.shared.patience, terms.trust));
        let answers = kept.connection.send(&attempt.consignment());
        // It was closed while nobody used it; the host is tried as if for the first time.
        // So is one that wants another login than when the connection was made.
        if !kept.connection.is_usable() && answers.iter().all(|a| a.stage <= Stage::MailFrom && !a.is_cut) {
            kept.connection.quit();
            return false;
        }
        attempt.tried.push(address);
        attempt.has_answered = true;
        attempt.note_all(answers);
        kept.key = Arc::clone(key);
        self.keep(kept);
        true
    }

    fn try_hosts(&mut self, terms: Terms<'_>, key: &Arc<str>, to: &Target, attempt: &mut Attempt<'_>) {
        let groups = match to.groups(&self.shared.dns, &terms.config.hostname) {
            Ok(groups) => groups,
            Err(outcome) => return attempt.note_nowhere(outcome),
        };
        for group in groups {
            let mut found = to.look_up(&self.shared.dns, &group, &self.shared.local);
            if let Some(outcome) = found.trouble {
                attempt.note_nowhere(outcome);
            }
            if found.ourselves {
                return attempt.note_nowhere(to.loops());
            }
            // Where a connection leads already is as good as any other of them.
            found.peers.sort_by_key(|peer| !self.keeps(peer, to));
            for peer in found.peers {
                if attempt.is_over() {
                    return;
                }
                if attempt.may_try(&peer) && !self.try_host(terms, key, (to, &peer), attempt) {
                    return attempt.note_nowhere(to.loops());
                }
            }
            // A host that is busy is not a reason to go to one that is less preferred.
            if attempt.crowded.is_some() {
                return;
            }
        }
    }

    /// Whether the connection that is kept leads to this host, and may be used for any
    /// destination that the host serves.
    fn keeps(&self, peer: &Peer, to: &Target) -> bool {
        let is_it = |kept: &Kept| kept.by_dns && kept.connection.peer() == peer;
        matches!(to, Target::Mx { .. }) && self.kept.as_ref().is_some_and(is_it)
    }

    /// Whether `peer` is someone else.
    fn try_host(
        &mut self,
        terms: Terms<'_>,
        key: &Arc<str>,
        (to, peer): (&Target, &Peer),
        attempt: &mut Attempt<'_>,
    ) -> bool {
        if self.keeps(peer, to) && self.use_kept(terms, key, attempt) {
            return true;
        }
        self.close();
        let config = terms.config;
        let permit = match self.shared.addresses.ask(peer.address, config.queue.workers_per_destination) {
            Admission::Granted(permit) => permit,
            Admission::Crowded => {
                attempt.crowded = Some(peer.address);
                return true;
            }
            Admission::Down(why) => {
                attempt.note_nowhere(Outcome { why: format!("not tried again yet: {}", why.why), ..*why });
                return true;
            }
        };
        attempt.tried.push(peer.address);
        let mut connection = match self.open(terms, (to, peer), attempt.what.id) {
            Ok(connection) => connection,
            // Those that there are go on, and this message waits for one of them.
            Err(answer) if answer.is_too_many() && permit.refused() => {
                attempt.crowded = Some(peer.address);
                return true;
            }
            Err(answer) => {
                attempt.note_closed(&answer, &permit);
                return true;
            }
        };
        permit.answered();
        // Where the configuration names a host, it may well have this one's name, as
        // a content filter at another port does.
        if matches!(to, Target::Mx { .. }) && connection.is_named(&config.hostname) {
            connection.quit();
            return false;
        }
        attempt.has_answered = true;
        let answers = connection.send(&attempt.consignment());
        attempt.note_all(answers);
        let by_dns = matches!(to, Target::Mx { .. });
        self.keep(Kept { key: Arc::clone(key), tls: config.remote.tls, by_dns, connection, _permit: permit });
        true
    }

    fn open(&self, terms: Terms<'_>, (to, peer): (&Target, &Peer), id: &str) -> Result<Connection, Answer> {
        let login = match to {
            Target::Hosts(_) => terms.credentials.find(&peer.identity()),
            // Whoever the DNS names gets no secret.
            Target::Mx { .. } => None,
        };
        let manner = Manner {
            id,
            hostname: &terms.config.hostname,
            limit: terms.config.remote.timeout,
            tls: terms.tls,
            security: Security::of(peer, terms.config.remote.tls, login.is_some()),
            is_ours: matches!(to, Target::Hosts(_)),
            login: login.as_deref(),
            hurry: Hurry::new(&self.shared.patience, terms.trust),
        };
        Connection::open(peer, &manner)
    }

    fn keep(&mut self, kept: Kept) {
        self.close();
        if kept.connection.is_usable() {
            self.kept = Some(kept);
        } else {
            kept.connection.quit();
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.close();
    }
}

impl<'a> Attempt<'a> {
    fn new(what: &'a Consignment<'a>, trust: Trust) -> Self {
        Self {
            what,
            answers: vec![None; what.recipients.len()],
            tried: Vec::new(),
            begun: Instant::now(),
            trust,
            has_answered: false,
            unreachable: None,
            is_cut: false,
            crowded: None,
        }
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
        if outcome.fate == Fate::Deferred {
            self.unreachable = Some(outcome.clone());
        }
        self.note_everyone(&Answer { stage: Stage::Connect, outcome, is_cut: false });
    }

    /// There is no connection to a host that was asked.
    fn note_closed(&mut self, answer: &Answer, permit: &Permit) {
        if answer.is_cut && self.trust == Trust::Unproven {
            self.is_cut = true;
        } else {
            // One that says why it takes no mail now is there, and so is one that fails later.
            if answer.outcome.reply.is_none() && answer.stage <= Stage::Banner {
                permit.failed(&answer.outcome);
            }
            self.unreachable = Some(answer.outcome.clone());
        }
        self.note_everyone(answer);
    }

    /// Whether nothing was said of any recipient.
    fn is_silent(&self) -> bool {
        let is_silent = |a: &Answer| a.outcome.fate == Fate::Deferred && a.outcome.reply.is_none();
        self.answers.iter().flatten().all(|a| a.stage < Stage::AfterDot && is_silent(a))
    }

    fn end(self) -> Attempted {
        let is_cut = self.is_cut || self.trust == Trust::Unproven && self.answers.iter().flatten().any(|a| a.is_cut);
        let contact = match self.unreachable {
            _ if self.crowded.is_some() && self.is_silent() => Contact::Crowded,
            _ if is_cut && self.is_silent() => Contact::Postponed,
            _ if self.has_answered => {
                let troubled = self.answers.iter().flatten().find(|a| a.outcome.fate != Fate::Delivered);
                Contact::Answered(troubled.map(|a| Box::new(a.outcome.clone())))
            }
            Some(why) => Contact::Unreachable(Box::new(why)),
            None => Contact::None,
        };
        let nobody = || Outcome::deferred(Status(4, 4, 0), "no host could be tried");
        let outcomes = self.answers.into_iter().map(|answer| answer.map_or_else(nobody, |a| a.outcome)).collect();
        let address = self.crowded.filter(|_| matches!(contact, Contact::Crowded)).or(self.tried.last().copied());
        Attempted { outcomes, contact, address: address.map(place) }
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
