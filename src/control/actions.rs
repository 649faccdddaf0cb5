//! What the daemon does about a request on the control socket.

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

/// An entry in `new/` that is younger may be about to be moved by its session.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// What requests are answered from.
pub struct Control {
    /// The shared state.
    pub site: Arc<Site>,
    /// The queue's events.
    pub events: Sender<Event>,
    /// The server in which local users submit messages.
    pub server: Arc<Server>,
}

impl Control {
    /// Has waiting messages tried now; returns how many deliveries that starts.
    pub(super) fn flush(&self, selector: Selector) -> usize {
        // A message may have been put back into the queue by hand.
        if self.site.is_scanned.load(Ordering::Acquire) {
            let _ = self.events.send(Event::Appeared(self.settled_names()));
        }
        // Nothing waits in a queue that has ended.
        self.ask(|answer| Event::Flush(selector, answer)).unwrap_or(0)
    }

    /// Tells the queue of a message that another process committed.
    pub(super) fn notify(&self, name: EntryName) {
        let _ = self.events.send(Event::Notified(name));
    }

    /// Writes the listing of the queue, or of what one user has in it.
    pub(super) fn list(&self, of: Option<u32>, out: &mut dyn Write) -> io::Result<()> {
        let running = self.ask(Event::Running).unwrap_or_default();
        let schedule = self.site.settings().config.queue.schedule();
        list::list(&self.site.spool, &schedule, &running, of, out)
    }

    /// Writes what is known of other hosts: of all, or of one domain or destination.
    pub(super) fn hosts(&self, of: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
        let statuses = self.ask(|answer| Event::Hosts(of.map(str::to_owned), answer)).unwrap_or_default();
        let is_meant = |address: &Endpoint| of.is_none_or(|of| of == address.host());
        let down = self.site.outbound.addresses.down().into_iter().filter(|one| is_meant(&one.address)).collect();
        hosts::hosts(statuses, down, out)
    }

    /// Whether an address can be delivered to, and where it goes, in lines.
    pub(super) fn verify(&self, address: &str) -> (bool, String) {
        verify::verify(&self.site.settings().router, address)
    }

    /// Serves a session with a program on this host, which has been answered `ok`.
    pub(super) fn submit(&self, stream: std::os::unix::net::UnixStream, user: LocalUser) {
        self.server.serve_local_user(stream, user);
    }

    /// The answer of the queue; `None` if it has ended.
    fn ask<T>(&self, event: impl FnOnce(Sender<T>) -> Event) -> Option<T> {
        let (sender, receiver) = bounded(1);
        self.events.send(event(sender)).ok().and_then(|()| receiver.recv().ok())
    }

    /// The entries in `new/` and `cur/`, but for new ones that their session may be about to move.
    fn settled_names(&self) -> Vec<EntryName> {
        let spool = &self.site.spool;
        let names = [Place::New, Place::Cur].into_iter().filter_map(|place| spool.entries_in(place).ok()).flatten();
        names.filter(|name| name.place == Place::Cur || spool.is_older_than(*name, SETTLED_AFTER)).collect()
    }
}
