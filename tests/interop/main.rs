//! Other mail software.
//!
//! - `dkim`: signatures for and by dkimpy and OpenDKIM
//! - `mail_programs`: users' mail programs submit a message
//! - `servers`: mail to and from Postfix and Exim, behind haproxy
//! - `spf`: the published test suite for SPF, and the same results as pyspf

mod dkim;
mod mail_programs;
mod servers;
#[cfg(feature = "mailauth")]
mod spf;
