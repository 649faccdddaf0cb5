//! Composes the mail that carries a DMARC report (RFC 9990 3.5.2).

use super::super::record::Record;
use super::{Counted, xml};
use crate::address::Address;
use crate::aggregate::{DAY, Mail, date, gzip};

/// A report about one domain and one day.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The name of this host.
    pub hostname: &'a str,
    /// The address that reports come from.
    pub sender: &'a Address,
    /// The day, in days since 1970.
    pub day: u64,
    /// The DMARC record that the domain has now.
    pub record: &'a Record,
    /// The domain and its rows.
    pub counted: &'a Counted,
}

impl Report<'_> {
    /// Returns the Report-ID. If this host makes the report again, the Report-ID is the same.
    pub fn id(&self) -> String {
        format!("{}.{}@{}", self.day * DAY, self.counted.domain, self.hostname)
    }

    /// Returns the name of the attached file.
    fn file(&self) -> String {
        let Self { hostname, day, counted, .. } = self;
        format!("{hostname}!{}!{}!{}.xml.gz", counted.domain, day * DAY, day * DAY + DAY - 1)
    }
}

/// Returns the compressed report.
pub fn attachment(report: &Report<'_>) -> Vec<u8> {
    gzip::compress(xml::report(report).as_bytes())
}

/// Returns the whole message for one address: header and body in ASCII, with lines that end in LF.
/// `id` is the queue id of the message. `now` is in seconds since 1970.
pub fn message(report: &Report<'_>, attachment: &[u8], to: &Address, id: &str, now: u64) -> String {
    let Report { hostname, sender, day, counted, .. } = report;
    let domain = &*counted.domain;
    let text = format!(
        "This is a DMARC report (RFC 9990) about mail from\n{domain}\nthat {hostname}\nreceived on {} UTC.\n",
        date(*day)
    );
    let mail = Mail {
        hostname,
        sender,
        domain,
        report_id: &report.id(),
        fields: "",
        media_type: "multipart/mixed",
        text: &text,
        attachment_type: "application/gzip",
        file: &report.file(),
        attachment,
    };
    mail.to(to, id, now)
}
