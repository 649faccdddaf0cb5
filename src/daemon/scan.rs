//! Reports all entries in the spool to the queue when the daemon starts, while mail comes and goes.
//!
//! The names in `new/`, the untried entries, are read before the daemon accepts anything. All names
//! are read before the first entry is reported, in order to find duplicates: two files with the
//! same id, which a crash can leave. Then entries are opened one by one, untried ones first and
//! older ones before newer ones, and reported in batches. At most one batch waits for the queue, so
//! new mail never waits for more than one batch.
//!
//! The scan changes no entry: an entry may have been accepted since the start and have a running
//! job, of which only the queue knows. If the spool cannot be read, the scan is tried again. At the
//! end, the spool is swept: files that crashed processes have left are removed.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::queue::{Event, Plan, Scanned};
use crate::site::Site;
use crate::spool::{EntryName, Place, QueueId};
use crate::sys;
use crate::worker::{self, Scan};

/// The pause before the next scan, if the spool could not be read.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// The number of entries in a batch, which the queue processes within a millisecond.
const BATCH: usize = 256;
/// Whenever this many entries have been scanned, the memory of their names is released.
const SHRINK_EVERY: usize = 1 << 16;

/// Reports all entries in the spool to the queue, as soon as the spool can be read. `untried` are
/// the names in `new/` before the daemon accepted anything.
pub fn scan_until_done(site: &Site, mut untried: io::Result<Vec<EntryName>>, events: &Sender<Event>) {
    let started = sys::now();
    loop {
        let scanned = match &untried {
            Ok(names) => scan(site, names, events),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        };
        let Err(e) = scanned else { return };
        ::log::error!("spool: read the queue: {e}");
        thread::sleep(RETRY_INTERVAL);
        if untried.is_err() {
            untried = site.spool.names(Place::New);
            // The queue already knows the entries that were accepted since the start, and their
            // jobs may be running.
            untried.iter_mut().for_each(|names| names.retain(|name| name.id.seconds() < started));
        }
    }
}

/// Reports all entries in the spool to the queue, and sweeps the spool.
///
/// # Errors
/// If the names in `cur/` cannot be read.
pub fn scan(site: &Site, untried: &[EntryName], events: &Sender<Event>) -> io::Result<()> {
    let mut names = site.spool.names(Place::Cur)?;
    names.extend(untried);
    names.sort_unstable();
    let mut scanner = Scanner { site, events, plans: Vec::new(), outstanding: None, awaited: HashSet::new() };
    // If the queue has ended, there is no count. That happens only when the daemon stops.
    let count = scanner.run(names).unwrap_or_default();
    if count > 0 {
        ::log::info!("{count} message{} in the spool", if count == 1 { "" } else { "s" });
    }
    if let Err(e) = site.spool.sweep(&scanner.awaited) {
        ::log::error!("spool: sweep: {e}");
    }
    Ok(())
}

struct Scanner<'a> {
    site: &'a Site,
    events: &'a Sender<Event>,
    /// The batch that is being filled.
    plans: Vec<Plan>,
    /// Receives a message when the queue has taken the latest batch; `None` if no batch is waiting.
    outstanding: Option<Receiver<()>>,
    /// The ids of derived entries (reports and forwarded messages) that other entries wait for. The
    /// sweep must keep them.
    awaited: HashSet<QueueId>,
}

impl Scanner<'_> {
    /// Scans the entries with these sorted names. Returns the number of messages, or `None` if the
    /// queue has ended.
    fn run(&mut self, mut names: Vec<EntryName>) -> Option<usize> {
        for pair in names.windows(2).filter(|pair| pair[0].id == pair[1].id) {
            self.send(Event::Duplicates(pair[0], pair[1]))?;
        }
        names.dedup_by_key(|name| name.id);
        let count = names.len();
        self.send(Event::DuplicatesDone)?;
        names.sort_unstable_by_key(|name| Reverse((name.place, name.id)));
        while let Some(name) = names.pop() {
            self.scan_entry(name)?;
            if names.len().is_multiple_of(SHRINK_EVERY) {
                names.shrink_to_fit();
            }
        }
        self.send_batch()?;
        self.await_queue()?;
        Some(count)
    }

    fn scan_entry(&mut self, name: EntryName) -> Option<()> {
        // A bug that one entry triggers must not keep the others from the queue.
        match catch_unwind(AssertUnwindSafe(|| worker::scan(self.site, name))) {
            Ok(Scan::Deliver(plan)) => self.plans.push(plan),
            Ok(Scan::Repair(awaited)) => {
                self.awaited.extend(awaited);
                self.send(Event::Repair(name))?;
            }
            Ok(Scan::Gone) | Err(_) => {}
        }
        if self.plans.len() < BATCH { Some(()) } else { self.send_batch() }
    }

    /// Sends the batch when the queue has taken the previous one; `None` if the queue has ended.
    fn send_batch(&mut self) -> Option<()> {
        self.await_queue()?;
        let (taken, outstanding) = bounded(1);
        let plans = std::mem::replace(&mut self.plans, Vec::with_capacity(BATCH));
        self.outstanding = Some(outstanding);
        self.send(Event::Scanned(Scanned { plans, taken }))
    }

    fn await_queue(&mut self) -> Option<()> {
        self.outstanding.take().map_or(Some(()), |taken| taken.recv().ok())
    }

    fn send(&self, event: Event) -> Option<()> {
        self.events.send(event).ok()
    }
}
