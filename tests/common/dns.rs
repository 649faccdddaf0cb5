//! A scripted name server on a port of 127.0.0.1, over UDP and TCP.
//!
//! A closure decides every answer. An answer may be an error, may be late, or may never come. Over
//! UDP an answer may be truncated, so that the client asks again over TCP. [`Dns::zone`] makes such
//! a closure from a zone file. The server records its questions; it does not delegate, sign or
//! cache. It can say that an answer is secure (the bit AD), as a server does that verifies DNSSEC.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use trust_dns_resolver::proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use trust_dns_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, TLSA, TXT};
use trust_dns_resolver::proto::rr::{Name, RData, Record, RecordType};

const TTL: u32 = 60;
/// The name of the root zone.
const ROOT: &str = ".";

/// The answer to one question.
#[derive(Debug, Clone)]
pub struct Answer {
    pub rcode: ResponseCode,
    pub records: Vec<Record>,
    /// Whether the server sends no answer at all.
    pub silent: bool,
    /// Whether the answer over UDP is only the truncation bit, so that the client asks again over
    /// TCP.
    pub truncated: bool,
    /// Whether the answer only refers the client to other name servers.
    pub referral: bool,
    /// How long the server waits before it answers. Other questions are answered meanwhile.
    pub after: Duration,
    /// Whether the answer is secure: the bit AD is set if the question asks for DNSSEC.
    pub secure: bool,
}

/// A question, and the way in which it arrived.
pub struct Asking<'a> {
    /// The name in question, in lower case, without the final dot; `.` for the root zone.
    pub name: &'a str,
    pub kind: RecordType,
    pub edns: bool,
    /// Whether the question asks for DNSSEC (the bit DO).
    pub dnssec: bool,
    pub over_udp: bool,
}

impl Answer {
    /// An answer with these records. If there are none, the answer is NODATA.
    pub fn records(records: Vec<Record>) -> Self {
        Self {
            rcode: ResponseCode::NoError,
            records,
            silent: false,
            truncated: false,
            referral: false,
            after: Duration::ZERO,
            secure: false,
        }
    }

    /// The answer as a secure one.
    pub fn secure(self) -> Self {
        Self { secure: true, ..self }
    }

    /// The answer NXDOMAIN: the name does not exist.
    pub fn nxdomain() -> Self {
        Self { rcode: ResponseCode::NXDomain, ..Self::records(Vec::new()) }
    }

    /// The answer SERVFAIL: the server failed.
    pub fn servfail() -> Self {
        Self::code(ResponseCode::ServFail)
    }

    /// An answer with this code and no records.
    pub fn code(rcode: ResponseCode) -> Self {
        Self { rcode, ..Self::records(Vec::new()) }
    }

    /// No answer at all.
    pub fn silence() -> Self {
        Self { silent: true, ..Self::records(Vec::new()) }
    }
}

/// A record: a name with or without its final dot, a type, and data in the form of a zone file.
/// Types: A, AAAA, CNAME, MX, NS, PTR, TLSA, TXT. The data of a TLSA record in hexadecimal may contain
/// blanks.
pub fn record(name: &str, kind: &str, data: &str) -> Record {
    let data = match kind {
        "A" => RData::A(A(data.parse().expect("an IPv4 address"))),
        "AAAA" => RData::AAAA(AAAA(data.parse().expect("an IPv6 address"))),
        "CNAME" => RData::CNAME(CNAME(absolute(data))),
        "NS" => RData::NS(NS(absolute(data))),
        "PTR" => RData::PTR(PTR(absolute(data))),
        "TXT" => {
            // A string has at most 255 octets.
            let strings = data.as_bytes().chunks(255).map(|part| String::from_utf8_lossy(part).into_owned());
            RData::TXT(TXT::new(strings.collect()))
        }
        "MX" => {
            let (preference, host) = data.split_once(' ').expect("MX preference host");
            RData::MX(MX::new(preference.parse().expect("a preference"), absolute(host)))
        }
        "TLSA" => {
            let mut words = data.split_whitespace();
            let mut number = || words.next().and_then(|word| word.parse::<u8>().ok()).expect("a number");
            let (usage, selector, matching) = (number().into(), number().into(), number().into());
            let digits = words.collect::<String>();
            let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
            let data = (0..digits.len()).step_by(2).map(octet).collect();
            RData::TLSA(TLSA::new(usage, selector, matching, data))
        }
        _ => panic!("no records of type {kind} here"),
    };
    Record::from_rdata(absolute(name), TTL, data)
}

