//! Table files: small text files, read again when they change.
//!
//! A [`Watched`] table is looked at (stat(2)) at every use and read again when
//! it is another file than before. Who asks gets one whole table, old or new,
//! never a mixture, and may keep it as long as it likes.
//!
//! Trouble after the first reading never takes a table away: a file with errors,
//! one that is gone or that cannot be read leaves the old table in force, and the
//! log says so once for each change. A table that is tolerant begins with what can
//! be read of its file ([`Watched::begin`]), and the caller decides whether its
//! errors end the start. A file that the configuration does not name
//! may be absent; it is then an empty table until it appears.
//!
//! Does not know any table's format, except that a line whose first
//! character is `#` is a comment: see `aliases`, `users` and `route`.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::{ConfigError, TableFile};
use crate::privsep::Rights;

/// The largest table file, in octets. It is held in memory whole.
const MAX_SIZE: u64 = 64 << 20;

/// A file changed this recently may change again without its times showing it:
/// the clock that stamps files ticks every few milliseconds.
const TICK: Duration = Duration::from_millis(50);

/// Reads the text of a table: the file's name, for errors, and what is in it.
type Parse<T> = Box<dyn Fn(&Path, &str) -> Found<T> + Send + Sync>;

/// What a text says, as far as it can be read, and all that is wrong in it.
type Found<T> = (Option<T>, Vec<ConfigError>);

/// Errors of one file that the log has; the number of the others is told.
const MOST_TOLD: usize = 20;

/// A table that follows its file.
pub struct Watched<T> {
    file: TableFile,
    /// Whether nobody else may read or write it.
    private: bool,
    /// How the file is opened.
    rights: Rights,
    parse: Parse<T>,
    /// Guards the table in force together with what it was read from. Held while
    /// a changed file is read: the others wait for the new table.
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    table: Arc<T>,
    /// Whether the table in force is all of a file without errors.
    is_whole: bool,
    /// The file as it was when last read, well or not; `None` if it could not be looked at.
    seen: Option<Seen>,
    /// Whether it is read again even if it looks the same.
    unsettled: bool,
    /// The trouble last logged, so that it is logged once.
    said: Vec<ConfigError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Absent,
    Present(Stamp),
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    modified: (i64, i64),
}

impl<T> Watched<T> {
    /// Reads the table for the first time.
    ///
    /// # Errors
    /// All that is wrong in the file; that it cannot be read; that it is absent, if it is required.
    pub fn open<P>(rights: &Rights, file: &TableFile, parse: P) -> Result<Self, Vec<ConfigError>>
    where
        P: Fn(&Path, &str) -> Result<T, Vec<ConfigError>> + Send + Sync + 'static,
    {
        Self::strict(rights, file, parse, false)
    }

    /// The same for a file with secrets: that group or others may read or write it is an
    /// error.
    ///
    /// # Errors
    /// As [`Watched::open`].
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
        let found = move |file: &Path, text: &str| match parse(file, text) {
            Ok(table) => (Some(table), Vec::new()),
            Err(errors) => (None, errors),
        };
        match Self::new(rights, file, Box::new(found), private) {
            (Some(watched), errors) if errors.is_empty() => Ok(watched),
            (_, errors) => Err(errors),
        }
    }

    /// Reads the table for the first time as far as it can be read, and gives all that is
    /// wrong in it. `lost` is the table for a file that cannot be read at all, or is absent
    /// though it is required.
    pub fn begin<P>(file: &TableFile, parse: P, lost: impl FnOnce(&ConfigError) -> T) -> (Self, Vec<ConfigError>)
    where
        P: Fn(&Path, &str) -> (T, Vec<ConfigError>) + Send + Sync + 'static,
    {
        Self::begin_secret(&Rights::Alone, file, parse, lost)
    }

    /// The same for a file that root may keep from the server's user: these rights open it.
    pub fn begin_secret<P>(
        rights: &Rights,
        file: &TableFile,
        parse: P,
        lost: impl FnOnce(&ConfigError) -> T,
    ) -> (Self, Vec<ConfigError>)
    where
        P: Fn(&Path, &str) -> (T, Vec<ConfigError>) + Send + Sync + 'static,
    {
        let found = move |file: &Path, text: &str| {
            let (table, errors) = parse(file, text);
            (Some(table), errors)
        };
        let parse: Parse<T> = Box::new(found);
        let reading = read(rights, &file.path, false);
        let (table, errors) = first(file, &parse, &reading);
        let nothing = ConfigError::whole(&file.path, "cannot be read");
        let table = table.unwrap_or_else(|| lost(errors.first().unwrap_or(&nothing)));
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
        let (seen, unsettled, is_whole) = (reading.seen, reading.unsettled, errors.is_empty());
        let state = State { table: Arc::new(table), is_whole, seen, unsettled, said: errors.to_vec() };
        Self { file: file.clone(), private, rights: rights.clone(), parse, state: Mutex::new(state) }
    }

    /// The table in force, after a look at the file.
    pub fn current(&self) -> Arc<T> {
        // A panic in a parser leaves the state whole: the old table stays.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = self.refresh(&mut state);
        let what = if state.is_whole { "the old table stays in force" } else { "what can be read of it is in force" };
        told(&errors).for_each(|error| ::log::error!("{error}; {what}"));
        state.table.clone()
    }

    /// Where the table is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Follows the file; gives what is to be logged.
    fn refresh(&self, state: &mut State<T>) -> Vec<ConfigError> {
        if !state.unsettled && state.seen == look(&self.file.path) {
            return Vec::new();
        }
        let Reading { seen, unsettled, text } = read(&self.rights, &self.file.path, self.private);
        let changed = seen != state.seen;
        (state.seen, state.unsettled) = (seen, unsettled);
        let (table, errors) = match text {
            Ok(text) => (self.parse)(&self.file.path, &text),
            Err(error) => (None, vec![error]),
        };
        // A whole table stays in force for one with errors; any other is as after a start.
        if let Some(table) = table.filter(|_| errors.is_empty() || !state.is_whole) {
            (state.table, state.is_whole) = (Arc::new(table), errors.is_empty());
        }
        if !changed && errors == state.said {
            return Vec::new();
        }
        state.said.clone_from(&errors);
        errors
    }
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("file", &self.file).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A line of a table that says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number in the file, from 1.
    pub number: usize,
    /// Its text without blanks at the end; a blank at the front means something in some tables.
    pub text: &'a str,
}

