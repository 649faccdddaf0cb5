//! Composes the mail that carries a report.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::address::Address;
use crate::message::{mime, trace};

/// The mail that carries a report. Only `text` may have several lines.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    /// The name of the host that reports.
    pub hostname: &'a str,
    /// The address in From.
    pub sender: &'a Address,
    /// The domain that the report is about.
    pub domain: &'a str,
    /// The identifier of the report.
    pub report_id: &'a str,
    /// Further fields of the header, each with its LF.
    pub fields: &'a str,
    /// The media type of the mail, without its boundary.
    pub media_type: &'a str,
    /// The text for people, with lines that end in LF.
    pub text: &'a str,
    /// The media type of the attachment.
    pub attachment_type: &'a str,
    /// The name of the attached file.
    pub file: &'a str,
    /// The attached file.
    pub attachment: &'a [u8],
}

impl Mail<'_> {
    /// Returns the whole message for one address: header and body in ASCII, with lines that end in
    /// LF. `id` is the queue id of the message. `now` is in seconds since 1970.
    pub fn to(&self, to: &Address, id: &str, now: u64) -> String {
        let Self { hostname, sender, domain, report_id, fields, media_type, text, attachment_type, file, .. } = self;
        // The text `=_` occurs neither in base64 nor in the text part, so it can begin the boundary.
        let boundary = format!("=_{id}");
        let time = i64::try_from(now).ok().and_then(|now| Timestamp::from_second(now).ok());
        let time = time.unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
        let mut out = format!("Date: {}\nFrom: {sender}\nTo: {to}\n", trace::date(&time));
        out += &format!("Subject: Report Domain: {domain}\n Submitter: {hostname}\n Report-ID: <{report_id}>\n");
        out += &format!("{fields}Message-ID: <{id}@{hostname}>\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n");
        out += &format!("Content-Type: {media_type}; boundary=\"{boundary}\"\n\n");
        out += &format!("--{boundary}\nContent-Type: text/plain; charset=us-ascii\n\n{text}\n");
        out += &format!("--{boundary}\nContent-Type: {attachment_type}\nContent-Transfer-Encoding: base64\n");
        out += &format!("Content-Disposition: attachment;\n filename=\"{file}\"\n\n");
        out += &mime::base64(self.attachment);
        out + &format!("\n--{boundary}--\n")
    }
}
