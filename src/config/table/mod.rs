//! Reads table files: small text files that are read again when they change.
//!
//! Every use of a [`Watched`] table checks its file with stat(2), and reads the file again if it
//! has changed. A caller gets either the old or the new table, never a mixture, and may keep it. A
//! file in a directory that only root can search, or that only root can read and that root's process has
//! refused to open, is read again at most every 10 seconds.
//!
//! After the first reading, an error never removes a table: if the file has errors, is removed or
//! cannot be read, the old table stays in force. The errors are logged once for each change. A
//! tolerant table ([`Watched::open_tolerant`]) begins with the valid lines of its file, and the
//! caller decides whether the errors prevent the start. A file that the configuration does not name
//! may be absent. In that case, the table is empty until the file appears.
//!
//! The modules that use tables define their formats, for example `aliases`, `users` and `route`. In
//! all tables, a line whose first character is `#` is a comment.
//!
//! - `hosts`: keys that are domains and hosts

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::{ConfigError, TableFile};
use crate::privsep::Rights;

mod hosts;

pub use hosts::{find_host_key, read_host_key};

/// The maximum size of a table file, in bytes: its whole text is read into memory.
const MAX_SIZE: u64 = 64 << 20;

/// A file that changed less than this time ago may change again without a new time stamp, because
/// the clock of the file system ticks only every few milliseconds.
const TICK: Duration = Duration::from_millis(50);

/// The minimum time between two readings of a file that only root can see. Each reading starts a
/// process, and only that process can tell whether the file has changed.
const HIDDEN_INTERVAL: Duration = Duration::from_secs(10);

/// A function that parses the text of a table. It gets the path of the file for its errors.
type Parse<T> = Box<dyn Fn(&Path, &str) -> Found<T> + Send + Sync>;

/// The table that the valid lines of a text make, and all errors. The table is `None` if the errors
/// leave no table.
type Found<T> = (Option<T>, Vec<ConfigError>);

/// The maximum number of errors logged for one file; of the others, only the number is logged.
const MAX_LOGGED: usize = 20;

/// A table that is read again when its file changes.
pub struct Watched<T> {
    file: TableFile,
    /// Whether the file is rejected if group or others may use it.
    private: bool,
    /// The rights with which the file is opened.
    rights: Rights,
    parse: Parse<T>,
    /// Guards the table and the identity of its file. It is held while a changed file is read, so
    /// that all callers wait for the new table.
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    table: Arc<T>,
    /// Whether the table comes from a file without errors.
    is_faultless: bool,
    /// The identity of the file at the last reading; `None` if its identity could not be
    /// determined.
    seen: Option<Seen>,
    /// Whether the next use reads the file again even if its identity is the same.
    unsettled: bool,
    /// The time of the last reading.
    read_at: Instant,
    /// The errors that were logged last. They are not logged again.
    logged: Vec<ConfigError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Absent,
    Present(Stamp),
}

/// The properties of a file that show whether its contents have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    modified: (i64, i64),
}

impl<T> Watched<T> {
    /// Opens a table, and reads it for the first time.
    ///
    /// # Errors
    /// All errors in the file. If the file cannot be read, or is required and absent, one error.
    pub fn open<P>(rights: &Rights, file: &TableFile, parse: P) -> Result<Self, Vec<ConfigError>>
    where
        P: Fn(&Path, &str) -> Result<T, Vec<ConfigError>> + Send + Sync + 'static,
    {
        Self::strict(rights, file, parse, false)
    }

    /// Opens a table like [`Watched::open`], from a file with secrets.
    ///
    /// # Errors
    /// Those of [`Watched::open`]; also if group or others may use the file.
    pub fn open_private<P>(rights: &Rights, file: &TableFile, parse: P) -> Result<Self, Vec<ConfigError>>
    where
        P: Fn(&Path, &str) -> Result<T, Vec<ConfigError>> + Send + Sync + 'static,
    {
        Self::strict(rights, file, parse, true)
    }

