//! The key exchange X25519MLKEM768 of TLS 1.3 (RFC 10024), which a future quantum computer cannot
//! undo.
//!
//! Each side sends a share of X25519 behind one of ML-KEM-768 (FIPS 203), and the secret is that of
//! both, so it is at least as good as that of X25519 alone. X25519 is ring's, and ML-KEM that of the
//! package ml-kem.

use std::thread;

use ml_kem::array::Array;
use ml_kem::ml_kem_768::{Ciphertext, DecapsulationKey, EncapsulationKey};
use ml_kem::{B32, Decapsulate, KeyExport, Seed};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};

/// The length of a public key of ML-KEM-768, which is the client's share.
const KEY: usize = 1184;
/// The length of a ciphertext of ML-KEM-768, which is the server's share.
const CIPHERTEXT: usize = 1088;

/// The size of the stack for ML-KEM, in bytes. Without optimization it needs 128 KiB.
const STACK: usize = 256 << 10;

const MALFORMED: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

/// The group X25519MLKEM768.
pub static X25519_MLKEM768: &dyn SupportedKxGroup = &Hybrid;

#[derive(Debug)]
struct Hybrid;

/// A key exchange of a client that waits for the share of the server.
struct Begun {
    classical: Box<dyn ActiveKeyExchange>,
    quantum: DecapsulationKey,
    /// Our share of both.
    share: Vec<u8>,
}

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let classical = X25519.start()?;
        let mut seed = Seed::default();
        getrandom::fill(&mut seed).map_err(|_| Error::FailedToGetRandomBytes)?;
        let quantum = DecapsulationKey::from_seed(seed);
        let share = [quantum.encapsulation_key().to_bytes().as_slice(), classical.pub_key()].concat();
        Ok(Box::new(Begun { classical, quantum, share }))
    }

    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (key, point) = share.split_at_checked(KEY).ok_or(MALFORMED)?;
        let key = Array::try_from(key).map_err(|_| MALFORMED)?;
        let classical = X25519.start_and_complete(point)?;
        let mut message = B32::default();
        getrandom::fill(&mut message).map_err(|_| Error::FailedToGetRandomBytes)?;
        let encapsulate = || Some(EncapsulationKey::new(&key).ok()?.encapsulate_deterministic(&message));
        let (ciphertext, secret) = aside(&encapsulate).ok_or(MALFORMED)?;
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: [ciphertext.as_slice(), &classical.pub_key].concat(),
            secret: joined(&secret, &classical.secret),
        })
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

