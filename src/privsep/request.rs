//! Encodes the requests of a server to its monitor, and the answers, as bytes.
//!
//! Requests and answers have fixed sizes, so the monitor needs almost no parser. `rights` sends
//! requests, and `monitor` answers them. The monitor passes the requests for files on to the opener.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;

use super::bytes::{Reader, Writer, fixed};
use super::fdpass;

/// The size of a request in bytes.
const REQUEST: usize = 1024;
/// The size of an answer in bytes.
const ANSWER: usize = 16;

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

/// The answer to a request. A requested file or socket comes with the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// The request was carried out.
    Done,
    /// The request failed with this error number (errno).
    Failed(i32),
}

/// Sends an encoded request, and `file` along with it. Returns the file that comes with the answer.
/// The inner error is the answer that the request failed, or `EMFILE` if the file could not be
/// received.
///
/// # Errors
/// If the process at the other end of the socket has ended, or does not answer.
pub fn ask(socket: impl AsFd, request: &[u8; REQUEST], file: Option<&File>) -> io::Result<io::Result<Option<OwnedFd>>> {
    fdpass::send(&socket, request, file.map(AsFd::as_fd))?;
    let mut answer = [0; ANSWER];
    match fdpass::receive(&socket, &mut answer) {
        Ok((ANSWER, file)) => Ok(match Answer::read(&answer)? {
            Answer::Done => Ok(file),
            Answer::Failed(number) => Err(io::Error::from_raw_os_error(number)),
        }),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        // No descriptor was free for the file that came with the answer.
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(Err(Errno::EMFILE.into())),
        Err(e) => Err(e),
    }
}

/// Receives one request, and the file that comes with it, and answers the request with the result
/// of `carry_out`. Returns false if the process at the other end of the socket has ended.
///
/// # Errors
/// If the socket fails.
pub fn answer(
    socket: impl AsFd,
    carry_out: impl FnOnce(Request, Option<OwnedFd>) -> io::Result<Option<OwnedFd>>,
) -> io::Result<bool> {
    let mut bytes = [0; REQUEST];
    let done = match fdpass::receive(&socket, &mut bytes) {
        Ok((0, _)) => return Ok(false),
        Ok((REQUEST, beside)) => Request::read(&bytes).and_then(|request| carry_out(request, beside)),
        Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
        // No descriptor was free for the file that came with the request, or several files came.
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(Errno::EMFILE.into()),
        Err(e) => return Err(e),
    };
    let (answer, file) = match done {
        Ok(file) => (Answer::Done, file),
        Err(e) => (Answer::Failed(e.raw_os_error().unwrap_or(Errno::EIO as i32)), None),
    };
    fdpass::send(&socket, &answer.write(), file.as_ref().map(AsFd::as_fd))?;
    Ok(true)
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

    fn read(bytes: &[u8; REQUEST]) -> io::Result<Self> {
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
    fn write(&self) -> [u8; ANSWER] {
        let mut to = Writer::default();
        match self {
            Self::Done => to.byte(1),
            Self::Failed(number) => to.byte(2).number(number.cast_unsigned()),
        };
        fixed(to).unwrap_or([0; ANSWER])
    }

    fn read(bytes: &[u8; ANSWER]) -> io::Result<Self> {
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
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

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

    /// Receiving several files fails like receiving one without a free descriptor.
    #[test]
    fn an_answer_whose_file_cannot_be_received_is_not_the_end_of_the_other_process() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
        let files = [ours.as_raw_fd(); 2];
        let send = |bytes: &[u8], beside: &[ControlMessage<'_>]| {
            sendmsg::<()>(theirs.as_raw_fd(), &[IoSlice::new(bytes)], beside, MsgFlags::empty(), None).expect("sent")
        };
        send(&Answer::Done.write(), &[ControlMessage::ScmRights(&files)]);
        send(&Answer::Failed(13).write(), &[]);
        let request = Request::Lookup.write().expect("short");
        for number in [Errno::EMFILE as i32, 13] {
            let answer = ask(&ours, &request, None).expect("an answer");
            assert_eq!(answer.expect_err("no file").raw_os_error(), Some(number));
        }
        drop(theirs);
        assert!(ask(&ours, &request, None).is_err());
    }
}
