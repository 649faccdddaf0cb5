//! Orders the ready jobs of one destination: by priority, and so that senders take turns.
//!
//! Ten thousand messages of one sender delay another sender's single message of the same priority
//! by at most one turn. A sender is identified by a number. Two senders with the same number share
//! their turns. While a destination has mail from only one sender, its jobs are in a plain list,
//! which saves memory.
//!
//! A job of a higher priority (MT-PRIORITY, RFC 6710) comes first. But after [`MAX_AHEAD`] jobs
//! that were preferred to others, a job of a lower priority has the turn. If jobs of priority 0
//! wait for such a turn, they have every second one; the other lower priorities share the rest. So
//! no job waits forever, and however many priorities there are, ordinary mail has its share.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use super::turns::JobRef;

/// The maximum number of jobs in a row that are preferred to jobs of a lower priority.
pub const MAX_AHEAD: u8 = 3;

/// The ready jobs of one destination.
#[derive(Default)]
pub struct Ready {
    /// The jobs of priority 0, which nearly all messages have.
    ordinary: Lane,
    /// The jobs of all other priorities, and the turns of all priorities; `None` if there are no
    /// such jobs.
    others: Option<Box<Others>>,
}

/// The ready jobs whose priority is not 0.
#[derive(Default)]
struct Others {
    /// The jobs of each priority. No list is empty.
    lanes: BTreeMap<i8, Lane>,
    /// The number of jobs that were preferred since a job of a lower priority had the turn.
    ahead: u8,
    /// Whether priority 0 had the last such turn.
    was_ordinary: bool,
    /// The last lower priority except 0 that had such a turn; `None` before the first one.
    last_low: Option<i8>,
}

/// The ready jobs of one priority.
#[derive(Default)]
enum Lane {
    /// No job is ready.
    #[default]
    Empty,
    /// Jobs of the sender with this number.
    Plain(u32, VecDeque<JobRef>),
    /// Jobs of several senders.
    Fair(Box<Fair>),
}

/// Jobs of several senders, which take turns.
#[derive(Default)]
struct Fair {
    senders: HashMap<u32, VecDeque<JobRef>>,
    count: usize,
    /// The senders that have jobs, each once, in the order of their turns.
    turns: VecDeque<u32>,
}

impl Ready {
    /// Returns whether there is no job.
    pub fn is_empty(&self) -> bool {
        self.ordinary.is_empty() && self.others.is_none()
    }

    /// Returns the number of jobs. Some of them may be ready no longer.
    pub fn len(&self) -> usize {
        let others = self.others.iter().flat_map(|others| others.lanes.values());
        self.ordinary.len() + others.map(Lane::len).sum::<usize>()
    }

    /// Returns the highest priority of a job; 0 if there is no job.
    pub fn priority(&self) -> i8 {
        let highest = self.others.as_ref().and_then(|others| others.lanes.keys().next_back().copied());
        if self.ordinary.is_empty() { highest.unwrap_or(0) } else { highest.unwrap_or(0).max(0) }
    }

    /// Adds a job behind the others of its sender and its priority.
    pub fn add(&mut self, sender: u32, priority: i8, job: JobRef) {
        if priority == 0 {
            self.ordinary.add(sender, job);
        } else {
            self.others.get_or_insert_default().lanes.entry(priority).or_default().add(sender, job);
        }
    }

    /// Removes the next job: of the priority and the sender whose turn it is.
    pub fn next(&mut self) -> Option<JobRef> {
        let Some(others) = &mut self.others else { return self.ordinary.next() };
        match others.next_priority(!self.ordinary.is_empty()) {
            0 => self.ordinary.next(),
            priority => {
                let lane = others.lanes.get_mut(&priority)?;
                let job = lane.next();
                if lane.is_empty() {
                    others.lanes.remove(&priority);
                }
                if others.lanes.is_empty() {
                    self.others = None;
                }
                job
            }
        }
    }
}

impl Others {
    /// Returns the priority that has the next turn. `has_ordinary` says that there are jobs of
    /// priority 0.
    fn next_priority(&mut self, has_ordinary: bool) -> i8 {
        let highest = self.lanes.keys().next_back().copied().unwrap_or(0);
        let highest = if has_ordinary { highest.max(0) } else { highest };
        // The lower priority after the one that had the last turn, or else the first one.
        let below = |start: i8| {
            let ends = (Bound::Unbounded, Bound::Excluded(start));
            self.lanes.range::<i8, _>(ends).next_back().map(|(priority, _)| *priority)
        };
        let other = below(self.last_low.unwrap_or(highest).min(highest)).or_else(|| below(highest));
        let ordinary = (has_ordinary && 0 < highest).then_some(0);
        let low = if self.was_ordinary { other.or(ordinary) } else { ordinary.or(other) };
        match low {
            Some(low) if self.ahead >= MAX_AHEAD => {
                self.ahead = 0;
                self.was_ordinary = low == 0;
                if low != 0 {
                    self.last_low = Some(low);
                }
                low
            }
            _ => {
                self.ahead = if low.is_some() { self.ahead + 1 } else { 0 };
                highest
            }
        }
    }
}

