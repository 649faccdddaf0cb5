//! Looks up system users for the server, in a process of its own; questions and answers are bytes.
//!
//! The process runs as the server's own user. It is not confined, because nobody can know which
//! files a name service needs. It answers one question after another on its standard input, and
//! ends if no question has come for [`IDLE`].

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Uid, geteuid};

use super::bytes::{Reader, Writer, fixed};
use super::drop_root;
use super::passwd::User;
use crate::sys;

/// The size of a question in bytes.
pub(super) const QUESTION: usize = 512;
/// The size of an answer in bytes.
pub(super) const ANSWER: usize = 2048;
/// How long a lookup process waits for its next question before it ends.
pub(super) const IDLE: Duration = Duration::from_secs(30);

/// The error number (errno) of an answer that says that the system does not even know the server's
/// own user.
pub(super) const OWN_USER_UNKNOWN: i32 = Errno::EAGAIN as i32;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Question {
    Named(String),
    Numbered(u32),
}

/// The user, `None` if there is no such user, or the error number (errno) that the system returned.
pub(super) type Answer = Result<Option<User>, i32>;

/// Becomes the user with this uid and gid, and answers the questions that come on standard input.
///
/// # Errors
/// If root's rights cannot be dropped, or if standard input is not a socket, fails, or sends a
/// malformed question.
pub fn run(uid: u32, gid: u32) -> io::Result<()> {
    drop_root::become_only(uid, gid)?;
    sys::end_with_input(|| {})?;
    let mut socket: UnixStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    socket.set_read_timeout(Some(IDLE))?;
    let mut question = [0; QUESTION];
    loop {
        match socket.read_exact(&mut question) {
            Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::WouldBlock) => return Ok(()),
            read => read?,
        }
        let answer =
            Question::read(&question)?.look_up(true).map_err(|e| e.raw_os_error().unwrap_or(Errno::EIO as i32));
        let too_long = |_| write_answer(&Err(Errno::ENAMETOOLONG as i32));
        socket.write_all(&write_answer(&answer).or_else(too_long)?)?;
    }
}

/// Whether the system knew this process's own user when this function was first called. In a
/// container without a user database the system knows no user at all.
pub(super) fn knew_own_user() -> bool {
    static KNEW: OnceLock<bool> = OnceLock::new();
    *KNEW.get_or_init(knows_own_user)
}

fn knows_own_user() -> bool {
    nix::unistd::User::from_uid(geteuid()).is_ok_and(|user| user.is_some())
}

impl Question {
    /// Asks the system for the user. If `must_know` is set, the answer that there is no such user
    /// counts only if the system knows this process's own user. If the system does not know even
    /// that user, the error is [`OWN_USER_UNKNOWN`]: perhaps the name service that knows the users
    /// has failed, and another one has answered.
    pub(super) fn look_up(&self, must_know: bool) -> io::Result<Option<User>> {
        let user = match self {
            Self::Named(name) => nix::unistd::User::from_name(name)?,
            Self::Numbered(uid) => nix::unistd::User::from_uid(Uid::from_raw(*uid))?,
        };
        if user.is_none() && must_know && !knows_own_user() {
            return Err(io::Error::from_raw_os_error(OWN_USER_UNKNOWN));
        }
        Ok(user.map(|user| User { name: user.name, uid: user.uid.as_raw(), home: user.dir }))
    }

    pub(super) fn write(&self) -> io::Result<[u8; QUESTION]> {
        let mut to = Writer::default();
        match self {
            Self::Named(name) => to.byte(1).text(name.as_bytes()),
            Self::Numbered(uid) => to.byte(2).number(*uid),
        };
        fixed(to)
    }

    fn read(bytes: &[u8; QUESTION]) -> io::Result<Self> {
        let mut from = Reader::new(bytes);
        match from.byte()? {
            1 => from.string().map(Self::Named),
            2 => from.number().map(Self::Numbered),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn write_answer(answer: &Answer) -> io::Result<[u8; ANSWER]> {
    let mut to = Writer::default();
    match answer {
        Ok(None) => to.byte(1),
        Ok(Some(User { name, uid, home })) => {
            to.byte(2).number(*uid).text(name.as_bytes()).text(home.as_os_str().as_bytes())
        }
        Err(number) => to.byte(3).number(number.cast_unsigned()),
    };
    fixed(to)
}

pub(super) fn read_answer(bytes: &[u8; ANSWER]) -> io::Result<Answer> {
    let mut from = Reader::new(bytes);
    Ok(match from.byte()? {
        1 => Ok(None),
        2 => {
            let uid = from.number()?;
            Ok(Some(User { uid, name: from.string()?, home: from.path()? }))
        }
        3 => Err(from.number()?.cast_signed()),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_are_unchanged_after_encoding_and_decoding() {
        for question in [Question::Named("j\u{f6}n".into()), Question::Numbered(65_534)] {
            assert_eq!(Question::read(&question.write().expect("short")).expect("good"), question);
        }
        let jon = User { name: "jon".into(), uid: 1000, home: "/home/jon".into() };
        for answer in [Ok(None), Ok(Some(jon.clone())), Err(13)] {
            assert_eq!(read_answer(&write_answer(&answer).expect("short")).expect("good"), answer);
        }
        assert!(Question::Named("x".repeat(QUESTION)).write().is_err());
        assert!(write_answer(&Ok(Some(User { name: "x".repeat(ANSWER), ..jon }))).is_err());
        for bad in [&[0][..], &[9], &[1, 255, 255, 255, 255], &[1, 2, 0, 0, 0, b'a', 0], &[1, 1, 0, 0, 0, 0xff]] {
            let mut bytes = [0; QUESTION];
            bytes[..bad.len()].copy_from_slice(bad);
            assert!(Question::read(&bytes).is_err(), "{bad:?}");
        }
    }
}
