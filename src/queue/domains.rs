//! The domains of recipients, by which a person names what is to be tried now.
//!
//! A job keeps those that the name of its destination does not say; each name is
//! in memory once, however many messages wait for it, and goes with the last.

use std::collections::HashSet;
use std::sync::Arc;

/// Names of domains, each kept once for all the messages to it.
#[derive(Default)]
pub struct Domains(HashSet<Arc<str>>);

impl Domains {
    /// The one name of a domain.
    pub fn share(&mut self, domain: Box<str>) -> Arc<str> {
        if let Some(known) = self.0.get(&*domain) {
            return Arc::clone(known);
        }
        let domain: Arc<str> = domain.into();
        self.0.insert(Arc::clone(&domain));
        domain
    }

    /// Gives back what was shared.
    pub fn release(&mut self, domains: Box<[Arc<str>]>) {
        for domain in domains {
            // This one and the set's own.
            if Arc::strong_count(&domain) <= 2 {
                self.0.remove(&domain);
            }
        }
    }
}

/// Whether a destination is the mail exchangers of a domain: `mx:example.org`.
pub fn names(key: &str, domain: &str) -> bool {
    key.strip_prefix("mx:").and_then(|name| name.split(':').next()) == Some(domain)
}
