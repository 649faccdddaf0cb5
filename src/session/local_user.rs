//! A process on this host that submits mail over the control socket.
//!
//! The kernel says as whom it runs (SO_PEERCRED): that is true, and gives it the right
//! to submit, as a terminal or a pipe does. The name of the program is what the process
//! says itself, for people who look for the one that writes too much mail; every user
//! can name a process as he likes, so it gives no rights and is worth no look into
//! /proc. Neither may break a header or a line of the log: what is not plain is `?`.

/// Who speaks over the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// As whom it runs.
    pub uid: u32,
    /// His login; empty for a user without a name.
    pub login: String,
    /// The name of its program as it says; empty if it does not say.
    pub program: String,
}

/// As much of a name is shown.
const MAX_NAME: usize = 32;

impl Caller {
    /// A caller, his names made plain.
    pub fn new(uid: u32, login: &str, program: &str) -> Self {
        Self { uid, login: plain(login), program: plain(program) }
    }

    /// For Received: as `uid 1000 jon, program git`.
    pub fn comment(&self) -> String {
        let login = if self.login.is_empty() { String::new() } else { format!(" {}", self.login) };
        let program = if self.program.is_empty() { String::new() } else { format!(", program {}", self.program) };
        format!("uid {}{login}{program}", self.uid)
    }
}

/// What may stand in a comment and in a value of the log.
fn plain(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "+-_./@".contains(c) { c } else { '?' };
    name.chars().take(MAX_NAME).map(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_break_nothing() {
        for (login, program, comment) in [
            ("jon", "git", "uid 7 jon, program git"),
            ("", "", "uid 7"),
            ("", "a) b\r\nX: y\"", "uid 7, program a??b??X??y?"),
            ("j\u{fc}rg", "", "uid 7 j?rg"),
            ("jon", &"x".repeat(99), &format!("uid 7 jon, program {}", "x".repeat(32))),
        ] {
            assert_eq!(Caller::new(7, login, program).comment(), comment);
        }
    }
}
