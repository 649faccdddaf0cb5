//! The queue and its workers, from their start to their end.
//!
//! Puts together what receives, keeps and sends, and has the queue told of what is
//! in the spool. A thread that cannot be had at the start is an [`Exit`]; later
//! nothing is fatal. Does not listen itself and reads no configuration.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::scan;
use crate::control::{self, Orders};
use crate::deliver::agent::AgentPool;
use crate::deliver::remote::Outbound;
use crate::dns::Dns;
use crate::endpoint::Endpoint;
use crate::exit::{self, Exit};
use crate::listen::{Listener, Server};
use crate::privsep::Rights;
use crate::queue::{Event, Queue, QueueSettings, SpoolTasks};
use crate::session::{Committed, Service};
use crate::spool::{EntryName, Place, Spool};
use crate::state::State;
use crate::submit::usage::Usage;
use crate::sys::command;
use crate::worker::{self, Rates, Settings, Tools};

/// Threads that work on jobs.
const WORKER_STACK: usize = 512 << 10;
/// With fewer than these it does not start.
const LEAST_WORKERS: usize = 4;
/// What is in `new/` for less than this may be about to be moved by its session.
const FRESH: Duration = Duration::from_secs(60);
/// Events on their way to the queue.
const EVENTS: usize = 4096;
/// What deliveries get to come to an end when the daemon goes down.
const GRACE: Duration = Duration::from_secs(5);

/// The queue, its workers, and what they and the sessions share.
pub struct Mail {
    pub tools: Arc<Tools>,
    events: Sender<Event>,
    /// Says, by hanging up, that the queue has ended.
    ended: Receiver<()>,
    /// Survives every reload.
    usage: Arc<Usage>,
    /// Whether the queue was told of all that was in the spool at the start.
    is_loaded: Arc<AtomicBool>,
}

