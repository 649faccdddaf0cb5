//! Makes the ARC set for a message that this host forwards.

use std::io::{self, Read};

use super::{NotSealed, Sealer, Status};
use crate::mailauth::dkim::Algorithm;
use crate::mailauth::keys::Keys;
use crate::mailauth::results;
use crate::message::field::fields;

/// Makes a set for a message that this host sends on, with a key of `domain`. The set repeats the
/// results in the Authentication-Results field that this host has added. `hostname` is the name of
/// this host. `now` is the time in seconds since 1970. Returns the fields to put before the
/// message, or an empty text if there is no key. The inner error says why the message is not
/// sealed.
///
/// # Errors
/// Those of `content`.
pub fn seal_forwarded(
    keys: &Keys,
    domain: &str,
    hostname: &str,
    content: impl Read,
    now: u64,
) -> io::Result<Result<String, NotSealed>> {
    let signing = keys.for_domain(domain);
    // Few verifiers of ARC chains support Ed25519, so an RSA key is preferred.
    let rsa = signing.iter().find(|(_, _, key)| key.algorithm() == Algorithm::RsaSha256);
    let Some((domain, selector, key)) = rsa.or(signing.first()) else { return Ok(Ok(String::new())) };
    let mut sealer = Sealer::new();
    sealer.read(content)?;
    let (results, chain) = stated(sealer.header(), hostname);
    Ok(sealer.finish((domain, selector, key), &results, chain, now))
}

/// Returns what this host found out about a message when it arrived: the value of the topmost
/// Authentication-Results field of this host, and the result for the chain in that field. If the
/// field or the result is missing, the result is [`Status::TempError`].
///
/// Only a field above the topmost Received field counts. At arrival, this host puts its Received
/// field above everything that the client sent or that filters added, and its results above the
/// Received field. So a field below the Received field came with the message, even if the field has
/// this host's name: a host in `relay.networks` may pass on what strangers wrote. The queue id in
/// the Received field need not be that of the message, because a message that a user's `.forward`
/// passes on has a new queue id.
fn stated(header: &[u8], hostname: &str) -> (String, Status) {
    let received = fields(header).position(|field| field.is("Received")).unwrap_or_default();
    let is_own = |body: &[u8]| results::claims_to_be(body, hostname);
    let mut own = fields(header).take(received).filter(|field| field.is(results::NAME) && is_own(field.body));
    let Some(field) = own.next() else { return (format!("{hostname}; none"), Status::TempError) };
    let value = String::from_utf8_lossy(field.body).trim().to_owned();
    // The module `results` begins each result with `;`, a line end and a tab. No value within a
    // result can contain these.
    let word = value.split_once(";\n\tarc=").map(|(_, rest)| rest.split([' ', '\n', ';']).next().unwrap_or_default());
    let statuses = [Status::None, Status::Pass, Status::Fail];
    let status = statuses.into_iter().find(|status| word == Some(status.word()));
    (value, status.unwrap_or(Status::TempError))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailauth::arc::{Chain, Reason, Sealed};
    use crate::mailauth::results::{One, Results, field};

    #[test]
    fn the_own_results_and_the_result_for_the_chain_are_found() {
        for (chain, comment, wanted) in [
            (Some(Status::Pass), "x", Status::Pass),
            (Some(Status::Fail), "x", Status::Fail),
            (Some(Status::TempError), "x", Status::TempError),
            (None, "x", Status::TempError),
            (None, ";\n\tarc=pass", Status::TempError),
            (Some(Status::Fail), ";\n\tarc=pass (i=1)", Status::Fail),
        ] {
            let mut results = Results::default();
            results.add(One::new("spf", "pass").comment(comment).property("smtp.mailfrom", comment));
            let sets = vec![Sealed { domain: "x.test".into(), results: String::new() }];
            let reason = Some(Reason::Reported);
            chain.iter().for_each(|&status| {
                results.add(One::arc(&Chain { status, reason: reason.clone(), sets: sets.clone() }))
            });
            let own = field(&results, "mx.test");
            let other = field(&Results::default(), "other.test");
            let (value, status) = stated(format!("{other}{own}{other}Received: x\nFrom: x\n").as_bytes(), "mx.test");
            assert_eq!(status, wanted, "{own}");
            assert_eq!(format!("Authentication-Results: {value}\n"), own);
        }
        let forged = "Authentication-Results: mx.test;\n\tarc=pass\n";
        for header in ["From: x\n", forged, &format!("Received: x\n{forged}"), &format!("A: b\nreceived: x\n{forged}")]
        {
            let (value, status) = stated(header.as_bytes(), "mx.test");
            assert_eq!((&*value, status), ("mx.test; none", Status::TempError), "{header}");
        }
    }
}
