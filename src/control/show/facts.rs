//! Gathers what is known about a message: from its entry, its note, its last dialogues and its
//! header, and from the daemon.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::sender::{self, dialogues_for_sender};
use super::{Live, Shown, front, is_held};
use crate::activity::{self, Activity};
use crate::control::visible::Way;
use crate::destination::{Destination, HostTarget};
use crate::dialogue::{Dialogue, Kind};
use crate::envelope::{Action, Body, ByMode, MailOptions, MessageTls, Origin, Ret};
use crate::log;
use crate::message::field::fields;
use crate::message::trace;
use crate::queue::{DestinationStatus, RunningJob};
use crate::retry::wait_for_release;
use crate::route::{Route, RoutedMail};
use crate::spool::{Entry, NoteResult, RecipientEntry, State};
use crate::sys;
use crate::users::{Mailbox, Owner};

/// The maximum number of recipients whose routes are looked up.
const MAX_ROUTES: usize = 200;
/// The maximum number of destinations about which the queue is asked.
pub const MAX_STATUSES: usize = 20;
/// The maximum number of earlier attempts that are shown for a recipient.
pub const MAX_ATTEMPTS: usize = 10;

/// What is known about a message.
pub struct Facts<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// The current time, in seconds since 1970.
    pub now: u64,
    /// The Message-ID field.
    pub message_id: Option<String>,
    /// Who gave the message to this host, in words.
    pub source: Option<String>,
    /// The options that the client gave, as SMTP writes them.
    pub options: Vec<String>,
    /// Why the message is held; `None` if it is not held, or if that is not known.
    pub hold_reason: Option<String>,
    /// The time until which the sender wants the message kept, if it has not come.
    pub release: Option<u64>,
    /// The time after which a failed attempt is the last one, in seconds since 1970.
    pub expires: u64,
    /// The recipients.
    pub recipients: Vec<RecipientFacts>,
    /// The last dialogues with other hosts, as lines for people. The first is the title.
    pub dialogues: Dialogues,
}

/// The last dialogues with other hosts.
pub enum Dialogues {
    /// All lines, for root and the server's user.
    Whole(Vec<Dialogue>),
    /// The lines that the sender of the message may see.
    ForSender(Vec<ForSender>),
}

/// The lines of a dialogue that the sender of the message may see.
pub struct ForSender {
    /// When the attempt ended, in seconds since 1970.
    pub time: u64,
    /// The destination, if the sender may know it.
    pub destination: Option<String>,
    /// The lines, the host first.
    pub lines: Vec<(Kind, String)>,
}

/// What is known about a recipient.
pub struct RecipientFacts {
    /// The recipient, with its record.
    pub entry: RecipientEntry,
    /// The word for the state in JSON.
    pub state: &'static str,
    /// Where the mail goes as the tables are now, in words; `None` if that was not looked up.
    pub route: Option<String>,
    /// What the queue knows about the destination, if that is down, slow or paced.
    pub status: Option<Arc<DestinationStatus>>,
    /// The duration of the attempt that is running, and what the worker is doing.
    pub attempt: Option<(Duration, Option<Activity>)>,
    /// The time of the next attempt, in seconds since 1970; `None` if there is none, or if it is not
    /// known.
    pub next: Option<u64>,
    /// The results of the last attempts, the oldest first.
    pub results: Vec<NoteResult>,
    /// What the sender may see of the way of the mail.
    pub way: Way,
}

