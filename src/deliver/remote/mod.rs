//! Delivers messages to other hosts by SMTP, and to mail stores by LMTP, for a worker: decides which
//! hosts are tried, in which order, and when an attempt ends.
//!
//! - `addresses`: limits and failures of each address
//! - `aim`: what an attempt aims at
//! - `ask`: whether the hosts would accept a recipient
//! - `client`: one SMTP or LMTP connection
//! - `convert`: messages converted for hosts that cannot take them as they are
//! - `credentials`: the credentials table
//! - `fallback`: the hosts that are tried if none of a destination takes the mail now
//! - `hosts`: the hosts of a destination, and their addresses
//! - `plan`: the hosts that an attempt would try, for explanations
//! - `policy`: how connections to the hosts of a destination are encrypted, for listings
//! - `progress`: the recipients of one attempt, and whether another host is tried for them
//! - `results`: how TLS went, counted for reports
//!
//! A [`RemoteDelivery`] belongs to one worker. It tries the hosts of a destination until the
//! outcome of every recipient is final for this attempt. The connection that worked is kept for the
//! next message to the same destination, or to another destination that the same host serves. At
//! most [`MAX_TRIES`] addresses are tried in one attempt, and none after [`ATTEMPT_LIMIT`].
//!
//! [`progress`] decides whether another host is tried. If the host has closed the kept connection,
//! a new connection replaces it silently. The worker records the outcomes and the time of the next
//! attempt. The queue judges what the attempt showed about the destination, the [`Contact`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use addresses::{Addresses, Permit, place};
use aim::{Aim, Host};
use client::{ConnectOptions, Connection, Stage, StageOutcome};
use credentials::Credentials;
use progress::Progress;
use results::Watch;

use super::Delivery;
use crate::activity;
use crate::config::{Config, Scheme};
use crate::destination::{Destination, HostTarget, Peer};
use crate::dialogue::{Dialogue, Recorder};
use crate::dns::Dns;
use crate::endpoint::Endpoint;
use crate::envelope::MessageTls;
use crate::outcome::{Contact, Fate, Outcome, Via};
use crate::outgoing::{Outgoing, Way};
use crate::reply::Status;
use crate::sys;
use crate::timeouts::{HostTimeout, HostTimeouts, Trust};
use crate::tls;
use crate::tls_policy::table::TlsPolicies;
use crate::tls_policy::{DomainPolicy, Rules, Said, TlsPolicy, sts};
use crate::tls_report::Counts;

pub mod addresses;
mod aim;
mod ask;
mod client;
pub mod convert;
pub mod credentials;
pub mod fallback;
mod hosts;
pub mod plan;
mod policy;
mod progress;
mod results;

pub use policy::tls_policy;

/// Maximum number of addresses tried in one attempt.
const MAX_TRIES: usize = 20;
/// The time after which an attempt tries no further address.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The status if a mistake in the configuration keeps mail waiting.
const MISCONFIGURED: Status = Status(4, 3, 5);

/// Delivers to other hosts, one message at a time.
#[derive(Debug)]
pub struct RemoteDelivery {
    outbound: Outbound,
    cached: Option<CachedConnection>,
    /// Records the dialogue of the current attempt.
    recorder: Recorder,
}

/// The state that all remote deliveries share.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// The resolver.
    pub dns: Arc<Dns>,
    /// The addresses where this daemon listens; no mail is sent there.
    pub local: Vec<SocketAddr>,
    /// Limits and failures of addresses.
    pub addresses: Arc<Addresses>,
    /// The shortened timeouts for destinations about which nothing is known, or which were slow
    /// before.
    pub timeouts: Arc<HostTimeouts>,
    /// The MTA-STS policies of domains.
    pub sts: sts::Policies,
}

