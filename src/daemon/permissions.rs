//! Lists the files that the configuration names, and explains errors if permission to open them is
//! denied.
//!
//! The files are written by root, but most are opened by the server's user. A mere "Permission
//! denied" would puzzle an administrator who is root, so the error names the key and the server's
//! user. Only the log is opened here, as a test, and nothing is changed.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::{confine, cure};
use crate::config::{Auth, Config, ConfigError, Dkim, LogTo, Users};
use crate::exit::{self, Exit};
use crate::privsep;

/// The files of a configuration and the keys that name them.
pub struct Names {
    config: PathBuf,
    files: Vec<(&'static str, PathBuf)>,
}

/// The key for the file of credentials, which other users must not be able to read.
const CREDENTIALS: &str = "remote.credentials";
/// The key for the file of secrets for rewritten senders, which others must not read either.
const SRS_SECRET: &str = "remote.srs_secret";

/// The key for the file with the password of the shared store, which others must not read either.
const SHARED_PASSWORD: &str = "shared.password";
/// The key for the file with the secret of the hosts that share the store.
const SHARED_SECRET: &str = "shared.secret";

impl Names {
    /// Lists the files that the configuration in `file` names.
    pub fn of(file: &Path, config: &Config) -> Self {
        let tables = [
            ("local.aliases", &config.local.aliases),
            ("local.virtual", &config.local.virtual_table),
            ("remote.routes", &config.remote.routes),
            ("remote.senders", &config.remote.senders),
            ("remote.tls_policies", &config.remote.tls_policies),
            ("remote.outgoing", &config.remote.outgoing),
            (CREDENTIALS, &config.remote.credentials),
            (SRS_SECRET, &config.remote.srs_secret),
            (SHARED_PASSWORD, &config.shared.password),
            (SHARED_SECRET, &config.shared.secret),
            ("policy.access", &config.policy.access),
            ("policy.always_bcc", &config.policy.always_bcc),
            ("submission.senders", &config.submission.senders),
            ("submission.rewrite", &config.submission.rewrite),
            ("report.texts", &config.report.texts),
        ];
        let mut files: Vec<_> = tables.map(|(key, table)| (key, table.path.clone())).to_vec();
        for pair in &config.tls {
            files.extend([("tls.certificate", pair.certificate.clone()), ("tls.key", pair.key.clone())]);
        }
        if let Users::File(path) = &config.local.users {
            files.push(("local.users", path.clone()));
        }
        files.extend(config.relay.recipients.clone().map(|path| ("relay.recipients", path)));
        for domain in config.domains.iter() {
            files.push(("domain.aliases", domain.local.aliases.path.clone()));
            files.push(("domain.virtual", domain.local.virtual_table.path.clone()));
            if let Users::File(path) = &domain.local.users {
                files.push(("domain.users", path.clone()));
            }
            if let Auth::File(path) = &domain.auth {
                files.push(("domain.auth", path.clone()));
            }
        }
        // An empty path stands for an empty table.
        files.retain(|(_, path)| !path.as_os_str().is_empty());
        if let Auth::File(path) = &config.auth {
            files.push(("auth.users", path.clone()));
        }
        files.extend(config.dkim.iter().map(|dkim| match dkim {
            Dkim::Key(key) => ("dkim.key", key.key.clone()),
            Dkim::Table(path) => ("dkim.table", path.clone()),
        }));
        files.extend(config.remote.authorities.clone().map(|path| ("remote.authorities", path)));
        Self { config: file.to_owned(), files }
    }

    /// Returns the paths of the configuration and of all files that it names.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [self.config.as_path()].into_iter().chain(self.files.iter().map(|(_, path)| path.as_path()))
    }

    /// Returns the files that the opener may open for the server, because perhaps only root can read
    /// them.
    pub fn secrets(&self) -> impl Iterator<Item = &Path> {
        const SECRETS: [&str; 12] = [
            "tls.certificate",
            "tls.key",
            "local.users",
            "auth.users",
            "domain.users",
            "domain.auth",
            "dkim.key",
            "dkim.table",
            CREDENTIALS,
            SRS_SECRET,
            SHARED_PASSWORD,
            SHARED_SECRET,
        ];
        self.files.iter().filter(|(key, _)| SECRETS.contains(key)).map(|(_, file)| file.as_path())
    }

    /// Returns the directories of all files that the configuration names, and of the configuration.
    /// The server needs access to the directories, because an administrator may replace a file by
    /// another one of the same name.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let files = self.files.iter().map(|(_, path)| path.as_path()).chain([self.config.as_path()]);
        files.flat_map(around)
    }

    /// Explains an error that says that permission to open a file that the configuration names was
    /// denied. Returns any other error unchanged.
    pub fn explain(&self, error: ConfigError) -> ConfigError {
        let denied = io::Error::from(Errno::EACCES).to_string();
        let named = self.files.iter().find(|(_, path)| *path == error.file);
        let Some((key, path)) = named.filter(|_| error.line == 0 && error.text == denied) else { return error };
        let (path, user) = (path.display(), privsep::user_name());
        // access(2) knows the permissions of the file, but not the confinement.
        let is_outside = confine::is_confined() && access(&error.file, AccessFlags::R_OK).is_ok();
        let needed = match *key {
            _ if is_outside => "restart penfoldd, which reads no directory that is new since its start".to_owned(),
            CREDENTIALS | SRS_SECRET | SHARED_PASSWORD | SHARED_SECRET => {
                format!("it must belong to {user} or to root, with mode 600")
            }
            _ => format!("the user {user} must be able to read it"),
        };
        ConfigError::whole(&self.config, format!("{key}: {path}: Permission denied: {needed}"))
    }
}

/// Checks that this process can open or make the log file, without making it.
///
/// # Errors
/// Those of open(2) and access(2).
pub fn try_log(to: &LogTo) -> io::Result<()> {
    let LogTo::File(path) = to else { return Ok(()) };
    match OpenOptions::new().append(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(Path::new("/"));
            Ok(access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?)
        }
        result => result.map(drop),
    }
}

/// Returns the directory of a file. If the file is a link, also returns the directory of its target
/// or, if the target is missing, the nearest existing directory above the target.
pub fn around(file: &Path) -> impl Iterator<Item = PathBuf> {
    let real = match file.canonicalize() {
        Ok(real) => real.parent().map(Path::to_owned),
        Err(_) => above_target(file),
    };
    file.parent().map(Path::to_owned).into_iter().chain(real)
}

fn above_target(link: &Path) -> Option<PathBuf> {
    let target = link.parent()?.join(fs::read_link(link).ok()?);
    let nearest = target.ancestors().skip(1).find_map(|path| path.canonicalize().ok())?;
    // The root directory is left out, because it would stand for the whole file system.
    nearest.parent().is_some().then_some(nearest)
}

/// Returns the error if the log cannot be opened.
pub fn no_log(to: &LogTo, error: &io::Error) -> Exit {
    let LogTo::File(path) = to else { return Exit::new(exit::CANTCREAT, "open the log", error) };
    let doing = format!("open the log {} as {}", path.display(), privsep::user_name());
    Exit::new(exit::CANTCREAT, doing, error).and(cure::of_log(path, error))
}
