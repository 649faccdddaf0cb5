//! Logging in to a host that the configuration names: AUTH (RFC 4954).
//!
//! The best mechanism that both have is taken, and no other after it: SCRAM-SHA-256,
//! PLAIN, LOGIN, or XOAUTH2 where there is a token. An initial response goes with the
//! command where the line is not too long for that (RFC 4954 4). Challenges are
//! bounded in number and length, and one that is no base64 is trouble.
//!
//! Whatever goes wrong defers, since nothing was said about a message: a wrong
//! password must not send mail back. The log has it as an error, for only a person
//! can mend it. A reply that repeats what was sent is not quoted.

use data_encoding::BASE64;

use super::{Connection, Stage, StageOutcome, nonsense};
use crate::deliver::remote::credentials::Login;
use crate::outcome::{Encryption, Fate, Outcome};
use crate::reply::{Reply, Status};
use crate::sasl::Mechanism;
use crate::sasl::client::Client;

/// Commands and answers of one attempt.
const ROUNDS: usize = 6;
/// The longest command line, with its CR LF (RFC 5321 4.5.3.1.4).
const LONGEST_COMMAND: usize = 512;
/// By so much of its beginning a secret is recognized.
const RECOGNIZED: usize = 8;

/// Host and mail disagree about who we are; nothing was said about a message.
const REFUSED: Status = Status(4, 7, 8);
const IMPOSSIBLE: Status = Status(4, 7, 4);

impl Connection {
    /// AUTH and its exchange.
    pub(super) fn log_in(&mut self, login: &Login) -> Result<(), StageOutcome> {
        self.authenticate(login).inspect_err(|answer| {
            ::log::error!("log in to {} as {}: {}", self.peer, login.user, answer.outcome.why);
            self.say_goodbye();
        })
    }

    fn authenticate(&mut self, login: &Login) -> Result<(), StageOutcome> {
        if self.tls == Encryption::CLEAR && !self.peer.is_this_host() {
            return Err(self.cannot(IMPOSSIBLE, "a secret is not sent in clear"));
        }
        let mechanism = self.choose(login).map_err(|why| self.cannot(IMPOSSIBLE, why))?;
        let secret = login.secret().map_err(|why| self.cannot(Status(4, 7, 0), why))?;
        let client =
            Client::new(mechanism, &login.user, &secret).map_err(|e| self.cannot(Status(4, 7, 0), e.to_string()))?;
        let mut said = vec![BASE64.encode(secret.as_bytes())];
        // A short one is found in any words.
        said.extend(Some(secret.into_owned()).filter(|secret| secret.len() >= RECOGNIZED));
        self.exchange(mechanism, client, &mut said).map_err(|answer| discreet(answer, &said))
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
        said: &mut Vec<String>,
    ) -> Result<(), StageOutcome> {
        let mut line = format!("AUTH {mechanism}");
        let mut held = None;
        if client.has_initial_response() {
            let first = client.step(None).map_err(|e| self.cannot(Status(4, 7, 0), e.to_string()))?;
            let first = BASE64.encode(&first);
            if line.len() + 1 + first.len() + 2 <= LONGEST_COMMAND {
                line = format!("{line} {first}");
            } else {
                held = Some(first.clone());
            }
            said.push(first);
        }
        for _ in 0..ROUNDS {
            line.push_str("\r\n");
            self.write(Stage::Auth, line.as_bytes())?;
            let reply = self.reply(Stage::Auth)?;
            line = match reply.code() {
                235 if client.is_done() && held.is_none() => return Ok(()),
                235 => return Err(self.trouble(Stage::Auth, &nonsense("the host does not prove that it knows us"))),
                334 => match held.take() {
                    Some(first) => first,
                    None => match answer(&mut client, &reply) {
                        Ok(answer) => answer,
                        Err(why) => return Err(self.cancel(&why)),
                    },
                },
                _ => return Err(self.not_let_in(reply)),
            };
            said.push(line.clone());
        }
        Err(self.cancel("the host asks for more than there is to say"))
    }

    /// Gives up an exchange.
    fn cancel(&mut self, why: &str) -> StageOutcome {
        // Whether it hears that changes nothing.
        let _ = self.write(Stage::Auth, b"*\r\n").and_then(|()| self.reply(Stage::Auth));
        self.cannot(Status(4, 7, 0), format!("logging in: {why}"))
    }

    fn cannot(&self, status: Status, why: impl Into<String>) -> StageOutcome {
        self.answer(Stage::Auth, Outcome::deferred(status, why))
    }

    fn not_let_in(&self, reply: Reply) -> StageOutcome {
        let mut answer = self.refused(Stage::Auth, reply);
        let outcome = &mut answer.outcome;
        if outcome.fate == Fate::Failed {
            let Status(_, subject, detail) = outcome.status;
            outcome.status = if (subject, detail) == (0, 0) { REFUSED } else { Status(4, subject, detail) };
            outcome.fate = Fate::Deferred;
        }
        answer
    }
}

/// An answer that does not quote a reply with something of what was said in it.
fn discreet(mut answer: StageOutcome, said: &[String]) -> StageOutcome {
    let Some(reply) = &answer.outcome.reply else { return answer };
    let shown = reply.to_string();
    let mut beginnings = said.iter().map(|text| text.get(..RECOGNIZED).unwrap_or(text));
    if beginnings.any(|text| text.len() > 2 && shown.contains(text)) {
        answer.outcome.why = format!("the host said {} to AUTH, and repeated what is secret", reply.code());
        answer.outcome.status = REFUSED;
        answer.outcome.reply = None;
    }
    answer
}

/// What is said to a challenge.
fn answer(client: &mut Client, reply: &Reply) -> Result<String, String> {
    let text = match reply.lines() {
        [text] => text.as_bytes(),
        _ => return Err("the host's challenge has more than one line".to_owned()),
    };
    let challenge = BASE64.decode(text).map_err(|_| "the host's challenge is no base64".to_owned())?;
    client.step(Some(&challenge)).map(|answer| BASE64.encode(&answer)).map_err(|e| e.to_string())
}
