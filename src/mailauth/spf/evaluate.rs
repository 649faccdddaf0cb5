//! Evaluates the SPF records of a domain for a client, as the function check_host() of RFC 7208 4
//! does.
//!
//! The limits of RFC 7208 4.6.4 apply to a whole check with all included records: at most
//! [`MAX_TERMS`] terms may ask the DNS, and at most [`MAX_VOID`] of these terms may be void (the
//! DNS has no such records). At most [`MAX_EXCHANGERS`] mail exchangers of a domain and
//! [`crate::dns::MAX_NAMES`] names of the client are looked up. The deadline of the look-ups limits
//! the time.
//!
//! If several hosts in the MX records of a term have no address, the term counts as void only once,
//! because RFC 7208 11.1 counts terms. The records that a record includes are looked up at the same
//! time, when the first of them is needed. Look-ups for the names of the client's address are not
//! counted as void, because the owner of the domain has no influence on these names.

use std::net::IpAddr;

use super::SpfResult;
use super::macros::{Macros, Values};
use super::record::{Directive, Mechanism, Prefixes, Record, is_spf, is_within};
use crate::dns::lookup::Lookup;
use crate::mailauth::is_at_or_below;
use crate::outcome::NoAnswer;

/// The maximum number of terms that ask the DNS.
const MAX_TERMS: usize = 10;
/// The maximum number of void terms, whose name does not exist or has no record of the type.
const MAX_VOID: usize = 2;
/// The maximum number of mail exchangers of a domain. If a term names a domain with more, the
/// result is an error.
const MAX_EXCHANGERS: usize = 10;

/// A check in progress, with its counters.
pub(super) struct Check<'a> {
    pub(super) dns: &'a dyn Lookup,
    /// The values of the macros. While a record is evaluated, `domain` among them is the domain of
    /// that record.
    pub(super) values: Values<'a>,
    terms: usize,
    void: usize,
    /// The number of look-ups that were announced to the resolver, so that they run early.
    announced: usize,
    /// The validated names of the client; `None` until a term needs them.
    names: Option<Vec<String>>,
}

/// What the record of a domain says about the client.
pub(super) struct Found {
    pub(super) result: SpfResult,
    /// The mechanism that matched, or the reason why there is no result.
    pub(super) mechanism: String,
    /// The name of the explanation (`exp=`) in the record, and the domain of the record.
    pub(super) explanation: Option<(Macros, String)>,
}

/// Why a record cannot be evaluated.
pub(super) enum Trouble {
    /// A look-up has failed. The text is for people.
    Temporary(String),
    /// The records have an error. The text is for people.
    Permanent(String),
}

use Trouble::{Permanent, Temporary};

impl<'a> Check<'a> {
    pub(super) fn new(dns: &'a dyn Lookup, values: Values<'a>) -> Self {
        Self { dns, values, terms: 0, void: 0, announced: 0, names: None }
    }

    /// Evaluates the record of a domain. All labels of the domain must be valid.
    pub(super) fn host(&mut self, domain: &str) -> Result<Found, Trouble> {
        let nothing = |why: &str| Found { result: SpfResult::None, mechanism: why.into(), explanation: None };
        let texts = match self.dns.txt(domain) {
            Ok(texts) => texts,
            Err(NoAnswer::BadName) => return Ok(nothing("not a domain")),
            Err(NoAnswer::NxDomain | NoAnswer::NoData) => return Ok(nothing("no record")),
            Err(trouble) => return Err(Temporary(format!("{domain}: {trouble}"))),
        };
        let mut records = texts.iter().filter(|text| is_spf(text));
        let Some(record) = records.next() else { return Ok(nothing("no record")) };
        if records.next().is_some() {
            return Err(Permanent(format!("{domain} has more than one record")));
        }
        let record = Record::parse(record).map_err(|what| Permanent(format!("syntax error in {domain}: {what}")))?;
        let mut includes = 0;
        for (at, directive) in record.directives.iter().enumerate() {
            if let Mechanism::Include(_) = directive.mechanism {
                includes += 1;
                if includes == 1 {
                    self.announce(&record.directives[at..], domain);
                }
            }
            if self.matches(domain, &directive.mechanism, directive.text)? {
                let (result, mechanism) = (directive.result, directive.text.to_owned());
                let explanation = record.explanation.map(|macros| (macros, domain.to_owned()));
                return Ok(Found { result, mechanism, explanation });
            }
        }
        let Some(redirect) = &record.redirect else {
            return Ok(Found { result: SpfResult::Neutral, mechanism: "default".into(), explanation: None });
        };
        self.count_term("redirect")?;
        let target = self.expand(redirect, domain);
        let found = match &target {
            Some(target) => self.host_of_term(target)?,
            None => nothing("not a domain"),
        };
        match found.result {
            SpfResult::None => Err(Permanent(format!("redirect={}: no record", target.unwrap_or_default()))),
            _ => Ok(found),
        }
    }

