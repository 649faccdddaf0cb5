//! TLS to other hosts, in a network with signed zones: what penfold does for real records and real
//! certificates, beside Postfix.
//!
//! - `attacks`: nothing is sent in clear, or to another host, that must not be
//! - `cases`: the table of hosts and records, with what posttls-finger, Postfix and penfold do
//! - `hosts`: the hosts and zones of such a table
//! - `peers`: Postfix and posttls-finger in the network
//! - `postfix`: Postfix as a server for penfold, and penfold as a server for Postfix
//! - `questions`: how many questions the name server gets
//! - `scene`: a network with a penfoldd that sends
//! - `sts`: the same attacks on a domain with an MTA-STS policy

mod attacks;
mod cases;
mod hosts;
mod peers;
mod postfix;
mod questions;
mod scene;
#[cfg(feature = "mta-sts")]
mod sts;
