//! Explains what happens to mail for an address, and why a message in the queue is still there, for
//! `penfoldctl explain`.
//!
//! The decisions are those of a session and of a worker: the same functions of `policy`, `screen`,
//! `submit`, `route` and `deliver` are called, with the settings in force. But an explanation has
//! no effect: nothing is counted, greylisted, written to disk or logged, no host is connected to,
//! and no filter is asked. Only names are looked up in the DNS, and a query can forbid that.
//!
//! The module stands beside `worker`: above all modules whose decisions it explains, and below
//! `control`, which calls it. It uses nothing of `session`, because the decisions of a session are
//! in lower modules.
//!
//! An explanation is a list of [`steps::Step`]s, which is written as text or as JSON.
//!
//! - `client`: the connection and HELO
//! - `dialogue`: MAIL, RCPT and the message
//! - `look_ups`: the facts for the rules about strangers
//! - `next_host`: the question to the next host about a recipient
//! - `query`: the question, read from the words of a request and written as such
//! - `scene`: the state that explanations use, with or without a daemon
//! - `steps`: the steps of an explanation, as text and as JSON
//! - `waiting`: a message in the queue
//! - `way`: where an accepted message goes

mod client;
mod dialogue;
mod look_ups;
mod next_host;
pub mod query;
pub mod scene;
pub mod steps;
mod waiting;
mod way;

pub use query::Query;
pub use scene::{Offline, Scene};
pub use steps::Steps;
pub use waiting::{Work, explain_message};

use crate::address::{self, Address, AddressError};

/// Explains what happens to a message for the address of a query.
pub fn explain_address(scene: &Scene<'_>, query: &Query) -> Steps {
    let mut steps = Steps::default();
    let named = path(query.recipient()).ok().flatten().map(|named| qualified(scene, &named));
    let traced = named.as_ref().map(|named| scene.router.trace(named));
    let sender = dialogue::run(scene, query, named.as_ref().zip(traced.as_ref()), &mut steps);
    if let (Some(named), Some(traced)) = (&named, &traced) {
        way::tell(scene, query, sender.as_ref(), (named, traced), &mut steps);
    }
    let outcome = steps.outcome();
    steps.conclude(outcome);
    steps.locate(&scene.config.places);
    steps
}

/// Reads the path of a command: an address, or nothing for the null path.
fn path(text: &str) -> Result<Option<Address>, AddressError> {
    let text = format!("<{text}>");
    let (path, rest) = address::parse_path(text.as_bytes())?;
    if rest.is_empty() { Ok(path) } else { Err(AddressError::Trailing) }
}

/// Completes an address with a domain, as a session does.
fn qualified(scene: &Scene<'_>, address: &Address) -> Address {
    scene.router.qualify_here(address, || scene.config.bound_addresses().collect())
}
