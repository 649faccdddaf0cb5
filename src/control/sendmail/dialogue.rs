//! The dialogue of sendmail(8) with the daemon: SMTP over the control socket.
//!
//! So every rule about addresses and messages, and every text that refuses them, is the
//! session's. Either all recipients are taken or nothing is sent: who sees sendmail fail
//! sends again, and nobody is to get a message twice. Every answer has a time limit, for a
//! daemon that has stopped is not waited for for ever; where too many are served it
//! is tried again for a minute.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::{SFlag, fstat};

use super::{Failure, tell};
use crate::address::{self, Address};
use crate::control::{BUSY, PATIENCE, not_running, request};
use crate::reply::{Reply, ReplyReader};
use crate::smtp::MAX_REPLY_LINE;
use crate::smtp::dot::DotWriter;
use crate::smtp::line::{Input, Line};

/// What the daemon may take for any answer: it asks the DNS, and syncs to disk.
const ANSWER: Duration = Duration::from_secs(300);
/// How long the last answer is waited for, which is for people only.
const FAREWELL: Duration = Duration::from_secs(5);
/// Between two tries to be let in.
const PAUSE: Duration = Duration::from_millis(200);

/// A connection on which the daemon is about to speak SMTP.
///
/// # Errors
/// EX_TEMPFAIL where no daemon runs, or none that answers.
pub fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match open(socket, &request::write(&["submit", &parent()])) {
            Ok(stream) => return Ok(stream),
            Err(Refused::Busy) if Instant::now() < deadline => thread::sleep(PAUSE),
            Err(Refused::Busy) => return Err(Failure::later(format!("{BUSY}: message not sent"))),
            Err(Refused::NotThere(e)) => {
                return Err(Failure::later(format!("{}: message not sent", not_running(socket, &e))));
            }
            Err(Refused::Io(e)) => return Err(lost(e)),
        }
    }
}

enum Refused {
    Busy,
    NotThere(io::Error),
    Io(io::Error),
}

fn open(socket: &Path, request: &str) -> Result<UnixStream, Refused> {
    let mut stream = UnixStream::connect(socket).map_err(Refused::NotThere)?;
    let limits = stream.set_read_timeout(Some(ANSWER)).and_then(|()| stream.set_write_timeout(Some(ANSWER)));
    limits.map_err(Refused::Io)?;
    let sent = stream.write_all(request.as_bytes());
    match first_line(&mut stream).map_err(Refused::Io)?.as_slice() {
        b"ok" => Ok(stream),
        line if line == BUSY.as_bytes() => Err(Refused::Busy),
        b"" => Err(Refused::Io(sent.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))),
        line => Err(Refused::Io(io::Error::other(String::from_utf8_lossy(line).escape_debug().to_string()))),
    }
}

/// A line, and nothing of what comes behind it.
fn first_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let (mut line, mut octet) = (Vec::new(), [0]);
    while line.len() < 1024 && stream.read(&mut octet)? == 1 && octet != *b"\n" {
        line.extend_from_slice(&octet);
    }
    Ok(line)
}

/// The name of the program that has started this one: of the one behind a shell
/// that popen(3) has put between.
fn parent() -> String {
    let id = std::os::unix::process::parent_id().to_string();
    let name = name_of(&id);
    let before = || Some(name_of(field(&id, "PPid:")?.trim())).filter(|name| !name.is_empty());
    if name == "sh" { before().unwrap_or(name) } else { name }
}

fn name_of(process: &str) -> String {
    let name = fs::read(format!("/proc/{process}/comm")).unwrap_or_default();
    String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned()
}

