//! Names the reason of a refusal in a few words, by the enhanced status code of the reply.

use crate::reply::Status;

/// The subject and the detail of a status code (RFC 3463 and the IANA registry), and the words. A
/// detail of 999 stands for all details that are not listed.
const WORDS: &[(u16, u16, &str)] = &[
    (1, 1, "no_such_mailbox"),
    (1, 2, "no_such_host"),
    (1, 3, "malformed_address"),
    (1, 6, "mailbox_has_moved"),
    (1, 8, "bad_sender_address"),
    (1, 10, "domain_takes_no_mail"),
    (1, 999, "address_refused"),
    (2, 1, "mailbox_disabled"),
    (2, 2, "mailbox_full"),
    (2, 3, "message_too_large"),
    (2, 999, "mailbox_problem"),
    (3, 1, "mail_system_full"),
    (3, 2, "host_takes_no_mail_now"),
    (3, 4, "message_too_large"),
    (3, 5, "local_problem"),
    (3, 999, "mail_system_problem"),
    (4, 1, "no_answer_from_host"),
    (4, 2, "connection_lost"),
    (4, 3, "dns_failure"),
    (4, 4, "no_route"),
    (4, 5, "host_is_congested"),
    (4, 6, "loop"),
    (4, 7, "too_old"),
    (4, 999, "network_problem"),
    (5, 3, "too_many_recipients"),
    (5, 999, "protocol_problem"),
    (6, 999, "content_not_supported"),
    (7, 0, "refused_by_policy"),
    (7, 1, "refused_by_policy"),
    (7, 4, "tls_demanded"),
    (7, 5, "tls_demanded"),
    (7, 8, "login_failed"),
    (7, 10, "tls_demanded"),
    (7, 11, "tls_demanded"),
    (7, 20, "dkim_demanded"),
    (7, 23, "spf_failed"),
    (7, 25, "no_reverse_dns"),
    (7, 26, "not_authenticated"),
    (7, 999, "refused_by_policy"),
];

/// Returns the words for a status code.
fn word(status: Status) -> &'static str {
    let Status(_, subject, detail) = status;
    let row = |detail| WORDS.iter().find(|row| (row.0, row.1) == (subject, detail));
    row(detail).or_else(|| row(999)).map_or("other", |row| row.2)
}

/// Returns the words for the reply of a refusal, such as `550 5.7.1 ...`.
pub fn refusal_word(reply: &str) -> &'static str {
    let status = reply.split([' ', '-']).nth(1).unwrap_or_default();
    let mut numbers = status.split('.').map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten(), numbers.next()) {
        (Some(class), Some(subject), Some(detail), None) => word(Status(class as u8, subject, detail)),
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_code_has_the_words_of_its_row_or_of_its_subject() {
        for (status, words) in [
            (Status(5, 1, 1), "no_such_mailbox"),
            (Status(4, 4, 1), "no_answer_from_host"),
            (Status(4, 4, 9), "network_problem"),
            (Status(4, 7, 1), "refused_by_policy"),
            (Status(5, 7, 99), "refused_by_policy"),
            (Status(5, 0, 0), "other"),
        ] {
            assert_eq!(word(status), words, "{status}");
        }
        assert!(WORDS.iter().all(|row| row.2.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')));
    }
}
