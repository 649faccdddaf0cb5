//! Mail to other hosts: who is tried, in which order, and when that is enough.
//!
//! A [`RemoteDelivery`] belongs to one worker. It tries the hosts of a destination until
//! each recipient is settled, and keeps the connection that worked for the next
//! message to the same destination, or to another that the same host serves. At most
//! [`MAX_TRIES`] addresses are tried in one attempt, and none is begun after [`PATIENCE`];
//! how many connections lead to an address is for `addresses` to say.
//!
//! The policy is in [`after`]. What is said of a recipient in the end is what the
//! host said that came furthest, in doubt the preferred one. A connection cached from
//! an earlier message that turns out to be closed is replaced without a word. Does
//! not decide when the next attempt is, and writes nothing down; what the attempt showed
//! of the destination, its [`Contact`], is the queue's to judge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use addresses::{Addresses, Admission, Permit, place};
use client::{ConnectOptions, Connection, Security, Stage, StageOutcome};
use credentials::Credentials;
use hosts::Peer;

use super::Delivery;
use crate::config::{Config, RemoteTls};
use crate::destination::{Destination, HostTarget};
use crate::dns::Dns;
use crate::endpoint::Endpoint;
use crate::outcome::{Contact, Fate, Outcome, Via};
use crate::reply::Status;
use crate::timeouts::{HostTimeout, HostTimeouts, Trust};
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
pub struct RemoteDelivery {
    shared: Outbound,
    cached: Option<CachedConnection>,
}

/// What all deliveries share.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Who knows where hosts are.
    pub dns: Arc<Dns>,
    /// Where this daemon listens: no mail is sent there.
    pub local: Vec<SocketAddr>,
    /// How many connections lead where.
    pub addresses: Arc<Addresses>,
    /// How long hosts may be silent that have not proved themselves.
    pub timeouts: Arc<HostTimeouts>,
}

/// A connection for the next message.
#[derive(Debug)]
struct CachedConnection {
    /// The destination to which it leads.
    key: Arc<Destination>,
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
pub struct RemoteSettings<'a> {
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
pub struct AttemptResult {
    /// An outcome for each recipient, in order; they mean nothing where the contact says that
    /// nothing was tried.
    pub outcomes: Vec<Outcome>,
    /// What it showed of the destination.
    pub contact: Contact,
    /// The address that was used last, or for which others have to wait, as [`place`] has it.
    pub address: Option<Endpoint>,
}

/// What is known of the recipients so far, in their order.
struct Progress<'a> {
    what: &'a Delivery<'a>,
    answers: Vec<Option<StageOutcome>>,
    tried: Vec<Endpoint>,
    begun: Instant,
    trust: Trust,
    /// A host answered, at the address in `tried` that is the last one.
    has_answered: bool,
    /// Why no host could be reached.
    unreachable: Option<Outcome>,
    /// A host was given up before its time.
    is_cut_short: bool,
    /// An address to which no other connection may lead now.
    at_limit: Option<Endpoint>,
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
fn after(answer: &StageOutcome) -> Next {
    match answer.outcome.fate {
        Fate::Delivered => Next::Settled,
        Fate::Failed if answer.stage < Stage::MailFrom => Next::NextHost,
        Fate::Failed => Next::Settled,
        Fate::Deferred if answer.stage < Stage::AfterDot => Next::NextHost,
        Fate::Deferred => Next::Settled,
    }
}

impl RemoteDelivery {
    /// A remote without a connection.
    pub fn new(shared: Outbound) -> Self {
        Self { shared, cached: None }
    }

    /// Delivers `what` to the destination `to`, which the queue calls `key`.
    pub fn deliver(
        &mut self,
        settings: RemoteSettings<'_>,
        key: &Arc<Destination>,
        to: &HostTarget,
        what: &Delivery<'_>,
    ) -> AttemptResult {
        let mut progress = Progress::new(what, settings.trust);
        if self.cached.as_ref().is_some_and(|cached| cached.key == *key) {
            self.use_cached(settings, key, &mut progress);
        }
        if !progress.is_over() {
            self.try_hosts(settings, key, to, &mut progress);
        }
        progress.end()
    }

    /// The destination to which a connection is cached, and its address.
    pub fn cached(&self) -> Option<(Arc<Destination>, Endpoint)> {
        self.cached.as_ref().map(|cached| (Arc::clone(&cached.key), place(&cached.connection.peer().endpoint)))
    }

    /// Says QUIT where a connection is cached.
    pub fn close(&mut self) {
        if let Some(cached) = self.cached.take() {
            cached.connection.quit();
        }
    }

