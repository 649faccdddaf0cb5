//! Authenticates this server to another host: PLAIN, LOGIN, SCRAM-SHA-256, XOAUTH2.
//!
//! ```text
//! let mut client = Client::new(mechanism, user, secret)?;
//! AUTH name, with client.step(None) as the initial response    (LOGIN has none)
//! for each 334:   client.step(Some(challenge))
//! 235:            good only if client.is_done()
//! ```
//!
//! With SCRAM the server, too, proves that it knows the password. Until it has done so,
//! [`Client::is_done`] is false, and a 235 must not be accepted. A server is refused if it demands
//! fewer iterations than RFC 7677 allows, or so many that they would take more than about a second.
//! The caller limits the length of a challenge. Channel binding is not supported; the flag `n` in
//! the first message says so.

use std::fmt;

use data_encoding::BASE64;

use super::Mechanism;
use super::prep::prepare;
use super::scram::{self, Key};

/// One attempt to authenticate.
pub struct Client {
    mechanism: Mechanism,
    user: String,
    secret: String,
    state: State,
}

/// The state of an attempt.
enum State {
    Start,
    /// LOGIN: the name was sent.
    NameSent,
    /// SCRAM: the first message was sent. `nonce` is the client's nonce, and `bare` is the message
    /// without the header `n,,`.
    FirstSent {
        nonce: String,
        bare: String,
    },
    /// SCRAM: the client's proof was sent. The server has to answer with this signature.
    ProofSent {
        signature: Key,
    },
    Done,
    Failed,
}

/// Why an attempt failed. If AUTH was sent already, the caller has to cancel the exchange with `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientError {
    /// The name or the password contains characters that cannot be sent.
    Unusable,
    /// Penfold does not support this mechanism when it is the client.
    Unsupported,
    /// The challenge is malformed.
    Malformed,
    /// The server requires too few or too many iterations.
    Iterations,
    /// The server has not proved that it knows the password.
    Impostor,
    /// The system has no random numbers.
    NoRandom,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unusable => "the name or the password cannot be sent",
            Self::Unsupported => "the mechanism is not supported",
            Self::Malformed => "the server's challenge is malformed",
            Self::Iterations => "the server requires too few or too many iterations",
            Self::Impostor => "the server did not prove that it knows the password",
            Self::NoRandom => "the system has no random numbers",
        })
    }
}

impl std::error::Error for ClientError {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("mechanism", &self.mechanism).field("user", &self.user).finish_non_exhaustive()
    }
}

impl Client {
    /// An attempt to authenticate as `user`. `secret` is the password, or the token for XOAUTH2.
    ///
    /// # Errors
    /// [`ClientError::Unusable`] or [`ClientError::Unsupported`].
    pub fn new(mechanism: Mechanism, user: &str, secret: &str) -> Result<Self, ClientError> {
        let is_plain = |text: &str| !text.is_empty() && !text.contains(['\0', '\r', '\n']);
        if !is_plain(user) || !is_plain(secret) {
            return Err(ClientError::Unusable);
        }
        let prepared = |text: &str| prepare(text).map(|t| t.into_owned()).filter(|t| !t.is_empty());
        let (user, secret) = match mechanism {
            Mechanism::ScramSha256Plus => return Err(ClientError::Unsupported),
            Mechanism::ScramSha256 => {
                (prepared(user).ok_or(ClientError::Unusable)?, prepared(secret).ok_or(ClientError::Unusable)?)
            }
            Mechanism::Plain | Mechanism::Login => (user.to_owned(), secret.to_owned()),
            // XOAUTH2 uses ^A as the separator.
            Mechanism::Xoauth2 if user.contains('\u{1}') || secret.contains('\u{1}') => {
                return Err(ClientError::Unusable);
            }
            Mechanism::Xoauth2 => (user.to_owned(), secret.to_owned()),
        };
        Ok(Self { mechanism, user, secret, state: State::Start })
    }

