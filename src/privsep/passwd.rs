//! What the system says of its users: getpwnam(3) and getpwuid(3), and so all that the
//! name service switch asks.
//!
//! A name service may take its time, and what it loads and reads is not for a process that
//! is root, nor for one that is confined. So where there is a keeper (`privsep::rights`) others
//! are asked: processes of the server's own user, a few at once, each of which answers one
//! question after the other and ends when it has heard none for a while. One that does not
//! answer in time is given up, and ends; who waits for a place longer than that is told so. Without a
//! keeper it is this process that asks, and waits.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Uid, User, geteuid};

use super::bytes::{Reader, Writer, fixed};
use super::rights;
use crate::sys;

/// The octets of a question.
const QUESTION: usize = 512;
/// The octets of an answer.
const ANSWER: usize = 2048;
/// Processes that look up at once.
const AT_ONCE: usize = 8;
/// How long an answer may take, and how long one waits for a place.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long a process waits for its next question.
const IDLE: Duration = Duration::from_secs(30);
/// For how long one is given another question: it must not end meanwhile.
const FRESH: Duration = Duration::from_secs(20);
/// For how long holds what was said of a name.
const KNOWN_FOR: Duration = Duration::from_secs(2);
/// Names that are remembered.
const MOST_KNOWN: usize = 1000;

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The login name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The home directory, as it is written.
    pub home: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
enum Question {
    Named(String),
    Numbered(u32),
}

/// Of somebody who looks up: the system does not know the server's own user any more.
const NOBODY_KNOWN: i32 = Errno::EAGAIN as i32;

/// An error is a number of the system's.
type Answer = Result<Option<Person>, i32>;

/// What was said of names, and when.
type Known = HashMap<String, (Instant, Option<Person>)>;

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// What the system says of a name.
///
/// # Errors
/// That it cannot be asked.
pub fn user_named(name: &str) -> io::Result<Option<Person>> {
    let question = Question::Named(name.to_owned());
    if !rights::is_there() {
        return question.put(*IS_KNOWN.get_or_init(is_known));
    }
    // For one message a name is looked up several times.
    if let Some((_, person)) = locked(&KNOWN).get(name).filter(|(since, _)| since.elapsed() < KNOWN_FOR) {
        return Ok(person.clone());
    }
    let person = ask(&question)?;
    let mut known = locked(&KNOWN);
    if known.len() >= MOST_KNOWN {
        known.clear();
    }
    known.insert(name.to_owned(), (Instant::now(), person.clone()));
    Ok(person)
}

/// What the system says of a user's number.
///
/// # Errors
/// That it cannot be asked.
pub fn user_numbered(uid: u32) -> io::Result<Option<Person>> {
    let question = Question::Numbered(uid);
    if rights::is_there() { ask(&question) } else { question.put(false) }
}

/// Whether the system knew the user that this process is when it was first asked: in a
/// container it may know nobody.
static IS_KNOWN: OnceLock<bool> = OnceLock::new();

fn is_known() -> bool {
    User::from_uid(geteuid()).is_ok_and(|user| user.is_some())
}

/// Answers the questions that come on standard input, with the rights that this process has.
///
/// # Errors
/// That standard input is no socket, or what ended it.
pub fn answer() -> io::Result<()> {
    sys::end_with_input(|| {})?;
    let mut socket: UnixStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    socket.set_read_timeout(Some(IDLE))?;
    let mut question = [0; QUESTION];
    loop {
        match socket.read_exact(&mut question) {
            Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::WouldBlock) => return Ok(()),
            read => read?,
        }
        let said = Question::read(&question)?.put(true).map_err(|e| e.raw_os_error().unwrap_or(Errno::EIO as i32));
        let too_long = |_| write_answer(&Err(Errno::ENAMETOOLONG as i32));
        socket.write_all(&write_answer(&said).or_else(too_long)?)?;
    }
}

// Who asks

#[derive(Debug, Default)]
struct Desk {
    /// Who has nothing to do, the latest last.
    idle: Vec<(Instant, UnixStream)>,
    /// How many are at work.
    busy: usize,
}

static DESK: LazyLock<Mutex<Desk>> = LazyLock::new(Mutex::default);
static IS_FREE: Condvar = Condvar::new();

/// One of the places at the desk, which is free again when this is dropped.
struct Place;

impl Place {
    fn take() -> io::Result<(Self, Option<UnixStream>)> {
        let is_full = |desk: &mut Desk| desk.busy >= AT_ONCE;
        let (mut desk, waited) =
            IS_FREE.wait_timeout_while(locked(&DESK), PATIENCE, is_full).unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(io::Error::other("too many look-ups wait for the system's answer"));
        }
        desk.busy += 1;
        desk.idle.retain(|(since, _)| since.elapsed() < FRESH);
        Ok((Self, desk.idle.pop().map(|(_, socket)| socket)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&DESK).busy -= 1;
        IS_FREE.notify_one();
    }
}

