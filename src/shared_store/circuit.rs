//! The connections to the store, and whether the store is asked at all.
//!
//! A question that fails, or that has no answer within [`LIMIT`], opens the circuit: from then on no
//! session asks, and none waits. A question that had to wait for a connection does not open it, as
//! long as the store answers others: then the store is only busy. One thread tries the store again, with growing pauses, and closes
//! the circuit when the store can run a script and keep a key. A store that fails again soon after
//! that does not get shorter pauses.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Standing;
use super::link::{self, Failure, Link, Read};
use super::target::Target;
use crate::dns::Dns;
use crate::endpoint::Endpoint;
use crate::shared::{Question, Seal, probe};
use crate::sys;

/// The time within which a question is answered, with the connection that it may need.
pub const LIMIT: Duration = Duration::from_millis(100);
/// The part of [`LIMIT`] that must be left after the wait for a connection.
const ENOUGH: Duration = Duration::from_millis(50);
/// The maximum number of connections of this process.
const MAX_CONNECTIONS: usize = 4;
/// The pause before the second attempt to reach a store. Each further pause is twice as long.
/// Unit tests look at a store that is away before the thread tries it again, on a busy machine, too.
const FIRST_PAUSE: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 1 });
/// The maximum pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// After this time of good answers the pauses begin anew.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// The minimum time between two warnings about questions that no connection was free for.
const WARN_PAUSE: Duration = Duration::from_secs(60);

/// The connections to the store.
#[derive(Debug)]
pub struct Circuit {
    state: Mutex<State>,
    /// Is notified when a connection becomes free, and when the standing or the target changes.
    changed: Condvar,
    dns: Arc<Dns>,
    /// The name of this host.
    host: String,
}

#[derive(Debug, Default)]
struct State {
    target: Option<Arc<Target>>,
    /// Counts the targets.
    generation: u64,
    standing: Standing,
    /// How the thread has reached the store.
    way: Option<Arc<Way>>,
    idle: Vec<Link>,
    /// The number of connections in use.
    busy: usize,
    /// The time at which the circuit was closed.
    closed_at: Option<Instant>,
    /// The time of the last answer to a question.
    answered_at: Option<Instant>,
    pause: Duration,
    /// The number of questions without an answer because all connections were in use for too long.
    unasked: u64,
    /// The time of the last warning about them.
    warned_at: Option<Instant>,
    /// Whether the thread runs that tries the store.
    is_trying: bool,
}

/// An address at which the store has answered, and the password that it took.
#[derive(Debug)]
struct Way {
    endpoint: Endpoint,
    password: Option<String>,
}

/// A connection that one question uses, and how to open another one. It is given back when it is
/// dropped, even by a panic.
struct Lease {
    circuit: Arc<Circuit>,
    /// Why there is no answer (yet).
    failure: Option<Failure>,
    /// Whether the question has waited for the connection, so that less than [`LIMIT`] was left.
    has_waited: bool,
    generation: u64,
    target: Arc<Target>,
    way: Arc<Way>,
    link: Option<Link>,
}

