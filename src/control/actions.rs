//! The actions that answer requests on the control socket.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::{hosts, list, verify};
use crate::endpoint::Endpoint;
use crate::listen::Server;
use crate::message::trace::LocalUser;
use crate::queue::{Event, Selector};
use crate::site::Site;
use crate::spool::{EntryName, Place};

/// The age after which no session is about to deliver an entry in `new/`.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// The parts of the daemon that answer requests.
pub struct Control {
    /// The state that all parts share.
    pub site: Arc<Site>,
    /// The events of the queue.
    pub events: Sender<Event>,
    /// The server for sessions of local users.
    pub server: Arc<Server>,
}

impl Control {
    /// Tries deferred messages now, and returns the number of deliveries that this starts.
    pub(super) fn flush(&self, selector: Selector) -> usize {
        // Administrators may have moved messages back into the queue.
        if self.site.is_scanned.load(Ordering::Acquire) {
            let _ = self.events.send(Event::Appeared(self.settled_names()));
        }
        // If the queue has ended, no delivery is started.
        self.ask(|answer| Event::Flush(selector, answer)).unwrap_or(0)
    }

    /// Notifies the queue of a message that another process has committed.
    pub(super) fn notify(&self, name: EntryName) {
        let _ = self.events.send(Event::Notified(name));
    }

    /// Writes the listing of the queue: all of it, or the messages of one user.
    pub(super) fn list(&self, submitter: Option<u32>, out: &mut dyn Write) -> io::Result<()> {
        let running = self.ask(Event::Running).unwrap_or_default();
        let schedule = self.site.settings().config.queue.schedule();
        list::list(&self.site.spool, &schedule, &running, submitter, out)
    }

    /// Writes the state of other hosts: all of them, or one domain or destination.
    pub(super) fn hosts(&self, wanted: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
        let statuses = self.ask(|answer| Event::Hosts(wanted.map(str::to_owned), answer)).unwrap_or_default();
        let is_listed = |address: &Endpoint| wanted.is_none_or(|wanted| wanted == address.host());
        let down = self.site.outbound.addresses.down().into_iter().filter(|down| is_listed(&down.address)).collect();
        hosts::hosts(statuses, down, out)
    }

    /// Whether mail for an address can be delivered, and where, in lines.
    pub(super) fn verify(&self, address: &str) -> (bool, String) {
        verify::verify(&self.site.settings().router, address)
    }

    /// Runs an SMTP session with a program on this host, after the answer `ok`, until it ends.
    pub(super) fn submit(&self, stream: std::os::unix::net::UnixStream, user: LocalUser) {
        self.server.serve_local_user(stream, user);
    }

    /// Sends an event to the queue and returns its answer; `None` if the queue has ended.
    fn ask<T>(&self, event: impl FnOnce(Sender<T>) -> Event) -> Option<T> {
        let (sender, receiver) = bounded(1);
        self.events.send(event(sender)).ok().and_then(|()| receiver.recv().ok())
    }

    /// All entries in `cur/`, and those in `new/` that are old enough that no session is about to
    /// deliver them.
    fn settled_names(&self) -> Vec<EntryName> {
        let spool = &self.site.spool;
        let names = [Place::New, Place::Cur].into_iter().filter_map(|place| spool.entries_in(place).ok()).flatten();
        names.filter(|name| name.place == Place::Cur || spool.is_older_than(*name, SETTLED_AFTER)).collect()
    }
}
