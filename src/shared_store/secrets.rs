//! The files with the password of the store, and with the secret that only the hosts know.

use std::path::Path;
use std::sync::Arc;

use crate::config::table::{Watched, lines};
use crate::config::{Config, ConfigError, TableFile};
use crate::privsep::Rights;
use crate::shared::Seal;

/// The maximum length of a line, in octets.
const MAX_LINE: usize = 512;
/// The minimum length of the secret, so that a secret cannot be found by trial.
const MIN_SECRET: usize = 32;

/// What this host needs to use the store. Changed files are read again.
pub struct Secrets {
    password: Watched<Option<String>>,
    seal: Watched<Option<Arc<Seal>>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Reads the files that the configuration names. Returns `None` if there is no store.
    ///
    /// # Errors
    /// If a file cannot be read, has several lines, or can be read by group or others, or if the secret
    /// is short.
    pub fn open(config: &Config, rights: &Rights) -> Result<Option<Arc<Self>>, Vec<ConfigError>> {
        if config.shared.store.is_none() {
            return Ok(None);
        }
        let password = open(rights, &config.shared.password, "expected one line, which is the password", |line| {
            Some(line.to_owned())
        });
        let wants = "expected one line, which is the secret, with 32 to 512 octets";
        let seal = open(rights, &config.shared.secret, wants, |line| {
            if line.len() < MIN_SECRET { None } else { Seal::new(line).map(Arc::new) }
        });
        match (password, seal) {
            (Ok(password), Ok(seal)) => Ok(Some(Arc::new(Self { password, seal }))),
            (password, seal) => Err(password.err().into_iter().chain(seal.err()).flatten().collect()),
        }
    }

    /// The password now; `None` if there is none.
    pub fn password(&self) -> Option<String> {
        (*self.password.current()).clone()
    }

    /// The seal of the hosts that have the secret; `None` if there is no secret.
    pub fn seal(&self) -> Option<Arc<Seal>> {
        (*self.seal.current_if_seen()).clone()
    }
}

/// Opens a file with one line, or without a line, and reads the line.
fn open<T: Send + Sync>(
    rights: &Rights,
    file: &TableFile,
    wants: &'static str,
    read: impl Fn(&str) -> Option<T> + Send + Sync + 'static,
) -> Result<Watched<Option<T>>, Vec<ConfigError>> {
    Watched::open_private(rights, file, move |path: &Path, text: &str| {
        let mut all = lines(text).map(|line| line.text);
        let value = match (all.next(), all.next()) {
            (None, _) => Some(None),
            (Some(one), None) if one.len() <= MAX_LINE => read(one).map(Some),
            _ => None,
        };
        value.ok_or_else(|| vec![ConfigError::whole(path, wants)])
    })
}
