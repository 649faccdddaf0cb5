//! Offers a file of the drop directory to an SMTP session of this process.
//!
//! The session is the same as for sendmail(8) over the control socket, so the same rules, limits and
//! fields apply. This side speaks like sendmail(8), and gives the session nothing but the commands
//! and the message of the file.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::reply::{Reply, ReplyReader};
use crate::smtp::MAX_REPLY_LINE;
use crate::smtp::dot::DotWriter;
use crate::smtp::line::{Input, Line};
use crate::submit::drop::file::DropFile;

/// The time limit for a reply of the session.
const REPLY_TIMEOUT: Duration = Duration::from_secs(600);
/// The number of octets that are read at a time.
const PIECE: usize = 32 << 10;

/// What the session has said to a message.
#[derive(Debug)]
pub enum Answer {
    /// The message is in the spool, or a filter has discarded it.
    Accepted,
    /// The message can never be accepted, for this reason.
    Refused(String),
    /// The message cannot be accepted now, for this reason.
    Later(String),
}

/// Offers a message to the session at the other end of `stream`.
pub fn offer(file: &mut DropFile<impl Read>, stream: UnixStream) -> Answer {
    match Dialogue::new(&stream).and_then(|mut dialogue| dialogue.run(file)) {
        Ok(()) => Answer::Accepted,
        Err(Failure::Refused(reply)) if reply.code() >= 500 => Answer::Refused(reply.to_string()),
        Err(Failure::Refused(reply)) => Answer::Later(reply.to_string()),
        Err(Failure::Io(e)) if e.kind() == io::ErrorKind::InvalidData => Answer::Refused(e.to_string()),
        Err(Failure::Io(e)) => Answer::Later(e.to_string()),
    }
    // The stream is closed here. A session that has not got the whole message commits nothing.
}

enum Failure {
    Refused(Reply),
    /// A reply did not come, or the file cannot be read or is malformed.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

struct Dialogue<'s> {
    input: Input<&'s UnixStream>,
    out: &'s UnixStream,
}

impl<'s> Dialogue<'s> {
    fn new(stream: &'s UnixStream) -> Result<Self, Failure> {
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self { input: Input::new(stream), out: stream })
    }

    fn run(&mut self, file: &mut DropFile<impl Read>) -> Result<(), Failure> {
        self.expect(2)?;
        self.ask("EHLO localhost", 2)?;
        while let Some(command) = file.command()? {
            self.ask(&command, 2)?;
        }
        self.ask("DATA", 3)?;
        let (mut dots, mut wire, mut piece) = (DotWriter::default(), Vec::new(), vec![0; PIECE]);
        loop {
            let count = file.content(&mut piece)?;
            if count == 0 {
                break;
            }
            wire.clear();
            dots.feed(piece.get(..count).unwrap_or_default(), &mut wire);
            self.out.write_all(&wire)?;
        }
        wire.clear();
        dots.finish(&mut wire);
        self.out.write_all(&wire)?;
        self.expect(2)?;
        // Nothing follows.
        let _ = self.out.shutdown(Shutdown::Write);
        Ok(())
    }

    fn ask(&mut self, command: &str, class: u16) -> Result<(), Failure> {
        self.out.write_all(format!("{command}\r\n").as_bytes())?;
        self.expect(class)
    }

    fn expect(&mut self, class: u16) -> Result<(), Failure> {
        let mut reader = ReplyReader::default();
        loop {
            let Line::Complete(line) = self.input.line(MAX_REPLY_LINE)? else {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            };
            match reader.line(line) {
                Ok(Some(reply)) if reply.code() / 100 == class => return Ok(()),
                Ok(Some(reply)) => return Err(Failure::Refused(reply)),
                Ok(None) => {}
                Err(_) => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
            }
        }
    }
}