/// An open connection that is kept for the next message.
#[derive(Debug)]
struct CachedConnection {
    /// The destination of the last message that was sent over the connection.
    destination: Arc<Destination>,
    /// What the configuration, the table of TLS policies and the MTA-STS policy said about the host
    /// when it was decided to send the last message over the connection.
    said: Said,
    /// The TLS policy that the connection follows.
    policy: TlsPolicy,
    /// How this host has connected.
    way: Way,
    /// What the last message demanded of TLS (see [`Delivery::tls_demand`]).
    demand: (MessageTls, bool),
    /// Whether the host is known to be one of its destination.
    is_known: bool,
    /// Whether the host was found in the DNS: if so, the connection can be used for any destination
    /// that the host serves.
    by_dns: bool,
    connection: Connection,
    /// Counts the connection towards the limit of its address until the connection is closed.
    permit: Permit,
}

/// The settings of one attempt.
#[derive(Debug, Clone, Copy)]
pub struct RemoteSettings<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The TLS settings of the client.
    pub tls: &'a tls::Client,
    /// The credentials for each host.
    pub credentials: &'a Credentials,
    /// The table of TLS policies.
    pub tls_policies: &'a TlsPolicies,
    /// How mail leaves this host.
    pub outgoing: &'a Outgoing,
    /// Counts how TLS goes, for reports. `None` if nothing is counted.
    pub counts: Option<&'a Counts>,
    /// What the queue knows about the destination: whether a host has answered lately, and how
    /// fast.
    pub trust: Trust,
}

impl<'a> RemoteSettings<'a> {
    /// What TLS policies are made from, without look-ups.
    fn rules(&self) -> Rules<'a> {
        Rules { config: &self.config.remote, table: self.tls_policies, dns: None, sts: None }
    }
}

/// The result of one attempt.
#[derive(Debug)]
pub struct AttemptResult {
    /// An outcome for each recipient, in order. Meaningless if `contact` says that nothing was
    /// tried.
    pub outcomes: Vec<Outcome>,
    /// What the attempt showed about the destination.
    pub contact: Contact,
    /// The address that was used last. But if the attempt ended because an address was at its limit
    /// of connections, the address with the limit. For IPv6 this is the /64 network (see
    /// [`place`]).
    pub address: Option<Endpoint>,
    /// The dialogue of the attempt; `None` if the message was delivered to all recipients, or if no host
    /// was tried.
    pub dialogue: Option<Dialogue>,
}

impl RemoteDelivery {
    /// A delivery that has no open connection yet.
    pub fn new(outbound: Outbound) -> Self {
        Self { outbound, cached: None, recorder: Recorder::default() }
    }

    /// Delivers a message to the hosts of a destination.
    pub fn deliver(
        &mut self,
        settings: RemoteSettings<'_>,
        destination: &Arc<Destination>,
        target: &HostTarget,
        delivery: &Delivery<'_>,
    ) -> AttemptResult {
        self.recorder.begin();
        let mut progress = Progress::new(delivery, settings.trust, self.recorder.clone());
        let rules = settings.outgoing.rules(target, destination.sender());
        match &rules.way {
            Ok(way) => {
                let aim = Aim::new(destination, target, way, (&rules, settings.config));
                self.attempt(settings, aim, &mut progress);
            }
            Err(why) => progress.note_misconfigured(why.clone()),
        }
        self.fall_back(settings, destination, target, &mut progress);
        // If no host was tried, the dialogue of an earlier attempt says more.
        let is_tried = !progress.tried.is_empty();
        let mut result = progress.end(if matches!(target, HostTarget::Store(_)) { Via::Lmtp } else { Via::Smtp });
        if is_tried && result.outcomes.iter().any(|outcome| outcome.fate != Fate::Delivered) {
            result.dialogue = Some(self.recorder.take(destination.to_string(), sys::now()));
        }
        result
    }