impl Circuit {
    /// A circuit without a target. `host` is the name of this host.
    pub fn new(dns: Arc<Dns>, host: &str) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), dns, host: host.to_owned() }
    }

    /// Replaces the store.
    pub fn aim(self: &Arc<Self>, target: Option<Arc<Target>>) {
        let mut state = self.lock();
        let (generation, is_trying) = (state.generation + 1, state.is_trying);
        let standing = if target.is_some() { Standing::Untried } else { Standing::None };
        *state = State { target, generation, standing, is_trying, pause: FIRST_PAUSE, ..State::default() };
        self.changed.notify_all();
    }

    /// Whether there is a store.
    pub fn has_target(&self) -> bool {
        self.lock().target.is_some()
    }

    /// The URL of the store, and its standing.
    pub fn standing(&self) -> (String, Standing) {
        let state = self.lock();
        (state.target.as_ref().map_or(String::new(), |target| target.url.clone()), state.standing.clone())
    }

    /// Begins to try a store that was not tried yet.
    pub fn start(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.standing == Standing::Untried {
            self.try_again(&mut state);
        }
    }

    /// Waits until the standing is as wanted, but at most this long. Returns the standing.
    pub fn wait(&self, limit: Duration, is_wanted: impl Fn(&Standing) -> bool) -> Standing {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, limit, |state| !is_wanted(&state.standing));
        waited.unwrap_or_else(PoisonError::into_inner).0.standing.clone()
    }

    /// Asks a question. Returns `None` if the store is away, or if it fails now.
    pub fn ask<T>(self: &Arc<Self>, question: &Question, read: Read<T>) -> Option<T> {
        let until = Instant::now() + LIMIT;
        let mut lease = self.lease(until)?;
        match lease.ask(question, read, until) {
            Ok(answer) => {
                lease.failure = None;
                Some(answer)
            }
            Err(failure) => {
                lease.failure = Some(failure);
                None
            }
        }
    }

    /// The seal of the store that is asked.
    pub fn seal(&self) -> Option<Arc<Seal>> {
        let secrets = self.lock().target.as_ref()?.secrets.clone()?;
        secrets.seal()
    }

    /// The number of questions that no connection was free for in time.
    pub fn unasked(&self) -> u64 {
        self.lock().unasked
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a connection that is free, or for room for another one, as long as [`ENOUGH`] is
    /// left until the end.
    fn lease(self: &Arc<Self>, until: Instant) -> Option<Lease> {
        let (mut state, mut has_waited) = (self.lock(), false);
        loop {
            match state.standing {
                Standing::None => return None,
                Standing::Away { .. } => {
                    self.try_again(&mut state);
                    return None;
                }
                Standing::Untried => self.try_again(&mut state),
                Standing::Up { .. } if state.busy < MAX_CONNECTIONS => {
                    let (target, way) = (state.target.clone()?, state.way.clone()?);
                    state.busy += 1;
                    let (generation, link) = (state.generation, state.idle.pop());
                    let (circuit, failure) = (Arc::clone(self), Some(Failure::new("a question was broken off")));
                    return Some(Lease { circuit, failure, has_waited, generation, target, way, link });
                }
                Standing::Up { .. } => {}
            }
            let left = until.saturating_duration_since(Instant::now() + ENOUGH);
            if left.is_zero() {
                state.count_unasked();
                return None;
            }
            has_waited = true;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn give_back(self: &Arc<Self>, lease: &mut Lease) {
        let mut state = self.lock();
        if state.generation != lease.generation {
            return;
        }
        state.busy = state.busy.saturating_sub(1);
        // Another question may have opened the circuit before.
        let is_up = matches!(state.standing, Standing::Up { .. });
        match &lease.failure {
            None => {
                state.answered_at = Some(Instant::now());
                state.idle.extend(lease.link.take().filter(|_| is_up));
            }
            Some(failure) if is_up && failure.is_late && lease.has_waited && state.is_answering() => {
                state.count_unasked();
            }
            Some(failure) if is_up => {
                if state.closed_at.is_some_and(|closed_at| closed_at.elapsed() >= GOOD_FOR) {
                    state.pause = FIRST_PAUSE;
                }
                state.open(&failure.why);
                self.try_again(&mut state);
            }
            Some(_) => {}
        }
        self.changed.notify_all();
    }

    /// Starts the thread that tries the store, unless it runs already.
    fn try_again(self: &Arc<Self>, state: &mut State) {
        if state.is_trying {
            return;
        }
        let shared = Arc::clone(self);
        match std::thread::Builder::new().name("shared-store".into()).spawn(move || shared.work()) {
            Ok(_) => state.is_trying = true,
            // A later question tries again.
            Err(error) => ::log::debug!("shared store: no thread: {error}"),
        }
    }

    /// Tries the store until it answers.
    fn work(&self) {
        /// Notes the end of the thread, even if it panics.
        struct Running<'a>(&'a Circuit, bool);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                if !self.1 {
                    self.0.lock().is_trying = false;
                }
            }
        }
        let mut running = Running(self, false);
        let mut number = 0_u32;
        loop {
            let (generation, target) = {
                let mut state = self.rest(self.lock());
                // Under the same lock, so that no other thread is started before this one counts as ended.
                if state.target.is_none() {
                    state.is_trying = false;
                    running.1 = true;
                    return;
                }
                (state.generation, state.target.clone())
            };
            let Some(target) = target else { return };
            number = number.wrapping_add(1);
            let result = self.reach(&target, number);
            let mut state = self.lock();
            if state.generation != generation {
                continue;
            }
            match result {
                Ok((way, link)) => {
                    state.close(way, link);
                    state.is_trying = false;
                    running.1 = true;
                    self.changed.notify_all();
                    return;
                }
                Err(why) => state.open(&why),
            }
            self.changed.notify_all();
        }
    }

    /// Waits for the pause if the store is away, unless there is another store meanwhile.
    fn rest<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if !matches!(state.standing, Standing::Away { .. }) {
            return state;
        }
        let (generation, pause) = (state.generation, state.pause);
        state.pause = (pause * 2).min(MAX_PAUSE);
        let waited = self.changed.wait_timeout_while(state, pause, |state| state.generation == generation);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Connects to the first address that accepts the connection, and has a script run there.
    fn reach(&self, target: &Target, number: u32) -> Result<(Way, Link), String> {
        let password = target.secrets.as_ref().and_then(|secrets| secrets.password());
        let mut last = "it has no address".to_owned();
        for endpoint in target.endpoints(&self.dns)? {
            let until = Instant::now() + LIMIT;
            let answer = Link::open(&endpoint, target, password.as_deref(), until)
                .and_then(|mut link| Ok((link.ask(&probe(&self.host, number), link::numbers, until)?, link)));
            match answer {
                Ok((answer, link)) if answer.first() == Some(&number.into()) => {
                    return Ok((Way { endpoint, password }, link));
                }
                Ok(_) => "it does not keep what is written".clone_into(&mut last),
                Err(failure) => last = failure.why,
            }
        }
        Err(last)
    }
}

