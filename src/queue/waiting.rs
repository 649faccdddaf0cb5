//! Keeps the destinations of one class that wait for a turn, in three lines: those with urgent
//! jobs, with ordinary jobs, and with bulk jobs only.
//!
//! Urgent jobs have a priority above 0, and bulk jobs one below 0. A destination in a more urgent
//! line comes first. But after [`MAX_AHEAD`] such turns, the front of a less urgent line has a turn,
//! and the less urgent lines share these turns. So no destination waits forever, and within a line
//! all destinations are equal.

use std::collections::VecDeque;
use std::sync::Arc;

use super::MIN_CAPACITY;
use super::ready::MAX_AHEAD;
use crate::destination::Destination;

/// The line in which a destination waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A job has a priority above 0.
    Urgent,
    /// No job has a priority above 0, and at least one has priority 0.
    Ordinary,
    /// All jobs have priorities below 0.
    Bulk,
}

/// A waiting destination. It gets a new number whenever it is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// The destination.
    pub destination: Arc<Destination>,
    /// The number of its ticket.
    pub ticket: u64,
    /// The line in which it waits.
    pub urgency: Urgency,
}

/// The waiting destinations of one class.
#[derive(Default)]
pub struct Waiting {
    /// The lines, the most urgent one first.
    lines: [VecDeque<Waiter>; 3],
    /// The number of turns since one of a less urgent line.
    ahead: u8,
    /// Whether the last line had the last turn of a less urgent line.
    was_last: bool,
}

impl Urgency {
    /// Returns the line for a destination whose jobs have this highest priority.
    pub fn of(priority: i8) -> Self {
        match priority {
            1.. => Self::Urgent,
            0 => Self::Ordinary,
            _ => Self::Bulk,
        }
    }
}

impl Waiting {
    /// Adds a destination at the end of its line.
    pub fn add(&mut self, waiter: Waiter) {
        self.lines[waiter.urgency as usize].push_back(waiter);
    }

    /// Whether no destination waits.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(VecDeque::is_empty)
    }

    /// Returns the first destinations of each line, at most `count`.
    pub fn first(&self, count: usize) -> impl Iterator<Item = &Waiter> {
        self.lines.iter().flat_map(move |line| line.iter().take(count))
    }

    /// Removes the destination that has the next turn: the oldest one of its line, or the newest.
    pub fn next(&mut self, is_newest: bool) -> Option<Waiter> {
        let line = self.next_line()?;
        let waiter = if is_newest { line.pop_back() } else { line.pop_front() };
        if line.is_empty() {
            line.shrink_to(MIN_CAPACITY);
        }
        waiter
    }

    fn next_line(&mut self) -> Option<&mut VecDeque<Waiter>> {
        let mut filled = (0..self.lines.len()).filter(|&line| !self.lines[line].is_empty());
        let (first, second, third) = (filled.next()?, filled.next(), filled.next());
        let chosen = match (second, third) {
            (Some(second), third) if self.ahead >= MAX_AHEAD => {
                let low = third.filter(|_| !self.was_last).unwrap_or(second);
                (self.ahead, self.was_last) = (0, low + 1 == self.lines.len());
                low
            }
            (second, _) => {
                self.ahead = if second.is_some() { self.ahead + 1 } else { 0 };
                first
            }
        };
        Some(&mut self.lines[chosen])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgent_destinations_come_first_and_the_others_do_not_starve() {
        for (priorities, want) in [
            (&[0, 0, -1, 1][..], &[1, 0, 0, -1][..]),
            (&[-1, 9, -1], &[9, -1, -1]),
            (&[0, 0, 0, 0, 0, -1], &[0, 0, 0, -1, 0, 0]),
            (&[0, 0, -1, -1, 1, 1, 1, 1, 1, 1, 1], &[1, 1, 1, -1, 1, 1, 1, 0, 1, 0, -1]),
        ] {
            let mut waiting = Waiting::default();
            for (ticket, &priority) in (0..).zip(priorities) {
                let destination = Arc::new(Destination::mx("x.test"));
                waiting.add(Waiter { destination, ticket, urgency: Urgency::of(priority) });
            }
            let order: Vec<u64> = std::iter::from_fn(|| waiting.next(false)).map(|waiter| waiter.ticket).collect();
            let got: Vec<i8> = order.iter().map(|&ticket| priorities[ticket as usize]).collect();
            assert_eq!(got, want, "{priorities:?}");
            assert!(waiting.is_empty());
        }
    }
}
