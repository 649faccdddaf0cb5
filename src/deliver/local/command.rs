//! Delivers a message to a command that an alias or a `.forward` names.
//!
//! The command gets the message on its standard input, and the sender and the recipient only in
//! environment variables. There, `_` replaces every character of an address that a shell or a path
//! could interpret. After a crash it is unknown whether the command got the message, so the command
//! may get the message twice.

use std::path::{Path, PathBuf};

use super::{LocalDelivery, not_performed};
use crate::deliver::agent::{Request, Response};
use crate::outcome::{Outcome, Via};
use crate::privsep;
use crate::spool::RecipientEntry;
use crate::users::Owner;

/// How long a command may take, in seconds.
const TIME_LIMIT: u64 = 1000;
/// The directories in which programs are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

impl LocalDelivery<'_> {
    /// Runs a command with the message.
    pub(super) fn run(&self, addressee: &RecipientEntry, command: &str, owner: &Owner) -> Outcome {
        let directory = match owner {
            Owner::Server => PathBuf::from("/"),
            Owner::User(account) => account.home.clone(),
        };
        let request = Request::Run {
            command: command.to_owned(),
            environment: self.environment(addressee, owner, &directory),
            directory,
            head: self.entry.delivery_head(addressee),
            content: self.content(),
            limit: TIME_LIMIT,
        };
        let outcome = match self.perform(owner, &request) {
            Ok(Response::Ended(ended, output)) => Outcome::from_command(ended, &output),
            other => not_performed(other).via(Via::Command),
        };
        outcome.at(format!("|{command}"))
    }

    fn environment(&self, addressee: &RecipientEntry, owner: &Owner, home: &Path) -> Vec<(String, String)> {
        let address = &addressee.recipient.address;
        let user = match owner {
            Owner::Server => privsep::user_name(),
            Owner::User(account) => account.name.clone(),
        };
        let sender = self.entry.sender().map(ToString::to_string).unwrap_or_default();
        let original = addressee.recipient.original.as_ref().unwrap_or(address);
        let extension = self.router.extension(address).map(|(_, text)| text).unwrap_or_default();
        let message = [
            ("SENDER", &*sender),
            ("RECIPIENT", &address.to_string()),
            ("ORIGINAL_RECIPIENT", &original.to_string()),
            ("LOCAL", address.local()),
            ("EXTENSION", &extension),
            ("DOMAIN", address.domain()),
        ];
        let message = message.map(|(name, value)| (name.to_owned(), harmless(value)));
        let login = [
            ("USER", &*user),
            ("LOGNAME", &*user),
            ("HOME", &*home.to_string_lossy()),
            ("SHELL", "/bin/sh"),
            ("PATH", PATH),
        ];
        message.into_iter().chain(login.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
    }
}

/// Returns a client's text with `_` in place of every character that may be special in a shell
/// command, a path or a program's options.
fn harmless(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "@._-+=%:,!".contains(c);
    let clean = text.chars().map(|c| if is_plain(c) { c } else { '_' });
    clean.enumerate().map(|(at, c)| if at == 0 && matches!(c, '-' | '.') { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_client_is_harmless_to_a_shell() {
        for (text, expected) in [
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
            ("j\u{f6}rg\u{2019}\u{a0}\u{202e}", "j\u{f6}rg___"),
        ] {
            assert_eq!(harmless(text), expected);
        }
    }
}
