//! Writes a DMARC report as XML (RFC 9990 3.1.1). The values come from a [`Row`] or are names in
//! canonical form. They are escaped nevertheless, so that they cannot have a meaning in XML.

use std::fmt::Write;

use super::super::record::{Alignment, Record};
use super::row::{Row, Signature};
use super::{Counted, Report};
use crate::aggregate::DAY;

/// Returns the report, in ASCII with lines that end in LF.
pub(super) fn report(report: &Report<'_>) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    out += "<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\">\n";
    element(&mut out, 1, "version", "1.0");
    metadata(&mut out, report);
    published(&mut out, &report.counted.domain, report.record);
    for (row, count) in &report.counted.rows {
        record(&mut out, row, *count);
    }
    out + "</feedback>\n"
}

fn metadata(out: &mut String, report: &Report<'_>) {
    let Report { sender, day, counted: Counted { omitted, .. }, .. } = report;
    open(out, 1, "report_metadata");
    element(out, 2, "org_name", sender.domain());
    element(out, 2, "email", &sender.to_string());
    element(out, 2, "report_id", &report.id());
    open(out, 2, "date_range");
    element(out, 3, "begin", &(day * DAY).to_string());
    element(out, 3, "end", &(day * DAY + DAY - 1).to_string());
    close(out, 2, "date_range");
    if *omitted > 0 {
        element(out, 2, "error", &format!("{omitted} rows with fewer messages were left out"));
    }
    element(out, 2, "generator", concat!("penfold ", env!("CARGO_PKG_VERSION")));
    close(out, 1, "report_metadata");
}

/// Appends the record that was found, with the default values of tags that are missing.
fn published(out: &mut String, domain: &str, record: &Record) {
    let mode = |alignment| if alignment == Alignment::Strict { "s" } else { "r" };
    let own = record.policy.unwrap_or_default();
    let existing = record.subdomains.unwrap_or(own);
    open(out, 1, "policy_published");
    element(out, 2, "domain", domain);
    element(out, 2, "discovery_method", "treewalk");
    element(out, 2, "p", own.name());
    element(out, 2, "sp", existing.name());
    element(out, 2, "np", record.nonexistent.unwrap_or(existing).name());
    element(out, 2, "fo", &record.fo);
    element(out, 2, "adkim", mode(record.dkim));
    element(out, 2, "aspf", mode(record.spf));
    element(out, 2, "testing", if record.is_testing { "y" } else { "n" });
    close(out, 1, "policy_published");
}

fn record(out: &mut String, row: &Row, count: u64) {
    let result = |passed| if passed { "pass" } else { "fail" };
    open(out, 1, "record");
    open(out, 2, "row");
    element(out, 3, "source_ip", &row.source.to_string());
    element(out, 3, "count", &count.to_string());
    open(out, 3, "policy_evaluated");
    element(out, 4, "disposition", &row.disposition);
    element(out, 4, "dkim", result(row.dkim));
    element(out, 4, "spf", result(row.spf));
    if !row.reason.is_empty() {
        open(out, 4, "reason");
        element(out, 5, "type", &row.reason);
        close(out, 4, "reason");
    }
    close(out, 3, "policy_evaluated");
    close(out, 2, "row");
    open(out, 2, "identifiers");
    element(out, 3, "header_from", &row.header_from);
    element(out, 3, "envelope_from", &row.envelope_from);
    close(out, 2, "identifiers");
    open(out, 2, "auth_results");
    for Signature { domain, selector, result } in &row.signatures {
        open(out, 3, "dkim");
        element(out, 4, "domain", domain);
        element(out, 4, "selector", selector);
        element(out, 4, "result", result);
        close(out, 3, "dkim");
    }
    let (domain, result) = &row.spf_result;
    if !result.is_empty() {
        open(out, 3, "spf");
        element(out, 4, "domain", domain);
        element(out, 4, "scope", "mfrom");
        element(out, 4, "result", result);
        close(out, 3, "spf");
    }
    close(out, 2, "auth_results");
    close(out, 1, "record");
}

// Writing to a string cannot fail.

fn open(out: &mut String, depth: usize, name: &str) {
    let _ = writeln!(out, "{:1$}<{name}>", "", 2 * depth);
}

fn close(out: &mut String, depth: usize, name: &str) {
    let _ = writeln!(out, "{:1$}</{name}>", "", 2 * depth);
}

fn element(out: &mut String, depth: usize, name: &str, text: &str) {
    let _ = writeln!(out, "{:2$}<{name}>{}</{name}>", "", escaped(text), 2 * depth);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