    fn strict<P>(rights: &Rights, file: &TableFile, parse: P, private: bool) -> Result<Self, Vec<ConfigError>>
    where
        P: Fn(&Path, &str) -> Result<T, Vec<ConfigError>> + Send + Sync + 'static,
    {
        let parse_all = move |file: &Path, text: &str| match parse(file, text) {
            Ok(table) => (Some(table), Vec::new()),
            Err(errors) => (None, errors),
        };
        match Self::new(rights, file, Box::new(parse_all), private) {
            (Some(watched), errors) if errors.is_empty() => Ok(watched),
            (_, errors) => Err(errors),
        }
    }

    /// Opens a tolerant table, which has the valid lines of its file. Returns the table and all
    /// errors in the file. If the file cannot be read at all, or is required and absent,
    /// `unreadable` makes the table.
    pub fn open_tolerant<P>(
        file: &TableFile,
        parse: P,
        unreadable: impl FnOnce(&ConfigError) -> T,
    ) -> (Self, Vec<ConfigError>)
    where
        P: Fn(&Path, &str) -> (T, Vec<ConfigError>) + Send + Sync + 'static,
    {
        Self::open_tolerant_secret(&Rights::Alone, file, parse, unreadable)
    }

    /// Opens a tolerant table like [`Watched::open_tolerant`], but opens the file with `rights`,
    /// because perhaps only root can read it.
    pub fn open_tolerant_secret<P>(
        rights: &Rights,
        file: &TableFile,
        parse: P,
        unreadable: impl FnOnce(&ConfigError) -> T,
    ) -> (Self, Vec<ConfigError>)
    where
        P: Fn(&Path, &str) -> (T, Vec<ConfigError>) + Send + Sync + 'static,
    {
        let parse_all = move |file: &Path, text: &str| {
            let (table, errors) = parse(file, text);
            (Some(table), errors)
        };
        let parse: Parse<T> = Box::new(parse_all);
        let reading = read(rights, &file.path, false);
        let (table, errors) = first(file, &parse, &reading);
        let cannot_be_read = ConfigError::whole(&file.path, "cannot be read");
        let table = table.unwrap_or_else(|| unreadable(errors.first().unwrap_or(&cannot_be_read)));
        (Self::with((rights, file, false), parse, &reading, table, &errors), errors)
    }

    fn new(rights: &Rights, file: &TableFile, parse: Parse<T>, private: bool) -> (Option<Self>, Vec<ConfigError>) {
        let reading = read(rights, &file.path, private);
        let (table, errors) = first(file, &parse, &reading);
        (table.map(|table| Self::with((rights, file, private), parse, &reading, table, &errors)), errors)
    }

    fn with(
        (rights, file, private): (&Rights, &TableFile, bool),
        parse: Parse<T>,
        reading: &Reading,
        table: T,
        errors: &[ConfigError],
    ) -> Self {
        let (seen, unsettled, is_faultless) = (reading.seen, reading.unsettled, errors.is_empty());
        let (table, read_at, logged) = (Arc::new(table), Instant::now(), errors.to_vec());
        let state = State { table, is_faultless, seen, unsettled, read_at, logged };
        Self { file: file.clone(), private, rights: rights.clone(), parse, state: Mutex::new(state) }
    }

    /// Returns the table in force. If the file has changed, reads it first, and logs its errors.
    pub fn current(&self) -> Arc<T> {
        // If a parser has panicked while it held the lock, the old table is still in force.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = self.refresh(&mut state);
        let what = if state.is_faultless { "the old table stays in force" } else { "its valid lines are in force" };
        limited(&errors).for_each(|error| ::log::error!("{error}; {what}"));
        state.table.clone()
    }

