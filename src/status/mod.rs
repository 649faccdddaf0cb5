//! Serves the status page and the metrics over HTTP, at listeners of `kind = "status"`.
//!
//! The listeners are on loopback addresses or Unix sockets only, and there is no login: every user of
//! this host that can connect may read the page. So nothing here names a person. Destinations are
//! domains or hosts, and users of this host are shown as a group. The numbers come from `stats` and
//! `control`. They are collected at most once a second, however many clients ask, and less often while
//! that takes long.
//!
//! - `charts`: charts in SVG
//! - `html`: HTML in which every text is escaped
//! - `http`: HTTP without I/O: requests and the heads of responses
//! - `page`: the status page: the present state
//! - `server`: connections, deadlines and limits
//! - `traffic`: the part of the page about the last hours
//! - `words`: sizes, durations and times for people

mod charts;
mod html;
pub mod http;
mod page;
mod server;
mod traffic;
mod words;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use crate::activity;
use crate::control;
use crate::listen::{Listener, Server};
use crate::log;
use crate::queue::{Event, RunningJob};
use crate::site::Site;
use crate::stats::openmetrics::{self, Exposition};
use crate::stats::{self, Gauges};
use crate::sys;
use http::{Refusal, Request};
use page::{Picture, Running};
use server::{Connections, Page, Pages};

/// The numbers are collected again after this time, at the earliest.
const MIN_AGE: Duration = Duration::from_secs(1);
/// The numbers are used for at least this many times the duration of their collection, so that long
/// queues are not counted all the time.
const REUSE: u32 = 20;
/// How long the queue may take for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The hours that the page shows, unless the query asks for all that are known.
const HOURS: usize = 24;
const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("icon.svg");

/// What a request can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The page, with this number of hours.
    Page(usize),
    /// The metrics.
    Metrics(Exposition),
}

/// The parts of the daemon that the pages are made from, and the open connections.
pub struct Status {
    /// The state that all parts of the daemon share.
    site: Arc<Site>,
    /// The channel for events to the queue.
    events: Sender<Event>,
    /// The server that accepts mail.
    server: Arc<Server>,
    connections: Arc<Connections>,
    /// The latest numbers. The lock is held while numbers are collected and while a page is made.
    moment: Mutex<Option<Moment>>,
}

/// The numbers of one moment, and the pages that were made from them.
struct Moment {
    gauges: Gauges,
    /// The time from which the numbers are too old.
    until: Instant,
    pages: Vec<(Wanted, Page)>,
}

impl Status {
    /// Makes the status from the parts of the daemon.
    pub fn new(site: Arc<Site>, events: Sender<Event>, server: Arc<Server>) -> Arc<Self> {
        Arc::new(Self { site, events, server, connections: Arc::default(), moment: Mutex::default() })
    }

    /// Answers requests at a listener until the server is closed.
    pub fn serve(self: &Arc<Self>, listener: &Listener) {
        let ours = Arc::clone(self);
        let pages: Arc<Pages> = Arc::new(move |request: &Request| ours.page(request));
        let own_name = || self.site.settings().config.hostname.clone();
        server::serve(listener, &self.server, &self.connections, own_name, &pages);
    }

    /// Returns the page for a request.
    fn page(&self, request: &Request) -> Result<Page, Refusal> {
        match request.path.as_str() {
            "/" => Ok(self.current(Wanted::Page(hours(&request.query)))),
            "/metrics" => Ok(self.current(Wanted::Metrics(exposition(&request.accept)))),
            "/style.css" => Ok(Page { media_type: "text/css; charset=utf-8", content: STYLE.into() }),
            "/icon.svg" | "/favicon.ico" => Ok(Page { media_type: "image/svg+xml", content: ICON.into() }),
            _ => Err(Refusal::NotFound),
        }
    }

