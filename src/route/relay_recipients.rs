//! Reads the table of the recipients in relay domains (`relay.recipients`).
//!
//! A line is an address, `jon@example.org`, or `@example.org` for all addresses of a domain. Case is
//! ignored. A line that begins with `#` is a comment.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::address::{Address, fold, parse_domain};
use crate::config::ConfigError;
use crate::config::table::{Line, fill};

/// The lines of a table of recipients.
#[derive(Debug, Default)]
pub(super) struct RelayRecipients {
    /// The local parts of each domain, both in lower case. An empty local part stands for all
    /// addresses of the domain.
    domains: HashMap<Box<str>, HashSet<Box<str>>>,
    /// The domains on erroneous lines, and the first error that names no domain. An address that one of
    /// these lines could contain is neither known nor unknown.
    broken: HashMap<Box<str>, ConfigError>,
    /// The error if the file cannot be read, or if a line names no domain; otherwise `None`.
    doubt: Option<ConfigError>,
}

impl RelayRecipients {
    /// Reads the text of a table as far as possible, and returns all errors in the order of the file.
    pub(super) fn read(file: &Path, text: &str) -> (Self, Vec<ConfigError>) {
        let (mut table, errors): (Self, _) = fill(file, text, |table: &mut Self, line| table.add(file, line));
        table.domains.shrink_to_fit();
        (table, errors)
    }

    /// Returns the table for a file that cannot be read.
    pub(super) fn unreadable(why: &ConfigError) -> Self {
        Self { doubt: Some(why.clone()), ..Self::default() }
    }

    /// Whether an address is in the table, with its local part or with `base`, the local part without
    /// the detail.
    ///
    /// # Errors
    /// The error in the file, if the address is not in the table but an erroneous line may mean it.
    pub(super) fn contains(&self, address: &Address, base: Option<&str>) -> Result<bool, &ConfigError> {
        let (name, domain) = (fold(address.local()), address.domain());
        let names = [Some(&*name), base, Some("")];
        let is_in = |known: &HashSet<Box<str>>| names.iter().flatten().any(|name| known.contains(*name));
        if self.domains.get(domain).is_some_and(is_in) {
            return Ok(true);
        }
        self.broken.get(domain).or(self.doubt.as_ref()).map_or(Ok(false), Err)
    }

    fn add<'a>(&mut self, file: &Path, line: Line<'a>) -> Result<(), (&'a str, String)> {
        let text = line.text.trim_start();
        let (entry, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let rest = rest.trim_start();
        let read = if rest.is_empty() || rest.starts_with('#') {
            key(entry).map_err(|what| (entry, what))
        } else {
            Err((rest, "expected one address on a line".to_owned()))
        };
        match read {
            Ok((local, domain)) => {
                self.domains.entry(domain).or_default().insert(local);
                Ok(())
            }
            Err((part, what)) => {
                let error = line.error(file, part, what.clone());
                match entry.rsplit_once('@').and_then(|(_, domain)| parse_domain(domain).ok()) {
                    Some(domain) => _ = self.broken.entry(domain).or_insert(error),
                    None => _ = self.doubt.get_or_insert(error),
                }
                Err((part, what))
            }
        }
    }
}

fn key(text: &str) -> Result<(Box<str>, Box<str>), String> {
    if let Some(domain) = text.strip_prefix('@') {
        let domain = parse_domain(domain).map_err(|error| error.to_string())?;
        return Ok((Box::default(), domain));
    }
    let address = Address::parse(text).map_err(|error| error.to_string())?;
    if address.domain().is_empty() {
        return Err("expected an address with a domain, or @domain".to_owned());
    }
    Ok((fold(address.local()).into(), address.domain().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/etc/penfold/relay-recipients";

    fn is_in(table: &RelayRecipients, address: &str, base: Option<&str>) -> Option<bool> {
        table.contains(&Address::parse(address).expect(address), base).ok()
    }

    #[test]
    fn addresses_and_domains_are_known_whatever_their_case() {
        let text = "# ours\njon@example.org\n  Ann@Example.ORG # a comment\n@all.example\n\"odd name\"@example.org\n\
                    j\u{f6}n@b\u{fc}cher.example\n";
        let (table, errors) = RelayRecipients::read(Path::new(FILE), text);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [format!("{FILE}:5:6: expected one address on a line")]
        );
        let (table_without, _) =
            RelayRecipients::read(Path::new(FILE), &text.replace("\"odd name\"@example.org\n", ""));
        for (address, base, want) in [
            ("jon@example.org", None, true),
            ("JON@EXAMPLE.org", None, true),
            ("ann@example.org", None, true),
            ("jon+x@example.org", None, false),
            ("jon+x@example.org", Some("jon"), true),
            ("bob@example.org", Some("bo"), false),
            ("any.body@all.example", None, true),
            ("jon@other.example", None, false),
            ("j\u{f6}n@b\u{fc}cher.example", None, true),
            ("J\u{d6}N@xn--bcher-kva.example", None, true),
        ] {
            assert_eq!(is_in(&table_without, address, base), Some(want), "{address}");
        }
        assert_eq!(is_in(&table, "jon@example.org", None), Some(true));
    }

    #[test]
    fn an_erroneous_line_leaves_doubt_about_the_addresses_that_it_may_mean() {
        for (text, doubtful, certain) in [
            ("jon@@example.org", Some("bob@example.org"), Some("bob@other.example")),
            ("a b@example.org", Some("bob@example.org"), None),
            ("jon", Some("bob@example.org"), None),
            ("@", Some("bob@example.org"), None),
            ("jon@example.org OK", Some("bob@example.org"), Some("bob@other.example")),
        ] {
            let (table, errors) = RelayRecipients::read(Path::new(FILE), &format!("ann@example.org\n{text}\n"));
            assert_eq!(errors.len(), 1, "{text}");
            assert_eq!(errors[0].line, 2, "{text}");
            assert_eq!(is_in(&table, "ann@example.org", None), Some(true), "{text}");
            doubtful.iter().for_each(|address| assert_eq!(is_in(&table, address, None), None, "{text}"));
            certain.iter().for_each(|address| assert_eq!(is_in(&table, address, None), Some(false), "{text}"));
        }
        let unreadable = RelayRecipients::unreadable(&ConfigError::whole(Path::new(FILE), "gone"));
        assert_eq!(is_in(&unreadable, "ann@example.org", None), None);
    }
}
