//! Why a program ends, and its exit code, one of sysexits(3).
//!
//! Made where the trouble is, told by main. What is wrong in a file that an
//! administrator writes is printed as compilers print it. Ends nothing itself.

use std::io;
use std::process::ExitCode;

use crate::config::ConfigError;

/// Used wrongly.
pub const USAGE: u8 = 64;
/// What was given makes no sense.
pub const DATAERR: u8 = 65;
/// A service is not there.
pub const UNAVAILABLE: u8 = 69;
/// A bug.
pub const SOFTWARE: u8 = 70;
/// The system refused.
pub const OSERR: u8 = 71;
/// Something cannot be made.
pub const CANTCREAT: u8 = 73;
/// Trouble with reading or writing.
pub const IOERR: u8 = 74;
/// Not now.
pub const TEMPFAIL: u8 = 75;
/// Not allowed.
pub const NOPERM: u8 = 77;
/// The configuration is wrong.
pub const CONFIG: u8 = 78;

/// Why a program ends, for main.
#[derive(Debug)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    /// What to print, a line each.
    pub text: Vec<String>,
}

impl Exit {
    pub(super) fn new(code: u8, doing: impl Into<String>, error: &io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::PermissionDenied { NOPERM } else { code };
        Self { code, text: vec![format!("{}: {error}", doing.into())] }
    }

    pub(super) fn of_config(errors: &[ConfigError]) -> Self {
        Self { code: CONFIG, text: errors.iter().map(ToString::to_string).collect() }
    }

    /// Prints why, and gives the exit code. What is wrong in a file stands alone on
    /// its line, so that editors can jump there; anything else is said by `program`.
    pub fn tell(&self, program: &str) -> ExitCode {
        let by = if self.code == CONFIG { String::new() } else { format!("{program}: ") };
        self.text.iter().for_each(|line| eprintln!("{by}{line}"));
        ExitCode::from(self.code)
    }
}
