//! Writes a TLS report as JSON (RFC 8460 4.4), and the mail that carries it (RFC 8460 5.3). All
//! texts of strangers are escaped by the writer of JSON, so that they cannot have a meaning in it.

use super::Counted;
use super::row::{Failure, Row};
use crate::address::Address;
use crate::aggregate::{DAY, Mail, date, gzip};
use crate::json::Object;

/// A report about one domain and one day.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The name of this host.
    pub hostname: &'a str,
    /// The address that reports come from.
    pub sender: &'a Address,
    /// The day, in days since 1970.
    pub day: u64,
    /// The domain and its rows.
    pub counted: &'a Counted,
}

impl Report<'_> {
    /// Returns the report id. If this host makes the report again, the id is the same.
    pub fn id(&self) -> String {
        format!("{}.{}@{}", self.day * DAY, self.counted.domain, self.hostname)
    }

    /// Returns the report as JSON.
    pub fn json(&self) -> String {
        let date = date(self.day);
        let mut range = Object::new();
        range.text("start-datetime", &format!("{date}T00:00:00Z")).text("end-datetime", &format!("{date}T23:59:59Z"));
        let mut report = Object::new();
        report
            .text("organization-name", self.sender.domain())
            .object("date-range", &range)
            .text("contact-info", &self.sender.to_string())
            .text("report-id", &self.id())
            .objects("policies", self.policies());
        format!("{report}\n")
    }

    /// Returns the compressed report.
    pub fn compressed(&self) -> Vec<u8> {
        gzip::compress(self.json().as_bytes())
    }

    /// Returns the whole message for one address: header and body in ASCII, with lines that end in
    /// LF. `attachment` is the compressed report, `id` the queue id of the message. `now` is in
    /// seconds since 1970.
    pub fn mail(&self, attachment: &[u8], to: &Address, id: &str, now: u64) -> String {
        let Self { hostname, sender, day, counted: Counted { domain, .. } } = self;
        let fields = format!("TLS-Report-Domain: {domain}\nTLS-Report-Submitter: {hostname}\nTLS-Required: No\n");
        let text = format!(
            "This is a TLS report (RFC 8460) about connections to the mail hosts of\n{domain}\nthat {hostname}\n\
             has made on {} UTC.\n",
            date(*day)
        );
        let file = format!("{hostname}!{domain}!{}!{}.json.gz", day * DAY, day * DAY + DAY - 1);
        let mail = Mail {
            hostname,
            sender,
            domain,
            report_id: &self.id(),
            fields: &fields,
            media_type: "multipart/report; report-type=\"tlsrpt\"",
            text: &text,
            attachment_type: "application/tlsrpt+gzip",
            file: &file,
            attachment,
        };
        mail.to(to, id, now)
    }

    /// Returns the policies, those with the most connections first.
    fn policies(&self) -> Vec<Object> {
        let mut groups: Vec<Vec<&(Row, u64)>> = Vec::new();
        for counted in &self.counted.rows {
            let known =
                groups.iter_mut().find(|group| group.first().is_some_and(|(row, _)| row.has_policy_of(&counted.0)));
            match known {
                Some(group) => group.push(counted),
                None => groups.push(vec![counted]),
            }
        }
        groups.iter().filter_map(|group| self.policy(group)).collect()
    }

    /// Returns the counts for one policy. `group` has all its rows.
    fn policy(&self, group: &[&(Row, u64)]) -> Option<Object> {
        let (row, _) = group.first()?;
        let mut policy = Object::new();
        policy.text("policy-type", &row.policy_type).texts("policy-string", &row.policy);
        policy.text("policy-domain", &self.counted.domain);
        let hosts = hosts(row);
        if !hosts.is_empty() {
            policy.texts("mx-host", hosts);
        }
        let total = |is_failure| {
            let counts = group.iter().filter(|(row, _)| row.failure.is_some() == is_failure).map(|(_, count)| *count);
            counts.fold(0, u64::saturating_add)
        };
        let mut summary = Object::new();
        summary.number("total-successful-session-count", total(false));
        summary.number("total-failure-session-count", total(true));
        let details =
            group.iter().filter_map(|(row, count)| row.failure.as_ref().map(|failure| detail(failure, *count)));
        let details: Vec<Object> = details.collect();
        let mut all = Object::new();
        all.object("policy", &policy).object("summary", &summary);
        if !details.is_empty() {
            all.objects("failure-details", details);
        }
        Some(all)
    }
}

/// The mail hosts of a policy: the patterns of MTA-STS, or the host with the TLSA records.
fn hosts(row: &Row) -> Vec<&str> {
    if !row.policy_host.is_empty() {
        return vec![&row.policy_host];
    }
    let patterns = row.policy.iter().filter_map(|line| line.split_once(':')).filter(|(key, _)| key.trim() == "mx");
    patterns.map(|(_, pattern)| pattern.trim()).collect()
}

fn detail(failure: &Failure, count: u64) -> Object {
    let mut detail = Object::new();
    detail
        .text("result-type", &failure.result_type)
        .some_text("sending-mta-ip", failure.local.map(|address| address.to_string()).as_deref())
        .some_text("receiving-mx-hostname", some(&failure.host))
        .some_text("receiving-mx-helo", some(&failure.hello))
        .some_text("receiving-ip", failure.remote.map(|address| address.to_string()).as_deref())
        .number("failed-session-count", count)
        .some_text("failure-reason-code", some(&failure.reason));
    detail
}

/// A text; `None` if it is empty.
fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
