//! Parses the values of the configuration's keys.
//!
//! A parser takes a TOML value and returns the checked value, or a text that says what it expected.
//! No parser depends on another key or on the network. Only [`check_exists`] accesses the file
//! system.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::defaults::{HISTORY_SIZE, MAX_DURATION, MESSAGE_SIZE, QUOTA, RECIPIENTS};
use super::{Auth, EXPECTED_STORE, HostPort, LogTo, MailboxTemplate, Network, Scheme, Store, Users};
use crate::address::{Address, parse_dns_name, parse_domain};
use crate::endpoint::Endpoint;

/// The length at which the path of a socket no longer fits into the system's structure for it.
const MAX_SOCKET_PATH: usize = 108;

/// A value, or the text that says what was expected in its place.
type Read<T> = Result<T, String>;

/// Reads a duration with a unit, such as `5m`.
pub(super) fn duration(value: &DeValue<'_>) -> Read<Duration> {
    let duration =
        expect(value.as_str().and_then(parse_duration), "a duration with a unit, such as \"30s\", \"5m\" or \"4d\"")?;
    if duration.is_zero() || duration > MAX_DURATION {
        return Err("expected a duration of more than 0 and at most 365d".to_owned());
    }
    Ok(duration)
}

/// Reads a duration of whole seconds.
pub(super) fn seconds(value: &DeValue<'_>) -> Read<Duration> {
    let duration = duration(value)?;
    if duration.subsec_millis() == 0 { Ok(duration) } else { Err("expected whole seconds".to_owned()) }
}

/// Reads a duration of whole seconds, or `"0"`.
pub(super) fn seconds_or_never(value: &DeValue<'_>) -> Read<Duration> {
    if value.as_str() == Some("0") { Ok(Duration::ZERO) } else { seconds(value) }
}

/// Parses a duration with a unit, such as `5m`; `None` if it is malformed.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        "w" => 7 * 24 * 3600 * 1000,
        _ => return None,
    };
    Some(Duration::from_millis(number.saturating_mul(milliseconds)))
}

/// Reads the size of the history, and returns it in octets. `"0"` means no history.
pub(super) fn history_size(value: &DeValue<'_>) -> Read<u64> {
    let size = match value {
        DeValue::String(text) => parse_size(text),
        other => integer(other),
    };
    let size = expect(size, "a size, such as \"64M\" or \"1G\", or \"0\" for no history")?;
    if size != 0 && !HISTORY_SIZE.contains(&size) {
        return Err("expected a size of at least 1M and at most 2G, or \"0\" for no history".to_owned());
    }
    Ok(size)
}

/// Reads the size of a message, and returns it in octets.
pub(super) fn message_size(value: &DeValue<'_>) -> Read<u64> {
    let size = match value {
        DeValue::String(text) => parse_size(text),
        other => integer(other),
    };
    let size = expect(size, "a size, such as \"50M\", \"800K\" or \"1G\"")?;
    if !MESSAGE_SIZE.contains(&size) {
        return Err("expected a size of at least 64K (RFC 5321 4.5.3.1.7) and at most 1024G".to_owned());
    }
    Ok(size)
}

/// Reads the quota of a mailbox, in bytes; `None` for no limit.
pub(super) fn quota(value: &DeValue<'_>) -> Read<Option<u64>> {
    match value {
        DeValue::String(text) => parse_quota(text),
        other => parse_quota(&integer(other).map(|number| number.to_string()).unwrap_or_default()),
    }
}

/// Parses the quota of a mailbox, such as `1G`, in bytes; `None` for no limit.
///
/// # Errors
/// The text that says what was expected.
pub fn parse_quota(text: &str) -> Result<Option<u64>, String> {
    if text == "none" {
        return Ok(None);
    }
    let size = expect(parse_size(text), "a size, such as \"500M\" or \"1G\", or \"none\"")?;
    if QUOTA.contains(&size) {
        Ok(Some(size))
    } else {
        Err("expected a size of at least 64K and at most 65536G".to_owned())
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let octets: u64 = match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    Some(number.saturating_mul(octets))
}

/// Splits a text such as `15m` into its number and its unit. A number that is too large becomes
/// `u64::MAX`.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    (!number.is_empty()).then(|| (number.parse().unwrap_or(u64::MAX), unit))
}

