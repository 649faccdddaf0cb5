//! Writes the part of the status page about the last hours: traffic, refusals, delays and TLS.

use jiff::tz::TimeZone;

use super::html::Html;
use super::page::shown_name;
use super::{charts, words};
use crate::stats::{Counts, Family, Hour};

/// The maximum number of rows in a list of reasons.
const MAX_ROWS: usize = 10;

/// A function that takes a number from the counts of an hour.
type Number = fn(&Counts) -> u64;

/// The charts: the name of each, and its numbers.
const CHARTS: [(&str, Number); 5] = [
    ("Messages accepted", |counts| counts.total(Family::Accepted)),
    ("Recipients delivered", |counts| counts.with_label(Family::Attempts, 1, "sent")),
    ("Attempts deferred", |counts| counts.with_label(Family::Attempts, 1, "deferred")),
    ("Recipients failed", |counts| counts.with_label(Family::Attempts, 1, "failed")),
    ("Commands refused", |counts| counts.total(Family::Refused)),
];

/// Writes all sections about these hours.
pub fn sections(html: &mut Html, hours: &[Hour], zone: &TimeZone) {
    let mut all = Counts::default();
    hours.iter().for_each(|hour| all.merge(&hour.counts));
    html.element("<section>\n<h2>The last ", hours.len(), " hours</h2>\n<nav>");
    for (length, link) in [(24, "<a href=\"/?hours=24\">24 hours</a>"), (48, "<a href=\"/?hours=48\">48 hours</a>")] {
        match (length == hours.len(), length) {
            (false, _) => html.raw(link),
            (true, length) => html.element("<span>", length, " hours</span>"),
        };
        html.raw(" ");
    }
    html.raw("</nav>\n<div class=\"charts\">\n");
    for (name, number) in CHARTS {
        chart(html, name, hours, zone, number);
    }
    html.raw("</div>\n");
    table(html, hours, zone);
    html.raw("</section>\n");
    html.raw("<div class=\"columns\">\n");
    list(html, "Refused, by reason", &all, Family::Refused, 0);
    list(html, "Deferred, by reason", &all, Family::Deferred, 1);
    list(html, "Deferred, by destination", &all, Family::Deferred, 0);
    list(html, "Failed, by reason", &all, Family::Failed, 0);
    list(html, "Encryption of clients", &all, Family::TlsIn, 0);
    list(html, "Encryption to other hosts", &all, Family::TlsOut, 0);
    html.raw("</div>\n");
    delays(html, &all);
}

/// Writes a chart with a bar for each hour.
fn chart(html: &mut Html, name: &str, hours: &[Hour], zone: &TimeZone, number: Number) {
    let values: Vec<(String, u64)> = hours
        .iter()
        .map(|hour| {
            let value = number(&hour.counts);
            (format!("{}: {}", words::time(hour.start, zone, "%a %H:%M"), words::count(value)), value)
        })
        .collect();
    let total = values.iter().fold(0, |sum: u64, (_, value)| sum.saturating_add(*value));
    let most = values.iter().map(|(_, value)| *value).max().unwrap_or_default();
    let (total, most) = (words::count(total), words::count(most));
    html.element("<figure><figcaption>", name, " <b>").text(&total);
    html.element("</b> <small>at most ", &most, " an hour</small></figcaption>");
    charts::bars(html, &format!("{name}: {total}, at most {most} an hour"), &values);
    html.raw("<p class=\"axis\">");
    for at in [0, hours.len() / 2] {
        let hour = hours.get(at).map(|hour| words::time(hour.start, zone, "%a %H:%M")).unwrap_or_default();
        html.element("<span>", hour, "</span>");
    }
    html.raw("<span>now</span></p></figure>\n");
}

