//! Runs a command with a message on its standard input, for an agent.
//!
//! The command line comes from a table or from the user's own file. No byte of an address is ever
//! put into it: addresses are passed in the environment. A command line without characters that are
//! special to a shell is split at its blanks and executed directly. Any other command line is run
//! by a shell, `/bin/sh -c`. If the program is not found and its name has no slash, a shell runs
//! the command line too, since the name may be a shell builtin such as `exit`. As in a shell, the
//! exit code is 127 if the program does not exist, and 126 if it may not be executed. How time and
//! output are limited is described in [`crate::sys::command`].

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{AgentError, Ended, Part, Response};
use crate::spool::Content;
use crate::sys::command::{self, RunOptions};

/// Maximum number of bytes of a command's output that are kept.
const MAX_OUTPUT: usize = 4096;
/// The characters that are special to a shell.
const SPECIAL: &[char] = &[
    '!', '"', '#', '$', '%', '&', '\'', '(', ')', '*', ';', '<', '=', '>', '?', '[', '\\', ']', '^', '`', '{', '|',
    '}', '~', '\n',
];

/// A command, with its environment and time limit.
pub struct Run<'a> {
    /// The command line as it stands in the table or in the user's file.
    pub command: &'a str,
    /// The working directory of the command.
    pub directory: &'a Path,
    /// The environment variables of the command, as names and values; the command gets no others.
    pub environment: &'a [(String, String)],
    /// The time limit of the command.
    pub limit: Duration,
}

impl Run<'_> {
    /// Runs the command with a message on its standard input.
    pub fn with(&self, head: &str, message: &File, content: Part) -> Result<Response, AgentError> {
        // Without this check a missing directory would look like a missing program.
        std::fs::metadata(self.directory)
            .map_err(|e| AgentError::new(format!("enter {}", self.directory.display()), e))?;
        let run = |mut command: Command| {
            let mut input = head.as_bytes().chain(Content::new(message, content.at, content.at + content.size));
            command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
            command.current_dir(self.directory);
            command::run(
                command,
                RunOptions {
                    input: Some(&mut input),
                    time_limit: self.limit,
                    max_output: MAX_OUTPUT,
                    is_lenient: true,
                },
            )
        };
        let parsed = parsed(self.command);
        let is_bare_name = !parsed.get_program().as_bytes().contains(&b'/');
        let ran = match run(parsed) {
            // No program was started, so the shell can still read all of the input.
            Err(e) if e.kind() == ErrorKind::NotFound && is_bare_name => run(by_shell(self.command)),
            ran => ran,
        };
        match ran {
            Ok((ended, output)) => Ok(Response::Ended(ended, String::from_utf8_lossy(&output).replace('\0', " "))),
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
    fn only_a_command_with_special_characters_gets_a_shell() {
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
            let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
            assert_eq!(
                (command.get_program().to_string_lossy().as_ref(), words),
                (program, arguments.iter().map(ToString::to_string).collect())
            );
        }
    }
}
