//! A command that takes a message.
//!
//! The text of the command is that of a table or of its user's own file, and no octet of
//! an address is ever put into it: those are in the environment. A text without anything
//! that a shell would make something of is split at its blanks and run as it is; any other
//! is given to `/bin/sh -c`, and so is one of which no program has the name: it may be the
//! shell's own, such as `exit`. That there is no such program, or none that may be run, is told
//! as a shell tells it: 127, 126. See [`crate::sys::command`] for the bounds.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{AgentError, Ended, Part, Response};
use crate::spool::Content;
use crate::sys::command::{self, Terms};

/// How much of what a command says is kept, in octets.
const MOST: usize = 4096;
/// What a shell makes something of.
const SPECIAL: &[char] = &[
    '!', '"', '#', '$', '%', '&', '\'', '(', ')', '*', ';', '<', '=', '>', '?', '[', '\\', ']', '^', '`', '{', '|',
    '}', '~', '\n',
];

/// A command, and what it is given besides the message.
pub struct Run<'a> {
    /// As it is written.
    pub command: &'a str,
    /// Where it works.
    pub directory: &'a Path,
    /// All of its environment.
    pub environment: &'a [(String, String)],
    /// How long it may take.
    pub limit: Duration,
}

impl Run<'_> {
    /// Runs it with a message on its standard input.
    pub fn with(&self, head: &str, message: &File, content: Part) -> Result<Response, AgentError> {
        // Else it would look as if the program were missing.
        std::fs::metadata(self.directory)
            .map_err(|e| AgentError::new(format!("enter {}", self.directory.display()), e))?;
        let run = |mut command: Command| {
            let mut input = head.as_bytes().chain(Content::new(message, content.at, content.at + content.size));
            command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
            command.current_dir(self.directory);
            command::run(command, Terms { input: Some(&mut input), limit: self.limit, most: MOST, is_free: true })
        };
        let parsed = parsed(self.command);
        let is_a_name = !parsed.get_program().as_bytes().contains(&b'/');
        let ran = match run(parsed) {
            // Nothing has been begun yet.
            Err(e) if e.kind() == ErrorKind::NotFound && is_a_name => run(by_shell(self.command)),
            ran => ran,
        };
        match ran {
            Ok((ended, said)) => Ok(Response::Ended(ended, String::from_utf8_lossy(&said).replace('\0', " "))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Response::Ended(Ended::Code(127), e.to_string())),
            Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(Response::Ended(Ended::Code(126), e.to_string())),
            Err(e) => Err(AgentError::new("run the command", e)),
        }
    }
}

fn parsed(text: &str) -> Command {
    let mut words = text.split_ascii_whitespace();
    match words.next().filter(|_| !text.contains(SPECIAL)) {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(words);
            command
        }
        None => by_shell(text),
    }
}

fn by_shell(text: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_for_those_who_need_one() {
        for (text, program, arguments) in [
            ("/usr/bin/vacation -a jon  jon", "/usr/bin/vacation", vec!["-a", "jon", "jon"]),
            ("cat", "cat", vec![]),
            ("exec a", "exec", vec!["a"]),
            ("a 'b c'", "/bin/sh", vec!["-c", "a 'b c'"]),
            ("A=b a", "/bin/sh", vec!["-c", "A=b a"]),
            ("a $B", "/bin/sh", vec!["-c", "a $B"]),
            ("a; b", "/bin/sh", vec!["-c", "a; b"]),
            ("a >b", "/bin/sh", vec!["-c", "a >b"]),
        ] {
            let command = parsed(text);
            let said: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
            assert_eq!(
                (command.get_program().to_string_lossy().as_ref(), said),
                (program, arguments.iter().map(ToString::to_string).collect())
            );
        }
    }
}
