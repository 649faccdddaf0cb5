//! Writes the status page from the numbers of the daemon.
//!
//! The page begins with what needs attention, in words. No address of a person, no host's reply and no
//! subject is part of it. Mailboxes and commands of this host's users are one row each.

use jiff::tz::TimeZone;

use super::html::Html;
use super::{charts, traffic, words};
use crate::control::matters;
use crate::stats::{AGES, Census, Gauges, Hour};

/// The maximum number of running deliveries that are listed.
const MAX_RUNNING: usize = 20;

/// A delivery that is being made.
#[derive(Debug, Clone)]
pub struct Running {
    /// The queue id of the message.
    pub id: String,
    /// The seconds since the delivery began.
    pub since: u64,
    /// What is being done at this moment; empty if that is not known.
    pub stage: &'static str,
    /// The other host; empty if there is none yet, or if the delivery is to this host.
    pub host: String,
}

/// Everything that the page shows.
pub struct Picture<'a> {
    /// The name of this host.
    pub hostname: &'a str,
    /// What is true now.
    pub gauges: &'a Gauges,
    /// The deliveries that are being made.
    pub running: &'a [Running],
    /// The hours to show, the oldest first.
    pub hours: &'a [Hour],
    /// The time zone of this host.
    pub zone: &'a TimeZone,
}

/// Returns the page.
pub fn page(picture: &Picture<'_>) -> String {
    let mut html = Html::default();
    let gauges = picture.gauges;
    html.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.raw("<meta http-equiv=\"refresh\" content=\"60\">\n");
    html.raw("<link rel=\"icon\" href=\"/icon.svg\" type=\"image/svg+xml\">\n");
    html.raw("<link rel=\"stylesheet\" href=\"/style.css\">\n");
    html.element("<title>Mail at ", picture.hostname, "</title>\n</head>\n<body>\n<header>\n");
    html.element("<h1>Mail at ", picture.hostname, "</h1>\n");
    let time = |seconds, format| words::time(seconds, picture.zone, format);
    html.element("<p>", time(gauges.now, "%A, %-d %B %Y, %H:%M:%S %Z"), ". penfold ").text(gauges.version);
    html.element(", running since ", time(gauges.started, "%-d %B, %H:%M"), ".</p>\n</header>\n<main>\n");
    attention(&mut html, picture);
    now(&mut html, gauges);
    if let Some(queue) = &gauges.queue {
        destinations(&mut html, queue);
    }
    running(&mut html, picture.running);
    traffic::sections(&mut html, picture.hours, picture.zone);
    certificates(&mut html, picture);
    html.raw("</main>\n<footer>\n<p>The page is loaded again every minute. ");
    html.raw("<a href=\"/metrics\">The numbers as OpenMetrics</a>. More: <code>penfoldctl help</code>.</p>\n");
    html.raw("</footer>\n</body>\n</html>\n");
    html.into_text()
}

/// Writes what needs attention, or that nothing does.
fn attention(html: &mut Html, picture: &Picture<'_>) {
    let found = matters(picture.gauges);
    if found.is_empty() {
        html.raw("<p class=\"well\">Nothing needs attention.</p>\n");
        return;
    }
    html.raw("<section class=\"attention\">\n<h2>Needs attention</h2>\n<ul>\n");
    for complaint in found {
        html.element("<li>", complaint, "</li>\n");
    }
    html.raw("</ul>\n</section>\n");
}

/// Writes the tiles with the most important numbers.
fn now(html: &mut Html, gauges: &Gauges) {
    html.raw("<section>\n<h2>Now</h2>\n<dl class=\"tiles\">\n");
    let mut tile = |name: &str, value: String, more: String| {
        html.element("<div><dt>", name, "</dt>").element("<dd>", value, "").element(
            "<small>",
            more,
            "</small></dd></div>\n",
        );
    };
    let count = |number: usize| words::count(number as u64);
    if let Some(queue) = &gauges.queue {
        let about = if queue.is_estimate { "about " } else { "" };
        // Held messages count, as in the listing of the queue. Their sizes are not known here.
        let held = gauges.held.unwrap_or_default();
        let without = if held > 0 { " without the held ones" } else { "" };
        let size = format!("{about}{}{without}", words::size(queue.octets));
        tile("Queue", words::counted(queue.messages + held, "message"), size);
        let oldest = if queue.messages > 0 { words::duration(queue.oldest) } else { "\u{2013}".to_owned() };
        tile("Oldest message", oldest, format!("{} held", count(held)));
        let mut waiting =
            format!("{} waiting for their next attempt, {} ready", count(queue.waiting), count(queue.ready));
        if queue.until > 0 {
            waiting += &format!(", {} kept until a time", count(queue.until));
        }
        tile("Deliveries", format!("{} running", count(queue.running)), waiting);
        tile("Workers", format!("{} of {} busy", count(queue.running), count(gauges.workers)), String::new());
    }
    let (open, most) = gauges.connections;
    tile("Connections", words::counted(open, "client"), format!("at most {}", count(most)));
    let states = gauges.destinations.iter().filter(|(_, number)| *number > 0);
    let states: Vec<String> = states.map(|(state, number)| format!("{} {state}", count(*number))).collect();
    let known = gauges.destinations.iter().map(|(_, number)| number).sum();
    tile("Destinations", format!("{} in use", count(known)), states.join(", "));
    if let Some((free, all)) = gauges.disk {
        tile("Spool", format!("{} free", words::size(free)), format!("of {}", words::size(all)));
    }
    html.raw("</dl>\n</section>\n");
}

