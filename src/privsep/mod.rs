//! Privilege separation: the processes of a server that root has started, their rights, and
//! what each may ask of the others.
//!
//! ```text
//!                            requests of a fixed size
//!   penfoldd (the server) <---------------------------> penfoldd: monitor
//!     the server's user,     file descriptors             root, with CAP_CHOWN and CAP_KILL only
//!     confined                                              |            | starts, as root
//!       |        | asks, over sockets that                  v            v
//!       |        | the monitor hands over         penfoldd: opener   penfoldd: agent
//!       |        v                                  root; opens       drops root, then works
//!       |     penfoldd: lookup                      files, then ends  as one recipient
//!       |       the server's user, not confined;                         ^
//!       |       asks the system for users                                |
//!       '----------------------- requests of deliver::agent -------------'
//! ```
//!
//! All of these processes run this program under different names. The server never executes
//! anything. No process opens a file as root in a place that another user controls. If the monitor
//! ends, the server ends, too. A server that was not started by root has no monitor: it does
//! everything as its own user.
//!
//! The monitor can be asked to start an agent as a system user (not root) or as the server's user,
//! to start a lookup process, to have a file opened that the configuration names, and to make a
//! user the owner of a message, if an agent runs as that user.
//!
//! Whatever depends on the configuration is in `daemon`: the places that the server is confined
//! to (`daemon::confine`), and the files that the opener may open (`daemon::opener`). The work of
//! agents is in `deliver::agent`.
//!
//! - `agent`: how an agent drops root's rights
//! - `bytes`: values as bytes, for the messages between these processes
//! - `confine`: Landlock and seccomp, for the server
//! - `drop_root`: dropping root's rights
//! - `fdpass`: sending an open file along with such a message (SCM_RIGHTS)
//! - `lookup`: the process that looks up users
//! - `monitor`: the process that stays root
//! - `opener`: the process that opens files as root
//! - `passwd`: system users, from lookup processes
//! - `request`: the requests to the monitor and its answers
//! - `rights`: the services of the monitor, as the server requests them
//! - `rootpath`: whether only root can change where a path leads

pub mod agent;
pub mod bytes;
pub mod confine;
pub mod drop_root;
pub mod fdpass;
pub mod lookup;
pub mod monitor;
pub mod opener;
pub mod passwd;
pub mod request;
pub mod rights;
pub mod rootpath;

pub use drop_root::user_name;
pub use passwd::User;
pub use rights::Rights;

/// The name of the monitor's process in the output of ps(1).
pub const MONITOR: &str = "penfoldd: monitor";
/// The name of an agent's process in the output of ps(1).
pub const AGENT: &str = "penfoldd: agent";
/// The name of a lookup process in the output of ps(1).
pub const LOOKUP: &str = "penfoldd: lookup";
/// The name of the process that opens files as root, in the output of ps(1).
pub const OPENER: &str = "penfoldd: opener";
