//! Start-up order, the ways to run, and the end.
//!
//! What can fail does so in the foreground, with an exit code of sysexits(3) and a
//! text, before the daemon leaves the terminal: configuration, tables, sockets,
//! privileges, spool. After that nothing is fatal. Root binds the sockets and
//! makes the directories, and is given up before anything else is opened.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use nix::libc::{O_DIRECTORY, O_NOFOLLOW};
use signal_hook::consts::{SIGCHLD, SIGHUP};

use crate::config::{self, Config, ConfigError, LogTo, TableFile, table};
use crate::control;
use crate::deliver::remote::credentials::Credentials;
use crate::exit::{self, Exit};
use crate::listen::Server;
use crate::log;
use crate::privsep::rootpath::{is_roots, is_roots_alone};
use crate::privsep::{self, Rights};
use crate::queue::{Event, Selector};
use crate::route::Router;
use crate::sasl::server::set_key;
use crate::sasl::throttle::Throttle;
use crate::spool::Spool;
use crate::submit::senders::Senders;
use crate::sys;
use crate::tls::Tls;
use crate::users::accounts;
use crate::worker::{Settings, Tools};

mod capacity;
mod confine;
mod detach;
mod engine;
mod inetd;
mod inherited;
mod lock;
mod notify;
mod opener;
mod permissions;
mod privileges;
mod scan;
mod warnings;

use detach::Detached;
use engine::Mail;
use inherited::Inherited;

/// How the daemon was started.
#[derive(Debug, Clone)]
pub struct Start {
    /// The configuration file; `None` for the defaults.
    config: Option<PathBuf>,
    foreground: bool,
    verbose: bool,
    /// Where the process id goes, of a daemon in the background.
    pid_file: Option<PathBuf>,
}

/// Where the configuration is if nothing else is said.
pub const DEFAULT_CONFIG: &str = "/etc/penfold/penfold.conf";

/// What the service manager shows.
const SERVING: &str = "Serving";

/// How often certificates are looked at that no client has asked for.
const HALF_A_DAY: Duration = Duration::from_secs(12 * 60 * 60);

