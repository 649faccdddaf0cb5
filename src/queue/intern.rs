//! The names of destinations and domains: each is in memory once, however many
//! messages wait for it, and goes with the last.
//!
//! What has the same name has the same pointer, so that a search through the whole
//! queue compares no text.

use std::collections::HashMap;
use std::sync::Arc;

use super::event::Key;
use super::thin_out;

/// Interner, and how many jobs have each.
#[derive(Default)]
pub struct Interner(HashMap<Key, u32>);

impl Interner {
    /// The one copy of a name, for one job more.
    pub fn share(&mut self, name: &str) -> Key {
        let name = self.find(name).unwrap_or_else(|| name.into());
        *self.0.entry(Arc::clone(&name)).or_default() += 1;
        name
    }

    /// Gives back what a job shared.
    pub fn release(&mut self, name: &Key) {
        let Some(count) = self.0.get_mut(name) else { return };
        *count -= 1;
        if *count == 0 {
            self.0.remove(name);
            thin_out(&mut self.0);
        }
    }

    /// The one copy of a name that some job has.
    pub fn find(&self, name: &str) -> Option<Key> {
        self.0.get_key_value(name).map(|(name, _)| Arc::clone(name))
    }
}

/// The destination that is the mail exchangers of a domain, at the port of SMTP.
pub fn exchangers(domain: &str) -> String {
    format!("mx:{domain}")
}

/// Whether a destination is [`exchangers`] of a domain.
pub fn is_exchangers(key: &str, domain: &str) -> bool {
    key.strip_prefix("mx:") == Some(domain)
}

/// Whether a destination is hosts that the configuration names, and one has this name.
pub fn names_host(key: &str, name: &str) -> bool {
    let mut hosts = key.strip_prefix("host:").into_iter().flat_map(|hosts| hosts.split(','));
    hosts.any(|host| {
        let host = host.rsplit_once("//").map_or(host, |(_, host)| host);
        host.rsplit_once(':').is_some_and(|(host, _)| host == name)
    })
}

/// The domain of the exchangers of which a destination is another port.
pub fn at_port(key: &str) -> Option<&str> {
    key.strip_prefix("mx:")?.split_once(':').map(|(domain, _)| domain)
}
