//! Makes new DKIM keys for an administrator.
//!
//! The library ring signs with RSA keys but makes none. So the primes come from the package
//! crypto-primes, and this module computes the numbers of the key from the primes. The time of the
//! computation depends on the secret numbers. An attacker cannot measure the time, because the
//! computation happens once in the life of a key, in a program without connections. ring reads each
//! new key back and checks that its numbers fit together.

use std::io;

use crypto_bigint::rand_core::UnwrapErr;
use crypto_bigint::{NonZero, Odd, U1024, U2048};
use crypto_primes::hazmat::{SetBits, SmallFactorsSieveFactory};
use crypto_primes::{Flavor, is_prime, sieve_and_find};
use getrandom::SysRng;

use super::der::{self, RsaNumbers};
use crate::mailauth::dkim::SigningKey;

/// The length of each of the two primes of an RSA key, in bits.
const PRIME: u32 = 1024;
/// The public exponent of RSA keys. Some verifiers accept no other.
const EXPONENT: u32 = 65537;

/// Makes an RSA key of 2048 bits, in PEM.
///
/// # Errors
/// The error of the system, if it has no random numbers.
pub fn rsa() -> io::Result<String> {
    // The generator of primes cannot return an error, so the system is asked for random numbers
    // first. If it has random numbers once, it always has them.
    getrandom::fill(&mut [0; 32])?;
    loop {
        let (p, q) = (prime()?, prime()?);
        // If the two primes were close to each other, an attacker could find them by a search (FIPS
        // 186-5 A.1.3). ring expects the larger prime first.
        if p.bitxor(&q).bit_width_vartime() > PRIME - 100
            && let Some(key) = if p > q { rsa_of(&p, &q) } else { rsa_of(&q, &p) }
        {
            return Ok(key);
        }
    }
}

/// Makes an Ed25519 key, in PEM.
///
/// # Errors
/// The error of the system, if it has no random numbers.
pub fn ed25519() -> io::Result<String> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(der::pem(&der::ed25519_private(&seed)))
}

fn prime() -> io::Result<U1024> {
    // With the two highest bits set, the product of two primes has 2048 bits.
    let found = SmallFactorsSieveFactory::new(Flavor::Any, PRIME, SetBits::TwoMsb).and_then(|candidates| {
        sieve_and_find(&mut UnwrapErr(SysRng), candidates, |_, candidate| is_prime(Flavor::Any, candidate))
    });
    found.map_err(|e| io::Error::other(e.to_string()))?.ok_or_else(|| io::Error::other("no prime was found"))
}

/// Returns the RSA key with the primes `p` and `q`. `p` must be the larger prime. Returns `None` if
/// there is no key with the public exponent [`EXPONENT`].
fn rsa_of(p: &U1024, q: &U1024) -> Option<String> {
    let less_one = |prime: &U1024| prime.wrapping_sub(&U1024::ONE);
    let modulus: U2048 = p.concatenating_mul(q);
    let order: U2048 = less_one(p).concatenating_mul(&less_one(q));
    let public = U2048::from_u32(EXPONENT);
    let private = public.invert_mod(&NonZero::new(order).into_option()?).into_option()?;
    let exponent = |prime: &U1024| -> Option<U1024> {
        let modulus: U2048 = less_one(prime).resize();
        Some(private.rem_vartime(&NonZero::new(modulus).into_option()?).resize())
    };
    let coefficient = q.invert_odd_mod(&Odd::new(*p).into_option()?).into_option()?;
    let key = der::rsa_private(&RsaNumbers {
        modulus: modulus.to_be_bytes().as_ref(),
        public: public.to_be_bytes().as_ref(),
        private: private.to_be_bytes().as_ref(),
        primes: [p.to_be_bytes().as_ref(), q.to_be_bytes().as_ref()],
        exponents: [exponent(p)?.to_be_bytes().as_ref(), exponent(q)?.to_be_bytes().as_ref()],
        coefficient: coefficient.to_be_bytes().as_ref(),
    });
    let text = der::pem(&key);
    SigningKey::from_pem(text.as_bytes()).is_ok().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_keys_can_be_read_and_differ() {
        for make in [rsa, ed25519] {
            let (one, other) = (make().expect("random numbers"), make().expect("random numbers"));
            assert_ne!(one, other);
            let record = |pem: &str| SigningKey::from_pem(pem.as_bytes()).expect("a key").record();
            assert_ne!(record(&one), record(&other));
        }
    }
}