impl State {
    /// Whether the store has answered a question within the limit.
    fn is_answering(&self) -> bool {
        self.answered_at.is_some_and(|at| at.elapsed() < LIMIT)
    }

    /// Counts a question that had no connection in time, and warns if the store answers others.
    fn count_unasked(&mut self) {
        if !matches!(self.standing, Standing::Up { .. }) {
            return;
        }
        self.unasked += 1;
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_PAUSE) {
            self.warned_at = Some(Instant::now());
            let (url, number) = (self.target.as_ref().map_or("", |target| &target.url), self.unasked);
            ::log::warn!(
                "shared store {url}: all {MAX_CONNECTIONS} connections were in use for too long; \
                 this host has counted {number} times alone"
            );
        }
    }

    /// Opens the circuit.
    fn open(&mut self, why: &str) {
        let since = match self.standing {
            Standing::Away { since, .. } => since,
            _ => {
                let url = self.target.as_ref().map_or("", |target| &target.url);
                ::log::warn!("shared store {url}: {why}; this host counts alone until the store answers");
                sys::now()
            }
        };
        self.standing = Standing::Away { since, why: why.to_owned() };
        self.way = None;
        self.idle.clear();
    }

    /// Closes the circuit.
    fn close(&mut self, way: Way, link: Link) {
        let url = self.target.as_ref().map_or("", |target| &target.url);
        let now = sys::now();
        match self.standing {
            Standing::Away { since, .. } => {
                let away = now.saturating_sub(since);
                ::log::info!("shared store {url}: answers again after {away} seconds; counts are shared");
            }
            _ => ::log::info!("shared store {url}: answers; counts are shared"),
        }
        self.standing = Standing::Up { since: now };
        (self.way, self.closed_at) = (Some(Arc::new(way)), Some(Instant::now()));
        self.idle.push(link);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let circuit = Arc::clone(&self.circuit);
        circuit.give_back(self);
    }
}

