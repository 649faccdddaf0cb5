//! Starts the monitor, the process that stays root, and changes the server from root to its own
//! user.

use std::ffi::OsString;
use std::io;

use nix::unistd::User;

use super::Start;
use super::detach::remove_pid_file;
use crate::config::{Config, ConfigError};
use crate::exit::{self, Exit};
use crate::listen::Owner;
use crate::privsep::{Rights, drop_root, monitor};
use crate::spool::HANDOVER_MODE;
use crate::sys;

const _: () = assert!(HANDOVER_MODE == monitor::HANDOVER_MODE);

impl Start {
    /// Starts the monitor if this process is root.
    ///
    /// # Errors
    /// If the user cannot be looked up or the process cannot be started. Callers only log the
    /// error: the server starts anyway, but mail for system users waits.
    pub(super) fn start_monitor(&self, config: &Config) -> io::Result<Rights> {
        if !sys::is_root() {
            return Ok(Rights::Alone);
        }
        // If the user does not exist, become_user reports that later.
        let Some(user) = User::from_name(&config.user)? else { return Ok(Rights::Alone) };
        let mut arguments = self.same_configuration();
        if let Some(path) = &self.pid_file {
            arguments.extend([OsString::from("-p"), path.into()]);
        }
        monitor::start(arguments, (user.uid.as_raw(), user.gid.as_raw()), config.queue.workers)
    }

    /// Returns the uid and the gid of the server's user if this process is root and the user exists.
    pub(super) fn owner(config: &Config) -> Option<Owner> {
        let user = sys::is_root().then(|| User::from_name(&config.user).ok().flatten()).flatten()?;
        Some((user.uid.as_raw(), user.gid.as_raw()))
    }

    fn same_configuration(&self) -> Vec<OsString> {
        self.config.iter().flat_map(|path| [OsString::from("-f"), path.into()]).collect()
    }

    /// Runs the monitor of a server that runs as the user `server` (uid and gid) with this many
    /// workers. When the server has ended, removes the server's pid file.
    ///
    /// # Errors
    /// If standard input is not a socket or fails, or the monitor cannot set itself up.
    pub fn run_monitor(&self, server: (u32, u32), workers: usize) -> io::Result<()> {
        let daemon = std::os::unix::process::parent_id();
        monitor::run(server, workers, self.same_configuration())?;
        self.pid_file.as_deref().into_iter().for_each(|path| remove_pid_file(path, daemon));
        Ok(())
    }

    /// Makes this process run as the server's user for good, if it is root.
    ///
    /// # Errors
    /// If there is no such user, if the user is root, or if root's rights cannot be dropped.
    pub fn become_user(&self, config: &Config) -> Result<(), Exit> {
        drop_root::become_server(&config.user).map_err(|e| {
            let error = ConfigError::whole(self.path(), format!("become user {}: {e}", config.user));
            if self.path().exists() {
                return Exit::of_config(&[error]);
            }
            // The form of an error in a file would name a file that is not there.
            let text =
                vec![format!("there is no {}: become user {}, the default: {e}", self.path().display(), config.user)];
            Exit { code: exit::CONFIG, text }
        })
    }
}

/// Checks that the server has not lost its monitor.
///
/// # Errors
/// If the monitor has ended. The exit code makes the service manager start the server again.
pub(super) fn check_monitor(rights: &Rights) -> Result<(), Exit> {
    match rights.has_lost_monitor() {
        false => Ok(()),
        true => Err(Exit { code: exit::OSERR, text: vec!["the monitor has ended".to_owned()] }),
    }
}
