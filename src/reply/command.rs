//! Makes the replies to RSET and NOOP, and to wrong command lines and parameters.

use super::{Reply, Status};

/// Accepts RSET.
pub fn reset() -> Reply {
    Reply::new(250, Status(2, 0, 0), "Reset state")
}

/// Accepts NOOP.
pub fn noop() -> Reply {
    Reply::new(250, Status(2, 0, 0), "OK")
}

/// Refuses an unknown verb.
pub fn unknown() -> Reply {
    Reply::new(500, Status(5, 5, 1), "Command unrecognized; HELP lists those that are")
}

/// Refuses a command that the configuration withholds (RFC 5321 4.2.4).
pub fn disabled() -> Reply {
    Reply::new(502, Status(5, 5, 1), "This command is not available here")
}

/// Refuses a command line longer than the limit.
pub fn too_long() -> Reply {
    Reply::new(500, Status(5, 5, 2), "The line is too long")
}

/// Refuses a command line that contains a CR without LF or an LF without CR.
pub fn bare_newline() -> Reply {
    Reply::new(500, Status(5, 5, 2), "Lines end with CR LF; a bare CR or LF is refused")
}

/// Refuses a known verb with malformed arguments. `usage` is the correct form.
pub fn bad_arguments(usage: &'static str) -> Reply {
    Reply::new(501, Status(5, 5, 4), format!("That should be: {usage}"))
}

/// Refuses a parameter of MAIL or RCPT that is not offered (RFC 5321 4.1.1.11).
pub fn unknown_parameter(name: &str) -> Reply {
    Reply::new(555, Status(5, 5, 4), format!("Parameter {name} is not known here"))
}

/// Refuses a parameter with a malformed value.
pub fn bad_parameter(name: &str) -> Reply {
    Reply::new(501, Status(5, 5, 4), format!("Parameter {name} has a bad value"))
}

/// Refuses parameters that contradict each other.
pub fn contradictory_parameters(why: &'static str) -> Reply {
    Reply::new(501, Status(5, 5, 4), why)
}

/// Refuses a parameter that is given twice on one line.
pub fn repeated_parameter(name: &str) -> Reply {
    Reply::new(501, Status(5, 5, 4), format!("Parameter {name} is given twice"))
}
