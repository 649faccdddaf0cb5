//! The workers' threads, which start when jobs need them and end after a minute without a job.
//!
//! The number of a worker is its place among all that the configuration allows. If the system
//! allows no more threads, the queue goes on with half of the workers that have one, because
//! sessions need threads, too, and tries to start more a minute later.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::event::{Job, OpenConnection};
use crate::destination::Destination;
use crate::endpoint::Endpoint;

/// The number of workers that start with the queue, and whose threads do not end.
const MIN_THREADS: usize = 4;
/// How long a worker without a job keeps its thread.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the queue starts no thread after the system has refused one.
const SHORTAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts the thread of the worker with this number, and returns the channel of its jobs. The thread
/// ends when the channel is closed.
type StartWorker = dyn Fn(usize) -> io::Result<Sender<Job>> + Send;

/// All workers of the queue.
pub struct Workers {
    start: Box<StartWorker>,
    /// Every worker, by its number.
    all: Vec<Worker>,
    /// The number of workers that have a thread.
    threads: usize,
    /// The workers that have a thread and no job. The one that has been idle for longest is first.
    idle: Vec<IdleWorker>,
    /// How many workers may have jobs until when, after the system has refused a thread.
    shortage: Option<(usize, Instant)>,
}

#[derive(Default)]
struct Worker {
    /// The channel of its jobs; `None` while it has no thread.
    jobs: Option<Sender<Job>>,
    /// How many jobs it has started in a row over its open connection.
    streak: usize,
}

/// A worker without a job.
struct IdleWorker {
    number: usize,
    connection: Option<OpenConnection>,
    since: Instant,
}

impl Workers {
    /// Returns `max` workers, of which the first [`MIN_THREADS`] have a thread.
    ///
    /// # Errors
    /// If the system refuses one of these threads.
    pub fn new(max: usize, start: Box<StartWorker>) -> io::Result<Self> {
        let all: Vec<_> = (0..max).map(|_| Worker::default()).collect();
        let mut workers = Self { start, all, threads: 0, idle: Vec::with_capacity(max), shortage: None };
        while workers.threads < max.min(MIN_THREADS) {
            workers.start_next(Instant::now())?;
        }
        Ok(workers)
    }

    /// Returns no workers.
    #[cfg(test)]
    pub fn none() -> Self {
        Self::new(0, Box::new(|_| Err(io::ErrorKind::Other.into()))).expect("no thread is started")
    }

    /// Returns how many workers may have jobs.
    pub fn max(&self) -> usize {
        self.shortage.map_or(self.all.len(), |(max, _)| max)
    }

    /// Starts the thread of one more worker.
    fn start_next(&mut self, now: Instant) -> io::Result<()> {
        let Some(number) = self.all.iter().position(|worker| worker.jobs.is_none()) else { return Ok(()) };
        self.all[number] = Worker { jobs: Some((self.start)(number)?), streak: 0 };
        self.threads += 1;
        self.idle.push(IdleWorker { number, connection: None, since: now });
        Ok(())
    }

    /// Starts the thread of one more worker, unless all have one or the system has no more threads.
    fn try_start(&mut self, now: Instant) {
        if self.threads >= self.max() {
            return;
        }
        if let Err(e) = self.start_next(now) {
            let (max, count) = ((self.threads / 2).max(MIN_THREADS).min(self.threads), self.all.len());
            self.shortage = Some((max, now + SHORTAGE_TIMEOUT));
            ::log::warn!("queue.workers: cannot start more threads ({e}): using {max} of {count} workers");
        }
    }

    /// Returns whether a worker is free for a job, after starting its thread if necessary.
    pub fn make_one_free(&mut self, now: Instant) -> bool {
        if self.idle.is_empty() {
            self.try_start(now);
        }
        !self.idle.is_empty() && self.threads - self.idle.len() < self.max()
    }

