//! Sends the TLS reports of a day, once to each place that a domain names.
//!
//! A report that a place has not taken is tried again for a day. A report by mail counts as taken as
//! soon as it is in the spool. Strangers choose the places, and can change their record between two
//! tries. So a report goes to at most [`MAX_DESTINATIONS`] places over all tries, and at most
//! [`MAX_REPORTS`] domains get one. A run has a time limit, because other reports wait meanwhile.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::aggregate::{DAY, MAX_REPORTS, Unrecorded};
use crate::dns::lookup::{Lookup, Until};
use crate::envelope::{Envelope, MailOptions, MessageTls, Origin};
use crate::log;
use crate::outcome::NoAnswer;
use crate::site::{Settings, Site};
use crate::spool::EntryName;
use crate::sys;
use crate::tls_report::{Counted, Destination, MAX_DESTINATIONS, Record, Report};

/// Reports start within this time after midnight, in seconds. RFC 8460 4.1 recommends some hours.
pub(super) const START: (u64, u64) = (1800, 4 * 3600);
/// The time limit for all look-ups together of a group of domains, or of one report.
const LOOKUP_TIME: Duration = Duration::from_secs(20);
/// The number of domains whose records are looked up at the same time.
const GROUP: usize = 20;
/// The maximum number of domains whose records are looked up. Domains with the most connections come
/// first.
const MAX_DOMAINS: usize = 20_000;
/// The time limit of a run. What is not sent then waits for the next try.
const RUN_TIME: Duration = Duration::from_secs(2 * 3600);
/// The part of that time in which requests to web servers are made.
const HTTPS_RUN_TIME: Duration = Duration::from_secs(3600);
/// The time limit of the requests for one report. Each web server of the record has an equal part.
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
    /// The time at which this run began.
    since: Instant,
    notify: &'a dyn Fn(EntryName),
}

/// The domains whose reports of one day were begun, in all tries.
pub(super) type Begun = HashSet<Box<str>>;

/// Sends the reports of a day as far as they were not sent yet. Returns whether some must be tried
/// again. With `is_last_try`, none is tried again.
pub(super) fn send_day(
    site: &Arc<Site>,
    day: u64,
    begun: &mut Begun,
    is_last_try: bool,
    notify: &dyn Fn(EntryName),
) -> bool {
    let settings = site.settings();
    let Some(sender) = &settings.config.remote.tls_reports else { return false };
    let day = Day { site, settings: &settings, sender, day, is_last_try, since: Instant::now(), notify };
    day.send(begun).unwrap_or_else(|Unrecorded| {
        // Another try within the day would send reports again. The last try comes on the next day.
        ::log::error!("TLS reports: no more are sent today: the state directory cannot be written");
        false
    })
}

