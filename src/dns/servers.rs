//! Asks name servers, one after the other, until one has an answer.
//!
//! That a name does not exist is an answer. SERVFAIL, REFUSED and the like, a referral, a
//! malformed message and silence are none: the next server is asked. While one is
//! silent the next is asked after [`Servers::pause`], and whichever answers first
//! counts. A server that was silent comes last for [`ILL_FOR`]. The resolver's library
//! repeats datagrams that were lost, and asks over TCP what did not fit in one.
//!
//! Every server is asked with EDNS first, and without in the end, or at once where it
//! says FORMERR, NOTIMP or BADVERS. If only that brought an answer, it is not asked with
//! EDNS for a while. Nothing goes on beyond the deadline of the look-up.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
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

use super::answer::{Found, MAX_ALIASES, Read, in_a_circle, read};
use crate::outcome::NoAnswer;

/// For how long a server that was silent is asked after the others.
const ILL_FOR: Duration = Duration::from_secs(30);
/// For how long one that said so is not asked with EDNS, and one that was silent to it.
const NO_EDNS_FOR: Duration = Duration::from_secs(3600);
const DEAF_FOR: Duration = Duration::from_secs(300);
/// For how long it is certain that a server knows EDNS, and was silent for another reason.
const KNOWS_EDNS_FOR: Duration = Duration::from_secs(600);
/// The longest time until the next server is asked too.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Questions to one server over one TCP connection.
const MOST_AT_ONCE: usize = 1024;

/// The name servers, the preferred one first.
pub(super) struct Servers {
    list: Vec<Arc<Server>>,
    /// The addresses, for people.
    words: Arc<str>,
    timeout: Duration,
}

struct Server {
    /// Each shares questions that are under way, and takes those with and without EDNS for
    /// the same.
    with_edns: NameServerPool<TokioRuntimeProvider>,
    without: NameServerPool<TokioRuntimeProvider>,
    begun: Instant,
    /// Milliseconds after `begun`, as all that follow; zero is never.
    answered: AtomicU64,
    knows_edns_until: AtomicU64,
    ill_until: AtomicU64,
    no_edns_until: AtomicU64,
}

/// One question to one server.
#[derive(Clone, Copy)]
struct Step {
    server: usize,
    edns: bool,
    /// Without EDNS because the server has just said that it does not know it.
    told: bool,
}

/// What came of it.
enum Said {
    Answer(Message),
    /// There is no such name or no such record, which holds for so many seconds.
    Nothing(NoAnswer, u32),
    /// It does not know EDNS, or not what is asked.
    WhatIsEdns(ResponseCode),
    Trouble(NoAnswer),
}

impl Servers {
    /// Must be called inside of the runtime.
    pub(super) fn new(addresses: &[SocketAddr], timeout: Duration) -> Self {
        let mut options = ResolverOpts::default();
        options.timeout = timeout;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.num_concurrent_reqs = 1;
        options.max_active_requests = MOST_AT_ONCE;
        // Without TLS nothing can fail here.
        let context = |tls| Arc::new(PoolContext::new(options.clone(), tls));
        let server = |&address| Some(Arc::new(Server::new(address, context(TlsConfig::new().ok()?))));
        Self { list: addresses.iter().filter_map(server).collect(), words: words(addresses).into(), timeout }
    }

    /// The data of a type for a name, aliases followed, and for how many seconds it holds.
    pub(super) async fn look_up(&self, mut name: Name, kind: RecordType, until: Instant) -> (Found, u32) {
        let mut lifetime = u32::MAX;
        for _ in 0..=MAX_ALIASES {
            let message = match self.ask(Query::query(name.clone(), kind), until).await {
                Ok(message) => message,
                Err((trouble, seconds)) => return (Err(trouble), lifetime.min(seconds)),
            };
            match read(&message, &name, kind, lifetime) {
                Read::Data(data, seconds) => return (Ok(data), seconds),
                Read::Nothing(trouble) => return (Err(trouble), 0),
                Read::Alias(to, seconds) => (name, lifetime) = (to, seconds),
            }
        }
        (Err(in_a_circle()), 0)
    }

