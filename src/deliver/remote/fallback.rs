//! Tries the fallback hosts (`remote.fallback`), if all hosts of a destination could not be reached or
//! have answered temporarily.
//!
//! The fallback hosts do not get mail that a host has rejected, mail for a mail store, mail whose
//! connection could not be encrypted as its policy demands, and mail that waits for a mistake in the
//! configuration to be corrected. Mail that has come back to this host does not fall back again: hosts
//! may be each other's fallback. A fallback host that is this host itself
//! is left out. The connection is not kept, so that the next message asks the hosts of the
//! destination first.

use std::io::{self, Read};
use std::sync::Arc;

use super::aim::Aim;
use super::progress::Progress;
use super::{RemoteDelivery, RemoteSettings};
use crate::activity;
use crate::address::Address;
use crate::config::Remote;
use crate::deliver::Delivery;
use crate::deliver::remote::credentials::Credentials;
use crate::destination::{Destination, HostTarget};
use crate::message::trace;

/// The maximum number of bytes that are read to find the trace fields of a message.
const MAX_FRONT: u64 = 128 << 10;

/// Returns the fallback hosts for a message to a destination, with the account of the message's
/// sender; `None` if there are none.
pub fn fallback_of(
    config: &Remote,
    credentials: Option<&Credentials>,
    target: &HostTarget,
    sender: Option<&Address>,
) -> Option<HostTarget> {
    let hosts = &config.fallback;
    if hosts.is_empty() || matches!(target, HostTarget::Store(_)) {
        return None;
    }
    let account = credentials.zip(sender).and_then(|(credentials, sender)| credentials.account(hosts, sender));
    Some(HostTarget::Hosts { hosts: hosts.as_slice().into(), account })
}

/// Whether the message has come back to this host from another host.
fn has_come_back(delivery: &Delivery<'_>, hostname: &str) -> io::Result<bool> {
    let mut front = Vec::new();
    delivery.content.without_front().take(MAX_FRONT).read_to_end(&mut front)?;
    Ok(trace::has_come_back(&front, hostname))
}

impl RemoteDelivery {
    /// Tries the fallback hosts for the recipients whose mail the hosts of the destination have not
    /// taken.
    pub(super) fn fall_back(
        &mut self,
        settings: RemoteSettings<'_>,
        destination: &Arc<Destination>,
        target: &HostTarget,
        progress: &mut Progress<'_>,
    ) {
        if !progress.may_fall_back() {
            return;
        }
        let config = &settings.config.remote;
        let sender = progress.delivery.sender.filter(|_| progress.delivery.may_use_account);
        let Some(target) = fallback_of(config, Some(settings.credentials), target, sender) else { return };
        // If the message cannot be read, it waits.
        if has_come_back(progress.delivery, &settings.config.hostname).unwrap_or(true) {
            let id = progress.delivery.id;
            ::log::info!("{id}: the fallback hosts are not tried: the message has come back to this host");
            return;
        }
        let Ok((groups, _)) = target.groups(&self.outbound.dns, &settings.config.hostname, config.dane) else { return };
        let rules = settings.outgoing.rules(&target, destination.sender());
        let Ok(way) = &rules.way else { return };
        let aim = Aim::new(destination, &target, way, (&rules, settings.config));
        activity::enter("looking up the fallback hosts");
        progress.begin_fallback();
        let domain = settings.rules().of_domain(&target);
        for group in groups {
            let mut found = target.look_up(&self.outbound.dns, &group, &self.outbound.local, config.dane);
            if let Some(outcome) = found.failure {
                progress.note_no_host(outcome);
            }
            if found.is_this_host {
                continue;
            }
            if let Err(outcome) = target.keep_usable_by(way, &group, &mut found.peers) {
                progress.note_no_host(outcome);
            }
            for peer in found.peers {
                if progress.is_over() {
                    break;
                }
                if progress.may_try(&peer) {
                    // A host that turns out to be this host is left out, too.
                    self.try_host(settings, aim, (&domain, &peer), progress);
                }
            }
        }
        self.close();
    }
}
