//! Starts and ends the queue, its workers, and the threads around them, for the daemon.
//!
//! The engine connects sessions, queue and workers, and starts the scan that reports the entries in
//! the spool to the queue. If the engine cannot start the threads that it needs, the daemon does
//! not start. After the start, only a bug in an essential thread ends the daemon.

use std::io;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::scan;
use crate::config::Kind;
use crate::control::{self, Control, Dropped, Listening, Reloads, Waker};
use crate::exit::{self, Exit};
use crate::listen::{Listener, Server};
use crate::queue::{Event, Job, Queue, QueueSettings, Selector, SpoolTasks, Workers};
use crate::session::{Committed, Flush, Notify};
use crate::site::{Settings, Site};
use crate::smtp::etrn::Node;
use crate::spool::{EntryName, Place};
use crate::status::Status;
use crate::sys::{self, command};
use crate::worker;

/// The size of the stack of a worker's thread, in bytes.
const WORKER_STACK: usize = 512 << 10;
/// The maximum number of events that can wait for the queue's thread.
const MAX_EVENTS: usize = 1024;
/// How long deliveries may continue when the daemon stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the queue may take to name the deliveries that a stop interrupts.
const NOTE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a session waits for the queue's answer to ETRN.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// The queue and its workers.
pub struct Engine {
    pub site: Arc<Site>,
    events: Sender<Event>,
    /// A channel that carries no messages. It is disconnected when the queue ends.
    ended: Receiver<()>,
}

impl Engine {
    /// Starts the queue and its workers.
    ///
    /// # Errors
    /// If the threads of the queue and of its first workers cannot be started. Also if the work
    /// on messages of the drop directory that a crash has interrupted cannot be completed: nothing in
    /// the spool may be tried before that.
    pub fn start(site: Arc<Site>) -> Result<Self, Exit> {
        let settings = site.settings();
        if let Some(path) = &settings.config.submission.drop {
            control::recover(&site.spool, path).map_err(|e| {
                Exit::new(exit::IOERR, format!("submission.drop: complete the messages in {}", path.display()), &e)
            })?;
        }
        let (events, inbox) = bounded(MAX_EVENTS);
        let no_thread = |e: io::Error| Exit::new(exit::OSERR, "start a thread", &e);
        let count = settings.config.queue.workers;
        let start = {
            let (site, events) = (Arc::clone(&site), events.clone());
            move |number| start_worker(number, &site, &events)
        };
        let workers = Workers::new(count, Box::new(start)).map_err(no_thread)?;
        let timeouts = Arc::clone(&site.outbound.timeouts);
        let queue = Queue::new(queue_settings(&settings), inbox, workers, tasks(&site), timeouts);
        let (alive, ended) = bounded(0);
        let run = move || {
            exit_on_panic("queue", || queue.run());
            drop(alive);
        };
        thread::Builder::new().name("queue".into()).spawn(run).map_err(no_thread)?;
        Ok(Self { site, events, ended })
    }

