//! Checks with DKIM and DMARC whether a message is authentic, if its client may not relay. DMARC
//! also uses the SPF results of the transaction. Messages of other clients are signed.
//!
//! A message is checked or signed when its text has ended. The results of the checks go to the log,
//! and into an Authentication-Results: field on top of the message. `policy.dmarc` decides whether
//! a message that fails is refused or put into quarantine, unless a sealer in `policy.arc_sealers`
//! vouches for it.
//!
//! - `absent`: the same interface in a build without the feature `mailauth`
//! - `checks`: the checks
//! - `hosts`: keys in the shared store
//! - `signing`: the signatures

#[cfg(not(feature = "mailauth"))]
mod absent;
#[cfg(feature = "mailauth")]
mod checks;
#[cfg(feature = "mailauth")]
mod hosts;
#[cfg(feature = "mailauth")]
mod signing;

#[cfg(not(feature = "mailauth"))]
pub use absent::{Collector, SpfResults, is_sender_proven};
#[cfg(feature = "mailauth")]
pub use checks::{Collector, SpfResults, is_sender_proven};
