//! penfold: a small mail transfer agent for Unix.
//!
//! ```text
//!            config   log   sys   dns   tls   sasl      (at the side, used by all stages)
//!
//!     network --> listen --> session --> spool ==> queue --> worker --> route <-- aliases, users
//!                               |          ^                   |
//!                               | asks     | writes            v
//!                               v          |                deliver --> maildir | mbox | command | remote
//!                             route      report <-- outcomes --'                  --> network
//! ```
//!
//! A message that needs no more than a rename into a mailbox goes the short way: the
//! thread that took it does that itself, after its 250 (`worker::take_home`).
//!
//! Started by root it is several processes: the server, confined and without root's rights,
//! a monitor that stays root, and others that work for them: see [`privsep`].
//!
//! What a program gives to sendmail(8) comes over the socket of `control`, and from there
//! through a session like any other.
//!
//! What a person submits is completed and bound to its sender by `submit`, on its way
//! from `session` to `spool`.
//!
//! Read `worker` first: it is the whole of it in a dozen lines. Then `session`,
//! `spool` (whose head has the table of states on disk), and `queue`.
//!
//! | rank | modules | may use |
//! | --- | --- | --- |
//! | 0 | address, endpoint, reply, retry, sasl, sys, timeouts | nothing of penfold |
//! | 1 | envelope, message, outcome, privsep, state | rank 0 |
//! | 2 | config, smtp | lower ranks |
//! | 3 | destination, exit, log | lower ranks |
//! | 4 | aliases, dns, policy, spool, tls, users | lower ranks |
//! | 5 | route, net, queue, report, submit | lower ranks |
//! | 6 | deliver | lower ranks |
//! | 7 | site | lower ranks |
//! | 8 | session | lower ranks; never queue, deliver or report |
//! | 9 | listen, worker | lower ranks |
//! | 10 | control | lower ranks |
//! | 11 | daemon | everything, in start-up order |
//! | 12 | cli, and the programs | everything |
//!
//! No imports within a rank, except inside one folder; tests/source/ranks.rs sees to it.
//!
//! Words: a *message* is what a client gives; an *envelope* is its sender and
//! recipients; an *entry* is a message in the spool; a *recipient* there stands in
//! a *slot*; a *route* is where one goes; a *job* is one entry and one destination;
//! an *outcome* is what became of one recipient in one attempt.

pub mod address;
pub mod aliases;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod deliver;
pub mod destination;
pub mod dns;
pub mod endpoint;
pub mod envelope;
pub mod exit;
pub mod listen;
pub mod log;
pub mod message;
pub mod net;
pub mod outcome;
pub mod policy;
pub mod privsep;
pub mod queue;
pub mod reply;
pub mod report;
pub mod retry;
pub mod route;
pub mod sasl;
pub mod session;
pub mod site;
pub mod smtp;
pub mod spool;
pub mod state;
pub mod submit;
pub mod sys;
pub mod timeouts;
pub mod tls;
pub mod users;
pub mod worker;
