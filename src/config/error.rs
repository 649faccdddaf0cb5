//! Defines errors in files that an administrator writes, with their places.
//!
//! Every reader of such a file returns all errors, not only the first one. The errors are printed
//! in the format of compilers, so that an editor can jump to their places. The callers decide what
//! an error means. At a start, an error in the configuration ends the program. Later, the old
//! configuration or table stays in force.

use std::fmt;
use std::path::{Path, PathBuf};

/// An error in a configuration or table file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConfigError {
    /// The path of the file that has the error.
    pub file: PathBuf,
    /// The line number, from 1; 0 if the error concerns the file as a whole.
    pub line: usize,
    /// The column in characters, from 1; 0 if `line` is 0.
    pub column: usize,
    /// What is wrong and what was expected, without a full stop.
    pub text: String,
}

impl ConfigError {
    /// Makes an error at a place in a file.
    pub fn new(file: &Path, line: usize, column: usize, text: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, column, text: text.into() }
    }

    /// Makes an error that concerns a file as a whole, for example because it cannot be read.
    pub fn whole(file: &Path, text: impl Into<String>) -> Self {
        Self::new(file, 0, 0, text)
    }

    /// Makes an error at a byte offset in the file's text.
    pub fn at(file: &Path, text: &str, offset: usize, what: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        Self::new(file, line, before[line_start..].chars().count() + 1, what)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        write!(f, " {}", self.text)
    }
}

impl std::error::Error for ConfigError {}
