//! Sends and receives the requests to an agent and its responses, as bytes over a socket.
//!
//! Each of them is one frame: a length, and that many bytes, at most [`MAX_FRAME`]. The descriptor
//! of the file that goes with a request is sent along with the first bytes. The server does not
//! trust any response: an agent runs as a user, who may have taken over the agent.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::{AgentError, Contents, Ended, Identity, Part, Request, Response};
use crate::privsep::bytes::{Reader, Writer};
use crate::privsep::fdpass;

/// The maximum length of a frame, in bytes.
const MAX_FRAME: usize = 1 << 20;

/// Sends a request.
///
/// # Errors
/// `InvalidInput` if the frame would be too long; otherwise an error of the socket.
pub fn send_request(socket: &UnixStream, request: &Request, message: Option<&File>) -> io::Result<()> {
    let mut to = Writer::default();
    write_request(&mut to, request);
    send(socket, &to.into_bytes(), message)
}

/// Receives a request. Returns `None` if the server has closed the socket.
///
/// # Errors
/// `InvalidData` for a malformed request; otherwise an error of the socket.
pub fn receive_request(socket: &UnixStream) -> io::Result<Option<(Request, Option<File>)>> {
    let Some((bytes, file)) = receive(socket, None)? else { return Ok(None) };
    Ok(Some((read_request(&mut Reader::new(&bytes))?, file)))
}

/// Sends a response.
///
/// # Errors
/// `InvalidInput` if the frame would be too long; otherwise an error of the socket.
pub fn send_response(socket: &UnixStream, result: &Result<Response, AgentError>) -> io::Result<()> {
    let mut to = Writer::default();
    match result {
        Ok(done) => write_response(to.byte(0), done),
        Err(AgentError { doing, error }) => {
            let number = error.raw_os_error().unwrap_or(0).cast_unsigned();
            to.byte(1).text(doing).number(number).text(error.to_string());
        }
    }
    send(socket, &to.into_bytes(), None)
}

/// Receives a response, which must be complete before the deadline.
///
/// # Errors
/// `InvalidData` for a malformed response, and `UnexpectedEof` if the agent has ended; otherwise an
/// error of the socket, such as a timeout.
pub fn receive_response(socket: &UnixStream, deadline: Instant) -> io::Result<Result<Response, AgentError>> {
    let Some((bytes, _)) = receive(socket, Some(deadline))? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    let mut from = Reader::new(&bytes);
    if from.byte()? == 0 {
        return read_response(&mut from).map(Ok);
    }
    let (doing, number, text) = (from.string()?, from.number()?.cast_signed(), from.string()?);
    let error = if number == 0 { io::Error::other(text) } else { io::Error::from_raw_os_error(number) };
    Ok(Err(AgentError { doing, error }))
}

fn send(mut socket: &UnixStream, bytes: &[u8], file: Option<&File>) -> io::Result<()> {
    let length =
        u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_FRAME).ok_or(io::ErrorKind::InvalidInput)?;
    let mut frame = length.to_ne_bytes().to_vec();
    frame.extend_from_slice(bytes);
    let sent = fdpass::send(socket, &frame, file.map(AsFd::as_fd))?;
    socket.write_all(frame.get(sent..).unwrap_or_default())
}

fn receive(socket: &UnixStream, deadline: Option<Instant>) -> io::Result<Option<(Vec<u8>, Option<File>)>> {
    let mut length = [0; 4];
    set_timeout(socket, deadline)?;
    let (count, file) = fdpass::receive(socket, &mut length)?;
    if count == 0 {
        return Ok(None);
    }
    fill(socket, length.get_mut(count..).unwrap_or_default(), deadline)?;
    let length = usize::try_from(u32::from_ne_bytes(length)).ok().filter(|length| *length <= MAX_FRAME);
    let mut bytes = vec![0; length.ok_or(io::ErrorKind::InvalidData)?];
    fill(socket, &mut bytes, deadline)?;
    Ok(Some((bytes, file.map(Into::into))))
}