    /// Takes a free worker for a job, and returns its number. A worker with a connection to the
    /// destination is the first choice, and a worker with a connection to `address`, the last
    /// address of the destination, is the second. Otherwise a worker without a connection is taken,
    /// so that open connections last. Returns `None` if no worker is free: see
    /// [`Self::make_one_free`].
    pub fn choose(
        &mut self,
        destination: &Arc<Destination>,
        address: Option<&Endpoint>,
        now: Instant,
    ) -> Option<usize> {
        let connections = || self.idle.iter().map(|worker| worker.connection.as_ref());
        let to_destination = connections().position(|c| c.is_some_and(|c| c.destination == *destination));
        let to_address = || connections().position(|c| c.is_some_and(|c| Some(&c.address) == address));
        let without = || connections().rposition(|c| c.is_none());
        let index = to_destination.or_else(to_address).or_else(without).or_else(|| {
            self.try_start(now);
            let last = self.idle.last()?;
            Some(if last.connection.is_none() { self.idle.len() - 1 } else { 0 })
        })?;
        Some(self.idle.remove(index).number)
    }

    /// Gives a job to a worker that [`Self::choose`] has returned, or that has just ended a job.
    pub fn send(&self, number: usize, job: Job) {
        // Sending cannot fail, because a thread lives as long as its channel.
        let jobs = self.all.get(number).and_then(|worker| worker.jobs.as_ref());
        jobs.map(|jobs| jobs.send(job));
    }

    /// Notes that a worker has ended its job, and has this connection open.
    pub fn rest(&mut self, number: usize, connection: Option<OpenConnection>, now: Instant) {
        self.set_streak(number, 0);
        self.idle.push(IdleWorker { number, connection, since: now });
    }

    /// How many jobs a worker has started in a row over its open connection.
    pub fn streak(&self, number: usize) -> usize {
        self.all.get(number).map_or(0, |worker| worker.streak)
    }

    /// Sets the number that [`Self::streak`] returns.
    pub fn set_streak(&mut self, number: usize, streak: usize) {
        if let Some(worker) = self.all.get_mut(number) {
            worker.streak = streak;
        }
    }

    /// Returns when [`Self::note_time`] has something to do, if nothing happens before.
    pub fn next_note(&self, now: Instant) -> Option<Duration> {
        let oldest = self.idle.first().filter(|_| self.threads > MIN_THREADS);
        let times = oldest.map(|worker| worker.since + IDLE_TIMEOUT).into_iter().chain(self.shortage.map(|s| s.1));
        times.min().map(|time| time.saturating_duration_since(now))
    }

