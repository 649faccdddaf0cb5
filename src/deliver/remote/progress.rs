//! Keeps the answers for the recipients of one attempt, and decides whether another host is tried
//! for them.
//!
//! The rules are in [`after`]. If several hosts were tried, [`note`] decides which host's answer a
//! recipient gets.

use std::time::Instant;

use super::addresses::{Permit, place};
use super::client::{Stage, StageOutcome};
use super::{ATTEMPT_LIMIT, AttemptResult, MAX_TRIES, MISCONFIGURED};
use crate::deliver::Delivery;
use crate::destination::Peer;
use crate::dialogue::Recorder;
use crate::endpoint::Endpoint;
use crate::envelope::MessageTls;
use crate::outcome::{Contact, Fate, Outcome, Via};
use crate::reply::Status;
use crate::timeouts::Trust;
use crate::tls_policy::require::NOT_KNOWN_YET;

/// One attempt, and the best answer for each recipient so far.
pub struct Progress<'a> {
    pub delivery: &'a Delivery<'a>,
    answers: Vec<Option<StageOutcome>>,
    /// The addresses that were tried.
    pub tried: Vec<Endpoint>,
    begun: Instant,
    trust: Trust,
    /// Whether a host has answered; if so, it is the last one in `tried`.
    pub has_answered: bool,
    /// The outcome of the last host that could not be reached; `None` if there was no such host.
    unreachable: Option<Outcome>,
    /// Whether a timeout was shortened because other mail waits for the worker.
    is_cut_short: bool,
    /// An address to which no further connection is allowed now.
    pub at_limit: Option<Endpoint>,
    /// Records the dialogue.
    recorder: Recorder,
    /// Whether the mail must wait for the hosts of its destination: a connection could not be encrypted as
    /// its policy demands, or the configuration has a mistake.
    must_wait: bool,
    /// Whether the fallback hosts are tried now. Only recipients with a temporary failure are then
    /// open.
    is_fallback: bool,
}

/// The next step for a recipient after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Try the next host.
    NextHost,
    /// Stop: the answer is final for this attempt.
    Settled,
}

/// The next step for a recipient after an answer. A delivery is final. A rejection is final too,
/// unless it came before MAIL and so cannot have been about the message. After a temporary failure
/// the next host is tried, since the failure may be due to greylisting at this host. Once the final
/// dot was sent, no other host is tried: the last host may have accepted the message, or may have
/// judged its content. If this server cannot read the message, another host does not help.
fn after(answer: &StageOutcome) -> Next {
    match answer.outcome.fate {
        Fate::Delivered => Next::Settled,
        Fate::Failed if answer.stage < Stage::MailFrom => Next::NextHost,
        Fate::Failed => Next::Settled,
        Fate::Deferred if answer.stage < Stage::AfterDot => Next::NextHost,
        Fate::Deferred => Next::Settled,
    }
}

impl<'a> Progress<'a> {
    /// An attempt in which no host was tried yet.
    pub fn new(delivery: &'a Delivery<'a>, trust: Trust, recorder: Recorder) -> Self {
        Self {
            delivery,
            answers: vec![None; delivery.recipients.len()],
            tried: Vec::new(),
            begun: Instant::now(),
            trust,
            has_answered: false,
            unreachable: None,
            is_cut_short: false,
            at_limit: None,
            recorder,
            must_wait: false,
            is_fallback: false,
        }
    }

    /// The indices of the recipients for whom another host may be tried.
    fn open(&self) -> impl Iterator<Item = usize> {
        let is_fallback = self.is_fallback;
        let may_follow =
            move |a: &StageOutcome| after(a) == Next::NextHost && (!is_fallback || a.outcome.fate == Fate::Deferred);
        let is_open = move |answer: &Option<StageOutcome>| answer.as_ref().map_or(!is_fallback, may_follow);
        (0..).zip(&self.answers).filter(move |(_, answer)| is_open(answer)).map(|(index, _)| index)
    }