/// Reads until `bytes` is full. If there is a deadline, it applies to all the bytes together,
/// however slowly they arrive.
fn fill(mut socket: &UnixStream, mut bytes: &mut [u8], deadline: Option<Instant>) -> io::Result<()> {
    while !bytes.is_empty() {
        set_timeout(socket, deadline)?;
        match socket.read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = bytes.get_mut(count..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn set_timeout(socket: &UnixStream, deadline: Option<Instant>) -> io::Result<()> {
    let Some(deadline) = deadline else { return Ok(()) };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { socket.set_read_timeout(Some(left)) }
}

fn write_request(to: &mut Writer, request: &Request) {
    match request {
        Request::Copy { mailbox, name, head, content } => {
            to.byte(1).path(mailbox).text(name).text(head).large(content.at).large(content.size)
        }
        Request::Reveal { mailbox, name } => to.byte(2).path(mailbox).text(name),
        Request::Recover { mailbox, prefix, identity, is_old } => {
            to.byte(3).path(mailbox).text(prefix).large(identity.born).large(identity.inode).byte(u8::from(*is_old))
        }
        Request::Append { file, head, content } => {
            to.byte(4).path(file).text(head).large(content.at).large(content.size)
        }
        Request::Forward { home, uid, names } => texts(to.byte(5).path(home).number(*uid), names),
        Request::Read { file } => to.byte(6).path(file),
        Request::Run { command, directory, environment, head, content, limit } => {
            to.byte(7).text(command).path(directory).text(head).large(content.at).large(content.size).large(*limit);
            to.number(u32::try_from(environment.len()).unwrap_or(u32::MAX));
            environment.iter().fold(to, |to, (name, value)| to.text(name).text(value))
        }
        Request::Accept { mailbox, name, prefix } => to.byte(9).path(mailbox).text(name).text(prefix),
        Request::Folder { mailbox, folder } => to.byte(10).path(mailbox).text(folder),
        Request::Reserve { mailbox, limit, size, counts } => {
            to.byte(11).path(mailbox).large(*limit).large(*size).byte(u8::from(*counts))
        }
        Request::Release { mailbox, limit, size, inode } => {
            to.byte(12).path(mailbox).large(*limit).large(*size).large(*inode)
        }
        Request::Confirm { mailbox, limit, size, inode } => {
            to.byte(14).path(mailbox).large(*limit).large(*size).large(*inode)
        }
        Request::Measure { mailbox, limit, size, keeps, forwards } => {
            to.byte(13).path(mailbox).large(*limit).large(*size).byte(u8::from(*keeps));
            to.number(u32::try_from(forwards.len()).unwrap_or(u32::MAX));
            forwards.iter().fold(to, |to, path| to.path(path))
        }
        Request::Print { words, limit, max_output } => texts(to.byte(8).number(*limit).number(*max_output), words),
    };
}

fn read_request(from: &mut Reader<'_>) -> io::Result<Request> {
    Ok(match from.byte()? {
        1 => Request::Copy {
            mailbox: from.path()?,
            name: from.string()?,
            head: from.string()?,
            content: read_part(from)?,
        },
        2 => Request::Reveal { mailbox: from.path()?, name: from.string()? },
        3 => Request::Recover {
            mailbox: from.path()?,
            prefix: from.string()?,
            identity: Identity { born: from.large()?, inode: from.large()? },
            is_old: from.byte()? != 0,
        },
        4 => Request::Append { file: from.path()?, head: from.string()?, content: read_part(from)? },
        5 => Request::Forward { home: from.path()?, uid: from.number()?, names: read_texts(from)? },
        6 => Request::Read { file: from.path()? },
        7 => Request::Run {
            command: from.string()?,
            directory: from.path()?,
            head: from.string()?,
            content: read_part(from)?,
            limit: from.large()?,
            environment: {
                let count = from.number()?;
                (0..count).map(|_| Ok((from.string()?, from.string()?))).collect::<io::Result<_>>()?
            },
        },
        9 => Request::Accept { mailbox: from.path()?, name: from.string()?, prefix: from.string()? },
        10 => Request::Folder { mailbox: from.path()?, folder: from.string()? },
        11 => {
            let (mailbox, limit, size) = (from.path()?, from.large()?, from.large()?);
            Request::Reserve { mailbox, limit, size, counts: from.byte()? != 0 }
        }
        12 => {
            Request::Release { mailbox: from.path()?, limit: from.large()?, size: from.large()?, inode: from.large()? }
        }
        14 => {
            Request::Confirm { mailbox: from.path()?, limit: from.large()?, size: from.large()?, inode: from.large()? }
        }
        13 => Request::Measure {
            mailbox: from.path()?,
            limit: from.large()?,
            size: from.large()?,
            keeps: from.byte()? != 0,
            forwards: {
                let count = from.number()?;
                (0..count).map(|_| from.path()).collect::<io::Result<_>>()?
            },
        },
        8 => Request::Print { limit: from.number()?, max_output: from.number()?, words: read_texts(from)? },
        _ => return Err(io::ErrorKind::InvalidData.into()),
    })
}

fn texts<'a>(to: &'a mut Writer, texts: &[String]) -> &'a mut Writer {
    to.number(u32::try_from(texts.len()).unwrap_or(u32::MAX));
    texts.iter().fold(to, |to, text| to.text(text))
}

fn read_texts(from: &mut Reader<'_>) -> io::Result<Vec<String>> {
    // The count may be wrong, so no memory is reserved for that many texts in advance.
    let count = from.number()?;
    (0..count).map(|_| from.string()).collect()
}

fn read_part(from: &mut Reader<'_>) -> io::Result<Part> {
    Ok(Part { at: from.large()?, size: from.large()? })
}

fn write_response(to: &mut Writer, done: &Response) {
    match done {
        Response::Done => to.byte(1),
        Response::Copied(Identity { born, inode }) => to.byte(2).large(*born).large(*inode),
        Response::Waiting(name) => to.byte(3).text(name),
        Response::Lost => to.byte(4),
        Response::Elsewhere => to.byte(5),
        Response::Text(text) => to.byte(6).text(text),
        Response::Absent => to.byte(7),
        Response::Refused(why) => to.byte(8).text(why),
        Response::Ended(ended, output) => {
            let (way, number) = match ended {
                Ended::Code(code) => (0, *code),
                Ended::Signal(signal) => (1, *signal),
                Ended::Late => (2, 0),
            };
            to.byte(9).byte(way).number(number.cast_unsigned()).text(output)
        }
        Response::Printed(text) => to.byte(10).text(text),
        Response::Used(Contents { size, messages }) => to.byte(11).large(*size).large(*messages),
        Response::Reserved(None) => to.byte(12),
        Response::Reserved(Some(inode)) => to.byte(13).large(*inode),
    };
}

fn read_response(from: &mut Reader<'_>) -> io::Result<Response> {
    Ok(match from.byte()? {
        1 => Response::Done,
        2 => Response::Copied(Identity { born: from.large()?, inode: from.large()? }),
        3 => Response::Waiting(from.string()?),
        4 => Response::Lost,
        5 => Response::Elsewhere,
        6 => Response::Text(from.string()?),
        7 => Response::Absent,
        8 => Response::Refused(from.string()?),
        9 => {
            let (way, number) = (from.byte()?, from.number()?.cast_signed());
            let ended = match way {
                0 => Ended::Code(number),
                1 => Ended::Signal(number),
                2 => Ended::Late,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            };
            Response::Ended(ended, from.string()?)
        }
        10 => Response::Printed(from.bytes()?.to_vec()),
        11 => Response::Used(Contents { size: from.large()?, messages: from.large()? }),
        12 => Response::Reserved(None),
        13 => Response::Reserved(Some(from.large()?)),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + std::time::Duration::from_secs(10)
    }

    #[test]
    fn a_response_that_trickles_in_misses_the_deadline() {
        let (one, mut two) = UnixStream::pair().expect("a pair");
        let slow = std::thread::spawn(move || {
            let mut bytes = b"\x00\x00\x10\x00".iter().chain(std::iter::repeat(&0));
            while two.write_all(&[*bytes.next().expect("endless")]).is_ok() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let begun = Instant::now();
        let late = receive_response(&one, begun + std::time::Duration::from_millis(200)).expect_err("late");
        assert!(matches!(late.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{late}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(5));
        drop(one);
        slow.join().expect("no panic");
    }

    #[test]
    fn requests_and_responses_are_unchanged_after_encoding_and_decoding() {
        let (one, two) = UnixStream::pair().expect("a pair");
        let mailbox = || "/home/jon/Maildir".into();
        for request in [
            Request::Copy {
                mailbox: mailbox(),
                name: "1.x".into(),
                head: "h\n".repeat(1000),
                content: Part { at: 7, size: 9 },
            },
            Request::Reveal { mailbox: mailbox(), name: "1.x".into() },
            Request::Recover {
                mailbox: mailbox(),
                prefix: "1.".into(),
                identity: Identity { born: 1, inode: 2 },
                is_old: true,
            },
            Request::Accept { mailbox: mailbox(), name: "1.x".into(), prefix: "1.".into() },
            Request::Folder { mailbox: mailbox(), folder: ".Junk".into() },
            Request::Reserve { mailbox: mailbox(), limit: u64::MAX, size: 7, counts: true },
            Request::Release { mailbox: mailbox(), limit: 9, size: 7, inode: 5 },
            Request::Confirm { mailbox: mailbox(), limit: 9, size: 7, inode: 5 },
            Request::Measure {
                mailbox: mailbox(),
                limit: 9,
                size: 7,
                keeps: true,
                forwards: vec!["/x/.forward".into()],
            },
            Request::Append { file: mailbox(), head: "From x\n".into(), content: Part { at: 7, size: 9 } },
            Request::Forward { home: mailbox(), uid: 7, names: vec![".forward+x".into(), ".forward".into()] },
            Request::Read { file: mailbox() },
            Request::Run {
                command: "cat".into(),
                directory: mailbox(),
                environment: vec![("USER".into(), "jon".into()), ("SENDER".into(), String::new())],
                head: "h\n".into(),
                content: Part { at: 7, size: 9 },
                limit: 1000,
            },
            Request::Print { words: vec!["/bin/echo".into(), "a b".into()], limit: 30, max_output: 100 },
        ] {
            let file = File::open("/dev/null").expect("there");
            send_request(&one, &request, Some(&file)).expect("sent");
            let (came, file) = receive_request(&two).expect("received").expect("one");
            assert!(came == request && file.is_some());
        }
        for done in [
            Response::Done,
            Response::Copied(Identity { born: u64::MAX, inode: 2 }),
            Response::Waiting("1.x".into()),
            Response::Lost,
            Response::Elsewhere,
            Response::Text("jon, mary\n".into()),
            Response::Absent,
            Response::Refused("others may write it".into()),
            Response::Ended(Ended::Code(75), "later".into()),
            Response::Ended(Ended::Signal(9), String::new()),
            Response::Ended(Ended::Late, String::new()),
            Response::Printed(b"token\n".to_vec()),
            Response::Used(Contents { size: u64::MAX, messages: 3 }),
            Response::Reserved(None),
            Response::Reserved(Some(7)),
        ] {
            send_response(&two, &Ok(done.clone())).expect("sent");
            assert_eq!(receive_response(&one, soon()).expect("received").expect("well"), done);
        }
        let full = io::Error::from_raw_os_error(28);
        send_response(&two, &Err(AgentError::new("write /x", full))).expect("sent");
        let error = receive_response(&one, soon()).expect("received").expect_err("an error");
        assert_eq!((error.doing.as_str(), error.error.kind()), ("write /x", io::ErrorKind::StorageFull));
        // Malformed responses, such as those of an agent that a user has taken over.
        for bad in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\0", b"\x02\0\0\0\0\x09", b"\x06\0\0\0\0\x03\xff\xff\xff\xff"] {
            let (one, mut two) = UnixStream::pair().expect("a pair");
            two.write_all(bad).expect("sent");
            drop(two);
            assert!(receive_response(&one, soon()).is_err(), "{bad:?}");
        }
        drop(one);
        assert!(receive_request(&two).expect("the end").is_none());
    }
}