    /// Uses the connection that is cached, unless it was made by other rules. False if it
    /// was of no use.
    fn use_cached(
        &mut self,
        settings: RemoteSettings<'_>,
        key: &Arc<Destination>,
        progress: &mut Progress<'_>,
    ) -> bool {
        let Some(mut cached) = self.cached.take() else { return false };
        if cached.tls != settings.config.remote.tls {
            cached.connection.quit();
            return false;
        }
        let endpoint = cached.connection.peer().endpoint.clone();
        cached.connection.set_host_timeout(HostTimeout::new(&self.shared.timeouts, settings.trust));
        let answers = cached.connection.send(&progress.delivery());
        // It was closed while nobody used it; the host is tried as if for the first time.
        // So is one that wants another login than when the connection was made.
        if !cached.connection.is_usable() && answers.iter().all(|a| a.stage <= Stage::MailFrom && !a.is_cut_short) {
            cached.connection.quit();
            return false;
        }
        progress.tried.push(endpoint);
        progress.has_answered = true;
        progress.note_all(answers);
        cached.key = Arc::clone(key);
        self.keep(cached);
        true
    }

    fn try_hosts(
        &mut self,
        settings: RemoteSettings<'_>,
        key: &Arc<Destination>,
        to: &HostTarget,
        progress: &mut Progress<'_>,
    ) {
        let groups = match to.groups(&self.shared.dns, &settings.config.hostname) {
            Ok(groups) => groups,
            Err(outcome) => return progress.note_nowhere(outcome),
        };
        for group in groups {
            let mut found = to.look_up(&self.shared.dns, &group, &self.shared.local);
            if let Some(outcome) = found.trouble {
                progress.note_nowhere(outcome);
            }
            if found.ourselves {
                return progress.note_nowhere(to.loops());
            }
            // Where a connection leads already is as good as any other of them.
            found.peers.sort_by_key(|peer| !self.keeps(peer, to));
            for peer in found.peers {
                if progress.is_over() {
                    return;
                }
                if progress.may_try(&peer) && !self.try_host(settings, key, (to, &peer), progress) {
                    return progress.note_nowhere(to.loops());
                }
            }
            // A host that is busy is not a reason to go to one that is less preferred.
            if progress.at_limit.is_some() {
                return;
            }
        }
    }

    /// Whether the connection that is cached leads to this host, and may be used for any
    /// destination that the host serves.
    fn keeps(&self, peer: &Peer, to: &HostTarget) -> bool {
        let is_it = |cached: &CachedConnection| cached.by_dns && cached.connection.peer() == peer;
        matches!(to, HostTarget::Mx { .. }) && self.cached.as_ref().is_some_and(is_it)
    }

    /// Whether `peer` is someone else.
    fn try_host(
        &mut self,
        settings: RemoteSettings<'_>,
        key: &Arc<Destination>,
        (to, peer): (&HostTarget, &Peer),
        progress: &mut Progress<'_>,
    ) -> bool {
        if self.keeps(peer, to) && self.use_cached(settings, key, progress) {
            return true;
        }
        self.close();
        let config = settings.config;
        let permit = match self.shared.addresses.ask(&peer.endpoint, config.queue.workers_per_destination) {
            Admission::Granted(permit) => permit,
            Admission::AtLimit => {
                progress.at_limit = Some(peer.endpoint.clone());
                return true;
            }
            Admission::Down(why) => {
                progress.note_nowhere(Outcome { why: format!("not tried again yet: {}", why.why), ..*why });
                return true;
            }
        };
        progress.tried.push(peer.endpoint.clone());
        let mut connection = match self.open(settings, (to, peer), progress.what.id) {
            Ok(connection) => connection,
            // Those that there are go on, and this message waits for one of them.
            Err(answer) if answer.is_too_many() && permit.refused() => {
                progress.at_limit = Some(peer.endpoint.clone());
                return true;
            }
            Err(answer) => {
                progress.note_closed(&answer, &permit);
                return true;
            }
        };
        permit.answered();
        // Where the configuration names a host, it may well have this one's name, as
        // a content filter at another port does.
        if matches!(to, HostTarget::Mx { .. }) && connection.is_named(&config.hostname) {
            connection.quit();
            return false;
        }
        progress.has_answered = true;
        let answers = connection.send(&progress.delivery());
        progress.note_all(answers);
        let by_dns = matches!(to, HostTarget::Mx { .. });
        self.keep(CachedConnection {
            key: Arc::clone(key),
            tls: config.remote.tls,
            by_dns,
            connection,
            _permit: permit,
        });
        true
    }

    fn open(
        &self,
        settings: RemoteSettings<'_>,
        (to, peer): (&HostTarget, &Peer),
        id: &str,
    ) -> Result<Connection, StageOutcome> {
        let login = match to {
            HostTarget::Hosts(_) => settings.credentials.find(&peer.identity()),
            // Whoever the DNS names gets no secret.
            HostTarget::Mx { .. } => None,
        };
        let options = ConnectOptions {
            id,
            hostname: &settings.config.hostname,
            limit: settings.config.remote.timeout,
            tls: settings.tls,
            security: Security::of(peer, settings.config.remote.tls, login.is_some()),
            is_ours: matches!(to, HostTarget::Hosts(_)),
            login: login.as_deref(),
            host_timeout: HostTimeout::new(&self.shared.timeouts, settings.trust),
        };
        Connection::open(peer, &options)
    }