impl<'a> Facts<'a> {
    /// Gathers the facts.
    pub fn gather(shown: &Shown<'_>, entry: &'a Entry) -> io::Result<Self> {
        let (now, id) = (sys::now(), entry.id().to_string());
        let front = front(entry)?;
        let note = shown.spool.read_note(entry.id());
        let message_id = fields(&front).find(|field| field.is("Message-ID")).map(|field| field.text());
        let mut results: HashMap<String, Vec<NoteResult>> = HashMap::new();
        for (path, result) in note.results() {
            results.entry(path).or_default().push(result);
        }
        let running = shown.live.as_ref().map(|live| (live.running)()).unwrap_or_default();
        let mut routes = Routes { shown, running, looked_up: 0, statuses: HashMap::new() };
        let release = entry.options().release.filter(|release| !wait_for_release(*release, now).is_zero());
        let recipients = entry.recipients().iter().map(|to| {
            let path = format!("<{}>", to.recipient.address);
            RecipientFacts::gather(entry, to, &mut routes, release, results.remove(&path).unwrap_or_default())
        });
        let mut recipients: Vec<RecipientFacts> = recipients.collect();
        if shown.submitted_by.is_some() {
            recipients = sender::recipients(recipients);
        }
        let hold_reason = note.hold_reason().or_else(|| entry.hold_reason().map(str::to_owned));
        let dialogues = shown.spool.dialogues(entry.id());
        Ok(Self {
            entry,
            now,
            message_id,
            source: source(entry, &front, &id),
            options: options(entry.options()),
            hold_reason: hold_reason
                .filter(|_| is_held(entry) && shown.submitted_by.is_none())
                .map(|reason| reason.replace(char::is_control, " ")),
            release,
            expires: entry.window().start.saturating_add(shown.schedule.expire_after.as_secs()),
            dialogues: match shown.submitted_by {
                None => Dialogues::Whole(dialogues),
                Some(_) => Dialogues::ForSender(dialogues_for_sender(&dialogues, &recipients)),
            },
            recipients,
        })
    }
}

/// Looks up routes, and what the queue knows about the destinations.
struct Routes<'a, 'b> {
    shown: &'a Shown<'b>,
    running: Vec<RunningJob>,
    looked_up: usize,
    statuses: HashMap<String, Option<Arc<DestinationStatus>>>,
}

impl Routes<'_, '_> {
    /// Returns where mail goes, the state of the destination, and the way.
    fn look_up(&mut self, entry: &Entry, to: &RecipientEntry) -> (Option<String>, Option<Arc<DestinationStatus>>, Way) {
        let Some(live) = &self.shown.live else { return (None, None, Way::Hidden) };
        if self.looked_up >= MAX_ROUTES {
            return (None, None, Way::Hidden);
        }
        self.looked_up += 1;
        let (route, is_for_user) =
            (live.router.route_of(&to.recipient, &RoutedMail::of(entry)), self.shown.submitted_by.is_some());
        let status = match &route {
            Route::Remote(_) if !is_for_user => {
                let destination = live.outgoing.for_sender(route.destination(), entry.sender());
                self.status(live, &destination)
            }
            _ => None,
        };
        let way = Way::of(Some(&route.destination()), &to.recipient.address);
        (Some(in_words(&route, is_for_user.then_some(way))), status, way)
    }

    fn status(&mut self, live: &Live<'_>, destination: &Destination) -> Option<Arc<DestinationStatus>> {
        let name = destination.to_string();
        if self.statuses.len() >= MAX_STATUSES && !self.statuses.contains_key(&name) {
            return None;
        }
        let status = self.statuses.entry(name).or_insert_with_key(|name| (live.status)(name.clone()).map(Arc::new));
        status.clone().filter(|status| matches!(status.state, "down" | "slow") || status.paced.is_some())
    }
}

impl RecipientFacts {
    fn gather(
        entry: &Entry,
        to: &RecipientEntry,
        routes: &mut Routes<'_, '_>,
        release: Option<u64>,
        mut results: Vec<NoteResult>,
    ) -> Self {
        let is_open = to.record.state.is_open();
        let shown = routes.shown;
        let number = to.reference().number;
        let job =
            routes.running.iter().find(|job| job.entry.id == entry.id() && job.recipients.contains(&number)).cloned();
        let is_waiting = is_open && job.is_none() && !is_held(entry);
        let next = (is_waiting && to.record.last > 0)
            .then(|| shown.schedule.next_within(entry.window(), to.record.last, entry.id().seed()));
        let (route, status, way) =
            if is_open || shown.submitted_by.is_some() { routes.look_up(entry, to) } else { (None, None, Way::Hidden) };
        let route = route.filter(|_| is_open);
        results.drain(..results.len().saturating_sub(MAX_ATTEMPTS));
        Self {
            entry: to.clone(),
            state: match to.record.state {
                State::Done if to.recipient.action == Action::Replaced => "replaced",
                State::Done | State::Unreported(_) => "delivered",
                State::Failed => "failed",
                _ if is_held(entry) => "held",
                _ if job.is_some() => "running",
                _ if release.is_some() => "scheduled",
                _ if to.record.last > 0 => "deferred",
                _ => "ready",
            },
            route,
            status,
            attempt: job.map(|job| {
                // The hosts of this site are hidden from unprivileged users.
                let visible = |now: Activity| match shown.submitted_by {
                    None => now,
                    Some(_) => Activity { host: String::new(), ..now },
                };
                (job.began.elapsed(), activity::of(job.worker).map(visible))
            }),
            next: release.filter(|_| is_waiting).or(next),
            results,
            way,
        }
    }
}

