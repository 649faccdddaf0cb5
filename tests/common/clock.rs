//! A clock that a test sets: the library libfaketime, preloaded into a daemon.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::Pid;

use super::{Daemon, Site};

/// The clock for the daemons of a site.
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
    daemons: RefCell<Vec<Pid>>,
}

impl Clock {
    /// A clock that shows the right time. Without libfaketime the test is reported as skipped, and
    /// the result is `None`.
    pub fn new(site: &Site) -> Option<Self> {
        let places = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let mut libraries = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
        let Some(library) = libraries.find(|path| path.exists()) else {
            super::skipped("libfaketime is not installed");
            return None;
        };
        let clock = Self { library, file: site.path("clock"), daemons: RefCell::default() };
        clock.set("+0");
        Some(clock)
    }

    /// Shifts the clock by a text such as `-1d` or `+10y`; `+0` sets the right time.
    pub fn set(&self, by: &str) {
        let new = self.file.with_extension("new");
        fs::write(&new, by).expect("a file");
        // The daemon of another user reads it, also if code under test has changed the umask.
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).expect("a file of ours");
        fs::rename(new, &self.file).expect("a rename");
    }

    /// Starts a daemon with this clock. If `is_felt`, the daemon's monotonic clock is shifted, too.
    pub fn start(&self, site: &Site, is_felt: bool) -> Daemon {
        let mut command = site.penfoldd(&["-d"]);
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1");
        if !is_felt {
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        // The library makes files in /dev/shm that only the same user can remove, so the daemon
        // starts as the user that it would change to.
        let owner = fs::metadata(site.path("spool")).expect("a spool");
        command.uid(owner.uid()).gid(owner.gid());
        let daemon = Daemon::spawn(command);
        self.daemons.borrow_mut().push(daemon.pid());
        daemon
    }
}

impl Clock {
    /// Makes time pass `times` as fast for a short-lived program.
    pub fn hurry(&self, command: &mut Command, times: u32) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME", format!("+0 x{times}"));
    }
}

impl Drop for Clock {
    /// Removes the files of the library, which a killed daemon leaves behind.
    fn drop(&mut self) {
        for pid in self.daemons.borrow().iter() {
            for name in ["faketime_shm_", "sem.faketime_sem_"] {
                let _ = fs::remove_file(format!("/dev/shm/{name}{pid}"));
            }
        }
    }
}
