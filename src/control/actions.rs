//! Carries out the requests that clients send over the control socket.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::messages::Live;
use super::reload::{Reloaded, Reloads};
use super::show::{self, Shown};
use super::status::{Listening, Status};
use super::{Listing, Waker, client, config, hosts, numbers, recipients, stats, trace, verify};
use crate::activity;
use crate::address::parse_domain;
use crate::destination::Destination;
use crate::endpoint::Endpoint;
use crate::json::Format;
use crate::listen::Server;
use crate::log;
use crate::message::trace::LocalUser;
use crate::queue::{Event, KnownEntry, RunningJob, Selector};
use crate::route::Route;
use crate::site::Site;
use crate::spool::{EntryName, Place, QueueId};
use crate::state::State;
use crate::submit::drop;

/// If an entry in `new/` has not changed for this time, no session is about to deliver it.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// The parts of the daemon that are needed to answer requests.
pub struct Control {
    /// The state that all parts of the daemon share.
    pub site: Arc<Site>,
    /// The channel for events to the queue.
    pub events: Sender<Event>,
    /// The server that runs the SMTP sessions of local users.
    pub server: Arc<Server>,
    /// The clients that wait for a reload.
    pub reloads: Arc<Reloads>,
    /// The sockets on which the daemon listens.
    pub listeners: Vec<Listening>,
    /// Has the drop directory read; `None` if there is no such directory.
    pub dropped: Option<Waker>,
    /// Whether the service manager holds the control socket too, and may pass it to a later process.
    pub is_shared: bool,
}

impl Control {
    /// Makes the queue try jobs now, as `user` demands, and returns their number. `word` selects them;
    /// `None` selects all. A job is one message and one destination.
    pub(super) fn flush(&self, word: Option<&str>, user: &str) -> usize {
        // An administrator may have moved messages back into `new/` or `cur/`, so the queue is told
        // which messages are there.
        if self.site.is_scanned.load(Ordering::Acquire) {
            let _ = self.events.send(Event::Appeared(self.settled_names()));
        }
        let selector = word.map_or(Selector::All, Selector::parse);
        let message = if let Selector::Message(id) = &selector { Some(*id) } else { None };
        // If the queue has ended, no delivery is started.
        let count = self.ask(|answer| Event::Flush(selector, answer)).unwrap_or(0);
        match message {
            Some(id) if count > 0 => log::flushed(&id, user),
            Some(_) => {}
            None => log::flushed_all(word.unwrap_or("*"), count, user),
        }
        count
    }

    /// Makes the queue try the selected jobs for a client of another process (ETRN), and returns their
    /// number.
    pub(super) fn flush_for_client(&self, selector: Selector) -> usize {
        self.ask(|answer| Event::Etrn(selector, answer)).unwrap_or(0)
    }

    /// Notifies the queue of a message that another process has stored in the spool.
    pub(super) fn notify(&self, name: EntryName) {
        let _ = self.events.send(Event::Notified(name));
    }

    /// Writes a listing of the queue: of all messages, or only of those that the user with the uid
    /// `submitter` has submitted. While there is nothing to write, an octet is written from time to time,
    /// which shows the client that the daemon is still at work.
    pub(super) fn list(&self, listing: &Listing, submitter: Option<u32>, out: &mut dyn Write) -> io::Result<()> {
        let schedule = self.site.settings().config.queue.schedule();
        let idle = &mut |out: &mut dyn Write| out.write_all(&[client::ALIVE]).and_then(|()| out.flush());
        listing.write((&self.site.spool, schedule), Some(self), submitter, out, idle)?;
        listing.write_dropped(&self.site.settings().config, submitter, out)
    }

    /// Writes the state of other hosts: of all hosts, or only of the domain, destination or address
    /// `wanted`.
    pub(super) fn hosts(&self, wanted: Option<&str>, format: Format, out: &mut dyn Write) -> io::Result<()> {
        let ask = |name: Option<String>| self.ask(|answer| Event::Hosts(name, answer)).unwrap_or_default();
        let mut statuses = ask(wanted.map(str::to_owned));
        let is_listed = |address: &Endpoint| wanted.is_none_or(|wanted| wanted == address.host());
        if let Some(wanted) = wanted.filter(|_| statuses.is_empty())
            && let Ok(domain) = parse_domain(wanted)
            && let Ok(address) = format!("postmaster@{domain}").parse()
            && let Route::Remote(target) = self.site.settings().router.route(&address)
        {
            // A route sends the mail of this domain to another destination.
            statuses = ask(Some(Destination::Remote(target, None).to_string()));
        }
        let down = self.site.outbound.addresses.down().into_iter().filter(|down| is_listed(&down.address)).collect();
        hosts::hosts(statuses, down, (&self.site.settings(), &self.site.outbound.sts), format, out)
    }

    /// Writes the configuration in force, or only the key or table `wanted`. With `is_brief`, only
    /// the keys in the file are written.
    pub(super) fn config(
        &self,
        (wanted, is_brief): (Option<&str>, bool),
        format: Format,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let settings = self.site.settings();
        config::config(&settings.config, Some(settings.since), (wanted, is_brief), format, out).map(drop)
    }

