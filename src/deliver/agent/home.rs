//! Files that say where mail goes: a user's `.forward`, a list that an alias includes.
//!
//! A `.forward` that others could have written is not believed, and why is said: neither
//! the file nor the home may be writable for group or others, and both belong to the user
//! or to root. A home that is not there is trouble, not a user without a `.forward`: it may
//! be one that is mounted. A list is read with the rights of whoever names it. Both are
//! bounded, plain files of text. Reads only; what the text says is for `aliases`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::O_NONBLOCK;

use super::{AgentError, Response};

/// The longest `.forward`, in octets.
const MAX_FORWARD: u64 = 64 << 10;
/// The longest list, in octets.
const MAX_LIST: u64 = 512 << 10;
/// Writing for group and others.
const FOR_OTHERS: u32 = 0o022;

/// The text of the first of some files in a user's home.
pub fn forward(home: &Path, uid: u32, names: &[String]) -> Result<Response, AgentError> {
    let is_his = |metadata: &fs::Metadata| [uid, 0].contains(&metadata.uid());
    let directory = fs::metadata(home).map_err(|e| trouble("look at", home, e))?;
    for name in names.iter().filter(|name| name.starts_with(".forward") && !name.contains('/')) {
        let path = home.join(name);
        let Some(file) = open(&path)? else { continue };
        let metadata = file.metadata().map_err(|e| trouble("look at", &path, e))?;
        let why = if !is_his(&directory) {
            "the home belongs to somebody else"
        } else if directory.mode() & FOR_OTHERS != 0 {
            "others may write to the home"
        } else if !metadata.is_file() {
            "it is no plain file"
        } else if !is_his(&metadata) {
            "it belongs to somebody else"
        } else if metadata.mode() & FOR_OTHERS != 0 {
            "others may write it"
        } else {
            return text(file, &path, MAX_FORWARD);
        };
        return Ok(Response::Refused(why.to_owned()));
    }
    Ok(Response::Absent)
}

/// The text of a list.
pub fn read(path: &Path) -> Result<Response, AgentError> {
    let Some(file) = open(path)? else { return Ok(Response::Absent) };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => text(file, path, MAX_LIST),
        Ok(_) => Ok(Response::Refused("it is no plain file".to_owned())),
        Err(e) => Err(trouble("look at", path, e)),
    }
}

fn text(file: File, path: &Path, most: u64) -> Result<Response, AgentError> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| trouble("read", path, e))?;
    if bytes.len() as u64 > most {
        return Ok(Response::Refused(format!("it is longer than {most} octets")));
    }
    // What is no text matters to its own line only.
    let text = String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}");
    // It grows by that.
    let is_text = text.len() as u64 <= most + most / 2;
    Ok(if is_text { Response::Text(text) } else { Response::Refused("it is no text in UTF-8".to_owned()) })
}

/// Opens a file without waiting for anybody, as a FIFO would; `None` if there is none.
fn open(path: &Path) -> Result<Option<File>, AgentError> {
    match OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(trouble("open", path, e)),
    }
}

fn trouble(doing: &str, path: &Path, error: io::Error) -> AgentError {
    AgentError::new(format!("{doing} {}", path.display()), error)
}
