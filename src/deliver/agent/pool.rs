//! Chooses the process that carries out a request: this process, or an agent, a process with the
//! rights of one user.
//!
//! A server with a monitor, the process that stays root, leaves all work that needs a user's rights
//! to an agent. When an agent is needed, the server asks the monitor to start one. The server then
//! keeps the agent for a while, since the next message is often for the same user. An agent carries
//! out one request at a time, within a time limit. If an agent is late or sends a malformed
//! response, the agent is dropped and the request counts as failed. The next attempt finds out
//! whether the request was carried out.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::wire::{receive_response, send_request};
use super::{AgentError, Owner, Request, Response, perform};
use crate::privsep::Rights;

/// How long an agent waits for its next request.
pub const IDLE: Duration = Duration::from_secs(30);
/// How long after its last request an agent may be used again. This is less than [`IDLE`], so that
/// the agent has not ended yet.
const REUSED_WITHIN: Duration = Duration::from_secs(20);
/// Maximum number of idle agents that are kept.
const MAX_IDLE: usize = 32;
/// How long an agent may take for a request, in addition to a command's own time limit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How long an agent may take for the use of a mailbox, for which a client waits.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = assert!(REUSED_WITHIN.as_secs() < IDLE.as_secs());

/// The agents of this server. Without a monitor there are no agents, and this process does their
/// work.
#[derive(Debug, Default)]
pub struct AgentPool {
    rights: Rights,
    /// The idle agents, in the order of their last use.
    idle: Mutex<Vec<Agent>>,
}

#[derive(Debug)]
struct Agent {
    owner: Owner,
    socket: UnixStream,
    since: Instant,
}

impl AgentPool {
    /// A pool without agents. When an agent is needed, the monitor in `rights` starts it.
    pub fn new(rights: Rights) -> Self {
        Self { rights, idle: Mutex::default() }
    }

    /// The connection to the monitor that starts the agents, if there is a monitor.
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// Carries out a request with the rights of `owner`. `message` is the file that goes with the
    /// request.
    ///
    /// # Errors
    /// If the request fails, or no agent is available.
    pub fn perform(&self, owner: &Owner, request: &Request, message: Option<&File>) -> Result<Response, AgentError> {
        if !self.rights.has_monitor() {
            return perform(request, message);
        }
        if *owner == Owner::Server && !request.exceeds_confinement() {
            let result = perform(request, message);
            // An alias may name a place that the confined server cannot access. An agent is not
            // confined, so an agent repeats the request.
            if result.as_ref().err().is_none_or(|failed| failed.error.kind() != io::ErrorKind::PermissionDenied) {
                return result;
            }
        }
        let lost = |error: io::Error| AgentError::new(format!("work as {}", name(owner)), error);
        let agent = self.take(owner).map_err(lost)?;
        let timeout = match request {
            Request::Run { limit, .. } => REQUEST_TIMEOUT + Duration::from_secs(*limit),
            Request::Measure { .. } => MEASURE_TIMEOUT,
            _ => REQUEST_TIMEOUT,
        };
        let asked = agent.socket.set_write_timeout(Some(timeout.min(REQUEST_TIMEOUT))).and_then(|()| {
            send_request(&agent.socket, request, message)?;
            receive_response(&agent.socket, Instant::now() + timeout)
        });
        let result = asked.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => lost(io::ErrorKind::TimedOut.into()),
            _ => lost(error),
        })?;
        self.put_back(agent);
        result
    }

    fn take(&self, owner: &Owner) -> io::Result<Agent> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|agent| agent.since.elapsed() < REUSED_WITHIN);
        if let Some(at) = idle.iter().rposition(|agent| agent.owner == *owner) {
            return Ok(idle.remove(at));
        }
        drop(idle);
        let user = if let Owner::User(account) = owner { Some(account.name.as_str()) } else { None };
        Ok(Agent { owner: owner.clone(), socket: self.rights.agent(user)?, since: Instant::now() })
    }

    fn put_back(&self, agent: Agent) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= MAX_IDLE {
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
