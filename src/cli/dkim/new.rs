//! `penfoldctl dkim new`: makes an RSA key and an Ed25519 key for a domain, and prints their DNS
//! records and their part of the configuration.
//!
//! The files belong to the caller and have the mode 600. If root is the caller, the server gets
//! them through the opener, as it gets the keys of certificates. No file is overwritten, and either
//! both keys are made or none. Root makes no files in a directory that another user can change.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::address::parse_dns_name;
use crate::config::{can_have_key, key_name};
use crate::exit::{self, Exit};
use crate::mailauth::dkim::SigningKey;
use crate::mailauth::keys::make;
use crate::privsep::rootpath::is_roots_alone;
use crate::sys::{self, disk};

/// The directory of new keys, unless an option names another one.
const DIRECTORY: &str = "/etc/penfold/dkim";
/// The mode of the directory of new keys. It lets the server look there for changes of the keys.
const DIRECTORY_MODE: u32 = 0o755;
/// The reason why no key is made if its file exists already.
const EXISTS: &str = "the file exists, and is not overwritten: choose another --selector";
/// The maximum length of a string in a TXT record, in octets (RFC 1035 3.3).
const MAX_STRING: usize = 255;

/// The keys to make.
pub struct New<'a> {
    /// The domain whose mail the keys sign.
    pub domain: &'a str,
    /// The beginning of the selectors; `None` for the year and the month.
    pub selector: Option<&'a str>,
    /// The directory for the files; `None` for [`DIRECTORY`].
    pub directory: Option<&'a Path>,
}

/// A key to be written.
struct Key {
    selector: String,
    path: PathBuf,
    text: String,
    record: String,
}

/// Makes the keys.
///
/// # Errors
/// `DATAERR` if the domain or the selector is not valid, `CANTCREAT` if a file exists or cannot be
/// made, and `NOPERM` if root is the caller and another user can change the directory.
pub fn new(wanted: &New<'_>) -> Result<(), Exit> {
    let wrong = |text: String| Exit { code: exit::DATAERR, text: vec![text] };
    let domain = parse_dns_name(wanted.domain).ok_or_else(|| wrong(format!("{}: not a domain", wanted.domain)))?;
    let base = wanted.selector.map_or_else(this_month, str::to_ascii_lowercase);
    let directory = std::path::absolute(wanted.directory.unwrap_or(Path::new(DIRECTORY)));
    let directory = directory.map_err(|e| cannot(wanted.directory.unwrap_or(Path::new(DIRECTORY)), &e))?;
    let mut keys = Vec::new();
    for (kind, make) in [("rsa", make::rsa as fn() -> io::Result<String>), ("ed25519", make::ed25519)] {
        let selector = format!("{base}-{kind}");
        if !can_have_key(&selector, &domain) {
            let name = key_name(&selector, &domain);
            return Err(wrong(format!("{name}: not a name that the DNS can have: choose another selector")));
        }
        let path = directory.join(format!("{domain}.{selector}.pem"));
        // Checked before the work begins, and again when the file is made.
        if path.symlink_metadata().is_ok() {
            return Err(cannot(&path, &io::Error::new(ErrorKind::AlreadyExists, EXISTS)));
        }
        keys.push((selector, path, make));
    }
    make_directory(&directory)?;
    let keys: Result<Vec<Key>, Exit> = keys.into_iter().map(|(s, path, make)| key(s, path, make)).collect();
    let keys = keys?;
    write_all(&directory, &keys)?;
    exit::print(instructions(&domain, &keys))
}

fn key(selector: String, path: PathBuf, make: fn() -> io::Result<String>) -> Result<Key, Exit> {
    let text = make().map_err(|e| Exit::new(exit::OSERR, "make a key", &e))?;
    match SigningKey::from_pem(text.as_bytes()) {
        Ok(key) => Ok(Key { selector, path, record: key.record(), text }),
        Err(e) => Err(Exit { code: exit::SOFTWARE, text: vec![format!("make a key: {e}")] }),
    }
}

/// Returns the year and the month in UTC, such as `202611`.
fn this_month() -> String {
    let now = jiff::Timestamp::from_second(i64::try_from(sys::now()).unwrap_or_default()).unwrap_or_default();
    now.strftime("%Y%m").to_string()
}

/// Makes the directory if it is missing.
fn make_directory(directory: &Path) -> Result<(), Exit> {
    match fs::create_dir(directory) {
        // The mode is set separately, so that the umask of the caller has no effect on it.
        Ok(()) => {
            fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE)).map_err(|e| cannot(directory, &e))?
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) => return Err(cannot(directory, &e)),
    }
    if sys::is_root() && !is_roots_alone(directory) {
        let text = format!(
            "{}: other users than root can change it, or its path: root makes no keys there",
            directory.display()
        );
        return Err(Exit { code: exit::NOPERM, text: vec![text] });
    }
    Ok(())
}

/// Writes all keys to disk, or none.
fn write_all(directory: &Path, keys: &[Key]) -> Result<(), Exit> {
    for (done, key) in keys.iter().enumerate() {
        if let Err(e) = write(key) {
            keys.iter().take(done).for_each(|key| drop(disk::remove(&key.path)));
            return Err(cannot(&key.path, &e));
        }
    }
    disk::sync_directory(directory).map_err(|e| cannot(directory, &e))
}

fn write(key: &Key) -> io::Result<()> {
    // The mode of the file is 600.
    let file = disk::create(&key.path)?;
    let written = disk::write(&file, key.text.as_bytes()).and_then(|()| disk::sync(&file));
    written.inspect_err(|_| drop(disk::remove(&key.path)))
}

fn cannot(path: &Path, error: &io::Error) -> Exit {
    Exit::new(exit::CANTCREAT, format!("make {}", path.display()), error)
}

/// Returns the text that says what to do with the keys.
fn instructions(domain: &str, keys: &[Key]) -> String {
    let mut text = format!("Add these records to the zone of {domain}:\n\n");
    for key in keys {
        text += &zone_record(&key_name(&key.selector, domain), &key.record);
    }
    text += "\nAdd these tables to penfold.conf:\n";
    for key in keys {
        let path = key.path.display().to_string();
        text += &format!("\n[[dkim]]\ndomain = {domain:?}\nselector = {:?}\nkey = {path:?}\n", key.selector);
    }
    text + "\nCheck with penfoldctl dkim check. When all records are good, reload penfold.\n"
}

/// Returns a TXT record in the form of a zone file, with strings of at most [`MAX_STRING`] octets.
pub fn zone_record(name: &str, record: &str) -> String {
    let mut strings = Vec::new();
    let mut rest = record;
    while !rest.is_empty() {
        let (string, after) = rest.split_at(rest.len().min(MAX_STRING));
        strings.push(format!("\"{string}\""));
        rest = after;
    }
    match strings.as_slice() {
        [one] => format!("{name}. IN TXT {one}\n"),
        several => format!("{name}. IN TXT ( {} )\n", several.join("\n    ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_record_has_several_strings() {
        assert_eq!(zone_record("s.x", "v=1"), "s.x. IN TXT \"v=1\"\n");
        let long = "a".repeat(600);
        let record = zone_record("s.x", &long);
        let strings: Vec<&str> = record.split('"').skip(1).step_by(2).collect();
        assert_eq!(strings.concat(), long);
        assert_eq!(strings.iter().map(|string| string.len()).collect::<Vec<_>>(), [255, 255, 90]);
        assert!(record.starts_with("s.x. IN TXT ( \"a") && record.ends_with("a\" )\n"), "{record}");
    }
}