    /// Whether no further host is to be tried.
    pub fn is_over(&self) -> bool {
        let max = if self.is_fallback { 2 * MAX_TRIES } else { MAX_TRIES };
        self.open().next().is_none() || self.tried.len() >= max || self.is_late()
    }

    /// Whether it is too late to try a further address.
    fn is_late(&self) -> bool {
        match self.delivery.ask_until {
            Some(until) => Instant::now() >= until,
            None => self.begun.elapsed() > ATTEMPT_LIMIT,
        }
    }

    /// Whether the fallback hosts may be tried: the hosts of the destination could not be reached, or
    /// have answered temporarily. They may not if the attempt is to be repeated soon, and they know no
    /// recipients.
    pub fn may_fall_back(&self) -> bool {
        let is_deferred = |a: &StageOutcome| a.outcome.fate == Fate::Deferred && after(a) == Next::NextHost;
        let is_repeated = self.at_limit.is_some() || self.is_cut_short && self.trust == Trust::Unproven;
        let is_excluded = is_repeated || self.must_wait || self.delivery.is_question();
        !is_excluded && self.answers.iter().flatten().any(is_deferred)
    }

    /// Notes that the fallback hosts are tried from now on.
    pub fn begin_fallback(&mut self) {
        self.recorder.remark("the fallback hosts are tried");
        (self.is_fallback, self.begun) = (true, Instant::now());
    }

    /// Whether the fallback hosts are tried.
    pub fn is_fallback(&self) -> bool {
        self.is_fallback
    }

    /// Whether the peer's address was not tried yet.
    pub fn may_try(&self, peer: &Peer) -> bool {
        !self.tried.contains(&peer.endpoint)
    }

