//! Reads the table `remote.outgoing`, penfold-outgoing(5): how mail for some destinations and of some
//! senders leaves this host.
//!
//! A line has a key and settings:
//!
//! ```text
//! example.org        rate=60/m connections=2       a domain, or a host that the configuration names
//! .example.org       families=ipv4                 all domains below it
//! *                  pause=100ms                   every destination
//! @news.example.net  source=192.0.2.7 hello=news.example.net   a sender's domain
//! jon@example.net    source=192.0.2.8,2001:db8::8  a sender
//! <>                 hello=bounces.example.net     the null sender
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use super::limits::{Limits, Rate, parse_count, parse_pause};
use crate::address::{Address, fold, parse_domain};
use crate::config::table::{Line, fill, find_host_key, read_host_key};
use crate::config::{ConfigError, Families, Sources};
use crate::destination::{HostTarget, SenderKey};

/// The lines of a table.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The lines for destinations, by domain, `.domain`, host or `*`.
    destinations: HashMap<Box<str>, Arc<Row>>,
    /// The lines for senders, by address, `@domain` or `<>`.
    senders: HashMap<SenderKey, Arc<Row>>,
    /// The line for everything if the file cannot be read; otherwise `None`.
    unreadable: Option<Arc<Row>>,
}

/// A line.
#[derive(Debug)]
pub(super) struct Row {
    /// The number of the line; 0 if the file cannot be read.
    pub line: usize,
    /// The settings, or the error because of which mail waits.
    pub settings: Result<Settings, String>,
}

/// The settings of a line, or of the configuration. `None` if another line decides.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub source: Option<Sources>,
    pub families: Option<Families>,
    pub hello: Option<Arc<str>>,
    pub limits: Limits,
}

impl Table {
    /// Reads the text of a table as far as possible, and returns all errors in the order of the file.
    pub(super) fn read(file: &Path, text: &str) -> (Self, Vec<ConfigError>) {
        fill(file, text, |table: &mut Self, line| table.add(file, line))
    }

    /// The table for a file that cannot be read. All mail for other hosts waits.
    pub(super) fn unreadable(why: &ConfigError) -> Self {
        let row = Row { line: 0, settings: Err(why.to_string()) };
        Self { unreadable: Some(Arc::new(row)), ..Self::default() }
    }

    /// The key of the line for a sender: the line of the address or, if there is none, of its domain.
    pub(super) fn sender_key(&self, sender: Option<&Address>) -> Option<SenderKey> {
        if self.senders.is_empty() {
            return None;
        }
        let keys = match sender {
            None => [Some(NULL.to_owned()), None],
            Some(sender) => [Some(address_key(sender)), Some(format!("@{}", sender.domain()))],
        };
        keys.into_iter().flatten().find_map(|key| Some(self.senders.get_key_value(&*key)?.0.clone()))
    }

    /// The lines that apply to mail for a destination, the decisive one first. `sender` is the key of
    /// the line for the sender. To a mail store only the line of its host applies.
    pub(super) fn rows(&self, target: &HostTarget, sender: Option<&str>) -> Vec<Arc<Row>> {
        if let Some(row) = &self.unreadable {
            return vec![Arc::clone(row)];
        }
        let names = target.names();
        if target.is_store() {
            return names.iter().filter_map(|name| self.destinations.get(*name).cloned()).collect();
        }
        let domain = sender.and_then(|key| key.rfind('@').filter(|at| *at > 0).and_then(|at| key.get(at..)));
        let of_sender = sender.into_iter().chain(domain).filter_map(|key| self.senders.get(key).cloned());
        let mut rows: Vec<Arc<Row>> = of_sender.collect();
        let mut add = |key: &str| {
            let row = self.destinations.get(key).filter(|row| rows.iter().all(|other| other.line != row.line));
            rows.extend(row.cloned());
            None::<()>
        };
        // `*` is the last key of each name, and must come after those of all names.
        for name in &names {
            find_host_key(name, |key| if key == "*" { None } else { add(key) });
        }
        add("*");
        rows
    }

