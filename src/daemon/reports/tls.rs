//! Sends the TLS reports of a day, once to each place that a domain names.
//!
//! A report that no place has taken is tried again for a day. A report by mail counts as taken as
//! soon as it is in the spool.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::aggregate::{DAY, MAX_REPORTS};
use crate::dns::lookup::{Lookup, Until, has_public_hosts};
use crate::envelope::{Envelope, MailOptions, MessageTls, Origin};
use crate::log;
use crate::outcome::NoAnswer;
use crate::route::DomainClass;
use crate::site::{Settings, Site};
use crate::spool::EntryName;
use crate::sys;
use crate::tls_report::{Counted, Destination, Record, Report};

/// Reports start within this time after midnight, in seconds. RFC 8460 4.1 recommends some hours.
pub(super) const START: (u64, u64) = (1800, 4 * 3600);
/// The time limit for all look-ups together of a group of domains, or of one report.
const LOOKUP_TIME: Duration = Duration::from_secs(20);
/// The number of domains whose records are looked up at the same time.
const GROUP: usize = 20;
/// The maximum number of domains whose records are looked up. Domains with the most connections come
/// first.
const MAX_DOMAINS: usize = 20_000;
/// The time limit of a request to a web server.
#[cfg(feature = "mta-sts")]
const HTTPS_TIME: Duration = Duration::from_secs(60);
/// The maximum size of the answer of a web server, in bytes.
#[cfg(feature = "mta-sts")]
const MAX_ANSWER: usize = 64 << 10;

/// The reports of one day.
struct Day<'a> {
    site: &'a Arc<Site>,
    settings: &'a Settings,
    /// The contact, from which reports are sent.
    sender: &'a Address,
    /// The day, in days since 1970.
    day: u64,
    /// Whether a report that cannot be sent now is given up.
    is_last_try: bool,
    notify: &'a dyn Fn(EntryName),
}

/// Sends the reports of a day as far as they were not sent yet. Returns whether some must be tried
/// again. With `is_last_try`, none is tried again.
pub(super) fn send_day(site: &Arc<Site>, day: u64, is_last_try: bool, notify: &dyn Fn(EntryName)) -> bool {
    let settings = site.settings();
    let Some(sender) = &settings.config.remote.tls_reports else { return false };
    Day { site, settings: &settings, sender, day, is_last_try, notify }.send()
}

impl Day<'_> {
    fn send(&self) -> bool {
        let all = self.site.tls_counts.of_day(sys::now(), self.day);
        let (mut must_retry, mut sent) = (false, 0);
        for group in all.get(..MAX_DOMAINS.min(all.len())).unwrap_or_default().chunks(GROUP) {
            let lookup = self.lookup();
            let names: Vec<String> = group.iter().map(|one| format!("_smtp._tls.{}", one.domain)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            for (counted, found) in group.iter().zip(lookup.txt_of_all(&names)) {
                let is_done = match found {
                    Ok(texts) => match Record::find(&texts) {
                        Some(_) if sent >= MAX_REPORTS => {
                            self.withheld(counted, "there are too many reports");
                            true
                        }
                        Some(record) => {
                            sent += 1;
                            self.send_to_all(counted, &record)
                        }
                        None => true,
                    },
                    Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) => true,
                    Err(_) => false,
                };
                if is_done || self.is_last_try {
                    self.site.tls_counts.note_done(sys::now(), self.day, &counted.domain);
                }
                must_retry |= !is_done && !self.is_last_try;
            }
        }
        must_retry
    }

    /// Sends a report to all places of the record that it has not reached yet. Returns whether no
    /// place is left.
    fn send_to_all(&self, counted: &Counted, record: &Record) -> bool {
        let report = Report { hostname: &self.settings.config.hostname, sender: self.sender, day: self.day, counted };
        let attachment = report.compressed();
        let mut is_done = true;
        for place in &record.destinations {
            let uri = place.to_string();
            if counted.reached.contains(&uri) {
                continue;
            }
            let result = match place {
                Destination::Mail(to) => self.mail(&report, &attachment, to),
                Destination::Https { host, path } => self.post(counted, &attachment, (host, path), &uri),
            };
            match result {
                Ok(()) => self.site.tls_counts.note_reached(sys::now(), self.day, &counted.domain, &uri),
                Err(why) => {
                    self.withheld(counted, &why);
                    is_done = false;
                }
            }
        }
        is_done
    }

    /// Puts a report for an address into the spool.
    ///
    /// # Errors
    /// If the report cannot be sent now.
    fn mail(&self, report: &Report<'_>, attachment: &[u8], to: &Address) -> Result<(), String> {
        let is_elsewhere = self.settings.router.class_of(to.domain()) == DomainClass::Elsewhere;
        if is_elsewhere && !has_public_hosts(&self.lookup(), to.domain()) {
            return Err(format!("{} has no mail host in the Internet", to.domain()));
        }
        // The mail hosts may have other addresses when the report is delivered. `TlsReport` makes
        // the delivery use only public addresses. A report about failures of TLS must arrive in
        // spite of them (RFC 8460 3).
        let origin = if is_elsewhere { Origin::TlsReport } else { Origin::Client };
        let options = MailOptions { tls: MessageTls::Indifferent, ..MailOptions::default() };
        let envelope = Envelope { sender: None, recipients: Vec::new(), options, origin };
        let stored = || -> io::Result<_> {
            let draft = self.site.spool.begin()?;
            let id = draft.id();
            let text = report.mail(attachment, to, &id.to_string(), sys::now());
            let name = super::store(draft, self.settings, (self.sender, to), &text, envelope)?;
            Ok((id, name, text.len()))
        };
        let (id, name, size) = stored().map_err(|error| {
            ::log::error!("spool: store a TLS report: {error}");
            format!("the report to {to} cannot be stored: {error}")
        })?;
        log::Report::Tls.sent(&id, &report.counted.domain, self.day * DAY, &format!("<{to}>"), size);
        (self.notify)(name);
        Ok(())
    }

    /// Sends a report to a web server.
    ///
    /// # Errors
    /// If the server does not take it now.
    #[cfg(feature = "mta-sts")]
    fn post(&self, counted: &Counted, attachment: &[u8], (host, path): (&str, &str), uri: &str) -> Result<(), String> {
        use crate::net::https::{Request, exchange};

        let request = Request {
            host,
            path,
            content: Some(("application/tlsrpt+gzip", attachment)),
            max_answer: MAX_ANSWER,
            deadline: Instant::now() + HTTPS_TIME,
            host_timeout: None,
        };
        let answer = exchange(&self.site.dns, &self.settings.tls.client, &request);
        let answer = answer.map_err(|error| format!("{uri}: {error}"))?;
        if !(200..300).contains(&answer.status) {
            return Err(format!("{uri}: the status is {}", answer.status));
        }
        log::Report::Tls.sent(&"-", &counted.domain, self.day * DAY, uri, attachment.len());
        Ok(())
    }

    /// A build without HTTPS sends no report to a web server.
    #[cfg(not(feature = "mta-sts"))]
    fn post(&self, _: &Counted, _: &[u8], _: (&str, &str), uri: &str) -> Result<(), String> {
        Err(format!("{uri}: this penfold was built without mta-sts, and has no HTTPS"))
    }

    fn lookup(&self) -> Until<'_> {
        Until { dns: &self.site.dns, until: Instant::now() + LOOKUP_TIME }
    }

    fn withheld(&self, counted: &Counted, why: &str) {
        log::Report::Tls.withheld(&counted.domain, self.day * DAY, why);
    }
}
