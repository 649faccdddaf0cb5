//! What the numbers of the last days say about connections from and to the outside.

use std::net::IpAddr;

use crate::address::Address;
use crate::config::Config;
use crate::dns::is_public;
use crate::route::Router;
use crate::spool::Spool;
use crate::state::State;
use crate::stats::{self, Counts, Family};
use crate::sys;

/// The number of days whose numbers are used.
pub const DAYS: u64 = 7;

/// What has happened in the last days. The numbers are those that the daemon has saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// A client elsewhere from which mail has come, as the log names it.
    pub client: Option<String>,
    /// A domain to whose host mail has gone.
    pub domain: Option<String>,
}

impl Past {
    /// Reads the numbers in the spool.
    pub fn read(config: &Config, router: Option<&Router>) -> Self {
        let Ok(spool) = Spool::open_read_only(&config.spool) else { return Self::default() };
        let (state, now) = (State::at(&spool.state_directory()), sys::now());
        let (counts, _) = stats::read(&state, (now.saturating_sub(DAYS * 86_400), now + 1), now);
        // A host that a route names, or a smart host, is perhaps a neighbour.
        let is_routed = |domain: &str| {
            let address = Address::parse(&format!("postmaster@{domain}")).ok();
            address.zip(router).is_none_or(|(address, router)| router.has_route(&address))
        };
        Self::of(config, &counts, &is_routed)
    }

    fn of(config: &Config, counts: &Counts, is_routed: &dyn Fn(&str) -> bool) -> Self {
        let is_elsewhere = |client: &&str| {
            address(client).is_some_and(|address| {
                is_public(address) && !config.relay.networks.iter().any(|network| network.contains(address))
            })
        };
        let is_of_others = |domain: &&str| {
            domain.contains('.') && !config.relay.domains.iter().any(|own| own == domain) && !is_routed(domain)
        };
        let first = |family, is_one: &dyn Fn(&&str) -> bool| {
            let (all, _) = counts.top(family, usize::MAX);
            all.into_iter().map(|(label, _)| label).find(|label| is_one(label)).map(str::to_owned)
        };
        Self { client: first(Family::Client, &is_elsewhere), domain: first(Family::SentTo, &is_of_others) }
    }
}

/// The address of a client, which the log names `name[address]`.
fn address(client: &str) -> Option<IpAddr> {
    client.strip_suffix(']')?.rsplit_once('[')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_from_and_to_others_shows_that_the_ports_are_open() {
        let config = Config {
            relay: crate::config::Relay { domains: vec!["b.example".into()], ..crate::config::default().relay },
            ..crate::config::default()
        };
        let past = |clients: &[&str], domains: &[&str]| {
            let mut counts = Counts::default();
            clients.iter().for_each(|client| counts.add(Family::Client, client, 1));
            domains.iter().for_each(|domain| counts.add(Family::SentTo, domain, 1));
            Past::of(&config, &counts, &|domain| domain == "routed.example")
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            past(&["localhost[127.0.0.1]", "[10.0.0.1]", "others", "x]"], &["b.example", "others", "routed.example"]),
            Past::default()
        );
        let found = past(&["[10.0.0.1]", "mx.a.example[192.0.2.7]"], &["b.example", "a.example", "routed.example"]);
        assert_eq!(found, Past { client: some("mx.a.example[192.0.2.7]"), domain: some("a.example") });
    }
}