impl ActiveKeyExchange for Begun {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, point) = share.split_at_checked(CIPHERTEXT).ok_or(MALFORMED)?;
        let ciphertext = Ciphertext::try_from(ciphertext).map_err(|_| MALFORMED)?;
        let classical = self.classical.complete(point)?;
        Ok(joined(&self.quantum.decapsulate(&ciphertext), &classical))
    }

    /// The server may also choose X25519 alone, for which it needs no further message.
    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classical.group(), self.classical.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        self.classical.complete(share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

/// Runs a function on a stack of its own. It needs 48 KiB, and a session keeps the memory of its stack
/// until it ends.
fn aside<T: Send>(work: &(impl Fn() -> T + Sync)) -> T {
    let done = thread::scope(|scope| {
        let thread = thread::Builder::new().name("key exchange".into()).stack_size(STACK).spawn_scoped(scope, work);
        thread.ok().and_then(|thread| thread.join().ok())
    });
    // A system without a free thread gets more memory used instead.
    done.unwrap_or_else(work)
}

/// The secret of both exchanges. That of ML-KEM comes first.
fn joined(quantum: &[u8], classical: &SharedSecret) -> SharedSecret {
    SharedSecret::from([quantum, classical.secret_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use data_encoding::HEXLOWER;
    use ring::digest::{SHA256, digest};
    use rustls::crypto::CryptoProvider;
    use rustls::crypto::ring::default_provider;
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};

    use crate::tls::provider;

    /// Made with OpenSSL 4.0.3, except for the ciphertext. OpenSSL finds this secret in it.
    #[test]
    fn the_keys_and_the_secrets_are_those_of_others() {
        let hash = |octets: &[u8]| HEXLOWER.encode(digest(&SHA256, octets).as_ref());
        let octets: Vec<u8> = (0..64).collect();
        let key = DecapsulationKey::from_seed(Seed::try_from(octets.as_slice()).expect("64 octets"));
        let public = key.encapsulation_key();
        assert_eq!(hash(&public.to_bytes()), "0b7934c83125c788995e2ba6bd761e33046b3e40571be53e023309a29f398cc9");
        // A ciphertext that was not made for the key gives a secret that nobody else knows.
        let rejected = key.decapsulate(&Ciphertext::try_from([0; CIPHERTEXT].as_slice()).expect("a ciphertext"));
        assert_eq!(HEXLOWER.encode(&rejected), "c8fbeddafdacef2ffeb8b354ea644f11b5c150f3e2c4a74ce38abba8f854ae16");
        let message = B32::try_from(octets.get(..32).expect("32 octets")).expect("32 octets");
        let (ciphertext, secret) = public.encapsulate_deterministic(&message);
        assert_eq!(hash(&ciphertext), "39826fe40dc54a3fef68b7c228ed8fb22931012b6fa3bd3e7f204d54db0ac1e1");
        assert_eq!(HEXLOWER.encode(&secret), "42f558b0bc5d700a911b0fc67f62376f7aee4667f1969e03f18bdfdf3c59fbdc");
        assert_eq!(key.decapsulate(&ciphertext), secret);
    }

    /// RFC 10024: ML-KEM comes first in both shares and in the secret.
    #[test]
    fn shares_and_secrets_are_in_the_order_of_the_standard() {
        let key = DecapsulationKey::from_seed(Seed::default());
        let classical = X25519.start().expect("a key exchange");
        let share = [key.encapsulation_key().to_bytes().as_slice(), classical.pub_key()].concat();
        let server = X25519_MLKEM768.start_and_complete(&share).expect("a share");
        let (ciphertext, point) = server.pub_key.split_at(CIPHERTEXT);
        let quantum = key.decapsulate(&Ciphertext::try_from(ciphertext).expect("a ciphertext"));
        let classical = classical.complete(point).expect("a secret");
        assert_eq!(server.secret.secret_bytes(), [quantum.as_slice(), classical.secret_bytes()].concat());
    }

    #[test]
    fn a_malformed_share_ends_the_handshake() {
        let begin = || X25519_MLKEM768.start().expect("a key exchange");
        let client = begin();
        let share = client.pub_key().to_vec();
        let server = X25519_MLKEM768.start_and_complete(&share).expect("a share");
        assert_eq!((share.len(), server.pub_key.len()), (KEY + 32, CIPHERTEXT + 32));
        let secret = client.complete(&server.pub_key).expect("a secret");
        assert_eq!((secret.secret_bytes(), secret.secret_bytes().len()), (server.secret.secret_bytes(), 64));
        // A key with coefficients beyond the modulus, and a point that makes the secret known.
        let too_large = [&[0xff; KEY], share.get(KEY..).expect("a point")].concat();
        let zero = |part: &[u8]| [part, &[0; 32]].concat();
        for wrong in [too_large, zero(share.get(..KEY).expect("a key"))] {
            assert!(X25519_MLKEM768.start_and_complete(&wrong).is_err());
        }
        assert!(begin().complete(&zero(server.pub_key.get(..CIPHERTEXT).expect("a ciphertext"))).is_err());
        for length in [0, 1, 31, 32, CIPHERTEXT, CIPHERTEXT + 31, CIPHERTEXT + 33, KEY, KEY + 31, KEY + 33, 5000] {
            let wrong = vec![1; length];
            assert!(X25519_MLKEM768.start_and_complete(&wrong).is_err(), "{length}");
            assert!(begin().complete(&wrong).is_err(), "{length}");
        }
    }

    /// The group and the kind of a handshake between these providers.
    fn handshake(client: Arc<CryptoProvider>, server: Arc<CryptoProvider>) -> (NamedGroup, HandshakeKind) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["mx.example.org".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).expect("a root");
        let client = ClientConfig::builder_with_provider(client).with_safe_default_protocol_versions();
        let client = client.expect("versions").with_root_certificates(roots).with_no_client_auth();
        let server = ServerConfig::builder_with_provider(server).with_safe_default_protocol_versions();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let server = server.expect("versions").with_no_client_auth().with_single_cert(vec![certificate], key);
        let name = "mx.example.org".try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
        let mut server = ServerConnection::new(Arc::new(server.expect("a certificate"))).expect("a server");
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("written");
            server.read_tls(&mut wire.as_slice()).expect("read");
            server.process_new_packets().expect("a server that goes on");
            let mut wire = Vec::new();
            server.write_tls(&mut wire).expect("written");
            client.read_tls(&mut wire.as_slice()).expect("read");
            client.process_new_packets().expect("a client that goes on");
        }
        let group = client.negotiated_key_exchange_group().expect("a group").name();
        (group, client.handshake_kind().expect("a kind"))
    }

    #[test]
    fn the_group_is_used_if_both_sides_have_it_and_costs_no_message_if_not() {
        let old = || Arc::new(default_provider());
        assert_eq!(handshake(provider(), provider()), (NamedGroup::X25519MLKEM768, HandshakeKind::Full));
        assert_eq!(handshake(provider(), old()), (NamedGroup::X25519, HandshakeKind::Full));
        assert_eq!(handshake(old(), provider()), (NamedGroup::X25519, HandshakeKind::Full));
    }
}
