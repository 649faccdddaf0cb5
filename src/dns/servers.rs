//! Queries name servers, one after another, until one has an answer.
//!
//! NXDOMAIN is an answer. After SERVFAIL, REFUSED and similar codes, a referral, a malformed
//! message or a timeout the next server is asked. If a server does not respond within
//! [`Servers::pause`], the next server is asked as well, and the first answer is used. For
//! [`DEMOTED_FOR`], a server that did not respond is asked after the others. The resolver library
//! repeats lost datagrams, and uses TCP for answers that do not fit into one.
//!
//! Every server is asked with EDNS first. If no server answers with EDNS, each is asked once more
//! without EDNS. If a response is FORMERR, NOTIMP or BADVERS, the server is asked without EDNS at
//! once. A server that has answered only without EDNS is asked without EDNS from the start for a
//! while. No query continues beyond the deadline of the look-up.
//!
//! An answer is secure if the server says so (the bit AD), if the server is trusted, and if the query
//! has asked for DNSSEC (the bit DO in EDNS). Unless the server rejects it, such a query is repeated
//! without EDNS only for a server that has never answered with EDNS: otherwise a slow answer would be
//! taken for an insecure one.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout_at;
use trust_dns_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverOpts, ServerOrderingStrategy,
};
use trust_dns_resolver::net::runtime::TokioRuntimeProvider;
use trust_dns_resolver::net::xfer::{DnsHandle, FirstAnswer};
use trust_dns_resolver::net::{DnsError, NetError};
use trust_dns_resolver::proto::op::{DnsRequestOptions, Message, Query, ResponseCode};
use trust_dns_resolver::proto::rr::{Name, RecordType};
use trust_dns_resolver::{NameServerPool, PoolContext, TlsConfig};

use super::answer::{Data, Found, MAX_ALIASES, Read, alias_loop, read};
use crate::outcome::NoAnswer;

/// The time for which a server that did not respond is asked after the others.
const DEMOTED_FOR: Duration = Duration::from_secs(30);
/// The time for which a server that rejects EDNS is asked without EDNS.
const NO_EDNS_FOR: Duration = Duration::from_secs(3600);
/// The time for which a server that ignores queries with EDNS is asked without EDNS.
const IGNORES_EDNS_FOR: Duration = Duration::from_secs(300);
/// After an answer with EDNS, a timeout of that server is not attributed to EDNS for this time.
const SUPPORTS_EDNS_FOR: Duration = Duration::from_secs(600);
/// The maximum time to wait for a response before the next server is asked as well.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// The maximum number of concurrent queries over one TCP connection.
const MAX_TCP_QUERIES: usize = 1024;

/// The name servers, the preferred one first.
pub(super) struct Servers {
    list: Vec<Arc<Server>>,
    /// The addresses of the servers as text, for messages.
    names: Arc<str>,
    timeout: Duration,
    /// Whether the servers are trusted to have verified the answers that they call secure.
    is_trusted: bool,
}

struct Server {
    /// Two pools, because a single pool would merge the queries with and without EDNS.
    with_edns: NameServerPool<TokioRuntimeProvider>,
    without: NameServerPool<TokioRuntimeProvider>,
    begun: Instant,
    /// The time of the last response. This time and the following ones are in milliseconds after
    /// `begun`; zero means never.
    answered: AtomicU64,
    supports_edns_until: AtomicU64,
    demoted_until: AtomicU64,
    no_edns_until: AtomicU64,
    /// Whether the server has ever answered with EDNS.
    has_used_edns: AtomicBool,
}

/// One query to one server.
#[derive(Clone, Copy)]
struct Step {
    server: usize,
    edns: bool,
    /// Whether the query asks for DNSSEC; only with EDNS.
    dnssec: bool,
    /// Whether the server has just rejected the same query with EDNS.
    is_edns_rejected: bool,
}

/// The response to a query.
enum Response {
    Answer(Message),
    /// NXDOMAIN or no data, and the lifetime of this answer in seconds.
    Negative(NoAnswer, u32),
    /// The server has rejected EDNS or the query, with this code.
    Rejected(ResponseCode),
    Failure(NoAnswer),
}