    /// The delivery, reduced to the recipients for whom another host may be tried.
    pub fn open_delivery(&self) -> Delivery<'a> {
        let recipients = self.open().filter_map(|index| self.delivery.recipients.get(index).copied()).collect();
        Delivery { recipients, ..self.delivery.clone() }
    }

    /// Notes the answers to [`Progress::open_delivery`].
    pub fn note_all(&mut self, answers: Vec<StageOutcome>) {
        let open: Vec<_> = self.open().collect();
        for (index, answer) in open.into_iter().zip(answers) {
            self.note_one(index, answer);
        }
    }

    fn note_for_all(&mut self, answer: &StageOutcome) {
        let open: Vec<_> = self.open().collect();
        open.into_iter().for_each(|index| self.note_one(index, answer.clone()));
    }

    /// Notes the answer for one recipient. If a fallback host refuses the mail without its text, this is
    /// not about the message: the host may not relay for this one. The recipient's mail then waits for the
    /// hosts of its destination.
    fn note_one(&mut self, index: usize, answer: StageOutcome) {
        if self.is_fallback && answer.outcome.fate == Fate::Failed && answer.stage < Stage::AfterDot {
            let (id, host, why) = (self.delivery.id, &answer.outcome.host, &answer.outcome.why);
            ::log::warn!("{id}: refused by the fallback host {host}: {why}: the mail waits");
            return;
        }
        note(&mut self.answers[index], answer);
    }

    /// Notes that a host may not get the message, because of the policy for its connection.
    pub fn note_no_encryption(&mut self, outcome: Outcome) {
        self.must_wait = true;
        self.note_no_host(outcome);
    }

    /// Notes that no host may get the message until a mistake in the configuration is corrected.
    pub fn note_misconfigured(&mut self, why: String) {
        self.must_wait = true;
        self.note_no_host(Outcome::deferred(MISCONFIGURED, why));
    }

    /// Notes that there was no host to try.
    pub fn note_no_host(&mut self, outcome: Outcome) {
        self.recorder.remark(&outcome.why);
        // The destination may take other messages, which do not need TLS.
        let is_own_demand = self.delivery.tls() == MessageTls::Required && outcome.status == NOT_KNOWN_YET;
        if outcome.fate == Fate::Deferred && !is_own_demand {
            self.note_unreachable(&outcome);
        }
        self.note_for_all(&StageOutcome { stage: Stage::Connect, outcome, is_cut_short: false });
    }

    /// Notes that the attempt is to be repeated as one to a slow destination, which may wait.
    pub fn postpone(&mut self) {
        self.is_cut_short = true;
    }

    /// Notes that no connection to a host could be opened.
    pub fn note_not_connected(&mut self, answer: &StageOutcome, permit: &Permit) {
        self.must_wait |= answer.stage == Stage::StartTls;
        // The host may take other messages, which do not need TLS.
        if self.delivery.tls() == MessageTls::Required && answer.stage > Stage::Banner {
            self.has_answered = true;
        } else if answer.is_cut_short && self.trust == Trust::Unproven {
            self.is_cut_short = true;
        } else {
            // A host that replies is not down, and neither is one that fails after the greeting. The
            // times for a question are too short to judge a host.
            if !self.delivery.is_question() && answer.outcome.reply.is_none() && answer.stage <= Stage::Banner {
                permit.failed(&answer.outcome);
            }
            self.note_unreachable(&answer.outcome);
        }
        self.note_for_all(answer);
    }

    /// Notes why no host answers. The reason for the destination's own hosts says more than that for
    /// the fallback hosts.
    fn note_unreachable(&mut self, outcome: &Outcome) {
        if !self.is_fallback || self.unreachable.is_none() {
            self.unreachable = Some(outcome.clone());
        }
    }

    /// Whether no host has replied about any recipient.
    fn is_without_reply(&self) -> bool {
        let is_without_reply = |a: &StageOutcome| a.outcome.fate == Fate::Deferred && a.outcome.reply.is_none();
        self.answers.iter().flatten().all(|a| a.stage < Stage::AfterDot && is_without_reply(a))
    }

    /// The result of the attempt, which was made in this way.
    pub fn end(self, via: Via) -> AttemptResult {
        let is_cut_short =
            self.is_cut_short || self.trust == Trust::Unproven && self.answers.iter().flatten().any(|a| a.is_cut_short);
        let with_via = |outcome: Outcome| outcome.via(via);
        let contact = match self.unreachable {
            _ if self.at_limit.is_some() && self.is_without_reply() => Contact::AtLimit,
            _ if is_cut_short && self.is_without_reply() => Contact::Postponed,
            _ if self.has_answered => {
                let troubled = self.answers.iter().flatten().find(|a| a.outcome.fate != Fate::Delivered);
                let tls = self.answers.iter().flatten().last().map(|a| a.outcome.tls).unwrap_or_default();
                Contact::Answered(troubled.map(|a| Box::new(with_via(a.outcome.clone()))), tls)
            }
            Some(why) => Contact::Unreachable(Box::new(with_via(why))),
            None => Contact::None,
        };
        let why = match self.at_limit {
            Some(_) => "the host already has as many connections as are allowed",
            None => "no host could be tried",
        };
        let nobody = || Outcome::deferred(Status(4, 4, 0), why);
        let outcomes = self.answers.into_iter().map(|answer| with_via(answer.map_or_else(nobody, |a| a.outcome)));
        let outcomes = outcomes.collect();
        let address = self.at_limit.filter(|_| matches!(contact, Contact::AtLimit)).or(self.tried.last().cloned());
        AttemptResult { outcomes, contact, address: address.as_ref().map(place), dialogue: None }
    }
}

/// Keeps the more significant of two answers about a recipient. `answer` replaces the old answer if
/// `answer` settles the recipient or comes from a later stage of the dialogue. `answer` also
/// replaces a permanent failure, since another host may still accept the message later. For the same
/// reason a permanent failure that was not about the message does not replace a temporary one.
fn note(slot: &mut Option<StageOutcome>, answer: StageOutcome) {
    let is_final = answer.outcome.fate != Fate::Failed || after(&answer) == Next::Settled;
    match slot {
        Some(old) if old.outcome.fate == Fate::Deferred && !is_final => {}
        Some(old) if after(&answer) == Next::Settled || answer.stage > old.stage => *old = answer,
        Some(old) if old.outcome.fate == Fate::Failed => *old = answer,
        Some(_) => {}
        None => *slot = Some(answer),
    }
}
