//! Reads the table `[shared]` of penfold.conf(5): the store that several hosts use together.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeValue;

use super::document::Section;
use super::keys::table_file;
use super::{HostPort, TableFile};

/// The port of a store whose URL names none.
const DEFAULT_PORT: u16 = 6379;
/// The maximum length of the path of a Unix socket, in octets.
const MAX_SOCKET_PATH: usize = 107;
/// The maximum number of a database, and the maximum length of a user name.
const MAX_DATABASE: u32 = 65_535;
const MAX_USER: usize = 64;

const EXPECTED: &str = "expected \"redis://host:port\", \"rediss://host:port\" or \"unix:/path\" of a socket";

/// The settings of the shared store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// The store; `None` if each host counts alone.
    pub store: Option<StoreUrl>,
    /// The file with the password.
    pub password: TableFile,
    /// The file with the secret of the hosts that keep texts for each other.
    pub secret: TableFile,
}

/// A shared store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl {
    /// Where the store listens.
    pub place: StorePlace,
    /// The user name; `None` for the default user.
    pub user: Option<String>,
    /// The number of the database.
    pub database: u32,
}

/// The place where a shared store listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// A Unix stream socket.
    Socket(Arc<Path>),
    /// A host and a port; the scheme has no meaning.
    Host(HostPort),
    /// The same, with TLS.
    Tls(HostPort),
}

impl StoreUrl {
    /// Reads the URL of a store.
    ///
    /// # Errors
    /// The reason why the text is not such a URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || EXPECTED.to_owned();
        if let Some(rest) = text.strip_prefix("unix:") {
            let (path, database) = rest.split_once("?db=").map_or((rest, ""), |(path, number)| (path, number));
            if !path.starts_with('/') || path.starts_with("//") || path.contains(|c: char| c == '?' || c.is_control()) {
                return Err(expected());
            }
            if path.len() > MAX_SOCKET_PATH {
                return Err(format!("the path of a socket has at most {MAX_SOCKET_PATH} octets"));
            }
            let place = StorePlace::Socket(Path::new(path).into());
            return Ok(Self { place, user: None, database: parse_database(database)? });
        }
        let schemes = [("redis://", false), ("rediss://", true)];
        let named = schemes.iter().find_map(|(scheme, is_tls)| Some((text.strip_prefix(scheme)?, *is_tls)));
        let (rest, is_tls) = named.ok_or_else(expected)?;
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        if user.is_some_and(|user| user.contains(':')) {
            return Err("a password does not belong here, but into a file that shared.password names".to_owned());
        }
        let is_user = |user: &str| {
            (1..=MAX_USER).contains(&user.len()) && user.bytes().all(|b| b.is_ascii_graphic() && b != b'%')
        };
        if !user.is_none_or(is_user) {
            return Err("the user name has an unexpected character or length".to_owned());
        }
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        let host = HostPort::parse(host, DEFAULT_PORT).ok_or_else(expected)?;
        let place = if is_tls { StorePlace::Tls(host) } else { StorePlace::Host(host) };
        Ok(Self { place, user: user.map(str::to_owned), database: parse_database(database)? })
    }
}

/// Reads the number of a database. An empty text stands for 0.
fn parse_database(text: &str) -> Result<u32, String> {
    let number = if text.is_empty() { Ok(0) } else { text.parse() };
    let is_plain = text.bytes().all(|b| b.is_ascii_digit());
    let number = number.ok().filter(|number| is_plain && *number <= MAX_DATABASE);
    number.ok_or_else(|| format!("the number of the database is a number up to {MAX_DATABASE}"))
}

/// Writes the text from which [`StoreUrl::parse`] reads the store.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map_or(String::new(), |user| format!("{user}@"));
        let (scheme, host) = match &self.place {
            StorePlace::Socket(path) => {
                write!(f, "unix:{}", path.display())?;
                return if self.database == 0 { Ok(()) } else { write!(f, "?db={}", self.database) };
            }
            StorePlace::Host(host) => ("redis", host),
            StorePlace::Tls(host) => ("rediss", host),
        };
        let HostPort { host, port, .. } = host;
        match host.contains(':') {
            true => write!(f, "{scheme}://{user}[{host}]:{port}")?,
            false => write!(f, "{scheme}://{user}{host}:{port}")?,
        }
        if self.database == 0 { Ok(()) } else { write!(f, "/{}", self.database) }
    }
}

/// Reads the table.
pub(super) fn shared(mut section: Section<'_, '_>) -> Shared {
    let default = no_store();
    let store = section.take("store", |value: &DeValue<'_>| match value.as_str() {
        None => Err(EXPECTED.to_owned()),
        Some("") => Ok(None),
        Some(text) => StoreUrl::parse(text).map(Some),
    });
    let store = store.unwrap_or(default.store);
    let password = table_file(&mut section, "password", default.password);
    let secret = table_file(&mut section, "secret", default.secret);
    if store.is_some() && !cfg!(feature = "shared-store") {
        section.error("store", "this penfold was built without the feature \"shared-store\"");
    }
    section.finish();
    Shared { store, password, secret }
}

/// The default: each host counts alone.
pub(super) fn no_store() -> Shared {
    let file = |name: &str| TableFile { path: Path::new("/etc/penfold").join(name), required: false };
    Shared { store: None, password: file("shared_password"), secret: file("shared_secret") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_url_without_a_password() {
        for (text, want) in [
            ("redis://127.0.0.1", Ok("redis://127.0.0.1:6379")),
            ("redis://Store.Example:7000/3", Ok("redis://store.example:7000/3")),
            ("redis://penfold@[2001:db8::1]/0", Ok("redis://penfold@[2001:db8::1]:6379")),
            ("rediss://store.example", Ok("rediss://store.example:6379")),
            ("redis://localhost/", Ok("redis://localhost:6379")),
            ("unix:/run/redis/redis.sock", Ok("unix:/run/redis/redis.sock")),
            ("unix:/run/redis/redis.sock?db=2", Ok("unix:/run/redis/redis.sock?db=2")),
            ("redis://:secret@store.example", Err("shared.password")),
            ("redis://user:se@cret@store.example", Err("shared.password")),
            ("redis://us%65r@store.example", Err("user name")),
            ("redis://@store.example", Err("user name")),
            ("redis://store.example/x", Err("the number of the database")),
            ("redis://store.example/+1", Err("the number of the database")),
            ("redis://store.example/65536", Err("the number of the database")),
            ("redis://store.example:0", Err("expected")),
            ("redis://", Err("expected")),
            ("store.example", Err("expected")),
            ("http://store.example", Err("expected")),
            ("unix:run/redis.sock", Err("expected")),
            ("unix:///run/redis.sock", Err("expected")),
            ("unix:/run/redis.sock?x", Err("expected")),
        ] {
            let read = StoreUrl::parse(text).map(|url| url.to_string());
            match (&read, want) {
                (Ok(read), Ok(want)) => assert_eq!(read, want, "{text}"),
                (Err(why), Err(want)) => assert!(why.contains(want) && !why.contains("secret"), "{text}: {why}"),
                _ => panic!("{text}: {read:?}"),
            }
        }
    }
}
