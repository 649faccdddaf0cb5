//! A message in the queue: why it is still there, and what happens to it next.

use std::io;

use super::scene::Scene;
use super::steps::{Effect, Stage, Step, Steps};
use super::{Query, way};
use crate::activity::{self, Activity};
use crate::address;
use crate::log;
use crate::queue::{DestinationStatus, RunningJob};
use crate::retry::{Schedule, wait_for_release};
use crate::spool::{Entry, EntryName, Note, Place, QueueId, RecipientEntry, Unusable};
use crate::sys;

/// The maximum number of recipients that are told.
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
    /// Tells a message. Returns the reason why it is still in the queue.
    fn message(&self, entry: &Entry, steps: &mut Steps) -> String {
        let (id, note) = (self.name.id, self.scene.spool.read_note(self.name.id));
        let open: Vec<&RecipientEntry> = entry.recipients().iter().filter(|to| to.record.state.is_open()).collect();
        let (sender, all) = (address::path(entry.sender()), entry.recipients().len());
        let text = format!(
            "received at {} from {sender}, {} octets; {} of {all} recipients are open",
            log::timestamp(id.seconds()),
            self.name.size,
            open.len()
        );
        steps.add(Stage::Queue, Effect::Fact, text);
        if !self.scene.is_live {
            steps.add(Stage::Queue, Effect::Deferred, "no daemon is running, so nothing is delivered");
        }
        let held = self.held(entry, &note);
        let release = entry.options().release.filter(|release| !wait_for_release(*release, self.now).is_zero());
        let start = entry.window().start;
        let end = log::timestamp(start.saturating_add(self.schedule.expire_after.as_secs()));
        steps.add(Stage::Queue, Effect::Fact, format!("it is returned to the sender if it is not delivered by {end}"));
        if let Some(why) = &held {
            steps.add(
                Stage::Queue,
                Effect::Deferred,
                format!("it is held: {why}; `penfoldctl release {id}` releases it"),
            );
        }
        if let Some(release) = release {
            let text = format!("its sender wants it to be kept until {}", log::timestamp(release));
            steps.add(Stage::Queue, Effect::Deferred, text);
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
                format!("{id} waits until {}, as its sender has asked", log::timestamp(release))
            }
            (None, None, Some(reason)) => format!("{id} is in the queue: {reason}"),
            (None, None, None) => format!("{id} has no open recipients; it is removed soon"),
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

    /// Tells an open recipient. Returns the reason why it is open.
    fn recipient(&self, entry: &Entry, note: &Note, to: &RecipientEntry, steps: &mut Steps) -> String {
        let (path, id) = (address::path(Some(&to.recipient.address)), self.name.id);
        let number = to.reference().number;
        let job = self.work.running.iter().find(|job| job.id == id && job.recipients.contains(&number));
        let last = note.last_result(&to.recipient.address);
        let reason = match (job, to.record.last) {
            (Some(job), _) => {
                let stage = |now: Activity| {
                    let host = if now.host.is_empty() { String::new() } else { format!(" at {}", now.host) };
                    format!("; {} for {} s{host}", now.stage, now.since.as_secs())
                };
                let stage = activity::of(job.worker).map(stage).unwrap_or_default();
                let text = format!("{path} is being tried now, for {} s{stage}", job.began.elapsed().as_secs());
                text.replace(char::is_control, " ")
            }
            (None, 0) => format!("{path} was not tried yet"),
            (None, _) => {
                let why = last.as_deref().unwrap_or("the last attempt did not deliver it");
                format!("{path} is deferred: {why}")
            }
        };
        steps.add(Stage::Queue, Effect::Deferred, reason.clone());
        if to.record.last > 0 {
            let next = self.schedule.next_within(entry.window(), to.record.last, id.seed());
            let next = if next <= self.now { "now".to_owned() } else { log::timestamp(next) };
            let text = format!("last tried at {}; the next attempt is due {next}", log::timestamp(to.record.last));
            steps.add(Stage::Queue, Effect::Fact, text);
        }
        let destination = self.scene.router.route_of(&to.recipient).destination();
        for status in self.work.destinations.iter().filter(|status| *status.destination == destination) {
            self.destination(status, steps);
        }
        way::tell_recipient(self.scene, self.query.uses_dns, &to.recipient, steps);
        reason
    }

    /// Tells the state of a destination.
    fn destination(&self, status: &DestinationStatus, steps: &mut Steps) {
        let DestinationStatus { state, running, limit, ready, .. } = status;
        let name = status.destination.listed_name();
        let text = format!("{name} is {state}: {running} of {limit} attempts run, {ready} are ready");
        steps.add(Stage::Queue, Effect::Fact, text);
        if let Some((since, probe)) = status.down {
            let since = log::timestamp(self.now.saturating_sub(since.as_secs()));
            let probe = log::timestamp(self.now.saturating_add(probe.as_secs()));
            let text = format!("no mail for {name} is tried, because it is down since {since}; next probe {probe}");
            steps.add(Stage::Queue, Effect::Fact, text);
        }
        if let Some(failure) = &status.last_failure {
            let host = if failure.host.is_empty() { "it" } else { &failure.host };
            let why = failure.reply.as_ref().map_or_else(|| failure.why.clone(), ToString::to_string);
            steps.add(Stage::Queue, Effect::Fact, format!("{host} said last: {}", why.replace(char::is_control, " ")));
        }
    }
}
