//! Values as octets, between processes of one program on one machine.
//!
//! Numbers are in the machine's order, texts have their length before them. What is read
//! is bounded by what is there; anything else is `InvalidData`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Values, one after the other.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// One octet.
    pub fn octet(&mut self, octet: u8) -> &mut Self {
        self.0.push(octet);
        self
    }

    /// A number.
    pub fn number(&mut self, number: u32) -> &mut Self {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    /// A large number.
    pub fn large(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    /// Octets, of less than 4 GiB.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let text = text.as_ref();
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(text);
        self
    }

    /// A path.
    pub fn path(&mut self, path: &Path) -> &mut Self {
        self.text(path.as_os_str().as_bytes())
    }
}

/// Values in so many octets, with zeros behind them.
///
/// # Errors
/// `InvalidInput` for values that are longer.
pub fn fixed<const N: usize>(values: Writer) -> io::Result<[u8; N]> {
    let mut bytes = values.into_bytes();
    if bytes.len() > N {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    bytes.resize(N, 0);
    bytes.try_into().map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Reads values that were written one after the other. Every error is `InvalidData`.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// What these octets hold.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(io::ErrorKind::InvalidData)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// One octet.
    ///
    /// # Errors
    /// That there is none.
    pub fn octet(&mut self) -> io::Result<u8> {
        self.take(1).map(|octets| octets.first().copied().unwrap_or(0))
    }

    /// A number.
    ///
    /// # Errors
    /// That there is none.
    pub fn number(&mut self) -> io::Result<u32> {
        self.take(4).map(|octets| octets.try_into().map_or(0, u32::from_ne_bytes))
    }

    /// A large number.
    ///
    /// # Errors
    /// That there is none.
    pub fn large(&mut self) -> io::Result<u64> {
        self.take(8).map(|octets| octets.try_into().map_or(0, u64::from_ne_bytes))
    }

    /// Octets.
    ///
    /// # Errors
    /// That they are not all there.
    pub fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let count = self.number()?;
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// A text in UTF-8.
    ///
    /// # Errors
    /// That there is none, or a NUL in it.
    pub fn string(&mut self) -> io::Result<String> {
        let text = String::from_utf8(self.bytes()?.to_vec()).ok().filter(|text| !text.contains('\0'));
        text.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// A path.
    ///
    /// # Errors
    /// That there is none, or a NUL in it.
    pub fn path(&mut self) -> io::Result<PathBuf> {
        let path = self.bytes()?;
        if path.contains(&0) { Err(io::ErrorKind::InvalidData.into()) } else { Ok(OsStr::from_bytes(path).into()) }
    }
}
