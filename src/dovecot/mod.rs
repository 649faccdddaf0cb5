//! Clients of Dovecot's own protocol, in which its authentication service answers.
//!
//! The service listens on two kinds of Unix sockets, and both speak version 1 of a protocol that
//! consists of lines of fields separated by TABs. At a socket of the kind auth-client, clients are
//! authenticated (`sasl::dovecot`). At one of the kind auth-userdb, users are looked up ([`userdb`]).
//!
//! - `link`: a connection, its lines and their fields
//! - `userdb`: users and their home directories

mod link;
pub mod userdb;

pub use link::{Link, malformed, unescape};