impl Start {
    /// `given` is the configuration file that was named; else it is [`DEFAULT_CONFIG`] if that is
    /// there now, and then at every reload. `foreground` logs to standard error, `verbose` more.
    pub fn new(given: Option<PathBuf>, foreground: bool, verbose: bool) -> Self {
        let default = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.exists());
        Self { config: given.map(absolute).or_else(default), foreground, verbose, pid_file: None }
    }

    /// The same, with a file for the process id of a daemon in the background.
    pub fn with_pid_file(self, path: Option<PathBuf>) -> Self {
        Self { pid_file: path.map(absolute), ..self }
    }

    /// The configuration.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(&self) -> Result<Config, Exit> {
        let loaded = match &self.config {
            Some(path) => config::load(path),
            None => config::parse(Path::new(DEFAULT_CONFIG), ""),
        };
        loaded.map_err(|errors| Exit::of_config(&errors))
    }

    /// The configuration as far as it can be read: for programs that anyone may run, who
    /// cannot see every file that it names, and who are not to be kept from sending mail by
    /// what is wrong elsewhere in it.
    pub fn glance(&self) -> Config {
        let path = self.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
        config::examine(path).0.unwrap_or_else(config::default)
    }

    /// The aliases file that the configuration names, whatever is wrong with the rest of it.
    ///
    /// # Errors
    /// All that is wrong with a configuration that cannot be read; that the file is not there.
    pub fn aliases(&self) -> Result<TableFile, Exit> {
        let (config, errors) = match &self.config {
            Some(path) => config::examine(path),
            None => (Some(config::default()), Vec::new()),
        };
        match config.map(|config| config.local.aliases) {
            None => Err(Exit::of_config(&errors)),
            Some(file) if file.path.as_os_str().is_empty() => {
                let is_meant = |error: &ConfigError| error.text.starts_with("local.aliases: ");
                Err(Exit::of_config(&errors.into_iter().filter(is_meant).collect::<Vec<_>>()))
            }
            Some(file) => Ok(file),
        }
    }

    /// `-n`: reads configuration and tables, and logs the warnings of a start to standard error.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn examine(&self) -> Result<(), Exit> {
        log::start(&LogTo::Stderr, self.verbose, "penfoldd").map_err(|e| Exit::new(exit::OSERR, "log", &e))?;
        let (settings, rights) = self.check(None, Arc::default())?;
        sys::raise_descriptor_limit();
        self.warn_early(&settings.config, &rights);
        let sockets: Vec<_> = settings.config.listen.iter().map(|listen| listen.address).collect();
        warnings::tell(&settings, &rights, &sockets);
        warnings::of_a_start(&settings.config, self.foreground);
        permissions::try_log(&settings.config.log)
            .map_err(|e| Exit::new(exit::CANTCREAT, permissions::doing_log(&settings.config.log), &e))
    }

    /// Configuration and tables: the errors of both at once. Without `rights` it is a start, and the
    /// monitor is started if this process is root.
    fn check(&self, rights: Option<&Rights>, throttle: Arc<Throttle>) -> Result<(Settings, Rights), Exit> {
        let (mut wrong, mut rights) = (Vec::new(), rights.cloned());
        let (config, mut errors) = match &self.config {
            Some(path) => config::examine(path),
            None => (Some(self.load()?), Vec::new()),
        };
        if let Some(config) = &config {
            if rights.is_none() {
                rights = self.start_monitor(config).inspect_err(|e| ::log::error!("start the monitor: {e}")).ok();
            }
            wrong.extend(self.become_user(config).err().into_iter().flat_map(|exit| exit.text));
        }
        let rights = rights.unwrap_or_default();
        let settings = match config.map(|config| self.settings(config, &rights, throttle)) {
            Some(Ok((settings, faults))) => {
                errors.extend(faults);
                Some(settings)
            }
            Some(Err(more)) => {
                errors.extend(more);
                None
            }
            None => None,
        };
        match settings {
            Some(settings) if errors.is_empty() && wrong.is_empty() => Ok((settings, rights)),
            _ => {
                wrong.extend(errors.iter().map(ToString::to_string));
                Err(Exit { code: exit::CONFIG, text: wrong })
            }
        }
    }

    /// Serves until a signal ends it; in the background, returns when that is served.
    ///
    /// # Errors
    /// What keeps it from starting.
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
        let may_look = || self.become_user(&config).is_ok();
        let listeners =
            inherited.listeners(&config.listen).map_err(|exit| lock::name_holder(exit, &config.spool, may_look))?;
        let (spool, settings, rights) = self.enter(config, false)?;
        inherited.warn();
        if detached.is_some() {
            log::warn_of_silence(&settings.config.log);
        }
        let config = Arc::clone(&settings.config);
        let lock = lock::take(&spool)?;
        let bind = || control::bind(&config.socket);
        let control = inherited
            .control
            .map_or_else(bind, Ok)
            .map_err(|e| Exit::new(exit::CANTCREAT, format!("make {}", config.socket.display()), &e))?;
        let mut signals = sys::signals().map_err(|e| Exit::new(exit::OSERR, "await signals", &e))?;
        let local: Vec<_> = listeners.iter().filter_map(|e| e.socket.local_addr().ok()).collect();
        let told = |exit: &Exit| exit.text.iter().for_each(|line| ::log::error!("{line}"));
        warnings::tell(&settings, &rights, &local);
        let mail = Mail::start(settings, spool, rights, local).inspect_err(told)?;
        let server = Server::new(mail.service(), sys::now());
        look_after_certificates(Arc::clone(&mail.tools));
        let stopping = mail.open_up(&server, listeners, control).inspect_err(told)?;
        ::log::info!("penfoldd {} started", env!("CARGO_PKG_VERSION"));
        if let Some(detached) = detached {
            detached.serving();
        }
        notify::ready(SERVING);
        for signal in signals.forever() {
            match signal {
                SIGHUP => {
                    notify::reloading();
                    self.reload(&mail, &server, &config);
                    notify::ready(SERVING);
                }
                SIGCHLD => sys::command::bury_orphans(),
                _ => break,
            }
        }
        ::log::info!("stopping");
        notify::stopping();
        // A second signal does not wait.
        let patience = thread::Builder::new().spawn(move || {
            if signals.forever().any(|signal| ![SIGHUP, SIGCHLD].contains(&signal)) {
                std::process::exit(0);
            }
        });
        drop(patience);
        server.close(&stopping);
        let rights = mail.tools.agents.rights().clone();
        mail.stop();
        ::log::info!("stopped");
        // Where only root may, the monitor does it.
        self.pid_file.as_deref().into_iter().for_each(|path| detach::remove_pid_file(path, std::process::id()));
        drop(lock);
        privileges::check_monitor(&rights)
    }

    /// Tries every message in the spool once.
    ///
    /// # Errors
    /// What keeps it from starting; a running daemon in particular, which is told to.
    pub fn run_queue(&self) -> Result<(), Exit> {
        let (spool, settings, rights) = self.enter(self.load()?, true)?;
        let socket = settings.config.socket.clone();
        match spool.lock() {
            Ok(Some(_lock)) => {
                let mail = Mail::start_without_listening(settings, spool, rights)?;
                mail.load_all()?;
                mail.tell(Event::Flush(Selector::Waiting, bounded(1).0));
                mail.drain();
                Ok(())
            }
            Ok(None) => control::ask(&socket, &["flush"], &mut io::sink(), control::ANSWER_TIMEOUT)
                .map_err(|e| Exit::new(exit::TEMPFAIL, "the daemon that runs the queue does not answer", &e)),
            Err(e) => Err(Exit::new(exit::IOERR, "lock the spool", &e)),
        }
    }

    /// All that the configuration names, opened by the user that this process is, and what is
    /// wrong in tables.
    fn settings(
        &self,
        config: Config,
        rights: &Rights,
        throttle: Arc<Throttle>,
    ) -> Result<(Settings, Vec<ConfigError>), Vec<ConfigError>> {
        let names = permissions::Names::of(self.path(), &config);
        let explained = |errors: Vec<ConfigError>| errors.into_iter().map(|error| names.explain(error)).collect();
        match open_all(config, rights, throttle) {
            Ok((settings, faults)) => Ok((settings, explained(faults))),
            Err(errors) => Err(explained(errors)),
        }
    }

    fn path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG))
    }

    /// Warns of what is told before anything else.
    fn warn_early(&self, config: &Config, rights: &Rights) {
        if let Some(path) = &self.config {
            warnings::of_configuration(path);
        }
        warnings::of_homes(config, rights);
    }

    /// The spool, opened by the server's user, whose the directories are that are made here.
    fn open_spool(&self, config: &Config) -> Result<(Arc<Spool>, Rights), Exit> {
        let started = self.start_monitor(config);
        let needed = [config.spool.as_path(), config.socket.parent().unwrap_or(Path::new("/"))];
        let failed = |path: &Path, e| Exit::new(exit::CANTCREAT, format!("make {}", path.display()), &e);
        let (as_root, user) = (sys::is_root(), &config.user);
        for directory in needed.iter().filter(|_| as_root) {
            make_for(directory, user).map_err(|e| failed(directory, e))?;
        }
        if as_root {
            take_over(&config.spool, user).map_err(|e| failed(&config.spool, e))?;
        }
        self.become_user(config)?;
        for directory in needed.iter().filter(|directory| as_root && !directory.exists()) {
            make_all(directory).map_err(|e| failed(directory, e))?;
        }
        let rights = started.unwrap_or_else(|e| {
            ::log::error!("start the monitor: {e}; mail for users of the system waits");
            Rights::Alone
        });
        let spool = Spool::open(&config.spool).map_err(|e| {
            let mut exit = Exit::new(exit::CANTCREAT, format!("open the spool {}", config.spool.display()), &e);
            if exit.code == exit::NOPERM {
                let (user, spool) = (privsep::user_name(), config.spool.display());
                exit.text.push(format!("the spool must be the user's that runs it: chown -R {user} {spool}"));
            }
            exit
        })?;
        Ok((spool, rights))
    }

    /// From root to the server's user, with spool, log and tables open: who opens them has to
    /// do it again later. `is_brief`: the process serves one client or runs the queue once.
    fn enter(&self, config: Config, is_brief: bool) -> Result<(Arc<Spool>, Arc<Settings>, Rights), Exit> {
        let (spool, rights) = self.open_spool(&config)?;
        sys::raise_descriptor_limit();
        let to = if self.foreground { &LogTo::Stderr } else { &config.log };
        log::start(to, self.verbose, "penfoldd")
            .map_err(|e| Exit::new(exit::CANTCREAT, permissions::doing_log(to), &e))?;
        log::report_bugs();
        let (settings, faults) =
            self.settings(config, &rights, Arc::default()).map_err(|errors| Exit::of_config(&errors))?;
        // A restart must not end what was a line of the log before it.
        tell_faults(&faults);
        keep_key(&spool, &settings);
        self.warn_early(&settings.config, &rights);
        self.confine(&settings, &rights, is_brief)?;
        Ok((spool, Arc::new(settings), rights))
    }

    /// Reads configuration and tables again; what is wrong leaves the old ones in force.
    /// `started` is the configuration of the start, of which some keys still hold.
    fn reload(&self, mail: &Mail, server: &Server, started: &Config) {
        log::reopen();
        let old = mail.tools.settings();
        let rights = mail.tools.agents.rights();
        let fresh = match self.check(Some(rights), Arc::clone(&old.logins.throttle)) {
            Ok((fresh, _)) => fresh,
            Err(exit) => {
                exit.text.iter().for_each(|line| ::log::error!("{line}"));
                ::log::error!("the configuration has errors: the old one stays in force");
                return;
            }
        };
        warnings::of_changes(started, &fresh.config, rights);
        warnings::tell(&fresh, rights, &mail.tools.outbound.local);
        keep_key(&mail.tools.spool, &fresh);
        let settings = Arc::new(fresh);
        mail.tell(Event::Settings(engine::queue_settings(&settings)));
        *mail.tools.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        server.replace(mail.service());
        ::log::info!("configuration and tables read again");
    }
}

