//! Appends messages to a file of many messages, mbox(5), for an agent.
//!
//! A message begins with a line `From sender date` and ends with an empty line. A `>` is put before
//! each other line that looks like the first line of a message. The file is locked in both usual
//! ways: with a file NAME.lock beside it, if the directory permits that, and with fcntl(2). If a
//! message cannot be written and synced completely, the file is truncated to its old length. The
//! file must not be a link or a device, except `/dev/null`, where everything is discarded. After a
//! crash nothing shows whether a message was written, so the message may be delivered twice. If a
//! crash left a partial message, the partial message stays in the file, and the next message is put
//! after an empty line.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use super::{AgentError, Part};
use crate::spool::Content;
use crate::sys::{self, disk};

/// How long to wait for another program's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);
/// The interval between two tries to lock.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// A lock file that is older than this is assumed to be left by a crash.
const STALE_LOCK_AGE: Duration = Duration::from_secs(600);
/// The text is collected, and written to the file once it has this many bytes, 64 KiB. A longer
/// line is read in pieces of this size.
const CHUNK: u64 = 64 << 10;

/// Appends a message to the file at a path.
pub fn append(path: &Path, head: &str, message: &File, content: Part) -> Result<(), AgentError> {
    if path == Path::new("/dev/null") {
        return Ok(());
    }
    let failed = |doing: &str, error: io::Error| AgentError::new(format!("{doing} {}", path.display()), error);
    let deadline = Instant::now() + LOCK_TIMEOUT;
    let _beside = LockFile::take(path, deadline).map_err(|e| failed("lock", e))?;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(O_NOFOLLOW | O_NONBLOCK);
    let file = disk::open(path, &options).map_err(|e| failed("open", e))?;
    let metadata = file.metadata().map_err(|e| failed("look at", e))?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(failed("write", io::Error::other("it is not a plain file with one name")));
    }
    super::check_owner(path, &metadata).map_err(|e| failed("write", e))?;
    lock(&file, deadline).map_err(|e| failed("lock", e))?;
    let before = file.metadata().map_err(|e| failed("look at", e))?.len();
    let front = missing_end(path, before).to_owned() + head;
    let written = write(&file, &front, Content::new(message, content.at, content.at + content.size));
    let written = written.and_then(|()| match path.parent() {
        Some(directory) if before == 0 => disk::sync_directory(directory),
        _ => Ok(()),
    });
    written.map_err(|e| {
        let kept = disk::cut(&file, before).map_err(|e| failed("cut off what was written to", e));
        kept.err().unwrap_or_else(|| failed("write", e))
    })
}

fn write(file: &File, head: &str, content: Content<'_>) -> io::Result<()> {
    let mut text = Vec::with_capacity(CHUNK as usize);
    text.extend_from_slice(head.as_bytes());
    let (mut from, mut is_start) = (BufReader::new(content), true);
    loop {
        let piece_start = text.len();
        if from.by_ref().take(CHUNK).read_until(b'\n', &mut text)? == 0 {
            break;
        }
        if is_start && looks_like_from(text.get(piece_start..).unwrap_or_default()) {
            text.insert(piece_start, b'>');
        }
        is_start = text.ends_with(b"\n");
        if text.len() as u64 >= CHUNK {
            disk::write(file, &text)?;
            text.clear();
        }
    }
    text.extend_from_slice(if is_start { b"\n" } else { b"\n\n" });
    disk::write(file, &text)?;
    disk::sync(file)
}

/// Whether a line that begins with `front` looks like the first line of a message.
fn looks_like_from(front: &[u8]) -> bool {
    let after = front.iter().position(|&b| b != b'>').and_then(|at| front.get(at..));
    after.is_some_and(|text| text.starts_with(b"From "))
}

/// Returns the newlines that are missing at the end of the file: a message ends with an empty line,
/// but a crash may have cut off the last message. Returns an empty string if nothing is missing or
/// the file cannot be read.
fn missing_end(path: &Path, length: u64) -> &'static str {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK);
    let mut last = [0; 2];
    let read = options.open(path).and_then(|file| file.read_exact_at(&mut last, length.saturating_sub(2)));
    match (read, last) {
        (Err(_), _) | (Ok(()), [b'\n', b'\n']) => "",
        (Ok(()), [_, b'\n']) => "\n",
        (Ok(()), _) => "\n\n",
    }
}

/// Locks the whole file. If another program has locked the file, waits until the deadline.
fn lock(file: &File, deadline: Instant) -> io::Result<()> {
    loop {
        match sys::lock(file) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::PermissionDenied) => pause(deadline)?,
            result => return result,
        }
    }
}

fn pause(deadline: Instant) -> io::Result<()> {
    if Instant::now() >= deadline {
        return Err(io::Error::new(ErrorKind::TimedOut, "another program has locked it"));
    }
    thread::sleep(LOCK_RETRY_INTERVAL);
    Ok(())
}

/// The lock file beside the mailbox. It is removed when this value is dropped.
struct LockFile(PathBuf);

impl LockFile {
    /// Makes the lock file. Returns `None` if this user may not make files in the directory.
    fn take(path: &Path, deadline: Instant) -> io::Result<Option<Self>> {
        let mut name = OsString::from(path);
        name.push(".lock");
        let path = PathBuf::from(name);
        loop {
            match disk::create(&path) {
                Ok(_) => return Ok(Some(Self(path))),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                    return Ok(None);
                }
                Err(e) => return Err(e),
            }
            let age =
                fs::symlink_metadata(&path).and_then(|lock| lock.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > STALE_LOCK_AGE) {
                disk::remove(&path)?;
            } else {
                pause(deadline)?;
            }
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // If the lock file cannot be removed, others may remove it after [`STALE_LOCK_AGE`].
        let _ = disk::remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_look_like_the_first_are_marked() {
        for (line, is_marked) in [
            ("From x", true),
            (">From x", true),
            (">>>From ", true),
            ("From", false),
            ("> From x", false),
            (">", false),
            ("", false),
        ] {
            assert_eq!(looks_like_from(line.as_bytes()), is_marked, "{line}");
        }
    }
}
