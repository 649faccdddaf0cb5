//! Reads a table of keys: lines that each consist of a domain, a selector and the path of a key.
//!
//! ```text
//! example.org  202611-rsa  /etc/penfold/dkim/example.org.202611-rsa.pem
//! ```
//!
//! If a line has an error when the server starts, that line is ignored. If a changed table has an
//! error, the old table stays in force. When a table is read again, a key whose path was in the old
//! table is not opened again. So a large table costs little, and a key stays in force even if its
//! file has become bad meanwhile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{KeyFile, Named, open_key};
use crate::address::parse_dns_name;
use crate::config::table::{Line, fill, lines};
use crate::config::{ConfigError, DkimKey, can_have_key};
use crate::privsep::Rights;

/// The keys of a table by domain. The keys of a domain are in the order of the lines.
#[derive(Debug, Default)]
pub struct Table(HashMap<String, Vec<Named>>);

impl Table {
    /// Returns whether the table has no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the keys of a domain.
    pub fn of(&self, domain: &str) -> &[Named] {
        self.0.get(domain).map_or(&[], Vec::as_slice)
    }

    /// Returns all keys, sorted by domain.
    pub fn all(&self) -> impl Iterator<Item = &Named> {
        let mut domains: Vec<_> = self.0.iter().collect();
        domains.sort_by_key(|(domain, _)| *domain);
        domains.into_iter().flat_map(|(_, keys)| keys)
    }
}

/// Returns the parser of a table. The parser opens the keys with `rights`, and remembers them for
/// the next time.
pub fn parser(rights: &Rights) -> impl Fn(&Path, &str) -> (Table, Vec<ConfigError>) + Send + Sync + 'static {
    let (rights, opened) = (rights.clone(), Mutex::new(HashMap::<PathBuf, KeyFile>::new()));
    move |file, text| {
        let mut before = opened.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = HashMap::new();
        let found = fill(file, text, |table: &mut Table, line: Line<'_>| {
            let key = read(line.text)?;
            let others = table.0.entry(key.domain.clone()).or_default();
            if others.iter().any(|other| other.selector == key.selector) {
                return Err((line.text, "this selector and domain are on another line already".to_owned()));
            }
            let known = now.get(&key.key).or_else(|| before.get(&key.key)).map(KeyFile::clone);
            let opened = known.map_or_else(|| open_key(&key.key, &rights), Ok);
            let opened = opened.map_err(|errors| (line.text, errors.first().map(ToString::to_string)));
            let opened = opened.map_err(|(text, what)| (text, what.unwrap_or_default()))?;
            others.push(Named::new(&key, opened.clone()));
            now.insert(key.key, opened);
            Ok(())
        });
        *before = now;
        found
    }
}

/// Returns the paths of the keys in the text of a table.
pub fn names(text: &str) -> impl Iterator<Item = PathBuf> {
    lines(text).filter_map(|line| read(line.text).ok()).map(|key| key.key)
}

fn read(line: &str) -> Result<DkimKey, (&str, String)> {
    let wrong = |part, what: &str| (part, format!("expected {what}"));
    let mut words = line.split_ascii_whitespace();
    let (Some(domain), Some(selector), Some(path), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(wrong(line, "a domain, a selector and the path of a key"));
    };
    let name = |text: &str| parse_dns_name(text).map(String::from);
    let key = DkimKey {
        domain: name(domain).ok_or_else(|| wrong(domain, "a domain, such as example.org"))?,
        selector: name(selector).ok_or_else(|| wrong(selector, "a selector, such as 202611-rsa"))?,
        key: path.into(),
    };
    if !can_have_key(&key.selector, &key.domain) {
        return Err(wrong(selector, "a shorter selector: the name of the key in the DNS is too long"));
    }
    if !key.key.is_absolute() {
        return Err(wrong(path, "an absolute path"));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_domain_a_selector_and_a_key() {
        let good = read("Example.ORG  S-Rsa\t/etc/x.pem").expect("good");
        assert_eq!((good.domain.as_str(), good.selector.as_str()), ("example.org", "s-rsa"));
        assert_eq!(good.key, Path::new("/etc/x.pem"));
        let long = format!("x.{}.test s /etc/x.pem", "y.".repeat(119) + "z");
        for (line, part) in [
            ("example.org s", "example.org s"),
            ("example.org s /etc/x.pem more", "example.org s /etc/x.pem more"),
            ("exa..mple s /etc/x.pem", "exa..mple"),
            ("[192.0.2.1] s /etc/x.pem", "[192.0.2.1]"),
            ("example.org s/t /etc/x.pem", "s/t"),
            ("example.org s x.pem", "x.pem"),
            (long.as_str(), "s"),
        ] {
            assert_eq!(read(line).expect_err(line).0, part);
        }
    }
}
