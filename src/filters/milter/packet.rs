//! The packets of the milter protocol: a length, a letter, and data.

use crate::filters::Trouble;
use crate::filters::link::Link;

/// The letters of the packets from this server to a filter.
pub mod command {
    pub const ABORT: u8 = b'A';
    pub const BODY: u8 = b'B';
    pub const CONNECT: u8 = b'C';
    pub const MACRO: u8 = b'D';
    pub const END_OF_BODY: u8 = b'E';
    pub const HELO: u8 = b'H';
    pub const HEADER: u8 = b'L';
    pub const MAIL: u8 = b'M';
    pub const END_OF_HEADER: u8 = b'N';
    pub const NEGOTIATE: u8 = b'O';
    pub const QUIT: u8 = b'Q';
    pub const RCPT: u8 = b'R';
    pub const DATA: u8 = b'T';
    pub const UNKNOWN: u8 = b'U';
}

/// The maximum size of a packet from a filter. libmilter splits a body into packets of 64 KiB.
const MAX_PACKET: usize = 1 << 20;
/// The maximum number of octets of data in a packet to a filter: libmilter takes no more.
pub const MAX_DATA: usize = 65_535;

/// Puts a packet into the output of a link.
///
/// # Errors
/// Those of writing.
pub fn put(link: &mut Link, letter: u8, data: &[u8]) -> Result<(), Trouble> {
    let length = u32::try_from(data.len() + 1).map_err(|_| Trouble::new("a packet would be too long"))?;
    let mut head = length.to_be_bytes().to_vec();
    head.push(letter);
    link.put(&head)?;
    Ok(link.put(data)?)
}

/// Reads a packet: its letter and its data.
///
/// # Errors
/// Those of reading, or if the packet is empty or too long.
pub fn read(link: &mut Link) -> Result<(u8, Vec<u8>), Trouble> {
    let length = number(&link.take(4)?).and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| (1..=MAX_PACKET).contains(length));
    let length = length.ok_or_else(|| Trouble::new("it sent a packet of an impossible length"))?;
    let mut data = link.take(length)?;
    let letter = data.remove(0);
    Ok((letter, data))
}

/// The number in the first four octets.
pub fn number(data: &[u8]) -> Option<u32> {
    data.first_chunk().map(|octets| u32::from_be_bytes(*octets))
}

/// Appends a text and its NUL. A NUL within the text is replaced, so that it cannot end the text.
pub fn push_text(data: &mut Vec<u8>, text: &[u8]) {
    data.extend(text.iter().map(|&octet| if octet == 0 { b'?' } else { octet }));
    data.push(0);
}

/// Takes the text before the next NUL off the front of `data`. `None` if there is no NUL.
pub fn take_text<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr::memchr(0, data)?;
    let (text, rest) = (data.get(..end)?, data.get(end + 1..)?);
    *data = rest;
    Some(text)
}
