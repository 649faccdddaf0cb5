//! The greeting and EHLO: who the host says it is, and what it can do.
//!
//! Each EHLO begins anew: what a host offered before the handshake of TLS may have
//! been somebody else's word, and counts no more after it.

use super::{Connection, NotOpen, Stage, StageOutcome, State};
use crate::reply::Reply;
use crate::smtp::extensions::Extensions;

/// Lines of a greeting that look like one each.
const MAX_BANNERS: usize = 100;

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
            self.extensions = Extensions::parse(&reply);
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

fn first_word(reply: &Reply) -> String {
    reply.lines().first().and_then(|line| line.split_ascii_whitespace().next()).unwrap_or_default().to_owned()
}
