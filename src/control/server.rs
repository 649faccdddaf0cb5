//! The daemon's side.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};

use super::MAX_REQUEST;
use crate::queue::Selector;
use crate::spool::EntryName;

/// A client that is slower is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes the listing of the queue.
type List = dyn Fn(&mut dyn Write) -> io::Result<()> + Send;

/// What the daemon does when it is told.
pub struct Orders {
    /// Try now what waits; how many deliveries that are.
    pub flush: Box<dyn Fn(Selector) -> usize + Send>,
    /// A message was committed by another process.
    pub wake: Box<dyn Fn(EntryName) + Send>,
    /// The listing of the queue.
    pub list: Box<List>,
}

/// Makes the socket, in place of one that a daemon left behind. The caller holds
/// the spool's lock, so no daemon listens on it.
///
/// # Errors
/// Those of bind(2).
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Who may do what is decided by who calls, not by who can reach it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Answers one client after the other, for ever.
pub fn serve(listener: &UnixListener, orders: &Orders) {
    for stream in listener.incoming() {
        match stream.and_then(|stream| answer(stream, orders)) {
            Ok(()) => {}
            Err(e) => {
                ::log::debug!("control: {e}");
                // Such as no descriptor left: not at full speed.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn answer(mut stream: UnixStream, orders: &Orders) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let caller = getsockopt(&stream, sockopt::PeerCredentials)?.uid();
    if caller != 0 && caller != nix::unistd::geteuid().as_raw() {
        return stream.write_all(b"you may not do that\n");
    }
    let request = read_line(&mut stream)?;
    let words: Vec<&str> = request.split_ascii_whitespace().collect();
    match words.as_slice() {
        ["queue"] => {
            let mut out = io::BufWriter::new(stream);
            out.write_all(b"ok\n")?;
            (orders.list)(&mut out)?;
            out.flush()
        }
        ["flush", rest @ ..] if rest.len() < 2 => {
            let count = (orders.flush)(rest.first().map_or(Selector::All, |word| Selector::parse(word)));
            stream.write_all(format!("ok\n{count}\n").as_bytes())
        }
        ["wake", name] => match EntryName::parse_new(name) {
            Some(name) => {
                (orders.wake)(name);
                stream.write_all(b"ok\n")
            }
            None => stream.write_all(b"that names no message\n"),
        },
        _ => stream.write_all(b"that is not understood\n"),
    }
}

fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_REQUEST && stream.read(&mut byte)? == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}
