//! Other mail software.
//!
//! - `mail_programs`: users' mail programs submit a message
//! - `servers`: mail to and from Postfix and Exim, behind haproxy

mod mail_programs;
mod servers;