    /// All lines for destinations and senders with settings that can be used.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, &Settings)> {
        let rows = self.destinations.values().chain(self.senders.values());
        rows.filter_map(|row| Some((row.line, row.settings.as_ref().ok()?)))
    }

    /// The number and the key of each line for destinations that has a rate or a pause.
    pub(super) fn paced(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_paced = |row: &Row| {
            row.settings
                .as_ref()
                .is_ok_and(|settings| settings.limits.rate.is_some() || settings.limits.pause.is_some())
        };
        self.destinations.iter().filter(move |(_, row)| is_paced(row)).map(|(key, row)| (row.line, &**key))
    }

    fn add<'a>(&mut self, file: &Path, line: Line<'a>) -> Result<(), (&'a str, String)> {
        let mut words = line.text.split_ascii_whitespace();
        let key = words.next().unwrap_or_default();
        let settings = read_settings(line.text, words);
        let kept = settings.as_ref().cloned().map_err(|(part, what)| line.error(file, part, what).to_string());
        let row = Arc::new(Row { line: line.number, settings: kept });
        let earlier = match read_sender(key).map_err(|what| (key, what))? {
            Some(sender) => add_row(self.senders.entry(sender), row),
            None => add_row(self.destinations.entry(read_host_key(key).map_err(|what| (key, what + OR_SENDER))?), row),
        };
        match earlier {
            Some(number) => Err((key, format!("{key} is already on line {number}"))),
            None => settings.map(drop),
        }
    }
}

/// Adds a line, unless its key has one. Returns the number of that line.
fn add_row<K>(entry: Entry<'_, K, Arc<Row>>, row: Arc<Row>) -> Option<usize> {
    match entry {
        Entry::Occupied(first) => Some(first.get().line),
        Entry::Vacant(slot) => {
            slot.insert(row);
            None
        }
    }
}

const NULL: &str = "<>";
const OR_SENDER: &str = ", or a sender: user@domain, @domain or <>";

/// The key of an address. Case is ignored.
fn address_key(address: &Address) -> String {
    format!("{}@{}", fold(address.local()), address.domain())
}

/// Reads the key of a sender; `None` if the key is not one of a sender.
fn read_sender(key: &str) -> Result<Option<SenderKey>, String> {
    if key == NULL {
        return Ok(Some(key.into()));
    }
    match key.rsplit_once('@') {
        None => Ok(None),
        Some(("", domain)) => {
            let domain = parse_domain(domain).map_err(|_| "expected a domain after @".to_owned())?;
            Ok(Some(format!("@{domain}").into()))
        }
        Some(_) => {
            let address =
                Address::parse(key).map_err(|_| "expected an address, such as user@example.org".to_owned())?;
            Ok(Some(address_key(&address).into()))
        }
    }
}

const EXPECTED: &str = "expected source=, families=, hello=, rate=, pause= or connections=";

/// Reads the settings of a line.
fn read_settings<'a>(line: &'a str, words: impl Iterator<Item = &'a str>) -> Result<Settings, (&'a str, String)> {
    let (mut settings, mut seen) = (Settings::default(), Vec::new());
    for word in words.take_while(|word| !word.starts_with('#')) {
        let (name, value) = word.split_once('=').ok_or_else(|| (word, EXPECTED.to_owned()))?;
        if seen.contains(&name) {
            return Err((word, format!("{name} is already in this line")));
        }
        seen.push(name);
        settings.read(name, value).map_err(|what| (word, what))?;
    }
    if seen.is_empty() { Err((line, EXPECTED.to_owned())) } else { Ok(settings) }
}

impl Settings {
    /// Reads one setting.
    fn read(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "source" => {
                let mut sources = Sources::default();
                value.split(',').try_for_each(|address| sources.add(address))?;
                self.source = Some(sources);
            }
            "families" => {
                let mut families = Families::default();
                value.split(',').try_for_each(|word| families.add(word))?;
                self.families = Some(families);
            }
            "hello" => {
                let name = parse_domain(value).map_err(|_| "expected the name of a host, such as mx.example.org")?;
                self.hello = Some(String::from(name).into());
            }
            "rate" => {
                let rate = Rate::parse(value).ok_or("expected a rate of messages, such as 60/m, 500/h or 5000/d")?;
                self.limits.rate = Some(rate);
            }
            "pause" => {
                let pause = parse_pause(value).ok_or("expected a pause of at most 24h, such as 2s or 500ms")?;
                self.limits.pause = Some(pause);
            }
            "connections" => {
                let count = parse_count(value).ok_or("expected a number of connections, at least 1")?;
                self.limits.connections = Some(count as usize);
            }
            _ => return Err(EXPECTED.to_owned()),
        }
        Ok(())
    }
}