    async fn ask(&self, query: Query, until: Instant) -> Result<Message, (NoAnswer, u32)> {
        let mut plan = VecDeque::from(self.plan());
        let mut asked = JoinSet::new();
        // Those that need not be asked again.
        let mut done = vec![false; self.list.len()];
        let mut trouble = None;
        loop {
            plan.retain(|step| !done[step.server]);
            let step = plan.pop_front();
            let begun = step.map(|step| self.begin(&mut asked, step, &query));
            if asked.is_empty() {
                break;
            }
            let wait = if plan.is_empty() { until } else { until.min(Instant::now() + self.pause()) };
            let Ok(said) = timeout_at(wait.into(), asked.join_next()).await else {
                if let (Some(step), Some(begun)) = (step, begun) {
                    self.list[step.server].note_silence(begun);
                }
                if Instant::now() >= until {
                    break;
                }
                continue;
            };
            // A question that panicked has no answer.
            let Some(Ok((step, said))) = said else { continue };
            match said {
                Said::Answer(message) => return Ok(message),
                Said::Nothing(what, seconds) => return Err((what, seconds)),
                Said::WhatIsEdns(_) if step.edns => plan.push_front(Step { edns: false, told: true, ..step }),
                Said::WhatIsEdns(code) => {
                    done[step.server] = true;
                    trouble = worse(trouble, not_understood(code));
                }
                Said::Trouble(what) => {
                    // What it cannot do with EDNS, it may without.
                    done[step.server] = !step.edns || what == NoAnswer::Refused;
                    trouble = worse(trouble, what);
                }
            }
        }
        Err((trouble.unwrap_or(NoAnswer::Timeout), 0))
    }

    /// Each server with EDNS where that may be, and then without, unless it is known to know
    /// EDNS: what it does not answer then has other reasons.
    fn plan(&self) -> Vec<Step> {
        let mut order: Vec<(usize, &Arc<Server>)> = self.list.iter().enumerate().collect();
        order.sort_by_key(|(_, server)| server.is_before(&server.ill_until));
        let step = |server, edns| Step { server, edns, told: false };
        let first = order.iter().map(|(at, server)| step(*at, !server.is_before(&server.no_edns_until)));
        let doubtful = order.iter().filter(|(_, server)| !server.is_before(&server.knows_edns_until));
        first.chain(doubtful.map(|(at, _)| step(*at, false))).collect()
    }

    /// How long one server may be silent until the next step.
    fn pause(&self) -> Duration {
        let steps = u32::try_from(2 * self.list.len() + 2).unwrap_or(u32::MAX);
        (self.timeout / steps).min(LONGEST_PAUSE)
    }

    /// Asks; says when, by the server's clock.
    fn begin(&self, asked: &mut JoinSet<(Step, Said)>, step: Step, query: &Query) -> u64 {
        let (server, query, words) = (Arc::clone(&self.list[step.server]), query.clone(), Arc::clone(&self.words));
        let now = server.now();
        asked.spawn(async move { (step, server.ask(query, step, &words).await) });
        now
    }
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words)
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
            knows_edns_until: AtomicU64::new(0),
            ill_until: AtomicU64::new(0),
            no_edns_until: AtomicU64::new(0),
        }
    }

    async fn ask(&self, query: Query, step: Step, words: &str) -> Said {
        let mut options = DnsRequestOptions::default();
        options.use_edns = step.edns;
        let pool = if step.edns { &self.with_edns } else { &self.without };
        let said = classify(pool.lookup(query, options).first_answer().await, words);
        self.note(&said, step);
        said
    }

    /// What an answer shows of the server.
    fn note(&self, said: &Said, step: Step) {
        let is_answer = matches!(said, Said::Answer(_) | Said::Nothing(..));
        if matches!(said, Said::Trouble(NoAnswer::Timeout | NoAnswer::Other(_))) {
            return;
        }
        let now = self.now();
        self.answered.store(now, Relaxed);
        self.ill_until.store(0, Relaxed);
        if !is_answer {
        } else if step.edns {
            self.knows_edns_until.store(now + millis(KNOWS_EDNS_FOR), Relaxed);
            self.no_edns_until.store(0, Relaxed);
        } else if step.told {
            self.no_edns_until.store(now + millis(NO_EDNS_FOR), Relaxed);
        } else if !self.is_before(&self.knows_edns_until) && !self.is_before(&self.no_edns_until) {
            // Only without did it answer.
            self.no_edns_until.store(now + millis(DEAF_FOR), Relaxed);
        }
    }

    /// It did not answer for a while. That it answered others meanwhile shows that only
    /// this name is slow.
    fn note_silence(&self, since: u64) {
        if self.answered.load(Relaxed) < since {
            self.ill_until.store(self.now() + millis(ILL_FOR), Relaxed);
        }
    }

    /// Never zero.
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