impl Mail {
    /// For a process without sockets of its own: mail to where the daemon would
    /// listen is mail to ourselves all the same.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start_without_listening(settings: Arc<Settings>, spool: Arc<Spool>, rights: Rights) -> Result<Self, Exit> {
        let local = settings.config.listen.iter().map(|listen| listen.address).collect();
        Self::start(settings, spool, rights, local)
    }

    /// Starts the queue and its workers. `local` is where this process listens.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(
        settings: Arc<Settings>,
        spool: Arc<Spool>,
        rights: Rights,
        local: Vec<SocketAddr>,
    ) -> Result<Self, Exit> {
        let dns = Arc::new(Dns::new(&settings.config.dns));
        let count = settings.config.queue.workers;
        let queue_settings = queue_settings(&settings);
        let outbound = Outbound { dns, local, addresses: Arc::default(), timeouts: Arc::default() };
        let timeouts = Arc::clone(&outbound.timeouts);
        let (agents, rates) = (AgentPool::new(rights), Rates::default());
        let usage = Arc::new(Usage::shared(&State::at(&spool.state_directory())));
        let tools = Arc::new(Tools { settings: RwLock::new(settings), spool, agents, rates, outbound });
        let (events, inbox) = bounded(EVENTS);
        let no_thread = |e: io::Error| Exit::new(exit::OSERR, "start a thread", &e);
        let mut workers = Vec::new();
        for number in 0..count {
            let (give, jobs) = bounded(1);
            let (tools, events) = (Arc::clone(&tools), events.clone());
            let builder = thread::Builder::new().name("worker".into()).stack_size(WORKER_STACK);
            match builder.spawn(move || worker::run(number, tools, jobs, events)) {
                Ok(thread) => workers.push((give, thread)),
                Err(e) if workers.len() < LEAST_WORKERS => return Err(no_thread(e)),
                Err(e) => {
                    // Sessions need threads as well: some of these are given back.
                    for (give, thread) in workers.split_off((workers.len() / 2).max(LEAST_WORKERS)) {
                        drop(give);
                        let _ = thread.join();
                    }
                    let most = workers.len();
                    ::log::warn!(
                        "queue.workers: the system has no more threads ({e}): {most} of {count} workers start"
                    );
                    break;
                }
            }
        }
        let workers = workers.into_iter().map(|(give, _)| give).collect();
        let queue = Queue::new(queue_settings, inbox, workers, tasks(&tools), timeouts);
        let (alive, ended) = bounded(0);
        let run = move || {
            end_with_bug("queue", || queue.run());
            drop(alive);
        };
        thread::Builder::new().name("queue".into()).spawn(run).map_err(no_thread)?;
        Ok(Self { tools, events, ended, usage, is_loaded: Arc::default() })
    }

    /// Starts what listens and what loads; returns the sockets, for the end.
    pub fn open_up(
        &self,
        server: &Arc<Server>,
        listeners: Vec<Listener>,
        control: std::os::unix::net::UnixListener,
    ) -> Result<Vec<Arc<Listener>>, Exit> {
        let spawn = |name: &'static str, run: Box<dyn FnOnce() + Send>| {
            let run = move || end_with_bug(name, run);
            let started = thread::Builder::new().name(name.into()).stack_size(WORKER_STACK).spawn(run);
            started.map(drop).map_err(|e| Exit::new(exit::OSERR, "start a thread", &e))
        };
        // Before anything comes in: what this process accepts is never found by the scan
        // where a session may be about to move it.
        let untried = self.untried();
        let mut kept = Vec::new();
        for listener in listeners.into_iter().map(Arc::new) {
            let (server, own) = (Arc::clone(server), Arc::clone(&listener));
            spawn("listen", Box::new(move || server.accept_from(&own)))?;
            if let Ok(address) = listener.socket.local_addr() {
                ::log::info!("listening on {address}");
            }
            kept.push(listener);
        }
        let orders = self.orders(server);
        spawn("control", Box::new(move || control::serve(&control, orders)))?;
        let (tools, events) = (Arc::clone(&self.tools), self.events.clone());
        let is_loaded = Arc::clone(&self.is_loaded);
        let load = move || {
            scan::load_at_last(&tools, untried, &events);
            is_loaded.store(true, Ordering::Release);
        };
        spawn("load", Box::new(load))?;
        Ok(kept)
    }

    /// Tells the queue of everything in the spool.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn load_all(&self) -> Result<(), Exit> {
        let loaded = self.untried().and_then(|untried| scan::load(&self.tools, &untried, &self.events));
        loaded.map_err(|e| Exit::new(exit::IOERR, "read the spool", &e))
    }

    /// What was accepted and not tried before this process began.
    fn untried(&self) -> io::Result<Vec<EntryName>> {
        if let Err(e) = self.tools.spool.remove_old_names() {
            ::log::error!("spool: look through tmp/: {e}");
        }
        self.tools.spool.names(Place::New)
    }

    fn orders(&self, server: &Arc<Server>) -> Orders {
        let (flush, wake, tools) = (self.events.clone(), self.events.clone(), Arc::clone(&self.tools));
        let (for_verify, for_flush, server) = (Arc::clone(&self.tools), Arc::clone(&self.tools), Arc::clone(server));
        let is_loaded = Arc::clone(&self.is_loaded);
        let (for_list, for_hosts) = (self.events.clone(), self.events.clone());
        let addresses = Arc::clone(&self.tools.outbound.addresses);
        Orders {
            rights: self.tools.agents.rights().clone(),
            flush: Box::new(move |selector| {
                let (said, heard) = bounded(1);
                // A person may have released a message by hand.
                if is_loaded.load(Ordering::Acquire) {
                    let _ = flush.send(Event::Appeared(settled_names(&for_flush.spool)));
                }
                // Nothing waits in a queue that has ended.
                flush.send(Event::Flush(selector, said)).ok().and_then(|()| heard.recv().ok()).unwrap_or(0)
            }),
            wake: Box::new(move |name| drop(wake.send(Event::Notified(name)))),
            list: Box::new(move |of, out| {
                let (said, heard) = bounded(1);
                let running = for_list.send(Event::Running(said)).ok().and_then(|()| heard.recv().ok());
                let schedule = tools.settings().config.queue.schedule();
                control::list(&tools.spool, &schedule, &running.unwrap_or_default(), of, out)
            }),
            hosts: Box::new(move |of, out| {
                let (said, heard) = bounded(1);
                let asked = for_hosts.send(Event::Hosts(of.map(str::to_owned), said));
                let statuses = asked.ok().and_then(|()| heard.recv().ok()).unwrap_or_default();
                let is_meant = |address: &Endpoint| of.is_none_or(|of| of == address.host());
                let down = addresses.down().into_iter().filter(|one| is_meant(&one.address)).collect();
                control::hosts(statuses, down, out)
            }),
            verify: Box::new(move |address| control::verify(&for_verify.settings().router, address)),
            submit: Box::new(move |stream, user| server.serve_local_user(stream, user)),
        }
    }

    pub fn service(&self) -> Arc<Service> {
        let settings = self.tools.settings();
        let (events, tools) = (self.events.clone(), Arc::clone(&self.tools));
        let wake = move |committed: &Committed<'_>| {
            // A bug here must not keep it from the queue.
            let taken = catch_unwind(AssertUnwindSafe(|| worker::take_home(&tools, committed)));
            if !taken.unwrap_or(false) {
                // The queue ends before the sessions only when the daemon does; the spool knows.
                let _ = events.send(Event::New(committed.name));
            }
        };
        Arc::new(Service {
            config: Arc::clone(&settings.config),
            router: Arc::clone(&settings.router),
            senders: Arc::clone(&settings.senders),
            usage: Arc::clone(&self.usage),
            spool: Arc::clone(&self.tools.spool),
            dns: Arc::clone(&self.tools.outbound.dns),
            tls: Arc::clone(&settings.tls),
            logins: Arc::clone(&settings.logins),
            rights: self.tools.agents.rights().clone(),
            wake: Arc::new(wake),
        })
    }

    pub fn tell(&self, event: Event) {
        // It has ended only when the daemon does.
        let _ = self.events.send(event);
    }

    /// Waits until everything that is due was tried.
    pub fn drain(self) {
        self.tell(Event::Drain);
        let _ = self.ended.recv();
    }

    /// Starts no more deliveries, and gives those that run a moment.
    pub fn stop(self) {
        self.tell(Event::Stop);
        let _ = self.ended.recv_timeout(GRACE);
        command::end_all();
    }
}

