//! Logs warnings about the table of outgoing mail: addresses from which this host cannot connect to
//! others, and limits that apply to no mail.

use std::net::IpAddr;

use crate::config::ConfigError;
use crate::net::check_source;
use crate::site::Settings;

/// Logs a warning for each source address that this host does not have, and for each rate or pause of
/// a fallback host.
pub fn log_all(settings: &Settings) {
    let places = &settings.config.places;
    for address in settings.config.remote.source.all() {
        warn(&places.at("remote.source"), address);
    }
    let outgoing = &settings.outgoing;
    for source in outgoing.sources() {
        warn(&ConfigError::new(outgoing.path(), source.line, 1, "").to_string(), source.address);
    }
    for (line, host) in outgoing.paced_keys() {
        if settings.router.names_only_fallback(&host) {
            let at = ConfigError::new(outgoing.path(), line, 1, "");
            ::log::warn!("{at}rate and pause do not apply to {host}, which only remote.fallback names");
        }
    }
}

fn warn(at: &str, address: IpAddr) {
    if let Err(error) = check_source(address) {
        ::log::warn!("{at}{error}: mail waits");
    }
}
