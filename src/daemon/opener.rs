//! Decides which files the opener, a process that opens files as root, may open for the server.
//!
//! These files are the certificates, keys, users files and credentials that the configuration names
//! now, and the keys that its tables of keys name. A file may be opened only if nobody but root can
//! change the configuration and, for a key that a table names, that table. The opener reads the
//! configuration itself, and again if it has changed, so that it also knows the files that a reload
//! has added. It does not say why it refuses a file: the server only logs that permission was denied.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::{Start, permissions};
use crate::config::table::Watched;
use crate::config::{self, Dkim, TableFile};
#[cfg(feature = "mailauth")]
use crate::mailauth::keys;
use crate::privsep::opener;
use crate::privsep::rootpath::is_roots_alone;

impl Start {
    /// Opens files for the server, until standard input, which is a socket for requests, is closed.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn open_files(&self) -> io::Result<()> {
        let configuration = Roots::at(self.path(), Secrets::of);
        opener::run(|path| configuration.current().is_some_and(|secrets| secrets.have(path)))
    }
}

/// A file that is read only while nobody but root can change it.
struct Roots<T> {
    file: TableFile,
    parse: fn(&Path, &str) -> T,
    /// The contents, once the file has been read. They are read again when the file has changed.
    read: OnceLock<Watched<T>>,
}

impl<T: Default + 'static> Roots<T> {
    fn at(path: &Path, parse: fn(&Path, &str) -> T) -> Self {
        Self { file: TableFile { path: path.to_owned(), required: true }, parse, read: OnceLock::new() }
    }

    /// Returns the contents; `None` if another user may have written them.
    fn current(&self) -> Option<Arc<T>> {
        let parse = self.parse;
        let parse = move |file: &Path, text: &str| (parse(file, text), Vec::new());
        let open = || Watched::open_tolerant(&self.file, parse, |_| T::default()).0;
        is_roots_alone(&self.file.path).then(|| self.read.get_or_init(open).current())
    }
}

/// The secrets that the configuration names, and its tables of keys.
#[derive(Default)]
struct Secrets {
    files: HashSet<PathBuf>,
    tables: Vec<Roots<HashSet<PathBuf>>>,
}

impl Secrets {
    fn of(file: &Path, text: &str) -> Self {
        // The server, not the opener, reports errors in the configuration.
        let Some(config) = config::examine_text(file, text).0 else { return Self::default() };
        let files = permissions::Names::of(file, &config).secrets().map(Path::to_owned).collect();
        let tables = config.dkim.iter().filter_map(|dkim| match dkim {
            Dkim::Table(table) => Some(Roots::at(table, keys_of)),
            Dkim::Key(_) => None,
        });
        Self { files, tables: tables.collect() }
    }

    fn have(&self, path: &Path) -> bool {
        let are_in = |table: &Roots<HashSet<PathBuf>>| table.current().is_some_and(|keys| keys.contains(path));
        self.files.contains(path) || self.tables.iter().any(are_in)
    }
}

/// The keys that a table of keys names.
#[cfg(feature = "mailauth")]
fn keys_of(_: &Path, table: &str) -> HashSet<PathBuf> {
    keys::names_of_table(table).collect()
}

#[cfg(not(feature = "mailauth"))]
fn keys_of(_: &Path, _: &str) -> HashSet<PathBuf> {
    HashSet::new()
}
