//! Decides whether the name in HELO or EHLO is accepted.

use super::{Facts, Source, Verdict};
use crate::reply;

/// Accepts any name that is not empty, even one that is no domain (RFC 5321 4.1.4). Many devices
/// send other words, and the name gives no rights.
pub fn check(_: &Facts<'_>, name: &str) -> Verdict {
    if name.is_empty() {
        return Verdict::refuse(reply::hello::missing_name(), "hello-name", Source::Standard("RFC 5321 4.1.1.1"));
    }
    Verdict::Accept
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STRANGER, shown};
    use super::*;

    #[test]
    fn any_name_that_is_not_empty_is_accepted() {
        for (name, want) in [
            ("", "refuse 501 hello-name"),
            ("client.example", "accept"),
            ("[192.0.2.1]", "accept"),
            ("no domain", "accept"),
        ] {
            assert_eq!(shown(&check(&STRANGER, name)), want, "{name}");
        }
    }
}
