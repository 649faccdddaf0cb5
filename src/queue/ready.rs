//! Orders the ready jobs of one destination so that senders take turns.
//!
//! Ten thousand messages of one sender delay another sender's single message by at most one turn. A
//! sender is identified by a number. Two senders with the same number share their turns. While a
//! destination has mail from only one sender, its jobs are in a plain list, which saves memory.

use std::collections::{HashMap, VecDeque};

use super::turns::JobRef;

/// The ready jobs of one destination.
#[derive(Default)]
pub enum Ready {
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
pub struct Fair {
    senders: HashMap<u32, VecDeque<JobRef>>,
    count: usize,
    /// The senders that have jobs, each once, in the order of their turns.
    turns: VecDeque<u32>,
}

impl Ready {
    /// Returns whether there is no job.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Returns the number of jobs. Some of them may be ready no longer.
    pub fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Plain(_, list) => list.len(),
            Self::Fair(fair) => fair.count,
        }
    }

    /// Adds a job behind the others of its sender.
    pub fn add(&mut self, sender: u32, job: JobRef) {
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
    pub fn next(&mut self) -> Option<JobRef> {
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

    #[test]
    fn senders_take_turns_and_keep_their_order() {
        let id = QueueId::parse("1K0TVZ6PH81DZ9JHPQF").expect("an id");
        let mut ready = Ready::default();
        for (index, sender) in [7, 7, 7, 7, 8, 9, 8].into_iter().enumerate() {
            ready.add(sender, (id, index));
        }
        assert_eq!(ready.len(), 7);
        let order: Vec<usize> = std::iter::from_fn(|| ready.next()).map(|(_, index)| index).collect();
        assert_eq!(order, [0, 4, 5, 1, 6, 2, 3]);
        assert!(ready.is_empty());
    }
}