    /// Whether the AUTH command should carry an initial response, which is `step(None)`. Otherwise
    /// the server begins with a challenge.
    pub fn has_initial_response(&self) -> bool {
        self.mechanism != Mechanism::Login
    }

    /// Returns the response to a challenge. If `challenge` is `None`, or is the empty first
    /// challenge, returns the initial response.
    ///
    /// # Errors
    /// The reason why the attempt failed.
    pub fn step(&mut self, challenge: Option<&[u8]>) -> Result<Vec<u8>, ClientError> {
        let (user, secret) = (&self.user, &self.secret);
        let (answer, next) = match (self.mechanism, std::mem::replace(&mut self.state, State::Failed)) {
            (Mechanism::Plain, State::Start) => (format!("\0{user}\0{secret}"), State::Done),
            (Mechanism::Login, State::Start) => (user.clone(), State::NameSent),
            (Mechanism::Login, State::NameSent) => (secret.clone(), State::Done),
            (Mechanism::Xoauth2, State::Start) => {
                (format!("user={user}\u{1}auth=Bearer {secret}\u{1}\u{1}"), State::Done)
            }
            // The challenge describes an error. The server sends its reply after an empty response.
            (Mechanism::Xoauth2, State::Done) if challenge.is_some() => (String::new(), State::Done),
            (Mechanism::ScramSha256, State::Start) => first(user)?,
            (Mechanism::ScramSha256, State::FirstSent { nonce, bare }) => {
                let challenge = text(challenge)?;
                prove(secret, &nonce, &bare, challenge)?
            }
            (Mechanism::ScramSha256, State::ProofSent { signature }) => {
                check(text(challenge)?, &signature)?;
                (String::new(), State::Done)
            }
            _ => return Err(ClientError::Malformed),
        };
        self.state = next;
        Ok(answer.into_bytes())
    }

