//! The present state: the queue, the workers, the connections.

use std::collections::BTreeMap;

/// The columns of ages: each is a name, and the age in seconds up to which a message belongs there.
pub const AGES: [(&str, u64); 6] =
    [("5m", 300), ("15m", 900), ("1h", 3600), ("4h", 14_400), ("1d", 86_400), ("older", u64::MAX)];

/// Returns the column to which an age in seconds belongs.
pub fn age_column(seconds: u64) -> usize {
    AGES.partition_point(|(_, end)| *end < seconds).min(AGES.len() - 1)
}

/// The messages in the queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// The number of messages, without those in `hold/`.
    pub messages: usize,
    /// The size of their files in the spool, in octets.
    pub octets: u64,
    /// The number of jobs: a job is one message and one destination.
    pub jobs: usize,
    /// The number of jobs that wait for their next attempt.
    pub waiting: usize,
    /// The number of jobs that wait for the time before which they must not be delivered.
    pub until: usize,
    /// The number of jobs that can start.
    pub ready: usize,
    /// The number of running jobs.
    pub running: usize,
    /// The number of messages in each of [`AGES`].
    pub ages: [usize; AGES.len()],
    /// The age of the oldest message in seconds.
    pub oldest: u64,
    /// The destinations with the most jobs, at most [`Census::MAX`], the largest first.
    pub destinations: Vec<Load>,
    /// The number of all destinations.
    pub all_destinations: usize,
    /// Whether the numbers of destinations and octets are estimates, from a part of the messages.
    pub is_estimate: bool,
}

impl Census {
    /// The maximum number of destinations that are named.
    pub const MAX: usize = 50;

    /// Returns the destinations without the users of this host: the mailboxes and the commands of
    /// all users are summed up. The destination with the most jobs comes first.
    pub fn public_destinations(&self) -> Vec<Load> {
        let mut sums: BTreeMap<&str, Load> = BTreeMap::new();
        for load in &self.destinations {
            let name = public_name(&load.name);
            let sum = sums.entry(name).or_insert_with(|| Load { name: name.to_owned(), ..Load::default() });
            sum.jobs = sum.jobs.saturating_add(load.jobs);
            sum.running = sum.running.saturating_add(load.running);
            sum.oldest = sum.oldest.max(load.oldest);
            sum.ages.iter_mut().zip(load.ages).for_each(|(sum, count)| *sum = sum.saturating_add(count));
        }
        let mut sums: Vec<Load> = sums.into_values().collect();
        sums.sort_by(|a, b| b.jobs.cmp(&a.jobs).then_with(|| a.name.cmp(&b.name)));
        sums
    }
}

/// Returns a destination's name without the user of this host.
fn public_name(name: &str) -> &str {
    match name.split_once(':').map_or(name, |(kind, _)| kind) {
        "user" => "users",
        "command" => "commands",
        _ => name,
    }
}

/// The jobs of one destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// The destination, as `penfoldctl hosts` names it.
    pub name: String,
    /// The number of jobs.
    pub jobs: usize,
    /// The number of running jobs.
    pub running: usize,
    /// The number of jobs in each of [`AGES`].
    pub ages: [usize; AGES.len()],
    /// The age of the oldest job's message in seconds.
    pub oldest: u64,
}

/// A certificate of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The file.
    pub file: String,
    /// The time at which it expires, in seconds since 1970.
    pub expires: u64,
}

/// The store in which several hosts count together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedState {
    /// The URL.
    pub store: String,
    /// Why the store is away; `None` if it answers.
    pub why_away: Option<String>,
    /// The time since which it answers or is away, in seconds since 1970.
    pub since: u64,
    /// The number of questions that were not asked because all connections were in use.
    pub unasked: u64,
}

/// The present state.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// The version of the daemon.
    pub version: &'static str,
    /// The current time, in seconds since 1970.
    pub now: u64,
    /// The time at which the daemon started, in seconds since 1970.
    pub started: u64,
    /// Whether the queue knows all messages that were in the spool at the start.
    pub is_scanned: bool,
    /// The queue; `None` if it does not answer.
    pub queue: Option<Census>,
    /// The number of messages in `hold/`; `None` if it is not known.
    pub held: Option<usize>,
    /// The number of workers.
    pub workers: usize,
    /// The number of open connections from clients, and the maximum number.
    pub connections: (usize, usize),
    /// The number of destinations in each state: `new`, `up`, `slow` and `down`.
    pub destinations: Vec<(&'static str, usize)>,
    /// The certificates of this server.
    pub certificates: Vec<Certificate>,
    /// The octets that are free for the server on the spool's file system, and all octets.
    pub disk: Option<(u64, u64)>,
    /// The inodes that are free on the spool's file system, and all inodes.
    pub inodes: Option<(u64, u64)>,
    /// The shared store; `None` if there is none.
    pub shared: Option<SharedState>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_destinations_name_no_user() {
        let load =
            |name: &str, jobs, oldest| Load { name: name.into(), jobs, oldest, ages: [jobs; 6], ..Load::default() };
        let loads = [
            ("user:jon", 2, 9),
            ("example.org:2525", 5, 1),
            ("user:anna", 4, 3),
            ("command:jon", 1, 1),
            ("command", 1, 2),
        ];
        let destinations = loads.map(|(name, jobs, oldest)| load(name, jobs, oldest)).to_vec();
        let census = Census { destinations, ..Census::default() };
        let expected = [load("users", 6, 9), load("example.org:2525", 5, 1), load("commands", 2, 2)];
        assert_eq!(census.public_destinations(), expected);
    }

    #[test]
    fn an_age_belongs_to_the_first_column_that_it_does_not_exceed() {
        assert_eq!([0, 300, 301, 86_400, 86_401, u64::MAX].map(age_column), [0, 0, 1, 4, 5, 5]);
    }
}
