//! Delivery to other hosts.
//!
//! - `arc`: sets of forwarded mail
//! - `callouts`: questions to the next host at RCPT
//! - `callouts_busy`: the same while hosts are busy or slow
//! - `client`: the SMTP client and its DNS lookups, without the daemon
//! - `converted`: messages for hosts without 8BITMIME
//! - `copies`: two hosts that copy mail to each other
//! - `end_to_end`: with the daemon, the log and the report
//! - `many_hosts`: slow and dead hosts beside healthy ones
//! - `old_tls`: old versions of TLS, which are refused both ways
//! - `outgoing`: source addresses, names, families and limits, with the daemon
//! - `require_tls`: messages that need TLS, with the daemon
//! - `routing`: hosts by address and by sender, fallback hosts, held and discarded mail
//! - `security`: TLS and AUTH, with the log and the queue
//! - `srs`: rewritten senders of forwarded mail, and their bounces
//! - `sts`: MTA-STS policies

#[cfg(feature = "arc")]
mod arc;
mod callouts;
mod callouts_busy;
mod client;
#[cfg(feature = "arc")]
mod converted;
mod copies;
mod end_to_end;
mod many_hosts;
mod old_tls;
mod outgoing;
mod require_tls;
mod routing;
mod security;
mod srs;
#[cfg(feature = "mta-sts")]
mod sts;
