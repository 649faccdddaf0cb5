//! Counts what a Maildir holds, in the file `maildirsize` of Maildir++, which Courier, Dovecot and
//! other programs share.
//!
//! The first line of the file has the limit, as in `1000000S`. Each further line has two numbers
//! that are added up: bytes and messages, negative ones for messages that were removed. A delivery
//! appends its line before the message appears in the Maildir. Of several deliveries at the same
//! time, those whose lines come first get the room. If the message is then not delivered, another
//! line takes the first one back, or the count is too high for a while, which no recipient
//! suffers from: before a message is refused, the files are counted again, unless the file has the
//! result of such a count that is younger than [`MAX_AGE`].
//!
//! All messages count, also those in folders, in `.Trash` and those with the flag T. The size is
//! that in the name of a file (`,S=1234`), or else the size of the file. Links are not followed.
//!
//! The file belongs to the user of the mailbox, who can write anything into it. A malformed file is
//! replaced by a new one. Nothing is synced: what a power cut has spoilt is counted again.

use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::libc::{O_APPEND, O_NOFOLLOW, O_NONBLOCK};

use super::AgentError;
use super::maildir::At;
use crate::sys::disk;
use crate::users::Contents;

/// The name of the file in the Maildir.
const NAME: &str = "maildirsize";
/// A file of at least this size, in bytes, is replaced by a new one.
const MAX_SIZE: u64 = 5120;
/// The age at which a full mailbox is counted again.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// Maximum length of the first line that is kept, in bytes.
const MAX_HEADER: usize = 64;
/// Maximum number of files in `tmp/` that are looked at for those that a crash has left.
const MAX_LEFT: usize = 1000;
/// Maximum number of folders that are counted.
const MAX_FOLDERS: usize = 10_000;
/// How often the files are counted again if they change meanwhile.
const MAX_COUNTS: usize = 3;
/// The time that counting the files may take at a delivery.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The time that counting the files may take while somebody waits for the result.
pub const BRIEF_PATIENCE: Duration = Duration::from_secs(5);
/// Maximum number of new files of other programs to which a line is appended in vain.
const MAX_REPLACED: usize = 5;

/// What became of the attempt to reserve room for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// The message is counted, in the file with this inode number; `None` if there is no such file.
    Yes(Option<u64>),
    /// The message does not fit. Holds the use without it.
    Full(Contents),
    /// The files would have to be counted, which takes too long here.
    Unknown,
}

/// A Maildir with a limit.
#[derive(Debug, Clone, Copy)]
pub struct Limited<'a> {
    /// The Maildir, not one of its folders.
    pub maildir: &'a Path,
    /// The limit, in bytes.
    pub limit: u64,
    /// The time that counting the files may take. If it is zero, they are not counted.
    pub patience: Duration,
}

/// The contents of a valid file.
struct Tally {
    file: File,
    contents: Contents,
    /// The number of lines after the first.
    lines: usize,
    is_old: bool,
}

