//! The files of one history: `history-messages.N` and `history-refused.N` in `state/` of the spool.
//!
//! `N` counts up. Every process appends to the file with the largest `N`. If that file has a
//! sixteenth of the history's size, or is old, the next file is begun and the oldest files are removed.
//! Each line is `SECONDS.MILLIS LINE`, where the time is counted from 1970. Lines are written whole, by
//! one write(2) with O_APPEND, so that several processes can write at the same time without a lock.
//!
//! The files may contain anything when they are read: no more than [`MAX_SEGMENT`] bytes of a file are
//! read, and at most [`MAX_SEGMENTS`] files.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use super::Kind;
use crate::sys::disk;

/// The number of files into which a history is divided.
const PARTS: u32 = 16;
/// The maximum number of bytes that are read of a file.
const MAX_SEGMENT: u64 = 256 << 20;
/// The maximum number of files that are read or removed at a time.
const MAX_SEGMENTS: usize = 64;
/// How often old files are removed while no new file is begun.
const REMOVAL_INTERVAL: Duration = Duration::from_secs(3600);

/// The files of a history, for a process that appends to them. No file is kept open.
pub(super) struct Segments {
    directory: PathBuf,
    kind: Kind,
    /// The time at which old files were last looked for.
    removed: Option<SystemTime>,
}

/// An open file.
struct Current {
    file: File,
    number: u64,
    /// The time from which the next file is used.
    until: SystemTime,
}

impl Segments {
    pub(super) fn new(directory: &Path, kind: Kind) -> Self {
        Self { directory: directory.to_owned(), kind, removed: None }
    }

    /// Appends complete lines. After an error, a part may have been written.
    pub(super) fn append(&mut self, text: &[u8], size: u64, keep: Duration) -> io::Result<()> {
        let now = SystemTime::now();
        let current = self.open(now, size, keep)?;
        disk::write(&current.file, text)?;
        let is_due = |last: SystemTime| now.duration_since(last).map_or(true, |passed| passed >= REMOVAL_INTERVAL);
        if self.removed.is_none_or(is_due) {
            self.removed = Some(now);
            // A file that cannot be removed is tried again later.
            let _ = self.remove_old(current.number, now, size, keep);
        }
        Ok(())
    }

    /// Opens the file to append to: the newest one, or the one after it if that one is full or old.
    fn open(&mut self, now: SystemTime, size: u64, keep: Duration) -> io::Result<Current> {
        let full = (size / u64::from(PARTS)).max(1);
        let newest = list(&self.directory, self.kind)?.last().map_or(1, |(number, _)| *number);
        let current = self.open_number(newest, now, keep)?;
        if now < current.until && current.file.metadata()?.len() < full {
            return Ok(current);
        }
        self.removed = None;
        self.open_number(newest.saturating_add(1), now, keep)
    }

    fn open_number(&self, number: u64, now: SystemTime, keep: Duration) -> io::Result<Current> {
        let path = self.directory.join(format!("{}.{number}", prefix(self.kind)));
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(O_NOFOLLOW | O_NONBLOCK);
        let file = disk::open(&path, &options)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a file", path.display())));
        }
        let mut last = [b'\n'];
        if let Some(offset) = metadata.len().checked_sub(1) {
            file.read_at(&mut last, offset)?;
        }
        if last != *b"\n" {
            // A process was killed, or the disk was full, in the middle of a line.
            disk::write(&file, b"\n")?;
        }
        let begun = first_time(&file).unwrap_or(now).min(now);
        Ok(Current { file, number, until: begun + keep / PARTS })
    }

    /// Removes files whose last line is too old, and the oldest files if all together are too large.
    fn remove_old(&self, current: u64, now: SystemTime, size: u64, keep: Duration) -> io::Result<()> {
        let mut total = 0;
        for (number, path) in list(&self.directory, self.kind)?.into_iter().rev().take(MAX_SEGMENTS) {
            let Ok(metadata) = path.symlink_metadata() else { continue };
            total += metadata.len();
            let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
            if number < current && (total > size || age.is_some_and(|age| age > keep)) {
                disk::remove(&path)?;
            }
        }
        Ok(())
    }
}

fn prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Messages => "history-messages",
        Kind::Refused => "history-refused",
    }
}

