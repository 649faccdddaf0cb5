//! The password of the store.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::config::table::{Watched, lines};
use crate::config::{Config, ConfigError};
use crate::privsep::Rights;

/// The maximum length of a password, in octets.
const MAX_PASSWORD: usize = 512;

/// The file with the password.
#[derive(Debug)]
pub struct Password(Watched<Secret>);

struct Secret(Option<String>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Password {
    /// Reads the file that the configuration names. Returns `None` if there is no store.
    ///
    /// # Errors
    /// If the file cannot be read, has several lines, or can be read by group or others.
    pub fn open(config: &Config, rights: &Rights) -> Result<Option<Arc<Self>>, Vec<ConfigError>> {
        if config.shared.store.is_none() {
            return Ok(None);
        }
        let watched = Watched::open_private(rights, &config.shared.password, |path: &Path, text: &str| {
            let mut all = lines(text).map(|line| line.text);
            match (all.next(), all.next()) {
                (None, _) => Ok(Secret(None)),
                (Some(one), None) if one.len() <= MAX_PASSWORD => Ok(Secret(Some(one.to_owned()))),
                _ => Err(vec![ConfigError::whole(path, "expected one line, which is the password")]),
            }
        })?;
        Ok(Some(Arc::new(Self(watched))))
    }

    /// The password now; `None` if there is none. A changed file is read again.
    pub fn current(&self) -> Option<String> {
        self.0.current().0.clone()
    }
}
