//! Finds the word that was meant by a misspelt one.

/// The word that is most like `given`, if it differs by no more than one letter in three: letters
/// that are missing, added, replaced, or exchanged with their neighbour.
pub fn nearest<'a>(given: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A longer word is no misspelt name, and the time to compare it grows with the length.
    const LONGEST: usize = 40;
    let given: Vec<char> = given.chars().take(LONGEST + 1).collect();
    if given.len() > LONGEST {
        return None;
    }
    let ranked = words.map(|word| (distance(&given, &word.chars().collect::<Vec<_>>()), word));
    let limit = given.len().div_ceil(3);
    ranked
        .filter(|(distance, _)| *distance <= limit && *distance < given.len())
        .min_by_key(|ranked| ranked.0)
        .map(|ranked| ranked.1)
}

/// Whether `given` is `word` with one slip of a finger: a letter is missing, doubled, exchanged with its
/// neighbour, or replaced by another letter of the word. So `rot` is a slip of `root`, and `robot` and
/// `boot` are words of their own.
pub fn is_slip(given: &str, word: &str) -> bool {
    given.len() <= word.len() + 1
        && given.chars().all(|letter| word.contains(letter))
        && distance(&given.chars().collect::<Vec<_>>(), &word.chars().collect::<Vec<_>>()) == 1
}

/// The number of changes that make `b` from `a`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found() {
        let words = || ["queue", "hosts", "hold", "release", "remove", "requeue", "max_size"].into_iter();
        for (given, meant) in [
            ("queu", Some("queue")),
            ("qeueu", Some("queue")),
            ("realese", Some("release")),
            ("max-size", Some("max_size")),
            ("host", Some("hosts")),
            ("", None),
            ("x", None),
            ("destinations", None),
        ] {
            assert_eq!(nearest(given, words()), meant, "{given}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), words()), None);
    }

    #[test]
    fn a_slip_is_no_other_word() {
        for slip in ["rot", "oot", "roo", "rooot", "rroot", "orot", "roto"] {
            assert!(is_slip(slip, "root"), "{slip}");
        }
        for other in ["root", "boot", "robot", "roots", "rt", "", "toor", "postmaster"] {
            assert!(!is_slip(other, "root"), "{other}");
        }
        for slip in ["postmater", "psotmaster", "postmastr", "postmasster"] {
            assert!(is_slip(slip, "postmaster"), "{slip}");
        }
        assert!(!is_slip("hostmaster", "postmaster") && !is_slip("webmaster", "postmaster"));
        assert!(!is_slip(&"o".repeat(1 << 20), "root"));
    }
}
