//! Sends the DMARC aggregate reports of a day, once.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::aggregate::{DAY, MAX_REPORTS};
use crate::dns::lookup::Until;
use crate::envelope::{Envelope, MailOptions, Origin};
use crate::log;
use crate::mailauth::dmarc::policy_record;
use crate::mailauth::dmarc::reports::{self, Counted, Report};
use crate::site::{Settings, Site};
use crate::spool::EntryName;
use crate::sys;

/// Reports start within this time after midnight, in seconds.
pub(super) const START: (u64, u64) = (60, 1860);
/// The time limit for all look-ups together that the report for one domain needs.
const LOOKUP_TIME: Duration = Duration::from_secs(20);

/// Sends the reports of a day, and of the day before, as far as they were not sent yet.
pub(super) fn send_days(site: &Arc<Site>, day: u64, notify: &dyn Fn(EntryName)) {
    let settings = site.settings();
    let Some(sender) = &settings.config.policy.dmarc_reports else { return };
    for day in [day.saturating_sub(1), day] {
        let all = site.dmarc_counts.of_day(sys::now(), day);
        if all.len() > MAX_REPORTS {
            ::log::warn!("DMARC reports: {} domains are left out: there are too many", all.len() - MAX_REPORTS);
        }
        for counted in all.iter().take(MAX_REPORTS) {
            match send(site, &settings, sender, day, counted, notify) {
                Ok(()) if site.dmarc_counts.note_done(sys::now(), day, &counted.domain).is_err() => {
                    // The next day all of them would be sent again.
                    ::log::error!("DMARC reports: no more are sent today: the state directory cannot be written");
                    return;
                }
                Ok(()) => {}
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
    let withheld = |why: &str| log::Report::Dmarc.withheld(&counted.domain, day * DAY, why);
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
        let origin = match super::origin(settings, &lookup, to, Origin::DmarcReport) {
            Ok(origin) => origin,
            Err(why) => {
                withheld(&why);
                continue;
            }
        };
        let draft = site.spool.begin()?;
        let id = draft.id();
        let text = reports::message(&report, &attachment, to, &id.to_string(), sys::now());
        if uri.max_size.is_some_and(|max| text.len() as u64 > max) {
            withheld(&format!("it is longer than {to} wants"));
            continue;
        }
        let envelope = Envelope { sender: None, recipients: Vec::new(), options: MailOptions::default(), origin };
        let name = match super::store(draft, settings, (sender, to), &text, envelope) {
            Ok(name) => name,
            // The addresses that have a report must not get another one.
            Err(error) if is_stored => {
                withheld(&format!("the report to {to} cannot be stored: {error}"));
                continue;
            }
            Err(error) => return Err(error),
        };
        is_stored = true;
        log::Report::Dmarc.sent(&id, &counted.domain, day * DAY, &format!("<{to}>"), text.len());
        notify(name);
    }
    Ok(())
}
