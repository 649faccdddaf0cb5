//! Local delivery.
//!
//! - `aliases`: aliases that name commands, files and lists
//! - `commands`: the exit status, time limit and output of commands
//! - `domains`: local domains with users and tables of their own
//! - `forward`: .forward files and home directories
//! - `handover`: spool files that become mailbox files of their recipients
//! - `kinds_of_users`: system users, a users file and a mail store beside each other
//! - `logins`: accounts that several local domains share
//! - `maildir_quota`: `local.quota`, and the file that counts a Maildir
//! - `mbox`: mbox files and their locks
//! - `quarantine`: folders of a Maildir for suspicious messages
//! - `quota`: the disk quota of a recipient, which the system enforces
//! - `utf8`: addresses outside ASCII

mod aliases;
mod commands;
mod domains;
mod forward;
mod handover;
mod kinds_of_users;
mod logins;
mod maildir_quota;
mod mbox;
mod quarantine;
mod quota;
mod utf8;
