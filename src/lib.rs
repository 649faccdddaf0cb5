//! penfold: a mail transfer agent for Unix.
//!
//! ```text
//!            config   log   sys   privsep   dns   tls   sasl      (used by all stages)
//!
//!     network --> listen --> session --> spool ==> queue --> worker --> route <-- aliases, users
//!                             |   |        ^                   |
//!                      policy-'   | asks   | writes            v
//!                                 v        |                deliver --> local | agent | remote
//!                               route    report <-- outcomes --'                  --> network
//! ```
//!
//! If a rename into a mailbox suffices to deliver a message, the message does not wait for the
//! queue: the thread that has received it delivers it after the 250 reply (`worker::deliver_now`).
//!
//! If root starts penfold, it runs as several processes: the server, which is confined and has lost
//! root's rights, a monitor, which stays root, and helpers of both (see [`privsep`]).
//!
//! A message from sendmail(8) comes over the control socket, and then goes through a session like
//! any other message. `submit` completes the header of a submitted message, and checks it against
//! the sender.
//!
//! Start reading with `worker`, which shows the path of one job. Go on with `session`, `spool`
//! (whose module doc has the table of states on disk), and `queue`.
//!
//! - `activity`: what each worker is doing at this moment
//! - `address`: mail addresses: parse, quote, compare
//! - `aggregate`: what the daily reports to the owners of domains have in common
//! - `aliases`: the aliases file
//! - `callout`: whether the next host knows a recipient
//! - `characters`: characters that could mislead a reader
//! - `cli`: the commands: penfoldctl, sendmail, mailq, newaliases
//! - `config`: the configuration as values
//! - `control`: the control socket
//! - `daemon`: penfoldd as a process
//! - `deliver`: delivery agents: local, as another user, remote
//! - `destination`: the key under which recipients share an attempt
//! - `dialogue`: the dialogue of an attempt with other hosts
//! - `dns`: DNS look-ups
//! - `dovecot`: Dovecot's authentication service and its users
//! - `endpoint`: the address that a socket connects to: TCP or Unix
//! - `envelope`: sender, recipients, and their options
//! - `exit`: exit codes
//! - `explain`: what happens to mail for an address, and why a message waits
//! - `filters`: milters and policy services that are asked about mail
//! - `history`: the log lines of events, kept for `penfoldctl trace`
//! - `json`: writes JSON
//! - `listen`: listening sockets and connections
//! - `log`: the log
//! - `mailauth`: SPF, DKIM, DMARC and ARC
//! - `message`: header fields, trace fields, and the addresses in them
//! - `net`: streams with a deadline
//! - `outcome`: the result of an attempt for one recipient, and which errors are final
//! - `outgoing`: from which addresses, under which name and how fast mail leaves this host
//! - `policy`: which clients, senders, recipients and messages are accepted
//! - `privsep`: privilege separation
//! - `queue`: the jobs that wait, are ready, or run
//! - `reply`: SMTP replies
//! - `report`: reports to senders
//! - `retry`: retry intervals and expiry
//! - `route`: where mail for an address goes
//! - `sasl`: authentication
//! - `screen`: what is looked up about clients that may not relay
//! - `session`: the SMTP dialogue with a client
//! - `shared`: what is asked of a store that several hosts share
//! - `shared_store`: the connections to this store
//! - `site`: the state that all parts share
//! - `smtp`: the SMTP protocol without I/O
//! - `spelling`: the word that was meant by a misspelt one
//! - `spool`: the messages on disk
//! - `srs`: the senders of forwarded messages, rewritten and back
//! - `state`: auxiliary state on disk, apart from the queue
//! - `stats`: counters of what happens to mail
//! - `status`: the status page and the metrics over HTTP
//! - `submit`: the header of submitted messages, senders and quotas
//! - `sys`: system calls
//! - `timeouts`: shortened timeouts for unproven hosts
//! - `tls`: certificates and trust
//! - `tls_policy`: how connections to other hosts are protected
//! - `tls_report`: daily reports about TLS to the domains that ask for them
//! - `users`: users and their mailboxes
//! - `when`: times that a user gives
//! - `worker`: one job, from its start to the outcomes of its recipients
//! - `wrap`: the width of lines in listings
//!
//! | rank | modules | may use |
//! | --- | --- | --- |
//! | 0 | characters, dovecot, shared, wrap | nothing of penfold |
//! | 1 | activity, address, endpoint, json, reply, retry, sasl, spelling, sys, timeouts, when | rank 0 |
//! | 2 | dialogue, envelope, history, message, outcome, privsep, srs, state | lower ranks |
//! | 3 | aggregate, config, smtp, stats | lower ranks |
//! | 4 | destination, dns, exit, log, tls | lower ranks |
//! | 5 | aliases, net, outgoing, policy, spool, tls_report, users | lower ranks |
//! | 6 | callout, mailauth, queue, report, route, screen, shared_store, submit, tls_policy | lower ranks |
//! | 7 | deliver, filters | lower ranks |
//! | 8 | site | lower ranks |
//! | 9 | session | lower ranks; never queue, deliver or report |
//! | 10 | explain, listen, worker | lower ranks |
//! | 11 | control | lower ranks |
//! | 12 | status | lower ranks |
//! | 13 | daemon | everything, in start-up order |
//! | 14 | cli, and the programs | everything |
//!
//! No module imports another one of its own rank, except inside one folder. tests/source/ranks.rs
//! checks all of this.
//!
//! These words have a fixed meaning. An *envelope* is the sender and the recipients of a message.
//! An *entry* is a message in the spool. A *recipient entry* is the line of an entry for one
//! recipient. A *route* says where mail for a recipient goes. A *destination* is the key that the
//! recipients of one attempt share. A *job* is one entry and one destination. An *outcome* is the
//! result of one attempt for one recipient.

// In a build without some of the features, functions that serve only these features are unused.
#![cfg_attr(
    not(all(feature = "mailauth", feature = "filters", feature = "mta-sts")),
    allow(dead_code, unused_imports, unused_mut)
)]

mod activity;
pub mod address;
pub mod aggregate;
mod aliases;
mod callout;
mod characters;
pub mod cli;
pub mod config;
mod control;
pub mod daemon;
pub mod deliver;
pub mod destination;
pub mod dialogue;
pub mod dns;
pub mod dovecot;
pub mod endpoint;
pub mod envelope;
pub mod exit;
mod explain;
#[cfg(feature = "filters")]
pub mod filters;
pub mod history;
pub mod json;
mod listen;
mod log;
#[cfg(feature = "mailauth")]
pub mod mailauth;
pub mod message;
mod net;
pub mod outcome;
pub mod outgoing;
pub mod policy;
pub mod privsep;
mod queue;
pub mod reply;
pub mod report;
mod retry;
mod route;
pub mod sasl;
pub mod screen;
mod session;
pub mod shared;
pub mod shared_store;
mod site;
pub mod smtp;
mod spelling;
pub mod spool;
pub mod srs;
pub mod state;
mod stats;
pub mod status;
pub mod submit;
pub mod sys;
pub mod timeouts;
pub mod tls;
pub mod tls_policy;
pub mod tls_report;
mod users;
mod when;
mod worker;
mod wrap;