/// Reads a whole number within bounds.
pub(super) fn count(bounds: RangeInclusive<usize>) -> impl Fn(&DeValue<'_>) -> Read<usize> {
    move |value| {
        let number = integer(value).and_then(|number| usize::try_from(number).ok());
        let wanted = || format!("expected a whole number from {} to {}", bounds.start(), bounds.end());
        number.filter(|number| bounds.contains(number)).ok_or_else(wanted)
    }
}

/// Reads the maximum number of recipients of a message.
pub(super) fn recipients(value: &DeValue<'_>) -> Read<usize> {
    count(RECIPIENTS)(value).map_err(|wanted| wanted + " (RFC 5321 4.5.3.1.8 asks for 100)")
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    value.as_integer().and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok())
}

/// Reads a word, which must be one of `words`.
pub(super) fn word(words: &'static [&'static str]) -> impl Fn(&DeValue<'_>) -> Read<&'static str> {
    move |value| {
        let word = value.as_str().and_then(|text| words.iter().find(|word| **word == text));
        word.copied().ok_or_else(|| format!("expected \"{}\"", words.join("\" or \"")))
    }
}

/// Reads a word, which must be one of `words`, in upper or lower case. The words are in upper case.
pub(super) fn keyword(words: &'static [&'static str]) -> impl Fn(&DeValue<'_>) -> Read<&'static str> {
    move |value| {
        let given = value.as_str().unwrap_or_default();
        let known = words.iter().find(|word| word.eq_ignore_ascii_case(given));
        known.copied().ok_or_else(|| format!("expected one of {}", words.join(", ")))
    }
}

/// Reads the name of a host, and returns it in lower case.
pub(super) fn host_name(value: &DeValue<'_>) -> Read<String> {
    let name = value.as_str().and_then(name);
    expect(name, "the full name of a host, such as \"mx.example.org\"")
}

/// Reads a domain or an address literal, and returns its canonical form.
pub(super) fn domain(value: &DeValue<'_>) -> Read<String> {
    let domain = value.as_str().and_then(|text| parse_domain(text).ok());
    expect(domain.map(String::from), "a domain, such as \"example.org\" or \"[192.0.2.1]\"")
}

/// Reads a domain, or `.domain` for all domains below it, and returns its canonical form.
pub(super) fn domain_or_below(value: &DeValue<'_>) -> Read<String> {
    let read = |text: &str| match text.strip_prefix('.') {
        Some(domain) => parse_dns_name(domain).map(|domain| format!(".{domain}")),
        None => parse_dns_name(text).map(String::from),
    };
    expect(value.as_str().and_then(read), "a domain, such as \"example.org\", or \".example.org\"")
}

/// Reads a domain name of the DNS, which may have U-labels, and returns its canonical form.
pub(super) fn dns_name(value: &DeValue<'_>) -> Read<String> {
    let name = value.as_str().and_then(parse_dns_name);
    expect(name.map(String::from), "a domain name, such as \"example.org\"")
}

/// Reads a domain; `None` if the text is empty.
pub(super) fn domain_or_none(value: &DeValue<'_>) -> Read<Option<String>> {
    if value.as_str() == Some("") { Ok(None) } else { domain(value).map(Some) }
}

/// Reads the name of this host for other hosts; `None` if the text is empty.
pub(super) fn hello(value: &DeValue<'_>) -> Read<Option<String>> {
    if value.as_str() == Some("") { Ok(None) } else { host_name(value).map(Some) }
}

/// Reads the name of a system user. Whether the user exists is checked when the user is needed.
pub(super) fn user(value: &DeValue<'_>) -> Read<String> {
    let bad = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | '/');
    let name = value.as_str().filter(|name| !name.is_empty() && !name.contains(bad));
    expect(name.map(str::to_owned), "the name of a user, such as \"penfold\"")
}

/// Reads a local name or an address.
pub(super) fn postmaster(value: &DeValue<'_>) -> Read<String> {
    let address = value.as_str().and_then(|text| Address::parse(text).ok());
    expect(
        address.map(|address| address.to_string()),
        "a local name or an address, such as \"root\" or \"me@example.org\"",
    )
}

