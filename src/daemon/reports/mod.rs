//! Sends the daily reports to the owners of domains, after a day has ended in UTC.
//!
//! Reports by mail are ordinary messages in the spool. Reports start some time after midnight, at a
//! time that depends on the name of this host, so that not all hosts report in the same minute.
//! After a restart, any reports of the last two days that are still unsent are sent.
//!
//! - `dmarc`: DMARC reports (RFC 9990)
//! - `tls`: TLS reports (RFC 8460)

#[cfg(feature = "mailauth")]
mod dmarc;
mod tls;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::address::Address;
use crate::aggregate::DAY;
use crate::dns::lookup::{Until, has_public_hosts};
use crate::envelope::{Envelope, Origin};
use crate::route::DomainClass;
use crate::site::{Settings, Site};
use crate::spool::{Draft, EntryName, NewEntry};
use crate::sys;

/// The maximum number of seconds between two looks at the clock. The thread looks again because the
/// clock may have been set meanwhile.
const MAX_SLEEP: u64 = 3600;

/// Starts the thread that sends the reports. `notify` tells the queue of a new entry.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(site: Arc<Site>, notify: impl Fn(EntryName) + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("reports".to_owned()).spawn(move || run(&site, &notify)).map(drop)
}

fn run(site: &Arc<Site>, notify: &dyn Fn(EntryName)) {
    #[cfg(feature = "mailauth")]
    let mut dmarc = 0;
    let (mut tls, mut must_retry, mut begun) = (0, false, tls::Begun::new());
    loop {
        let mut wait = MAX_SLEEP;
        let hostname = site.settings().config.hostname.clone();
        #[cfg(feature = "mailauth")]
        {
            let (day, left) = last_day(sys::now(), offset(&hostname, dmarc::START));
            if day > dmarc {
                dmarc::send_days(site, day, notify);
                dmarc = day;
            }
            wait = wait.min(left);
        }
        let (day, left) = last_day(sys::now(), offset(&hostname, tls::START));
        if day > tls {
            // For a report of the day before it is the last try.
            tls::send_day(site, day.saturating_sub(1), &mut begun, true, notify);
            begun.clear();
        }
        if day > tls || must_retry {
            must_retry = tls::send_day(site, day, &mut begun, false, notify);
            tls = day;
        }
        wait = wait.min(left);
        thread::sleep(Duration::from_secs(wait.max(1)));
    }
}

/// The number of seconds after midnight at which this host reports. `within` are the first and the
/// last possible number.
fn offset(hostname: &str, within: (u64, u64)) -> u64 {
    // The hash is the same in every process of this build, which is enough to spread hosts.
    let mut hasher = DefaultHasher::new();
    hostname.hash(&mut hasher);
    within.0 + hasher.finish() % (within.1 - within.0)
}

/// The last day whose reports are due at the time `now`, in days since 1970, and the number of
/// seconds until the reports of the next day are due.
fn last_day(now: u64, offset: u64) -> (u64, u64) {
    let since = now.saturating_sub(offset);
    ((since / DAY).saturating_sub(1), DAY - since % DAY)
}

/// Returns the origin of a report to an address: `elsewhere` for an address of another host. The mail
/// hosts may have other addresses when the report is delivered, and such an origin makes the delivery
/// use only public addresses.
///
/// # Errors
/// If the mail hosts of another host's address are not known, or not all in the Internet. Strangers
/// choose these addresses.
fn origin(settings: &Settings, lookup: &Until<'_>, to: &Address, elsewhere: Origin) -> Result<Origin, String> {
    match settings.router.class_of(to.domain()) {
        DomainClass::Elsewhere if has_public_hosts(lookup, to.domain()) => Ok(elsewhere),
        DomainClass::Elsewhere => Err(format!("{} has no mail host in the Internet", to.domain())),
        _ => Ok(Origin::Client),
    }
}

/// Signs a report, and puts it into the spool. `author` is the address in From.
fn store(
    mut draft: Draft,
    settings: &Settings,
    (author, to): (&Address, &Address),
    text: &str,
    envelope: Envelope,
) -> io::Result<EntryName> {
    let router = &settings.router;
    let envelope =
        Envelope { sender: Some(router.qualify(author)), recipients: router.recipients_of_own(to), ..envelope };
    #[cfg(feature = "mailauth")]
    let signatures = settings.keys.sign_report(author.domain(), text.as_bytes(), sys::now());
    #[cfg(not(feature = "mailauth"))]
    let signatures = String::new();
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
            assert!((60..1800).contains(&offset(hostname, (60, 1800))));
        }
    }
}
