//! penfoldd as a process: how it starts, the ways in which it runs, and how it ends.
//!
//! Everything that can prevent a start is done before the program leaves the foreground: reading
//! the configuration, binding sockets, dropping root's rights, opening the spool. If one of these
//! steps fails, the program ends with an exit code from sysexits(3) and a text. As root, the
//! process only reads the configuration, binds the sockets, starts the monitor (the process that
//! stays root) and makes the directories. It drops root's rights before it opens anything else.
//!
//! - `capacity`: whether the system's limits allow the configured connections
//! - `confine`: the places in the file system that the server is confined to
//! - `cure`: what an administrator can do about an error that prevents a start
//! - `detach`: going to the background, and the pid file
//! - `directories`: the spool directory and the directory of the control socket
//! - `engine`: the queue, its workers, and the threads around them
//! - `helper`: the helper processes of a server
//! - `inetd`: serving one client on standard input and output
//! - `inherited`: listening sockets, bound or passed by the service manager
//! - `lock`: the lock of the spool
//! - `notify`: messages to the service manager
//! - `opener`: the files that the opener may open
//! - `permissions`: the files that the configuration names, and the user who must read them
//! - `privileges`: the monitor's start and end, and the change to the server's user
//! - `reports`: the daily reports to the owners of domains
//! - `scan`: reporting the entries in the spool to the queue
//! - `settings`: reading the configuration and its tables
//! - `warnings`: valid settings that are probably mistakes

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use signal_hook::consts::{SIGCHLD, SIGHUP};
use signal_hook::iterator::Signals;

use crate::config::{Config, Kind, LogTo};
use crate::control::{self, Reloads};
use crate::exit::{self, Exit};
use crate::history;
use crate::listen::Server;
use crate::log;
use crate::privsep::Rights;
use crate::queue::{Event, Selector};
use crate::site::{Settings, Site};
use crate::spool::Spool;
use crate::state::State;
use crate::stats::{self, Keeper};
use crate::sys;

mod capacity;
mod confine;
mod cure;
mod detach;
mod directories;
mod engine;
pub mod helper;
mod inetd;
mod inherited;
mod lock;
mod notify;
mod opener;
mod permissions;
mod privileges;
mod reports;
mod scan;
mod settings;
mod warnings;

use detach::Detached;
use engine::Engine;
use inherited::Inherited;
use warnings::DaneCheck;

/// The options with which the program was started.
#[derive(Debug, Clone)]
pub struct Start {
    /// The path of the configuration file; `None` for the defaults.
    config: Option<PathBuf>,
    foreground: bool,
    verbose: bool,
    /// The path of the pid file, which only a daemon in the background writes; `None` for no pid
    /// file.
    pid_file: Option<PathBuf>,
}

/// The path of the configuration file that is used if no option names one.
pub const DEFAULT_CONFIG: &str = "/etc/penfold/penfold.conf";

/// The status text that the service manager shows while the daemon serves.
const SERVING: &str = "Serving";

/// The interval at which the expiry of all certificates is checked.
const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(12 * 60 * 60);