impl Servers {
    /// The servers at `addresses`. `is_trusted` says whether they are trusted to have verified the
    /// answers that they call secure. Must be called within the runtime.
    pub(super) fn new(addresses: &[SocketAddr], timeout: Duration, is_trusted: bool) -> Self {
        let mut options = ResolverOpts::default();
        options.timeout = timeout;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.num_concurrent_reqs = 1;
        options.max_active_requests = MAX_TCP_QUERIES;
        // Without TLS nothing can fail here.
        let context = |tls| Arc::new(PoolContext::new(options.clone(), tls));
        let server = |&address| Some(Arc::new(Server::new(address, context(TlsConfig::new().ok()?))));
        let list = addresses.iter().filter_map(server).collect();
        Self { list, names: names(addresses).into(), timeout, is_trusted }
    }

    /// Whether the servers are trusted to have verified the answers that they call secure.
    pub(super) fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// Looks up the data of one type for a name, and follows aliases. With `dnssec`, the data say
    /// whether they are secure; the servers must be trusted. Returns the data with their lifetime in
    /// seconds.
    pub(super) async fn look_up(&self, first: Name, kind: RecordType, dnssec: bool, until: Instant) -> (Found, u32) {
        let (mut name, mut lifetime, mut is_secure) = (first.clone(), u32::MAX, dnssec && self.is_trusted);
        for _ in 0..=MAX_ALIASES {
            let message = match self.ask(Query::query(name.clone(), kind), dnssec, until).await {
                Ok(message) => message,
                Err((failure, seconds)) => return (Err(failure), lifetime.min(seconds)),
            };
            is_secure &= message.metadata.authentic_data;
            match read(&message, &name, kind, lifetime) {
                Read::Data(list, end, seconds) => {
                    let alias_of = (end != first).then(|| text(&end).into());
                    return (Ok(Data { list, is_secure, alias_of }), seconds);
                }
                Read::Nothing(failure) => return (Err(failure), 0),
                Read::Alias(to, seconds) => (name, lifetime) = (to, seconds),
            }
        }
        (Err(alias_loop()), 0)
    }

    async fn ask(&self, query: Query, dnssec: bool, until: Instant) -> Result<Message, (NoAnswer, u32)> {
        let mut plan = VecDeque::from(self.plan(dnssec));
        let mut asked = JoinSet::new();
        // For each server, whether it must not be asked again.
        let mut done = vec![false; self.list.len()];
        let mut failure = None;
        loop {
            plan.retain(|step| !done[step.server]);
            let step = plan.pop_front();
            let started = step.map(|step| self.begin(&mut asked, step, &query));
            if asked.is_empty() {
                break;
            }
            let wait = if plan.is_empty() { until } else { until.min(Instant::now() + self.pause()) };
            let Ok(response) = timeout_at(wait.into(), asked.join_next()).await else {
                if let (Some(step), Some(started)) = (step, started) {
                    self.list[step.server].note_timeout(started);
                }
                if Instant::now() >= until {
                    break;
                }
                continue;
            };
            // A query that panicked has no response.
            let Some(Ok((step, response))) = response else { continue };
            match response {
                Response::Answer(message) => return Ok(message),
                Response::Negative(what, seconds) => return Err((what, seconds)),
                Response::Rejected(_) if step.edns => {
                    plan.push_front(Step { edns: false, dnssec: false, is_edns_rejected: true, ..step })
                }
                Response::Rejected(code) => {
                    done[step.server] = true;
                    failure = more_specific(failure, unsupported(code));
                }
                Response::Failure(what) => {
                    // A server that fails with EDNS may succeed without EDNS, unless it has refused
                    // the query.
                    done[step.server] = !step.edns || what == NoAnswer::Refused;
                    failure = more_specific(failure, what);
                }
            }
        }
        Err((failure.unwrap_or(NoAnswer::Timeout), 0))
    }

