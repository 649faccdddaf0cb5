//! Stores the TLS version and the cipher suite of a connection in one byte, and how the certificate
//! was verified in another, because the queue keeps outcomes in memory.

/// The encryption of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encryption {
    /// An index into [`SUITES`].
    suite: u8,
    verified: Verified,
}

/// How the certificate of a host was verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verified {
    /// The certificate was not verified.
    #[default]
    No,
    /// It comes from a trusted authority, and is for the name of the host.
    Authority,
    /// The same, as the MTA-STS policy of the domain demands.
    MtaSts,
    /// It matches a TLSA record of the host.
    Dane,
    /// It has one of the fingerprints in the table of TLS policies.
    Fingerprint,
}

/// The TLS versions and cipher suites, as the log shows them. The first five rows stand for no
/// connection, plaintext, an unknown TLS version, and the two known versions with an unknown suite.
/// The other rows are all suites that rustls offers with ring.
const SUITES: [(&str, &str); 14] = [
    ("", ""),
    ("-", ""),
    ("TLS", ""),
    ("TLS1.2", ""),
    ("TLS1.3", ""),
    ("TLS1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ("TLS1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ("TLS1.2", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ("TLS1.2", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("TLS1.2", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS1.3", "TLS_AES_256_GCM_SHA384"),
    ("TLS1.3", "TLS_AES_128_GCM_SHA256"),
    ("TLS1.3", "TLS_CHACHA20_POLY1305_SHA256"),
];

impl Encryption {
    /// No connection was made.
    pub const NO_CONNECTION: Self = Self::of(0);
    /// A plaintext connection.
    pub const CLEAR: Self = Self::of(1);

    /// TLS of an unknown version.
    const UNKNOWN: Self = Self::of(2);

    const fn of(suite: u8) -> Self {
        Self { suite, verified: Verified::No }
    }

    /// Returns the encryption with this TLS version and the cipher suite of this IANA name. If the
    /// suite is unknown, only the version is kept.
    pub fn by_tls(version: &str, cipher: &str) -> Self {
        let position = |suite| SUITES.iter().position(|known| *known == suite);
        let suite = position((version, cipher)).or_else(|| position((version, "")));
        suite.and_then(|suite| u8::try_from(suite).ok()).map_or(Self::UNKNOWN, Self::of)
    }

    /// Returns the TLS version, such as `TLS1.3`. The version is `-` for plaintext, and empty if no
    /// connection was made.
    pub fn name(self) -> &'static str {
        SUITES.get(usize::from(self.suite)).map_or("", |suite| suite.0)
    }

    /// Returns the cipher suite, or an empty string if the connection has none or the suite is
    /// unknown.
    pub fn cipher(self) -> &'static str {
        SUITES.get(usize::from(self.suite)).map_or("", |suite| suite.1)
    }

    /// Sets how the certificate was verified.
    #[must_use]
    pub fn verified(self, verified: Verified) -> Self {
        Self { verified, ..self }
    }

    /// Whether the certificate was verified.
    pub fn is_verified(self) -> bool {
        self.verified != Verified::No
    }

    /// Returns how the certificate was verified, in one word, or an empty string if it was not.
    pub fn verified_by(self) -> &'static str {
        match self.verified {
            Verified::No => "",
            Verified::Authority => "authority",
            Verified::MtaSts => "mta-sts",
            Verified::Dane => "dane",
            Verified::Fingerprint => "fingerprint",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_cipher_suite_keeps_its_version() {
        for (version, cipher, name, suite) in [
            ("TLS1.3", "TLS_AES_128_GCM_SHA256", "TLS1.3", "TLS_AES_128_GCM_SHA256"),
            ("TLS1.3", "TLS_AES_128_CCM_SHA256", "TLS1.3", ""),
            ("TLS1.3", "unknown", "TLS1.3", ""),
            ("TLS1.2", "unknown", "TLS1.2", ""),
            ("TLS1.2", "TLS_AES_128_GCM_SHA256", "TLS1.2", ""),
            ("TLS1.4", "unknown", "TLS", ""),
        ] {
            let tls = Encryption::by_tls(version, cipher);
            assert_eq!((tls.name(), tls.cipher()), (name, suite), "{version} {cipher}");
        }
    }
}
