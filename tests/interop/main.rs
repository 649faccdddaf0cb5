//! Other mail software.
//!
//! - `mail_programs`: users' mail programs submit a message
//! - `servers`: mail to and from Postfix and Exim, behind haproxy
//! - `spf`: the published test suite for SPF, and the same results as pyspf

mod mail_programs;
mod servers;
mod spf;
