//! Keeps to the limits that a host states with LIMITS (RFC 9422).

use std::collections::HashSet;

use crate::smtp::extensions::Limits;

/// Removes the recipients of the next transaction from `todo`, which holds indices of recipients,
/// and returns them. There are at most `room` of them, and no more recipients and domains than the
/// host accepts. `domain` returns the domain of a recipient. At least one recipient is returned,
/// unless `todo` is empty.
pub fn next<'a>(
    todo: &mut Vec<usize>,
    limits: Limits,
    room: usize,
    domain: impl Fn(usize) -> Option<&'a str>,
) -> Vec<usize> {
    let count = |limit: Option<u32>| limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let (max_recipients, max_domains) = (count(limits.recipients).min(room).max(1), count(limits.recipient_domains));
    let (mut chosen, mut left) = (Vec::new(), Vec::new());
    let mut domains: HashSet<&str> = HashSet::new();
    for index in std::mem::take(todo) {
        let is_new = |name: &&str| !domains.contains(*name);
        let new = if max_domains == usize::MAX { None } else { domain(index).filter(is_new) };
        if chosen.len() >= max_recipients || (new.is_some() && domains.len() >= max_domains) {
            left.push(index);
        } else {
            domains.extend(new);
            chosen.push(index);
        }
    }
    *todo = left;
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_has_no_more_recipients_and_domains_than_the_host_accepts() {
        let domains = ["a", "b", "a", "c", "b", "a"];
        for (recipients, recipient_domains, room, want) in [
            (None, None, 6, "012345"),
            (None, None, 4, "0123 45"),
            (Some(4), None, 6, "0123 45"),
            (Some(1), None, 6, "0 1 2 3 4 5"),
            (None, Some(1), 6, "025 14 3"),
            (None, Some(2), 6, "01245 3"),
            (Some(2), Some(1), 6, "02 14 3 5"),
            (Some(9), Some(9), 0, "0 1 2 3 4 5"),
        ] {
            let limits = Limits { recipients, recipient_domains, ..Limits::default() };
            let mut todo: Vec<usize> = (0..domains.len()).collect();
            let mut parts = Vec::new();
            while !todo.is_empty() {
                let part = next(&mut todo, limits, room, |index| domains.get(index).copied());
                assert!(!part.is_empty());
                parts.push(part.iter().map(ToString::to_string).collect::<String>());
            }
            assert_eq!(parts.join(" "), want, "{limits:?} {room}");
        }
    }
}