    /// Returns the table in force, like [`Watched::current`], but does not read a file that only root can
    /// see: each reading starts a process.
    pub fn current_if_seen(&self) -> Arc<T> {
        if self.rights.has_monitor() && identify(&self.file.path).is_none() {
            return Arc::clone(&self.state.lock().unwrap_or_else(PoisonError::into_inner).table);
        }
        self.current()
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Reads the file again if it has changed. Returns the errors to log.
    fn refresh(&self, state: &mut State<T>) -> Vec<ConfigError> {
        let found = identify(&self.file.path);
        // A file that could not be read is like one that cannot be seen.
        let is_hidden = (found.is_none() || state.seen.is_none()) && self.rights.has_monitor();
        if !state.unsettled && state.seen == found || is_hidden && state.read_at.elapsed() < HIDDEN_INTERVAL {
            return Vec::new();
        }
        state.read_at = Instant::now();
        let Reading { seen, unsettled, text } = read(&self.rights, &self.file.path, self.private);
        let changed = seen != state.seen;
        (state.seen, state.unsettled) = (seen, unsettled);
        let (table, errors) = match text {
            Ok(text) => (self.parse)(&self.file.path, &text),
            Err(error) => (None, vec![error]),
        };
        // A table from a file without errors stays in force until the file has no errors again. A
        // table from a file with errors is replaced in any case.
        if let Some(table) = table.filter(|_| errors.is_empty() || !state.is_faultless) {
            (state.table, state.is_faultless) = (Arc::new(table), errors.is_empty());
        }
        if !changed && errors == state.logged {
            return Vec::new();
        }
        state.logged.clone_from(&errors);
        errors
    }
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("file", &self.file).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A line of a table that is neither blank nor a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The number of the line in the file, from 1.
    pub number: usize,
    /// The text of the line without blanks at the end. Blanks at the front have a meaning in some
    /// tables.
    pub text: &'a str,
}

impl Line<'_> {
    /// Makes an error at the column of `part`, a slice of this line's text. If `part` is any other
    /// text, the error is at the start of the line.
    pub fn error(&self, file: &Path, part: &str, what: impl Into<String>) -> ConfigError {
        let octet = (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let column = self.text.get(..octet).map_or(0, |before| before.chars().count()) + 1;
        ConfigError::new(file, self.number, column, what)
    }
}

/// Returns the text from its first replacement character on; `None` if it has none. Such a
/// character stands for bytes that are not UTF-8.
pub fn not_utf8(text: &str) -> Option<&str> {
    text.find(char::REPLACEMENT_CHARACTER).and_then(|at| text.get(at..))
}

/// The error for text that is not UTF-8.
pub const NOT_UTF8: &str = "expected text in UTF-8";

/// Shortens the errors of one file for the log: at most [`MAX_LOGGED`] of them, and then one with
/// the number of the others.
pub fn limited(errors: &[ConfigError]) -> impl Iterator<Item = ConfigError> {
    let (first, others) = errors.split_at(errors.len().min(MAX_LOGGED));
    let last = others.first().map(|error| ConfigError::whole(&error.file, format!("{} more errors", others.len())));
    first.iter().cloned().chain(last)
}

/// The lines of a table that are neither blank nor a comment.
pub fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    // Some editors write a byte order mark at the front of a file.
    text.strip_prefix('\u{feff}')
        .unwrap_or(text)
        .lines()
        .enumerate()
        .map(|(index, line)| Line { number: index + 1, text: line.trim_end() })
        .filter(|line| !line.text.is_empty() && !line.text.starts_with('#'))
}

/// Makes a table: calls `add` for each line to add it to the table. Returns the table and all
/// errors in the order of the lines. If `add` fails, it returns the part of the line that is wrong,
/// and a text that says why.
pub fn fill<'a, T: Default>(
    file: &Path,
    text: &'a str,
    mut add: impl FnMut(&mut T, Line<'a>) -> Result<(), (&'a str, String)>,
) -> (T, Vec<ConfigError>) {
    let (mut table, mut errors) = (T::default(), Vec::new());
    for line in lines(text) {
        if let Err((part, what)) = add(&mut table, line) {
            errors.push(line.error(file, part, what));
        }
    }
    (table, errors)
}

