//! Finds the line of each key in a configuration file, for warnings about valid values.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// The path of a configuration file, and the places of the keys in it.
///
/// A key is named as in the manual, with its table: `local.domains`. The elements of an array, and
/// the tables of an array of tables, have numbers from 0: `local.domains[2]`, `listen[0].address`.
#[derive(Clone, Default)]
pub struct Places {
    file: PathBuf,
    /// The line and the column of each key, both from 1.
    keys: Arc<HashMap<String, (usize, usize)>>,
}

/// Two configurations with the same values are equal, wherever the values stand.
impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())
    }
}

impl Places {
    /// Finds the places in `text`, the contents of `file`.
    pub(super) fn of(file: &Path, text: &str, table: &DeTable<'_>) -> Self {
        let mut found = Vec::new();
        add_table(&mut found, "", table);
        // The text is read once, from one place to the next.
        found.sort_by_key(|(offset, _)| *offset);
        let (mut keys, mut line, mut start, mut read) = (HashMap::new(), 1, 0, 0);
        for (offset, key) in found {
            let between = text.get(read..offset).unwrap_or_default();
            line += between.matches('\n').count();
            start = between.rfind('\n').map_or(start, |newline| read + newline + 1);
            read = offset;
            let column = text.get(start..offset).unwrap_or_default().chars().count() + 1;
            keys.entry(key).or_insert((line, column));
        }
        Self { file: file.to_owned(), keys: Arc::new(keys) }
    }

    /// The path of the file. It may not exist, because all keys have defaults.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the line and the column of a key; `None` if the file does not have the key. If the
    /// file has only one table where several are allowed, `[0]` may be left out in the file.
    pub fn of_key(&self, key: &str) -> Option<(usize, usize)> {
        self.keys.get(key).or_else(|| self.keys.get(&key.replacen("[0]", "", 1))).copied()
    }

    /// Returns a complaint about a key, with its place.
    pub fn complaint(&self, key: &str, text: impl Into<String>) -> ConfigError {
        let (line, column) = self.of_key(key).unwrap_or_default();
        ConfigError::new(&self.file, line, column, text)
    }

    /// Returns the beginning of a warning about a key: `FILE:LINE:COLUMN: `, or `FILE: ` if the
    /// file does not have the key.
    pub fn at(&self, key: &str) -> String {
        self.complaint(key, "").to_string()
    }
}

/// Adds the keys of a table, whose name is `prefix`, with their octet offsets.
fn add_table(found: &mut Vec<(usize, String)>, prefix: &str, table: &DeTable<'_>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        // A table that several headers make has its first place.
        found.push((key.span().start, name.clone()));
        add_value(found, &name, value.get_ref());
    }
}

fn add_value(found: &mut Vec<(usize, String)>, name: &str, value: &DeValue<'_>) {
    match value {
        DeValue::Table(table) => add_table(found, name, table),
        DeValue::Array(elements) => {
            for (number, element) in elements.iter().enumerate() {
                let name = format!("{name}[{number}]");
                found.push((element.span().start, name.clone()));
                add_value(found, &name, element.get_ref());
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn each_key_and_each_element_has_its_place() {
        let text = "# ours\nhostname = \"ü.example\" # a name\nlocal.domains = [\n  \"a.example\",\n  \"b.example\" ]\n\
                    [queue]\nworkers = 3\n[[listen]]\naddress = \"127.0.0.1:25\"\n[[listen]]\n  address = \"[::1]:25\"\n";
        let config = parse(Path::new("/etc/x.conf"), text).expect("a valid text");
        for (key, place) in [
            ("hostname", Some((2, 1))),
            ("local.domains", Some((3, 7))),
            ("local.domains[0]", Some((4, 3))),
            ("local.domains[1]", Some((5, 3))),
            ("queue.workers", Some((7, 1))),
            ("listen[0].address", Some((9, 1))),
            ("listen[1].address", Some((11, 3))),
            ("queue.retry_min", None),
            ("listen[2]", None),
            ("", None),
        ] {
            assert_eq!(config.places.of_key(key), place, "{key}");
        }
        assert_eq!(config.places.at("queue.workers"), "/etc/x.conf:7:1: ");
        assert_eq!(config.places.at("queue.expire_after"), "/etc/x.conf: ");
        // One table without its number.
        let one = parse(Path::new("/x"), "\n[dns]\ntimeout = \"3s\"\n").expect("a valid text");
        assert_eq!(one.places.of_key("dns[0].timeout"), Some((3, 1)));
        assert_eq!(one, parse(Path::new("/y"), "dns = { timeout = \"3s\" }").expect("a valid text"));
    }
}
