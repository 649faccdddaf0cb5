//! Serves one client in a process that inetd has started and that ends afterwards.
//!
//! The process notifies the running daemon of each message that it has accepted. If a notification
//! fails, the process tries again after the session for up to [`SEARCH_TIMEOUT`]. If it finds then
//! that no other process holds the lock of the spool, it runs the queue itself. If the session
//! cannot begin, the client gets a 421 reply, and the reason is logged.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::{FileStat, SFlag, fstat};

use super::engine::Engine;
use super::{Exit, Start, exit};
use crate::config::LogTo;
use crate::control;
use crate::history;
use crate::json::Format;
use crate::listen::Server;
use crate::log;
use crate::reply;
use crate::session::Committed;
use crate::site::Site;
use crate::smtp::etrn::Node;
use crate::spool::EntryName;
use crate::state::State;
use crate::stats;

/// How long the process tries, after its session, to reach a daemon that runs the queue.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long the daemon may take to answer a notification. Meanwhile, the client waits for its
/// reply.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(2);

impl Start {
    /// Serves one client on standard input and output.
    ///
    /// # Errors
    /// If the session cannot begin, in which case the client gets a 421, or if the queue cannot be
    /// run afterwards.
    pub fn serve_one(&self) -> Result<(), Exit> {
        if is_client(io::stderr())
            && let Ok(null) = fs::File::options().write(true).open("/dev/null")
        {
            let _ = nix::unistd::dup2_stderr(null);
        }
        let ready = self.load().and_then(|config| self.enter(config, true));
        let (spool, settings, rights) = ready.inspect_err(turn_away)?;
        let left: Arc<Mutex<Vec<EntryName>>> = Arc::default();
        let (socket, unnotified) = (settings.config.socket.clone(), Arc::clone(&left));
        let notify = move |committed: &Committed<'_>| {
            if notify_daemon(&socket, committed.name).is_err() {
                unnotified.lock().unwrap_or_else(PoisonError::into_inner).push(committed.name);
            }
        };
        let socket = settings.config.socket.clone();
        let flush = move |node: &Node| flush_queue(&socket, node);
        let site = Site::without_listeners(settings, spool, rights);
        let (notify, flush, seed) = (Arc::new(notify), Arc::new(flush), u64::from(std::process::id()));
        let server = Server::new(Arc::clone(&site), notify, flush, seed);
        let served = server.serve_standard_input();
        history::flush();
        served.map_err(|e| Exit::new(exit::IOERR, "standard input", &e))?;
        let left = std::mem::take(&mut *left.lock().unwrap_or_else(PoisonError::into_inner));
        let state = State::at(&site.spool.state_directory());
        let done = if left.is_empty() { Ok(()) } else { find_queue(site, left) };
        stats::save(&state);
        done
    }
}

/// Sends a 421 reply to the client of a session that cannot begin, and logs the reason to syslog.
/// Syslog is used because the configured log is perhaps not open, and standard error is perhaps
/// the connection to the client.
fn turn_away(why: &Exit) {
    let mut text = Vec::new();
    reply::connection::not_available().write_to(&mut text);
    // Writing fails if the client has gone.
    let _ = io::stdout().write_all(&text);
    let _ = log::start(&LogTo::Syslog, Format::Text, false, "penfoldd");
    why.text.iter().for_each(|line| ::log::error!("{line}"));
}

/// Whether a stream is the same socket as standard input, which is the connection to the client.
/// Under inetd, standard error is that socket. Under systemd, standard error is another socket.
fn is_client(stream: impl AsFd) -> bool {
    let is_socket = |stat: &FileStat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits();
    let file = |fd: BorrowedFd<'_>| fstat(fd).ok().filter(is_socket).map(|stat| (stat.st_dev, stat.st_ino));
    file(stream.as_fd()).is_some_and(|it| Some(it) == file(io::stdin().as_fd()))
}

fn notify_daemon(socket: &Path, name: EntryName) -> io::Result<()> {
    control::ask(socket, &["wake", &name.file_name()], &mut io::sink(), NOTIFY_TIMEOUT)
}

/// Asks the daemon to try the mail for a node now. Returns the number of jobs; `None` if the daemon
/// does not answer.
fn flush_queue(socket: &Path, node: &Node) -> Option<usize> {
    let mut answer = Vec::new();
    control::ask(socket, &["etrn", &node.to_string()], &mut answer, control::ANSWER_TIMEOUT).ok()?;
    std::str::from_utf8(&answer).ok()?.trim().parse().ok()
}

/// Finds a process to deliver the messages that were accepted while no daemon answered: a daemon
/// that has started since, or this process.
fn find_queue(site: Arc<Site>, mut names: Vec<EntryName>) -> Result<(), Exit> {
    let (deadline, mut pause) = (Instant::now() + SEARCH_TIMEOUT, Duration::from_millis(50));
    let socket = site.settings().config.socket.clone();
    while !names.is_empty() {
        if let Ok(Some(_lock)) = site.spool.lock() {
            let engine = Engine::start(Arc::clone(&site))?;
            engine.take_and_scan()?;
            engine.drain();
            history::flush();
            return Ok(());
        }
        names.retain(|&name| notify_daemon(&socket, name).is_err());
        if Instant::now() > deadline {
            // The messages are safe in the spool, and the next daemon delivers them.
            ::log::warn!("{} messages wait in the spool: no daemon answers", names.len());
            return Ok(());
        }
        // The process that holds the lock is about to listen, or to end.
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(5));
    }
    Ok(())
}
