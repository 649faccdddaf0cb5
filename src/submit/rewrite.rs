//! Replaces senders, by the rewrite table and by masquerading.
//!
//! A line of the table is `address address`. The second address replaces the first one in the
//! envelope, in From and in Sender. On the left, `@domain` matches all addresses of a domain. On
//! the right, `@domain` keeps the local part. A whole address takes precedence over its domain.
//! Both take precedence over masquerading. If the domain of a sender is one of this host's own,
//! masquerading replaces that domain. The result is not rewritten again. The right to send from an
//! address is checked before the replacement. Recipients are not rewritten here: see `aliases`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use crate::address::{Address, fold, parse_domain};
use crate::config::table::{Line, Watched, fill};
use crate::config::{Config, ConfigError};

/// The rewrite table, and the domain for masquerading.
#[derive(Debug)]
pub struct Rewriting {
    table: Watched<Option<Table>>,
    masquerade: Option<Box<str>>,
    /// The domains that masquerading replaces.
    own_domains: Vec<String>,
}

/// The rows by local part and domain, both in lower case. An empty local part stands for a whole
/// domain.
type Table = HashMap<(Box<str>, Box<str>), Row>;

#[derive(Debug)]
struct Row {
    line: usize,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Address(Address),
    Domain(Box<str>),
}

impl Rewriting {
    /// Reads the rewrite table, and returns the errors in it. A line with an error is ignored.
    pub fn begin(config: &Config) -> (Self, Vec<ConfigError>) {
        let first = config.own_domain().to_owned();
        let parse = move |file: &Path, text: &str| {
            let (table, errors) = parse(file, text, &first);
            (Some(table), errors)
        };
        let (table, errors) = Watched::open_tolerant(&config.submission.rewrite, parse, |_| None);
        let mut own_domains: Vec<String> = config.local_domains().map(str::to_owned).collect();
        own_domains.extend([config.hostname.clone(), "localhost".to_owned()]);
        let masquerade = config.submission.masquerade.as_deref().map(Into::into);
        (Self { table, masquerade, own_domains }, errors)
    }

    /// Whether the table cannot be read.
    pub fn is_unreadable(&self) -> bool {
        self.table.current().is_none()
    }

    /// Returns the address that replaces `address`; `None` if no rule applies.
    pub fn apply(&self, address: &Address) -> Option<Address> {
        let table = self.table.current();
        let find = |local: &str| table.as_ref().as_ref()?.get(&(local.into(), address.domain().into()));
        let row = find(&fold(address.local())).or_else(|| find(""));
        match row.map(|row| &row.target) {
            Some(Target::Address(target)) => Some(target.clone()),
            Some(Target::Domain(domain)) => Some(address.at(domain)),
            None if self.own_domains.iter().any(|domain| domain == address.domain()) => {
                self.masquerade.as_deref().map(|domain| address.at(domain))
            }
            None => None,
        }
    }
}

fn parse(file: &Path, text: &str, first_domain: &str) -> (Table, Vec<ConfigError>) {
    fill(file, text, |table, line| add(table, line, first_domain))
}

/// Adds the rule on one line to the table. The error is the wrong part of the line, and what is
/// wrong with it.
fn add<'a>(table: &mut Table, line: Line<'a>, first_domain: &str) -> Result<(), (&'a str, String)> {
    let mut words = line.text.split_whitespace();
    let (Some(from), Some(to), None) = (words.next(), words.next(), words.next()) else {
        return Err((line.text, "expected two addresses, one and its replacement".to_owned()));
    };
    let key = match from.strip_prefix('@') {
        Some(domain) => ("".into(), parse_domain(domain).map_err(|error| (from, error.to_string()))?),
        None => {
            let address = Address::parse(from).map_err(|error| (from, error.to_string()))?;
            let domain = if address.domain().is_empty() { first_domain } else { address.domain() };
            (fold(address.local()).into(), domain.into())
        }
    };
    let target = target(to).map_err(|error| (to, error))?;
    match table.entry(key) {
        Entry::Occupied(first) => Err((from, format!("{from} is already on line {}", first.get().line))),
        Entry::Vacant(slot) => {
            slot.insert(Row { line: line.number, target });
            Ok(())
        }
    }
}

fn target(text: &str) -> Result<Target, String> {
    if let Some(domain) = text.strip_prefix('@') {
        return parse_domain(domain).map(Target::Domain).map_err(|error| error.to_string());
    }
    let address = Address::parse(text).map_err(|error| error.to_string())?;
    if address.domain().is_empty() {
        return Err("expected an address with a domain, or @domain".to_owned());
    }
    Ok(Target::Address(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TableFile, parse as configure};

    #[test]
    fn senders_are_replaced() {
        let text = "hostname = \"web.test\"\nlocal.domains = [\"a.test\"]\nsubmission.masquerade = \"b.test\"\n";
        let config = configure(Path::new("penfold.conf"), text).expect("a configuration");
        let table = "root admin@b.test\njon@a.test jonathan@c.test\n@old.test @new.test\n@all.test one@b.test\nx@old.test @b.test\n";
        let none = TableFile { path: "/nonexistent/rewrite".into(), required: false };
        let read = move |file: &Path, _: &str| (Some(parse(file, table, "a.test").0), Vec::new());
        let rewriting =
            Rewriting { table: Watched::open_tolerant(&none, read, |_| None).0, ..Rewriting::begin(&config).0 };
        for (from, to) in [
            ("root@a.test", Some("admin@b.test")),
            ("Root@a.test", Some("admin@b.test")),
            ("root@web.test", Some("root@b.test")),
            ("mary@a.test", Some("mary@b.test")),
            ("mary@localhost", Some("mary@b.test")),
            ("jon@a.test", Some("jonathan@c.test")),
            ("any@old.test", Some("any@new.test")),
            ("x@old.test", Some("x@b.test")),
            ("any@all.test", Some("one@b.test")),
            ("any@sub.a.test", None),
            ("any@b.test", None),
        ] {
            let found = rewriting.apply(&from.parse().expect(from)).map(|address| address.to_string());
            assert_eq!(found.as_deref(), to, "{from}");
        }
    }

    #[test]
    fn errors_in_the_table_have_a_line_and_a_column() {
        for (text, place) in [
            ("jon", "1:1: expected two addresses, one and its replacement"),
            ("jon a@b c@d", "1:1: expected two addresses, one and its replacement"),
            ("@ a@b", "1:1: the domain is not valid"),
            ("jon mary", "1:5: expected an address with a domain, or @domain"),
            ("\njon a@b\nJON@x a@b", "3:1: JON@x is already on line 2"),
        ] {
            let errors = parse(Path::new("rewrite"), text, "x").1;
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [format!("rewrite:{place}")]);
        }
    }
}