/// Reads the recipient of mail for unknown addresses, a local name or an address; `None` if the text is
/// empty.
pub(super) fn catch_all(value: &DeValue<'_>) -> Read<Option<String>> {
    if value.as_str() == Some("") { Ok(None) } else { postmaster(value).map(Some) }
}

/// Reads the address that reports to domains come from; `None` if none are sent.
pub(super) fn contact(value: &DeValue<'_>) -> Read<Option<Address>> {
    let text = value.as_str();
    if text == Some("none") {
        return Ok(None);
    }
    let address = text.and_then(|text| Address::parse(text).ok()).filter(|address| !address.domain().is_empty());
    expect(address.map(Some), "\"none\" or an address, such as \"reports@example.org\"")
}

/// Reads the separator between user and detail; `None` if the text is empty.
pub(super) fn separator(value: &DeValue<'_>) -> Read<Option<char>> {
    const SEPARATORS: &str = "+-=_.#";
    let mut chars = expect(value.as_str(), "one character in quotes, such as \"+\"")?.chars();
    match (chars.next(), chars.next()) {
        (None, _) => Ok(None),
        (Some(one), None) if SEPARATORS.contains(one) => Ok(Some(one)),
        _ => Err(format!("expected one character of {SEPARATORS}, or nothing")),
    }
}

/// Reads the absolute path of a file or directory.
pub(super) fn path(value: &DeValue<'_>) -> Read<PathBuf> {
    expect(value.as_str().and_then(parse_path), "an absolute path, such as \"/var/spool/penfold\"")
}

/// Reads an absolute path. An empty text stands for none.
pub(super) fn path_or_none(value: &DeValue<'_>) -> Read<Option<PathBuf>> {
    let text = value.as_str();
    if text == Some("") {
        return Ok(None);
    }
    expect(text.and_then(parse_path).map(Some), "an absolute path, such as \"/var/spool/penfold-drop\", or \"\"")
}

/// Reads the absolute path of a file that must exist.
pub(super) fn existing_file(value: &DeValue<'_>) -> Read<PathBuf> {
    let path = expect(value.as_str().and_then(parse_path), "an absolute path, such as \"/etc/aliases\"")?;
    check_exists(&path).map(|()| path)
}

/// Reads the path of a file that must exist; `None` if the text is empty.
pub(super) fn existing_file_or_none(value: &DeValue<'_>) -> Read<Option<PathBuf>> {
    if value.as_str() == Some("") { Ok(None) } else { existing_file(value).map(Some) }
}

/// Reads the absolute path of a directory that must exist. A path that this process may not access
/// is accepted.
pub(super) fn existing_directory(value: &DeValue<'_>) -> Read<PathBuf> {
    let path = expect(value.as_str().and_then(parse_path), "an absolute path, such as \"/etc/penfold/languages\"")?;
    match path.metadata() {
        Ok(metadata) if !metadata.is_dir() => Err(format!("expected a directory; {} is a file", path.display())),
        Err(error) if error.kind() != ErrorKind::PermissionDenied => Err(format!("{}: {error}", path.display())),
        _ => Ok(path),
    }
}

/// Reads the tag of a language (RFC 5646).
pub(super) fn language(value: &DeValue<'_>) -> Read<String> {
    let is_part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    let tag = value.as_str().filter(|tag| tag.len() <= 35 && tag.split('-').all(is_part));
    expect(tag.map(str::to_owned), "the tag of a language, such as \"de\" or \"pt-BR\"")
}

/// Checks that a file exists. A path that this process may not access is accepted, because at a
/// reload perhaps only root can see it. If there is no such file, opening it later fails.
pub(super) fn check_exists(path: &Path) -> Read<()> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Err(format!("expected a file; {} is a directory", path.display())),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(format!("expected a file; {}: {error}", path.display())),
    }
}