    /// Sends over the open connection, if it fits, and otherwise tries the hosts.
    fn attempt(&mut self, settings: RemoteSettings<'_>, aim: Aim<'_>, progress: &mut Progress<'_>) {
        let delivery = progress.delivery;
        let is_fit = |cached: &CachedConnection| {
            cached.destination == *aim.destination
                && cached.way == *aim.way
                && cached.demand == delivery.tls_demand()
                && aim.target.admits(&cached.connection.peer().endpoint, delivery.only_public)
        };
        let said_now = |cached: &CachedConnection| self.said(settings, aim.target, cached.connection.peer());
        let fit = self.cached.as_ref().filter(|cached| is_fit(cached));
        if let Some(said) = fit.and_then(|cached| Some(said_now(cached)).filter(|said| *said == cached.said)) {
            self.use_cached(settings, aim, said, progress);
        }
        if !progress.is_over() {
            self.try_hosts(settings, aim, progress);
        }
    }

    /// What the configuration, the table of TLS policies and the known MTA-STS policy say about a host.
    fn said(&self, settings: RemoteSettings<'_>, target: &HostTarget, peer: &Peer) -> Said {
        let rules = settings.rules();
        let sts = rules.sts_domain(target).and_then(|domain| self.outbound.sts.known(domain).policy);
        rules.said(target, peer, sts)
    }

    /// The destination and the address of the open connection.
    pub fn cached(&self) -> Option<(Arc<Destination>, Endpoint)> {
        self.cached.as_ref().map(|cached| (Arc::clone(&cached.destination), place(&cached.connection.peer().endpoint)))
    }

    /// Closes the open connection with QUIT.
    pub fn close(&mut self) {
        if let Some(cached) = self.cached.take() {
            cached.connection.quit();
        }
    }

    /// Sends over the open connection, whose TLS policy must be that of the host according to `said`.
    /// Returns false if no open connection was usable.
    fn use_cached(
        &mut self,
        settings: RemoteSettings<'_>,
        aim: Aim<'_>,
        said: Said,
        progress: &mut Progress<'_>,
    ) -> bool {
        let Some(mut cached) = self.cached.take() else { return false };
        let share = aim.share().filter(|_| !progress.delivery.is_question());
        if !cached.permit.pass_to(share) {
            cached.connection.quit();
            return false;
        }
        activity::at(cached.connection.peer());
        let endpoint = cached.connection.peer().endpoint.clone();
        cached.connection.set_host_timeout(HostTimeout::new(&self.outbound.timeouts, settings.trust));
        cached.connection.record_reuse();
        let (peer, delivery) = (cached.connection.peer().clone(), progress.open_delivery());
        let (policy, message, is_known) = (&cached.policy, delivery.tls(), cached.is_known);
        let host = Host { target: aim.target, way: aim.way, peer: &peer, policy, message, is_known };
        let answers = self.send(settings, host, &mut cached.connection, &delivery);
        // The host has closed the idle connection, or now requires authentication. In both cases a
        // new connection is tried.
        if !cached.connection.is_usable() && answers.iter().all(|a| a.stage <= Stage::MailFrom && !a.is_cut_short) {
            cached.connection.quit();
            return false;
        }
        progress.tried.push(endpoint);
        progress.has_answered = true;
        progress.note_all(answers);
        // What is said by now may differ, and then the next message needs another look at the policy.
        (cached.destination, cached.said, cached.demand) = (Arc::clone(aim.destination), said, delivery.tls_demand());
        self.keep(cached);
        true
    }

