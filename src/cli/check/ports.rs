//! The programs that listen on the ports of the configuration, as proc(5) shows them. Nothing is
//! bound.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::finding::{Finding, Level, Topic};
use crate::config::{Config, Listen};

/// The maximum number of processes that are looked at to find the owner of a socket.
const MAX_PROCESSES: usize = 20_000;
/// The state of a listening socket in proc(5).
const LISTENING: &str = "0A";

/// A listening TCP socket of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The address to which it is bound.
    pub address: SocketAddr,
    /// The number that leads to its process.
    inode: u64,
    /// The name and the id of its process, if this process may see it.
    pub process: Option<(String, u32)>,
}

impl Listening {
    /// Whether it is a socket of penfold.
    fn is_ours(&self) -> bool {
        self.process.as_ref().is_some_and(|(name, _)| name.starts_with("penfold"))
    }
}

/// Lists the listening TCP sockets of this host, with their processes. Only root sees the processes
/// of other users.
pub fn listening() -> Vec<Listening> {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let mut all: Vec<_> = parse(&read("/proc/net/tcp")).chain(parse(&read("/proc/net/tcp6"))).collect();
    let wanted: HashMap<u64, usize> = all.iter().enumerate().map(|(at, socket)| (socket.inode, at)).collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for id in ids.take(MAX_PROCESSES) {
        for file in fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(file.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(socket) = inode.and_then(|inode: u64| all.get_mut(*wanted.get(&inode)?)) {
                let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
                socket.process = Some((name.trim_end().to_owned(), id));
            }
        }
    }
    all
}

/// Parses the lines of `/proc/net/tcp` or `/proc/net/tcp6` for listening sockets.
fn parse(text: &str) -> impl Iterator<Item = Listening> {
    text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = words.get(1)?.split_once(':')?;
        let address = SocketAddr::new(hexadecimal(address)?, u16::from_str_radix(port, 16).ok()?);
        let inode = words.get(9)?.parse().ok()?;
        (*words.get(3)? == LISTENING).then_some(Listening { address, inode, process: None })
    })
}

