//! The requests that a server sends to its monitor, and the answers.
//!
//! Each has a fixed size. `rights` asks, `daemon::monitor` answers.

use std::io;
use std::path::PathBuf;

use super::bytes::{Reader, Writer, fixed};

/// The octets of a request.
pub const REQUEST: usize = 1024;
/// The octets of an answer.
pub const ANSWER: usize = 16;

/// What is asked of a keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An agent that runs as this user of the system.
    Agent(String),
    /// An agent that runs as the server's own user.
    OwnAgent,
    /// A process that runs as the server's own user and looks up users.
    Names,
    /// A file that the configuration names, to be read.
    File(PathBuf),
    /// The file beside this, which is the server's, becomes this user's.
    Give(u32),
}

/// What a keeper answers; a file comes beside it where one was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Here it is.
    Done,
    /// It cannot be done: an error number of the system.
    Failed(i32),
}

impl Request {
    /// As octets.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is too long.
    pub fn write(&self) -> io::Result<[u8; REQUEST]> {
        let mut to = Writer::default();
        match self {
            Self::Agent(name) => to.octet(1).text(name.as_bytes()),
            Self::OwnAgent => to.octet(2),
            Self::Names => to.octet(3),
            Self::File(path) => to.octet(4).path(path),
            Self::Give(uid) => to.octet(5).number(*uid),
        };
        fixed(to)
    }

    /// From octets.
    ///
    /// # Errors
    /// `InvalidData` for what is none.
    pub fn read(bytes: &[u8; REQUEST]) -> io::Result<Self> {
        let mut from = Reader::new(bytes);
        Ok(match from.octet()? {
            1 => Self::Agent(from.string()?),
            2 => Self::OwnAgent,
            3 => Self::Names,
            4 => Self::File(from.path()?),
            5 => Self::Give(from.number()?),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

impl Answer {
    /// As octets.
    pub fn write(&self) -> [u8; ANSWER] {
        let mut to = Writer::default();
        match self {
            Self::Done => to.octet(1),
            Self::Failed(number) => to.octet(2).number(number.cast_unsigned()),
        };
        fixed(to).unwrap_or([0; ANSWER])
    }

    /// From octets.
    ///
    /// # Errors
    /// `InvalidData` for what is none.
    pub fn read(bytes: &[u8; ANSWER]) -> io::Result<Self> {
        let mut from = Reader::new(bytes);
        Ok(match from.octet()? {
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
    fn requests_and_answers_come_as_they_went() {
        for request in [
            Request::Agent("jon".into()),
            Request::OwnAgent,
            Request::Names,
            Request::File("/etc/penfold/key.pem".into()),
            Request::Give(65_534),
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
