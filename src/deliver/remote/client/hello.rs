//! Reads the greeting and sends EHLO, or LHLO to a mail store, to learn the host's name and its
//! extensions.
//!
//! Each EHLO or LHLO replaces the extensions, since those from before the TLS handshake may have been
//! forged.

use super::{Connection, NotOpen, Stage, StageOutcome, State};
use crate::reply::Reply;
use crate::smtp::extensions::Extensions;

/// Maximum number of further lines with code 220 that are read after the greeting.
const MAX_BANNERS: usize = 100;

impl Connection {
    /// Reads the greeting. Some hosts mark each line of a long greeting as the last line, so
    /// further lines with code 220 are read if they have arrived already.
    pub(super) fn read_greeting(&mut self) -> Result<(), StageOutcome> {
        let mut greeting = self.reply(Stage::Banner)?;
        self.names[0] = first_word(&greeting);
        for _ in 0..MAX_BANNERS {
            if greeting.code() != 220 || !self.input.has_line() {
                break;
            }
            greeting = self.reply(Stage::Banner)?;
            if greeting.code() != 220 {
                let answer = self.rejected(Stage::Banner, greeting);
                self.send_quit();
                return Err(answer.deferred());
            }
        }
        self.expect_success(Stage::Banner, greeting)
    }

    /// Sends `verb`, which is EHLO, HELO or LHLO. If the host rejects EHLO with a 5xx, sends HELO.
    /// The extensions of an earlier reply are forgotten.
    pub(super) fn hello(&mut self, verb: &str, hostname: &str) -> Result<(), NotOpen> {
        let stage = if self.is_store() { Stage::StoreHello } else { Stage::Hello };
        (self.extensions, self.mails_left) = (Extensions::default(), None);
        self.expect_silence(stage)?;
        let line = format!("{verb} {hostname}\r\n");
        self.recorder.command(&line, None);
        self.write(stage, line.as_bytes())?;
        let mut reply = self.reply(stage).map_err(|answer| self.hello_failed(answer))?;
        if (200..300).contains(&reply.code()) {
            self.extensions = Extensions::parse(&reply);
            self.mails_left = self.extensions.limits.and_then(|limits| limits.mails);
        } else if reply.code() >= 500 && self.state != State::Broken && !self.is_store() {
            let answer = self.rejected(Stage::Hello, reply).deferred();
            // If HELO fails too, the reply to EHLO is more informative than a broken connection.
            reply = self.helo(hostname).map_err(|second| if second.is_reply() { second } else { answer })?;
        }
        self.names[1] = first_word(&reply);
        Ok(self.expect_success(stage, reply)?)
    }

    fn helo(&mut self, hostname: &str) -> Result<Reply, StageOutcome> {
        self.expect_silence(Stage::Hello)?;
        let line = format!("HELO {hostname}\r\n");
        self.recorder.command(&line, None);
        self.write(Stage::Hello, line.as_bytes())?;
        self.reply(Stage::Hello)
    }

    /// The reason why EHLO has failed. If the host has closed the connection without a reply, it
    /// may still accept HELO over a new connection, unless it is a mail store.
    fn hello_failed(&self, answer: StageOutcome) -> NotOpen {
        if !answer.is_reply() && self.was_closed && !self.is_store() {
            NotOpen::ClosedAtHello(answer)
        } else {
            NotOpen::Failed(answer)
        }
    }

    pub(super) fn expect_success(&mut self, stage: Stage, reply: Reply) -> Result<(), StageOutcome> {
        if (200..300).contains(&reply.code()) {
            return Ok(());
        }
        let answer = self.rejected(stage, reply);
        self.send_quit();
        Err(answer.deferred())
    }
}

fn first_word(reply: &Reply) -> String {
    reply.lines().first().and_then(|line| line.split_ascii_whitespace().next()).unwrap_or_default().to_owned()
}
