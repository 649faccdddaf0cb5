//! Keys that sign mail, as `penfoldctl dkim new` makes them, and their signatures as dkimpy verifies
//! them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Site, built, programs};

/// A key, and its DNS record.
#[derive(Debug, Clone)]
pub struct Key {
    pub domain: String,
    pub selector: String,
    pub path: PathBuf,
    /// The text of the TXT record.
    pub record: String,
}

impl Key {
    /// The line of a zone for [`super::dns::Dns::zone`].
    pub fn zone_line(&self) -> String {
        format!("{}._domainkey.{} TXT {}\n", self.selector, self.domain, self.record)
    }

    /// The line of a table of keys.
    pub fn table_line(&self) -> String {
        format!("{} {} {}\n", self.domain, self.selector, self.path.display())
    }

    /// Adds the key to the configuration of a site.
    pub fn add_to(&self, site: &mut Site) {
        let table = format!("dkim#{}", self.path.display());
        site.set(&table, "domain", &format!("{:?}", self.domain));
        site.set(&table, "selector", &format!("{:?}", self.selector));
        site.set(&table, "key", &format!("{:?}", self.path));
    }
}

/// A command that makes the keys of a domain in a directory.
pub fn new(domain: &str, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(built::program("penfoldctl"));
    command.args(["dkim", "new", domain, "--directory"]).arg(directory).args(arguments);
    command
}

/// Makes the keys of a domain in a directory.
///
/// # Panics
/// If the command fails.
pub fn make(domain: &str, directory: &Path, selector: &str) -> Vec<Key> {
    let output = new(domain, directory, &["--selector", selector]).output().expect("it runs");
    let (code, text) = programs::code_and_text(&output);
    assert_eq!(code, 0, "{text}");
    read(&text)
}

/// Keys that were made in a directory of their own.
pub struct Made {
    pub keys: Vec<Key>,
    directory: PathBuf,
}

impl Made {
    pub fn new(domain: &str, selector: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("penfold-made-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        Self { keys: make(domain, &directory, selector), directory }
    }

    /// Copies the keys into the directory `dkim/` of a site, for the user of its daemon.
    pub fn give(&self, site: &Site) {
        let _ = fs::create_dir(site.path("dkim"));
        for key in &self.keys {
            let name = format!("dkim/{}", key.path.file_name().expect("a name").display());
            site.write(&name, &fs::read_to_string(&key.path).expect("a key"));
            fs::set_permissions(site.path(&name), Permissions::from_mode(0o600)).expect("a mode");
        }
    }

    /// The keys as [`Made::give`] has copied them.
    pub fn of(&self, site: &Site) -> Vec<Key> {
        let here = |key: &Key| site.path("dkim").join(key.path.file_name().expect("a name"));
        self.keys.iter().map(|key| Key { path: here(key), ..key.clone() }).collect()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Reads the keys in the output of `penfoldctl dkim new`.
pub fn read(printed: &str) -> Vec<Key> {
    let (records, tables) = printed.split_once("\nAdd these tables").expect("tables");
    let tables = tables.split("[[dkim]]\n").skip(1);
    let value = |table: &str, key: &str| {
        let line = table.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.expect(key).trim_matches('"').to_owned()
    };
    let key = |table: &str| {
        let (domain, selector) = (value(table, "domain"), value(table, "selector"));
        let name = format!("{selector}._domainkey.{domain}. IN TXT ");
        let (_, record) = records.split_once(&name).expect("a record");
        let end = record.find("IN TXT").unwrap_or(record.len());
        let strings: Vec<&str> = record[..end].split('"').skip(1).step_by(2).collect();
        assert!(strings.iter().all(|string| string.len() <= 255), "{record}");
        Key { path: value(table, "key").into(), record: strings.concat(), domain, selector }
    };
    tables.map(key).collect()
}

const DKIMPY: &str = r#"
import dkim, sys
records = dict(line.split(' TXT ', 1) for line in sys.argv[1].splitlines())
def txt(name, timeout=5):
    return records.get(name.decode().rstrip('.'), '').encode() or None
message = sys.stdin.buffer.read()
signed = dkim.DKIM(message)
count = len([name for name, _ in signed.headers if name.lower() == b'dkim-signature'])
for number in range(count):
    one = dkim.DKIM(message)
    good = one.verify(idx=number, dnsfunc=txt)
    print(one.selector.decode(), one.domain.decode(), good)
"#;

/// Lets dkimpy verify all signatures of a message, with the records of these keys. Returns a line
/// for each: the selector, the domain, and `True` or `False`. Without dkimpy, reports the test as
/// skipped and returns `None`.
pub fn verify(message: &[u8], keys: &[Key]) -> Option<Vec<String>> {
    let has_dkimpy = |python: &&str| {
        let output = Command::new(python).args(["-c", "import dkim, nacl"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_dkimpy) else {
        super::skipped("dkimpy is not installed");
        return None;
    };
    let zone: String = keys.iter().map(Key::zone_line).collect();
    let output = programs::feed(Command::new(python).args(["-B", "-c", DKIMPY, &zone]), message);
    let (code, text) = programs::code_and_text(&output);
    assert_eq!(code, 0, "{text}");
    Some(text.lines().map(str::to_owned).collect())
}
