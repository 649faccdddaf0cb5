//! The store that the configuration names.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::secrets::Secrets;
use crate::config::{StorePlace, StoreUrl};
use crate::dns::Dns;
use crate::endpoint::Endpoint;
use crate::tls::Client;

/// The maximum number of addresses that are tried.
const MAX_ADDRESSES: usize = 4;
/// A store, and how to connect to it.
#[derive(Debug)]
pub struct Target {
    /// The URL, for people.
    pub url: String,
    place: StorePlace,
    /// The authorities for TLS, and the name for which the certificate must be valid; `None` for no
    /// TLS.
    pub tls: Option<(Client, String)>,
    /// The user name.
    pub user: Option<String>,
    /// The number of the database.
    pub database: u32,
    /// The files with the password and the secret of the hosts.
    pub secrets: Option<Arc<Secrets>>,
}

impl Target {
    /// A store at this URL.
    pub fn new(url: &StoreUrl, tls: &Client, secrets: Option<Arc<Secrets>>) -> Self {
        let name = match &url.place {
            StorePlace::Tls(host) => Some((tls.clone(), host.host.clone())),
            StorePlace::Host(_) | StorePlace::Socket(_) => None,
        };
        let (user, database) = (url.user.clone(), url.database);
        Self { url: url.to_string(), place: url.place.clone(), tls: name, user, database, secrets }
    }

    /// Looks up the addresses at which the store listens.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn endpoints(&self, dns: &Dns) -> Result<Vec<Endpoint>, String> {
        let (StorePlace::Host(host) | StorePlace::Tls(host)) = &self.place else {
            let StorePlace::Socket(path) = &self.place else { return Err("no address".to_owned()) };
            return Ok(vec![Endpoint::Unix(Arc::clone(path))]);
        };
        let all = match host.host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => dns.addresses(&host.host).map_err(|error| format!("{}: {error}", host.host))?,
        };
        let endpoint = |address: IpAddr| Endpoint::Tcp(SocketAddr::new(address.to_canonical(), host.port));
        Ok(all.into_iter().take(MAX_ADDRESSES).map(endpoint).collect())
    }
}
