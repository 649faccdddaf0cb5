//! One client, as from inetd: a process that serves him and ends.
//!
//! What it has taken the daemon that runs is told of; where none runs, it looks for one a
//! while, or runs the queue itself. A session that cannot begin is answered with 421, and
//! the reason is in the log.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::{FileStat, SFlag, fstat};

use super::engine::Mail;
use super::{Exit, Start, exit};
use crate::config::LogTo;
use crate::control;
use crate::dns::Dns;
use crate::listen::Server;
use crate::log;
use crate::privsep::Rights;
use crate::reply;
use crate::session::{Committed, Service};
use crate::spool::{EntryName, Spool};
use crate::state::State;
use crate::submit::usage::Usage;
use crate::worker::Settings;

/// For how long a session under inetd tries to find who runs the queue.
const SEARCH: Duration = Duration::from_secs(15 * 60);

impl Start {
    /// Serves one client on standard input and output.
    ///
    /// # Errors
    /// What keeps it from starting; the client is told to come back.
    pub fn serve_one(&self) -> Result<(), Exit> {
        if is_client(io::stderr())
            && let Ok(null) = fs::File::options().write(true).open("/dev/null")
        {
            let _ = nix::unistd::dup2_stderr(null);
        }
        let ready = self.load().and_then(|config| self.enter(config, true));
        let (spool, settings, rights) = ready.inspect_err(turn_away)?;
        let config = &settings.config;
        let committed: Arc<Mutex<Vec<EntryName>>> = Arc::default();
        let (socket, kept) = (config.socket.clone(), Arc::clone(&committed));
        let wake = move |committed: &Committed<'_>| {
            if wake_daemon(&socket, committed.name).is_err() {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(committed.name);
            }
        };
        let dns = Arc::new(Dns::new(&config.dns));
        let service = Service {
            config: Arc::clone(config),
            router: Arc::clone(&settings.router),
            senders: Arc::clone(&settings.senders),
            usage: Arc::new(Usage::shared(&State::at(&spool.state_directory()))),
            spool: Arc::clone(&spool),
            dns,
            tls: Arc::clone(&settings.tls),
            logins: Arc::clone(&settings.logins),
            rights: rights.clone(),
            wake: Arc::new(wake),
        };
        let server = Server::new(Arc::new(service), u64::from(std::process::id()));
        server.serve_standard_input().map_err(|e| Exit::new(exit::IOERR, "standard input", &e))?;
        let left = std::mem::take(&mut *committed.lock().unwrap_or_else(PoisonError::into_inner));
        if left.is_empty() { Ok(()) } else { hand_over(settings, spool, rights, left) }
    }
}

/// Tells the client of a session that cannot begin to come back, and the operator
/// why: there may be no log yet that he has chosen, and standard error may be the client.
fn turn_away(why: &Exit) {
    let mut text = Vec::new();
    reply::connection::not_available().write_to(&mut text);
    // Whether anyone hears it changes nothing.
    let _ = io::stdout().write_all(&text);
    let _ = log::start(&LogTo::Syslog, false, "penfoldd");
    why.text.iter().for_each(|line| ::log::error!("{line}"));
}

/// Whether this is the client: under inetd standard error is, but not under systemd,
/// where it is a socket too.
fn is_client(stream: impl AsFd) -> bool {
    let is_socket = |stat: &FileStat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits();
    let file = |fd: BorrowedFd<'_>| fstat(fd).ok().filter(is_socket).map(|stat| (stat.st_dev, stat.st_ino));
    file(stream.as_fd()).is_some_and(|it| Some(it) == file(io::stdin().as_fd()))
}

fn wake_daemon(socket: &Path, name: EntryName) -> io::Result<()> {
    // The client waits for its 250 meanwhile.
    control::ask(socket, &["wake", &name.file_name()], &mut io::sink(), Duration::from_secs(2))
}

/// Finds someone to deliver messages that a session without a daemon took: a
/// daemon that has started since, or ourselves.
fn hand_over(
    settings: Arc<Settings>,
    spool: Arc<Spool>,
    rights: Rights,
    mut names: Vec<EntryName>,
) -> Result<(), Exit> {
    let (deadline, mut pause) = (Instant::now() + SEARCH, Duration::from_millis(50));
    while !names.is_empty() {
        if let Ok(Some(_lock)) = spool.lock() {
            let mail = Mail::start_without_listening(settings, spool, rights)?;
            mail.load_all()?;
            mail.drain();
            return Ok(());
        }
        names.retain(|&name| wake_daemon(&settings.config.socket, name).is_err());
        if Instant::now() > deadline {
            // Safe in the spool, for whoever runs the queue next.
            ::log::warn!("{} messages wait in the spool: no daemon answers", names.len());
            return Ok(());
        }
        // Whoever has the lock is about to listen, or to end.
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(5));
    }
    Ok(())
}