/// All that the configuration names, opened; and what is wrong in tables that can be served
/// with all the same.
fn open_all(
    config: Config,
    rights: &Rights,
    throttle: Arc<Throttle>,
) -> Result<(Settings, Vec<ConfigError>), Vec<ConfigError>> {
    let ((router, mut faults), (senders, more)) = (Router::begin(&config, rights), Senders::begin(&config));
    let (logins, of_logins) = accounts::begin(&config, rights, throttle);
    faults.extend(more);
    // The users file of the router's has said so already.
    let of_logins: Vec<_> = of_logins.into_iter().filter(|error| !faults.contains(error)).collect();
    faults.extend(of_logins);
    match (router, Tls::open(&config, rights), Credentials::open(&config, rights)) {
        (Some(router), Ok(tls), Ok(credentials)) => {
            let settings = Settings {
                config: Arc::new(config),
                router: Arc::new(router),
                senders: Arc::new(senders),
                logins: Arc::new(logins),
                tls: Arc::new(tls),
                credentials,
            };
            Ok((settings, faults))
        }
        (_, tls, credentials) => {
            faults.extend([tls.err(), credentials.err()].into_iter().flatten().flatten());
            Err(faults)
        }
    }
}

/// Tells of what a start passes over, some lines of each file.
fn tell_faults(faults: &[ConfigError]) {
    for of_one in faults.chunk_by(|one, other| one.file == other.file) {
        table::told(of_one).for_each(|error| ::log::error!("{error}"));
        let file = of_one.first().map(|error| error.file.display().to_string()).unwrap_or_default();
        ::log::warn!("{file}: has errors: what can be read of it is in force, and mail for the rest waits");
    }
}