    /// Evaluates the record of a domain that another record names.
    fn host_of_term(&mut self, domain: &str) -> Result<Found, Trouble> {
        if !domain.contains('.') {
            return Ok(Found { result: SpfResult::None, mechanism: "not a domain".into(), explanation: None });
        }
        self.host(domain)
    }

    /// Announces the look-ups of the records that these terms include, so that they run at the same
    /// time. A check announces at most as many look-ups as it may make.
    fn announce(&mut self, directives: &[Directive], domain: &str) {
        let left = MAX_TERMS.saturating_sub(self.terms.max(self.announced));
        let included = directives.iter().filter_map(|directive| match &directive.mechanism {
            Mechanism::Include(target) if !target.has_name() => Some(target),
            _ => None,
        });
        let names: Vec<String> = included.take(left).filter_map(|target| self.expand(target, domain)).collect();
        if names.len() > 1 {
            self.announced += names.len();
            self.dns.announce_txt(&names.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    /// Looks up and expands the text of an explanation. Returns `None` if there is no usable text.
    pub(super) fn explain(&mut self, (macros, domain): &(Macros, String)) -> Option<String> {
        let name = self.expand(macros, domain)?;
        let texts = self.dns.txt(&name).ok()?;
        let [text] = texts.as_slice() else { return None };
        let macros = Macros::parse_explanation(std::str::from_utf8(text).ok()?)?;
        let client = self.client_for(&macros, domain);
        macros.explanation(&Values { domain, client: &client, ..self.values.clone() })
    }

    fn matches(&mut self, domain: &str, mechanism: &Mechanism, text: &str) -> Result<bool, Trouble> {
        if mechanism.asks_dns() {
            self.count_term(text)?;
        }
        let ip = self.values.ip;
        let target = match mechanism {
            Mechanism::All => return Ok(true),
            Mechanism::Network(network, bits) => return Ok(is_within(ip, *network, *bits)),
            Mechanism::A(target, _) | Mechanism::Mx(target, _) | Mechanism::Ptr(target) => target.as_ref(),
            Mechanism::Include(target) | Mechanism::Exists(target) => Some(target),
        };
        let target = match target {
            Some(macros) => self.expand(macros, domain),
            None => Some(domain.to_owned()),
        };
        let Some(target) = target else { return Ok(false) };
        match mechanism {
            Mechanism::Include(_) => match self.host_of_term(&target)?.result {
                SpfResult::Pass => Ok(true),
                SpfResult::None => Err(Permanent(format!("{text}: no record"))),
                _ => Ok(false),
            },
            Mechanism::A(_, prefixes) => {
                let found = self.dns.addresses(&[&target], ip.is_ipv6()).pop().unwrap_or(Ok(Vec::new()));
                let found = self.counted(found, text)?;
                Ok(found.iter().any(|address| prefixes.matches(ip, *address)))
            }
            Mechanism::Mx(_, prefixes) => self.matches_exchanger(&target, *prefixes, text),
            Mechanism::Exists(_) => {
                let found = self.dns.ipv4(&target);
                Ok(!self.counted(found, text)?.is_empty())
            }
            _ => Ok(self.names().iter().any(|name| is_at_or_below(name, &target))),
        }
    }

    fn matches_exchanger(&mut self, target: &str, prefixes: Prefixes, text: &str) -> Result<bool, Trouble> {
        let found = self.dns.mx(target);
        let exchangers = self.counted(found, text)?;
        if exchangers.len() > MAX_EXCHANGERS {
            return Err(Permanent(format!("{text}: more than {MAX_EXCHANGERS} mail exchangers")));
        }
        let names: Vec<&str> = exchangers.iter().map(|(_, name)| name.as_str()).filter(|name| *name != ".").collect();
        let (mut trouble, mut is_void) = (None, !names.is_empty());
        for found in self.dns.addresses(&names, self.values.ip.is_ipv6()) {
            match found {
                Ok(found) if found.iter().any(|address| prefixes.matches(self.values.ip, *address)) => return Ok(true),
                Ok(found) => is_void &= found.is_empty(),
                Err(NoAnswer::NxDomain | NoAnswer::NoData | NoAnswer::BadName) => {}
                Err(other) => trouble = Some(Temporary(format!("{text}: {other}"))),
            }
        }
        match trouble {
            Some(trouble) => Err(trouble),
            None if is_void => self.count_void(text).map(|()| false),
            None => Ok(false),
        }
    }

    /// Returns the data of an answer. If there are no records, counts the term as void and returns
    /// no data.
    fn counted<T>(&mut self, found: Result<Vec<T>, NoAnswer>, text: &str) -> Result<Vec<T>, Trouble> {
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) | Err(NoAnswer::NxDomain | NoAnswer::NoData) => self.count_void(text).map(|()| Vec::new()),
            // The name cannot exist in the DNS, so nothing was asked and nothing is counted.
            Err(NoAnswer::BadName) => Ok(Vec::new()),
            Err(trouble) => Err(Temporary(format!("{text}: {trouble}"))),
        }
    }

    fn count_term(&mut self, text: &str) -> Result<(), Trouble> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(Permanent(format!("{text}: more than {MAX_TERMS} terms ask the DNS")));
        }
        Ok(())
    }

    fn count_void(&mut self, text: &str) -> Result<(), Trouble> {
        self.void += 1;
        if self.void > MAX_VOID {
            return Err(Permanent(format!("{text}: more than {MAX_VOID} look-ups without an answer")));
        }
        Ok(())
    }

    fn expand(&mut self, macros: &Macros, domain: &str) -> Option<String> {
        let client = self.client_for(macros, domain);
        macros.domain(&Values { domain, client: &client, ..self.values.clone() })
    }

    /// Returns the value of the macro `p` (the client's name) for a domain. If the macro string
    /// does not use `p`, returns an empty text.
    fn client_for(&mut self, macros: &Macros, domain: &str) -> String {
        if !macros.has_name() {
            return String::new();
        }
        let names = self.names();
        let same = names.iter().find(|name| name.eq_ignore_ascii_case(domain));
        let below = || names.iter().find(|name| is_at_or_below(name, domain));
        same.or_else(below).or(names.first()).map_or("unknown", String::as_str).to_owned()
    }

    /// Returns the validated names of the client, those that lead back to its address. If they
    /// cannot be looked up, there are none.
    fn names(&mut self) -> &[String] {
        let (dns, ip) = (self.dns, self.values.ip);
        self.names.get_or_insert_with(|| validated_names(dns, ip))
    }
}

fn validated_names(dns: &dyn Lookup, ip: IpAddr) -> Vec<String> {
    let mut claimed = dns.names(ip).unwrap_or_default();
    claimed.truncate(crate::dns::MAX_NAMES);
    let names: Vec<&str> = claimed.iter().map(String::as_str).collect();
    let mut found = dns.addresses(&names, ip.is_ipv6()).into_iter();
    claimed.retain(|_| matches!(found.next(), Some(Ok(addresses)) if addresses.contains(&ip)));
    claimed
}