/// Writes the numbers of the charts as a table, which is shown on request.
fn table(html: &mut Html, hours: &[Hour], zone: &TimeZone) {
    html.raw("<details><summary>As a table</summary>\n");
    html.raw("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"The last hours\">\n<table>\n<thead><tr>");
    html.raw("<th scope=\"col\">Hour</th>");
    for (name, _) in CHARTS {
        html.element("<th scope=\"col\">", name, "</th>");
    }
    html.raw("</tr></thead>\n<tbody>\n");
    for hour in hours.iter().rev() {
        html.element("<tr><th scope=\"row\">", words::time(hour.start, zone, "%a %H:%M"), "</th>");
        for (_, number) in CHARTS {
            html.element("<td>", words::count(number(&hour.counts)), "</td>");
        }
        html.raw("</tr>\n");
    }
    html.raw("</tbody>\n</table>\n</div>\n</details>\n");
}

/// Writes the largest numbers of a family by its first label (0) or its second one (1), with their
/// shares.
fn list(html: &mut Html, title: &str, all: &Counts, family: Family, label: usize) {
    let sums = all.by_label(family, label);
    let (rows, rest) = sums.top(family, MAX_ROWS);
    let total = sums.total(family);
    html.element("<section>\n<h2>", title, "</h2>\n");
    if rows.is_empty() {
        html.raw("<p>None.</p>\n</section>\n");
        return;
    }
    html.raw("<table class=\"shares\">\n<tbody>\n");
    let rest = (rest > 0).then_some(("all others", rest));
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or_default().max(rest.map_or(0, |rest| rest.1));
    for (name, count) in rows.into_iter().chain(rest) {
        let name = if name == "none" { "no encryption" } else { shown_name(name) };
        // A reason is the key of its text, such as no_answer_from_host.
        let name = if title.ends_with("reason") { name.replace('_', " ") } else { name.to_owned() };
        html.element("<tr><th scope=\"row\">", name, "</th><td>");
        charts::bar(html, count, most);
        html.element("</td><td>", words::count(count), "</td><td>");
        html.element("", percent(count, total), "</td></tr>\n");
    }
    html.raw("</tbody>\n</table>\n</section>\n");
}

/// Returns a share, such as `12 %`.
fn percent(count: u64, total: u64) -> String {
    let tenths = u128::from(count) * 1000 / u128::from(total.max(1));
    match tenths {
        0 if count > 0 => "< 0.1\u{202f}%".to_owned(),
        0..100 => format!("{}.{}\u{202f}%", tenths / 10, tenths % 10),
        _ => format!("{}\u{202f}%", (tenths + 5) / 10),
    }
}

/// Writes the ages of messages at their delivery.
fn delays(html: &mut Html, all: &Counts) {
    html.raw("<section>\n<h2>Delays</h2>\n");
    let places = [("local", "Mailboxes here"), ("store", "Mail stores"), ("remote", "Other hosts")];
    let used: Vec<_> = places
        .into_iter()
        .filter_map(|(place, name)| Some((name, all.delays(place))).filter(|(_, delays)| delays.count() > 0))
        .collect();
    if used.is_empty() {
        html.raw("<p>Nothing was delivered.</p>\n</section>\n");
        return;
    }
    html.raw("<p>The time from acceptance to delivery, for each recipient.</p>\n");
    html.raw("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Delays\">\n<table>\n<thead><tr>");
    html.raw("<th scope=\"col\">Delivered to</th><th scope=\"col\">Recipients</th><th scope=\"col\">Half within</th>");
    html.raw(
        "<th scope=\"col\">90\u{202f}% within</th><th scope=\"col\">99\u{202f}% within</th></tr></thead>\n<tbody>\n",
    );
    for (name, delays) in used {
        html.element("<tr><th scope=\"row\">", name, "</th><td>").text(words::count(delays.count())).raw("</td>");
        for percent in [50, 90, 99] {
            html.element("<td>", delays.percentile(percent).map(words::delay).unwrap_or_default(), "</td>");
        }
        html.raw("</tr>\n");
    }
    html.raw("</tbody>\n</table>\n</div>\n</section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_and_never_vanish() {
        for (count, total, expected) in
            [(0, 0, "0.0"), (1, 3, "33"), (1, 2000, "< 0.1"), (3, 100, "3.0"), (999, 1000, "100"), (5, 5, "100")]
        {
            assert_eq!(percent(count, total), format!("{expected}\u{202f}%"), "{count} of {total}");
        }
    }
}