impl Day<'_> {
    /// Returns whether some reports must be tried again.
    ///
    /// # Errors
    /// [`Unrecorded`]. No further report is sent then.
    fn send(&self, begun: &mut Begun) -> Result<bool, Unrecorded> {
        let all = self.site.tls_counts.of_day(sys::now(), self.day);
        let mut must_retry = false;
        for group in all.get(..MAX_DOMAINS.min(all.len())).unwrap_or_default().chunks(GROUP) {
            if self.since.elapsed() >= RUN_TIME {
                ::log::warn!("TLS reports: some are left out in this try: the time is over");
                return Ok(!self.is_last_try);
            }
            let lookup = self.lookup();
            let names: Vec<String> = group.iter().map(|one| format!("_smtp._tls.{}", one.domain)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            for (counted, found) in group.iter().zip(lookup.txt_of_all(&names)) {
                let is_done = match found {
                    Ok(texts) => match Record::find(&texts) {
                        Some(_) if !may_begin(begun, &counted.domain) => {
                            self.withheld(counted, "there are too many reports");
                            true
                        }
                        Some(record) => self.send_to_all(counted, &record)?,
                        None => true,
                    },
                    Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) => true,
                    Err(_) => false,
                };
                if is_done || self.is_last_try {
                    self.site.tls_counts.note_done(sys::now(), self.day, &counted.domain)?;
                }
                must_retry |= !is_done && !self.is_last_try;
            }
        }
        Ok(must_retry)
    }

    /// Sends a report to all places of the record that it has not reached yet. Returns whether no
    /// place is left.
    ///
    /// # Errors
    /// [`Unrecorded`]
    fn send_to_all(&self, counted: &Counted, record: &Record) -> Result<bool, Unrecorded> {
        let report = Report { hostname: &self.settings.config.hostname, sender: self.sender, day: self.day, counted };
        let attachment = report.compressed();
        let lookup = self.lookup();
        let servers = record.destinations.iter().filter(|place| matches!(place, Destination::Https { .. })).count();
        send_to_places(&record.destinations, &counted.reached, |place, uri| {
            let result = match place {
                Destination::Mail(to) => self.mail(&report, &attachment, to, &lookup),
                Destination::Https { host, path } => match deadline(self.since, Instant::now(), servers) {
                    Some(deadline) => self.post(counted, &attachment, (host, path), uri, deadline),
                    None => Err(format!("{uri}: the time for HTTPS is over in this try")),
                },
            };
            match &result {
                Ok(()) => self.site.tls_counts.note_reached(sys::now(), self.day, &counted.domain, uri)?,
                Err(why) => self.withheld(counted, why),
            }
            Ok(result.is_ok())
        })
    }

    /// Puts a report for an address into the spool.
    ///
    /// # Errors
    /// If the report cannot be sent now.
    fn mail(&self, report: &Report<'_>, attachment: &[u8], to: &Address, lookup: &Until<'_>) -> Result<(), String> {
        let origin = super::origin(self.settings, lookup, to, Origin::TlsReport)?;
        // A report about failures of TLS must arrive in spite of them (RFC 8460 3).
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
    fn post(
        &self,
        counted: &Counted,
        attachment: &[u8],
        (host, path): (&str, &str),
        uri: &str,
        deadline: Instant,
    ) -> Result<(), String> {
        use crate::net::https::{Request, exchange};

        let request = Request {
            host,
            path,
            content: Some(("application/tlsrpt+gzip", attachment)),
            max_answer: MAX_ANSWER,
            deadline,
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
    fn post(&self, _: &Counted, _: &[u8], _: (&str, &str), uri: &str, _: Instant) -> Result<(), String> {
        Err(format!("{uri}: this penfold was built without mta-sts, and has no HTTPS"))
    }

    fn lookup(&self) -> Until<'_> {
        Until { dns: &self.site.dns, until: Instant::now() + LOOKUP_TIME }
    }

    fn withheld(&self, counted: &Counted, why: &str) {
        log::Report::Tls.withheld(&counted.domain, self.day * DAY, why);
    }
}

/// Whether the report for a domain may be begun. It is then counted.
fn may_begin(begun: &mut Begun, domain: &str) -> bool {
    begun.contains(domain) || (begun.len() < MAX_REPORTS && begun.insert(domain.into()))
}

/// Calls `send` for the places that a report has not reached yet. `send` returns whether the report
/// has reached the place. Returns whether no place is left. Mail comes first, since web servers may
/// take long.
///
/// # Errors
/// Those of `send`.
fn send_to_places(
    places: &[Destination],
    reached: &[String],
    mut send: impl FnMut(&Destination, &str) -> Result<bool, Unrecorded>,
) -> Result<bool, Unrecorded> {
    // Places of an earlier record count, too.
    let (mut count, mut is_done) = (reached.len(), true);
    let (mail, web): (Vec<_>, Vec<_>) = places.iter().partition(|place| matches!(place, Destination::Mail(_)));
    for place in mail.into_iter().chain(web) {
        let uri = place.to_string();
        if count >= MAX_DESTINATIONS {
            return Ok(true);
        }
        if reached.contains(&uri) {
            continue;
        }
        match send(place, &uri)? {
            true => count += 1,
            false => is_done = false,
        }
    }
    Ok(is_done || count >= MAX_DESTINATIONS)
}

/// The time at which a request to one of `servers` web servers must end. `since` is the time at which
/// the run began. `None` if no further request may be made.
fn deadline(since: Instant, now: Instant, servers: usize) -> Option<Instant> {
    let end = since + HTTPS_RUN_TIME;
    let share = HTTPS_TIME / u32::try_from(servers.max(1)).unwrap_or(u32::MAX);
    (now < end).then(|| end.min(now + share))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with new places at each try, one of which always fails, gets no more mail than one
    /// that stays as it is.
    #[test]
    fn a_report_goes_to_few_places_over_all_tries() {
        let (mut reached, mut tries) = (Vec::<String>::new(), 0);
        for hour in 0..24 {
            let victims: Vec<String> = (0..3).map(|n| format!("mailto:v{n}@h{hour}.test")).collect();
            let record = format!("v=TLSRPTv1; rua=https://never.test/,{}", victims.join(","));
            let record = Record::parse(record.as_bytes()).expect("a record");
            let before = reached.clone();
            let is_done = send_to_places(&record.destinations, &before, |place, uri| {
                let is_mail = matches!(place, Destination::Mail(_));
                is_mail.then(|| reached.push(uri.to_owned()));
                Ok(is_mail)
            });
            tries += 1;
            if is_done == Ok(true) {
                break;
            }
        }
        assert_eq!((reached.len(), tries), (MAX_DESTINATIONS, 2), "{reached:?}");
    }

    #[test]
    fn only_places_that_failed_are_tried_again() {
        let record =
            Record::parse(b"v=TLSRPTv1; rua=https://a.test/,mailto:b@b.test,https://c.test/").expect("a record");
        let tried = |reached: &[String], works: &str| {
            let mut tried = Vec::new();
            let is_done = send_to_places(&record.destinations, reached, |_, uri| {
                tried.push(uri.to_owned());
                Ok(uri.contains(works))
            });
            (tried.join(" "), is_done.expect("recorded"))
        };
        assert_eq!(tried(&[], "b.test"), ("mailto:b@b.test https://a.test/ https://c.test/".into(), false));
        let reached = ["mailto:b@b.test".to_owned()];
        assert_eq!(tried(&reached, "c.test"), ("https://a.test/ https://c.test/".into(), false));
        assert_eq!(tried(&reached, "test"), ("https://a.test/ https://c.test/".into(), true));
    }

    /// If it is not known later that a report was sent, no other one is sent.
    #[test]
    fn a_run_ends_if_it_cannot_be_recorded() {
        let record = Record::parse(b"v=TLSRPTv1; rua=mailto:a@a.test,mailto:b@b.test").expect("a record");
        let mut tries = 0;
        let result = send_to_places(&record.destinations, &[], |_, _| {
            tries += 1;
            Err(Unrecorded)
        });
        assert_eq!((result, tries), (Err(Unrecorded), 1));
    }

    /// Domains whose record is found only at a later try do not get reports beyond the limit.
    #[test]
    fn few_domains_get_reports_over_all_tries() {
        let mut begun = Begun::new();
        let may = |begun: &mut Begun, from: usize| {
            (from..from + MAX_REPORTS).filter(|n| may_begin(begun, &n.to_string())).count()
        };
        assert_eq!(may(&mut begun, 0), MAX_REPORTS);
        assert_eq!(may(&mut begun, 0), MAX_REPORTS, "again");
        assert_eq!(may(&mut begun, 1), MAX_REPORTS - 1);
    }

    /// Web servers that answer slowly hold up the reports for an hour, not for days.
    #[test]
    fn requests_have_a_time_limit_together() {
        let since = Instant::now();
        let (mut now, mut reports) = (since, 0);
        while (0..4).all(|_| deadline(since, now, 4).map(|end| now = end).is_some()) {
            reports += 1;
        }
        assert_eq!((now - since, reports), (Duration::from_secs(3600), 60));
        assert_eq!(deadline(since, since, 1), Some(since + Duration::from_secs(60)));
        let late = since + Duration::from_secs(3590);
        assert_eq!(deadline(since, late, 1), Some(since + Duration::from_secs(3600)));
    }
}