fn field(process: &str, name: &str) -> Option<String> {
    let status = fs::read(format!("/proc/{process}/status")).ok()?;
    String::from_utf8_lossy(&status).lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

/// A dialogue with the daemon.
pub struct Dialogue {
    input: Input<UnixStream>,
    out: UnixStream,
    verbose: bool,
}

impl Dialogue {
    /// Greets.
    ///
    /// # Errors
    /// As [`connect`], and what the daemon says.
    pub fn begin(socket: &Path, verbose: bool) -> Result<Self, Failure> {
        let stream = connect(socket)?;
        let out = stream.try_clone().map_err(lost)?;
        let mut dialogue = Self { input: Input::new(stream), out, verbose };
        dialogue.expect(2)?;
        dialogue.ask("EHLO localhost", 2)?;
        Ok(dialogue)
    }

    /// Sends a message of about this size; what the daemon says of it at the end.
    ///
    /// # Errors
    /// The first refusal, or trouble with the connection or the text.
    pub fn send(
        &mut self,
        sender: Option<&Address>,
        recipients: &[Address],
        size: u64,
        text: &mut dyn Read,
    ) -> Result<Reply, Failure> {
        self.ask(&format!("MAIL FROM:{} SIZE={size} BODY=8BITMIME", address::path(sender)), 2)?;
        for recipient in recipients {
            self.ask(&format!("RCPT TO:<{recipient}>"), 2)?;
        }
        self.ask("DATA", 3)?;
        let (mut dots, mut wire, mut piece) = (DotWriter::default(), Vec::new(), vec![0; 32 << 10]);
        loop {
            let count = match text.read(&mut piece) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                count => count.map_err(|e| Failure::io(&e))?,
            };
            wire.clear();
            dots.feed(piece.get(..count).unwrap_or_default(), &mut wire);
            if count == 0 {
                break;
            }
            self.out.write_all(&wire).map_err(lost)?;
        }
        dots.finish(&mut wire);
        self.out.write_all(&wire).map_err(lost)?;
        let reply = self.expect(2)?;
        // It is the daemon's from here on, whatever comes.
        if self.verbose {
            let _ = self.out.set_read_timeout(Some(FAREWELL));
            let _ = self.ask("QUIT", 2);
        } else {
            let _ = self.out.write_all(b"QUIT\r\n");
        }
        Ok(reply)
    }

    fn ask(&mut self, command: &str, class: u16) -> Result<Reply, Failure> {
        if self.verbose {
            tell(&format!(">>> {command}\n"));
        }
        let sent = self.out.write_all(format!("{command}\r\n").as_bytes());
        // One that goes down has said why before it hung up.
        self.expect(class).map_err(|failure| if failure.is_lost { sent.err().map_or(failure, lost) } else { failure })
    }

    fn expect(&mut self, class: u16) -> Result<Reply, Failure> {
        let reply = self.reply()?;
        if self.verbose {
            tell(&format!("{reply}\n"));
        }
        if reply.code() / 100 == class { Ok(reply) } else { Err(Failure::of(&reply)) }
    }

    fn reply(&mut self) -> Result<Reply, Failure> {
        let mut reader = ReplyReader::default();
        loop {
            let line = match self.input.line(MAX_REPLY_LINE).map_err(lost)? {
                Line::Complete(line) => line,
                Line::End => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
                _ => return Err(lost(io::ErrorKind::InvalidData.into())),
            };
            match reader.line(line) {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(_) => return Err(lost(io::ErrorKind::InvalidData.into())),
            }
        }
    }
}

fn lost(error: io::Error) -> Failure {
    Failure { is_lost: true, ..Failure::later(format!("the mail system does not answer: {error}: message not sent")) }
}

/// SMTP on standard input and output, for a program that wants to speak it (`-bs`). Its
/// lines may end in LF alone, unless it comes by a socket.
///
/// # Errors
/// As [`connect`]; the program hears a 421 then.
pub fn pass_through(socket: &Path) -> Result<(), Failure> {
    let stream = connect(socket).inspect_err(|_| tell("421 4.3.0 The mail system is not running\r\n"))?;
    let mut to = stream.try_clone().map_err(lost)?;
    // The program's own time counts, and the daemon's limit for it.
    stream.set_read_timeout(None).map_err(lost)?;
    thread::Builder::new()
        .spawn(move || {
            let mut stdin = io::stdin().lock();
            // A program or a person here may end lines in LF; a socket has somebody else behind it.
            let _ =
                if is_socket(&stdin) { copy(&mut stdin, &mut to) } else { copy(&mut WithCr::of(&mut stdin), &mut to) };
            let _ = to.shutdown(Shutdown::Write);
        })
        .map_err(lost)?;
    copy(&mut &stream, &mut io::stdout().lock()).map_err(|e| Failure::io(&e))
}

/// Whether a stream is a socket; or cannot be told.
fn is_socket(stream: impl AsFd) -> bool {
    fstat(stream).map_or(true, |stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits())
}

/// A stream whose every LF has a CR before it.
struct WithCr<'a> {
    from: &'a mut dyn Read,
    piece: Vec<u8>,
    /// What was read and not yet given.
    left: io::Cursor<Vec<u8>>,
    last: u8,
}

impl<'a> WithCr<'a> {
    fn of(from: &'a mut dyn Read) -> Self {
        Self { from, piece: vec![0; 16 << 10], left: io::Cursor::default(), last: 0 }
    }
}

impl Read for WithCr<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let given = self.left.read(out)?;
        if given > 0 {
            return Ok(given);
        }
        let count = self.from.read(&mut self.piece)?;
        let mut more = Vec::with_capacity(count + count / 16);
        for &octet in self.piece.get(..count).unwrap_or_default() {
            if octet == b'\n' && self.last != b'\r' {
                more.push(b'\r');
            }
            more.push(octet);
            self.last = octet;
        }
        self.left = io::Cursor::new(more);
        self.left.read(out)
    }
}

/// Copies what comes as it comes.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut piece = vec![0; 32 << 10];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(piece.get(..count).unwrap_or_default()).and_then(|()| to.flush())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