/// Writes the queue by destination and age.
fn destinations(html: &mut Html, queue: &Census) {
    html.raw("<section>\n<h2>Queue by destination and age</h2>\n");
    let rows = queue.public_destinations();
    if rows.is_empty() {
        html.raw("<p>No message waits.</p>\n</section>\n");
        return;
    }
    html.raw("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Queue by destination and age\">\n");
    html.raw("<table class=\"ages\">\n<thead><tr><th scope=\"col\">Destination</th><th scope=\"col\">Messages</th>");
    html.raw("<td></td>");
    for (at, (age, _)) in AGES.iter().enumerate() {
        let upto = if *age == "older" { "" } else { "\u{2264}\u{202f}" };
        html.raw("<th scope=\"col\"").attribute("class", format_args!("age{at}")).element(">", upto, "").text(age);
        html.raw("</th>");
    }
    html.raw("<th scope=\"col\">Oldest</th></tr></thead>\n<tbody>\n");
    let most = rows.iter().map(|row| row.jobs).max().unwrap_or_default();
    for row in &rows {
        html.element("<tr><th scope=\"row\">", shown_name(&row.name), "</th><td>")
            .text(words::count(row.jobs as u64))
            .raw("</td><td>");
        charts::parts(html, &row.ages, most);
        html.raw("</td>");
        for count in row.ages {
            let shown = if count == 0 { "\u{b7}".to_owned() } else { words::count(count as u64) };
            html.element("<td>", shown, "</td>");
        }
        html.element("<td>", words::duration(row.oldest), "</td></tr>\n");
    }
    html.raw("</tbody>\n</table>\n</div>\n");
    let more = queue.all_destinations.saturating_sub(queue.destinations.len());
    if more > 0 {
        html.element("<p>And ", words::counted(more, "destination"), " with fewer messages.</p>\n");
    }
    if queue.is_estimate {
        html.raw("<p>The queue is long, so the table is an estimate from a part of it.</p>\n");
    }
    html.raw("</section>\n");
}

/// Returns the words for a destination that is not another host.
pub fn shown_name(name: &str) -> &str {
    match name {
        "local" => "this host",
        "store" => "mail stores",
        "users" => "mailboxes of users",
        "commands" => "commands of users",
        _ => name,
    }
}

/// Writes the deliveries that are being made, the longest first.
fn running(html: &mut Html, running: &[Running]) {
    html.raw("<section>\n<h2>Running now</h2>\n");
    if running.is_empty() {
        html.raw("<p>No delivery is running.</p>\n</section>\n");
        return;
    }
    let mut jobs: Vec<&Running> = running.iter().collect();
    jobs.sort_by(|a, b| b.since.cmp(&a.since).then_with(|| a.id.cmp(&b.id)));
    html.raw("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Running now\">\n");
    html.raw("<table class=\"running\">\n<thead><tr><th scope=\"col\">Message</th><th scope=\"col\">For</th>");
    html.raw("<th scope=\"col\">Stage</th><th scope=\"col\">Host</th></tr></thead>\n<tbody>\n");
    for job in jobs.iter().take(MAX_RUNNING) {
        html.element("<tr><th scope=\"row\"><code>", &job.id, "</code></th>");
        html.element("<td>", words::duration(job.since), "</td>").element("<td>", job.stage, "</td>");
        html.element("<td>", &job.host, "</td></tr>\n");
    }
    html.raw("</tbody>\n</table>\n</div>\n");
    if let more @ 1.. = jobs.len().saturating_sub(MAX_RUNNING) {
        html.element("<p>And ", words::count(more as u64), " more.</p>\n");
    }
    html.raw("</section>\n");
}

