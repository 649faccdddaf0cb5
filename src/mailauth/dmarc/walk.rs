//! The walk up the DNS tree that finds DMARC records and organizational domains (RFC 9989 4.10).
//!
//! A walk asks for the record of a domain, and then of its parents. If the domain has more than
//! eight labels, it skips to the parent with seven, so that a walk has at most [`MAX_QUERIES`]
//! look-ups. It ends early at a record that says `psd=y` or `psd=n`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::record::{Psd, Record};
use crate::mailauth::lookup::Lookup;
use crate::outcome::NoAnswer;

/// The maximum number of look-ups of one walk.
pub const MAX_QUERIES: usize = 8;

/// A record, and the domain at which it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The domain, without `_dmarc.`.
    pub domain: Box<str>,
    /// The record.
    pub record: Record,
}

/// Why a walk has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The DNS did not answer.
    Dns,
    /// There were too many look-ups for the message.
    TooMany,
}

/// The records that were looked up for one message. No name is asked for twice.
pub(super) struct Records<'a> {
    lookup: &'a dyn Lookup,
    known: RefCell<HashMap<String, Result<Option<Record>, Trouble>>>,
    left: Cell<usize>,
}

impl<'a> Records<'a> {
    /// No records yet. At most `max` look-ups will be made.
    pub(super) fn new(lookup: &'a dyn Lookup, max: usize) -> Self {
        Self { lookup, known: RefCell::default(), left: Cell::new(max) }
    }

    /// The only DMARC record of a domain. If it has several, none counts.
    pub(super) fn get(&self, domain: &str) -> Result<Option<Record>, Trouble> {
        if let Some(known) = self.known.borrow().get(domain) {
            return known.clone();
        }
        self.take_one()?;
        let found = match self.lookup.txt(&format!("_dmarc.{domain}")) {
            Ok(texts) => {
                let mut records = texts.iter().filter_map(|text| Record::parse(text));
                Ok(records.next().filter(|_| records.next().is_none()))
            }
            Err(NoAnswer::NxDomain | NoAnswer::NoData | NoAnswer::BadName) => Ok(None),
            Err(_) => Err(Trouble::Dns),
        };
        self.known.borrow_mut().insert(domain.to_owned(), found.clone());
        found
    }

    /// Whether a domain exists (RFC 8020); `None` if the DNS does not say.
    pub(super) fn exists(&self, domain: &str) -> Option<bool> {
        self.take_one().ok()?;
        match self.lookup.ipv4(domain) {
            Ok(_) | Err(NoAnswer::NoData) => Some(true),
            Err(NoAnswer::NxDomain | NoAnswer::BadName) => Some(false),
            Err(_) => None,
        }
    }

    fn take_one(&self) -> Result<(), Trouble> {
        self.left.set(self.left.get().checked_sub(1).ok_or(Trouble::TooMany)?);
        Ok(())
    }

    /// Walks up from a domain. Returns the records, the one at the longest name first.
    pub(super) fn walk(&self, domain: &str) -> Result<Vec<Found>, Trouble> {
        let mut all = Vec::new();
        for name in names(domain) {
            if let Some(record) = self.get(name)? {
                let is_last = record.psd != Psd::Unknown;
                all.push(Found { domain: name.into(), record });
                if is_last {
                    break;
                }
            }
        }
        Ok(all)
    }
}

/// The names that a walk asks for, in order.
pub(super) fn names(domain: &str) -> impl Iterator<Item = &str> {
    // Every name but the first has at most seven labels.
    let mut skip = domain.split('.').count().saturating_sub(MAX_QUERIES);
    let mut next = Some(domain);
    let step = move || {
        let name = next?;
        next = (0..=std::mem::take(&mut skip)).try_fold(name, |name, _| parent(name));
        Some(name)
    };
    std::iter::from_fn(step).take(MAX_QUERIES)
}

fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

/// The organizational domain of `domain`, from the records of a walk that began there (RFC 9989
/// 4.10.2).
pub(super) fn organizational<'a>(domain: &'a str, walked: &'a [Found]) -> &'a str {
    for found in walked {
        match found.record.psd {
            Psd::No => return &found.domain,
            Psd::Yes if *found.domain != *domain => return one_below(&found.domain, domain),
            _ => {}
        }
    }
    walked.last().map_or(domain, |found| &found.domain)
}

/// The name with one label more than `parent` on the way to `domain`, which is below `parent`.
fn one_below<'a>(parent: &str, domain: &'a str) -> &'a str {
    let front = domain.len().saturating_sub(parent.len() + 1);
    let label = domain.get(..front).and_then(|front| front.rfind('.')).map_or(0, |dot| dot + 1);
    domain.get(label..).unwrap_or(domain)
}

/// Whether `domain` is `parent` or a name below it.
pub(super) fn is_at_or_below(domain: &str, parent: &str) -> bool {
    domain.strip_suffix(parent).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

/// Returns the organizational domain of a domain in canonical form.
///
/// # Errors
/// If the DNS does not answer.
pub fn organizational_domain(lookup: &dyn Lookup, domain: &str) -> Result<Box<str>, Trouble> {
    let walked = Records::new(lookup, MAX_QUERIES).walk(domain)?;
    Ok(organizational(domain, &walked).into())
}

/// The names of the records that may be asked for to evaluate a domain, so that a caller can ask for
/// them side by side.
pub fn record_names(domain: &str) -> impl Iterator<Item = String> {
    names(domain).map(|name| format!("_dmarc.{name}"))
}

/// Returns the record of exactly this domain, as it applies to messages.
///
/// # Errors
/// If the DNS does not answer.
pub fn policy_record(lookup: &dyn Lookup, domain: &str) -> Result<Option<Record>, Trouble> {
    Ok(Records::new(lookup, 1).get(domain)?.and_then(Record::usable))
}
