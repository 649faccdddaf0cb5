//! Fetches the policy of one domain over HTTPS (RFC 8461 3.3).

use std::time::Duration;

use super::StsPolicy;
use crate::dns::Dns;
use crate::timeouts::HostTimeout;
use crate::tls::{Client, Fault, FaultKind};

/// Fetches the policy of a domain whose record has this id, within this time.
///
/// # Errors
/// The failure, and whether `host_timeout` caused it.
#[cfg(feature = "mta-sts")]
pub(super) fn policy(
    dns: &Dns,
    tls: &Client,
    (domain, id): (&str, &str),
    limit: Duration,
    host_timeout: Option<&HostTimeout>,
) -> Result<StsPolicy, (Fault, bool)> {
    use super::policy::MAX_SIZE;
    use crate::net::https::{HttpsError, Request, exchange};
    use crate::sys;
    use FaultKind::{StsCertificate, StsFetch, StsInvalid};
    use std::time::Instant;

    let host = format!("mta-sts.{domain}");
    let request = Request {
        host: &host,
        path: "/.well-known/mta-sts.txt",
        content: None,
        max_answer: MAX_SIZE,
        deadline: Instant::now() + limit,
        host_timeout,
    };
    let failed = |kind, why: String| (Fault::new(kind, &why), false);
    let answer = exchange(dns, tls, &request).map_err(|error| match error {
        HttpsError::Certificate(why) => failed(StsCertificate, why),
        HttpsError::TooLong => failed(StsInvalid, error.to_string()),
        HttpsError::CutShort => (Fault::new(StsFetch, &error.to_string()), true),
        HttpsError::Other(why) => failed(StsFetch, why),
    })?;
    if answer.status != 200 {
        return Err(failed(StsFetch, format!("the status is {}", answer.status)));
    }
    let kind = answer.content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("text/plain") {
        return Err(failed(StsInvalid, "the content type is not text/plain".into()));
    }
    StsPolicy::parse(&answer.content, id, sys::now()).map_err(|what| failed(StsInvalid, format!("the policy: {what}")))
}

/// Without the build feature no policy is fetched.
#[cfg(not(feature = "mta-sts"))]
pub(super) fn policy(
    _: &Dns,
    _: &Client,
    _: (&str, &str),
    _: Duration,
    _: Option<&HostTimeout>,
) -> Result<StsPolicy, (Fault, bool)> {
    Err((Fault::new(FaultKind::StsFetch, "this penfold was built without MTA-STS"), false))
}