pub fn queue_settings(settings: &Settings) -> QueueSettings {
    QueueSettings {
        schedule: settings.config.queue.schedule(),
        per_destination: settings.config.queue.workers_per_destination,
    }
}

/// Runs what the daemon cannot be without. If a bug ends it, mail would lie there
/// and nobody would know: whoever supervises us starts anew, and the spool has
/// everything.
fn end_with_bug(name: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        ::log::error!("a bug ended the thread {name}");
        std::process::exit(exit::SOFTWARE.into());
    }
}

/// The entries in `new/` and `cur/`, but for those that came in just now and may be about to be
/// moved by their session.
fn settled_names(spool: &Spool) -> Vec<EntryName> {
    let names = [Place::New, Place::Cur].into_iter().filter_map(|place| spool.entries_in(place).ok()).flatten();
    names.filter(|name| name.place == Place::Cur || spool.is_older_than(*name, FRESH)).collect()
}

/// What the queue has done by others.
fn tasks(tools: &Arc<Tools>) -> SpoolTasks {
    let addresses = Arc::clone(&tools.outbound.addresses);
    let (for_load, for_choose, for_finish) = (Arc::clone(tools), Arc::clone(&tools.spool), Arc::clone(&tools.spool));
    SpoolTasks {
        load: Box::new(move |name, unsynced| worker::plan(&for_load, name, unsynced)),
        choose: Box::new(move |first, second| for_choose.resolve_duplicates(first, second)),
        finish: Box::new(move |name| worker::finish(&for_finish, name)),
        clear_failures: Box::new(move || addresses.clear_failures()),
    }
}
