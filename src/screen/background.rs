//! Runs blocking look-ups for a session, each on a thread of its own. So the session waits for the
//! slowest look-up, and not for one after another.
//!
//! The number of these threads is limited, because a name server that does not answer keeps them
//! busy for seconds, even if the client has left or has begun another message. So a session and a
//! client network have limits of their own. A look-up for which no thread was left can be begun
//! later. If that does not happen, the session itself makes the look-up when the result is needed,
//! so that nobody can have the mail of others refused by keeping all threads busy.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// How long a session waits for a look-up after its deadline. Look-ups end at the deadline by
/// themselves, but may be a little late.
const GRACE: Duration = Duration::from_millis(300);
/// The size of a thread's stack, in bytes.
const STACK: usize = 512 << 10;
/// The maximum number of look-up threads of all sessions together.
pub const MAX_THREADS: usize = 1000;
/// The maximum number of look-up threads for the clients of one network; see [`network`].
const MAX_OF_NETWORK: usize = MAX_THREADS / 4;
/// The maximum number of look-up threads of one session.
pub const MAX_OF_SESSION: usize = 4;

/// The look-up threads that are running now.
static RUNNING: Mutex<Running> = Mutex::new(Running { all: 0, networks: BTreeMap::new() });

struct Running {
    all: usize,
    /// The number of threads for the clients of each network, if there are any.
    networks: BTreeMap<IpAddr, usize>,
}

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the network of a client: the first 24 bits of an IPv4 address, or the first 48 bits of
/// an IPv6 address, with all other bits zero. One customer of a provider often has 48 bits.
fn network(client: IpAddr) -> IpAddr {
    match super::network(client) {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80))),
        address => address,
    }
}

/// The number of look-up threads of one session. A thread counts until it ends, even if nobody
/// waits for its result any more.
#[derive(Debug, Clone, Default)]
pub struct Threads(Arc<AtomicUsize>);

/// The right to run a thread. It is given back when the value is dropped.
struct Slot {
    network: IpAddr,
    session: Threads,
}

impl Slot {
    fn take(session: &Threads, client: IpAddr) -> Option<Self> {
        let network = network(client);
        let mut running = running();
        let of_network = running.networks.get(&network).copied().unwrap_or(0);
        let of_session = session.0.load(Ordering::Relaxed);
        if running.all >= MAX_THREADS || of_network >= MAX_OF_NETWORK || of_session >= MAX_OF_SESSION {
            return None;
        }
        running.all += 1;
        running.networks.insert(network, of_network + 1);
        session.0.fetch_add(1, Ordering::Relaxed);
        Some(Self { network, session: session.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut running = running();
        running.all -= 1;
        self.session.0.fetch_sub(1, Ordering::Relaxed);
        if let Some(count) = running.networks.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                running.networks.remove(&self.network);
            }
        }
    }
}

/// A look-up under way, or its result.
pub struct Background<T> {
    session: Threads,
    client: IpAddr,
    until: Instant,
    state: State<T>,
}

enum State<T> {
    /// A thread makes the look-up.
    Running(Receiver<T>),
    /// The look-up was not begun, because no thread was left.
    Waiting(Arc<dyn Fn(Instant) -> T + Send + Sync>),
    Known(Option<T>),
}

impl<T: Send + 'static> Background<T> {
    /// Begins a look-up for a client, if a thread is left for the session and for the client's
    /// network. `work` is called with the time at which it must end.
    pub fn begin<F>(session: &Threads, client: IpAddr, until: Instant, work: F) -> Self
    where
        F: Fn(Instant) -> T + Send + Sync + 'static,
    {
        let mut new = Self { session: session.clone(), client, until, state: State::Waiting(Arc::new(work)) };
        new.begin_late(until);
        new
    }

    /// Begins the look-up if no thread was left for it before. If there is still none, the look-up
    /// can only be made by [`Background::wait`], which then has to end by `until`, too.
    pub fn begin_late(&mut self, until: Instant) {
        let State::Waiting(work) = &self.state else { return };
        self.until = until;
        let Some(slot) = Slot::take(&self.session, self.client) else { return };
        let (sender, answer) = sync_channel(1);
        let work = Arc::clone(work);
        let thread = Builder::new().name("lookup".into()).stack_size(STACK);
        let started = thread.spawn(move || {
            let _slot = slot;
            // If the session has ended meanwhile, nobody receives the result.
            drop(sender.send(work(until)));
        });
        if started.is_ok() {
            self.state = State::Running(answer);
        }
    }

    /// Returns whether this look-up is of no use for a later message, which then needs a new one.
    /// This is so if the look-up was not begun, if [`Background::wait`] has found no result, or if
    /// `is_bad` returns true for the result.
    pub fn is_failed(&self, is_bad: impl FnOnce(&T) -> bool) -> bool {
        match &self.state {
            State::Known(result) => result.as_ref().is_none_or(is_bad),
            State::Running(_) => false,
            State::Waiting(_) => true,
        }
    }

    /// Waits for the result, or makes the look-up if it was not begun. Returns `None` if the
    /// look-up has not ended in time, or has panicked.
    pub fn wait(&mut self) -> Option<&T> {
        let result = match std::mem::replace(&mut self.state, State::Known(None)) {
            State::Running(answer) => {
                answer.recv_timeout((self.until + GRACE).saturating_duration_since(Instant::now())).ok()
            }
            State::Waiting(work) => Some(work(self.until)),
            State::Known(result) => result,
        };
        self.state = State::Known(result);
        match &self.state {
            State::Known(result) => result.as_ref(),
            _ => None,
        }
    }
}

