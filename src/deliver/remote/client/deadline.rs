//! Decides whether a host may get a message with a deadline (DELIVERBY, RFC 2852 4.1.4).

use crate::envelope::{ByMode, DeliverBy, MailOptions, Notify, RcptOptions};
use crate::outcome::Outcome;
use crate::reply::Status;
use crate::smtp::extensions::Extensions;

/// Returns the outcome for all recipients if a host must not get the message: with the mode R, the
/// host must support DELIVERBY, and its minimum must not be more than the time that is left. `now`
/// is in seconds since 1970.
pub fn refusal(extensions: &Extensions, options: &MailOptions, now: u64) -> Option<Outcome> {
    let by = options.deliver_by.filter(|by| by.mode == ByMode::Return)?;
    let left = left(by, now);
    match extensions.deliver_by {
        _ if left <= 0 => Some(Outcome::failed(Status(5, 4, 7), "the deadline of the message has passed")),
        None => {
            let why = "the message has a deadline (DELIVERBY), which the host does not support";
            Some(Outcome::failed(Status(5, 3, 3), why))
        }
        Some(min) if i128::from(min) > left => {
            let why = format!("the message has a deadline in {left} seconds, and the host wants at least {min}");
            Some(Outcome::failed(Status(5, 4, 7), why))
        }
        Some(_) => None,
    }
}

/// Returns the options of a recipient for a host. If a host without DELIVERBY gets a message with
/// the mode N before the deadline, the host is asked to report a delay (RFC 2852 4.1.4.2).
pub fn rcpt_options(extensions: &Extensions, mail: &MailOptions, rcpt: &RcptOptions, now: u64) -> RcptOptions {
    let is_meant = |by: DeliverBy| by.mode == ByMode::Notify && left(by, now) > 0;
    if extensions.deliver_by.is_some() || !mail.deliver_by.is_some_and(is_meant) {
        return rcpt.clone();
    }
    let notify = match rcpt.notify {
        None => Notify { success: false, failure: true, delay: true },
        Some(never) if never == Notify::default() => never,
        Some(given) => Notify { delay: true, ..given },
    };
    RcptOptions { notify: Some(notify), orcpt: rcpt.orcpt.clone() }
}

fn left(by: DeliverBy, now: u64) -> i128 {
    i128::from(by.deadline) - i128::from(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_255_200;

    fn mail(seconds: i64, mode: ByMode) -> MailOptions {
        let deadline = 1_795_255_200 + seconds;
        MailOptions { deliver_by: Some(DeliverBy { deadline, mode, trace: false }), ..MailOptions::default() }
    }

    #[test]
    fn the_mode_r_needs_a_host_that_can_keep_the_deadline() {
        use ByMode::{Notify, Return};
        for (seconds, mode, min, want) in [
            (60, Return, Some(0), None),
            (60, Return, Some(60), None),
            (60, Return, Some(61), Some(Status(5, 4, 7))),
            (60, Return, None, Some(Status(5, 3, 3))),
            (0, Return, Some(0), Some(Status(5, 4, 7))),
            (-9, Return, None, Some(Status(5, 4, 7))),
            (60, Notify, None, None),
            (-60, Notify, Some(100), None),
        ] {
            let extensions = Extensions { deliver_by: min, ..Extensions::default() };
            let got = refusal(&extensions, &mail(seconds, mode), NOW).map(|outcome| outcome.status);
            assert_eq!(got, want, "{seconds} {mode:?} {min:?}");
        }
        assert_eq!(refusal(&Extensions::default(), &MailOptions::default(), NOW), None);
    }

    #[test]
    fn a_host_without_the_extension_is_asked_to_report_a_delay() {
        let notify = |text: &str| Notify::parse(text);
        for (seconds, mode, min, given, want) in [
            (60, ByMode::Notify, None, None, notify("FAILURE,DELAY")),
            (60, ByMode::Notify, None, notify("SUCCESS"), notify("SUCCESS,DELAY")),
            (60, ByMode::Notify, None, notify("NEVER"), notify("NEVER")),
            (60, ByMode::Notify, Some(0), None, None),
            (0, ByMode::Notify, None, None, None),
            (60, ByMode::Return, Some(0), None, None),
        ] {
            let extensions = Extensions { deliver_by: min, ..Extensions::default() };
            let given = RcptOptions { notify: given, orcpt: None };
            assert_eq!(rcpt_options(&extensions, &mail(seconds, mode), &given, NOW).notify, want, "{seconds} {mode:?}");
        }
    }
}
