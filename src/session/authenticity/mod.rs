//! Checks whether a stranger's message is authentic, when it has ended: DKIM, and DMARC with the SPF
//! results of the transaction. Signs the messages of clients that may relay.
//!
//! The results stand in an Authentication-Results: field above everything else, and in the log.
//! `policy.dmarc` decides whether a message that fails is refused or put into quarantine.
//!
//! - `absent`: the same interface in a build without the feature `mailauth`
//! - `checks`: the checks
//! - `signing`: the signatures

#[cfg(not(feature = "mailauth"))]
mod absent;
#[cfg(feature = "mailauth")]
mod checks;
#[cfg(feature = "mailauth")]
mod signing;

#[cfg(not(feature = "mailauth"))]
pub use absent::{Collector, SpfResults};
#[cfg(feature = "mailauth")]
pub use checks::{Collector, SpfResults};
