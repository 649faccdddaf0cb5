//! Encryption: certificates, and whom to believe.
