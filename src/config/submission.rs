//! Defines the rules for submission of new mail, `[submission]` of penfold.conf(5).

use std::path::PathBuf;

use super::defaults::{PER_HOUR, optional};
use super::document::Section;
use super::keys::table_file;
use super::policy::PER_HOUR_OR_NONE;
use super::print::{Printer, list, path};
use super::{TableFile, values};
use crate::json::quote;

/// The rules for submission of new mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The senders table: the sender addresses that each account may use besides its own.
    pub senders: TableFile,
    /// The maximum number of messages that an account may send in an hour.
    pub messages_per_hour: usize,
    /// The maximum number of recipients to which an account may send in an hour.
    pub recipients_per_hour: usize,
    /// Whether the Received: lines of submitted mail omit the client's name and address.
    pub hide_client: bool,
    /// The domain that replaces the domains of this host in sender addresses; `None` if none does.
    pub masquerade: Option<String>,
    /// The rewrite table: the replacements of sender addresses.
    pub rewrite: TableFile,
    /// The maximum number of messages that a system user may send in an hour with sendmail(8); zero
    /// for no limit.
    pub local_messages_per_hour: usize,
    /// The names or user ids of the system users to whom `local_messages_per_hour` does not apply.
    pub local_exempt: Vec<String>,
    /// The drop directory, in which sendmail(8) keeps messages while no daemon runs; `None` if there
    /// is none.
    pub drop: Option<PathBuf>,
}

/// The values that an empty file gives.
pub(super) fn defaults() -> Submission {
    Submission {
        senders: optional("/etc/penfold/senders"),
        messages_per_hour: 300,
        recipients_per_hour: 3000,
        hide_client: false,
        masquerade: None,
        rewrite: optional("/etc/penfold/rewrite"),
        local_messages_per_hour: 0,
        local_exempt: vec!["root".into()],
        drop: None,
    }
}

/// Reads `[submission]`.
pub(super) fn submission(mut section: Section<'_, '_>, default: Submission) -> Submission {
    let submission = Submission {
        senders: table_file(&mut section, "senders", default.senders),
        messages_per_hour: section
            .take("messages_per_hour", values::count(PER_HOUR))
            .unwrap_or(default.messages_per_hour),
        recipients_per_hour: section
            .take("recipients_per_hour", values::count(PER_HOUR))
            .unwrap_or(default.recipients_per_hour),
        hide_client: section.take("hide_client", values::flag).unwrap_or(default.hide_client),
        masquerade: section.take("masquerade", values::domain_or_none).unwrap_or(default.masquerade),
        rewrite: table_file(&mut section, "rewrite", default.rewrite),
        local_messages_per_hour: section
            .take("local_messages_per_hour", values::count(PER_HOUR_OR_NONE))
            .unwrap_or(default.local_messages_per_hour),
        local_exempt: section.take_all("local_exempt", values::user).unwrap_or(default.local_exempt),
        drop: section.take("drop", values::path_or_none).unwrap_or(default.drop),
    };
    section.finish();
    submission
}

/// Prints `[submission]`.
pub(super) fn print(out: &mut Printer<'_>, submission: &Submission) {
    out.key("senders", path(&submission.senders.path));
    out.key("messages_per_hour", submission.messages_per_hour.to_string());
    out.key("recipients_per_hour", submission.recipients_per_hour.to_string());
    out.key("hide_client", submission.hide_client.to_string());
    out.key("masquerade", quote(submission.masquerade.as_deref().unwrap_or_default()));
    out.key("rewrite", path(&submission.rewrite.path));
    out.key("local_messages_per_hour", submission.local_messages_per_hour.to_string());
    out.key("local_exempt", list(&submission.local_exempt, |user| quote(user)));
    out.key("drop", submission.drop.as_ref().map_or_else(|| quote(""), |directory| path(directory)));
}