/// Writes the certificates and when they expire.
fn certificates(html: &mut Html, picture: &Picture<'_>) {
    let all = &picture.gauges.certificates;
    if all.is_empty() {
        return;
    }
    html.raw("<section>\n<h2>Certificates</h2>\n");
    html.raw("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Certificates\">\n");
    html.raw("<table>\n<thead><tr><th scope=\"col\">File</th>");
    html.raw("<th scope=\"col\">Expires</th><th scope=\"col\">In</th></tr></thead>\n<tbody>\n");
    for certificate in all {
        let expires = words::time(certificate.expires, picture.zone, "%-d %B %Y, %H:%M");
        let left = certificate.expires.checked_sub(picture.gauges.now);
        let left = left.map_or_else(|| "expired".to_owned(), words::duration);
        html.element("<tr><th scope=\"row\">", &certificate.file, "</th>").element("<td>", expires, "</td>");
        html.element("<td>", left, "</td></tr>\n");
    }
    html.raw("</tbody>\n</table>\n</div>\n</section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Certificate, Counts, Family, Load};

    fn load(name: &str, jobs: usize) -> Load {
        Load { name: name.into(), jobs, ages: [jobs, 0, 0, 0, 0, 0], oldest: 100, ..Load::default() }
    }

    /// A busy server in trouble.
    fn gauges() -> Gauges {
        let destinations = vec![load("user:jon", 3), load("<b>.example", 2), load("user:anna", 1)];
        let queue = Census {
            messages: 6,
            running: 2,
            until: 3,
            destinations,
            all_destinations: 9,
            is_estimate: true,
            ..Census::default()
        };
        let file = |file: &str, expires| Certificate { file: file.into(), expires };
        Gauges {
            now: 1_000_000,
            queue: Some(queue),
            held: Some(1),
            workers: 2,
            connections: (950, 1000),
            destinations: vec![("up", 1), ("down", 2)],
            certificates: vec![file("/old.pem", 999_999), file("/soon.pem", 1_086_400), file("/new.pem", 9_000_000)],
            disk: Some((5, 100)),
            inodes: Some((50, 100)),
            ..Gauges::default()
        }
    }

    fn shown(gauges: &Gauges, running: &[Running], hours: &[Hour]) -> String {
        page(&Picture { hostname: "mx.example.org", gauges, running, hours, zone: &TimeZone::UTC })
    }

    #[test]
    fn what_needs_attention_comes_first_in_words() {
        let html = shown(&gauges(), &[], &[]);
        let (before, after) = html.split_once("<h2>Now</h2>").expect("the numbers");
        for matter in matters(&gauges()) {
            assert!(before.contains(&format!("<li>{matter}</li>\n").replace('\'', "&#39;")), "{matter}\n{before}");
        }
        assert!(after.contains("<dd>7 messages<small>") && after.contains("<small>1 held</small>"), "{after}");
        assert!(after.contains(" 0 ready, 3 kept until a time</small>"), "{after}");
        let well = Gauges { workers: 2, is_scanned: true, queue: Some(Census::default()), ..Gauges::default() };
        assert!(shown(&well, &[], &[]).contains("Nothing needs attention."));
    }

    #[test]
    fn the_page_escapes_names_and_groups_users() {
        let jobs: Vec<Running> = (0..30)
            .map(|n| Running { id: format!("ID{n}"), since: n, stage: "connecting", host: "<i>[192.0.2.1]:25".into() })
            .collect();
        let mut counts = Counts::default();
        counts.add(Family::Refused, "<script>_x", 7);
        counts.add(Family::Deferred, "a.example|loop", 1);
        let html = shown(&gauges(), &jobs, &[Hour { start: 7200, counts }]);
        for part in [
            "<tr><th scope=\"row\">mailboxes of users</th><td>4</td>",
            "<tr><th scope=\"row\">&lt;b&gt;.example</th><td>2</td>",
            "And 6 destinations with fewer messages.",
            "the table is an estimate",
            "<tr><th scope=\"row\"><code>ID29</code></th><td>29 s</td><td>connecting</td><td>&lt;i&gt;[192.0.2.1]:25</td>",
            "And 10 more.",
            "<tr><th scope=\"row\">&lt;script&gt; x</th>",
            "<title>Thu 02:00: 7</title>",
            "<td>expired</td>",
        ] {
            assert!(html.contains(part), "{part}\n{html}");
        }
        assert!(!html.contains("jon") && !html.contains("<script") && !html.contains("style="));
        let opened = html.matches("<section").count();
        assert_eq!(
            (html.matches("</section>").count(), html.matches("</table>").count()),
            (opened, html.matches("<table").count())
        );
    }
}