/// The addresses of servers, with a port that is not the usual one.
pub(super) fn words(servers: &[SocketAddr]) -> String {
    let address = |server: &SocketAddr| match server.port() {
        53 => server.ip().to_string(),
        _ => server.to_string(),
    };
    servers.iter().map(address).collect::<Vec<_>>().join(", ")
}

fn classify(result: Result<impl Into<Message>, NetError>, words: &str) -> Said {
    match result {
        Ok(response) => Said::Answer(response.into()),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain => Said::Nothing(NoAnswer::NxDomain, none.negative_ttl.unwrap_or(0)),
            // Ask others: that is what it was asked for.
            _ if none.ns.is_some() && none.soa.is_none() => Said::Trouble(NoAnswer::ServFail),
            _ => Said::Nothing(NoAnswer::NoData, none.negative_ttl.unwrap_or(0)),
        },
        Err(NetError::Dns(DnsError::ResponseCode(code))) => match code {
            ResponseCode::ServFail => Said::Trouble(NoAnswer::ServFail),
            ResponseCode::Refused => Said::Trouble(NoAnswer::Refused),
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS => Said::WhatIsEdns(code),
            other => Said::Trouble(not_understood(other)),
        },
        Err(NetError::Timeout) => Said::Trouble(NoAnswer::Timeout),
        Err(NetError::NoConnections) => Said::Trouble(unreachable(words, "")),
        Err(NetError::Io(error)) => Said::Trouble(unreachable(words, &format!(": {error}"))),
        Err(other) => Said::Trouble(NoAnswer::Other(other.to_string().replace(char::is_control, "?"))),
    }
}

fn unreachable(words: &str, why: &str) -> NoAnswer {
    NoAnswer::Other(format!("no name server could be reached ({words}){why}"))
}

fn not_understood(code: ResponseCode) -> NoAnswer {
    NoAnswer::Other(format!("the name server does not answer such questions ({code})"))
}

/// The trouble that tells more.
fn worse(one: Option<NoAnswer>, other: NoAnswer) -> Option<NoAnswer> {
    let rank = |trouble: &NoAnswer| match trouble {
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
    fn without_a_name_server_it_is_said_whom_we_looked_for() {
        let asked = |servers: &[&str]| {
            let servers: Vec<SocketAddr> = servers.iter().map(|text| text.parse().expect("an address")).collect();
            match classify(Err::<Message, _>(NetError::NoConnections), &words(&servers)) {
                Said::Trouble(NoAnswer::Other(text)) => text,
                _ => panic!("{servers:?}"),
            }
        };
        let says = |who| format!("no name server could be reached ({who})");
        assert_eq!(asked(&["192.0.2.53:53", "127.0.0.1:5353"]), says("192.0.2.53, 127.0.0.1:5353"));
        assert_eq!(asked(&["[2001:db8::1]:53"]), says("2001:db8::1"));
    }

    #[test]
    fn what_tells_more_is_told() {
        let all = [NoAnswer::ServFail, NoAnswer::Refused, NoAnswer::Other("x".into()), NoAnswer::Timeout];
        for (rank, one) in all.iter().enumerate() {
            for other in &all[rank..] {
                assert_eq!(worse(Some(one.clone()), other.clone()).as_ref(), Some(one));
                assert_eq!(worse(Some(other.clone()), one.clone()).as_ref(), Some(one));
            }
        }
    }
}