fn ask(question: &Question) -> io::Result<Option<Person>> {
    let bytes = question.write()?;
    let (place, idle) = Place::take()?;
    let is_late = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
    let asked = match idle.map(|socket| exchange(socket, &bytes)) {
        Some(asked) if !asked.as_ref().is_err_and(|e| !is_late(e)) => asked,
        // There was none, or it has ended meanwhile.
        _ => rights::names().and_then(|socket| exchange(socket, &bytes)),
    };
    let (socket, answer) =
        asked.map_err(|e| if is_late(&e) { io::Error::other("the system does not answer") } else { e })?;
    let answer = read_answer(&answer)?;
    locked(&DESK).idle.push((Instant::now(), socket));
    drop(place);
    answer.map_err(|number| match number {
        NOBODY_KNOWN => io::Error::other("the system knows not even the user that the server runs as"),
        _ => io::Error::from_raw_os_error(number),
    })
}

fn exchange(mut socket: UnixStream, question: &[u8]) -> io::Result<(UnixStream, [u8; ANSWER])> {
    let mut answer = [0; ANSWER];
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(question)?;
    socket.read_exact(&mut answer)?;
    Ok((socket, answer))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Question {
    /// Asks the system. Where it `must_know` the user that this process is and does not, it
    /// knows nothing: of several services the last one's word is heard, though the one that
    /// knows cannot be asked. That is [`NOBODY_KNOWN`].
    fn put(&self, must_know: bool) -> io::Result<Option<Person>> {
        let user = match self {
            Self::Named(name) => User::from_name(name)?,
            Self::Numbered(uid) => User::from_uid(Uid::from_raw(*uid))?,
        };
        if user.is_none() && must_know && !is_known() {
            return Err(io::Error::from_raw_os_error(NOBODY_KNOWN));
        }
        Ok(user.map(|user| Person { name: user.name, uid: user.uid.as_raw(), home: user.dir }))
    }

    fn write(&self) -> io::Result<[u8; QUESTION]> {
        let mut to = Writer::default();
        match self {
            Self::Named(name) => to.octet(1).text(name.as_bytes()),
            Self::Numbered(uid) => to.octet(2).number(*uid),
        };
        fixed(to)
    }

    fn read(bytes: &[u8; QUESTION]) -> io::Result<Self> {
        let mut from = Reader::new(bytes);
        match from.octet()? {
            1 => from.string().map(Self::Named),
            2 => from.number().map(Self::Numbered),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn write_answer(answer: &Answer) -> io::Result<[u8; ANSWER]> {
    let mut to = Writer::default();
    match answer {
        Ok(None) => to.octet(1),
        Ok(Some(Person { name, uid, home })) => {
            to.octet(2).number(*uid).text(name.as_bytes()).text(home.as_os_str().as_bytes())
        }
        Err(number) => to.octet(3).number(number.cast_unsigned()),
    };
    fixed(to)
}

fn read_answer(bytes: &[u8; ANSWER]) -> io::Result<Answer> {
    let mut from = Reader::new(bytes);
    Ok(match from.octet()? {
        1 => Ok(None),
        2 => {
            let uid = from.number()?;
            Ok(Some(Person { uid, name: from.string()?, home: from.path()? }))
        }
        3 => Err(from.number()?.cast_signed()),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_come_as_they_went() {
        for question in [Question::Named("j\u{f6}n".into()), Question::Numbered(65_534)] {
            assert_eq!(Question::read(&question.write().expect("short")).expect("good"), question);
        }
        let jon = Person { name: "jon".into(), uid: 1000, home: "/home/jon".into() };
        for answer in [Ok(None), Ok(Some(jon.clone())), Err(13)] {
            assert_eq!(read_answer(&write_answer(&answer).expect("short")).expect("good"), answer);
        }
        assert!(Question::Named("x".repeat(QUESTION)).write().is_err());
        assert!(write_answer(&Ok(Some(Person { name: "x".repeat(ANSWER), ..jon }))).is_err());
        for bad in [&[0][..], &[9], &[1, 255, 255, 255, 255], &[1, 2, 0, 0, 0, b'a', 0], &[1, 1, 0, 0, 0, 0xff]] {
            let mut bytes = [0; QUESTION];
            bytes[..bad.len()].copy_from_slice(bad);
            assert!(Question::read(&bytes).is_err(), "{bad:?}");
        }
    }
}