fn absolute(name: &str) -> Name {
    let mut name = Name::from_ascii(name).expect("a domain name");
    name.set_fqdn(true);
    name
}

/// A question: the name in lower case without its final dot, and the type.
pub type Question = (String, RecordType);

/// All questions so far, each with whether it came with EDNS, and whether it asked for DNSSEC.
type Asked = Arc<Mutex<Vec<(Question, bool, bool)>>>;

/// The name server, which runs until the process ends.
pub struct Dns {
    pub address: SocketAddr,
    asked: Asked,
}

impl Dns {
    /// Starts a server. `decide` gets the name, in lower case without its final dot, and the type.
    pub fn start(decide: impl Fn(&str, RecordType) -> Answer + Send + Sync + 'static) -> Self {
        Self::judging(move |asking| decide(asking.name, asking.kind))
    }

    /// Starts a server whose answers also depend on how the question arrived.
    pub fn judging(decide: impl Fn(&Asking) -> Answer + Send + Sync + 'static) -> Self {
        Self::listening((Ipv4Addr::LOCALHOST, 0).into(), decide)
    }

    /// Starts a server at this address. Port 0 means any free port.
    pub fn listening(address: SocketAddr, decide: impl Fn(&Asking) -> Answer + Send + Sync + 'static) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind(address).expect("an address of this host");
            // The port that was free for TCP may be taken for UDP; then another port is tried.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("bound")) {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let desk = Arc::new(Desk { decide: Box::new(decide), asked: Arc::clone(&asked) });
        let other = Arc::clone(&desk);
        thread::spawn(move || desk.serve_udp(&udp));
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let desk = Arc::clone(&other);
                thread::spawn(move || desk.serve_tcp(stream));
            }
        });
        Self { address, asked }
    }

    /// Serves a zone: lines of the form `name TYPE data`, and `#` for comments.
    ///
    /// If a name has `SERVFAIL` or `SILENCE` in the place of a type, all questions about the name
    /// get that answer. If it has `TRUNCATED` there, its records are sent over TCP only. If the name
    /// and all aliases in an answer have `SECURE` there, the answer is secure. The answer is NXDOMAIN for a name without lines, and NODATA for a type without lines. Aliases are
    /// followed in the answer.
    pub fn zone(text: &str) -> Self {
        Self::zone_at((Ipv4Addr::LOCALHOST, 0).into(), text)
    }

    /// Serves a zone at an address.
    pub fn zone_at(address: SocketAddr, text: &str) -> Self {
        let zone = parse(text);
        Self::listening(address, move |asking| look_up(&zone, asking.name, asking.kind))
    }

    /// All questions so far, in order.
    pub fn asked(&self) -> Vec<Question> {
        self.seen().into_iter().map(|(question, ..)| question).collect()
    }

    /// All questions so far, except those about the root zone, by which a daemon finds out at its start
    /// whether the server verifies DNSSEC.
    fn seen(&self) -> Vec<(Question, bool, bool)> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|((name, _), ..)| name != ROOT).cloned().collect()
    }

    /// Whether each question came with EDNS, in order.
    pub fn edns(&self) -> Vec<bool> {
        self.seen().into_iter().map(|(_, edns, _)| edns).collect()
    }

    /// The questions so far that asked for DNSSEC, in order.
    pub fn asked_for_dnssec(&self) -> Vec<Question> {
        self.seen().into_iter().filter(|(.., dnssec)| *dnssec).map(|(question, ..)| question).collect()
    }

    /// The value of the setting `dns.nameservers` that makes a daemon use this server.
    pub fn nameservers(&self) -> String {
        format!("[\"{}\"]", self.address)
    }
}

/// The answer that [`Dns::zone`] gives to a question.
pub fn answer(zone: &str, name: &str, kind: RecordType) -> Answer {
    look_up(&parse(zone), name, kind)
}

fn parse(zone: &str) -> Vec<[String; 3]> {
    let lines = zone.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let words = |line: &str| {
        let mut words = line.splitn(3, ' ').map(str::trim);
        [(); 3].map(|()| words.next().unwrap_or_default().to_owned())
    };
    lines.map(words).collect()
}