/// Describes in words where mail goes. `way` is the way if this is for a user who is not privileged, who
/// learns nothing about the mailboxes and hosts of this site.
fn in_words(route: &Route, way: Option<Way>) -> String {
    let destination = route.destination().listed_name();
    match route {
        Route::Mailbox(_) | Route::Command(..) | Route::List if way.is_some() => "delivered on this host".to_owned(),
        Route::Remote(_) if way.is_some_and(|way| way != Way::Public) => "another host".to_owned(),
        Route::Mailbox(Mailbox { path, is_mbox, owner, .. }) => {
            let kind = if *is_mbox { "mbox" } else { "Maildir" };
            let user = match owner {
                Owner::User(account) => format!(" of the user {}", account.name),
                _ => String::new(),
            };
            format!("the {kind} {}{user}", path.display())
        }
        Route::Command(command, _) => format!("the command |{command}"),
        Route::List => "the members of the list".to_owned(),
        Route::Replaced => "nowhere: other recipients have replaced it".to_owned(),
        Route::Remote(HostTarget::Mx { .. }) => format!("{destination}, by its mail exchangers"),
        Route::Remote(HostTarget::Hosts { .. } | HostTarget::Store(_)) => destination,
        Route::Discard(_) | Route::Hold(_) if way.is_some() => "not known now".to_owned(),
        Route::Discard(why) => format!("nowhere: {why}"),
        Route::Hold(why) => format!("held: {why}"),
        Route::Unknown => "nowhere: there is no such user".to_owned(),
        // The reason may name a host.
        Route::Refused(status, _) if way.is_some() => format!("nowhere: this host refuses the address ({status})"),
        Route::Refused(status, why) => format!("nowhere: {status} {why}"),
        // The reason may name a table.
        Route::Temporary(..) if way.is_some() => "not known now".to_owned(),
        Route::Temporary(_, why) => format!("not known now: {why}"),
    }
}

/// Describes in words who gave the message to this host; `None` if that is not known.
fn source(entry: &Entry, front: &[u8], id: &str) -> Option<String> {
    match entry.origin() {
        Origin::Report => return Some("this host, as a report about another message".to_owned()),
        Origin::Postmaster => return Some("this host, as a report to the postmaster".to_owned()),
        Origin::DmarcReport => return Some("this host, as a DMARC report".to_owned()),
        Origin::TlsReport => return Some("this host, as a TLS report".to_owned()),
        Origin::Client | Origin::Own => {}
    }
    let steps: Vec<&str> = entry.steps().iter().map(|step| step.text()).collect();
    if !steps.is_empty() {
        return Some(format!("this host, which has expanded {}", steps.join(", then ")));
    }
    trace::source(front, id)
}

/// The options that the client gave at MAIL, as SMTP writes them.
fn options(options: &MailOptions) -> Vec<String> {
    let MailOptions { body, utf8, ret, envid, deliver_by, priority, release, hold_for: _, tls } = options;
    let body = match body {
        Body::SevenBit => None,
        Body::EightBit => Some("BODY=8BITMIME".to_owned()),
        Body::Binary => Some("BODY=BINARYMIME".to_owned()),
    };
    let ret = ret.map(|ret| if ret == Ret::Full { "RET=FULL" } else { "RET=HDRS" }.to_owned());
    let by = deliver_by.map(|by| {
        let mode = if by.mode == ByMode::Return { "R" } else { "N" };
        format!("BY={} ({mode})", log::local_timestamp(u64::try_from(by.deadline).unwrap_or(0)))
    });
    [
        body,
        utf8.then(|| "SMTPUTF8".to_owned()),
        ret,
        envid.as_ref().map(|envid| format!("ENVID={}", envid.replace(char::is_control, "?"))),
        by,
        (*priority != 0).then(|| format!("MT-PRIORITY={priority}")),
        release.map(|release| format!("HOLDUNTIL={}", log::local_timestamp(release))),
        match tls {
            MessageTls::Default => None,
            MessageTls::Required => Some("REQUIRETLS".to_owned()),
            MessageTls::Indifferent => Some("TLS-Required: No".to_owned()),
        },
    ]
    .into_iter()
    .flatten()
    .collect()
}
