//! Encodes the requests of a server to its monitor, and the answers, as bytes.
//!
//! Requests and answers have fixed sizes, so the monitor needs almost no parser. `rights` sends
//! requests, and `monitor` answers them.

use std::io;
use std::path::PathBuf;

use super::bytes::{Reader, Writer, fixed};

/// The size of a request in bytes.
pub const REQUEST: usize = 1024;
/// The size of an answer in bytes.
pub const ANSWER: usize = 16;

/// A request of the server to its monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Start an agent that runs as the system user with this name.
    Agent(String),
    /// Start an agent that runs as the server's own user.
    OwnAgent,
    /// Start a process that looks up users, as the server's own user.
    Lookup,
    /// Open a file that the configuration names, for reading.
    File(PathBuf),
    /// Make the user with this uid the owner of a message's file. The file comes with the request,
    /// and belongs to the server.
    HandOver(u32),
}

/// The monitor's answer to a request. A requested file or socket comes with the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The request was carried out.
    Done,
    /// The request failed with this error number (errno).
    Failed(i32),
}

impl Request {
    /// Encodes the request.
    ///
    /// # Errors
    /// `InvalidInput` if the name or path is too long.
    pub fn write(&self) -> io::Result<[u8; REQUEST]> {
        let mut to = Writer::default();
        match self {
            Self::Agent(name) => to.byte(1).text(name.as_bytes()),
            Self::OwnAgent => to.byte(2),
            Self::Lookup => to.byte(3),
            Self::File(path) => to.byte(4).path(path),
            Self::HandOver(uid) => to.byte(5).number(*uid),
        };
        fixed(to)
    }

    /// Decodes a request.
    ///
    /// # Errors
    /// `InvalidData` if the bytes are malformed.
    pub fn read(bytes: &[u8; REQUEST]) -> io::Result<Self> {
        let mut from = Reader::new(bytes);
        Ok(match from.byte()? {
            1 => Self::Agent(from.string()?),
            2 => Self::OwnAgent,
            3 => Self::Lookup,
            4 => Self::File(from.path()?),
            5 => Self::HandOver(from.number()?),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

impl Answer {
    /// Encodes the answer.
    pub fn write(&self) -> [u8; ANSWER] {
        let mut to = Writer::default();
        match self {
            Self::Done => to.byte(1),
            Self::Failed(number) => to.byte(2).number(number.cast_unsigned()),
        };
        fixed(to).unwrap_or([0; ANSWER])
    }

    /// Decodes an answer.
    ///
    /// # Errors
    /// `InvalidData` if the bytes are malformed.
    pub fn read(bytes: &[u8; ANSWER]) -> io::Result<Self> {
        let mut from = Reader::new(bytes);
        Ok(match from.byte()? {
            1 => Self::Done,
            2 => Self::Failed(from.number()?.cast_signed()),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_unchanged_after_encoding_and_decoding() {
        for request in [
            Request::Agent("jon".into()),
            Request::OwnAgent,
            Request::Lookup,
            Request::File("/etc/penfold/key.pem".into()),
            Request::HandOver(65_534),
        ] {
            let bytes = request.write().expect("short");
            assert_eq!(Request::read(&bytes).expect("good"), request);
        }
        for answer in [Answer::Done, Answer::Failed(13)] {
            assert_eq!(Answer::read(&answer.write()).expect("good"), answer);
        }
        assert!(Request::Agent("x".repeat(REQUEST)).write().is_err());
        for bad in [&[0][..], &[9], &[1, 255, 255, 255, 255], &[1, 2, 0, 0, 0, b'a', 0], &[1, 1, 0, 0, 0, 0xff]] {
            let mut bytes = [0; REQUEST];
            bytes[..bad.len()].copy_from_slice(bad);
            assert!(Request::read(&bytes).is_err(), "{bad:?}");
        }
    }
}