    /// Returns a page from the numbers of this moment.
    fn current(&self, wanted: Wanted) -> Page {
        let mut moment = self.moment.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = match moment.take().filter(|moment| Instant::now() < moment.until) {
            Some(recent) => moment.insert(recent),
            None => moment.insert(self.collect()),
        };
        if let Some((_, page)) = moment.pages.iter().find(|(of, _)| *of == wanted) {
            return page.clone();
        }
        let page = match wanted {
            Wanted::Page(hours) => {
                Page { media_type: "text/html; charset=utf-8", content: self.picture(&moment.gauges, hours).into() }
            }
            Wanted::Metrics(format) => {
                let text = openmetrics::text(Some(&stats::since_start()), &moment.gauges, format);
                Page { media_type: format.media_type(), content: text.into() }
            }
        };
        moment.pages.push((wanted, page.clone()));
        page
    }

    fn collect(&self) -> Moment {
        let began = Instant::now();
        let gauges = control::gauges(&self.site, &self.server, &self.events);
        let now = Instant::now();
        let until = now + (now - began).saturating_mul(REUSE).max(MIN_AGE);
        Moment { gauges, until, pages: Vec::new() }
    }

    fn picture(&self, gauges: &Gauges, hours: usize) -> String {
        let settings = self.site.settings();
        let known = stats::recent_hours(sys::now());
        let shown = known.get(known.len().saturating_sub(hours)..).unwrap_or_default();
        page::page(&Picture {
            hostname: &settings.config.hostname,
            gauges,
            running: &self.running(),
            hours: shown,
            zone: log::zone(),
        })
    }

    /// Returns the deliveries that are being made.
    fn running(&self) -> Vec<Running> {
        let (sender, answer) = bounded(1);
        let sent = self.events.send(Event::Running(None, sender));
        let jobs = sent.ok().and_then(|()| answer.recv_timeout(ANSWER_TIMEOUT).ok()).unwrap_or_default();
        jobs.iter().map(shown_job).collect()
    }
}

fn shown_job(job: &RunningJob) -> Running {
    let activity = activity::of(job.worker);
    let (stage, host) = activity.map(|activity| (activity.stage, activity.host)).unwrap_or_default();
    let host = if is_host(&host) { host } else { String::new() };
    Running { id: job.entry.id.to_string(), since: job.began.elapsed().as_secs(), stage, host }
}

/// Whether the text of an activity is a host with its address and port. A mailbox or a command would
/// name a user.
fn is_host(text: &str) -> bool {
    let port = text.rsplit_once("]:").map(|(_, port)| port);
    port.is_some_and(|port| port.parse::<u16>().is_ok()) && !text.contains(['/', '@', ' ', '|'])
}

/// Returns the number of hours that a query asks for.
fn hours(query: &str) -> usize {
    let is_all = query.split('&').any(|pair| pair == "hours=48");
    if is_all { 2 * HOURS } else { HOURS }
}

/// Returns the format of the metrics for an `Accept` field: the older one, unless the client knows
/// OpenMetrics.
fn exposition(accept: &str) -> Exposition {
    let is_known = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let is_type = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
        is_type && !parts.any(|part| matches!(part.split_once('='), Some(("q", "0" | "0.0" | "0.00" | "0.000"))))
    };
    if accept.split(',').any(is_known) { Exposition::OpenMetrics } else { Exposition::Prometheus }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_and_the_accepted_types_choose_a_form() {
        assert_eq!(["", "hours=24", "hours=48", "x&hours=48", "hours=-1"].map(hours), [24, 24, 48, 48, 24]);
        for (accept, expected) in [
            ("", Exposition::Prometheus),
            ("text/html,*/*;q=0.8", Exposition::Prometheus),
            ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", Exposition::OpenMetrics),
            ("text/plain, Application/OpenMetrics-Text; q=0.3", Exposition::OpenMetrics),
            ("application/openmetrics-text;q=0", Exposition::Prometheus),
        ] {
            assert_eq!(exposition(accept), expected, "{accept}");
        }
    }

    #[test]
    fn only_other_hosts_are_named() {
        for (text, expected) in [
            ("mx.example.org[192.0.2.1]:25", true),
            ("[2001:db8::1]:2525", true),
            ("/var/mail/jon", false),
            ("/home/jon/a[x]:25", false),
            ("vacation -a jon[x]:25", false),
            ("unix:/run/lmtp", false),
            ("", false),
        ] {
            assert_eq!(is_host(text), expected, "{text}");
        }
    }
}