    fn try_hosts(&mut self, settings: RemoteSettings<'_>, aim: Aim<'_>, progress: &mut Progress<'_>) {
        let target = aim.target;
        activity::enter("looking up the hosts");
        let dnssec = settings.config.remote.dane;
        let (groups, exchangers) = match target.groups(&self.outbound.dns, &settings.config.hostname, dnssec) {
            Ok(found) => found,
            Err(outcome) => return progress.note_no_host(outcome),
        };
        let mut domain = settings.rules().of_domain(target).with_exchangers(exchangers);
        if let Some(name) = settings.rules().sts_domain(target) {
            activity::enter("looking up the MTA-STS policy");
            let unproven = HostTimeout::new(&self.outbound.timeouts, settings.trust);
            domain.sts = self.outbound.sts.of_domain(name, settings.tls, unproven.as_ref());
            results::note_no_policy(settings.counts, target, &domain.sts);
            if domain.sts.is_postponed {
                return progress.postpone();
            }
        }
        for group in groups {
            let only_public = progress.delivery.only_public;
            let mut found = target.usable(&self.outbound.dns, &group, &self.outbound.local, only_public, dnssec);
            if let Some(outcome) = found.failure {
                progress.note_no_host(outcome);
            }
            if found.is_this_host {
                return progress.note_no_host(target.loops());
            }
            if let Err(outcome) = target.keep_usable_by(aim.way, &group, &mut found.peers) {
                progress.note_no_host(outcome);
            }
            // In a group, the host to which a connection is open comes first.
            found.peers.sort_by_key(|peer| !self.is_cached_for(peer, target));
            for peer in found.peers {
                if progress.is_over() {
                    return;
                }
                if progress.may_try(&peer) && !self.try_host(settings, aim, (&domain, &peer), progress) {
                    return progress.note_no_host(target.loops());
                }
            }
            // If a host is busy, that is no reason to try a less preferred host.
            if progress.at_limit.is_some() {
                return;
            }
        }
    }

    /// Whether the open connection leads to `peer` and can be used for any destination.
    fn is_cached_for(&self, peer: &Peer, target: &HostTarget) -> bool {
        let is_it = |cached: &CachedConnection| cached.by_dns && cached.connection.peer() == peer;
        matches!(target, HostTarget::Mx { .. }) && self.cached.as_ref().is_some_and(is_it)
    }

    /// Whether the open connection leads to `peer`, can be used for any destination, and follows this
    /// TLS policy.
    fn may_reuse(&self, Host { target, peer, way, policy, is_known, .. }: Host<'_>) -> bool {
        let is_same =
            |cached: &CachedConnection| cached.policy == *policy && cached.is_known == is_known && cached.way == *way;
        self.is_cached_for(peer, target) && self.cached.as_ref().is_some_and(is_same)
    }

    /// Tries one address of a host. Returns false if the host turns out to be this host itself.
    fn try_host(
        &mut self,
        settings: RemoteSettings<'_>,
        aim: Aim<'_>,
        (domain, peer): (&DomainPolicy, &Peer),
        progress: &mut Progress<'_>,
    ) -> bool {
        let (target, way) = (aim.target, aim.way);
        // This comes first, so that a table that changes now applies to the next message.
        let said = settings.rules().said(target, peer, domain.sts.policy.clone());
        let found = policy_of(settings, &self.outbound.dns, (target, domain, peer), progress.delivery);
        let found = found.map_err(|outcome| progress.note_no_encryption(outcome.at(peer.to_string())));
        let Ok((policy, is_known)) = found else { return true };
        let host = Host { target, peer, way, policy: &policy, message: progress.delivery.tls(), is_known };
        if self.may_reuse(host) && self.use_cached(settings, aim, said.clone(), progress) {
            return true;
        }
        self.close();
        let Some(permit) = aim.permit(&self.outbound.addresses, peer, progress) else { return true };
        progress.tried.push(peer.endpoint.clone());
        let mut connection = match self.open(settings, host, progress.delivery) {
            Ok(connection) => connection,
            // The host accepts no more connections now, so this message waits until one of the
            // other connections is free.
            Err(answer) if answer.is_too_many() && permit.refused() => {
                progress.at_limit = Some(peer.endpoint.clone());
                return true;
            }
            Err(answer) => {
                progress.note_not_connected(&answer, &permit);
                return true;
            }
        };
        permit.answered();
        // A host that the configuration names may use this host's name: it may be a content filter
        // on another port.
        let must_differ = matches!(target, HostTarget::Mx { .. }) || progress.is_fallback();
        if must_differ && connection.is_named(&settings.config.hostname) {
            connection.quit();
            return false;
        }
        progress.has_answered = true;
        progress.note_all(self.send(settings, host, &mut connection, &progress.open_delivery()));
        self.keep(CachedConnection {
            destination: Arc::clone(aim.destination),
            said,
            policy: policy.clone(),
            way: way.clone(),
            demand: progress.delivery.tls_demand(),
            is_known,
            by_dns: matches!(target, HostTarget::Mx { .. }),
            connection,
            permit,
        });
        true
    }

