//! Warns of a password for the shared store that goes over a network in clear.

use std::net::IpAddr;

use crate::config::StorePlace;
use crate::site::Settings;

/// Warns if there is a password, and a store on another host without TLS.
pub fn log_all(settings: &Settings) {
    let Some(store) = &settings.config.shared.store else { return };
    let has_password = settings.shared_secrets.as_ref().is_some_and(|secrets| secrets.password().is_some());
    if has_password && is_in_clear(&store.place) {
        let at = settings.config.places.at("shared.store");
        ::log::warn!(
            "{at}shared.store: the password goes to {store} in clear; use rediss://, or a Unix socket on this host"
        );
    }
}

/// Whether others on the way to the store can read along. Names are not looked up.
fn is_in_clear(place: &StorePlace) -> bool {
    let StorePlace::Host(host) = place else { return false };
    match host.host.parse::<IpAddr>() {
        Ok(address) => !address.to_canonical().is_loopback(),
        Err(_) => host.host != "localhost" && !host.host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreUrl;

    #[test]
    fn only_a_store_on_another_host_without_tls_is_in_clear() {
        for (url, want) in [
            ("redis://192.0.2.6", true),
            ("redis://[2001:db8::1]:7000", true),
            ("redis://store.example", true),
            ("redis://localhost", false),
            ("redis://127.0.0.1:7000", false),
            ("redis://[::1]", false),
            ("redis://[::ffff:127.0.0.1]", false),
            ("rediss://192.0.2.6", false),
            ("unix:/run/redis/redis.sock", false),
        ] {
            assert_eq!(is_in_clear(&StoreUrl::parse(url).expect("a URL").place), want, "{url}");
        }
    }
}
