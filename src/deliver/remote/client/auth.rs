//! Authenticates this server at a host that the configuration names, with AUTH (RFC 4954).
//!
//! With a password the client uses the first of SCRAM-SHA-256, PLAIN and LOGIN that the host
//! offers; with a token it uses XOAUTH2. If that mechanism fails, no other is tried. The initial
//! response is sent with the command unless the line would be too long (RFC 4954 4). Challenges are
//! bounded in number and length.
//!
//! All failures are temporary and logged as errors: a wrong password must not bounce mail, and only
//! the postmaster can correct it. If the host's reply repeats a secret, the reply is not quoted.

use data_encoding::BASE64;

use super::{Connection, Stage, StageOutcome, protocol_error};
use crate::deliver::remote::credentials::Login;
use crate::outcome::{Encryption, Fate, Outcome};
use crate::reply::{Reply, Status};
use crate::sasl::Mechanism;
use crate::sasl::client::Client;

/// Maximum number of responses in one exchange.
const ROUNDS: usize = 6;
/// Maximum length of a command line in octets, with CR LF (RFC 5321 4.5.3.1.4).
const MAX_COMMAND: usize = 512;
/// A secret is recognized in a reply by this many of its first characters.
const RECOGNIZED_PREFIX: usize = 8;

/// The status if the credentials were rejected.
const REJECTED: Status = Status(4, 7, 8);
const IMPOSSIBLE: Status = Status(4, 7, 4);

impl Connection {
    /// Authenticates. A failure is logged, and closes the connection.
    pub(super) fn authenticate_or_quit(&mut self, login: &Login) -> Result<(), StageOutcome> {
        // Neither the commands nor the replies are recorded, because a reply may repeat a secret.
        let done = self.authenticate(login);
        self.recorder.remark(match done {
            Ok(()) => "logged in with AUTH, which is not shown",
            Err(_) => "could not log in with AUTH, which is not shown",
        });
        done.inspect_err(|answer| {
            ::log::error!("log in to {} as {}: {}", self.peer, login.user, answer.outcome.why);
            self.send_quit();
        })
    }

    fn authenticate(&mut self, login: &Login) -> Result<(), StageOutcome> {
        if self.tls == Encryption::CLEAR && !self.peer.is_this_host() {
            return Err(self.failed(IMPOSSIBLE, "credentials are not sent in plaintext"));
        }
        let mechanism = self.choose(login).map_err(|why| self.failed(IMPOSSIBLE, why))?;
        let secret = login.secret().map_err(|why| self.failed(Status(4, 7, 0), why))?;
        let client =
            Client::new(mechanism, &login.user, &secret).map_err(|e| self.failed(Status(4, 7, 0), e.to_string()))?;
        let mut sent = vec![BASE64.encode(secret.as_bytes())];
        // A shorter secret could occur in a reply by chance.
        sent.extend(Some(secret.into_owned()).filter(|secret| secret.len() >= RECOGNIZED_PREFIX));
        self.exchange(mechanism, client, &mut sent).map_err(|answer| without_secrets(answer, &sent))
    }

    fn choose(&self, login: &Login) -> Result<Mechanism, String> {
        let Some(offered) = &self.extensions.auth else {
            return Err("there are credentials for the host, and it does not offer AUTH".to_owned());
        };
        let (ours, names): (&[Mechanism], _) = if login.is_token() {
            (&[Mechanism::Xoauth2], "XOAUTH2")
        } else {
            (&[Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login], "SCRAM-SHA-256, PLAIN or LOGIN")
        };
        let common = ours.iter().find(|mechanism| offered.contains(mechanism));
        common.copied().ok_or_else(|| format!("the host does not offer AUTH with {names}"))
    }

    fn exchange(
        &mut self,
        mechanism: Mechanism,
        mut client: Client,
        sent: &mut Vec<String>,
    ) -> Result<(), StageOutcome> {
        let mut line = format!("AUTH {mechanism}");
        let mut held = None;
        if client.has_initial_response() {
            let first = client.step(None).map_err(|e| self.failed(Status(4, 7, 0), e.to_string()))?;
            let first = BASE64.encode(&first);
            if line.len() + 1 + first.len() + 2 <= MAX_COMMAND {
                line = format!("{line} {first}");
            } else {
                held = Some(first.clone());
            }
            sent.push(first);
        }
        for _ in 0..ROUNDS {
            line.push_str("\r\n");
            self.write(Stage::Auth, line.as_bytes())?;
            let reply = self.reply(Stage::Auth)?;
            line = match reply.code() {
                235 if client.is_done() && held.is_none() => return Ok(()),
                235 => {
                    return Err(
                        self.broken(Stage::Auth, &protocol_error("the host does not prove that it knows the password"))
                    );
                }
                334 => match held.take() {
                    Some(first) => first,
                    None => match answer(&mut client, &reply) {
                        Ok(answer) => answer,
                        Err(why) => return Err(self.cancel(&why)),
                    },
                },
                _ => return Err(self.auth_rejected(reply)),
            };
            sent.push(line.clone());
        }
        Err(self.cancel("the host sends too many challenges"))
    }

    /// Cancels an AUTH exchange. Returns the outcome for the reason `why`.
    fn cancel(&mut self, why: &str) -> StageOutcome {
        // An error here is ignored: the exchange has failed already.
        let _ = self.write(Stage::Auth, b"*\r\n").and_then(|()| self.reply(Stage::Auth));
        self.failed(Status(4, 7, 0), format!("logging in: {why}"))
    }

    fn failed(&self, status: Status, why: impl Into<String>) -> StageOutcome {
        self.answer(Stage::Auth, Outcome::deferred(status, why))
    }

    fn auth_rejected(&self, reply: Reply) -> StageOutcome {
        let mut answer = self.rejected(Stage::Auth, reply);
        let outcome = &mut answer.outcome;
        if outcome.fate == Fate::Failed {
            let Status(_, subject, detail) = outcome.status;
            outcome.status = if (subject, detail) == (0, 0) { REJECTED } else { Status(4, subject, detail) };
            outcome.fate = Fate::Deferred;
        }
        answer
    }
}

/// If the host's reply repeats a secret that was sent, removes the reply from the outcome.
fn without_secrets(mut answer: StageOutcome, sent: &[String]) -> StageOutcome {
    let Some(reply) = &answer.outcome.reply else { return answer };
    let shown = reply.to_string();
    let mut beginnings = sent.iter().map(|text| text.get(..RECOGNIZED_PREFIX).unwrap_or(text));
    if beginnings.any(|text| text.len() > 2 && shown.contains(text)) {
        answer.outcome.why = format!("the host said {} to AUTH, and repeated a secret", reply.code());
        answer.outcome.status = REJECTED;
        answer.outcome.reply = None;
    }
    answer
}

/// The response to a challenge.
fn answer(client: &mut Client, reply: &Reply) -> Result<String, String> {
    let text = match reply.lines() {
        [text] => text.as_bytes(),
        _ => return Err("the host's challenge has more than one line".to_owned()),
    };
    let challenge = BASE64.decode(text).map_err(|_| "the host's challenge is not base64".to_owned())?;
    client.step(Some(&challenge)).map(|answer| BASE64.encode(&answer)).map_err(|e| e.to_string())
}
