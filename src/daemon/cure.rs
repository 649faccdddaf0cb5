//! Says what an administrator can do about an error that prevents a start.
//!
//! Each text begins with the key of the configuration that is concerned. It is the line after the error.

use std::io::{self, ErrorKind};
use std::path::Path;

use nix::errno::Errno;

use crate::privsep::user_name;
use crate::sys;

/// The command that lists the programs that listen.
const LIST_LISTENERS: &str = if cfg!(target_os = "linux") {
    "ss -ltnp"
} else if cfg!(target_os = "freebsd") {
    "sockstat -l"
} else {
    "netstat -an"
};

/// Returns the cure if an address cannot be bound. `is_ours` is set if another penfoldd has the
/// spool. Returns `None` if the error itself says enough.
pub fn of_address(error: &io::Error, is_ours: bool) -> Option<String> {
    let text = match error.raw_os_error().map(Errno::from_raw)? {
        Errno::EADDRINUSE if is_ours => {
            "penfoldd runs already: 'penfoldctl reload' makes it read its files again".into()
        }
        Errno::EADDRINUSE => format!("stop the other program, which '{LIST_LISTENERS}' shows, or choose another port"),
        Errno::EADDRNOTAVAIL => {
            "this host has no such address: choose one of its own, or \"0.0.0.0:25\" for all".into()
        }
        Errno::EACCES if sys::is_root() => "grant CAP_NET_BIND_SERVICE, or choose a port from 1024 on".into(),
        Errno::EACCES => "start penfoldd as root, whose rights it drops, or choose a port from 1024 on".into(),
        _ => return None,
    };
    Some(format!("listen.address: {text}"))
}

/// Returns the cure if the spool cannot be made, opened or locked.
pub fn of_spool(spool: &Path, error: &io::Error) -> Option<String> {
    let text = match error.kind() {
        ErrorKind::PermissionDenied if spool.is_dir() => {
            format!("it must belong to the user that runs penfoldd: chown -R {} {}", user_name(), spool.display())
        }
        _ => directory(spool, error)?,
    };
    Some(format!("spool: {text}"))
}

/// Returns the cure if the control socket cannot be made.
pub fn of_socket(socket: &Path, error: &io::Error) -> Option<String> {
    let above = socket.parent()?;
    let text = match error.kind() {
        ErrorKind::PermissionDenied if above.is_dir() => {
            format!("the user {} must be able to create files in {}", user_name(), above.display())
        }
        ErrorKind::AddrInUse => format!("{} is not a socket: remove it, or choose another path", socket.display()),
        _ => directory(above, error)?,
    };
    Some(format!("socket: {text}"))
}

/// Returns the cure if the log file cannot be opened by the server's user.
pub fn of_log(log: &Path, error: &io::Error) -> Option<String> {
    let above = log.parent()?;
    let text = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::NotFound if above.is_dir() => {
            format!("this gives it to the server's user: install -o {} -m 640 /dev/null {}", user_name(), log.display())
        }
        ErrorKind::IsADirectory => "it must be a file".into(),
        _ => directory(above, error)?,
    };
    Some(format!("log.to: {text}"))
}

/// The cure if a directory cannot be made or used.
fn directory(path: &Path, error: &io::Error) -> Option<String> {
    let path = path.display();
    Some(match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::NotFound => {
            format!("this makes the directory: install -d -o {} {path}", user_name())
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            format!("{path} is not a directory: choose another path")
        }
        ErrorKind::ReadOnlyFilesystem => format!("{path} must be on a file system that can be written to"),
        ErrorKind::StorageFull => format!("make room on the file system of {path}"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_a_cure_that_begins_with_a_key() {
        let (here, absent) = (std::env::temp_dir(), Path::new("/nowhere/at/all"));
        let error = |errno: Errno| io::Error::from(errno);
        let me = user_name();
        let table = [
            (of_address(&error(Errno::EADDRINUSE), false), "listen.address: stop the other program, which '"),
            (of_address(&error(Errno::EADDRINUSE), true), "listen.address: penfoldd runs already"),
            (of_address(&error(Errno::EADDRNOTAVAIL), false), "listen.address: this host has no such address"),
            (
                of_address(&error(Errno::EACCES), false),
                if sys::is_root() { "listen.address: grant" } else { "listen.address: start" },
            ),
            (
                of_spool(&here, &error(Errno::EACCES)),
                &format!("spool: it must belong to the user that runs penfoldd: chown -R {me} "),
            ),
            (
                of_spool(absent, &error(Errno::EACCES)),
                &format!("spool: this makes the directory: install -d -o {me} /nowhere"),
            ),
            (of_spool(absent, &error(Errno::ENOTDIR)), "spool: /nowhere/at/all is not a directory"),
            (of_spool(&here, &error(Errno::EROFS)), "spool: "),
            (
                of_socket(absent, &error(Errno::ENOENT)),
                &format!("socket: this makes the directory: install -d -o {me} /nowhere/at"),
            ),
            (of_socket(absent, &error(Errno::EADDRINUSE)), "socket: /nowhere/at/all is not a socket"),
            (
                of_log(&here.join("log"), &error(Errno::EACCES)),
                &format!("log.to: this gives it to the server's user: install -o {me} "),
            ),
            (
                of_log(absent, &error(Errno::ENOENT)),
                &format!("log.to: this makes the directory: install -d -o {me} /nowhere/at"),
            ),
            (of_log(&here, &error(Errno::EISDIR)), "log.to: it must be a file"),
        ];
        for (cure, begins) in table {
            let cure = cure.expect("a cure");
            assert!(cure.starts_with(begins), "{cure}\n{begins}");
        }
        assert_eq!(of_spool(&here, &error(Errno::EIO)), None);
        assert_eq!(of_address(&error(Errno::EINVAL), false), None);
    }
}
