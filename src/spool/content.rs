//! What an entry's file has of the message, to be read by several at once: by offset.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Reads the content of an entry, from its first octet; a copy starts where this
/// one is. A file that ends too early is an error, not an end: somebody cut it off.
#[derive(Debug, Clone)]
pub struct Content<'a> {
    file: &'a File,
    at: u64,
    size: u64,
}

impl<'a> Content<'a> {
    /// What a file of `size` octets has from `at` on.
    pub fn new(file: &'a File, at: u64, size: u64) -> Self {
        Self { file, at, size }
    }

    /// How much is left, in octets.
    pub fn left(&self) -> u64 {
        self.size.saturating_sub(self.at)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.at)?;
        if count == 0 && !into.is_empty() && self.left() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}
