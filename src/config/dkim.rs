//! Reads the tables `[[dkim]]` of penfold.conf(5), which name the keys that sign mail.

use std::collections::HashSet;
use std::path::PathBuf;

use super::document::Section;
use super::values;
use crate::address::parse_domain;

/// A `[[dkim]]` table: a key that signs the mail of a domain, or a file with such keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dkim {
    /// The key that signs the mail of one domain.
    Key(DkimKey),
    /// The path of a file with keys. Each line consists of a domain, a selector and the path of a
    /// key.
    Table(PathBuf),
}

/// A key that signs the mail of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimKey {
    /// The domain in canonical form. The key does not sign mail of its subdomains.
    pub domain: String,
    /// The selector in lower case. The public key is at `SELECTOR._domainkey.DOMAIN` in the DNS.
    pub selector: String,
    /// The file with the private key in PEM.
    pub key: PathBuf,
}

/// The maximum length of a name in the DNS, in octets (RFC 1035 2.3.4).
const MAX_NAME: usize = 253;

/// Returns the name of a public key in the DNS (RFC 6376 3.6.2.1).
pub fn key_name(selector: &str, domain: &str) -> String {
    format!("{selector}._domainkey.{domain}")
}

/// Returns whether the DNS can have the public key of a selector and a domain, both in canonical
/// form.
pub fn can_have_key(selector: &str, domain: &str) -> bool {
    let name = key_name(selector, domain);
    !selector.starts_with('[') && name.len() <= MAX_NAME && parse_domain(&name).is_ok()
}

/// Reads all `[[dkim]]` tables of the file.
pub(super) fn dkim(top: &mut Section<'_, '_>) -> Vec<Dkim> {
    let (sections, mut names) = (top.sections_or_one("dkim"), HashSet::new());
    if !cfg!(feature = "mailauth") && !sections.is_empty() {
        top.error("dkim", "this penfold was built without the feature mailauth, and cannot sign");
    }
    sections.into_iter().filter_map(|section| one(section, &mut names)).collect()
}

/// Reads one `[[dkim]]` table. Returns `None` if the table cannot be used. `names` are the pairs of
/// domain and selector in the tables that were read before.
fn one(mut section: Section<'_, '_>, names: &mut HashSet<(String, String)>) -> Option<Dkim> {
    const KEYS: [(&str, &str); 3] = [
        ("domain", "missing; expected the domain whose mail is signed"),
        ("selector", "missing; expected the name of the key in the DNS"),
        ("key", "missing; expected the path of a private key in PEM"),
    ];
    let table = section.take("table", values::existing_file);
    let domain = section.take("domain", values::dns_name);
    let selector = section.take("selector", values::dns_name);
    let key = section.take("key", values::existing_file);
    for (name, missing) in KEYS {
        match (section.gives("table"), section.gives(name)) {
            (true, true) => section.error(name, "stands beside table; expected a [[dkim]] table of its own"),
            (false, false) => section.error(name, missing),
            _ => {}
        }
    }
    if let Some((domain, selector)) = domain.clone().zip(selector.clone()) {
        if !can_have_key(&selector, &domain) {
            section.error("selector", "expected a shorter selector: the name of the key in the DNS is too long");
        } else if !names.insert((domain, selector)) {
            section.error("selector", "another [[dkim]] table has this selector and domain");
        }
    }
    section.finish();
    match table {
        Some(table) => Some(Dkim::Table(table)),
        None => Some(Dkim::Key(DkimKey { domain: domain?, selector: selector?, key: key? })),
    }
}
