//! A message in the queue: why it is still there, and what happens to it next.

use std::io;

use super::scene::Scene;
use super::steps::{Effect, Stage, Step, Steps};
use super::{Query, way};
use crate::activity::{self, Activity};
use crate::address;
use crate::envelope::MessageTls;
use crate::log;
use crate::queue::{DestinationStatus, RunningJob};
use crate::retry::{Schedule, wait_for_release};
use crate::route::RoutedMail;
use crate::spool::{Entry, EntryName, Note, Place, QueueId, RecipientEntry, Unusable};
use crate::sys;

/// The maximum number of recipients that are shown.
const MAX_RECIPIENTS: usize = 20;

/// What the queue knows about its work.
#[derive(Debug, Default)]
pub struct Work {
    /// The jobs that run now.
    pub running: Vec<RunningJob>,
    /// The destinations of remote mail.
    pub destinations: Vec<DestinationStatus>,
}

/// Explains why a message is still in the queue. Returns `None` if it is not there.
///
/// # Errors
/// The errors of reading the spool's directories.
pub fn explain_message(scene: &Scene<'_>, query: &Query, id: QueueId, work: &Work) -> io::Result<Option<Steps>> {
    let mut steps = Steps::default();
    let Some(name) = scene.spool.find(id, &[Place::New, Place::Cur, Place::Hold])? else { return Ok(None) };
    let entry = match scene.spool.entry(name) {
        Ok(entry) => entry,
        Err(Unusable::Gone) => return Ok(None),
        Err(why) => {
            let why = unusable(why);
            steps.add(Stage::Queue, Effect::Deferred, format!("the message cannot be read: {why}"));
            conclude(&mut steps, format!("{id} is in the queue, but cannot be read: {why}"));
            return Ok(Some(steps));
        }
    };
    let waiting = Waiting { scene, query, name, schedule: scene.config.queue.schedule(), now: sys::now(), work };
    let result = waiting.message(&entry, &mut steps);
    conclude(&mut steps, result);
    steps.locate(&scene.config.places);
    Ok(Some(steps))
}

fn conclude(steps: &mut Steps, text: String) {
    let (stage, effect) = (Stage::Result, Effect::Deferred);
    steps.conclude(Step { stage, effect, rule: "", text, source: None, place: None });
}

fn unusable(why: Unusable) -> String {
    match why {
        Unusable::Gone => "it is gone".to_owned(),
        Unusable::Corrupt(why) | Unusable::Later(why) => why.to_owned(),
        Unusable::Io(error) => error.to_string(),
    }
}

struct Waiting<'a> {
    scene: &'a Scene<'a>,
    query: &'a Query,
    name: EntryName,
    schedule: Schedule,
    now: u64,
    work: &'a Work,
}