fn look_after_certificates(tools: Arc<Tools>) {
    let _ = thread::Builder::new().name("certificates".to_owned()).spawn(move || {
        loop {
            thread::sleep(HALF_A_DAY);
            tools.settings().tls.server.iter().for_each(|server| server.look_after());
        }
    });
}

/// What those are shown who have no account stays the same over restarts.
fn keep_key(spool: &Spool, settings: &Settings) {
    if !settings.logins.backend.mechanisms(false).is_empty() {
        spool.key().map(set_key).unwrap_or_else(|e| ::log::warn!("spool: keep a key: {e}"));
    }
}

/// The daemon leaves the directory that a path is relative to.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Makes a directory that is missing, as root, for the server's user; not where others than
/// root may write.
fn make_for(directory: &Path, user: &str) -> io::Result<()> {
    let above = directory.ancestors().find(|path| path.exists());
    if above.is_none_or(|above| above == directory || !is_roots_alone(above)) {
        return Ok(());
    }
    make_all(directory)?;
    let Some(found) = nix::unistd::User::from_name(user)? else { return Ok(()) };
    std::os::unix::fs::chown(directory, Some(found.uid.as_raw()), Some(found.gid.as_raw()))
}

/// Gives a spool that is there, empty and root's alone, such as a new volume of a container, to
/// the server's user. One with anything in it stays as it is: it may be somebody's.
fn take_over(spool: &Path, user: &str) -> io::Result<()> {
    let Ok(directory) = fs::File::options().read(true).custom_flags(O_DIRECTORY | O_NOFOLLOW).open(spool) else {
        return Ok(());
    };
    if !is_roots_alone(spool) || !is_roots(&directory.metadata()?) || !is_empty(spool)? {
        return Ok(());
    }
    let Some(found) = nix::unistd::User::from_name(user)? else { return Ok(()) };
    std::os::unix::fs::fchown(&directory, Some(found.uid.as_raw()), Some(found.gid.as_raw()))
}

/// Whether there is nothing in a directory, but for what a new file system has.
fn is_empty(directory: &Path) -> io::Result<bool> {
    for file in fs::read_dir(directory)? {
        if file?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn make_all(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)
}
