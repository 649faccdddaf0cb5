//! Composes the mail that carries a DMARC report (RFC 9990 3.5.2).

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::super::record::Record;
use super::counts::Counted;
use super::{DAY, gzip, xml};
use crate::address::Address;
use crate::message::{mime, trace};

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
    let Report { hostname, sender, counted, .. } = report;
    let (domain, file) = (&counted.domain, report.file());
    // The text `=_` occurs neither in base64 nor in the text part, so it can begin the boundary.
    let boundary = format!("=_{id}");
    let time = Timestamp::from_second(now as i64).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut out = format!("Date: {}\n", trace::date(&time.to_zoned(TimeZone::UTC)));
    out += &format!("From: {sender}\nTo: {to}\n");
    out += &format!("Subject: Report Domain: {domain}\n Submitter: {hostname}\n Report-ID: <{}>\n", report.id());
    out += &format!("Message-ID: <{id}@{hostname}>\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n");
    out += &format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\n\n");
    out += &format!("--{boundary}\nContent-Type: text/plain; charset=us-ascii\n\n");
    let day = Timestamp::from_second((report.day * DAY) as i64).unwrap_or(Timestamp::UNIX_EPOCH);
    out += &format!("This is a DMARC report (RFC 9990) about mail from\n{domain}\n");
    out += &format!("that {hostname}\nreceived on {} UTC.\n\n", day.to_zoned(TimeZone::UTC).date());
    out += &format!("--{boundary}\nContent-Type: application/gzip\nContent-Transfer-Encoding: base64\n");
    out += &format!("Content-Disposition: attachment;\n filename=\"{file}\"\n\n");
    out += &mime::base64(attachment);
    out + &format!("\n--{boundary}--\n")
}
