//! Walks up the DNS tree from a domain, to find DMARC records and the organizational domain (RFC
//! 9989 4.10).
//!
//! A walk looks up the record of a domain, and then those of its parents. If the domain has more
//! than eight labels, the next parent is the one with seven labels, so that a walk has at most
//! [`MAX_QUERIES`] look-ups. A record with `psd=y` or `psd=n` ends the walk.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::record::{Psd, Record};
use crate::dns::lookup::Lookup;
use crate::outcome::NoAnswer;

/// The maximum number of look-ups of one walk.
pub const MAX_QUERIES: usize = 8;

/// A record, and the domain at which it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The domain, without `_dmarc.`.
    pub domain: Box<str>,
    /// The record that was found.
    pub record: Record,
}

/// The reason why a walk has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The DNS did not answer.
    Dns,
    /// The message would need more look-ups than are allowed.
    TooMany,
}

/// The records that were looked up for one message. No record is looked up twice.
pub(super) struct Records<'a> {
    lookup: &'a dyn Lookup,
    known: RefCell<HashMap<String, Result<Option<Record>, Trouble>>>,
    left: Cell<usize>,
}

impl<'a> Records<'a> {
    /// Returns a value that holds no records yet, and that will look up at most `max` records.
    pub(super) fn new(lookup: &'a dyn Lookup, max: usize) -> Self {
        Self { lookup, known: RefCell::default(), left: Cell::new(max) }
    }

    /// Returns the DMARC record of a domain. Returns `None` if the domain has none, or several.
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

    /// Returns whether a domain exists in the DNS (RFC 8020). Returns `None` if the look-up fails.
    /// The look-up does not count towards the maximum of look-ups.
    pub(super) fn exists(&self, domain: &str) -> Option<bool> {
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

    /// Walks up from a domain. Returns the records on the way, the one at the longest name first.
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

/// Returns the names whose records a walk looks up, in order.
pub(super) fn names(domain: &str) -> impl Iterator<Item = &str> {
    // All names after the first one have at most seven labels.
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

/// Returns the organizational domain of `domain`. `walked` are the records of a walk that began at
/// `domain` (RFC 9989 4.10.2).
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

/// Returns the end of `domain` that has one label more than `parent`. `domain` must be below
/// `parent`. For example, `com` and `a.b.com` give `b.com`.
fn one_below<'a>(parent: &str, domain: &'a str) -> &'a str {
    let front = domain.len().saturating_sub(parent.len() + 1);
    let label = domain.get(..front).and_then(|front| front.rfind('.')).map_or(0, |dot| dot + 1);
    domain.get(label..).unwrap_or(domain)
}

/// Returns the organizational domain of a domain in canonical form.
///
/// # Errors
/// A [`Trouble`], if the DNS does not answer.
pub fn organizational_domain(lookup: &dyn Lookup, domain: &str) -> Result<Box<str>, Trouble> {
    let walked = Records::new(lookup, MAX_QUERIES).walk(domain)?;
    Ok(organizational(domain, &walked).into())
}

/// Returns the names of the records that the evaluation of a domain may need, so that a caller can
/// look them up at the same time.
pub fn record_names(domain: &str) -> impl Iterator<Item = String> {
    names(domain).map(|name| format!("_dmarc.{name}"))
}

/// Returns the record of exactly this domain, as it applies to messages.
///
/// # Errors
/// A [`Trouble`], if the DNS does not answer.
pub fn policy_record(lookup: &dyn Lookup, domain: &str) -> Result<Option<Record>, Trouble> {
    Ok(Records::new(lookup, 1).get(domain)?.and_then(Record::usable))
}
