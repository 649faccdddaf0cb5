//! Turns the result of each check, such as SPF, into a result of an Authentication-Results: field
//! (RFC 8601 2.7).

use std::net::IpAddr;

use super::One;
#[cfg(feature = "arc")]
use crate::mailauth::arc;
use crate::mailauth::spf::Identity;
use crate::mailauth::{dkim, dmarc, spf};

impl One {
    /// Returns the result of SPF. `sender` is the address of the envelope sender, and is used if
    /// that address was checked.
    pub fn spf(checked: &spf::Checked, sender: &str) -> Self {
        let one = Self::new("spf", checked.result.name()).comment(&checked.mechanism);
        match checked.identity {
            Identity::MailFrom if !sender.is_empty() => one.property("smtp.mailfrom", sender),
            Identity::MailFrom => one.property("smtp.mailfrom", &checked.domain),
            Identity::Hello => one.property("smtp.helo", &checked.domain),
        }
    }

    /// Returns the result for a DKIM signature.
    pub fn dkim(checked: &dkim::Checked) -> Self {
        let mut comment = checked.reason.as_ref().map(ToString::to_string).unwrap_or_default();
        if checked.is_testing {
            comment += if comment.is_empty() { "its owner is testing" } else { "; its owner is testing" };
        }
        Self::new("dkim", checked.status.word())
            .comment(&comment)
            .property("header.d", &checked.domain)
            .property("header.s", &checked.selector)
            .property("header.a", checked.algorithm.map_or("", dkim::Algorithm::name))
            .property("header.b", &checked.mark)
    }

    /// Returns the DKIM result for a message without a signature.
    pub fn no_dkim() -> Self {
        Self::new("dkim", "none").comment("no signature")
    }

    /// Returns the result for an ARC chain, with the last sealer and the number of sets.
    #[cfg(feature = "arc")]
    pub fn arc(chain: &arc::Chain) -> Self {
        let comment = match (&chain.reason, chain.sets.len()) {
            (Some(reason), _) => reason.to_string(),
            (None, 0) => "no chain".to_owned(),
            (None, count) => format!("i={count}"),
        };
        let sealer = chain.sets.last().map_or("", |set| &set.domain);
        Self::new("arc", chain.status.word()).comment(&comment).property("header.d", sealer)
    }

    /// Returns the result of DMARC.
    pub fn dmarc(checked: &dmarc::Checked) -> Self {
        Self::new("dmarc", checked.outcome.name()).comment(&checked.comment()).property("header.from", &checked.domain)
    }

    /// Returns the result of the look-up of the client's name. `name` is the verified name, and
    /// `has_failed` says whether the look-up has failed.
    pub fn iprev(address: IpAddr, name: Option<&str>, has_failed: bool) -> Self {
        let (result, comment) = match name {
            Some(name) => ("pass", name),
            None if has_failed => ("temperror", "the look-up has failed"),
            None => ("fail", "no verified name"),
        };
        Self::new("iprev", result).comment(comment).property("policy.iprev", &address.to_canonical().to_string())
    }
}