impl Start {
    /// Makes the options for a start with the configuration file `named`. If `named` is `None`, the
    /// file is [`DEFAULT_CONFIG`] or, if that file does not exist, there is none. With
    /// `foreground`, the process stays in the foreground and logs to standard error. With
    /// `verbose`, it logs more.
    pub fn new(named: Option<PathBuf>, foreground: bool, verbose: bool) -> Self {
        let default = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.exists());
        Self { config: named.map(absolute).or_else(default), foreground, verbose, pid_file: None }
    }

    /// Adds the path of a pid file, which is written if the daemon runs in the background.
    pub fn with_pid_file(self, path: Option<PathBuf>) -> Self {
        Self { pid_file: path.map(absolute), ..self }
    }

    /// In the foreground, serves until a signal ends the process. Otherwise starts the daemon in
    /// the background, and returns when the daemon serves.
    ///
    /// # Errors
    /// If the start fails, or the monitor has ended.
    pub fn serve(&self) -> Result<(), Exit> {
        let detached = if self.foreground { None } else { Detached::begin() };
        if !self.foreground && detached.is_none() {
            return detach::run(self.pid_file.as_deref());
        }
        self.serve_here(detached)
    }

    fn serve_here(&self, detached: Option<Detached>) -> Result<(), Exit> {
        let config = self.load()?;
        let mut inherited = Inherited::take(&config.socket)?;
        let drop_root = || self.become_user(&config).is_ok();
        let listeners = inherited
            .listeners(&config.listen, Self::owner(&config))
            .map_err(|exit| lock::explain_conflict(exit, &config.spool, drop_root))?;
        let (spool, settings, rights) = self.enter(config, false)?;
        inherited.warn();
        if detached.is_some() {
            log::warn_of_missing_syslog(&settings.config.log);
        }
        let config = Arc::clone(&settings.config);
        let lock = lock::take(&spool)?;
        let (bind, is_shared) = (|| control::bind(&config.socket), inherited.control.is_some());
        let control = inherited.control.map_or_else(bind, Ok).map_err(|e| {
            let doing = format!("make {}", config.socket.display());
            Exit::new(exit::CANTCREAT, doing, &e).and(cure::of_socket(&config.socket, &e))
        })?;
        let signals = sys::signals().map_err(|e| Exit::new(exit::OSERR, "await signals", &e))?;
        let local = listeners.iter().filter(|listener| listener.listen.kind != Kind::Status);
        let local: Vec<_> = local.filter_map(|listener| listener.socket.address()).collect();
        let log_exit = |exit: &Exit| exit.text.iter().for_each(|line| ::log::error!("{line}"));
        warnings::log_all(&settings, &rights, &local);
        let site = Site::new(settings, spool, rights.clone(), local);
        site.shared.start();
        let engine = Engine::start(Arc::clone(&site)).inspect_err(log_exit)?;
        let server = Server::new(Arc::clone(&site), engine.notify(), engine.flush(), sys::now());
        let keeper = Arc::new(Keeper::new(&State::at(&site.spool.state_directory())));
        keep_statistics(Arc::clone(&keeper));
        check_certificates(site);
        let reloads = Arc::<Reloads>::default();
        let stopping = engine.open(&server, listeners, (control, is_shared), &reloads).inspect_err(log_exit)?;
        ::log::info!("penfoldd {} started", env!("CARGO_PKG_VERSION"));
        let dane = DaneCheck::start(Arc::clone(&engine.site), config.dns.clone());
        if let Some(detached) = detached {
            detached.serving();
        }
        notify::ready(SERVING);
        self.await_end(signals, &engine, &dane, &config, &reloads);
        server.refuse();
        if is_shared {
            control::leave(&config.socket);
        }
        server.close(&stopping);
        engine.stop();
        keeper.save();
        ::log::info!("stopped");
        history::flush();
        // If only root may remove the pid file, this fails, and the monitor removes it.
        self.pid_file.as_deref().into_iter().for_each(|path| detach::remove_pid_file(path, std::process::id()));
        drop(lock);
        privileges::check_monitor(&rights)
    }

    /// Reloads at each SIGHUP, and returns at the first signal to stop. A second signal to stop
    /// ends the process at once.
    fn await_end(&self, mut signals: Signals, engine: &Engine, dane: &DaneCheck, started: &Config, reloads: &Reloads) {
        for signal in signals.forever() {
            match signal {
                SIGHUP => {
                    notify::reloading();
                    reloads.serve(|| self.reload(engine, started));
                    dane.again();
                    notify::ready(SERVING);
                }
                SIGCHLD => sys::command::reap_orphans(),
                _ => break,
            }
        }
        ::log::info!("stopping");
        notify::stopping();
        let second = thread::Builder::new().spawn(move || {
            if signals.forever().any(|signal| ![SIGHUP, SIGCHLD].contains(&signal)) {
                std::process::exit(0);
            }
        });
        drop(second);
    }

    /// Tries to deliver every message in the spool once. If a daemon runs, asks the daemon to do
    /// that.
    ///
    /// # Errors
    /// If the start fails, the spool cannot be locked or read, or the daemon does not answer.
    pub fn run_queue(&self) -> Result<(), Exit> {
        let (spool, settings, rights) = self.enter(self.load()?, true)?;
        let socket = settings.config.socket.clone();
        match spool.lock() {
            Ok(Some(_lock)) => {
                let engine = Engine::start(Site::without_listeners(settings, Arc::clone(&spool), rights))?;
                engine.take_and_scan()?;
                engine.send(Event::Flush(Selector::Waiting, bounded(1).0));
                engine.drain();
                stats::save(&State::at(&spool.state_directory()));
                history::flush();
                Ok(())
            }
            Ok(None) => control::ask(&socket, &["flush"], &mut io::sink(), control::ANSWER_TIMEOUT)
                .map_err(|e| Exit::new(exit::TEMPFAIL, "the daemon that runs the queue does not answer", &e)),
            Err(e) => Err(Exit::new(exit::IOERR, "lock the spool", &e)),
        }
    }

    /// Drops root's rights, opens the spool, the log and the tables, and confines the process. The
    /// server's user opens all of these files, because that user has to open them again later.
    /// `is_brief` is set for a process that serves one client or runs the queue once.
    fn enter(&self, config: Config, is_brief: bool) -> Result<(Arc<Spool>, Arc<Settings>, Rights), Exit> {
        let (spool, rights) = self.open_spool(&config)?;
        sys::raise_descriptor_limit();
        let to = if self.foreground { &LogTo::Stderr } else { &config.log };
        log::start(to, config.log_format, self.verbose, "penfoldd").map_err(|e| permissions::no_log(to, &e))?;
        log::report_bugs();
        let (settings, faults) =
            self.settings(config, &rights, Arc::default()).map_err(|errors| Exit::of_config(&errors))?;
        // A bad table does not prevent a start, just as it does not stop a running daemon.
        settings::log_faults(&faults);
        settings::keep_key(&spool, &settings);
        self.warn_early(&settings.config, &rights);
        self.confine(&settings, &rights, is_brief)?;
        // The thread that writes the history has to be confined, too.
        history::start(&spool.state_directory(), settings.config.history, !is_brief);
        Ok((spool, Arc::new(settings), rights))
    }
}

fn keep_statistics(keeper: Arc<Keeper>) {
    let _ = thread::Builder::new().name("stats".to_owned()).spawn(move || keeper.run());
}

fn check_certificates(site: Arc<Site>) {
    let _ = thread::Builder::new().name("certificates".to_owned()).spawn(move || {
        loop {
            thread::sleep(CERTIFICATE_CHECK_INTERVAL);
            site.settings().tls.server.iter().for_each(|server| server.check_expiry());
        }
    });
}

/// Makes a path absolute, because the daemon changes its working directory.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
