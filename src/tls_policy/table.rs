//! Reads the table of TLS policies, penfold-tls-policies(5), in which the postmaster says how
//! connections for some domains and to some hosts are protected.
//!
//! A line has a key, a level and options:
//!
//! ```text
//! example.org       required                      a certificate from a trusted authority for the host's name
//! bank.example      required names=mx.host.example  the certificate must be for one of these names
//! mail.example.net  required fingerprints=6e34…   one of these certificates or public keys
//! signed.example    dane                          the host's TLSA records must match its certificate
//! old.example       opportunistic                 DANE and MTA-STS are not used
//! broken.example    none                          no TLS
//! *                 required
//! ```
//!
//! The key is the domain of the recipients, or the name of a host that the configuration names. The
//! exact key takes precedence over the longest `.domain`, and both over `*`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use crate::address::parse_domain;
use crate::config::table::{Line, Watched, fill, find_host_key, read_host_key};
use crate::config::{Config, ConfigError};
use crate::policy::{self, Source};
use crate::tls::Fingerprint;

/// The maximum number of names, and of fingerprints, in a line.
const MAX_VALUES: usize = 100;

/// The table of TLS policies of a configuration.
#[derive(Debug)]
pub struct TlsPolicies(Watched<Table>);

/// The policy of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The number of the line; 0 if the file cannot be read.
    pub line: usize,
    /// The level, or the error because of which mail waits.
    pub level: Result<Level, String>,
}

/// How connections are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// No TLS.
    None,
    /// TLS if the host offers it, with any certificate, whatever the domain publishes.
    Opportunistic,
    /// TLS with a certificate from a trusted authority, for one of these names.
    Required {
        /// The names; if there are none, it is the host's own.
        names: Vec<String>,
    },
    /// TLS with a certificate that matches the TLSA records of the host.
    Dane,
    /// TLS with one of these certificates or public keys.
    Fingerprints(Arc<[Fingerprint]>),
}

#[derive(Debug, Default)]
struct Table {
    rows: HashMap<Box<str>, Arc<Row>>,
    /// The row for everything if the file cannot be read; otherwise `None`.
    unreadable: Option<Arc<Row>>,
}

impl TlsPolicies {
    /// Reads the table. Returns the table and its errors. If the level of a line has an error, mail
    /// to which the line applies waits.
    pub fn begin(config: &Config) -> (Self, Vec<ConfigError>) {
        let unreadable = |why: &ConfigError| {
            let row = Row { line: 0, level: Err(why.to_string()) };
            Table { unreadable: Some(Arc::new(row)), ..Table::default() }
        };
        let (table, errors) = Watched::open_tolerant(&config.remote.tls_policies, Table::read, unreadable);
        (Self(table), errors)
    }

    /// The line that applies to a domain or a host, in lower case; `None` if there is none.
    pub fn find(&self, name: &str) -> Option<Arc<Row>> {
        self.0.current().find(name)
    }

    /// The place of a line, for explanations.
    pub fn source(&self, row: &Row) -> Source {
        Source::Line(policy::Line { file: self.0.path().into(), number: row.line })
    }
}

impl Table {
    /// Reads the text of a table as far as possible, and returns all errors in the order of the
    /// file.
    fn read(file: &Path, text: &str) -> (Self, Vec<ConfigError>) {
        fill(file, text, |table: &mut Self, line| table.add(file, line))
    }

    fn find(&self, name: &str) -> Option<Arc<Row>> {
        if self.unreadable.is_some() {
            return self.unreadable.clone();
        }
        if self.rows.is_empty() {
            return None;
        }
        find_host_key(name, |key| self.rows.get(key).cloned())
    }

    fn add<'a>(&mut self, file: &Path, line: Line<'a>) -> Result<(), (&'a str, String)> {
        let mut words = line.text.split_ascii_whitespace();
        let key = words.next().unwrap_or_default();
        let name = read_host_key(key).map_err(|what| (key, what))?;
        let level = read_level(line.text, words);
        let kept = level.as_ref().cloned().map_err(|(part, what)| line.error(file, part, what).to_string());
        match self.rows.entry(name) {
            Entry::Occupied(first) => return Err((key, format!("{key} is already on line {}", first.get().line))),
            Entry::Vacant(slot) => _ = slot.insert(Arc::new(Row { line: line.number, level: kept })),
        }
        level.map(drop)
    }
}

