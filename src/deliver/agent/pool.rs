//! Who does a task: this process, or an agent that runs as its owner.
//!
//! Where there is a keeper (`privsep::rights`), what a user of the system owns is done by an
//! agent of his own: it is asked for when it is needed, and kept for a while, since where
//! one message goes the next one often goes too. An agent does one task at a time, and has
//! so long for it; one that answers late, or nonsense, is dropped, and the task is in
//! trouble, whatever came of it: the next attempt finds out.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::wire::{receive_result, send_task};
use super::{Done, Owner, Task, Trouble, perform};
use crate::privsep::rights;

/// For how long an agent waits for its next task.
pub const IDLE: Duration = Duration::from_secs(30);
/// For how long one is given another task: it must not end meanwhile.
const FRESH: Duration = Duration::from_secs(20);
/// Idle agents that are kept.
const MOST: usize = 32;
/// For how long an agent may work on a task, beyond the time that the task itself has.
const PATIENCE: Duration = Duration::from_secs(120);

/// What does tasks.
#[derive(Debug, Default)]
pub struct Hands {
    /// Who has nothing to do, the latest last.
    idle: Mutex<Vec<Agent>>,
}

#[derive(Debug)]
struct Agent {
    owner: Owner,
    socket: UnixStream,
    since: Instant,
}

impl Hands {
    /// Does a task with the rights of `owner`. `message` is the file that goes with it.
    ///
    /// # Errors
    /// What the system says, or that there is no agent now.
    pub fn perform(&self, owner: &Owner, task: &Task, message: Option<&File>) -> Result<Done, Trouble> {
        if !rights::is_there() {
            return perform(task, message);
        }
        if *owner == Owner::Server && !task.is_beyond_the_server() {
            let result = perform(task, message);
            // It may be confined to other places than an alias names.
            if result.as_ref().err().is_none_or(|trouble| trouble.error.kind() != io::ErrorKind::PermissionDenied) {
                return result;
            }
        }
        let lost = |error: io::Error| Trouble::new(format!("work as {}", name(owner)), error);
        let agent = self.agent(owner).map_err(lost)?;
        let own = if let Task::Run { limit, .. } = task { Duration::from_secs(*limit) } else { Duration::ZERO };
        let asked = agent.socket.set_write_timeout(Some(PATIENCE)).and_then(|()| {
            send_task(&agent.socket, task, message)?;
            receive_result(&agent.socket, Instant::now() + PATIENCE + own)
        });
        let result = asked.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => lost(io::ErrorKind::TimedOut.into()),
            _ => lost(error),
        })?;
        self.keep(agent);
        result
    }

    fn agent(&self, owner: &Owner) -> io::Result<Agent> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|agent| agent.since.elapsed() < FRESH);
        if let Some(at) = idle.iter().rposition(|agent| agent.owner == *owner) {
            return Ok(idle.remove(at));
        }
        drop(idle);
        let user = if let Owner::User(account) = owner { Some(account.name.as_str()) } else { None };
        Ok(Agent { owner: owner.clone(), socket: rights::agent(user)?, since: Instant::now() })
    }

    fn keep(&self, agent: Agent) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= MOST {
            idle.remove(0);
        }
        idle.push(Agent { since: Instant::now(), ..agent });
    }
}

fn name(owner: &Owner) -> &str {
    match owner {
        Owner::Server => "the server's user",
        Owner::User(account) => &account.name,
    }
}