    /// Returns the queries in order. First, each server is asked with EDNS, or without EDNS if the
    /// server is known to lack it. Then each server is asked without EDNS, except those that are
    /// known to support EDNS, since their failures have other reasons.
    fn plan(&self, dnssec: bool) -> Vec<Step> {
        let mut order: Vec<(usize, &Arc<Server>)> = self.list.iter().enumerate().collect();
        order.sort_by_key(|(_, server)| server.is_before(&server.demoted_until));
        let step = |server, edns| Step { server, edns, dnssec: dnssec && edns, is_edns_rejected: false };
        let must_use_edns = |server: &Server| dnssec && server.has_used_edns.load(Relaxed);
        let first = order
            .iter()
            .map(|(at, server)| step(*at, must_use_edns(server) || !server.is_before(&server.no_edns_until)));
        let without_edns =
            order.iter().filter(|(_, server)| !must_use_edns(server) && !server.is_before(&server.supports_edns_until));
        first.chain(without_edns.map(|(at, _)| step(*at, false))).collect()
    }

    /// The time to wait for a response before the next query is sent.
    fn pause(&self) -> Duration {
        let steps = u32::try_from(2 * self.list.len() + 2).unwrap_or(u32::MAX);
        (self.timeout / steps).min(MAX_PAUSE)
    }

    /// Sends a query. Returns the time of sending, in milliseconds after the server's `begun`.
    fn begin(&self, asked: &mut JoinSet<(Step, Response)>, step: Step, query: &Query) -> u64 {
        let (server, query, names) = (Arc::clone(&self.list[step.server]), query.clone(), Arc::clone(&self.names));
        let now = server.now();
        asked.spawn(async move { (step, server.ask(query, step, &names).await) });
        now
    }
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.names)
    }
}

impl Server {
    fn new(address: SocketAddr, context: Arc<PoolContext>) -> Self {
        let connection = |protocol| {
            let mut connection = ConnectionConfig::new(protocol);
            connection.port = address.port();
            connection
        };
        let both = vec![connection(ProtocolConfig::Udp), connection(ProtocolConfig::Tcp)];
        let config = NameServerConfig::new(address.ip(), true, both);
        let pool =
            || NameServerPool::from_config([config.clone()], Arc::clone(&context), TokioRuntimeProvider::default());
        Self {
            with_edns: pool(),
            without: pool(),
            begun: Instant::now(),
            answered: AtomicU64::new(0),
            supports_edns_until: AtomicU64::new(0),
            demoted_until: AtomicU64::new(0),
            no_edns_until: AtomicU64::new(0),
            has_used_edns: AtomicBool::new(false),
        }
    }

    async fn ask(&self, query: Query, step: Step, names: &str) -> Response {
        let mut options = DnsRequestOptions::default();
        options.use_edns = step.edns;
        options.edns_set_dnssec_ok = step.dnssec;
        let pool = if step.edns { &self.with_edns } else { &self.without };
        let response = classify(pool.lookup(query, options).first_answer().await, names);
        self.note(&response, step);
        response
    }

    /// Records what a response shows about the server.
    fn note(&self, response: &Response, step: Step) {
        let is_answer = matches!(response, Response::Answer(_) | Response::Negative(..));
        if matches!(response, Response::Failure(NoAnswer::Timeout | NoAnswer::Other(_))) {
            return;
        }
        let now = self.now();
        self.answered.store(now, Relaxed);
        self.demoted_until.store(0, Relaxed);
        if !is_answer {
        } else if step.edns {
            self.has_used_edns.store(true, Relaxed);
            self.supports_edns_until.store(now + millis(SUPPORTS_EDNS_FOR), Relaxed);
            self.no_edns_until.store(0, Relaxed);
        } else if step.is_edns_rejected {
            self.no_edns_until.store(now + millis(NO_EDNS_FOR), Relaxed);
        } else if !self.is_before(&self.supports_edns_until) && !self.is_before(&self.no_edns_until) {
            // The server has just answered without EDNS, and not lately with EDNS.
            self.no_edns_until.store(now + millis(IGNORES_EDNS_FOR), Relaxed);
        }
    }