/// Reads the source of users. If it is a file, the caller checks with [`check_exists`] that the
/// file exists.
pub(super) fn users(value: &DeValue<'_>) -> Read<Users> {
    let text = value.as_str();
    match text {
        Some("system") => return Ok(Users::System),
        Some("any") => return Ok(Users::Any),
        _ => {}
    }
    let path = |prefix| text.and_then(|text| text.strip_prefix(prefix)).and_then(parse_path);
    let socket = || path("dovecot:").filter(|path| path.as_os_str().len() < MAX_SOCKET_PATH);
    expect(
        path("file:").map(Users::File).or_else(|| socket().map(Users::Dovecot)),
        "\"system\", \"file:\" and an absolute path, such as \"file:/etc/penfold/users\", \
         \"dovecot:/run/dovecot/auth-userdb\" or \"any\"",
    )
}

/// Reads the source of accounts. If it is a file, the caller checks with [`check_exists`] that the
/// file exists.
pub(super) fn auth(value: &DeValue<'_>) -> Read<Auth> {
    let text = value.as_str().unwrap_or_default();
    let path = |prefix| text.strip_prefix(prefix).and_then(parse_path);
    let auth = match text {
        "none" => Some(Auth::None),
        _ => path("file:").map(Auth::File).or_else(|| path("dovecot:").map(Auth::Dovecot)),
    };
    expect(auth, "\"none\", \"file:/etc/penfold/users\" or \"dovecot:/run/dovecot/auth-client\"")
}

/// Reads a boolean.
pub(super) fn flag(value: &DeValue<'_>) -> Read<bool> {
    expect(value.as_bool(), "true or false")
}

/// Reads whether name servers are trusted: a boolean, or `None` if only loopback addresses are.
pub(super) fn trust_ad(value: &DeValue<'_>) -> Read<Option<bool>> {
    match value.as_str() {
        Some("loopback") => Ok(None),
        _ => expect(value.as_bool().map(Some), "\"loopback\", true or false"),
    }
}

/// Reads the destination of the log.
pub(super) fn log_to(value: &DeValue<'_>) -> Read<LogTo> {
    match value.as_str() {
        Some("syslog") => Ok(LogTo::Syslog),
        Some("stderr") => Ok(LogTo::Stderr),
        other => expect(other.and_then(parse_path).map(LogTo::File), "\"syslog\", \"stderr\" or an absolute path"),
    }
}

fn parse_path(text: &str) -> Option<PathBuf> {
    (text.starts_with('/') && !text.contains(char::is_control)).then(|| PathBuf::from(text))
}

/// Reads the template of mailboxes.
pub(super) fn mailbox(value: &DeValue<'_>) -> Read<MailboxTemplate> {
    let text = value.as_str().unwrap_or_default();
    if let Some(store) = Store::parse(text) {
        return store.map(MailboxTemplate::Store);
    }
    let (path, is_mbox) = text.strip_prefix("mbox:").map_or((text, false), |path| (path, true));
    if !path.starts_with('/') && !path.starts_with("~/") {
        return Err(format!(
            "expected a path that begins with \"/\" or \"~/\", such as \"~/Maildir\", or {EXPECTED_STORE}"
        ));
    }
    let plain = path.replace("{user}", "").replace("{domain}", "");
    if plain.contains(['{', '}']) || plain.contains(char::is_control) {
        return Err("expected {user} or {domain} and nothing else in braces".to_owned());
    }
    Ok(if is_mbox { MailboxTemplate::Mbox(path.to_owned()) } else { MailboxTemplate::Maildir(path.to_owned()) })
}

/// Reads an address of this host and a port.
pub(super) fn listen_address(value: &DeValue<'_>) -> Read<Endpoint> {
    let read = |text: &str| match text.strip_prefix("unix:") {
        Some(path) => {
            parse_path(path).filter(|path| path.as_os_str().len() < MAX_SOCKET_PATH).map(|p| Endpoint::Unix(p.into()))
        }
        None => text.parse().ok().map(Endpoint::Tcp),
    };
    let address = value.as_str().and_then(read);
    expect(
        address,
        "an address and a port, such as \"192.0.2.1:25\", \"[::1]:25\" or, for all addresses, \"0.0.0.0:25\"",
    )
}

