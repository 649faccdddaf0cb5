//! Names the reason of a refusal that follows from no rule, by the enhanced status code of the reply.

use crate::reply::Status;

/// The subject and the detail of a status code (RFC 3463 and the IANA registry), and the words. A
/// detail of 999 stands for all details that are not listed.
const WORDS: &[(u16, u16, &str)] = &[
    (1, 1, "no-such-mailbox"),
    (1, 2, "no-such-host"),
    (1, 3, "malformed-address"),
    (1, 6, "mailbox-has-moved"),
    (1, 8, "bad-sender-address"),
    (1, 10, "domain-takes-no-mail"),
    (1, 999, "address-refused"),
    (2, 1, "mailbox-disabled"),
    (2, 2, "mailbox-full"),
    (2, 3, "message-too-large"),
    (2, 999, "mailbox-problem"),
    (3, 1, "mail-system-full"),
    (3, 2, "host-takes-no-mail-now"),
    (3, 4, "message-too-large"),
    (3, 5, "local-problem"),
    (3, 999, "mail-system-problem"),
    (4, 1, "no-answer-from-host"),
    (4, 2, "connection-lost"),
    (4, 3, "dns-failure"),
    (4, 4, "no-route"),
    (4, 5, "host-is-congested"),
    (4, 6, "loop"),
    (4, 7, "too-old"),
    (4, 999, "network-problem"),
    (5, 3, "too-many-recipients"),
    (5, 999, "protocol-problem"),
    (6, 999, "content-not-supported"),
    (7, 0, "refused-by-policy"),
    (7, 1, "refused-by-policy"),
    (7, 4, "tls-demanded"),
    (7, 5, "tls-demanded"),
    (7, 8, "login-failed"),
    (7, 10, "tls-demanded"),
    (7, 11, "tls-demanded"),
    (7, 20, "dkim-demanded"),
    (7, 23, "spf-failed"),
    (7, 25, "no-reverse-dns"),
    (7, 26, "not-authenticated"),
    (7, 999, "refused-by-policy"),
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
            (Status(5, 1, 1), "no-such-mailbox"),
            (Status(4, 4, 1), "no-answer-from-host"),
            (Status(4, 4, 9), "network-problem"),
            (Status(4, 7, 1), "refused-by-policy"),
            (Status(5, 7, 99), "refused-by-policy"),
            (Status(5, 0, 0), "other"),
        ] {
            assert_eq!(word(status), words, "{status}");
        }
        assert!(WORDS.iter().all(|row| row.2.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')));
    }
}
