//! Why the TLS of a host, or what proves the host's identity, failed: in words, and as one of the
//! result types of reports (RFC 8460 4.3).

use std::io;
use std::sync::Arc;

use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error, OtherError};

use crate::characters::shown;

/// The maximum length of a reason, in characters: a certificate can contain thousands of names.
const MAX_LENGTH: usize = 500;

/// The kind of a [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// The host does not offer STARTTLS, or rejects it.
    NotOffered,
    /// The certificate is for other names.
    WrongName,
    /// The certificate, or one that it depends on, has expired or is not valid yet.
    Expired,
    /// No trusted authority has issued the certificate, or the certificate is malformed or not for
    /// servers.
    NotTrusted,
    /// No TLSA record matches the certificate, or none of the records can be used.
    Tlsa,
    /// The DNS look-up of the TLSA records failed, so the answer may have been tampered with.
    Dnssec,
    /// DANE is required by the configuration, but the host has no TLSA records.
    DaneRequired,
    /// The policy file of MTA-STS could not be fetched.
    StsFetch,
    /// The policy file of MTA-STS is malformed.
    StsInvalid,
    /// The certificate of the web server with the policy file of MTA-STS is not valid.
    StsCertificate,
    /// Another failure, such as a failed TLS handshake.
    Other,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::NotOffered,
        Self::WrongName,
        Self::Expired,
        Self::NotTrusted,
        Self::Tlsa,
        Self::Dnssec,
        Self::DaneRequired,
        Self::StsFetch,
        Self::StsInvalid,
        Self::StsCertificate,
        Self::Other,
    ];

    /// The result type of the kind in RFC 8460 4.3.
    pub fn result_type(self) -> &'static str {
        match self {
            Self::NotOffered => "starttls-not-supported",
            Self::WrongName => "certificate-host-mismatch",
            Self::Expired => "certificate-expired",
            Self::NotTrusted => "certificate-not-trusted",
            Self::Tlsa => "tlsa-invalid",
            Self::Dnssec => "dnssec-invalid",
            Self::DaneRequired => "dane-required",
            Self::StsFetch => "sts-policy-fetch-error",
            Self::StsInvalid => "sts-policy-invalid",
            Self::StsCertificate => "sts-webpki-invalid",
            Self::Other => "validation-failure",
        }
    }
}

/// Why TLS or the verification of a host failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind of the failure.
    pub kind: FaultKind,
    /// The failure in words. Text of the host, such as names in its certificate, contains no control
    /// characters and is bounded.
    pub why: String,
}

impl Fault {
    /// A failure of this kind.
    pub fn new(kind: FaultKind, why: &str) -> Self {
        Self { kind, why: why.chars().map(shown).take(MAX_LENGTH).collect() }
    }

    /// The failure, if a handshake has failed because of the host's certificate.
    pub fn of_certificate(error: &io::Error) -> Option<Self> {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error @ Error::InvalidCertificate(_)) => Some(Self::of(error)),
            _ => None,
        }
    }

    /// The reason why a handshake has failed. `error` is that of the connection.
    pub fn of_handshake(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Self::of(error),
            None => Self::new(FaultKind::Other, &error.to_string()),
        }
    }

    /// The failure that an error of rustls stands for.
    pub fn of(error: &Error) -> Self {
        use CertificateError as E;
        let Error::InvalidCertificate(cause) = error else {
            return Self::new(FaultKind::Other, &error.to_string());
        };
        let kind = match cause {
            E::Other(OtherError(fault)) => match fault.downcast_ref::<Self>() {
                Some(fault) => return fault.clone(),
                None => FaultKind::NotTrusted,
            },
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => FaultKind::Expired,
            E::NotValidForName | E::NotValidForNameContext { .. } => FaultKind::WrongName,
            _ => FaultKind::NotTrusted,
        };
        match cause {
            E::UnknownIssuer => Self::new(kind, "the certificate is not from a trusted authority"),
            E::BadEncoding => Self::new(kind, "the certificate is malformed"),
            E::ExpiredContext { not_after, .. } => {
                Self::new(kind, &format!("the certificate expired {}", day(*not_after)))
            }
            E::NotValidYetContext { not_before, .. } => {
                Self::new(kind, &format!("the certificate is not valid yet: it begins {}", day(*not_before)))
            }
            _ => Self::new(kind, &cause.to_string()),
        }
    }

    /// The failure as an error of rustls, which ends a handshake. [`Fault::of_handshake`] finds the
    /// failure in the error again.
    pub(super) fn into_error(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }
}

/// The day of a time, in UTC: `on 2026-11-30`.
fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    match seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
        Some(time) => format!("on {}", time.strftime("%Y-%m-%d")),
        None => "at an unknown time".to_owned(),
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_failed_handshake_has_a_kind() {
        use CertificateError as E;
        let certificate = Error::InvalidCertificate;
        let own = Fault::new(FaultKind::Tlsa, "no TLSA record matches the\r\ncertificate");
        for (error, kind, result) in [
            (certificate(E::Expired), FaultKind::Expired, "certificate-expired"),
            (certificate(E::NotValidYet), FaultKind::Expired, "certificate-expired"),
            (certificate(E::NotValidForName), FaultKind::WrongName, "certificate-host-mismatch"),
            (certificate(E::UnknownIssuer), FaultKind::NotTrusted, "certificate-not-trusted"),
            (certificate(E::BadEncoding), FaultKind::NotTrusted, "certificate-not-trusted"),
            (own.clone().into_error(), FaultKind::Tlsa, "tlsa-invalid"),
            (Error::HandshakeNotComplete, FaultKind::Other, "validation-failure"),
        ] {
            let found = Fault::of_handshake(&io::Error::new(io::ErrorKind::InvalidData, error));
            assert_eq!((found.kind, found.kind.result_type()), (kind, result), "{found}");
        }
        let found = Fault::of_handshake(&io::Error::other(own.clone().into_error()));
        assert_eq!((&found, found.why.as_str()), (&own, "no TLSA record matches the??certificate"));
        let (time, end) = (UnixTime::since_unix_epoch(Duration::from_secs(100_000)), UnixTime::now());
        let found = Fault::of(&certificate(E::ExpiredContext { time: end, not_after: time }));
        assert_eq!(found.why, "the certificate expired on 1970-01-02");
        let far = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
        let found = Fault::of(&certificate(E::NotValidYetContext { time: end, not_before: far }));
        assert_eq!(found.why, "the certificate is not valid yet: it begins at an unknown time");
        let errors = [certificate(E::Expired), Error::HandshakeNotComplete].map(io::Error::other);
        assert_eq!(errors.map(|error| Fault::of_certificate(&error).is_some()), [true, false]);
        assert_eq!(Fault::new(FaultKind::Other, &"x".repeat(9000)).why.len(), MAX_LENGTH);
        assert_eq!(Fault::of_handshake(&io::ErrorKind::TimedOut.into()).kind, FaultKind::Other);
    }
}