impl<T> std::fmt::Debug for Background<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.state {
            State::Running(_) => "running",
            State::Waiting(_) => "waiting",
            State::Known(_) => "known",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lock for the tests that count threads, so that no two of them run at the same time.
    static ALONE: Mutex<()> = Mutex::new(());

    fn client(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    /// Waits until all threads have ended, which they do a little after their results are known.
    fn all_end() {
        while running().all > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes a slot for each client, in a new session each time. Returns the slots that were
    /// granted.
    fn take(clients: impl Iterator<Item = String>) -> Vec<Slot> {
        clients.filter_map(|text| Slot::take(&Threads::default(), client(&text))).collect()
    }

    #[test]
    fn a_look_up_beyond_the_limit_is_begun_later_or_made_when_it_is_needed() {
        let _alone = ALONE.lock();
        let until = Instant::now();
        let slots = take((0..1100).map(|number| format!("10.0.{}.1", number / 100)));
        assert_eq!(slots.len(), MAX_THREADS);
        let session = Threads::default();
        let begin = || Background::begin(&session, client("192.0.2.1"), until, |until| until);
        let (mut later, mut beyond) = (begin(), begin());
        let new = until + Duration::from_secs(5);
        beyond.begin_late(new);
        assert_eq!(format!("{beyond:?} {later:?}"), "waiting waiting");
        assert!(later.is_failed(|_| false));
        assert_eq!(beyond.wait(), Some(&new), "the new deadline applies without a thread, too");
        drop(slots);
        later.begin_late(new);
        assert_eq!(format!("{later:?}"), "running");
        assert!(!later.is_failed(|_| false));
        assert_eq!(later.wait(), Some(&new));
        all_end();
        assert_eq!(take((0..1100).map(|number| format!("10.0.{}.1", number / 100))).len(), MAX_THREADS);
    }

    #[test]
    fn a_session_and_a_network_have_limits_of_their_own() {
        let _alone = ALONE.lock();
        let session = Threads::default();
        let until = Instant::now() + Duration::from_secs(5);
        let (end, ended) = sync_channel::<()>(0);
        let ended = Mutex::new(ended);
        let work = Arc::new(move |_| ended.lock().expect("a lock").recv().is_ok());
        let begin = || {
            let work = Arc::clone(&work);
            Background::begin(&session, client("192.0.2.1"), until, move |until| work(until))
        };
        let dropped = (0..100).filter(|_| format!("{:?}", begin()) == "running").count();
        assert_eq!(dropped, MAX_OF_SESSION, "threads count until they end, and not until nobody waits");
        let slots = take((0..300).map(|number| format!("192.0.2.{}", number % 256)));
        assert_eq!(slots.len(), MAX_OF_NETWORK - MAX_OF_SESSION);
        let slots6 = take((0..300).map(|number| format!("2001:db8:0:{number}::1")));
        assert_eq!(slots6.len(), MAX_OF_NETWORK);
        assert_eq!(take(["192.0.3.1", "2001:db8:1::1"].map(str::to_owned).into_iter()).len(), 2);
        drop((slots, slots6, end));
        let begun = Instant::now();
        while session.0.load(Ordering::Relaxed) > 0 || running().all > 0 {
            assert!(begun.elapsed() < Duration::from_secs(5), "the places are free again");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(running().networks.is_empty());
    }

    #[test]
    fn look_ups_run_side_by_side_and_end_in_time() {
        let _alone = ALONE.lock();
        let begun = Instant::now();
        let until = begun + Duration::from_millis(700);
        let late = |milliseconds| move |_| std::thread::sleep(Duration::from_millis(milliseconds));
        let session = Threads::default();
        let begin = |time| Background::begin(&session, client("192.0.2.1"), until, late(time));
        let mut all = [400, 500, 3000].map(begin);
        let ended = all.each_mut().map(|one| one.wait().is_some());
        assert_eq!(ended, [true, true, false]);
        assert!(begun.elapsed() < Duration::from_millis(2000), "{:?}", begun.elapsed());
        assert_eq!(all.each_mut().map(|one| one.wait().is_some()), ended, "the results are kept");
        all_end();
    }
}
