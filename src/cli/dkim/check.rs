//! `penfoldctl dkim check`: compares the keys of the configuration with the DNS.
//!
//! Root opens only keys that nobody but root can have put in their places. The server's user opens
//! all other keys, and looks up the names.

use std::time::{Duration, Instant};

use crate::address::parse_domain;
use crate::config::table::read_text;
use crate::config::{Config, Dkim};
use crate::daemon::Start;
use crate::dns::Dns;
use crate::dns::lookup::Until;
use crate::exit::{self, Exit};
use crate::mailauth::keys::published::Published;
use crate::mailauth::keys::{Keys, Named, names_of_table};
use crate::privsep::Rights;
use crate::privsep::rootpath::is_roots_alone;
use crate::sys;

/// The time limit for the look-up of one key, if `dns.timeout` is longer.
const LIMIT: Duration = Duration::from_secs(10);

/// Compares the keys of a domain, or all keys, and prints a line for each.
///
/// # Errors
/// `DATAERR` if there is a key that verifiers cannot use; `TEMPFAIL` if there is no such key, but a
/// key could not be looked up; `UNAVAILABLE` if there are no keys; `CONFIG` for errors in the
/// configuration or a key.
pub fn check(start: &Start, domain: Option<&str>) -> Result<(), Exit> {
    let config = start.load()?;
    let named = if config.dkim.is_empty() { Vec::new() } else { open(start, &config)? };
    let wanted = domain.map(|text| parse_domain(text).map_or_else(|_| text.to_owned(), String::from));
    let is_wanted = |named: &&Named| wanted.as_ref().is_none_or(|wanted| *wanted == named.domain);
    let named: Vec<&Named> = named.iter().filter(is_wanted).collect();
    if named.is_empty() {
        let of = wanted.map(|domain| format!(" for {domain}")).unwrap_or_default();
        return Err(Exit { code: exit::UNAVAILABLE, text: vec![format!("the configuration has no key{of}")] });
    }
    let dns = Dns::new(&config.dns);
    let (mut bad, mut unknown) = (0_usize, 0_usize);
    for named in named {
        let until = Instant::now() + config.dns.timeout.min(LIMIT);
        let found = Published::of(&Until { dns: &dns, until }, named);
        match &found {
            Published::Unknown(_) => unknown += 1,
            found if !found.is_good() => bad += 1,
            _ => {}
        }
        let line = format!("{}: {found} ({})\n", named.dns_name(), named.path().display());
        exit::print(&line)?;
    }
    match (bad, unknown) {
        (0, 0) => Ok(()),
        (0, _) => {
            Err(Exit { code: exit::TEMPFAIL, text: vec![format!("keys that could not be looked up: {unknown}")] })
        }
        _ => Err(Exit { code: exit::DATAERR, text: vec![format!("keys that receivers cannot use: {bad}")] }),
    }
}

/// Opens all keys, and becomes the server's user.
fn open(start: &Start, config: &Config) -> Result<Vec<Named>, Exit> {
    let is_ours = |dkim: &&Dkim| sys::is_root() && is_roots(dkim);
    let (of_root, others): (Vec<&Dkim>, Vec<&Dkim>) = config.dkim.iter().partition(is_ours);
    let part = |dkim: Vec<&Dkim>| {
        let part = Config { dkim: dkim.into_iter().cloned().collect(), ..config.clone() };
        match Keys::open(&part, &Rights::Alone) {
            Ok((keys, faults)) if faults.is_empty() => Ok(keys.all()),
            Ok((_, errors)) | Err(errors) => Err(start.explain_files(config, errors)),
        }
    };
    let mut named = part(of_root)?;
    start.become_user(config)?;
    named.extend(part(others)?);
    Ok(named)
}

/// Whether nobody but root can have put a key in its place. For a table, this must be so for the
/// table itself and for all keys that it names.
fn is_roots(dkim: &Dkim) -> bool {
    match dkim {
        Dkim::Key(key) => is_roots_alone(&key.key),
        Dkim::Table(table) => {
            is_roots_alone(table)
                && names_of_table(&read_text(table).unwrap_or_default()).all(|key| is_roots_alone(&key))
        }
    }
}
