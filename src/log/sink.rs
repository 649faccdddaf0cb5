//! Writes the lines of the log to a file or to syslog.
//!
//! A line that cannot be written goes to standard error. For syslog each line is a datagram, and
//! syslogd has at most a second to accept it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::log::warn;

use crate::config::LogTo;

/// Makes the next line open the log file again, since the file may have been rotated.
pub fn reopen() {
    REOPEN.store(true, Ordering::Relaxed);
}

static REOPEN: AtomicBool = AtomicBool::new(false);

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open_log(path)? })
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if REOPEN.swap(false, Ordering::Relaxed) {
            // If the new file cannot be opened, the old one is used.
            self.file = open_log(&self.path).or_else(|_| self.file.try_clone())?;
        }
        if self.file.write_all(line).is_err() {
            let _ = io::stderr().write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The socket of syslogd.
const DEV_LOG: &str = "/dev/log";

#[derive(Default)]
pub(super) struct Syslog {
    socket: Option<UnixDatagram>,
}

impl Syslog {
    fn connect() -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(DEV_LOG)?;
        socket.set_write_timeout(Some(Duration::from_secs(1)))?;
        Ok(socket)
    }
}

impl Write for Syslog {
    /// Sends `line` as one datagram: env_logger passes each record in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let datagram = line.strip_suffix(b"\n").unwrap_or(line);
        // If syslogd was restarted, the first attempt fails and the second one succeeds.
        for _ in 0..2 {
            if self.socket.is_none() {
                self.socket = Self::connect().ok();
            }
            match &self.socket {
                Some(socket) if socket.send(datagram).is_ok() => return Ok(line.len()),
                _ => self.socket = None,
            }
        }
        let _ = io::stderr().write_all(without_priority(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line without its `<priority>`.
fn without_priority(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|&b| b == b'>').map_or(0, |end| end + 1);
    line.get(end..).unwrap_or(line)
}

/// Warns if the log goes to syslog and there is no syslogd.
pub fn warn_of_missing_syslog(to: &LogTo) {
    if *to == LogTo::Syslog && Syslog::connect().is_err() {
        warn!("no syslog at {DEV_LOG}: nothing is logged in the background; see log.to");
    }
}
