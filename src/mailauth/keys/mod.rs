//! Keeps the keys that sign mail with DKIM, as the `[[dkim]]` tables of the configuration name
//! them.
//!
//! Every use of a key checks for changes in the key's file and, if a table file names the key, in
//! the table file. A changed file is read again. If the new file has an error, the error is logged
//! and the old key stays in force. A key that only root can read comes through the opener, the
//! process with root's rights that opens such files.
//!
//! A domain may have several keys, for example an RSA key and an Ed25519 key, or an old and a new
//! one. All of them sign side by side. A key signs for its own domain only, and not for subdomains.
//! The only exception is the reports of this host.
//!
//! - `der`: new keys in DER and PEM
//! - `make`: new keys
//! - `published`: keys compared with their DNS records
//! - `table`: the lines of a table of keys

use std::iter;
use std::path::Path;
use std::sync::Arc;

use crate::address::parse_domain;
use crate::config::table::Watched;
use crate::config::{Config, ConfigError, Dkim, DkimKey, TableFile, key_name};
use crate::mailauth::dkim::{Signer, SigningKey};
use crate::message::addresses::mailboxes;
use crate::privsep::Rights;

mod der;
pub mod make;
pub mod published;
mod table;

pub use table::names as names_of_table;

use table::Table;

/// The keys that sign mail.
#[derive(Debug, Default)]
pub struct Keys {
    named: Vec<Named>,
    tables: Vec<Watched<Table>>,
}

/// A private key in a file that is checked for changes.
type KeyFile = Arc<Watched<SigningKey>>;

/// A key, and the name under which it is published.
#[derive(Debug, Clone)]
pub struct Named {
    /// The domain whose mail is signed, in canonical form.
    pub domain: String,
    /// The selector in lower case.
    pub selector: String,
    key: KeyFile,
}

/// A key that signs a message: the domain, the selector, and the key itself.
pub type Signing = (String, String, Arc<SigningKey>);

impl Keys {
    /// Reads the keys that the configuration names. Returns the keys, and the errors in the lines
    /// of table files. A line with an error does not affect the other lines.
    ///
    /// # Errors
    /// If a `[[dkim]]` table of the configuration names a key that cannot be used, all errors, also
    /// those in table files.
    pub fn open(config: &Config, rights: &Rights) -> Result<(Self, Vec<ConfigError>), Vec<ConfigError>> {
        let (mut keys, mut errors, mut faults) = (Self::default(), Vec::new(), Vec::new());
        for dkim in &config.dkim {
            match dkim {
                Dkim::Key(key) => match open_key(&key.key, rights) {
                    Ok(file) => keys.named.push(Named::new(key, file)),
                    Err(more) => errors.extend(more),
                },
                Dkim::Table(path) => {
                    let file = TableFile { path: path.clone(), required: true };
                    let parse = table::parser(rights);
                    let (table, more) = Watched::open_tolerant_secret(rights, &file, parse, |_| Table::default());
                    keys.tables.push(table);
                    faults.extend(more);
                }
            }
        }
        if errors.is_empty() {
            Ok((keys, faults))
        } else {
            errors.extend(faults);
            Err(errors)
        }
    }

    /// Returns whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.tables.iter().all(|table| table.current().is_empty())
    }

    /// Returns the keys that sign a message whose author has an address in this domain. The domain
    /// may have U-labels (UTF-8).
    pub fn for_domain(&self, domain: &str) -> Vec<Signing> {
        if self.named.is_empty() && self.tables.is_empty() {
            return Vec::new();
        }
        let Ok(domain) = parse_domain(domain) else { return Vec::new() };
        let all = self.named_for(&domain).into_iter();
        all.map(|named| (named.domain.clone(), named.selector.clone(), named.current())).collect()
    }

    /// Returns the keys that sign a message with this value of its From field. If the field has
    /// several addresses, the first one counts.
    pub fn for_author(&self, from: &[u8]) -> Vec<Signing> {
        author_domain(from).map(|domain| self.for_domain(&domain)).unwrap_or_default()
    }

    /// Signs a report of this server, whose From has an address in `domain` and whose lines end in
    /// LF. The domain may be this host's own name, so if it has no key, the nearest domain above it
    /// that has a key signs. Returns the fields to put before the report, or an empty text if there
    /// is no key. If the report cannot be signed, the error is logged.
    pub fn sign_report(&self, domain: &str, report: &[u8], now: u64) -> String {
        let domains = iter::successors(Some(domain), |domain| Some(domain.split_once('.')?.1));
        let mut domains = domains.map(|domain| self.for_domain(domain));
        let Some(signing) = domains.find(|signing| !signing.is_empty()) else { return String::new() };
        let mut signer = Signer::new();
        signer.feed(report);
        let keys: Vec<_> = signing.iter().map(|(domain, selector, key)| (&**domain, &**selector, &**key)).collect();
        signer.finish(&keys, now).unwrap_or_else(|e| {
            ::log::error!("sign a report: {e}");
            String::new()
        })
    }

    /// Returns all keys: first those that the configuration itself names, then those in table
    /// files.
    pub fn all(&self) -> Vec<Named> {
        let mut all: Vec<Named> = Vec::new();
        let tables: Vec<Arc<Table>> = self.tables.iter().map(Watched::current).collect();
        add_new(&mut all, self.named.iter());
        tables.iter().for_each(|table| add_new(&mut all, table.all()));
        all
    }

    /// Returns the keys of a domain in canonical form. If two keys have the same selector, the
    /// first one counts.
    fn named_for(&self, domain: &str) -> Vec<Named> {
        let mut all: Vec<Named> = Vec::new();
        add_new(&mut all, self.named.iter().filter(|named| named.domain == domain));
        self.tables.iter().for_each(|table| add_new(&mut all, table.current().of(domain).iter()));
        all
    }
}

impl Named {
    fn new(key: &DkimKey, file: KeyFile) -> Self {
        Self { domain: key.domain.clone(), selector: key.selector.clone(), key: file }
    }

    /// Returns the key in force, which is read again if its file has changed.
    pub fn current(&self) -> Arc<SigningKey> {
        self.key.current()
    }

    /// Returns the file with the private key.
    pub fn path(&self) -> &Path {
        self.key.path()
    }

    /// Returns the name of the public key in the DNS.
    pub fn dns_name(&self) -> String {
        key_name(&self.selector, &self.domain)
    }

    fn is_same_name(&self, other: &Self) -> bool {
        self.domain == other.domain && self.selector == other.selector
    }
}

/// Returns the domain of the first address in From. Returns `None` if From has none, or cannot be
/// read.
pub fn author_domain(from: &[u8]) -> Option<String> {
    let author = mailboxes(from)?.into_iter().next()?.address_at("")?;
    Some(author.domain().to_owned()).filter(|domain| !domain.is_empty())
}

/// Adds the keys whose names are not among `all` yet.
fn add_new<'a>(all: &mut Vec<Named>, more: impl Iterator<Item = &'a Named>) {
    for named in more {
        if !all.iter().any(|other| other.is_same_name(named)) {
            all.push(named.clone());
        }
    }
}

fn open_key(path: &Path, rights: &Rights) -> Result<KeyFile, Vec<ConfigError>> {
    let file = TableFile { path: path.to_owned(), required: true };
    let parse = |path: &Path, text: &str| {
        SigningKey::from_pem(text.as_bytes()).map_err(|e| vec![ConfigError::whole(path, e.to_string())])
    };
    Watched::open(rights, &file, parse).map(Arc::new)
}

#[cfg(test)]
mod tests;