    /// Starts the threads that accept connections, serve the control socket and scan the spool.
    /// Returns the listeners, so that they can be closed at the end.
    pub fn open(
        &self,
        server: &Arc<Server>,
        listeners: Vec<Listener>,
        (control, is_shared): (UnixListener, bool),
        reloads: &Arc<Reloads>,
    ) -> Result<Vec<Arc<Listener>>, Exit> {
        let spawn = |name: &'static str, run: Box<dyn FnOnce() + Send>| {
            let run = move || exit_on_panic(name, run);
            let started = thread::Builder::new().name(name.into()).stack_size(WORKER_STACK).spawn(run);
            started.map(drop).map_err(|e| Exit::new(exit::OSERR, "start a thread", &e))
        };
        // The names of untried entries are read before any message is accepted. So the scan finds
        // no message that a session of this process may be about to move.
        let untried = self.untried();
        let mut kept = Vec::new();
        let status = Status::new(Arc::clone(&self.site), self.events.clone(), Arc::clone(server));
        for listener in listeners.into_iter().map(Arc::new) {
            let (server, status, shared) = (Arc::clone(server), Arc::clone(&status), Arc::clone(&listener));
            let run = move || match shared.listen.kind {
                Kind::Status => status.serve(&shared),
                _ => server.accept_from(&shared),
            };
            spawn("listen", Box::new(run))?;
            match listener.socket.address() {
                Some(address) => ::log::info!("listening on {address}"),
                None => ::log::info!("listening on {}", listener.listen.address),
            }
            kept.push(listener);
        }
        let (waker, take) = self.take_dropped(server).unzip();
        let state = Control {
            dropped: waker,
            site: Arc::clone(&self.site),
            events: self.events.clone(),
            server: Arc::clone(server),
            reloads: Arc::clone(reloads),
            listeners: kept.iter().map(|listener| listening(listener)).collect(),
            is_shared,
        };
        spawn("control", Box::new(move || control::serve(&control, state)))?;
        let (site, events) = (Arc::clone(&self.site), self.events.clone());
        let scan = move || {
            scan::scan_until_done(&site, untried, &events);
            site.is_scanned.store(true, Ordering::Release);
        };
        spawn("load", Box::new(scan))?;
        take.map_or(Ok(()), |take| spawn("dropped", take))?;
        let events = self.events.clone();
        let notify = move |name| drop(events.send(Event::New(name)));
        super::reports::start(Arc::clone(&self.site), notify)
            .map_err(|e| Exit::new(exit::OSERR, "start a thread", &e))?;
        Ok(kept)
    }

    /// Returns the function that takes messages from the drop directory, and what makes it read the
    /// directory; `None` if there is no such directory.
    fn take_dropped(&self, server: &Arc<Server>) -> Option<(Waker, Box<dyn FnOnce() + Send>)> {
        let path = self.site.settings().config.submission.drop.clone()?;
        let events = self.events.clone();
        let settled = move |name| drop(events.send(Event::New(name)));
        let (dropped, waker) = Dropped::new(Arc::clone(&self.site), Arc::clone(server), settled);
        Some((waker, Box::new(move || dropped.run(&path))))
    }

    /// For a process that is not a daemon: takes the messages in the drop directory, if there is one,
    /// and then reports all entries in the spool to the queue.
    ///
    /// # Errors
    /// If the spool cannot be read.
    pub fn take_and_scan(&self) -> Result<(), Exit> {
        if let Some(path) = &self.site.settings().config.submission.drop {
            let server = Server::new(Arc::clone(&self.site), self.notify(), self.flush(), sys::now());
            // The scan finds the entries, so the queue is not told of each.
            Dropped::new(Arc::clone(&self.site), server, |_| {}).0.take_all(path);
        }
        self.scan()
    }

    /// Reports all entries in the spool to the queue.
    ///
    /// # Errors
    /// If the spool cannot be read.
    fn scan(&self) -> Result<(), Exit> {
        let scanned = self.untried().and_then(|untried| scan::scan(&self.site, &untried, &self.events));
        scanned.map_err(|e| Exit::new(exit::IOERR, "read the spool", &e))
    }

    /// Returns the entries that earlier processes accepted and did not try to deliver.
    fn untried(&self) -> io::Result<Vec<EntryName>> {
        if let Err(e) = self.site.spool.remove_old_names() {
            ::log::error!("spool: read tmp/: {e}");
        }
        self.site.spool.names(Place::New)
    }

    /// Returns the function that sessions call for each message they have stored. If the delivery
    /// takes no more than a rename, the function delivers the message at once. Otherwise, it
    /// notifies the queue.
    pub fn notify(&self) -> Arc<Notify> {
        let (events, site) = (self.events.clone(), Arc::clone(&self.site));
        Arc::new(move |committed: &Committed<'_>| {
            // A panic during this delivery must not keep the message from the queue.
            let delivered = catch_unwind(AssertUnwindSafe(|| worker::deliver_now(&site, committed)));
            if !delivered.unwrap_or(false) {
                // Sending fails only if the queue has ended before this session, while the daemon
                // stops. The entry stays in the spool.
                let _ = events.send(Event::New(committed.name));
            }
        })
    }

    /// Returns the function that sessions call for ETRN.
    pub fn flush(&self) -> Arc<Flush> {
        let events = self.events.clone();
        Arc::new(move |node| {
            let selector = match node {
                Node::Domain(domain) => Selector::Domain(domain.to_string()),
                Node::DomainAndBelow(domain) => Selector::DomainAndBelow(domain.to_string()),
                Node::Queue(_) => return None,
            };
            let (answer, answers) = bounded(1);
            events.send(Event::Etrn(selector, answer)).ok()?;
            answers.recv_timeout(FLUSH_TIMEOUT).ok()
        })
    }

    /// Sends an event to the queue. If the queue has ended, the daemon is stopping, and the event
    /// is dropped.
    pub fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Waits until the queue has tried every message that is due, and has ended.
    pub fn drain(self) {
        self.send(Event::Drain);
        let _ = self.ended.recv();
    }

    /// Starts no more deliveries, waits up to [`STOP_TIMEOUT`] for those under way, notes those that
    /// have not ended, and kills all running commands.
    pub fn stop(self) {
        self.send(Event::Stop);
        if self.ended.recv_timeout(STOP_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            let (answer, jobs) = bounded(1);
            self.send(Event::Running(None, answer));
            worker::note_interrupted(&self.site, &jobs.recv_timeout(NOTE_TIMEOUT).unwrap_or_default());
        }
        #[cfg(feature = "mailauth")]
        self.site.dmarc_counts.flush();
        self.site.tls_counts.flush();
        command::end_all();
    }
}