    /// Ends the threads of workers that have been idle for long, or that are too many during a
    /// shortage. Ends the shortage after its time.
    pub fn note_time(&mut self, now: Instant) {
        self.shortage = self.shortage.filter(|&(_, end)| now < end);
        while let Some(oldest) = self.idle.first() {
            let is_old = self.threads > MIN_THREADS && now >= oldest.since + IDLE_TIMEOUT;
            if !is_old && self.threads <= self.max() {
                return;
            }
            self.all[oldest.number].jobs = None;
            self.threads -= 1;
            self.idle.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, TryRecvError, bounded};
    use std::sync::Mutex;

    /// Workers without threads. The system allows only some at a time.
    struct Stage {
        /// The ends of the channels that a thread would have.
        started: Mutex<Vec<(usize, Receiver<Job>)>>,
        allowed: Mutex<usize>,
    }

    impl Stage {
        fn new(allowed: usize) -> Arc<Self> {
            Arc::new(Self { started: Mutex::default(), allowed: Mutex::new(allowed) })
        }

        fn workers(self: &Arc<Self>, max: usize) -> io::Result<Workers> {
            let stage = Arc::clone(self);
            Workers::new(max, Box::new(move |number| stage.start(number)))
        }

        fn start(&self, number: usize) -> io::Result<Sender<Job>> {
            if self.running().len() >= *self.allowed.lock().expect("no panic") {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let (sender, receiver) = bounded(1);
            self.started.lock().expect("no panic").push((number, receiver));
            Ok(sender)
        }

        /// The numbers of the workers whose threads would be running.
        fn running(&self) -> Vec<usize> {
            let mut started = self.started.lock().expect("no panic");
            started.retain(|(_, jobs)| matches!(jobs.try_recv(), Err(TryRecvError::Empty)));
            let mut numbers: Vec<_> = started.iter().map(|(number, _)| *number).collect();
            numbers.sort_unstable();
            numbers
        }
    }

    fn local() -> Arc<Destination> {
        Arc::new(Destination::Local)
    }

    /// Takes up to `count` workers.
    fn take(workers: &mut Workers, count: usize, now: Instant) -> Vec<usize> {
        let next = |_| if workers.make_one_free(now) { workers.choose(&local(), None, now) } else { None };
        (0..count).map_while(next).collect()
    }

    #[test]
    fn threads_start_with_jobs_and_end_a_minute_after_the_last() {
        let (stage, now) = (Stage::new(1000), Instant::now());
        let mut workers = stage.workers(200).expect("threads");
        assert_eq!((stage.running().len(), workers.next_note(now)), (4, None));
        let busy = take(&mut workers, 1000, now);
        assert_eq!((busy.len(), stage.running().len(), workers.make_one_free(now)), (200, 200, false));
        // Half of them go on, and the others end.
        busy.iter().filter(|number| *number % 2 == 0).for_each(|number| workers.rest(*number, None, now));
        assert_eq!(workers.next_note(now), Some(IDLE_TIMEOUT));
        workers.note_time(now + IDLE_TIMEOUT - Duration::from_millis(1));
        assert_eq!(stage.running().len(), 200);
        let later = now + IDLE_TIMEOUT;
        workers.note_time(later);
        assert_eq!(stage.running(), (0..100).map(|half| 2 * half + 1).collect::<Vec<_>>());
        // The numbers are used again.
        assert_eq!((take(&mut workers, 1, later), stage.running().len()), (vec![0], 101));
        workers.rest(0, None, later);
        busy.iter().filter(|number| *number % 2 == 1).for_each(|number| workers.rest(*number, None, later));
        workers.note_time(later + IDLE_TIMEOUT);
        assert_eq!((stage.running().len(), workers.next_note(later)), (4, None));
        assert_eq!(take(&mut workers, 4, later).len(), 4);
    }

    #[test]
    fn the_worker_that_was_last_busy_comes_first_so_that_few_are_kept() {
        let (stage, now) = (Stage::new(1000), Instant::now());
        let mut workers = stage.workers(200).expect("threads");
        let busy = take(&mut workers, 10, now);
        busy.iter().for_each(|number| workers.rest(*number, None, now));
        for second in 0..=60 {
            let then = now + Duration::from_secs(second);
            assert_eq!(take(&mut workers, 1, then), [busy[9]]);
            workers.rest(busy[9], None, then);
            workers.note_time(then);
        }
        assert_eq!(stage.running().len(), 4);
    }

    #[test]
    fn without_more_threads_half_of_the_workers_go_on_and_more_start_later() {
        let (stage, now) = (Stage::new(20), Instant::now());
        let mut workers = stage.workers(200).expect("threads");
        let busy = take(&mut workers, 200, now);
        assert_eq!((busy.len(), workers.max()), (20, 10));
        // The workers beyond this half get no more jobs, and end.
        for (index, number) in busy.iter().enumerate() {
            workers.rest(*number, None, now);
            workers.note_time(now);
            assert_eq!(stage.running().len(), (20 - index - 1).max(10));
        }
        *stage.allowed.lock().expect("no panic") = 1000;
        let busy = take(&mut workers, 200, now);
        assert_eq!((busy.len(), workers.next_note(now)), (10, Some(SHORTAGE_TIMEOUT)));
        workers.note_time(now + SHORTAGE_TIMEOUT);
        assert_eq!(workers.max(), 200);
        assert_eq!(take(&mut workers, 1000, now + SHORTAGE_TIMEOUT).len(), 190);
    }

    #[test]
    fn without_the_first_threads_there_is_an_error() {
        for (allowed, max, is_fit) in [(0, 1, false), (3, 200, false), (4, 200, true), (1, 1, true), (0, 0, true)] {
            assert_eq!(Stage::new(allowed).workers(max).is_ok(), is_fit, "{allowed} of {max}");
        }
        let (stage, now) = (Stage::new(4), Instant::now());
        let mut workers = stage.workers(200).expect("threads");
        assert_eq!((take(&mut workers, 200, now).len(), workers.max()), (4, 4));
    }
}