impl Lane {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Plain(_, list) => list.len(),
            Self::Fair(fair) => fair.count,
        }
    }

    fn add(&mut self, sender: u32, job: JobRef) {
        match self {
            Self::Empty => *self = Self::Plain(sender, VecDeque::from([job])),
            Self::Plain(only, list) if *only == sender => list.push_back(job),
            Self::Plain(only, list) => {
                let mut fair = Fair { turns: VecDeque::from([*only]), count: list.len(), ..Fair::default() };
                fair.senders.insert(*only, std::mem::take(list));
                fair.add(sender, job);
                *self = Self::Fair(Box::new(fair));
            }
            Self::Fair(fair) => fair.add(sender, job),
        }
    }

    /// Removes the first job of the sender whose turn it is.
    fn next(&mut self) -> Option<JobRef> {
        let (job, is_last) = match self {
            Self::Empty => return None,
            Self::Plain(_, list) => (list.pop_front(), list.is_empty()),
            Self::Fair(fair) => (fair.next(), fair.turns.is_empty()),
        };
        if is_last {
            *self = Self::Empty;
        }
        job
    }
}

impl Fair {
    fn add(&mut self, sender: u32, job: JobRef) {
        let list = self.senders.entry(sender).or_default();
        if list.is_empty() {
            self.turns.push_back(sender);
        }
        list.push_back(job);
        self.count += 1;
    }

    fn next(&mut self) -> Option<JobRef> {
        let sender = self.turns.pop_front()?;
        let list = self.senders.get_mut(&sender)?;
        let job = list.pop_front();
        self.count -= usize::from(job.is_some());
        if list.is_empty() {
            self.senders.remove(&sender);
        } else {
            self.turns.push_back(sender);
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::QueueId;

    /// The order in which jobs with these senders and priorities come out, by index.
    fn order(jobs: &[(u32, i8)]) -> Vec<usize> {
        let id = QueueId::parse("1K0TVZ6PH81DZ9JHPQF").expect("an id");
        let mut ready = Ready::default();
        for (index, (sender, priority)) in jobs.iter().enumerate() {
            ready.add(*sender, *priority, (id, index));
        }
        assert_eq!(ready.len(), jobs.len());
        let order = std::iter::from_fn(|| ready.next()).map(|(_, index)| index).collect();
        assert_eq!((ready.is_empty(), ready.len(), ready.priority()), (true, 0, 0));
        order
    }

    #[test]
    fn senders_take_turns_and_keep_their_order() {
        assert_eq!(order(&[7, 7, 7, 7, 8, 9, 8].map(|sender| (sender, 0))), [0, 4, 5, 1, 6, 2, 3]);
        assert_eq!(order(&[7, 7, 7, 7, 8, 9, 8].map(|sender| (sender, 5))), [0, 4, 5, 1, 6, 2, 3]);
    }

    #[test]
    fn a_higher_priority_comes_first_and_a_lower_one_does_not_starve() {
        for (priorities, want) in [
            (&[0, 1, -1][..], &[1, 0, -1][..]),
            (&[-9, 0, 9, 4], &[9, 4, 0, -9]),
            (&[3, 3, 3, 3, 3, 0], &[3, 3, 3, 0, 3, 3]),
            (&[0, 0, 0, 0, 0, -1], &[0, 0, 0, -1, 0, 0]),
            (&[-2, -2, -2, -2, -2, -7], &[-2, -2, -2, -7, -2, -2]),
            // The lower priorities share the turns.
            (&[5, 5, 5, 5, 5, 5, 5, 5, 5, 0, 0, -3, -3], &[5, 5, 5, 0, 5, 5, 5, -3, 5, 5, 5, -3, 0]),
            // Priority 0 has every second one of them.
            (
                &[9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 8, 7, 0, 0, 0, -1],
                &[9, 9, 9, 0, 9, 9, 9, 8, 9, 9, 9, 0, 9, 9, 9, 7, 9, 0, -1],
            ),
            (&[-4, -4], &[-4, -4]),
        ] {
            let jobs: Vec<(u32, i8)> = priorities.iter().map(|priority| (1, *priority)).collect();
            let got: Vec<i8> = order(&jobs).into_iter().map(|index| priorities[index]).collect();
            assert_eq!(got, want, "{priorities:?}");
        }
    }

    #[test]
    fn the_priority_is_the_highest_one() {
        let id = QueueId::parse("1K0TVZ6PH81DZ9JHPQF").expect("an id");
        let mut ready = Ready::default();
        for (added, highest) in [(-5, -5), (-7, -5), (0, 0), (-1, 0), (4, 4), (2, 4)] {
            ready.add(1, added, (id, 0));
            assert_eq!(ready.priority(), highest);
        }
    }
}
