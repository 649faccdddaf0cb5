//! What an attempt aims at: a destination, and how this host connects to it.

use std::sync::Arc;

use super::addresses::{Addresses, Admission, Permit, Share};
use super::progress::Progress;
use crate::config::Config;
use crate::destination::{Destination, HostTarget, Peer};
use crate::envelope::MessageTls;
use crate::net;
use crate::outcome::Outcome;
use crate::outgoing::{Rules, Way};
use crate::tls_policy::TlsPolicy;

/// What an attempt knows about its destination.
#[derive(Clone, Copy)]
pub struct Aim<'a> {
    pub destination: &'a Arc<Destination>,
    pub target: &'a HostTarget,
    /// How this host connects.
    pub way: &'a Way,
    /// The maximum number of connections to an address.
    pub max_connections: usize,
    /// The lower limit that a line of the table of outgoing mail sets.
    pub limit: Option<usize>,
}

/// An address that an attempt connects to.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    pub target: &'a HostTarget,
    pub peer: &'a Peer,
    pub way: &'a Way,
    pub policy: &'a TlsPolicy,
    /// What the message demands of TLS.
    pub message: MessageTls,
    /// Whether the host is known to be one of the destination (see [`crate::tls_policy::DomainPolicy::is_known`]).
    pub is_known: bool,
}

impl<'a> Aim<'a> {
    /// Aims at the hosts of `target` in this way, as these rules say.
    pub fn new(
        destination: &'a Arc<Destination>,
        target: &'a HostTarget,
        way: &'a Way,
        (rules, config): (&Rules, &Config),
    ) -> Self {
        let max_connections = config.queue.workers_per_destination;
        let limit = rules.limits.connections.filter(|limit| *limit < max_connections);
        Self { destination, target, way, max_connections, limit }
    }

    /// The connections that count towards the lower limit.
    pub fn share(self) -> Option<Share> {
        let sender = self.destination.sender();
        self.limit.map(|limit| Share { sender: sender.map(str::to_owned), limit })
    }

    /// The permit to connect to an address; `None` if the address is down or at its limit, or if this
    /// host does not have the address from which it should connect.
    pub fn permit(self, addresses: &Arc<Addresses>, peer: &Peer, progress: &mut Progress<'_>) -> Option<Permit> {
        let source = peer.endpoint.ip().and_then(|ip| self.way.source_for(ip));
        if let Some(Err(error)) = source.map(net::check_source) {
            progress.note_misconfigured(error.to_string());
            return None;
        }
        let admission = if progress.delivery.is_question() {
            addresses.ask_for_question(&peer.endpoint, source)
        } else {
            addresses.ask(&peer.endpoint, source, (self.max_connections, self.share()))
        };
        match admission {
            Admission::Granted(permit) => return Some(permit),
            Admission::AtLimit => progress.at_limit = Some(peer.endpoint.clone()),
            Admission::Down(why) => {
                progress.note_no_host(Outcome { why: format!("not tried again yet: {}", why.why), ..*why });
            }
        }
        None
    }
}
