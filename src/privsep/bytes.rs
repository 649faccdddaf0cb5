//! Encodes values as bytes, for messages between the processes of this program on one machine.
//!
//! Numbers are in native byte order. A text is preceded by its length. A reader never reads beyond
//! the end of its bytes, and each of its errors is `InvalidData`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Writes values, one after another.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Returns the bytes that were written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Writes a byte.
    pub fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    /// Writes a number of 32 bits.
    pub fn number(&mut self, number: u32) -> &mut Self {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    /// Writes a number of 64 bits.
    pub fn large(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    /// Writes a text of less than 4 GiB, preceded by its length in four bytes.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let text = text.as_ref();
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(text);
        self
    }

    /// Writes a path.
    pub fn path(&mut self, path: &Path) -> &mut Self {
        self.text(path.as_os_str().as_bytes())
    }
}

/// Returns the bytes of the values, padded with zeros to exactly `N` bytes.
///
/// # Errors
/// `InvalidInput` if the values need more than `N` bytes.
pub fn fixed<const N: usize>(values: Writer) -> io::Result<[u8; N]> {
    let mut bytes = values.into_bytes();
    if bytes.len() > N {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    bytes.resize(N, 0);
    bytes.try_into().map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Reads values in the order in which they were written. Every error is `InvalidData`.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Returns a reader of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(io::ErrorKind::InvalidData)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Reads a byte.
    ///
    /// # Errors
    /// If there are no more bytes.
    pub fn byte(&mut self) -> io::Result<u8> {
        self.take(1).map(|bytes| bytes.first().copied().unwrap_or(0))
    }

    /// Reads a number of 32 bits.
    ///
    /// # Errors
    /// If there are too few bytes.
    pub fn number(&mut self) -> io::Result<u32> {
        self.take(4).map(|bytes| bytes.try_into().map_or(0, u32::from_ne_bytes))
    }

    /// Reads a number of 64 bits.
    ///
    /// # Errors
    /// If there are too few bytes.
    pub fn large(&mut self) -> io::Result<u64> {
        self.take(8).map(|bytes| bytes.try_into().map_or(0, u64::from_ne_bytes))
    }

    /// Reads a text as bytes.
    ///
    /// # Errors
    /// If there are too few bytes.
    pub fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let count = self.number()?;
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Reads a text in UTF-8.
    ///
    /// # Errors
    /// If there are too few bytes, or if the text is not UTF-8 or contains a NUL.
    pub fn string(&mut self) -> io::Result<String> {
        let text = String::from_utf8(self.bytes()?.to_vec()).ok().filter(|text| !text.contains('\0'));
        text.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Reads a path.
    ///
    /// # Errors
    /// If there are too few bytes, or if the path contains a NUL.
    pub fn path(&mut self) -> io::Result<PathBuf> {
        let path = self.bytes()?;
        if path.contains(&0) { Err(io::ErrorKind::InvalidData.into()) } else { Ok(OsStr::from_bytes(path).into()) }
    }
}
