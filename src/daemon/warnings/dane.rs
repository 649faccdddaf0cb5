//! Logs why hosts are not verified by their TLSA records, if they are not.
//!
//! A thread of its own finds out, because a name server may be slow, and neither a start nor a reload
//! waits for it. A look-up of the root zone shows whether trusted name servers verify DNSSEC. If it
//! fails, nothing is logged: deliveries will fail, too, and say why.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::{self, Remote, RemoteTls};
use crate::dns::Dns;
use crate::site::Site;

/// Whether hosts are verified by their TLSA records, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    On,
    Off(String),
}

/// The thread that checks whether DANE is on.
pub struct DaneCheck(Option<Sender<()>>);

impl DaneCheck {
    /// Starts the thread, which checks at once. Without the thread the server works as well. `settings`
    /// are those of the look-ups: a reload does not change them.
    pub fn start(site: Arc<Site>, settings: config::Dns) -> Self {
        let (sender, receiver) = bounded(1);
        let started = thread::Builder::new().name("dane".to_owned()).spawn(move || run(&site, &settings, &receiver));
        let check = Self(started.is_ok().then_some(sender));
        check.again();
        check
    }

    /// Checks again, and logs the result if it differs from that of the last time.
    pub fn again(&self) {
        // If the channel is full, a check of the settings now in force is still to come.
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(());
        }
    }
}

fn run(site: &Site, settings: &config::Dns, asked: &Receiver<()>) {
    // A start says nothing if DANE is on.
    let mut last = State::On;
    for () in asked {
        let remote = &site.settings().config.remote;
        let Some(state) = state(remote, settings, &site.dns).filter(|state| *state != last) else { continue };
        match &state {
            State::On => ::log::info!("DANE is on"),
            State::Off(why) => ::log::info!("DANE is off: {why}"),
        }
        last = state;
    }
}

/// Returns the state, or `None` if it is unknown, or if nothing is sent to other hosts.
fn state(remote: &Remote, settings: &config::Dns, dns: &Dns) -> Option<State> {
    let off = |why: &str| Some(State::Off(why.to_owned()));
    let servers = dns.servers_in_use();
    if remote.local_only {
        None
    } else if !remote.dane {
        off("remote.dane is false")
    } else if remote.tls == RemoteTls::None {
        off("remote.tls is \"none\"")
    } else if settings.trusts(&servers) {
        match dns.verifies_dnssec() {
            Ok(true) => Some(State::On),
            Ok(false) => off(&format!("the name servers do not verify DNSSEC: {}", listed(servers.iter()))),
            Err(_) => None,
        }
    } else if settings.trust_ad == Some(false) {
        off("dns.trust_ad is false")
    } else {
        let others = listed(servers.iter().filter(|server| !server.ip().to_canonical().is_loopback()));
        off(&format!("dns.trust_ad is \"loopback\", and name servers are not on this host: {others}"))
    }
}

fn listed<'a>(servers: impl Iterator<Item = &'a SocketAddr>) -> String {
    servers.map(|server| server.ip().to_canonical().to_string()).collect::<Vec<_>>().join(", ")
}