/// The files of a history, the oldest first.
fn list(directory: &Path, kind: Kind) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in directory.read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix(kind))?.strip_prefix('.'));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            files.push((number, entry.path()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// The time of the first line of a file.
fn first_time(file: &File) -> Option<SystemTime> {
    let mut text = [0; 32];
    let count = file.read_at(&mut text, 0).ok()?;
    let digits = text[..count].split(|b| !b.is_ascii_digit()).next()?;
    let seconds = std::str::from_utf8(digits).ok()?.parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Reads all files of a history: see [`super::read`].
pub(super) fn read(directory: &Path, kind: Kind, take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let files = match list(directory, kind) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        files => files?,
    };
    let skipped = files.len().saturating_sub(MAX_SEGMENTS);
    let mut text = Vec::new();
    for (_, path) in files.into_iter().skip(skipped) {
        text.clear();
        let opened = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(&path);
        let Ok(file) = opened else { continue };
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        // After an error, the lines before it are shown.
        let _ = file.take(MAX_SEGMENT).read_to_end(&mut text);
        let end = memchr::memrchr(b'\n', &text).map_or(0, |end| end + 1);
        take(&text[..end]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("penfold-history-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a directory");
        path
    }

    fn all(directory: &Path, kind: Kind) -> String {
        let mut text = Vec::new();
        read(directory, kind, &mut |piece| text.extend_from_slice(piece)).expect("the history");
        String::from_utf8_lossy(&text).into_owned()
    }

    const KEEP: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_history_keeps_the_newest_lines_within_its_size_and_apart_from_the_other_history() {
        let directory = directory("size");
        let (mut refused, mut messages) =
            (Segments::new(&directory, Kind::Refused), Segments::new(&directory, Kind::Messages));
        messages.append(b"1.000 a message\n", 1600, KEEP).expect("written");
        for n in 0..1000 {
            refused.append(format!("{n}.000 refused {n:04}\n").as_bytes(), 1600, KEEP).expect("written");
        }
        let text = all(&directory, Kind::Refused);
        assert!(text.len() <= 1600 + 200 && text.len() > 1200, "{}", text.len());
        assert!(text.ends_with("999.000 refused 0999\n"), "{text}");
        assert_eq!(all(&directory, Kind::Messages), "1.000 a message\n");
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn two_processes_append_and_a_line_that_was_cut_off_does_not_spoil_the_next() {
        let directory = directory("two");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        fs::write(directory.join("history-messages.7"), format!("{now}.000 cut o")).expect("a file");
        let [mut one, mut two] = [(); 2].map(|()| Segments::new(&directory, Kind::Messages));
        for n in 0..3 {
            one.append(format!("{now}.00{n} one\n").as_bytes(), 1 << 20, KEEP).expect("written");
            two.append(format!("{now}.00{n} two\n").as_bytes(), 1 << 20, KEEP).expect("written");
        }
        let text = all(&directory, Kind::Messages);
        assert!(text.starts_with(&format!("{now}.000 cut o\n{now}.000 one\n{now}.000 two\n")), "{text}");
        assert_eq!(text.lines().count(), 7);
        // A file that was removed by hand is created again.
        fs::remove_file(directory.join("history-messages.7")).expect("removed");
        one.append(b"1.000 again\n", 1 << 20, KEEP).expect("written");
        assert_eq!(all(&directory, Kind::Messages), "1.000 again\n");
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn files_with_old_lines_are_left_and_then_removed() {
        let directory = directory("age");
        let now = SystemTime::now();
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let old = |name: &str, days: u64| {
            let time = now - Duration::from_secs(days * 86_400);
            let path = directory.join(name);
            fs::write(&path, format!("{}.000 from day {days}\n", seconds(time))).expect("a file");
            File::options().append(true).open(&path).and_then(|file| file.set_modified(time)).expect("its time");
        };
        old("history-messages.3", 40);
        old("history-messages.4", 20);
        old("history-messages.x", 40);
        let mut segments = Segments::new(&directory, Kind::Messages);
        let keep = 30 * KEEP;
        segments.append(format!("{}.000 now\n", seconds(now)).as_bytes(), 1 << 20, keep).expect("written");
        let text = all(&directory, Kind::Messages);
        assert!(!text.contains("day 40") && text.contains("day 20\n") && text.ends_with("now\n"), "{text}");
        let names: Vec<String> =
            list(&directory, Kind::Messages).expect("files").iter().map(|(number, _)| number.to_string()).collect();
        assert_eq!(names, ["4", "5"]);
        assert!(directory.join("history-messages.x").exists());
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn a_pipe_a_link_and_garbage_in_place_of_a_file_do_no_harm() {
        let directory = directory("garbage");
        fs::write(directory.join("history-refused.1"), b"\xff\0no end").expect("a file");
        std::os::unix::fs::symlink("/etc/passwd", directory.join("history-refused.2")).expect("a link");
        nix::unistd::mkfifo(&directory.join("history-refused.3"), nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
        fs::create_dir(directory.join("history-refused.4")).expect("a directory");
        assert_eq!(all(&directory, Kind::Refused), "");
        let mut segments = Segments::new(&directory, Kind::Refused);
        assert!(segments.append(b"1.000 x\n", 1 << 20, KEEP).is_err());
        assert_eq!(all(&directory.join("missing"), Kind::Refused), "");
        fs::remove_dir_all(&directory).expect("removed");
    }
}
