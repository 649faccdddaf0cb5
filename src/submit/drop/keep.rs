//! Makes a file in the drop directory, with the rights of the user who sends the message.
//!
//! A file gets its name when it is complete and on stable storage. Where the file system has no
//! unnamed files, the name of a file that is being written begins with [`UNFINISHED`]. The user may
//! not read the directory, and so cannot sync it: see [`disk::sync_with_name`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{FILE_MODE, UNFINISHED};
use crate::sys::disk;

/// The number of octets that are written at a time.
const PIECE: usize = 64 << 10;

/// Keeps a message: the part before it, and its content. If this returns no error, the file is on
/// stable storage.
///
/// # Errors
/// Those of the system, and of reading the content. After an error there is no file.
pub fn keep(directory: &Path, head: &str, content: &mut dyn Read) -> io::Result<()> {
    let name = random_name()?;
    let path = directory.join(&name);
    if let Ok(file) = disk::create_nameless(directory) {
        fill(&file, head, content)?;
        if disk::link(&file, &path).is_ok() {
            return disk::sync_with_name(&file).inspect_err(|_| drop(disk::remove(&path)));
        }
        // Without /proc, an unnamed file gets no name. Its content was read, so it is copied.
        return copy(&file, directory, &name);
    }
    named(directory, &name, |file| fill(file, head, content))
}

/// Copies a complete file into a file with a name.
fn copy(from: &File, directory: &Path, name: &str) -> io::Result<()> {
    use std::io::Seek;
    let mut from = from;
    from.seek(io::SeekFrom::Start(0))?;
    named(directory, name, |file| disk::copy(from, file).and_then(|_| finish(file)))
}

/// Makes a file with a name, which it gets when it is complete.
fn named(directory: &Path, name: &str, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let (unfinished, path): (PathBuf, _) = (directory.join(format!("{UNFINISHED}{name}")), directory.join(name));
    let file = disk::create(&unfinished)?;
    fill(&file).and_then(|()| disk::rename_new(&unfinished, &path)).inspect_err(|_| drop(disk::remove(&unfinished)))?;
    disk::sync_with_name(&file).inspect_err(|_| drop(disk::remove(&path)))
}

fn fill(file: &File, head: &str, content: &mut dyn Read) -> io::Result<()> {
    disk::write(file, head.as_bytes())?;
    let mut piece = vec![0; PIECE];
    loop {
        match content.read(&mut piece) {
            Ok(0) => return finish(file),
            Ok(count) => disk::write(file, piece.get(..count).unwrap_or_default())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Gives a complete file its mode, and syncs it.
fn finish(file: &File) -> io::Result<()> {
    disk::set_mode(file, FILE_MODE)?;
    disk::sync(file)
}

/// A name that no other user can guess.
fn random_name() -> io::Result<String> {
    let number = || getrandom::u64().map_err(|e| io::Error::other(e.to_string()));
    Ok(format!("{:016x}{:016x}", number()?, number()?))
}
