//! Connects to the shared store, a Redis or Valkey that several hosts use together.
//!
//! The store is a peer in the inside network that may hang, lie, be full or restart. A question
//! costs a session at most 100 ms, and after one that fails, nothing until the store is back: see
//! `circuit`. What the store says is a list of numbers or a sealed text, and at most 64 KiB. What an
//! answer means, and what it cannot do, is in [`shared`](crate::shared).
//!
//! Without the feature `shared-store` there is never a store, and each host counts alone.
//!
//! - `circuit`: the connections, and whether the store is asked
//! - `frame`: the end of a reply
//! - `link`: one connection
//! - `secrets`: the password, and the secret that only the hosts know
//! - `target`: the store that the configuration names

#[cfg(all(test, feature = "shared-store"))]
mod tests;

use std::sync::Arc;
#[cfg(feature = "shared-store")]
use std::time::Duration;

use crate::config::Config;
use crate::dns::Dns;
use crate::shared::{Question, Seal, Store};
use crate::tls::Client;

#[cfg(feature = "shared-store")]
mod circuit;
#[cfg(feature = "shared-store")]
mod frame;
#[cfg(feature = "shared-store")]
mod link;
mod secrets;
#[cfg(feature = "shared-store")]
mod target;

pub use secrets::Secrets;

/// The maximum time that [`SharedStore::examine`] takes: that of a slow look-up, and more.
#[cfg(feature = "shared-store")]
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Whether the store answers. Times are in seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Standing {
    /// The configuration names no store.
    #[default]
    None,
    /// The store was not asked yet.
    Untried,
    /// The store has answered since this time.
    Up {
        /// The time.
        since: u64,
    },
    /// The store does not answer, and each host counts alone.
    Away {
        /// The time of the first failure.
        since: u64,
        /// The reason of the last failure.
        why: String,
    },
}

/// The shared store of this process.
#[derive(Debug)]
pub struct SharedStore {
    #[cfg(feature = "shared-store")]
    circuit: Arc<circuit::Circuit>,
}

#[cfg(feature = "shared-store")]
impl SharedStore {
    /// A store that is used only after [`SharedStore::aim`]. `host` is the name of this host.
    pub fn new(dns: &Arc<Dns>, host: &str) -> Self {
        Self { circuit: Arc::new(circuit::Circuit::new(Arc::clone(dns), host)) }
    }

    /// Uses the store that the configuration names from now on. `tls` has the authorities.
    pub fn aim(&self, config: &Config, tls: &Client, secrets: Option<&Arc<Secrets>>) {
        let target = config.shared.store.as_ref().map(|url| target::Target::new(url, tls, secrets.cloned()));
        self.circuit.aim(target.map(Arc::new));
    }

    /// The URL of the store, and its standing.
    pub fn standing(&self) -> (String, Standing) {
        self.circuit.standing()
    }

    /// The number of questions that were not asked because all connections were in use.
    pub fn unasked(&self) -> u64 {
        self.circuit.unasked()
    }

    /// Begins to connect. Without this, the first question does.
    pub fn start(&self) {
        self.circuit.start();
    }

    /// Tries the store, and returns its standing. This takes seconds at most, and is for a process
    /// that asks nothing else.
    pub fn examine(&self) -> (String, Standing) {
        self.start();
        self.circuit.wait(MAX_WAIT, |standing| *standing != Standing::Untried);
        self.standing()
    }
}

#[cfg(feature = "shared-store")]
impl Store for SharedStore {
    fn is_used(&self) -> bool {
        self.circuit.has_target()
    }

    fn ask(&self, question: &Question) -> Option<Vec<u64>> {
        self.circuit.ask(question, link::numbers)
    }

    fn ask_text(&self, question: &Question) -> Option<String> {
        self.circuit.ask(question, link::text)
    }

    fn seal(&self) -> Option<Arc<Seal>> {
        self.circuit.seal()
    }
}

#[cfg(not(feature = "shared-store"))]
impl SharedStore {
    /// No store: this build has none.
    pub fn new(_: &Arc<Dns>, _: &str) -> Self {
        Self {}
    }

    /// Does nothing.
    pub fn aim(&self, _: &Config, _: &Client, _: Option<&Arc<Secrets>>) {}

    /// No store.
    pub fn standing(&self) -> (String, Standing) {
        (String::new(), Standing::None)
    }

    /// None.
    pub fn unasked(&self) -> u64 {
        0
    }

    /// Does nothing.
    pub fn start(&self) {}

    /// No store.
    pub fn examine(&self) -> (String, Standing) {
        self.standing()
    }
}

#[cfg(not(feature = "shared-store"))]
impl Store for SharedStore {
    fn is_used(&self) -> bool {
        false
    }

    fn ask(&self, _: &Question) -> Option<Vec<u64>> {
        None
    }

    fn ask_text(&self, _: &Question) -> Option<String> {
        None
    }

    fn seal(&self) -> Option<Arc<Seal>> {
        None
    }
}
