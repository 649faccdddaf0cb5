//! Reads a certificate and its key from files, and follows changes of the files.
//!
//! The files are checked for changes when the certificate is needed, as tables are. If certificate
//! and key do not match, for example because only one file has been replaced so far, the last
//! matching pair stays in use, and an error is logged once.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::der::Parts;
use crate::config::table::Watched;
use crate::config::{ConfigError, KeyPair, TableFile};
use crate::privsep::Rights;
use crate::stats::Certificate;
use crate::sys;

/// The time between the first warning and the expiry of a certificate, in seconds.
const EXPIRY_NOTICE: i64 = 14 * DAY;
const DAY: i64 = 86_400;

type Chain = Vec<CertificateDer<'static>>;
type Key = Arc<dyn SigningKey>;

/// A certificate with its key, in files that are checked for changes.
#[derive(Debug)]
pub struct Identity {
    names: KeyPair,
    chain: Watched<Chain>,
    key: Watched<Key>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The certificate and the key as they were last read, whether they match or not.
    seen: (Arc<Chain>, Arc<Key>),
    /// The last certificate and key that matched.
    pair: Arc<CertifiedKey>,
    /// The start and the expiry of `pair`, in seconds since 1970, if they could be read.
    validity: Option<(i64, i64)>,
    /// The earliest time of the next warning about the expiry, in seconds since 1970.
    next_warning: i64,
}

impl Identity {
    /// Reads both files.
    ///
    /// # Errors
    /// The errors in one of the files, or that certificate and key do not match.
    pub fn open(names: &KeyPair, rights: &Rights) -> Result<Self, Vec<ConfigError>> {
        let required = |path: &Path| TableFile { path: path.to_owned(), required: true };
        let chain = Watched::open(rights, &required(&names.certificate), read_chain)?;
        let key = Watched::open(rights, &required(&names.key), read_key)?;
        let seen = (chain.current(), key.current());
        let pair = matching(&seen, names).map_err(|why| vec![ConfigError::whole(&names.key, why)])?;
        let state = Mutex::new(State { validity: validity(&pair), seen, pair, next_warning: 0 });
        let identity = Self { names: names.clone(), chain, key, state };
        identity.current();
        Ok(identity)
    }

    /// Checks the files for changes; returns the certificate and key to use.
    pub fn current(&self) -> Arc<CertifiedKey> {
        let found = (self.chain.current(), self.key.current());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |one: &(Arc<Chain>, Arc<Key>), other: &(Arc<Chain>, Arc<Key>)| {
            one.0 == other.0 && one.1.public_key() == other.1.public_key()
        };
        if !is_same(&found, &state.seen) {
            match matching(&found, &self.names) {
                Ok(pair) => {
                    ::log::info!("{}: read again", self.names.certificate.display());
                    (state.validity, state.pair, state.next_warning) = (validity(&pair), pair, 0);
                }
                Err(why) => ::log::error!("{}: {why}; the old pair stays in force", self.names.key.display()),
            }
            state.seen = found;
        }
        self.warn_of_expiry(&mut state);
        Arc::clone(&state.pair)
    }

    /// Returns the file of the certificate, and when it expires; `None` if that could not be read.
    pub fn expiry(&self) -> Option<Certificate> {
        let (file, times) = self.validity();
        let (file, (_, expires)) = (file.display().to_string(), times?);
        Some(Certificate { file, expires: u64::try_from(expires).unwrap_or(0) })
    }

    /// Returns the path of the certificate, and its start and its expiry in seconds since 1970, if
    /// they can be read.
    pub fn validity(&self) -> (&Path, Option<(i64, i64)>) {
        self.current();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.names.certificate, state.validity)
    }

    fn warn_of_expiry(&self, state: &mut State) {
        let now = i64::try_from(sys::now()).unwrap_or(i64::MAX);
        let Some(left) = state.validity.map(|(_, expires)| expires - now) else { return };
        if left > EXPIRY_NOTICE || now < state.next_warning {
            return;
        }
        state.next_warning = now + DAY;
        let file = self.names.certificate.display();
        match left {
            ..0 => ::log::error!("{file}: the certificate has expired"),
            _ => ::log::warn!("{file}: the certificate expires in {} days", left / DAY),
        }
    }
}

fn read_chain(file: &Path, text: &str) -> Result<Chain, Vec<ConfigError>> {
    let chain: Result<Chain, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(vec![ConfigError::whole(file, "expected a certificate in PEM; there is none")]),
        Err(e) => Err(vec![ConfigError::whole(file, format!("expected certificates in PEM: {e}"))]),
    }
}

/// Reads a private key. No error contains the text of the key.
fn read_key(file: &Path, text: &str) -> Result<Key, Vec<ConfigError>> {
    let wrong = |what: &str| vec![ConfigError::whole(file, what)];
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| wrong("expected a private key in PEM, without a passphrase; there is none"))?;
    any_supported_type(&key)
        .map_err(|_| wrong("a private key of a kind that is not supported; expected RSA, P-256, P-384 or Ed25519"))
}

fn matching((chain, key): &(Arc<Chain>, Arc<Key>), names: &KeyPair) -> Result<Arc<CertifiedKey>, String> {
    let pair = CertifiedKey::new(chain.to_vec(), Arc::clone(key));
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(pair)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(format!("the key is not that of the certificate {}", names.certificate.display()))
        }
        Err(e) => Err(format!("the certificate cannot be used: {e}")),
    }
}

/// Returns the start and the expiry of the first certificate, in seconds since 1970; `None` if they
/// cannot be read.
fn validity(pair: &CertifiedKey) -> Option<(i64, i64)> {
    Parts::of(pair.cert.first()?)?.validity()
}
