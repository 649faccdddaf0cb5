//! The encryption of a connection, stored in one byte because the queue keeps outcomes in memory.

/// The encryption of a connection: an index into [`SUITES`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encryption(u8);

/// TLS versions and cipher suites as they are logged: all suites that rustls offers with ring,
/// each version with an unknown suite, and an unknown version.
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

    /// TLS of this version, with a cipher suite by its IANA name. An unknown suite is left out.
    pub fn by_tls(version: &str, cipher: &str) -> Self {
        let position = |suite| SUITES.iter().position(|known| *known == suite);
        let suite = position((version, cipher)).or_else(|| position((version, "")));
        suite.and_then(|suite| u8::try_from(suite).ok()).map_or(Self::UNKNOWN, Self)
    }

    /// The TLS version, such as `TLS1.3`. It is `-` for plaintext, and empty if there was no
    /// connection.
    pub fn name(self) -> &'static str {
        SUITES.get(usize::from(self.0)).map_or("", |suite| suite.0)
    }

    /// The cipher suite, or an empty string if there is none or it is unknown.
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
