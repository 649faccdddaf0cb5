//! Privilege separation: which process of the daemon has which rights.
//!
//! - `agents`: agents that deliver as the recipient, and the privileged parent
//! - `authorities`: a confined server and the certificate authorities of the system
//! - `confinement`: which files and system calls the server can reach
//! - `opener`: files that only root can read
//! - `reload`: domains that a reload adds and removes

mod agents;
mod authorities;
mod confinement;
mod opener;
mod reload;