/// Reads the address of a name server. The default port is 53.
pub(super) fn nameserver(value: &DeValue<'_>) -> Read<SocketAddr> {
    let server = value.as_str().and_then(|text| {
        let alone = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        alone.or_else(|_| text.parse()).ok()
    });
    let server = server.filter(|server: &SocketAddr| server.port() != 0);
    expect(server, "the address of a name server, such as \"192.0.2.53\", \"127.0.0.1:5353\" or \"[::1]:53\"")
}

/// Reads the source of trusted authorities: the path of a file, or `None` for those of the system.
pub(super) fn authorities(value: &DeValue<'_>) -> Read<Option<PathBuf>> {
    match value.as_str() {
        Some("system") => Ok(None),
        other => {
            let path = expect(other.and_then(parse_path), "\"system\" or the absolute path of a file in PEM")?;
            check_exists(&path).map(|()| Some(path))
        }
    }
}

/// Reads the URL of a smart host.
pub(super) fn smarthost(value: &DeValue<'_>) -> Read<HostPort> {
    let host = value.as_str().and_then(HostPort::parse_url);
    expect(host, "\"smtp://host:port\", \"smtp+starttls://host\" or \"smtps://host\", an IPv6 address in brackets")
}

impl HostPort {
    /// Reads a URL: `smtp://`, `smtp+starttls://` or `smtps://`, and then the form of
    /// [`HostPort::parse`]. `smtp://` may be omitted. The default ports of the three schemes are
    /// 25, 587 and 465.
    pub fn parse_url(text: &str) -> Option<Self> {
        let schemes = [
            ("smtp://", Scheme::Smtp, 25),
            ("smtp+starttls://", Scheme::StartTls, 587),
            ("smtps://", Scheme::Smtps, 465),
        ];
        let named = schemes.iter().find_map(|(name, scheme, port)| Some((text.strip_prefix(name)?, *scheme, *port)));
        let (text, scheme, port) = named.unwrap_or((text, Scheme::Smtp, 25));
        Self::parse(text, port).map(|host| Self { scheme, ..host })
    }

    /// Reads `host`, `host:port`, `[address]` or `[address]:port`. An IPv6 address must be in
    /// brackets. Any other text and port 0 give `None`.
    pub fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(inside) => {
                let (address, rest) = inside.split_once(']')?;
                (address.parse::<IpAddr>().ok()?.to_string(), rest)
            }
            None => {
                let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
                (name(host)?, rest)
            }
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) => digits.parse().ok().filter(|port| *port != 0 && !digits.starts_with('+'))?,
            None if rest.is_empty() => default_port,
            None => return None,
        };
        Some(Self { host, port, scheme: Scheme::Smtp })
    }
}

/// Returns the name of a host in lower case, or its IPv4 address; `None` for any other text.
fn name(text: &str) -> Option<String> {
    let name = parse_domain(text).ok().filter(|name| !name.starts_with('['))?;
    // The last label of a name is never all digits (RFC 3696 2): a name with such a label is a
    // mistyped address.
    let numeric = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    (!numeric || name.parse::<Ipv4Addr>().is_ok()).then(|| name.into())
}

/// Reads a network, or a single address as a network of its own.
pub(super) fn network(value: &DeValue<'_>) -> Read<Network> {
    let network = value.as_str().and_then(Network::parse);
    expect(network, "a network, such as \"192.0.2.0/24\" or \"2001:db8::/32\", with a prefix of at most 32 or 128")
}

impl Network {
    /// Reads a network, such as `192.0.2.0/24`, or a single address as a network of its own. Any
    /// other text gives `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().ok()?;
        let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) => digits.parse().ok().filter(|prefix| *prefix <= bits && !digits.starts_with('+'))?,
            None => bits,
        };
        match address.to_canonical() {
            // An IPv4-mapped network such as ::ffff:192.0.2.0/120 is an IPv4 network. A prefix of
            // less than 96 bits is an error, because the network would include addresses that are
            // not IPv4-mapped.
            mapped @ IpAddr::V4(_) if address.is_ipv6() => {
                Some(Self { address: mapped, prefix: prefix.checked_sub(96)? })
            }
            _ => Some(Self { address, prefix }),
        }
    }
}

fn expect<T>(value: Option<T>, what: &str) -> Read<T> {
    value.ok_or_else(|| format!("expected {what}"))
}