/// The result of reading a file.
struct Reading {
    seen: Option<Seen>,
    /// Whether the file must be read again at the next use, because it may change without a new
    /// time stamp, or because its identity is unknown.
    unsettled: bool,
    text: Result<String, ConfigError>,
}

/// Makes the table and the errors from the first reading of a file.
fn first<T>(file: &TableFile, parse: &Parse<T>, reading: &Reading) -> Found<T> {
    match &reading.text {
        Ok(text) => parse(&file.path, text),
        Err(_) if reading.seen == Some(Seen::Absent) && !file.required => parse(&file.path, ""),
        Err(error) => (None, vec![error.clone()]),
    }
}

fn identify(path: &Path) -> Option<Seen> {
    match path.metadata() {
        Ok(metadata) => Some(Seen::Present(Stamp::of(&metadata))),
        Err(error) => is_absence(&error).then_some(Seen::Absent),
    }
}

fn read(rights: &Rights, path: &Path, private: bool) -> Reading {
    let open = rights.open(path);
    // The file is identified before it is read, so that the next check notices a change during the
    // reading.
    match open.and_then(|file| Ok((file.metadata()?, file))) {
        Ok((metadata, file)) => Reading {
            seen: Some(Seen::Present(Stamp::of(&metadata))),
            unsettled: changed_just_now(&metadata),
            text: match private {
                true => check_private(path, &metadata).and_then(|()| text_of(path, file)),
                false => bytes_of(path, file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            },
        },
        Err(error) => {
            let absent = is_absence(&error);
            let text = Err(ConfigError::whole(path, error.to_string()));
            Reading { seen: absent.then_some(Seen::Absent), unsettled: !absent, text }
        }
    }
}

/// Reads the whole text of a file that an administrator writes.
///
/// # Errors
/// If the file cannot be read, is not UTF-8, or is too large.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    Rights::Alone
        .open(path)
        .map_err(|error| ConfigError::whole(path, error.to_string()))
        .and_then(|file| text_of(path, file))
}

/// Reads the text of a small file with secrets, at most `max` bytes of it.
///
/// # Errors
/// If the file cannot be read or is not UTF-8, or if group or others may use it.
pub fn read_private(path: &Path, max: u64) -> Result<String, ConfigError> {
    let wrong = |error: io::Error| ConfigError::whole(path, error.to_string());
    let file = Rights::Alone.open(path).map_err(wrong)?;
    check_private(path, &file.metadata().map_err(wrong)?)?;
    let mut text = String::new();
    file.take(max).read_to_string(&mut text).map_err(wrong)?;
    Ok(text)
}

fn check_private(path: &Path, metadata: &Metadata) -> Result<(), ConfigError> {
    match metadata.mode() & 0o077 {
        0 => Ok(()),
        _ => {
            let mode = metadata.mode() & 0o7777;
            Err(ConfigError::whole(
                path,
                format!("has mode {mode:03o}; expected 600: group and others must not use it"),
            ))
        }
    }
}

fn text_of(path: &Path, file: File) -> Result<String, ConfigError> {
    String::from_utf8(bytes_of(path, file)?).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        ConfigError::at(path, &text, good, NOT_UTF8)
    })
}

fn bytes_of(path: &Path, file: File) -> Result<Vec<u8>, ConfigError> {
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(|error| ConfigError::whole(path, error.to_string()))?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(ConfigError::whole(path, format!("larger than {} MiB", MAX_SIZE >> 20)));
    }
    Ok(bytes)
}

/// Whether an error means that the file is absent. A part of its path may be missing, or may not be
/// a directory.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn changed_just_now(metadata: &Metadata) -> bool {
    // If the time stamp is in the future, `duration_since` fails: the file did not change just now.
    let age = metadata.modified().map(|modified| SystemTime::now().duration_since(modified));
    age.is_ok_and(|age| age.is_ok_and(|age| age < TICK))
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mode: metadata.mode(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests;
