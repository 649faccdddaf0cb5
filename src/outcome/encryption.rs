//! Stores the TLS version and the cipher suite of a connection in one byte, because the queue keeps
//! outcomes in memory.

/// The encryption of a connection, as an index into [`SUITES`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encryption(u8);

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
    pub const NO_CONNECTION: Self = Self(0);
    /// A plaintext connection.
    pub const CLEAR: Self = Self(1);

    /// TLS of an unknown version.
    const UNKNOWN: Self = Self(2);

    /// Returns the encryption with this TLS version and the cipher suite of this IANA name. If the
    /// suite is unknown, only the version is kept.
    pub fn by_tls(version: &str, cipher: &str) -> Self {
        let position = |suite| SUITES.iter().position(|known| *known == suite);
        let suite = position((version, cipher)).or_else(|| position((version, "")));
        suite.and_then(|suite| u8::try_from(suite).ok()).map_or(Self::UNKNOWN, Self)
    }

    /// Returns the TLS version, such as `TLS1.3`. The version is `-` for plaintext, and empty if no
    /// connection was made.
    pub fn name(self) -> &'static str {
        SUITES.get(usize::from(self.0)).map_or("", |suite| suite.0)
    }

    /// Returns the cipher suite, or an empty string if the connection has none or the suite is
    /// unknown.
    pub fn cipher(self) -> &'static str {
        SUITES.get(usize::from(self.0)).map_or("", |suite| suite.1)
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