impl Waiting<'_> {
    /// Adds the steps of a message. Returns the reason why it is still in the queue.
    fn message(&self, entry: &Entry, steps: &mut Steps) -> String {
        let (id, note) = (self.name.id, self.scene.spool.read_note(self.name.id));
        let open: Vec<&RecipientEntry> = entry.recipients().iter().filter(|to| to.record.state.is_open()).collect();
        let (sender, all) = (address::path(entry.sender()), entry.recipients().len());
        let text = format!(
            "received at {} from {sender}, {} octets; {} of {all} recipients still wait",
            log::local_timestamp(id.seconds()),
            entry.content_size(),
            open.len()
        );
        steps.add(Stage::Queue, Effect::Fact, text);
        if !self.scene.is_live {
            steps.add(Stage::Queue, Effect::Deferred, "no daemon is running, so nothing is delivered");
        }
        let held = self.held(entry, &note);
        let release = entry.options().release.filter(|release| !wait_for_release(*release, self.now).is_zero());
        let start = entry.window().start;
        if let Some(why) = &held {
            let text = format!("it is held: {why}; `penfoldctl release {id}` releases it");
            steps.add(Stage::Queue, Effect::Deferred, text);
            steps.add(Stage::Queue, Effect::Fact, "while it is held, it is neither tried nor returned to the sender");
        } else {
            let end = log::local_timestamp(start.saturating_add(self.schedule.expire_after.as_secs()));
            let text = format!("it is returned to the sender if it is not delivered by {end}");
            steps.add(Stage::Queue, Effect::Fact, text);
        }
        if let Some(release) = release {
            let text = format!("its sender wants it to be kept until {}", log::local_timestamp(release));
            steps.add(Stage::Queue, Effect::Deferred, text);
        }
        match entry.options().tls {
            MessageTls::Default => {}
            MessageTls::Required => steps.add(Stage::Queue, Effect::Fact, "it needs TLS on its way (REQUIRETLS)"),
            MessageTls::Indifferent => {
                let text = "it needs no TLS on its way, as its header says (TLS-Required: No)";
                steps.add(Stage::Queue, Effect::Fact, text);
            }
        }
        let mut reasons = open.iter().take(MAX_RECIPIENTS).map(|to| self.recipient(entry, &note, to, steps));
        let first = reasons.next();
        reasons.for_each(drop);
        if open.len() > MAX_RECIPIENTS {
            steps.add(Stage::Queue, Effect::Fact, format!("and {} more recipients", open.len() - MAX_RECIPIENTS));
        }
        match (held, release, first) {
            (Some(why), ..) => format!("{id} is held: {why}"),
            (None, Some(release), _) => {
                format!("{id} waits until {}, as its sender has asked", log::local_timestamp(release))
            }
            (None, None, Some(reason)) => format!("{id} is in the queue: {reason}"),
            (None, None, None) => format!("{id} waits for no recipient any more, and is removed soon"),
        }
    }

    /// Why a message is held; `None` if it is not.
    fn held(&self, entry: &Entry, note: &Note) -> Option<String> {
        let why = || note.hold_reason().or_else(|| entry.hold_reason().map(str::to_owned));
        let plain = |why: String| why.chars().filter(|c| !c.is_control()).collect::<String>();
        (entry.name().place == Place::Hold)
            .then(|| why().map(plain).filter(|why| !why.is_empty()))?
            .or_else(|| Some("by an administrator".to_owned()))
    }

    /// Adds the steps of an open recipient. Returns the reason why it is open.
    fn recipient(&self, entry: &Entry, note: &Note, to: &RecipientEntry, steps: &mut Steps) -> String {
        let (path, id) = (address::path(Some(&to.recipient.address)), self.name.id);
        let number = to.reference().number;
        let destination = self.scene.router.route_of(&to.recipient, &RoutedMail::planned(entry)).destination();
        let destination = self.scene.outgoing.for_sender(destination, entry.sender());
        let is_of = |status: &&DestinationStatus| *status.destination == destination;
        let statuses: Vec<&DestinationStatus> = self.work.destinations.iter().filter(is_of).collect();
        let job = self.work.running.iter().find(|job| job.entry.id == id && job.recipients.contains(&number));
        let last = note.last_result(&to.recipient.address);
        let reason = match (job, to.record.last) {
            (Some(job), _) => {
                let stage = |now: Activity| {
                    let host = if now.host.is_empty() { String::new() } else { format!(" at {}", now.host) };
                    format!("; {} for {}{host}", now.stage, log::span(now.since.as_secs()))
                };
                let stage = activity::of(job.worker).map(stage).unwrap_or_default();
                let time = log::span(job.began.elapsed().as_secs());
                let text = format!("{path} is being tried now, for {time}{stage}");
                text.replace(char::is_control, " ")
            }
            (None, 0) if last.is_none() => match statuses.iter().find_map(|status| self.paced(status)) {
                Some(paced) => format!("{path} was not tried yet: {paced}"),
                None => format!("{path} was not tried yet"),
            },
            (None, _) => {
                let why = last.as_deref().unwrap_or("the last attempt did not deliver it");
                format!("{path} is deferred: {why}")
            }
        };
        steps.add(Stage::Queue, Effect::Deferred, reason.clone());
        if to.record.last > 0 {
            let next = self.schedule.next_within(entry.window(), to.record.last, id.seed());
            let mut text = format!("last tried at {}", log::local_timestamp(to.record.last));
            if self.name.place != Place::Hold {
                let next = if next <= self.now { "now".to_owned() } else { log::local_timestamp(next) };
                text += &format!("; the next attempt is due {next}");
            }
            steps.add(Stage::Queue, Effect::Fact, text);
        }
        statuses.iter().for_each(|status| self.destination(status, steps));
        let tls = entry.options().tls.enforced(entry.sender().is_some());
        way::tell_recipient(self.scene, self.query.uses_dns, (tls, RoutedMail::of(entry)), &to.recipient, steps);
        reason
    }

    /// Adds the step of the state of a destination.
    fn destination(&self, status: &DestinationStatus, steps: &mut Steps) {
        let DestinationStatus { state, running, limit, ready, .. } = status;
        let name = status.destination.listed_name();
        let text = format!("{name} is {state}: {running} of {limit} attempts run, {ready} are ready");
        steps.add(Stage::Queue, Effect::Fact, text);
        if let Some((since, probe)) = status.down {
            let since = log::local_timestamp(self.now.saturating_sub(since.as_secs()));
            let probe = log::local_timestamp(self.now.saturating_add(probe.as_secs()));
            let text = format!("no mail for {name} is tried, because it is down since {since}; next probe {probe}");
            steps.add(Stage::Queue, Effect::Fact, text);
        }
        if let Some(text) = self.paced(status) {
            steps.add(Stage::Queue, Effect::Fact, text);
        }
        if let Some(failure) = &status.last_failure {
            let host = failure.host.to_string();
            let text = match &failure.reply {
                Some(reply) if host.is_empty() => format!("the last reply was: {reply}"),
                Some(reply) => format!("the last reply of {host} was: {reply}"),
                None if host.is_empty() => format!("the last attempt failed: {}", failure.why),
                None => format!("the last attempt at {host} failed: {}", failure.why),
            };
            steps.add(Stage::Queue, Effect::Fact, text.replace(char::is_control, " "));
        }
    }
    /// Why no mail for a destination starts now, if its limits are the reason.
    fn paced(&self, status: &DestinationStatus) -> Option<String> {
        let (wait, reason) = status.paced?;
        let next = log::local_timestamp(self.now.saturating_add(wait.as_secs()));
        Some(format!("mail for {} is paced by {reason}, and goes on at {next}", status.destination.listed_name()))
    }
}