impl Line<'_> {
    /// An error at `part`, which must be a piece of this line's own text; any other text stands for its start.
    pub fn error(&self, file: &Path, part: &str, what: impl Into<String>) -> ConfigError {
        let octet = (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let column = self.text.get(..octet).map_or(0, |before| before.chars().count()) + 1;
        ConfigError::new(file, self.number, column, what)
    }
}

/// The end of a text from the first octet on that was not UTF-8.
pub fn not_utf8(text: &str) -> Option<&str> {
    text.find(char::REPLACEMENT_CHARACTER).and_then(|at| text.get(at..))
}

/// What is wrong with such a text.
pub const NOT_UTF8: &str = "expected text in UTF-8";

/// As many errors of one file as the log has, and the number of the others.
pub fn told(errors: &[ConfigError]) -> impl Iterator<Item = ConfigError> {
    let (first, others) = errors.split_at(errors.len().min(MOST_TOLD));
    let last = others.first().map(|error| ConfigError::whole(&error.file, format!("{} more errors", others.len())));
    first.iter().cloned().chain(last)
}

/// The lines of a table that are neither blank nor a comment.
pub fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    // Some editors put a byte order mark in front.
    text.strip_prefix('\u{feff}')
        .unwrap_or(text)
        .lines()
        .enumerate()
        .map(|(index, line)| Line { number: index + 1, text: line.trim_end() })
        .filter(|line| !line.text.is_empty() && !line.text.starts_with('#'))
}

/// A table that each line adds something to; `add` says what is wrong, and at which part.
/// With it all that is wrong, in the order of the lines.
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

/// What one reading of a file gave.
struct Reading {
    seen: Option<Seen>,
    /// Whether it may change without its times showing it, or could not be looked at.
    unsettled: bool,
    text: Result<String, ConfigError>,
}

/// What the first reading of a table gives.
fn first<T>(file: &TableFile, parse: &Parse<T>, reading: &Reading) -> Found<T> {
    match &reading.text {
        Ok(text) => parse(&file.path, text),
        Err(_) if reading.seen == Some(Seen::Absent) && !file.required => parse(&file.path, ""),
        Err(error) => (None, vec![error.clone()]),
    }
}

fn look(path: &Path) -> Option<Seen> {
    match path.metadata() {
        Ok(metadata) => Some(Seen::Present(Stamp::of(&metadata))),
        Err(error) => is_absence(&error).then_some(Seen::Absent),
    }
}

fn read(rights: &Rights, path: &Path, private: bool) -> Reading {
    let open = rights.open(path);
    // The look comes before the reading: a change in between shows at the next look.
    match open.and_then(|file| Ok((file.metadata()?, file))) {
        Ok((metadata, file)) => Reading {
            seen: Some(Seen::Present(Stamp::of(&metadata))),
            unsettled: changed_just_now(&metadata),
            text: match private {
                true => keep_private(path, &metadata).and_then(|()| text_of(path, file)),
                false => octets_of(path, file).map(|octets| String::from_utf8_lossy(&octets).into_owned()),
            },
        },
        Err(error) => {
            let absent = is_absence(&error);
            let text = Err(ConfigError::whole(path, error.to_string()));
            Reading { seen: absent.then_some(Seen::Absent), unsettled: !absent, text }
        }
    }
}

/// The whole text of a file that an administrator writes.
///
/// # Errors
/// Those of the system; text that is not UTF-8, or too much of it.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    Rights::Alone
        .open(path)
        .map_err(|error| ConfigError::whole(path, error.to_string()))
        .and_then(|file| text_of(path, file))
}

/// The text of a small file with secrets, at most so many octets of it.
///
/// # Errors
/// Those of the system; a file that group or others may use.
pub fn read_private(path: &Path, most: u64) -> Result<String, ConfigError> {
    let wrong = |error: io::Error| ConfigError::whole(path, error.to_string());
    let file = Rights::Alone.open(path).map_err(wrong)?;
    keep_private(path, &file.metadata().map_err(wrong)?)?;
    let mut text = String::new();
    file.take(most).read_to_string(&mut text).map_err(wrong)?;
    Ok(text)
}

fn keep_private(path: &Path, metadata: &Metadata) -> Result<(), ConfigError> {
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
    String::from_utf8(octets_of(path, file)?).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        ConfigError::at(path, &text, good, NOT_UTF8)
    })
}

fn octets_of(path: &Path, file: File) -> Result<Vec<u8>, ConfigError> {
    let mut octets = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut octets).map_err(|error| ConfigError::whole(path, error.to_string()))?;
    if octets.len() as u64 > MAX_SIZE {
        return Err(ConfigError::whole(path, format!("larger than {} MiB", MAX_SIZE >> 20)));
    }
    Ok(octets)
}

/// A directory on the way may be missing too, or be no directory.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn changed_just_now(metadata: &Metadata) -> bool {
    // A time in the future is not the present tick's.
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