    /// Returns the state of the daemon, and what it is doing.
    pub(super) fn status(&self) -> Status {
        let settings = self.site.settings();
        let jobs = Live::running(self);
        let mut running: Vec<_> = jobs
            .into_iter()
            .filter_map(|job| Some((job.entry.id, job.began.elapsed().as_secs(), activity::of(job.worker)?)))
            .collect();
        running.sort_by_key(|(_, seconds, _)| std::cmp::Reverse(*seconds));
        Status {
            gauges: numbers::gauges(&self.site, &self.server, &self.events),
            file: settings.config.places.file().display().to_string(),
            since: settings.since,
            listeners: self.listeners.clone(),
            running,
            filters: settings.config.filters.clone(),
            resolver: self.site.dns.servers_in_use(),
            dropped: settings
                .config
                .submission
                .drop
                .as_ref()
                .map(|directory| (directory.display().to_string(), drop::count(directory, None).unwrap_or_default())),
        }
    }

    /// Makes the daemon read its configuration again; `None` if there is no result in time.
    pub(super) fn reload(&self) -> Option<Reloaded> {
        self.reloads.request()
    }

    /// Calls `write` with a message that is to be shown, and with the facts that only the daemon knows.
    /// If `submitted_by` is a uid, only messages of this user can be shown.
    pub(super) fn show<T>(
        &self,
        id: QueueId,
        submitted_by: Option<u32>,
        write: impl FnOnce(&Shown<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let settings = self.site.settings();
        let status = |name: String| {
            let statuses = self.ask(|answer| Event::Hosts(Some(name.clone()), answer)).unwrap_or_default();
            statuses.into_iter().find(|status| status.destination.to_string() == name)
        };
        let running = || self.ask(|answer| Event::Running(Some(id), answer)).unwrap_or_default();
        write(&Shown {
            spool: &self.site.spool,
            id,
            schedule: settings.config.queue.schedule(),
            submitted_by,
            live: Some(show::Live {
                running: &running,
                router: &settings.router,
                outgoing: &settings.outgoing,
                status: &status,
            }),
        })
    }

    /// Returns the answer to `stats`.
    pub(super) fn stats(&self, query: &stats::Query) -> String {
        let state = State::at(&self.site.spool.state_directory());
        stats::answer(&state, query, &numbers::gauges(&self.site, &self.server, &self.events))
    }

    /// Writes what has happened to messages and clients.
    pub(super) fn trace(&self, query: &trace::Query<'_>, out: &mut dyn Write) -> io::Result<()> {
        let spool = &self.site.spool;
        let (directory, keep) = (spool.state_directory(), self.site.settings().config.history.keep);
        trace::trace(&trace::Sources { directory: &directory, keep, spool }, query, out)
    }

    /// Writes what next hosts have said about recipients.
    pub(super) fn recipients(&self, wanted: Option<&str>, format: Format, out: &mut dyn Write) -> io::Result<()> {
        recipients::list(&self.site.callouts, wanted, format, out)
    }

    /// Forgets what next hosts have said about an address or a domain. Returns the number of answers.
    pub(super) fn forget(&self, wanted: &str) -> usize {
        recipients::forget(&self.site.callouts, wanted)
    }

    /// Returns whether mail for an address can be delivered, and lines of text that say where.
    pub(super) fn verify(&self, address: &str, is_for_user: bool) -> (bool, String) {
        verify::verify(&self.site.settings().router, &self.site.callouts, address, is_for_user)
    }

    /// Runs an SMTP session with a program on this host until the session ends. The program has
    /// already received the answer `ok`.
    pub(super) fn submit(&self, stream: std::os::unix::net::UnixStream, user: LocalUser) {
        self.server.serve_local_user(stream, user);
    }

    /// Sends an event to the queue and returns its answer; `None` if the queue has ended.
    pub(super) fn ask<T>(&self, event: impl FnOnce(Sender<T>) -> Event) -> Option<T> {
        let (sender, receiver) = bounded(1);
        self.events.send(event(sender)).ok().and_then(|()| receiver.recv().ok())
    }

    /// Returns all entries in `cur/`, and those in `new/` that are so old that no session is about
    /// to deliver them.
    fn settled_names(&self) -> Vec<EntryName> {
        let names = [Place::New, Place::Cur].into_iter().filter_map(|place| self.site.spool.entries_in(place).ok());
        self.settled(names.flatten())
    }

    /// Returns those of the entries that no session is about to deliver.
    pub(super) fn settled(&self, names: impl Iterator<Item = EntryName>) -> Vec<EntryName> {
        let spool = &self.site.spool;
        names.filter(|name| name.place == Place::Cur || spool.is_older_than(*name, SETTLED_AFTER)).collect()
    }
}

impl Live for Control {
    fn look(&self, ids: Vec<QueueId>) -> Vec<Option<KnownEntry>> {
        self.ask(|answer| Event::Look(ids, answer)).unwrap_or_default()
    }

    fn running(&self) -> Vec<RunningJob> {
        self.ask(|answer| Event::Running(None, answer)).unwrap_or_default()
    }
}
