//! The daemon's side.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};

use super::{FORBIDDEN, MAX_REQUEST};
use crate::queue::Selector;
use crate::spool::EntryName;

/// Clients at once.
const MAX_GUESTS: usize = 16;
/// What answering one takes.
const STACK: usize = 256 << 10;
/// A client that is slower is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes the listing of the queue.
type List = dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync;

/// What the daemon does when it is told.
pub struct Orders {
    /// Try now what waits; how many deliveries that are.
    pub flush: Box<dyn Fn(Selector) -> usize + Send + Sync>,
    /// A message was committed by another process.
    pub wake: Box<dyn Fn(EntryName) + Send + Sync>,
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

/// Answers clients for ever, each in a thread of its own, so that none keeps the
/// others waiting.
pub fn serve(listener: &UnixListener, orders: Orders) {
    let (orders, guests) = (Arc::new(orders), Arc::new(AtomicUsize::new(0)));
    for stream in listener.incoming() {
        let result = stream.and_then(|stream| start(stream, &orders, &guests));
        if let Err(e) = result {
            ::log::debug!("control: {e}");
            // Such as no descriptor left: not at full speed.
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A place among [`MAX_GUESTS`], for as long as it lives.
struct Guest(Arc<AtomicUsize>);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn start(mut stream: UnixStream, orders: &Arc<Orders>, guests: &Arc<AtomicUsize>) -> io::Result<()> {
    let before = guests.fetch_add(1, Ordering::SeqCst);
    let guest = Guest(Arc::clone(guests));
    if before >= MAX_GUESTS {
        stream.set_nonblocking(true)?;
        return stream.write_all(b"too many are asking\n");
    }
    let (orders, mut spare) = (Arc::clone(orders), stream.try_clone()?);
    let run = move || {
        let _guest = guest;
        if let Err(e) = answer(stream, &orders) {
            ::log::debug!("control: {e}");
        }
    };
    let started = thread::Builder::new().name("control".into()).stack_size(STACK).spawn(run);
    if started.is_err() {
        spare.set_nonblocking(true)?;
        spare.write_all(b"the system has no thread for an answer\n")?;
    }
    started.map(drop)
}

fn answer(mut stream: UnixStream, orders: &Orders) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let caller = getsockopt(&stream, sockopt::PeerCredentials)?.uid();
    if caller != 0 && caller != nix::unistd::geteuid().as_raw() {
        return stream.write_all(format!("{FORBIDDEN}\n").as_bytes());
    }
    let request = read_line(&mut stream)?;
    let words: Vec<&str> = request.split_ascii_whitespace().collect();
    match words.as_slice() {
        ["queue"] => {
            let mut out = io::BufWriter::new(stream);
            out.write_all(b"ok\n")?;
            if let Err(e) = (orders.list)(&mut out) {
                writeln!(out, "-- the list ends here: {e}")?;
            }
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

/// A line, within [`PATIENCE`] altogether.
fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut piece = [0; 256];
    while line.len() < MAX_REQUEST && !line.contains(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => break,
            count => line.extend_from_slice(&piece[..count]),
        }
    }
    let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}