    /// Demotes a server that has not responded to a query sent at `since`, unless the server has
    /// answered another query meanwhile: in that case only this name is slow.
    fn note_timeout(&self, since: u64) {
        if self.answered.load(Relaxed) < since {
            self.demoted_until.store(self.now() + millis(DEMOTED_FOR), Relaxed);
        }
    }

    /// Milliseconds since `begun`; never zero.
    fn now(&self) -> u64 {
        millis(self.begun.elapsed()) + 1
    }

    fn is_before(&self, until: &AtomicU64) -> bool {
        self.now() < until.load(Relaxed)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

/// The addresses of servers as text. A port is shown only if it is not 53.
pub(super) fn names(servers: &[SocketAddr]) -> String {
    let address = |server: &SocketAddr| match server.port() {
        53 => server.ip().to_string(),
        _ => server.to_string(),
    };
    servers.iter().map(address).collect::<Vec<_>>().join(", ")
}

/// The text of a name in lower case, without its final dot.
fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

fn classify(result: Result<impl Into<Message>, NetError>, names: &str) -> Response {
    match result {
        Ok(response) => Response::Answer(response.into()),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain => Response::Negative(NoAnswer::NxDomain, none.negative_ttl.unwrap_or(0)),
            // A referral: the server does not resolve recursively.
            _ if none.ns.is_some() && none.soa.is_none() => Response::Failure(NoAnswer::ServFail),
            _ => Response::Negative(NoAnswer::NoData, none.negative_ttl.unwrap_or(0)),
        },
        Err(NetError::Dns(DnsError::ResponseCode(code))) => match code {
            ResponseCode::ServFail => Response::Failure(NoAnswer::ServFail),
            ResponseCode::Refused => Response::Failure(NoAnswer::Refused),
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS => Response::Rejected(code),
            other => Response::Failure(unsupported(other)),
        },
        Err(NetError::Timeout) => Response::Failure(NoAnswer::Timeout),
        Err(NetError::NoConnections) => Response::Failure(unreachable(names, "")),
        Err(NetError::Io(error)) => Response::Failure(unreachable(names, &format!(": {error}"))),
        Err(other) => Response::Failure(NoAnswer::Other(other.to_string().replace(char::is_control, "?"))),
    }
}

fn unreachable(names: &str, why: &str) -> NoAnswer {
    NoAnswer::Other(format!("no name server could be reached ({names}){why}"))
}

fn unsupported(code: ResponseCode) -> NoAnswer {
    NoAnswer::Other(format!("the name server does not support such queries ({code})"))
}

/// The more specific of two failures.
fn more_specific(one: Option<NoAnswer>, other: NoAnswer) -> Option<NoAnswer> {
    let rank = |failure: &NoAnswer| match failure {
        NoAnswer::ServFail => 3,
        NoAnswer::Refused => 2,
        NoAnswer::Timeout => 0,
        _ => 1,
    };
    match one {
        Some(one) if rank(&one) >= rank(&other) => Some(one),
        _ => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreachable_name_servers_are_named() {
        let asked = |servers: &[&str]| {
            let servers: Vec<SocketAddr> = servers.iter().map(|text| text.parse().expect("an address")).collect();
            match classify(Err::<Message, _>(NetError::NoConnections), &names(&servers)) {
                Response::Failure(NoAnswer::Other(text)) => text,
                _ => panic!("{servers:?}"),
            }
        };
        let says = |who| format!("no name server could be reached ({who})");
        assert_eq!(asked(&["192.0.2.53:53", "127.0.0.1:5353"]), says("192.0.2.53, 127.0.0.1:5353"));
        assert_eq!(asked(&["[2001:db8::1]:53"]), says("2001:db8::1"));
    }

    #[test]
    fn the_most_specific_failure_is_reported() {
        let all = [NoAnswer::ServFail, NoAnswer::Refused, NoAnswer::Other("x".into()), NoAnswer::Timeout];
        for (rank, one) in all.iter().enumerate() {
            for other in &all[rank..] {
                assert_eq!(more_specific(Some(one.clone()), other.clone()).as_ref(), Some(one));
                assert_eq!(more_specific(Some(other.clone()), one.clone()).as_ref(), Some(one));
            }
        }
    }
}
