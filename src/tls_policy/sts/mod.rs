//! Reads the MTA-STS policies of other domains (RFC 8461).
//!
//! - `policy`: the text of a policy
//! - `record`: the TXT record of a domain

pub mod policy;
pub mod record;

pub use policy::{Mode, StsPolicy};
