//! The greeting and EHLO: who the host says it is, and what it can do.
//!
//! Each EHLO begins anew: what a host offered before the handshake of TLS may have
//! been somebody else's word, and counts no more after it.

use super::{Connection, NotOpen, Stage, StageOutcome, State};
use crate::reply::Reply;
use crate::sasl::Mechanism;

/// Lines of a greeting that look like one each.
const MAX_BANNERS: usize = 100;

/// What the host can do, by its reply to EHLO.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) pipelining: bool,
    pub(super) eight_bit: bool,
    /// SIZE; zero is no limit (RFC 1870 3).
    pub(super) size: Option<u64>,
    pub(super) starttls: bool,
    /// Of the mechanisms of AUTH those that are known here; `None` without AUTH.
    pub(super) auth: Option<Vec<Mechanism>>,
}

impl Connection {
    /// Hears the greeting. Some have one of several lines that all look like the last.
    pub(super) fn greeted(&mut self) -> Result<(), StageOutcome> {
        let mut welcome = self.reply(Stage::Banner)?;
        self.names[0] = first_word(&welcome);
        for _ in 0..MAX_BANNERS {
            if welcome.code() != 220 || !self.input.has_line() {
                break;
            }
            welcome = self.reply(Stage::Banner)?;
            if welcome.code() != 220 {
                let answer = self.refused(Stage::Banner, welcome);
                self.say_goodbye();
                return Err(answer.deferred());
            }
        }
        self.welcomed(Stage::Banner, welcome)
    }

    /// `verb`, which is EHLO or HELO, and HELO where EHLO is not known. What was offered
    /// before is forgotten.
    pub(super) fn hello(&mut self, verb: &str, hostname: &str) -> Result<(), NotOpen> {
        self.extensions = Extensions::default();
        self.expect_silence(Stage::Hello)?;
        self.write(Stage::Hello, format!("{verb} {hostname}\r\n").as_bytes())?;
        let mut reply = self.reply(Stage::Hello).map_err(|answer| self.hung_up(answer))?;
        if (200..300).contains(&reply.code()) {
            self.extensions = Extensions::read(&reply);
        } else if reply.code() >= 500 && self.state != State::Broken {
            let answer = self.refused(Stage::Hello, reply).deferred();
            // Where HELO does not help, what was said to EHLO tells more.
            reply = self.plain_hello(hostname).map_err(|second| if second.is_said() { second } else { answer })?;
        }
        self.names[1] = first_word(&reply);
        Ok(self.welcomed(Stage::Hello, reply)?)
    }

    fn plain_hello(&mut self, hostname: &str) -> Result<Reply, StageOutcome> {
        self.expect_silence(Stage::Hello)?;
        self.write(Stage::Hello, format!("HELO {hostname}\r\n").as_bytes())?;
        self.reply(Stage::Hello)
    }

    /// An answer to EHLO; whoever has hung up without a word may know HELO.
    fn hung_up(&self, answer: StageOutcome) -> NotOpen {
        if !answer.is_said() && self.has_ended { NotOpen::HungUp(answer) } else { NotOpen::StageOutcome(answer) }
    }

    pub(super) fn welcomed(&mut self, stage: Stage, reply: Reply) -> Result<(), StageOutcome> {
        if (200..300).contains(&reply.code()) {
            return Ok(());
        }
        let answer = self.refused(stage, reply);
        self.say_goodbye();
        Err(answer.deferred())
    }
}

impl Extensions {
    fn read(reply: &Reply) -> Self {
        let mut extensions = Self::default();
        for line in reply.lines().iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "STARTTLS" => extensions.starttls = true,
                "AUTH" => extensions.add_mechanisms(words),
                // As it was before RFC 2554, and as some still say it beside the other.
                _ if keyword.starts_with("AUTH=") => {
                    extensions.add_mechanisms(keyword.split('=').skip(1).chain(words));
                }
                "PIPELINING" => extensions.pipelining = true,
                "8BITMIME" => extensions.eight_bit = true,
                "SIZE" => extensions.size = Some(limit(words.next())),
                _ if keyword.starts_with("SIZE=") => extensions.size = Some(limit(keyword.get(5..))),
                _ => {}
            }
        }
        extensions
    }

    fn add_mechanisms<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.auth.get_or_insert_default().extend(names.filter_map(Mechanism::parse));
    }
}

/// A limit that is no number is none.
fn limit(number: Option<&str>) -> u64 {
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn first_word(reply: &Reply) -> String {
    reply.lines().first().and_then(|line| line.split_ascii_whitespace().next()).unwrap_or_default().to_owned()
}