/// Reads a level and its options.
fn read_level<'a>(line: &'a str, mut words: impl Iterator<Item = &'a str>) -> Result<Level, (&'a str, String)> {
    let Some(word) = words.next() else {
        return Err((line, "expected a level after the name: none, opportunistic, required or dane".to_owned()));
    };
    let mut level = match word {
        "none" => Level::None,
        "opportunistic" => Level::Opportunistic,
        "required" => Level::Required { names: Vec::new() },
        "dane" => Level::Dane,
        _ => return Err((word, "expected none, opportunistic, required or dane".to_owned())),
    };
    let mut has_option = false;
    for option in words.take_while(|word| !word.starts_with('#')) {
        let refuse = |what: &str| (option, what.to_owned());
        if !matches!(level, Level::Required { .. } | Level::Fingerprints(_)) {
            return Err(refuse("only required has options"));
        }
        if std::mem::replace(&mut has_option, true) {
            return Err(refuse("expected one option: either names or fingerprints"));
        }
        level = match option.split_once('=') {
            Some(("names", names)) => Level::Required { names: read_all(option, names, read_name)? },
            Some(("fingerprints", all)) => Level::Fingerprints(read_all(option, all, read_fingerprint)?.into()),
            _ => return Err(refuse("expected names=name,name or fingerprints=digits,digits")),
        };
    }
    Ok(level)
}

fn read_all<'a, T>(
    option: &'a str,
    list: &'a str,
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<Vec<T>, (&'a str, String)> {
    if list.split(',').count() > MAX_VALUES {
        return Err((option, format!("expected at most {MAX_VALUES} values")));
    }
    list.split(',')
        .map(|part| read(part).map_err(|what| (if part.is_empty() { option } else { part }, what.into())))
        .collect()
}

fn read_name(text: &str) -> Result<String, &'static str> {
    parse_domain(text).map(String::from).map_err(|_| "expected the name of a host")
}

fn read_fingerprint(text: &str) -> Result<Fingerprint, &'static str> {
    Fingerprint::parse(text).ok_or("expected the hexadecimal digits of a SHA-256 or SHA-512")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Table, Vec<String>) {
        let (table, errors) = Table::read(Path::new("t"), text);
        (table, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_most_specific_line_applies() {
        let print = "ab".repeat(32);
        let fingerprint = Fingerprint::parse(&print).expect("good");
        let (table, errors) = read(&format!(
            "# x\nExample.org none\n.example.org\topportunistic # all below\nm.example.net required names=a.test,B.test\n\
             [2001:DB8::1] required fingerprints={print},{}\n192.0.2.7 opportunistic\ns.test dane\n\
             [IPv6:2001:db8::2] none\n",
            "AB:".repeat(31) + "AB"
        ));
        assert_eq!(errors, [""; 0]);
        for (name, level) in [
            ("example.org", Some(Level::None)),
            ("a.b.example.org", Some(Level::Opportunistic)),
            ("m.example.net", Some(Level::Required { names: vec!["a.test".into(), "b.test".into()] })),
            ("2001:db8::1", Some(Level::Fingerprints([fingerprint.clone(), fingerprint.clone()].into()))),
            ("192.0.2.7", Some(Level::Opportunistic)),
            ("s.test", Some(Level::Dane)),
            ("example.net", None),
            // The domains of mail to an address.
            ("[192.0.2.7]", Some(Level::Opportunistic)),
            ("[IPv6:2001:db8::1]", Some(Level::Fingerprints([fingerprint.clone(), fingerprint].into()))),
            ("[IPv6:2001:db8::2]", Some(Level::None)),
            ("[192.0.2.8]", None),
        ] {
            assert_eq!(table.find(name).map(|row| row.level.clone()), level.map(Ok), "{name}");
        }
        let (table, _) = read("* required\nx.test none");
        assert_eq!(table.find("y.test").map(|row| row.line), Some(1));
        assert_eq!(table.find("x.test").map(|row| row.line), Some(2));
    }

    #[test]
    fn a_wrong_line_has_an_error_and_its_mail_waits() {
        for (line, error) in [
            ("x.test", "t:1:1: expected a level after the name: none, opportunistic, required or dane"),
            ("x.test requird", "t:1:8: expected none, opportunistic, required or dane"),
            ("x.test dane names=a", "t:1:13: only required has options"),
            ("x.test none names=a", "t:1:13: only required has options"),
            ("x.test required names=", "t:1:17: expected the name of a host"),
            ("x.test required names=a..b", "t:1:23: expected the name of a host"),
            ("x.test required fingerprints=abc", "t:1:30: expected the hexadecimal digits of a SHA-256 or SHA-512"),
            ("x.test required ciphers=x", "t:1:17: expected names=name,name or fingerprints=digits,digits"),
            ("x.test required names=a names=b", "t:1:25: expected one option: either names or fingerprints"),
        ] {
            let (table, errors) = read(line);
            assert_eq!(errors, [error], "{line}");
            let row = table.find("x.test").expect("the line counts");
            assert_eq!(row.level.as_ref().map_err(String::as_str), Err(error), "{line}");
        }
        let (table, errors) = read("a..b none\nx.test opportunistic\nX.test none\n");
        assert_eq!(errors.len(), 2, "{errors:?}");
        let level = table.find("x.test").map(|row| row.level.clone());
        assert_eq!(level, Some(Ok(Level::Opportunistic)), "the first line counts");
    }
}
