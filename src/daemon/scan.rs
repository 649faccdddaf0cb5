//! Tells the queue of everything in the spool, while mail comes and goes.
//!
//! What is not yet tried is listed before anything comes in; the rest of the names is
//! read before anything is told, so that of two files of one id, which a crash leaves,
//! none is taken for the whole. Then entry after entry is opened, what was not yet
//! tried before what was, the oldest first, and told of in batches: one at a time,
//! so that new mail never waits behind more than that. Nothing is changed here: an
//! entry may have been accepted since the start, and be at work; only the queue
//! knows. A spool that cannot be read is tried again. In the end it is swept.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::queue::{Event, Plan, Scanned};
use crate::spool::{EntryName, Place, QueueId};
use crate::sys;
use crate::worker::{self, Scan, Tools};

/// When the spool could not be read, it is tried again so often.
const RELOAD: Duration = Duration::from_secs(30);
/// Entries that the queue takes in at a time: some tenths of a millisecond.
const BATCH: usize = 256;

/// Tells the queue of everything in the spool as soon as that can be read. `untried`
/// is what was in `new/` before anything came in.
pub fn load_at_last(tools: &Tools, mut untried: io::Result<Vec<EntryName>>, events: &Sender<Event>) {
    let started = sys::now();
    loop {
        let loaded = match &untried {
            Ok(names) => load(tools, names, events),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        };
        let Err(e) = loaded else { return };
        ::log::error!("spool: read the queue: {e}");
        thread::sleep(RELOAD);
        if untried.is_err() {
            untried = tools.spool.names(Place::New);
            // What came in meanwhile is known, and may be on its way.
            untried.iter_mut().for_each(|names| names.retain(|name| name.id.seconds() < started));
        }
    }
}

/// Tells the queue of everything in the spool, and sweeps it.
///
/// # Errors
/// When the names in `cur/` cannot be read.
pub fn load(tools: &Tools, untried: &[EntryName], events: &Sender<Event>) -> io::Result<()> {
    let mut names = tools.spool.names(Place::Cur)?;
    names.extend(untried);
    names.sort_unstable();
    let mut loader = Loader { tools, events, plans: Vec::new(), outstanding: None, awaited: HashSet::new() };
    // It has ended only when the daemon does.
    let count = loader.tell(names).unwrap_or_default();
    if count > 0 {
        ::log::info!("{count} message{} in the spool", if count == 1 { "" } else { "s" });
    }
    if let Err(e) = tools.spool.sweep(&loader.awaited) {
        ::log::error!("spool: sweep: {e}");
    }
    Ok(())
}

struct Loader<'a> {
    tools: &'a Tools,
    events: &'a Sender<Event>,
    plans: Vec<Plan>,
    /// Hears when the queue has the last batch.
    outstanding: Option<Receiver<()>>,
    /// The reports that entries wait for.
    awaited: HashSet<QueueId>,
}

impl Loader<'_> {
    /// Tells of all that have these names, which are sorted; how many messages that
    /// are. `None` if the queue has ended.
    fn tell(&mut self, mut names: Vec<EntryName>) -> Option<usize> {
        for pair in names.windows(2).filter(|pair| pair[0].id == pair[1].id) {
            self.send(Event::Duplicates(pair[0], pair[1]))?;
        }
        names.dedup_by_key(|name| name.id);
        let count = names.len();
        self.send(Event::DuplicatesDone)?;
        names.sort_unstable_by_key(|name| Reverse((name.place, name.id)));
        while let Some(name) = names.pop() {
            self.look(name)?;
            if names.len().is_multiple_of(SHRINK) {
                names.shrink_to_fit();
            }
        }
        self.deliver()?;
        self.await_queue()?;
        Some(count)
    }

    fn look(&mut self, name: EntryName) -> Option<()> {
        // A bug in one entry must not keep the others.
        match catch_unwind(AssertUnwindSafe(|| worker::scan(self.tools, name))) {
            Ok(Scan::Deliver(plan)) => self.plans.push(plan),
            Ok(Scan::Repair(awaited)) => {
                self.awaited.extend(awaited);
                self.send(Event::Repair(name))?;
            }
            Ok(Scan::Gone) | Err(_) => {}
        }
        if self.plans.len() < BATCH { Some(()) } else { self.deliver() }
    }

    /// Sends a batch, once the queue has the one before.
    fn deliver(&mut self) -> Option<()> {
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

/// After so many the room of names that were told of is given back.
const SHRINK: usize = 1 << 16;