impl Limited<'_> {
    /// Counts a message of `size` bytes that is about to be delivered, if it fits. Makes the Maildir
    /// if it is missing.
    pub fn reserve(&self, size: u64) -> Result<Reserved, AgentError> {
        At(self.maildir).settle()?;
        let mut counted = None;
        for _ in 0..MAX_REPLACED {
            let tally = self.open(true).map_err(|error| self.failed("read", error))?;
            if let Some(tally) = &tally {
                if self.has_room(tally.contents, size) {
                    let appended = self.append(tally, size).map_err(|error| self.failed("write", error))?;
                    match appended {
                        Appended::First(inode) => return Ok(Reserved::Yes(Some(inode))),
                        // Another program has replaced the file meanwhile.
                        Appended::Nowhere => continue,
                        Appended::Late => {}
                    }
                } else if counted.is_some() || tally.is_reliable() {
                    return Ok(Reserved::Full(tally.contents));
                }
            }
            if let Some(contents) = counted {
                // The file cannot be written, or changes all the time.
                return Ok(if self.has_room(contents, size) { Reserved::Yes(None) } else { Reserved::Full(contents) });
            }
            if self.patience.is_zero() {
                return Ok(Reserved::Unknown);
            }
            counted = Some(self.count_again(true)?);
        }
        Ok(Reserved::Yes(None))
    }

    /// Counts a delivered message again if the file in which [`Limited::reserve`] has counted it was
    /// replaced meanwhile: the new file may have been made before the message appeared.
    pub fn confirm(&self, size: u64, inode: u64) {
        let path = self.maildir.join(NAME);
        if fs::symlink_metadata(path).is_ok_and(|found| found.ino() != inode)
            && let Ok(Some(tally)) = self.open(true)
        {
            let _ = disk::write(&tally.file, line(size, "").as_bytes());
        }
    }

    /// Takes back what [`Limited::reserve`] has counted, because the message was not delivered. If the
    /// file was replaced meanwhile, the message is not counted in the new one.
    pub fn release(&self, size: u64, inode: u64) {
        if let Ok(Some(tally)) = self.open(true)
            && tally.file.metadata().is_ok_and(|found| found.ino() == inode)
        {
            // If this fails, the count is too high until the next one.
            let _ = disk::write(&tally.file, line(size, "-").as_bytes());
        }
    }

    /// Returns the use of the mailbox, for the question whether a message of `size` bytes fits. The
    /// files are counted if the file is not reliable, and the result is written into the file if
    /// `keeps` is set. Returns `None` if that would take too long here.
    pub fn contents(&self, size: u64, keeps: bool) -> Result<Option<Contents>, AgentError> {
        match self.open(false).map_err(|error| self.failed("read", error))? {
            Some(tally) if self.has_room(tally.contents, size) || tally.is_reliable() => Ok(Some(tally.contents)),
            _ if self.patience.is_zero() => Ok(None),
            _ => self.count_again(keeps).map(Some),
        }
    }

    fn has_room(&self, contents: Contents, size: u64) -> bool {
        contents.leaves_room(size, self.limit)
    }

    /// Reads the file; `None` if it is missing, or must be replaced.
    fn open(&self, to_append: bool) -> io::Result<Option<Tally>> {
        let flags = O_NOFOLLOW | O_NONBLOCK | if to_append { O_APPEND } else { 0 };
        let opened = OpenOptions::new().read(true).write(to_append).custom_flags(flags).open(self.maildir.join(NAME));
        let file = match opened {
            Ok(file) => file,
            Err(e) if is_replaceable(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() >= MAX_SIZE {
            return Ok(None);
        }
        let mut text = Vec::new();
        (&file).take(MAX_SIZE).read_to_end(&mut text)?;
        // A file from the future is as good as an old one: the clock was set back.
        let age = metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        let is_old = age.is_none_or(|age| age >= MAX_AGE);
        let read = parse(&text).filter(|_| (text.len() as u64) < MAX_SIZE);
        Ok(read.filter(|(header, ..)| size_limit(header) == Some(self.limit)).map(|(_, contents, lines)| Tally {
            file,
            contents,
            lines,
            is_old,
        }))
    }

    /// Appends the line of a message. If the lines before it leave no room for it, takes it back.
    fn append(&self, tally: &Tally, size: u64) -> io::Result<Appended> {
        let mut file = &tally.file;
        disk::write(file, line(size, "").as_bytes())?;
        let metadata = file.metadata()?;
        if metadata.nlink() == 0 {
            return Ok(Appended::Nowhere);
        }
        let end = file.stream_position()?;
        let mut text = vec![0; usize::try_from(end.min(2 * MAX_SIZE)).unwrap_or_default()];
        file.read_exact_at(&mut text, 0)?;
        let is_first = parse(&text).is_none_or(|(_, contents, _)| contents.size <= self.limit);
        if is_first {
            return Ok(Appended::First(metadata.ino()));
        }
        disk::write(file, line(size, "-").as_bytes())?;
        Ok(Appended::Late)
    }

    /// Counts the files. If `keeps` is set, makes a new file with the result.
    fn count_again(&self, keeps: bool) -> Result<Contents, AgentError> {
        let until = Instant::now() + self.patience;
        let mut counted = self.count(until).map_err(|error| self.failed("count", error))?;
        for _ in 1..MAX_COUNTS {
            if times(&counted.places) == counted.times {
                break;
            }
            counted = self.count(until).map_err(|error| self.failed("count", error))?;
        }
        if keeps {
            // If there is no file, the next delivery counts again.
            let _ = self.replace(counted.contents);
        }
        Ok(counted.contents)
    }

    fn count(&self, until: Instant) -> io::Result<Counted> {
        let mut places = places(self.maildir);
        for folder in folders(self.maildir)? {
            if places.len() > 2 * MAX_FOLDERS {
                return Err(io::Error::other("there are too many folders"));
            }
            places.extend(self::places(&folder));
        }
        let mut counted = Counted { times: times(&places), contents: Contents::default(), places };
        for place in &counted.places {
            let files = match fs::read_dir(place) {
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                files => files?,
            };
            for (number, file) in files.enumerate() {
                if number % 256 == 0 && Instant::now() >= until {
                    return Err(io::Error::new(ErrorKind::TimedOut, "there are too many files"));
                }
                if let Some(size) = size_of(&file?)? {
                    counted.contents.size = counted.contents.size.saturating_add(size);
                    counted.contents.messages += 1;
                }
            }
        }
        Ok(counted)
    }

    /// Replaces the file by a new one. Other limits in the first line, such as one for the number of
    /// messages, are kept.
    fn replace(&self, contents: Contents) -> io::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let header = self.header().unwrap_or_else(|| format!("{}S", self.limit));
        let (number, Contents { size, messages }) = (NUMBER.fetch_add(1, Ordering::Relaxed), contents);
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let directory = self.maildir.join("tmp");
        let temporary = directory.join(format!("{time}.P{}Q{number}.{NAME}", process::id()));
        let file = disk::create(&temporary)?;
        remove_left(&directory);
        let written = disk::write(&file, format!("{header}\n{size} {messages}\n").as_bytes())
            .and_then(|()| disk::rename(&temporary, &self.maildir.join(NAME)));
        if written.is_err() {
            let _ = disk::remove(&temporary);
        }
        written
    }

    /// The first line of the file, if it has this limit.
    fn header(&self) -> Option<String> {
        let flags = O_NOFOLLOW | O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.maildir.join(NAME)).ok()?;
        let mut text = Vec::new();
        file.take(MAX_HEADER as u64).read_to_end(&mut text).ok()?;
        let header = str::from_utf8(text.split(|byte| *byte == b'\n').next()?).ok()?.trim_end();
        let is_plain = header.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b',');
        (is_plain && header.len() < MAX_HEADER && size_limit(header) == Some(self.limit)).then(|| header.to_owned())
    }

    fn failed(&self, doing: &str, error: io::Error) -> AgentError {
        let path = if doing == "count" { self.maildir.to_owned() } else { self.maildir.join(NAME) };
        AgentError::new(format!("{doing} {}", path.display()), error)
    }
}