    fn keep(&mut self, cached: CachedConnection) {
        self.close();
        if cached.connection.is_usable() {
            self.cached = Some(cached);
        } else {
            cached.connection.quit();
        }
    }
}

impl Drop for RemoteDelivery {
    fn drop(&mut self) {
        self.close();
    }
}

impl<'a> Progress<'a> {
    fn new(what: &'a Delivery<'a>, trust: Trust) -> Self {
        Self {
            what,
            answers: vec![None; what.recipients.len()],
            tried: Vec::new(),
            begun: Instant::now(),
            trust,
            has_answered: false,
            unreachable: None,
            is_cut_short: false,
            at_limit: None,
        }
    }

    /// The recipients that may be asked for elsewhere, by place.
    fn open(&self) -> impl Iterator<Item = usize> {
        let is_open = |answer: &Option<StageOutcome>| answer.as_ref().is_none_or(|a| after(a) == Next::NextHost);
        (0..).zip(&self.answers).filter(move |(_, answer)| is_open(answer)).map(|(at, _)| at)
    }

    fn is_over(&self) -> bool {
        self.open().next().is_none() || self.tried.len() >= MAX_TRIES || self.begun.elapsed() > PATIENCE
    }

    fn may_try(&self, peer: &Peer) -> bool {
        !self.tried.contains(&peer.endpoint)
    }

    /// The message for those who have not got it.
    fn delivery(&self) -> Delivery<'a> {
        let recipients = self.open().filter_map(|at| self.what.recipients.get(at).copied()).collect();
        Delivery { recipients, ..self.what.clone() }
    }

    /// Notes the answers to [`Progress::delivery`].
    fn note_all(&mut self, answers: Vec<StageOutcome>) {
        let open: Vec<_> = self.open().collect();
        for (at, answer) in open.into_iter().zip(answers) {
            note(&mut self.answers[at], answer);
        }
    }

    fn note_everyone(&mut self, answer: &StageOutcome) {
        let open: Vec<_> = self.open().collect();
        open.into_iter().for_each(|at| note(&mut self.answers[at], answer.clone()));
    }

    /// There was no host to ask.
    fn note_nowhere(&mut self, outcome: Outcome) {
        if outcome.fate == Fate::Deferred {
            self.unreachable = Some(outcome.clone());
        }
        self.note_everyone(&StageOutcome { stage: Stage::Connect, outcome, is_cut_short: false });
    }

    /// There is no connection to a host that was asked.
    fn note_closed(&mut self, answer: &StageOutcome, permit: &Permit) {
        if answer.is_cut_short && self.trust == Trust::Unproven {
            self.is_cut_short = true;
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
        let is_silent = |a: &StageOutcome| a.outcome.fate == Fate::Deferred && a.outcome.reply.is_none();
        self.answers.iter().flatten().all(|a| a.stage < Stage::AfterDot && is_silent(a))
    }

    fn end(self) -> AttemptResult {
        let is_cut_short =
            self.is_cut_short || self.trust == Trust::Unproven && self.answers.iter().flatten().any(|a| a.is_cut_short);
        let by_smtp = |outcome: Outcome| outcome.via(Via::Smtp);
        let contact = match self.unreachable {
            _ if self.at_limit.is_some() && self.is_silent() => Contact::AtLimit,
            _ if is_cut_short && self.is_silent() => Contact::Postponed,
            _ if self.has_answered => {
                let troubled = self.answers.iter().flatten().find(|a| a.outcome.fate != Fate::Delivered);
                Contact::Answered(troubled.map(|a| Box::new(by_smtp(a.outcome.clone()))))
            }
            Some(why) => Contact::Unreachable(Box::new(by_smtp(why))),
            None => Contact::None,
        };
        let nobody = || Outcome::deferred(Status(4, 4, 0), "no host could be tried");
        let outcomes = self.answers.into_iter().map(|answer| by_smtp(answer.map_or_else(nobody, |a| a.outcome)));
        let outcomes = outcomes.collect();
        let address = self.at_limit.filter(|_| matches!(contact, Contact::AtLimit)).or(self.tried.last().cloned());
        AttemptResult { outcomes, contact, address: address.as_ref().map(place) }
    }
}

/// Keeps what says more: an answer from further on in a dialogue, or a deferral,
/// since a host that may come back is a reason to wait.
fn note(slot: &mut Option<StageOutcome>, answer: StageOutcome) {
    match slot {
        Some(old) if after(&answer) == Next::Settled || answer.stage > old.stage => *old = answer,
        Some(old) if old.outcome.fate == Fate::Failed => *old = answer,
        Some(_) => {}
        None => *slot = Some(answer),
    }
}
