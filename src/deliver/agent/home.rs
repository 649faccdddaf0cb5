//! Reads the files that redirect mail: a user's `.forward`, or a list that an alias includes.
//!
//! A `.forward` that another user could have written is refused: neither the file nor the home may
//! be writable by group or others, and both must belong to the user or to root. If the home is
//! missing, that is an error: a mount may have failed, so nothing is known about the `.forward`. A
//! list is read with the rights of the user whose file names it. Both kinds of file must be plain
//! files of limited size. The text of the files is parsed in `aliases`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::O_NONBLOCK;

use super::{AgentError, Response};

/// The maximum size of a `.forward`, in bytes.
const MAX_FORWARD: u64 = 64 << 10;
/// The maximum size of a list, in bytes.
const MAX_LIST: u64 = 512 << 10;
/// The mode bits that let group and others write.
const WRITABLE_FOR_OTHERS: u32 = 0o022;

/// Reads the first of the named `.forward` files that exists in a user's home.
pub fn forward(home: &Path, uid: u32, names: &[String]) -> Result<Response, AgentError> {
    let is_owned = |metadata: &fs::Metadata| [uid, 0].contains(&metadata.uid());
    let directory = fs::metadata(home).map_err(|e| failed("look at", home, e))?;
    for name in names.iter().filter(|name| name.starts_with(".forward") && !name.contains('/')) {
        let path = home.join(name);
        let Some(file) = open(&path)? else { continue };
        let metadata = file.metadata().map_err(|e| failed("look at", &path, e))?;
        let why = if !is_owned(&directory) {
            "the home belongs to another user"
        } else if directory.mode() & WRITABLE_FOR_OTHERS != 0 {
            "others may write to the home"
        } else if !metadata.is_file() {
            "it is not a plain file"
        } else if !is_owned(&metadata) {
            "it belongs to another user"
        } else if metadata.mode() & WRITABLE_FOR_OTHERS != 0 {
            "others may write it"
        } else {
            return text(file, &path, MAX_FORWARD);
        };
        return Ok(Response::Refused(why.to_owned()));
    }
    Ok(Response::Absent)
}

/// Reads a list.
pub fn read(path: &Path) -> Result<Response, AgentError> {
    let Some(file) = open(path)? else { return Ok(Response::Absent) };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => text(file, path, MAX_LIST),
        Ok(_) => Ok(Response::Refused("it is not a plain file".to_owned())),
        Err(e) => Err(failed("look at", path, e)),
    }
}

fn text(file: File, path: &Path, max_size: u64) -> Result<Response, AgentError> {
    let mut bytes = Vec::new();
    file.take(max_size + 1).read_to_end(&mut bytes).map_err(|e| failed("read", path, e))?;
    if bytes.len() as u64 > max_size {
        return Ok(Response::Refused(format!("it is longer than {max_size} octets")));
    }
    // Bytes that are not UTF-8 are replaced, so that they spoil only their own line.
    let text = String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}");
    // A replacement character has three bytes, so a large file that is not text grows beyond this
    // size.
    let is_text = text.len() as u64 <= max_size + max_size / 2;
    Ok(if is_text { Response::Text(text) } else { Response::Refused("it is not text in UTF-8".to_owned()) })
}

/// Opens a file, without blocking on a FIFO. Returns `None` if there is no such file.
fn open(path: &Path) -> Result<Option<File>, AgentError> {
    match OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("open", path, e)),
    }
}

fn failed(doing: &str, path: &Path, error: io::Error) -> AgentError {
    AgentError::new(format!("{doing} {}", path.display()), error)
}