    /// Sends a message, and returns the outcome for each recipient. If the host accepts no more
    /// transactions over the connection, new connections replace it.
    fn send(
        &self,
        settings: RemoteSettings<'_>,
        host: Host<'_>,
        connection: &mut Connection,
        delivery: &Delivery<'_>,
    ) -> Vec<StageOutcome> {
        let until = Instant::now() + ATTEMPT_LIMIT;
        let mut answers = connection.send(delivery);
        let mut left = connection.take_left();
        while !left.is_empty() && Instant::now() < until {
            connection.send_quit();
            let recipients = left.iter().filter_map(|&index| delivery.recipients.get(index).copied()).collect();
            let rest = Delivery { recipients, ..delivery.clone() };
            let sent = match self.open(settings, host, delivery) {
                Ok(next) => {
                    *connection = next;
                    connection.send(&rest)
                }
                Err(answer) => vec![answer; left.len()],
            };
            for (&index, answer) in left.iter().zip(sent) {
                if let Some(slot) = answers.get_mut(index) {
                    *slot = answer;
                }
            }
            left = connection.take_left().into_iter().filter_map(|index| left.get(index).copied()).collect();
        }
        answers
    }

    fn open(
        &self,
        settings: RemoteSettings<'_>,
        Host { target, peer, way, policy, message, is_known }: Host<'_>,
        delivery: &Delivery<'_>,
    ) -> Result<Connection, StageOutcome> {
        let (login, timeout) = (settings.credentials.of(target, peer), settings.config.remote.timeout);
        let options = ConnectOptions {
            id: delivery.id,
            hostname: way.hello.as_deref().unwrap_or(&settings.config.hostname),
            source: peer.endpoint.ip().and_then(|ip| way.source_for(ip)),
            limit: if delivery.is_question() { timeout.min(ask::STAGE_LIMIT) } else { timeout },
            tls: settings.tls,
            recorder: &self.recorder,
            policy,
            message,
            is_known,
            watch: Watch::new(
                settings.counts,
                target,
                peer,
                policy,
                |domain| self.outbound.sts.known(domain).policy,
                || results::unusable_records(&self.outbound.dns, peer),
            ),
            is_configured: !matches!(target, HostTarget::Mx { .. }),
            login: login.as_deref(),
            host_timeout: HostTimeout::new(&self.outbound.timeouts, settings.trust),
            until: delivery.ask_until,
        };
        Connection::open(peer, &options)
    }

    fn keep(&mut self, cached: CachedConnection) {
        self.close();
        if cached.connection.is_usable() && !cached.connection.is_spent() {
            self.cached = Some(cached);
        } else {
            cached.connection.quit();
        }
    }
}

/// The TLS policy of a host for a message, and whether the host is known to be one of the destination.
/// The error is the outcome if the host must not get the message now.
fn policy_of(
    settings: RemoteSettings<'_>,
    dns: &Dns,
    (target, domain, peer): (&HostTarget, &DomainPolicy, &Peer),
    delivery: &Delivery<'_>,
) -> Result<(TlsPolicy, bool), Outcome> {
    let has_login = settings.credentials.of(target, peer).is_some();
    let rules = Rules { dns: Some(dns), ..settings.rules() };
    let policy = rules.of_host(domain, peer, has_login, delivery.tls()).inspect_err(|_| {
        let dns = settings.config.remote.dane.then_some(dns);
        results::note_refused(settings.counts, target, peer, domain, dns);
    })?;
    let is_known = policy.proves_host() || domain.is_known(peer);
    let is_store_here = peer.scheme == Scheme::Lmtp && peer.endpoint.is_loopback();
    Ok((if delivery.wishes_tls() && !is_store_here { policy.for_report(is_known) } else { policy }, is_known))
}

impl Drop for RemoteDelivery {
    fn drop(&mut self) {
        self.close();
    }
}
