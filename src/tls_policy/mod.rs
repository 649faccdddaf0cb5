//! Decides how connections to other hosts are protected.
//!
//! - `sts`: MTA-STS: what domains say about TLS over HTTPS

pub mod sts;