/// An address in proc(5): 32-bit words in the byte order of this machine.
fn hexadecimal(text: &str) -> Option<IpAddr> {
    let words: Vec<[u8; 4]> = (0..text.len() / 8)
        .map(|n| Some(u32::from_str_radix(text.get(n * 8..n * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect::<Option<_>>()?;
    match words.as_slice() {
        [one] => Some(Ipv4Addr::from(*one).into()),
        [_, _, _, _] => Some(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).into()),
        _ => None,
    }
}

/// Whether a socket that is bound to `bound` gets the connections to `wanted`.
fn covers(bound: SocketAddr, wanted: SocketAddr) -> bool {
    let is_any = bound.ip().is_unspecified() && (bound.is_ipv6() || wanted.is_ipv4());
    bound.port() == wanted.port() && (bound.ip() == wanted.ip() || is_any)
}

/// Checks that penfold listens on each address of the configuration or, while no daemon runs, that
/// no other program does.
pub fn check(config: &Config, is_running: bool, sockets: &[Listening]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, listen) in config.listen.iter().enumerate() {
        let Some(wanted) = listen.tcp().filter(|address| address.port() > 0) else { continue };
        let key = format!("listen[{number}].address");
        let found = sockets.iter().find(|socket| covers(socket.address, wanted));
        findings.extend(one(listen, found, is_running).map(|finding| finding.at(config.places.complaint(&key, ""))));
    }
    findings
}

fn one(listen: &Listen, found: Option<&Listening>, is_running: bool) -> Option<Finding> {
    let address = &listen.address;
    let make = |level, text: String| Some(Finding::new(level, Topic::Ports, text));
    match (found, is_running) {
        (Some(socket), _) if socket.is_ours() => make(Level::Good, format!("penfoldd listens on {address}")),
        (Some(Listening { process: Some((name, id)), .. }), _) if name != "systemd" => {
            let finding = make(Level::Error, format!("another program listens on {address}: {name} (process {id})"));
            finding.map(|finding| finding.advise("stop that program, or change the address of the [[listen]]"))
        }
        (Some(_), true) => make(Level::Good, format!("{address} is open")),
        (Some(_), false) => make(Level::Warning, format!("{address} is in use, and penfoldd does not run"))
            .map(|finding| finding.advise("run the check as root to see which program uses it")),
        // The host may lack the address of a default listener: ::1, if IPv6 is off.
        (None, true) if listen.is_default => make(Level::Note, format!("penfoldd does not listen on {address}")),
        (None, true) => make(Level::Error, format!("penfoldd runs, and does not listen on {address}"))
            .map(|finding| finding.advise("restart it: a changed [[listen]] is not in force before")),
        (None, false) => make(Level::Good, format!("no program uses {address}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_read_from_proc() {
        let four = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0\n\
            1: 0100007F:0019 0200007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0\n";
        let six = "0: 00000000000000000000000001000000:0019 00000000000000000000000000000000:0000 0A \
                   00000000:00000000 00:00000000 00000000 0 0 4713 1 0 100 0\nnonsense\n\
                   1: 0000000000000000FFFF00000100007F:024B 0:0 0A 0 0 0 0 0 4714\n";
        let found: Vec<_> =
            parse(four).chain(parse(six)).map(|socket| (socket.address.to_string(), socket.inode)).collect();
        if cfg!(target_endian = "little") {
            let wanted = [("127.0.0.1:25", 4711), ("[::1]:25", 4713), ("[::ffff:127.0.0.1]:587", 4714)];
            assert_eq!(found, wanted.map(|(address, inode)| (address.to_owned(), inode)));
        }
        // A socket of this process is found, with its name.
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        let all = listening();
        let found = all.iter().find(|found| found.address == address).expect("the socket");
        assert_eq!(found.process.as_ref().map(|(_, id)| *id), Some(std::process::id()));
    }

    #[test]
    fn another_program_on_a_port_is_an_error() {
        let listen = |address: &str| Listen::at(address.parse().expect("an address"));
        let socket = |address: &str, process: Option<&str>| Listening {
            address: address.parse().expect("an address"),
            inode: 1,
            process: process.map(|name| (name.to_owned(), 7)),
        };
        let exim = "another program listens on 0.0.0.0:25: exim4 (process 7)";
        for (wanted, sockets, is_running, level, text) in [
            ("0.0.0.0:25", vec![], false, Level::Good, "no program uses 0.0.0.0:25"),
            ("0.0.0.0:25", vec![], true, Level::Error, "penfoldd runs, and does not listen on 0.0.0.0:25"),
            ("0.0.0.0:25", vec![socket("0.0.0.0:25", Some("exim4"))], false, Level::Error, exim),
            ("0.0.0.0:25", vec![socket("[::]:25", Some("exim4"))], true, Level::Error, exim),
            (
                "192.0.2.1:25",
                vec![socket("0.0.0.0:25", Some("penfoldd"))],
                true,
                Level::Good,
                "penfoldd listens on 192.0.2.1:25",
            ),
            ("192.0.2.1:25", vec![socket("0.0.0.0:25", None)], true, Level::Good, "192.0.2.1:25 is open"),
            ("192.0.2.1:25", vec![socket("0.0.0.0:25", Some("systemd"))], true, Level::Good, "192.0.2.1:25 is open"),
            (
                "192.0.2.1:25",
                vec![socket("0.0.0.0:25", None)],
                false,
                Level::Warning,
                "192.0.2.1:25 is in use, and penfoldd does not run",
            ),
            ("[::1]:25", vec![socket("0.0.0.0:25", Some("exim4"))], false, Level::Good, "no program uses [::1]:25"),
            ("0.0.0.0:25", vec![socket("0.0.0.0:26", Some("exim4"))], false, Level::Good, "no program uses 0.0.0.0:25"),
        ] {
            let config = Config { listen: vec![listen(wanted)], ..crate::config::default() };
            let found: Vec<_> =
                check(&config, is_running, &sockets).into_iter().map(|f| (f.level, f.at.text)).collect();
            assert_eq!(found, [(level, text.to_owned())], "{sockets:?}");
        }
    }
}
