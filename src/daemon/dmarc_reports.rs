//! Sends the DMARC aggregate reports of a day, once, after the day has ended in UTC.
//!
//! Reports are ordinary messages in the spool. They start some minutes after midnight, at a time
//! that depends on the name of this host, so that not all hosts report in the same minute. After a
//! restart, any reports of the last two days that are still unsent are sent.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::envelope::{Envelope, MailOptions, Origin};
use crate::log;
use crate::mailauth::dmarc::policy_record;
use crate::mailauth::dmarc::reports::{self, Counted, DAY, MAX_REPORTS, Report};
use crate::mailauth::lookup::Until;
use crate::route::DomainClass;
use crate::site::{Settings, Site};
use crate::spool::{Draft, EntryName, NewEntry};
use crate::sys;

/// The time limit for all look-ups together that the report for one domain needs.
const LOOKUP_TIME: Duration = Duration::from_secs(20);
/// The maximum number of seconds between two looks at the clock. The thread looks again because the
/// clock may have been set meanwhile.
const MAX_SLEEP: u64 = 3600;
/// Reports start within this number of seconds after midnight.
const SPREAD: u64 = 1800;

/// Starts the thread that sends the reports. `notify` tells the queue of a new entry.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(site: Arc<Site>, notify: impl Fn(EntryName) + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("reports".to_owned()).spawn(move || run(&site, &notify)).map(drop)
}

fn run(site: &Arc<Site>, notify: &dyn Fn(EntryName)) {
    let mut handled = 0;
    loop {
        let offset = offset(&site.settings().config.hostname);
        let (day, wait) = last_day(sys::now(), offset);
        if day > handled {
            send_days(site, day, notify);
            handled = day;
        }
        thread::sleep(Duration::from_secs(wait.clamp(1, MAX_SLEEP)));
    }
}

/// The number of seconds after midnight at which this host reports.
fn offset(hostname: &str) -> u64 {
    // The hash is the same in every process of this build, which is enough to spread hosts.
    let mut hasher = DefaultHasher::new();
    hostname.hash(&mut hasher);
    60 + hasher.finish() % SPREAD
}

/// The last day whose reports are due at the time `now`, in days since 1970, and the number of
/// seconds until the reports of the next day are due.
fn last_day(now: u64, offset: u64) -> (u64, u64) {
    let since = now.saturating_sub(offset);
    ((since / DAY).saturating_sub(1), DAY - since % DAY)
}

/// Sends the reports of a day, and of the day before, as far as they were not sent yet.
fn send_days(site: &Arc<Site>, day: u64, notify: &dyn Fn(EntryName)) {
    let settings = site.settings();
    let Some(sender) = &settings.config.policy.dmarc_reports else { return };
    for day in [day.saturating_sub(1), day] {
        let all = site.dmarc_counts.of_day(day);
        if all.len() > MAX_REPORTS {
            ::log::warn!("DMARC reports: {} domains are left out: there are too many", all.len() - MAX_REPORTS);
        }
        for counted in all.iter().take(MAX_REPORTS) {
            match send(site, &settings, sender, day, counted, notify) {
                Ok(()) => site.dmarc_counts.note_sent(day, &counted.domain),
                Err(error) => ::log::error!("spool: store a DMARC report: {error}"),
            }
        }
    }
}

/// Sends the report for one domain to all addresses that may get it.
///
/// # Errors
/// Those of the spool.
fn send(
    site: &Arc<Site>,
    settings: &Settings,
    sender: &Address,
    day: u64,
    counted: &Counted,
    notify: &dyn Fn(EntryName),
) -> io::Result<()> {
    let lookup = Until { dns: &site.dns, until: Instant::now() + LOOKUP_TIME };
    let withheld = |why: &str| log::report_withheld(&counted.domain, day * DAY, why);
    let Ok(Some(record)) = policy_record(&lookup, &counted.domain) else {
        withheld("there is no record any more");
        return Ok(());
    };
    let addresses = reports::allowed(&lookup, &counted.domain, &record);
    if addresses.is_empty() {
        withheld("no address of the record has agreed to get it");
    }
    let hostname = &*settings.config.hostname;
    let report = Report { hostname, sender, day, record: &record, counted };
    let attachment = reports::attachment(&report);
    let mut is_stored = false;
    for uri in addresses {
        let to = &uri.address;
        let is_elsewhere = settings.router.class_of(to.domain()) == DomainClass::Elsewhere;
        if is_elsewhere && !reports::has_public_hosts(&lookup, to.domain()) {
            withheld(&format!("{} has no mail host in the Internet", to.domain()));
            continue;
        }
        let draft = site.spool.begin()?;
        let id = draft.id();
        let text = reports::message(&report, &attachment, to, &id.to_string(), sys::now());
        if uri.max_size.is_some_and(|max| text.len() as u64 > max) {
            withheld(&format!("it is longer than {to} wants"));
            continue;
        }
        // The mail hosts may have other addresses when the report is delivered. `DmarcReport` makes
        // the delivery use only public addresses.
        let origin = if is_elsewhere { Origin::DmarcReport } else { Origin::Client };
        let name = match store(draft, settings, (sender, to), &text, origin) {
            Ok(name) => name,
            // The addresses that have a report must not get another one.
            Err(error) if is_stored => {
                withheld(&format!("the report to {to} cannot be stored: {error}"));
                continue;
            }
            Err(error) => return Err(error),
        };
        is_stored = true;
        log::report_sent(&id, &counted.domain, day * DAY, to, text.len());
        notify(name);
    }
    Ok(())
}

/// Signs a report, and puts it into the spool. `author` is the address in From.
fn store(
    mut draft: Draft,
    settings: &Settings,
    (author, to): (&Address, &Address),
    text: &str,
    origin: Origin,
) -> io::Result<EntryName> {
    let router = &settings.router;
    let recipients = router.recipients_of_own(to);
    let sender = Some(router.qualify(author));
    let envelope = Envelope { sender, recipients, options: MailOptions::default(), origin };
    let signatures = settings.keys.sign_report(author.domain(), text.as_bytes(), sys::now());
    draft.write_all(text.as_bytes())?;
    draft.commit(&NewEntry::queued(&envelope, &signatures))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports of a day are due some minutes after its end, and the thread sleeps until then.
    #[test]
    fn a_day_is_due_when_it_is_over() {
        for (now, day, wait) in [
            (10 * DAY, 8, 100),
            (10 * DAY + 99, 8, 1),
            (10 * DAY + 100, 9, DAY),
            (10 * DAY + 101, 9, DAY - 1),
            (11 * DAY - 1, 9, 101),
            (0, 0, DAY),
        ] {
            assert_eq!(last_day(now, 100), (day, wait), "{now}");
        }
        for hostname in ["a.test", "b.test", ""] {
            assert!((60..60 + SPREAD).contains(&offset(hostname)));
        }
    }
}