/// Starts the thread of a worker, and returns the channel of its jobs.
fn start_worker(number: usize, site: &Arc<Site>, events: &Sender<Event>) -> io::Result<Sender<Job>> {
    let (hand_out, jobs) = bounded(1);
    let (site, events) = (Arc::clone(site), events.clone());
    let builder = thread::Builder::new().name("worker".into()).stack_size(WORKER_STACK);
    builder.spawn(move || worker::run(number, site, jobs, events))?;
    Ok(hand_out)
}

/// Describes a listening socket.
fn listening(Listener { socket, listen, .. }: &Listener) -> Listening {
    let address = socket.address().map_or_else(|| listen.address.to_string(), |address| address.to_string());
    Listening { address, kind: listen.kind, tls: listen.tls }
}

/// The part of the settings that the queue needs.
pub fn queue_settings(settings: &Settings) -> QueueSettings {
    QueueSettings {
        schedule: settings.config.queue.schedule(),
        per_destination: settings.config.queue.workers_per_destination,
    }
}

/// Runs an essential thread. If the thread panics, the process exits, because mail would otherwise
/// stay in the spool unnoticed. The service manager starts a new daemon, and no mail is lost.
fn exit_on_panic(name: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        ::log::error!("a bug ended the thread {name}");
        std::process::exit(exit::SOFTWARE.into());
    }
}

/// Returns the operations on the spool that the queue calls.
fn tasks(site: &Arc<Site>) -> SpoolTasks {
    let (for_load, spool, addresses) =
        (Arc::clone(site), Arc::clone(&site.spool), Arc::clone(&site.outbound.addresses));
    let (for_finish, for_limits) = (Arc::clone(&spool), Arc::clone(site));
    SpoolTasks {
        load: Box::new(move |name, unsynced| worker::plan(&for_load, name, unsynced)),
        choose: Box::new(move |first, second| spool.resolve_duplicates(first, second)),
        finish: Box::new(move |name| worker::finish(&for_finish, name)),
        limits: Arc::new(move |destination| for_limits.settings().outgoing.limits(destination)),
        clear_failures: Box::new(move || addresses.clear_failures()),
    }
}
