//! Collects the present state: the queue, the workers, the connections, the certificates.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use nix::sys::statvfs::statvfs;

use crate::listen::Server;
use crate::queue::Event;
use crate::shared_store::Standing;
use crate::site::Site;
use crate::spool::{Place, Spool};
use crate::stats::{self, Census, Gauges, SharedState, age_column};
use crate::sys;

/// How long the queue may take for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A count of the messages in `hold/` is used again for this many times its duration.
const REUSE: u32 = 100;

/// The states of destinations, in the order in which they are shown.
const STATES: [&str; 4] = ["new", "up", "slow", "down"];

/// Returns the present state.
pub fn gauges(site: &Arc<Site>, server: &Server, events: &Sender<Event>) -> Gauges {
    let settings = site.settings();
    let ask = || {
        let ((counts, census), (statuses, hosts)) = (bounded(1), bounded(1));
        events.send(Event::Census(counts)).ok()?;
        events.send(Event::Hosts(None, statuses)).ok()?;
        Some((census.recv_timeout(ANSWER_TIMEOUT).ok(), hosts.recv_timeout(ANSWER_TIMEOUT).ok()))
    };
    let (queue, hosts) = ask().unwrap_or_default();
    let hosts = hosts.unwrap_or_default();
    let count = |state| hosts.iter().filter(|status| status.state == state).count();
    let certificates = settings.tls.server.as_ref().map(|server| server.certificates()).unwrap_or_default();
    Gauges {
        started: stats::started().unwrap_or_default(),
        is_scanned: site.is_scanned.load(Ordering::Acquire),
        queue,
        workers: settings.config.queue.workers,
        connections: (server.connection_count(), settings.config.limits.connections),
        destinations: STATES.map(|state| (state, count(state))).to_vec(),
        certificates,
        shared: shared(site),
        ..spool_gauges(&site.spool, false)
    }
}

/// Returns the state of the shared store; `None` if there is none.
fn shared(site: &Site) -> Option<SharedState> {
    let (store, standing) = site.shared.standing();
    let (since, why_away) = match standing {
        Standing::None => return None,
        Standing::Up { since } => (since, None),
        Standing::Away { since, why } => (since, Some(why)),
        Standing::Untried => (sys::now(), Some("it was not asked yet".to_owned())),
    };
    Some(SharedState { store, why_away, since, unasked: site.shared.unasked() })
}

/// Returns what can be read from the spool without a daemon. If `has_queue`, that includes the
/// numbers of the messages in the queue, which follow from their names.
pub fn spool_gauges(spool: &Spool, has_queue: bool) -> Gauges {
    let system = statvfs(&spool.state_directory()).ok();
    let octets = |blocks: u64, size: u64| blocks.saturating_mul(size);
    Gauges {
        version: env!("CARGO_PKG_VERSION"),
        now: sys::now(),
        queue: if has_queue { census(spool) } else { None },
        held: held(spool),
        disk: system.map(|s| (octets(s.blocks_available(), s.fragment_size()), octets(s.blocks(), s.fragment_size()))),
        inodes: system.map(|s| (s.files_available(), s.files())),
        ..Gauges::default()
    }
}

/// Counts the messages in the queue by their names alone, so that nothing is known about jobs.
fn census(spool: &Spool) -> Option<Census> {
    let (now, mut census) = (sys::now(), Census::default());
    for place in [Place::New, Place::Cur] {
        for name in spool.entries_in(place).ok()? {
            let age = now.saturating_sub(name.id.seconds());
            census.messages += 1;
            census.octets = census.octets.saturating_add(name.size);
            census.oldest = census.oldest.max(age);
            if let Some(count) = census.ages.get_mut(age_column(age)) {
                *count += 1;
            }
        }
    }
    Some(census)
}

/// Counts the messages in `hold/`. A count that has taken long is used again for some time.
fn held(spool: &Spool) -> Option<usize> {
    static LAST: Mutex<Option<(Instant, Duration, usize)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, _, count)) = last.filter(|(at, cost, _)| at.elapsed() < *cost * REUSE) {
        return Some(count);
    }
    let began = Instant::now();
    let count = spool.entries_in(Place::Hold).ok()?.len();
    *last = Some((Instant::now(), began.elapsed(), count));
    Some(count)
}