    /// Whether the exchange is complete, including the server's proof with SCRAM.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

fn text(challenge: Option<&[u8]>) -> Result<&str, ClientError> {
    challenge.and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or(ClientError::Malformed)
}

fn first(user: &str) -> Result<(String, State), ClientError> {
    let nonce = scram::nonce().ok_or(ClientError::NoRandom)?;
    let bare = format!("n={},r={nonce}", scram::escape(user));
    Ok((format!("n,,{bare}"), State::FirstSent { nonce, bare }))
}

/// Answers the challenge `r=nonce,s=salt,i=iterations` with a proof of the password.
fn prove(secret: &str, nonce: &str, bare: &str, challenge: &str) -> Result<(String, State), ClientError> {
    let mut attributes = challenge.split(',');
    let mut next = |name| scram::value(attributes.next(), name).ok_or(ClientError::Malformed);
    let (both, salt, iterations) = (next('r')?, next('s')?, next('i')?);
    let salt = BASE64.decode(salt.as_bytes()).map_err(|_| ClientError::Malformed)?;
    let iterations: u32 = iterations.parse().map_err(|_| ClientError::Malformed)?;
    let is_fresh = both.len() > nonce.len() && both.starts_with(nonce) && scram::is_nonce(both);
    if !is_fresh || salt.is_empty() || salt.len() > scram::MAX_SALT {
        return Err(ClientError::Malformed);
    }
    if !(scram::MIN_ITERATIONS..=scram::MAX_ITERATIONS).contains(&iterations) {
        return Err(ClientError::Iterations);
    }
    let salted = scram::salted(secret.as_bytes(), &salt, iterations);
    let without = format!("c=biws,r={both}");
    let message = format!("{bare},{challenge},{without}");
    let proof = BASE64.encode(&scram::proof(&salted, message.as_bytes()));
    let signature = scram::sign(&scram::keys(&salted).server, message.as_bytes());
    Ok((format!("{without},p={proof}"), State::ProofSent { signature }))
}

/// Checks the server's last message. `v=signature` proves that the server knows the password. Any
/// other message, such as `e=error`, is a failure.
fn check(last: &str, signature: &Key) -> Result<(), ClientError> {
    let signature_received = scram::value(last.split(',').next(), 'v').ok_or(ClientError::Impostor)?;
    let signature_received = BASE64.decode(signature_received.as_bytes()).map_err(|_| ClientError::Malformed)?;
    if scram::is_same(&signature_received, signature) { Ok(()) } else { Err(ClientError::Impostor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client of the example in RFC 7677 3, which has sent its first message with the nonce of
    /// the example.
    fn client_of_rfc_7677() -> Client {
        let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        let mut client = Client::new(Mechanism::ScramSha256, "user", "pencil").expect("plain");
        client.state = State::FirstSent { bare: format!("n=user,r={nonce}"), nonce };
        client
    }

    const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[test]
    fn the_example_of_rfc_7677() {
        let mut client = client_of_rfc_7677();
        let answer = client.step(Some(CHALLENGE.as_bytes())).expect("a proof");
        let wanted = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(String::from_utf8_lossy(&answer), wanted);
        assert!(!client.is_done(), "the server has not proved anything");
        let last = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(client.step(Some(last)).as_deref(), Ok(&b""[..]));
        assert!(client.is_done());
    }

    #[test]
    fn a_server_without_the_password_is_detected() {
        for last in ["v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=", "v=", "v=AAAA", "e=invalid-proof", "", "x"] {
            let mut client = client_of_rfc_7677();
            client.step(Some(CHALLENGE.as_bytes())).expect("a proof");
            assert!(client.step(Some(last.as_bytes())).is_err(), "{last}");
            assert!(!client.is_done(), "{last}");
        }
    }

    #[test]
    fn malformed_challenges_are_refused() {
        for challenge in [
            "",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4294967295",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=-1",
            "r=rOprNGfwEbeRWgbNEkqOx,s=!,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,i=4096",
            "m=x,r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        ] {
            let mut client = client_of_rfc_7677();
            assert!(client.step(Some(challenge.as_bytes())).is_err(), "{challenge}");
            assert!(!client.is_done(), "{challenge}");
        }
    }

    #[test]
    fn plain_login_and_xoauth2_send_their_messages() {
        let mut plain = Client::new(Mechanism::Plain, "jon", "pass").expect("plain");
        assert!(!plain.is_done());
        assert_eq!(plain.step(None).as_deref(), Ok(&b"\0jon\0pass"[..]));
        assert!(plain.is_done() && plain.step(Some(b"more")).is_err());
        let mut login = Client::new(Mechanism::Login, "jon", "pass").expect("plain");
        assert_eq!(login.step(Some(b"Username:")).as_deref(), Ok(&b"jon"[..]));
        assert!(!login.is_done());
        assert_eq!(login.step(Some(b"Password:")).as_deref(), Ok(&b"pass"[..]));
        assert!(login.is_done());
        let mut token = Client::new(Mechanism::Xoauth2, "jon@x", "tok").expect("plain");
        assert_eq!(token.step(None).as_deref(), Ok(&b"user=jon@x\x01auth=Bearer tok\x01\x01"[..]));
        assert_eq!(token.step(Some(b"{\"status\":\"401\"}")).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn names_and_passwords_that_cannot_be_sent_are_refused() {
        for (mechanism, user, secret) in [
            (Mechanism::Plain, "jo\0n", "x"),
            (Mechanism::Plain, "", "x"),
            (Mechanism::Login, "jon", ""),
            (Mechanism::Xoauth2, "jon\u{1}", "x"),
            (Mechanism::ScramSha256, "jon", "\u{7}"),
            (Mechanism::ScramSha256Plus, "jon", "x"),
        ] {
            assert!(Client::new(mechanism, user, secret).is_err());
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        let client = Client::new(Mechanism::Plain, "jon", "hush").expect("plain");
        assert!(!format!("{client:?}").contains("hush"));
    }
}
