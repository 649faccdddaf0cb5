//! The certificates that this host shows: their names and their times.

use super::finding::{Finding, Level, Topic};
use crate::config::{Config, Kind, ListenTls};
use crate::tls::Server;

/// The time before the expiry of a certificate at which it should have been renewed, in seconds.
const NOTICE: i64 = 14 * DAY;
const DAY: i64 = 86_400;

/// Checks the certificates. `exchangers` are the names of mail exchangers that are this host.
pub fn check(config: &Config, server: Option<&Server>, exchangers: &[String], now: i64) -> Vec<Finding> {
    let is_shown = config.listen.iter().any(|listen| listen.tls != ListenTls::None);
    let is_open = |listen: &crate::config::Listen| {
        listen.kind == Kind::Smtp && listen.tcp().is_some_and(|address| !address.ip().to_canonical().is_loopback())
    };
    let make = |level, text: String| Finding::new(level, Topic::Tls, text);
    let Some(server) = server else {
        if !config.listen.iter().any(is_open) {
            return Vec::new();
        }
        let text = "there is no certificate: mail from other hosts comes in plaintext".to_owned();
        return vec![
            make(Level::Warning, text).at(config.places.complaint("tls", "")).advise("see [tls] in penfold.conf(5)"),
        ];
    };
    let mut findings: Vec<Finding> =
        server.validity().into_iter().map(|(file, times)| of_times(&file.display().to_string(), times, now)).collect();
    for name in exchangers.iter().filter(|name| is_shown && **name != config.hostname) {
        let place = config.places.complaint("tls[0].certificate", "");
        findings.push(match server.is_for(name) {
            true => make(Level::Good, format!("there is a certificate for the mail exchanger {name}")),
            false => {
                make(Level::Warning, format!("no certificate is for {name}, the name of this host as a mail exchanger"))
                    .at(place)
                    .advise("hosts that verify the name refuse to send mail here; get a certificate with this name")
            }
        });
    }
    findings
}

/// The finding about the times of a certificate: its start and its expiry, in seconds since 1970.
fn of_times(file: &str, times: Option<(i64, i64)>, now: i64) -> Finding {
    let make = |level, text: String| Finding::new(level, Topic::Tls, format!("{file}: {text}"));
    let Some((start, end)) = times else {
        return make(Level::Unknown, "the times of the certificate cannot be read".to_owned());
    };
    let days = (end - now) / DAY;
    if now >= end {
        make(Level::Error, "the certificate has expired".to_owned()).advise("renew it; no restart is needed")
    } else if now < start {
        make(Level::Error, "the certificate is not valid yet".to_owned()).advise("check the clock")
    } else if end - now < NOTICE {
        make(Level::Warning, format!("the certificate expires in {days} days")).advise("see why it was not renewed")
    } else {
        make(Level::Good, format!("the certificate is valid for {days} days"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_certificate_are_judged() {
        let now = 1000 * DAY;
        for (times, level, text) in [
            (Some((0, now)), Level::Error, "has expired"),
            (Some((now + 1, now + 90 * DAY)), Level::Error, "not valid yet"),
            (Some((now, now + 3 * DAY)), Level::Warning, "expires in 3 days"),
            (Some((now, now + 60 * DAY)), Level::Good, "valid for 60 days"),
            (None, Level::Unknown, "cannot be read"),
        ] {
            let finding = of_times("/c.pem", times, now);
            assert!(finding.level == level && finding.at.text.contains(text), "{finding}");
        }
    }
}