impl Lease {
    /// Asks over the connection, or over a new one if there is none or the store has closed it.
    fn ask<T>(&mut self, question: &Question, read: Read<T>, until: Instant) -> Result<T, Failure> {
        if let Some(link) = &mut self.link
            && !link.is_stale()
        {
            match link.ask(question, read, until) {
                Err(failure) if failure.is_stale => {}
                result => return result,
            }
        }
        // A question whose answer was lost is counted twice: that makes a limit stricter.
        let Self { target, way, link, .. } = self;
        let new = link.insert(Link::open(&way.endpoint, target, way.password.as_deref(), until)?);
        new.ask(question, read, until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, StoreUrl};

    fn circuit_up() -> Arc<Circuit> {
        let dns = config::Dns { nameservers: Vec::new(), timeout: LIMIT, trust_ad: None };
        let circuit = Arc::new(Circuit::new(Arc::new(Dns::new(&dns)), "host.example"));
        let url = StoreUrl::parse("unix:/nonexistent/redis.sock").expect("a URL");
        circuit.aim(Some(Arc::new(Target::new(&url, &crate::tls::Client::default(), None))));
        let endpoint = Endpoint::Unix(std::path::Path::new("/nonexistent/redis.sock").into());
        let mut state = circuit.lock();
        state.standing = Standing::Up { since: 0 };
        state.way = Some(Arc::new(Way { endpoint, password: None }));
        drop(state);
        circuit
    }

    #[test]
    fn a_question_that_panics_gives_its_connection_back() {
        let circuit = circuit_up();
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _lease = circuit.lease(Instant::now() + LIMIT).expect("a connection");
            panic!("on purpose");
        }));
        assert!(panic.is_err());
        assert_eq!(circuit.lock().busy, 0);
        assert!(matches!(circuit.standing().1, Standing::Away { .. }));
    }

    #[test]
    fn questions_without_a_connection_are_counted_and_warned_of_once() {
        let circuit = circuit_up();
        let leases: Vec<_> = (0..MAX_CONNECTIONS).map(|_| circuit.lease(Instant::now()).expect("free")).collect();
        assert!(circuit.lease(Instant::now()).is_none());
        let warned_at = circuit.lock().warned_at;
        assert!(warned_at.is_some());
        assert!(circuit.lease(Instant::now() + Duration::from_millis(1)).is_none());
        assert_eq!((circuit.unasked(), circuit.lock().warned_at), (2, warned_at));
        leases.into_iter().for_each(|mut lease| lease.failure = None);
        assert!(circuit.lease(Instant::now()).is_some());
    }

    #[test]
    fn a_question_waits_for_a_connection_only_while_enough_time_is_left() {
        let circuit = circuit_up();
        let leases: Vec<_> = (0..MAX_CONNECTIONS).map(|_| circuit.lease(Instant::now()).expect("free")).collect();
        let gives_up_at_once = || {
            let until = Instant::now() + ENOUGH;
            circuit.lease(until).is_none() && Instant::now() < until
        };
        // On a busy machine anything may take long.
        assert!((0..10).any(|_| gives_up_at_once()));
        drop(leases);
    }

    /// The time was over soon after the connection was free.
    #[test]
    fn a_question_that_has_waited_does_not_open_the_circuit_while_others_are_answered() {
        let late = || Failure { is_late: true, ..Failure::new("no answer in time") };
        for (has_waited, failure, answered_at, is_up) in [
            (true, late(), Some(Instant::now() + LIMIT), true),
            (true, late(), Instant::now().checked_sub(LIMIT), false),
            (true, late(), None, false),
            (false, late(), Some(Instant::now()), false),
            (true, Failure::new("an error"), Some(Instant::now()), false),
        ] {
            let circuit = circuit_up();
            circuit.lock().answered_at = answered_at;
            let mut lease = circuit.lease(Instant::now() + LIMIT).expect("a connection");
            (lease.has_waited, lease.failure) = (has_waited, Some(failure));
            drop(lease);
            assert_eq!(matches!(circuit.standing().1, Standing::Up { .. }), is_up);
            assert_eq!((circuit.unasked(), circuit.lock().busy), (u64::from(is_up), 0));
        }
    }
}
