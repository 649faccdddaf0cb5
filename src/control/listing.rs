//! The request to list the queue: which messages, and in which form.

use std::io::{self, Write};
use std::sync::Arc;

use super::counts::{By, count};
use super::list::list;
use super::messages::{Found, Live, Walk};
use super::selection::Selection;
use crate::config::Config;
use crate::json::Format;
use crate::retry::Schedule;
use crate::spool::Spool;
use crate::submit::drop;

/// A listing of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The messages that are listed or counted.
    pub selection: Selection,
    /// The rows, if the messages are counted; `None` if they are listed.
    pub by: Option<By>,
    /// Whether only the ids and sizes of the messages are listed, for a command that changes them.
    pub is_of_ids: bool,
    /// The form.
    pub format: Format,
}

impl Default for Listing {
    /// The listing of the whole queue as text.
    fn default() -> Self {
        Self { selection: Selection::default(), by: None, is_of_ids: false, format: Format::Text }
    }
}

impl Listing {
    /// Reads the words of a request after `queue`; `None` if one of them is malformed.
    pub fn read(words: &[&str]) -> Option<Self> {
        let mut listing = Self::default();
        for word in words {
            match *word {
                "json" => listing.format = Format::Json,
                "ids" => listing.is_of_ids = true,
                word => match word.strip_prefix("by=") {
                    Some(by) => listing.by = Some(By::parse(by)?),
                    None => listing.selection.take(word).ok()?,
                },
            }
        }
        Some(listing)
    }

    /// Writes the listing. `live` asks the queue, if a daemon runs. If `submitted_by` is a uid, only
    /// messages that this user has submitted with sendmail are listed. `idle` is called whenever
    /// nothing has been written for some time.
    ///
    /// # Errors
    /// The errors of reading the spool's directories and of writing to `out`.
    pub fn write(
        &self,
        (spool, schedule): (&Arc<Spool>, Schedule),
        live: Option<&dyn Live>,
        submitted_by: Option<u32>,
        out: &mut dyn Write,
        idle: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let selection = match self.by {
            // The limit is that of the rows.
            Some(_) => &Selection { limit: None, ..self.selection.clone() },
            None => &self.selection,
        };
        let walk = Walk { spool, schedule, selection, live, submitted_by };
        match self.by {
            Some(by) => count(&walk, (by, self.selection.limit), self.format, out, idle),
            None if self.is_of_ids => ids(&walk, out, idle),
            None => list(&walk, self.format, out, idle),
        }
    }
}

impl Listing {
    /// Writes how many messages wait in the drop directory, below a listing of the whole queue: those
    /// of all users, or of the user with the uid `submitted_by`. Writes nothing if there are none, or
    /// if the process may not list the directory.
    ///
    /// # Errors
    /// Those of writing to `out`.
    pub fn write_dropped(&self, config: &Config, submitted_by: Option<u32>, out: &mut dyn Write) -> io::Result<()> {
        let is_plain = *self == Self::default();
        let words = config.submission.drop.as_ref().filter(|_| is_plain);
        match words.and_then(|directory| drop::count_in_words(directory, submitted_by)) {
            Some(words) => writeln!(out, "-- {words}"),
            None => Ok(()),
        }
    }
}

/// Writes the id and the size of each message.
fn ids(walk: &Walk<'_>, out: &mut dyn Write, idle: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let out = std::cell::RefCell::new(out);
    let take = |found: Found| writeln!(out.borrow_mut(), "{} {}", found.id(), found.size());
    walk.run(take, &mut || idle(&mut **out.borrow_mut())).map(drop)
}
