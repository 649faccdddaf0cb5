//! The encryption of a connection, in one byte: the queue keeps outcomes in memory.

/// The encryption of a connection: an index into [`SUITES`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encryption(u8);

/// TLS version and cipher suite as they are logged: all suites that rustls offers with ring.
const SUITES: [(&str, &str); 12] = [
    ("", ""),
    ("-", ""),
    ("TLS1.2", ""),
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

    /// TLS with a cipher suite, by its IANA name.
    pub fn by_tls(cipher: &str) -> Self {
        let suite = SUITES.iter().position(|(_, name)| *name == cipher && !cipher.is_empty());
        Self(suite.and_then(|suite| u8::try_from(suite).ok()).unwrap_or(2))
    }

    /// The version, such as `TLS1.3`; `-` for plaintext, empty if there was no connection.
    pub fn name(self) -> &'static str {
        SUITES.get(usize::from(self.0)).map_or("", |suite| suite.0)
    }

    /// The cipher suite, or an empty string.
    pub fn cipher(self) -> &'static str {
        SUITES.get(usize::from(self.0)).map_or("", |suite| suite.1)
    }
}
