//! Privilege separation: the processes of a server that root has started, and what each
//! may ask of the others.
//!
//! - `bytes`: values as bytes, for the messages between these processes
//! - `confine`: Landlock and seccomp, for the server
//! - `fdpass`: an open file beside such a message (SCM_RIGHTS)
//! - `passwd`: users of the system, and the processes that look them up
//! - `request`: the requests to the monitor and its answers
//! - `rights`: what the server may have done by the monitor
//! - `rootpath`: whether only root can change where a path leads

pub mod bytes;
pub mod confine;
pub mod fdpass;
pub mod passwd;
pub mod request;
pub mod rights;
pub mod rootpath;