fn look_up(zone: &[[String; 3]], name: &str, kind: RecordType) -> Answer {
    let of = |name: &str| zone.iter().filter(|[n, ..]| n.eq_ignore_ascii_case(name)).collect::<Vec<_>>();
    let says = |word: &str| of(name).iter().any(|[_, k, _]| k == word);
    if of(name).is_empty() {
        return Answer::nxdomain();
    } else if says("SERVFAIL") {
        return Answer::servfail();
    } else if says("SILENCE") {
        return Answer::silence();
    }
    let mut records = Vec::new();
    let mut secure = true;
    let mut name = name.to_owned();
    // The number of steps is limited, because an alias may lead back to itself.
    for _ in 0..8 {
        secure &= of(&name).iter().any(|[_, k, _]| k == "SECURE");
        let here = of(&name).into_iter().filter(|[_, k, _]| !["TRUNCATED", "SECURE"].contains(&k.as_str()));
        let here = here.collect::<Vec<_>>();
        let alias = here.iter().find(|[_, k, _]| k == "CNAME").map(|[.., data]| data.clone());
        let wanted = |k: &str| alias.is_some() || k == kind.to_string();
        records.extend(here.iter().filter(|[_, k, _]| wanted(k)).map(|[n, k, data]| record(n, k, data)));
        match alias {
            Some(target) if kind != RecordType::CNAME => name = target,
            _ => break,
        }
    }
    Answer { truncated: says("TRUNCATED"), secure, ..Answer::records(records) }
}

type Decide = dyn Fn(&Asking) -> Answer + Send + Sync;

struct Desk {
    decide: Box<Decide>,
    asked: Asked,
}

impl Desk {
    fn serve_udp(&self, socket: &UdpSocket) {
        let mut question = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let Some((answer, after)) = self.answer(&question[..length], true) else { continue };
            let socket = socket.try_clone().expect("a descriptor");
            // A send fails only if the client has ended.
            at_its_time(after, move || drop(socket.send_to(&answer, from)));
        }
    }

    fn serve_tcp(&self, mut stream: TcpStream) {
        let mut length = [0; 2];
        let writing = Arc::new(Mutex::new(()));
        while stream.read_exact(&mut length).is_ok() {
            let mut question = vec![0; u16::from_be_bytes(length).into()];
            if stream.read_exact(&mut question).is_err() {
                return;
            }
            let Some((answer, after)) = self.answer(&question, false) else { continue };
            let length = u16::try_from(answer.len()).expect("a small answer").to_be_bytes();
            let answer = [&length[..], &answer].concat();
            let (stream, writing) = (stream.try_clone().expect("a descriptor"), Arc::clone(&writing));
            at_its_time(after, move || {
                // The answers of two threads must not be mixed.
                let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
                // A write fails only if the client has ended.
                let _ = (&stream).write_all(&answer);
            });
        }
    }

    fn answer(&self, question: &[u8], over_udp: bool) -> Option<(Vec<u8>, Duration)> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let name = query.name().to_ascii().to_ascii_lowercase();
        let name = if name == ROOT { name } else { name.trim_end_matches('.').to_owned() };
        let (kind, edns) = (query.query_type(), question.edns.is_some());
        let dnssec = question.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(((name.clone(), kind), edns, dnssec));
        let answer = (self.decide)(&Asking { name: &name, kind, edns, dnssec, over_udp });
        if answer.silent {
            return None;
        }
        let mut reply = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
        reply.metadata.recursion_desired = true;
        reply.metadata.recursion_available = true;
        reply.metadata.response_code = answer.rcode;
        reply.metadata.authentic_data = answer.secure && dnssec;
        // The upper bits of BADVERS do not fit into the header; the EDNS record carries them.
        reply.edns = (answer.rcode == ResponseCode::BADVERS).then(Edns::new);
        reply.metadata.truncation = answer.truncated && over_udp;
        reply.add_query(query);
        if answer.referral {
            reply.metadata.recursion_available = false;
            reply.add_authority(Record::from_rdata(absolute("test"), TTL, RData::NS(NS(absolute("ns.test")))));
        }
        if !reply.metadata.truncation {
            reply.add_answers(answer.records);
        }
        Some((reply.to_vec().expect("a well-formed answer"), answer.after))
    }
}

/// Sends an answer after this time. The thread that reads the questions does not wait.
fn at_its_time(after: Duration, send: impl FnOnce() + Send + 'static) {
    if after.is_zero() {
        return send();
    }
    thread::spawn(move || {
        thread::sleep(after);
        send();
    });
}
