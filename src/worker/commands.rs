//! Mail that commands and files take.
//!
//! A command gets the message on its standard input, and learns who sent it to whom from
//! its environment alone, in which nothing stands that a shell or a path would make more
//! of than letters: such characters of an address are `_` there. Neither a command nor a
//! file can say after a crash whether it had the message: in doubt it comes twice.

use std::path::{Path, PathBuf};

use super::Attempt;
use crate::deliver::agent::{AgentError, Part, Request, Response};
use crate::log;
use crate::outcome::{Outcome, Via};
use crate::privsep;
use crate::reply::Status;
use crate::spool::RecipientEntry;
use crate::users::Owner;

/// How long a command may take, in seconds.
const LIMIT: u64 = 1000;
/// Where programs are looked for.
const PROGRAMS: &str = "/usr/local/bin:/usr/bin:/bin";

impl Attempt<'_> {
    /// Gives the message to a command.
    pub(super) fn run(&self, slot: &RecipientEntry, command: &str, owner: &Owner) -> Outcome {
        let directory = match owner {
            Owner::Server => PathBuf::from("/"),
            Owner::User(account) => account.home.clone(),
        };
        let request = Request::Run {
            command: command.to_owned(),
            environment: self.environment(slot, owner, &directory),
            directory,
            head: self.entry.delivery_head(slot),
            content: self.content(),
            limit: LIMIT,
        };
        let outcome = match self.with_message(owner, &request) {
            Ok(Response::Ended(ended, said)) => Outcome::from_command(ended, &said),
            other => not_done(other).via(Via::Command),
        };
        outcome.at(format!("|{command}"))
    }

    /// Adds the message to a file that holds many.
    pub(super) fn append(&self, slot: &RecipientEntry, file: &Path, owner: &Owner) -> Outcome {
        let sender = self.entry.sender().map_or_else(|| "MAILER-DAEMON".to_owned(), ToString::to_string);
        let date = log::local_time().strftime("%a %b %e %H:%M:%S %Y").to_string();
        let head = format!("From {} {date}\n{}", sender.replace(' ', "_"), self.entry.delivery_head(slot));
        let request = Request::Append { file: file.to_owned(), head, content: self.content() };
        let outcome = match self.with_message(owner, &request) {
            Ok(Response::Done) => Outcome::delivered(""),
            other => not_done(other),
        };
        outcome.via(Via::Mbox).at(file.to_string_lossy())
    }

    fn content(&self) -> Part {
        Part { at: self.entry.content_start(), size: self.entry.content_size() }
    }

    fn with_message(&self, owner: &Owner, request: &Request) -> Result<Response, AgentError> {
        let file = self.entry.file_for(owner == &Owner::Server);
        let file = file.map_err(|e| AgentError::new("read the message in the spool", e))?;
        self.agents.perform(owner, request, Some(&file))
    }

    fn environment(&self, slot: &RecipientEntry, owner: &Owner, home: &Path) -> Vec<(String, String)> {
        let address = &slot.recipient.address;
        let user = match owner {
            Owner::Server => privsep::user_name(),
            Owner::User(account) => account.name.clone(),
        };
        let sender = self.entry.sender().map(ToString::to_string).unwrap_or_default();
        let original = slot.recipient.original.as_ref().unwrap_or(address);
        let extension = self.settings.router.extension(address).map(|(_, text)| text).unwrap_or_default();
        let said = [
            ("SENDER", &*sender),
            ("RECIPIENT", &address.to_string()),
            ("ORIGINAL_RECIPIENT", &original.to_string()),
            ("LOCAL", address.local()),
            ("EXTENSION", &extension),
            ("DOMAIN", address.domain()),
        ];
        let said = said.map(|(name, value)| (name.to_owned(), harmless(value)));
        let own = [
            ("USER", &*user),
            ("LOGNAME", &*user),
            ("HOME", &*home.to_string_lossy()),
            ("SHELL", "/bin/sh"),
            ("PATH", PROGRAMS),
        ];
        said.into_iter().chain(own.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
    }
}

fn not_done(result: Result<Response, AgentError>) -> Outcome {
    match result {
        Err(trouble) => Outcome::from_io(&trouble.doing, &trouble.error),
        Ok(_) => Outcome::deferred(Status(4, 3, 0), "the agent does not answer what it was asked"),
    }
}

/// A text of a client's in which nothing is special for a shell, a path or a program's
/// options.
fn harmless(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@._-+=%:,!".contains(c);
    let clean = text.chars().map(|c| if is_plain(c) { c } else { '_' });
    clean.enumerate().map(|(at, c)| if at == 0 && matches!(c, '-' | '.') { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_is_harmless_to_a_shell() {
        for (said, harm_less) in [
            ("jon@x.org", "jon@x.org"),
            ("SRS0=ab=cd=x.org=jon@y.org", "SRS0=ab=cd=x.org=jon@y.org"),
            (";sleep 66;", "_sleep_66_"),
            ("$(id)`id`", "__id__id_"),
            ("-rf", "_rf"),
            ("../../etc", "_._.._etc"),
            ("|cat>/etc/x&", "_cat__etc_x_"),
            ("a\\b'c\"d*?#~", "a_b_c_d____"),
            ("%00", "%00"),
            ("a\nb", "a_b"),
        ] {
            assert_eq!(harmless(said), harm_less);
        }
    }
}