/// Removes files of earlier recounts from `tmp/`, which a crash has left there.
fn remove_left(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(MAX_LEFT);
    for entry in entries.filter(|entry| entry.file_name().as_encoded_bytes().ends_with(NAME.as_bytes())) {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        if changed.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > MAX_AGE)) {
            let _ = disk::remove(&entry.path());
        }
    }
}

/// What became of a line that was appended.
enum Appended {
    /// The lines before it leave room for the message. Holds the inode number of the file.
    First(u64),
    /// They do not. The line was taken back.
    Late,
    /// The file has no name any more.
    Nowhere,
}

/// The result of counting.
struct Counted {
    contents: Contents,
    /// The directories that were counted.
    places: Vec<PathBuf>,
    /// When each of them was changed, before it was read.
    times: Vec<Option<(i64, i64)>>,
}

impl Tally {
    /// Whether the file has the result of a count, and no line since, and is young.
    fn is_reliable(&self) -> bool {
        self.lines <= 1 && !self.is_old
    }
}

/// Whether a file that cannot be opened for this reason is replaced by a new one.
fn is_replaceable(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
        || [Errno::ELOOP as i32, Errno::ENXIO as i32].map(Some).contains(&error.raw_os_error())
}

fn line(size: u64, sign: &str) -> String {
    format!("{sign}{size} {sign}1\n")
}

/// Reads the text of a file: the first line, the sums, and the number of lines after the first.
/// `None` if the text is malformed.
fn parse(text: &[u8]) -> Option<(&str, Contents, usize)> {
    let text = str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let mut lines = text.split('\n');
    let header = lines.next()?.trim_end();
    let (mut size, mut messages, mut count) = (0_i64, 0_i64, 0);
    for line in lines {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<i64>);
        let (Some(Ok(more)), Some(Ok(files)), None) = (numbers.next(), numbers.next(), numbers.next()) else {
            return None;
        };
        (size, messages, count) = (size.checked_add(more)?, messages.checked_add(files)?, count + 1);
    }
    let contents = Contents { size: u64::try_from(size).ok()?, messages: u64::try_from(messages).ok()? };
    (count > 0).then_some((header, contents, count))
}

/// The limit of the size in the first line, such as `1000000S,1000C`.
fn size_limit(header: &str) -> Option<u64> {
    header.split(',').find_map(|limit| limit.strip_suffix('S')?.parse().ok())
}

/// The directories of a Maildir that have messages.
fn places(maildir: &Path) -> Vec<PathBuf> {
    ["new", "cur"].map(|directory| maildir.join(directory)).into()
}

/// The times at which directories were changed; `None` for a directory that is missing.
fn times(places: &[PathBuf]) -> Vec<Option<(i64, i64)>> {
    let time = |place: &PathBuf| fs::metadata(place).ok().map(|found| (found.mtime(), found.mtime_nsec()));
    places.iter().map(time).collect()
}

/// The folders of a Maildir.
fn folders(maildir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(maildir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b".") && !name.starts_with(b"..") && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
        if folders.len() > MAX_FOLDERS {
            break;
        }
    }
    Ok(folders)
}

/// The size of a message: that in its name, or else that of the file. `None` if the file is not a
/// message, or is gone.
fn size_of(file: &DirEntry) -> io::Result<Option<u64>> {
    let name = file.file_name();
    let name = name.as_encoded_bytes();
    if name.starts_with(b".") {
        return Ok(None);
    }
    if let Some(size) = size_in(name) {
        return Ok(Some(size));
    }
    match file.metadata() {
        Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The size in the name of a file, such as 1234 in `1.x.host,S=1234:2,S`.
fn size_in(name: &[u8]) -> Option<u64> {
    let name = str::from_utf8(name).ok()?;
    let (_, rest) = name.split_once(",S=")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    if after.is_empty() || after.starts_with([':', ',']) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
