//! Limits the number of connections to the control socket, for each user and in total.
//!
//! One user cannot take the connections of all others, even with all the subordinate uids
//! (subuid(5)) that belong to the user. All unprivileged users together cannot take the connections
//! of root.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The maximum number of connections of all unprivileged users.
const MAX_UNPRIVILEGED: usize = 400;
/// The maximum number of connections of one unprivileged user.
const MAX_OF_USER: usize = 40;
/// The maximum number of connections from the uids of one range of [`RANGE`] uids. The first range,
/// which has the ordinary users, has no such limit.
const MAX_OF_RANGE: usize = 120;
/// The number of uids in a range. One user usually has this many subordinate uids, so they lie in
/// at most two ranges.
const RANGE: u32 = 65_536;
/// The maximum number of connections of one privileged user.
const MAX_PRIVILEGED: usize = 200;
/// The number of connections of each user.
pub(super) struct Connections {
    users: Mutex<HashMap<u32, usize>>,
    is_privileged: fn(u32) -> bool,
}

impl Connections {
    pub(super) fn new(is_privileged: fn(u32) -> bool) -> Self {
        Self { users: Mutex::default(), is_privileged }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more connection of this user until the returned guard is dropped. `None` if a
    /// limit is reached.
    pub(super) fn admit(self: &Arc<Self>, uid: u32) -> Option<Admission> {
        let mut users = self.lock();
        let of_user = users.get(&uid).copied().unwrap_or(0);
        let range = |uid: u32| uid / RANGE;
        let is_within = if (self.is_privileged)(uid) {
            of_user < MAX_PRIVILEGED
        } else {
            let others = || users.iter().filter(|(uid, _)| !(self.is_privileged)(**uid));
            let in_range = others().filter(|(other, _)| range(**other) == range(uid)).map(|(_, count)| count);
            of_user < MAX_OF_USER
                && (range(uid) == 0 || in_range.sum::<usize>() < MAX_OF_RANGE)
                && others().map(|(_, count)| count).sum::<usize>() < MAX_UNPRIVILEGED
        };
        is_within.then(|| {
            users.insert(uid, of_user + 1);
            Admission { uid, connections: Arc::clone(self) }
        })
    }
}

/// A guard for one connection, which is counted until the guard is dropped.
pub(super) struct Admission {
    pub(super) uid: u32,
    connections: Arc<Connections>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut users = self.connections.lock();
        match users.get_mut(&self.uid) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(users.remove(&self.uid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only root is privileged in these tests. The server's own uid is not, because any user may
    /// run the tests.
    fn is_root(uid: u32) -> bool {
        uid == 0
    }

    #[test]
    fn no_user_takes_the_connections_of_all_others() {
        for (taken, uid, is_within) in [
            (&[(1000, 39)][..], 1000, true),
            (&[(1000, 40)], 1000, false),
            (&[(1000, 40)], 1001, true),
            // Many users, and one user with subordinate uids.
            (&[(1000, 40), (1001, 40), (1002, 40), (1003, 40)], 1004, true),
            (&[(1000, 40), (100_000, 40), (100_001, 40), (100_002, 40)], 100_003, false),
            (&[(1000, 40), (100_000, 40), (100_001, 40), (100_002, 40)], 140_000, true),
            (
                &[(1000, 40), (100_000, 40), (100_001, 40), (100_002, 40), (140_000, 40), (140_001, 40), (140_002, 40)],
                1001,
                true,
            ),
        ] {
            let connections = Arc::new(Connections::new(is_root));
            let open: Vec<Admission> = taken
                .iter()
                .flat_map(|(uid, count)| {
                    (0..*count).map(|_| connections.admit(*uid).expect("a connection")).collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(connections.admit(uid).is_some(), is_within, "{taken:?} {uid}");
            drop(open);
            assert!(connections.lock().is_empty() && connections.admit(uid).is_some());
        }
        // All unprivileged users together cannot take the connections of root.
        let connections = Arc::new(Connections::new(is_root));
        let open: Vec<_> = (1000..).map_while(|uid| connections.admit(uid)).collect();
        assert_eq!(open.len(), MAX_UNPRIVILEGED);
        let root: Vec<_> = std::iter::from_fn(|| connections.admit(0)).take(MAX_PRIVILEGED + 1).collect();
        assert_eq!(root.len(), MAX_PRIVILEGED);
    }
}
