//! Reads the tables `[[filter]]` of penfold.conf(5), which name the mail filters and policy
//! services that are asked about mail.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::document::Section;
use super::values;
use crate::endpoint::Endpoint;

/// A program that is asked about mail, over a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The socket on which the program listens.
    pub socket: Endpoint,
    /// The protocol that the program speaks.
    pub protocol: FilterProtocol,
    /// The clients whose mail the program sees.
    pub groups: Vec<FilterGroup>,
    /// What happens to mail while the program fails.
    pub on_failure: OnFailure,
    /// The time within which the program must answer a command.
    pub timeout: Duration,
}

/// The protocol of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterProtocol {
    /// The protocol of Sendmail's libmilter.
    Milter,
    /// The policy delegation protocol of Postfix.
    Policy,
}

/// The clients whose mail a filter sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterGroup {
    /// Clients that may not relay.
    Strangers,
    /// Authenticated clients, clients in `relay.networks`, and clients of submission listeners.
    Submission,
    /// Programs on this host, through sendmail(8).
    Local,
}

/// What happens to mail if a filter fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The mail is treated as if there were no such filter.
    Accept,
    /// The mail gets a temporary refusal.
    Defer,
}

/// The default of `filter.timeout`.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Reads one `[[filter]]` table. Returns `None` if the table cannot be used.
pub(super) fn filter(mut section: Section<'_, '_>) -> Option<Filter> {
    let socket = section.take("socket", endpoint);
    if !section.gives("socket") {
        section.error("socket", "missing; expected a socket, such as \"unix:/run/rspamd/milter.sock\"");
    }
    let protocol = match section.take("protocol", values::word(&["milter", "policy"])) {
        Some("policy") => FilterProtocol::Policy,
        _ => FilterProtocol::Milter,
    };
    let default = match protocol {
        FilterProtocol::Milter => vec![FilterGroup::Strangers, FilterGroup::Submission, FilterGroup::Local],
        FilterProtocol::Policy => vec![FilterGroup::Strangers],
    };
    let groups = section.take_all("for", group).unwrap_or(default);
    let on_failure = match section.take("on_failure", values::word(&["accept", "defer"])) {
        Some("accept") => OnFailure::Accept,
        _ => OnFailure::Defer,
    };
    let timeout = section.take("timeout", values::duration).unwrap_or(TIMEOUT);
    if !cfg!(feature = "filters") {
        section.error("socket", "this penfold was built without the feature \"filters\"");
    }
    section.finish();
    socket.map(|socket| Filter { socket, protocol, groups, on_failure, timeout })
}

fn group(value: &DeValue<'_>) -> Result<FilterGroup, String> {
    values::word(&["strangers", "submission", "local"])(value).map(|word| match word {
        "strangers" => FilterGroup::Strangers,
        "submission" => FilterGroup::Submission,
        _ => FilterGroup::Local,
    })
}

/// Reads `unix:/path` or `inet:address:port`.
fn endpoint(value: &DeValue<'_>) -> Result<Endpoint, String> {
    const WANTED: &str = "expected \"unix:\" and an absolute path, or \"inet:\" with an IP address and a port, \
                          such as \"unix:/run/rspamd/milter.sock\" or \"inet:127.0.0.1:11332\"";
    let text = value.as_str().unwrap_or_default();
    let found = match text.split_once(':') {
        Some(("unix", path)) => {
            let is_path = path.starts_with('/') && path.len() < MAX_PATH && !path.contains(char::is_control);
            is_path.then(|| Endpoint::Unix(Arc::from(Path::new(path))))
        }
        Some(("inet", address)) => internet(address).map(Endpoint::Tcp),
        _ => None,
    };
    found.ok_or_else(|| WANTED.to_owned())
}

/// The maximum length of the path of a Unix socket, with the final NUL (unix(7)).
const MAX_PATH: usize = 108;

fn internet(text: &str) -> Option<SocketAddr> {
    let address = match text.strip_prefix("localhost:") {
        Some(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?),
        None => text.parse().ok()?,
    };
    (address.port() != 0).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_an_address() {
        let read = |text: &str| endpoint(&DeValue::String(text.into())).map(|socket| socket.to_string());
        for (text, want) in [
            ("unix:/run/rspamd/milter.sock", "/run/rspamd/milter.sock"),
            ("inet:127.0.0.1:11332", "127.0.0.1:11332"),
            ("inet:[::1]:8891", "[::1]:8891"),
            ("inet:localhost:8891", "127.0.0.1:8891"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(want), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(MAX_PATH));
        for text in [
            "",
            "unix:",
            "unix:run/x",
            "unix:/a\0b",
            "inet:127.0.0.1",
            "inet:127.0.0.1:0",
            "inet:127.0.0.1:70000",
            "inet:rspamd:11332",
            "tcp:127.0.0.1:1",
            "/run/x",
            &long,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
