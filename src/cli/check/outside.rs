//! Connections to and from the outside, as far as they can be tried from here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::finding::{Finding, Level, Topic};
use super::name::Addresses;
use super::past::{DAYS, Past};
use crate::config::{Config, HostPort, Kind, RemoteTls, Scheme, Sources};
use crate::dns::{Dns, is_public};
use crate::outcome::NoAnswer;
use crate::outgoing::Outgoing;

/// The port of SMTP.
const SMTP: u16 = 25;
/// The time limit for a connection and for the greeting.
const TIME: Duration = Duration::from_secs(5);
/// The maximum length of a greeting, in octets.
const MAX_GREETING: u64 = 512;
/// The maximum number of addresses that are tried.
const MAX_TRIED: usize = 4;
/// The maximum number of source addresses whose names are looked up.
const MAX_SOURCES: usize = 20;

/// The addresses from which this host connects to the Internet under its hostname, and those to which
/// its listeners are bound. Nothing is sent: connecting a UDP socket only chooses a route.
pub fn own_addresses(config: &Config) -> Vec<IpAddr> {
    let source = |any: IpAddr, to: IpAddr| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((to, SMTP)).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    let chosen = || {
        let four = source(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(198, 51, 100, 1).into());
        let six = source(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
        four.into_iter().chain(six).collect()
    };
    let remote = &config.remote;
    let connecting: Vec<IpAddr> = match &remote.hello {
        _ if remote.source == Sources::default() => chosen(),
        Some(name) if *name != config.hostname => Vec::new(),
        _ => remote.source.all().collect(),
    };
    let bound = config.listen.iter().filter_map(|listen| listen.tcp()).map(|address| address.ip().to_canonical());
    let mut all = Vec::new();
    for address in connecting.into_iter().chain(bound) {
        if !address.is_unspecified() && !address.is_loopback() && !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// The addresses from which this host connects under another name than its hostname, and those of the
/// table of outgoing mail, each with the name.
pub fn other_sources(config: &Config, outgoing: &Outgoing) -> Vec<(IpAddr, String)> {
    let usual = config.remote.hello.as_ref().unwrap_or(&config.hostname);
    let renamed = config.remote.source.all().filter(|_| *usual != config.hostname).map(|ip| (ip, usual.clone()));
    let of_lines = outgoing.sources().into_iter().map(|source| {
        let name = source.hello.as_deref().unwrap_or(usual);
        (source.address, name.to_owned())
    });
    let mut all: Vec<_> = renamed.chain(of_lines).filter(|(ip, _)| is_public(*ip)).collect();
    all.sort();
    all.dedup();
    all.truncate(MAX_SOURCES);
    all
}

/// Connects to an SMTP server. Returns the first line that it sends, without its line end, or an
/// empty text if it accepts the connection and sends nothing.
fn greeting(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIME)?;
    stream.set_write_timeout(Some(TIME))?;
    let (until, mut text) = (Instant::now() + TIME, Vec::new());
    while !text.contains(&b'\n') && (text.len() as u64) < MAX_GREETING {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        let mut some = [0; 256];
        match stream.read(&mut some) {
            Ok(0) | Err(_) => break,
            Ok(count) => text.extend_from_slice(&some[..count]),
        }
    }
    let _ = stream.write_all(b"QUIT\r\n");
    let line = text.split(|octet| *octet == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim_end().chars().take(MAX_GREETING as usize).collect())
}

/// Whether a greeting is that of a host.
fn is_of(greeting: &str, host: &str) -> bool {
    let name = greeting.get(4..).and_then(|rest| rest.split(' ').next());
    name.is_some_and(|name| name.eq_ignore_ascii_case(host))
}

/// Checks whether other hosts can connect to port 25.
pub fn incoming(config: &Config, here: &Addresses, past: &Past) -> Vec<Finding> {
    let make = |level, text: String| Finding::new(level, Topic::Outside, text);
    let open: Vec<_> = config.listen.iter().filter(|listen| listen.kind == Kind::Smtp).collect();
    let is_reachable = |address: SocketAddr| address.port() == SMTP && !address.ip().to_canonical().is_loopback();
    if !open.iter().filter_map(|listen| listen.tcp()).any(is_reachable) {
        let text = "no [[listen]] has port 25 and an address that other hosts can reach: no mail comes from them";
        return vec![make(Level::Note, text.to_owned()).at(config.places.complaint("listen", ""))];
    }
    let public = here.named.iter().copied().filter(|address| is_public(*address));
    let mut findings: Vec<_> = public
        .take(MAX_TRIED)
        .map(|address| {
            let found = greeting(SocketAddr::new(address, SMTP));
            judge(&config.hostname, address, here.own.contains(&address), found)
        })
        .collect();
    if let Some(client) = &past.client {
        let text = format!("other hosts reach this host: mail came from {client} in the last {DAYS} days");
        findings.push(make(Level::Good, text));
        return findings;
    }
    let host = &config.hostname;
    let text = "whether a firewall keeps other hosts from port 25 cannot be seen from here";
    findings.push(make(Level::Note, text.to_owned()).advise(format!("on a host elsewhere, try: nc -w 5 {host} 25")));
    findings
}

/// The finding about an address of the hostname. `is_own` says whether this host has the address
/// itself.
fn judge(host: &str, address: IpAddr, is_own: bool, found: io::Result<String>) -> Finding {
    let make = |level, text: String| Finding::new(level, Topic::Outside, text);
    let at = SocketAddr::new(address, SMTP);
    match found {
        Ok(said) if is_of(&said, host) => make(Level::Good, format!("{at} answers as {host}, tried from here")),
        Ok(said) if said.is_empty() => make(Level::Warning, format!("{at} accepts connections and does not greet"))
            .advise("see the log for the reason"),
        Ok(said) => make(Level::Error, format!("another server answers at {at}: {said}"))
            .advise("correct the address in the DNS, the forwarding in the router, or hostname"),
        Err(e) if is_own => make(Level::Error, format!("no connection to {at}, an address of this host: {e}"))
            .advise("start penfoldd, and listen there: [[listen]] with address = \"0.0.0.0:25\" or \"[::]:25\""),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            make(Level::Warning, format!("{at} refuses connections, tried from here")).advise(
                "the router must forward port 25 to this host; some routers do that only for connections from outside",
            )
        }
        Err(e) => make(Level::Note, format!("no connection to {at} from here: {e}"))
            .advise("some routers do not return connections from inside (hairpin NAT): try it from elsewhere"),
    }
}

/// Checks whether this host can connect to its smart hosts or, if `domain` is given, to a mail
/// exchanger of that domain. Without `dns`, because no name server answers, no name is looked up.
pub fn outgoing(config: &Config, dns: Option<&Dns>, domain: Option<&str>, past: &Past) -> Vec<Finding> {
    let mut findings: Vec<Finding> = config
        .remote
        .smarthosts
        .iter()
        .take(MAX_TRIED)
        .enumerate()
        .map(|(number, host)| smart_host(config, dns, number, host))
        .collect();
    match domain {
        Some(domain) => findings.push(exchanger(dns, domain)),
        None if config.remote.smarthosts.is_empty() && !config.remote.local_only => {
            if let Some(domain) = &past.domain {
                let text = format!("this host reaches others: mail went to {domain} in the last {DAYS} days");
                findings.push(Finding::new(Level::Good, Topic::Outside, text));
                return findings;
            }
            let text = "whether the provider lets this host connect to port 25 of others was not tried";
            let advice = "penfoldctl check --try DOMAIN connects to a mail exchanger of that domain";
            findings.push(Finding::new(Level::Note, Topic::Outside, text).advise(advice));
        }
        None => {}
    }
    findings
}

/// Checks whether hosts can be verified by their TLSA records.
pub fn dane(config: &Config, dns: &Dns) -> Option<Finding> {
    let make = |level, text: &str| Finding::new(level, Topic::Outside, text.to_owned());
    if !config.remote.dane || config.remote.tls == RemoteTls::None || config.remote.local_only {
        return None;
    }
    if !dns.trusts_servers() {
        let text = "DANE is off: the name servers are on other hosts, and dns.trust_ad does not trust them";
        return Some(make(Level::Note, text).advise("run a name server that verifies DNSSEC on this host"));
    }
    match dns.verifies_dnssec() {
        Ok(true) => Some(make(Level::Good, "the name servers verify DNSSEC: hosts are verified by TLSA records")),
        Ok(false) => {
            let text = "DANE is off: the name servers are trusted, but do not verify DNSSEC";
            Some(make(Level::Note, text).advise("use a name server that verifies DNSSEC"))
        }
        // What fails is told by other checks.
        Err(_) => None,
    }
}

fn smart_host(config: &Config, dns: Option<&Dns>, number: usize, host: &HostPort) -> Finding {
    let make = |level, text: String| {
        Finding::new(level, Topic::Outside, text)
            .at(config.places.complaint(&format!("remote.smarthosts[{number}]"), ""))
    };
    let addresses = match host.host.parse() {
        Ok(address) => Ok(vec![address]),
        Err(_) => dns.map_or(Err(NoAnswer::Timeout), |dns| dns.addresses(&host.host)),
    };
    let found = match addresses {
        Ok(found) => found,
        Err(why) => {
            let level = if why == NoAnswer::Timeout { Level::Unknown } else { Level::Error };
            return make(level, format!("the smart host {host} has no address: {why}"));
        }
    };
    let mut last = None;
    for address in found.into_iter().take(MAX_TRIED) {
        let at = SocketAddr::new(address, host.port);
        // With implicit TLS, the server waits for the client.
        let tried = match host.scheme {
            Scheme::Smtps => TcpStream::connect_timeout(&at, TIME).map(|_| String::new()),
            _ => greeting(at),
        };
        match tried {
            Ok(said) if said.starts_with("220") || host.scheme == Scheme::Smtps => {
                return make(Level::Good, format!("the smart host {host} answers"));
            }
            Ok(said) => last = Some(format!("it says: {said}")),
            Err(e) => last = Some(format!("{at}: {e}")),
        }
    }
    make(Level::Error, format!("the smart host {host} does not answer: {}", last.unwrap_or_default()))
        .advise("check its name and port; many providers accept mail only on port 587 or 465")
}

fn exchanger(dns: Option<&Dns>, domain: &str) -> Finding {
    let make = |level, text: String| Finding::new(level, Topic::Outside, text);
    // Nothing is known about port 25 if there is nothing to connect to.
    let not_tried = |why: String| {
        make(Level::Unknown, format!("no mail exchanger of {domain} was tried: {why}"))
            .advise("name another domain; if it is so for all, check dns.nameservers or resolv.conf(5)")
    };
    let Some(dns) = dns else { return not_tried(NoAnswer::Timeout.to_string()) };
    let hosts: Vec<String> = match dns.mx(domain) {
        Ok(found) => found.into_iter().map(|(_, name)| name).filter(|name| name != ".").take(2).collect(),
        Err(NoAnswer::NoData) => vec![domain.to_owned()],
        Err(why) => return not_tried(why.to_string()),
    };
    let (mut last, mut unknown) = (String::new(), "it accepts no mail".to_owned());
    for host in hosts {
        let addresses = dns.addresses(&host).unwrap_or_else(|why| {
            unknown = format!("{host}: {why}");
            Vec::new()
        });
        for address in addresses.into_iter().take(MAX_TRIED) {
            match greeting(SocketAddr::new(address, SMTP)) {
                Ok(said) if said.starts_with("220") => {
                    return make(
                        Level::Good,
                        format!("this host can connect to port 25 of others: {host} [{address}] answers"),
                    );
                }
                Ok(said) => last = format!("{host} [{address}] says: {said}"),
                Err(e) => last = format!("{host} [{address}]: {e}"),
            }
        }
    }
    if last.is_empty() {
        return not_tried(unknown);
    }
    make(Level::Error, format!("no connection to a mail exchanger of {domain}: {last}")).advise(
        "if this is so for all domains, the provider blocks port 25: ask the provider to open it, or use a smart host",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn the_answer_at_an_address_is_judged() {
        let address: IpAddr = "192.0.2.1".parse().expect("an address");
        let refused = || Err(ErrorKind::ConnectionRefused.into());
        for (is_own, found, level, text) in [
            (true, Ok("220 MX.example.org ESMTP".to_owned()), Level::Good, "answers as mx.example.org"),
            (true, Ok("220 other.example ESMTP Exim".to_owned()), Level::Error, "another server answers"),
            (false, Ok("220 other.example ESMTP".to_owned()), Level::Error, "another server answers"),
            (false, Ok("220 a-mx.example.org ESMTP".to_owned()), Level::Error, "another server answers"),
            (true, Ok("220-mx.example.org".to_owned()), Level::Good, "answers as mx.example.org"),
            (true, Ok(String::new()), Level::Warning, "does not greet"),
            (true, refused(), Level::Error, "an address of this host"),
            (false, refused(), Level::Warning, "refuses connections"),
            (false, Err(ErrorKind::TimedOut.into()), Level::Note, "no connection to"),
        ] {
            let finding = judge("mx.example.org", address, is_own, found);
            assert!(finding.level == level && finding.at.text.contains(text), "{finding}");
        }
    }

    #[test]
    fn a_greeting_is_read_within_bounds() {
        for (said, wanted) in [
            (b"220 mx.x ESMTP\r\n220 more\r\n".to_vec(), "220 mx.x ESMTP".to_owned()),
            (b"".to_vec(), String::new()),
            (b"220 no end".to_vec(), "220 no end".to_owned()),
            (vec![b'a'; 5000], "a".repeat(512)),
        ] {
            let server = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = server.local_addr().expect("bound");
            let thread = thread::spawn(move || {
                let (mut client, _) = server.accept().expect("a client");
                // A client that has read enough may close before it has all.
                let _ = client.write_all(&said);
            });
            assert_eq!(greeting(address).expect("a connection"), wanted);
            thread.join().expect("an end");
        }
    }
}
