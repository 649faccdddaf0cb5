//! Sends entries to the journal of systemd, if standard error leads there.
//!
//! An entry is one datagram with fields (systemd.journal-fields(7)). The text of the line is in the
//! field MESSAGE. The id, the event and each pair of an event are in fields that begin with PENFOLD_, so
//! that `journalctl PENFOLD_ID=...` finds them. An entry that cannot be sent goes to standard error.

use std::env;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::stat::fstat;

use super::line::Line;

pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// The journal that systemd has connected to standard error; `None` if there is none.
    pub(super) fn of_standard_error() -> Option<Self> {
        // systemd sets this variable to the device and the inode of the stream.
        let stream = env::var("JOURNAL_STREAM").ok()?;
        let (device, inode) = stream.split_once(':')?;
        let file = fstat(io::stderr()).ok()?;
        if (Ok(file.st_dev), Ok(file.st_ino)) != (device.parse(), inode.parse()) {
            return None;
        }
        let path = match env::var("LOG_NAMESPACE") {
            Ok(name) if !name.is_empty() => format!("/run/systemd/journal.{name}/socket"),
            _ => "/run/systemd/journal/socket".to_owned(),
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(path).ok()?;
        socket.set_write_timeout(Some(Duration::from_secs(1))).ok()?;
        Some(Self { socket })
    }
}

impl Write for Journal {
    /// Sends `entry` as one datagram: env_logger passes each record in one call.
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        if self.socket.send(entry).is_err() {
            // The first line of an entry is its text.
            let line = entry.split_inclusive(|&b| b == b'\n').next().unwrap_or_default();
            let _ = io::stderr().write_all(line.strip_prefix(b"MESSAGE=").unwrap_or(line));
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns an entry with the text `message`, which is one line.
pub(super) fn entry(message: &str, severity: u8, event: Option<&Line<'_>>, program: &str) -> Vec<u8> {
    let mut entry = Vec::new();
    push(&mut entry, "MESSAGE", message);
    push(&mut entry, "PRIORITY", &severity.to_string());
    push(&mut entry, "SYSLOG_IDENTIFIER", program);
    push(&mut entry, "SYSLOG_FACILITY", "2");
    if let Some(line) = event {
        push(&mut entry, "PENFOLD_ID", line.id);
        push(&mut entry, "PENFOLD_EVENT", line.event);
        for (key, value) in &line.pairs {
            push(&mut entry, &format!("PENFOLD_{}", key.to_ascii_uppercase().replace('-', "_")), value);
        }
    }
    entry
}

fn push(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}
