//! Logs warnings about addresses from which this host cannot connect to others.

use std::net::IpAddr;

use crate::config::ConfigError;
use crate::net::check_source;
use crate::site::Settings;

/// Logs a warning for each source address that this host does not have.
pub fn log_all(settings: &Settings) {
    let places = &settings.config.places;
    for address in settings.config.remote.source.all() {
        warn(&places.at("remote.source"), address);
    }
    let outgoing = &settings.outgoing;
    for source in outgoing.sources() {
        warn(&ConfigError::new(outgoing.path(), source.line, 1, "").to_string(), source.address);
    }
}

fn warn(at: &str, address: IpAddr) {
    if let Err(error) = check_source(address) {
        ::log::warn!("{at}{error}: mail waits");
    }
}
