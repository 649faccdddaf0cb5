//! Finds the programs of packages that tests/setup unpacks and does not install.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::built;

/// The directory with the files of a package; `None` if the package was not unpacked.
pub fn tree(package: &str) -> Option<PathBuf> {
    let tree = built::target().join("peers").join(format!("{package}.pkg"));
    tree.is_dir().then_some(tree)
}

/// The same for a mail server that tests/interop/root.sh runs. Where that is not possible, reports the
/// test as skipped and returns `None`.
pub fn peer(package: &str) -> Option<PathBuf> {
    let Some(tree) = tree(package) else {
        super::skipped(format_args!("{package} is not unpacked"));
        return None;
    };
    if !nix::unistd::geteuid().is_root() || !may_mount() {
        super::skipped(format_args!("{package} needs root, and a system that lets root mount"));
        return None;
    }
    Some(tree)
}

/// Whether overlays can be mounted in a namespace, as tests/interop/root.sh does.
pub fn may_mount() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--mount",
        "--pid",
        "--fork",
        "mount",
        "-t",
        "overlay",
        "-o",
        "lowerdir=/etc:/usr",
        "overlay",
        "/usr",
    ]);
    unshare.output().is_ok_and(|output| output.status.success())
}

/// A command that runs a program of systemd: the system's, or else the unpacked one with its
/// libraries. If there is neither, reports the test as skipped and returns `None`.
pub fn of_systemd(program: &str) -> Option<Command> {
    if Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Some(Command::new(program));
    }
    let Some(tree) = tree("systemd") else {
        super::skipped(format_args!("{program} is not there"));
        return None;
    };
    let libraries = ["usr/lib/systemd".to_owned(), format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)];
    let [private, shared] = libraries.map(|directory| tree.join(directory));
    let path = [&shared, &shared.join("systemd"), &private].map(|path| path.display().to_string()).join(":");
    let mut command = Command::new(tree.join("usr/bin").join(program));
    command.env("LD_LIBRARY_PATH", path);
    Some(command)
}

/// A command that runs fail2ban-regex with a configuration directory. Without the program, reports
/// the test as skipped and returns `None`.
pub fn fail2ban_regex(config: &Path) -> Option<Command> {
    let Some(tree) = tree("fail2ban") else {
        super::skipped("fail2ban is not unpacked");
        return None;
    };
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", tree.join("usr/lib/python3/dist-packages")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(tree.join("usr/bin/fail2ban-regex")).arg("-c").arg(config);
    Some(command)
}

/// A command that runs Dovecot in the foreground with this configuration. If the tests run as root,
/// it is the unpacked Dovecot, otherwise the system's. If there is neither, reports the test as
/// skipped and returns `None`.
pub fn dovecot(conf: &Path) -> Option<Command> {
    if let Some(tree) = tree("dovecot").filter(|_| nix::unistd::geteuid().is_root()) {
        let mut command = Command::new(built::source("tests/interop/dovecot.sh"));
        command.arg(tree).arg(conf);
        return Some(command);
    }
    if Command::new("dovecot").arg("--version").output().is_err() {
        super::skipped("dovecot is neither unpacked nor installed");
        return None;
    }
    let mut command = Command::new("dovecot");
    command.arg("-F").arg("-c").arg(conf);
    Some(command)
}

/// Whether the Dovecot of [`dovecot`] has this module of its authentication service. If it has not, reports the
/// test as skipped.
pub fn dovecot_has(module: &str) -> bool {
    let tree = tree("dovecot").filter(|_| nix::unistd::geteuid().is_root());
    let modules = tree.unwrap_or_else(|| "/".into()).join("usr/lib/dovecot/modules/auth");
    let is_there = modules.join(module).exists();
    if !is_there {
        super::skipped(format_args!("dovecot has no {module}"));
    }
    is_there
}

/// A command that runs slapd, and the directory with its schemas. If it is not unpacked, reports the test as
/// skipped and returns `None`.
pub fn slapd() -> Option<(Command, PathBuf)> {
    let Some(tree) = tree("slapd") else {
        super::skipped("slapd is not unpacked");
        return None;
    };
    // It reserves memory for all files that it may open.
    let mut command = Command::new("prlimit");
    command.arg("--nofile=1024").arg(tree.join("usr/sbin/slapd"));
    command.env("LD_LIBRARY_PATH", tree.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)));
    Some((command, tree.join("etc/ldap/schema")))
}

/// A command that runs bsd-mailx: the system's, or else the unpacked one. If there is neither, reports the
/// test as skipped and returns `None`.
pub fn bsd_mailx() -> Option<Command> {
    if Path::new("/usr/bin/bsd-mailx").exists() {
        return Some(Command::new("/usr/bin/bsd-mailx"));
    }
    let Some(tree) = tree("mailx") else {
        super::skipped("bsd-mailx is neither unpacked nor installed");
        return None;
    };
    let mut command = Command::new(tree.join("usr/bin/bsd-mailx"));
    command.env("LD_LIBRARY_PATH", tree.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)));
    Some(command)
}

/// A command that runs haproxy. If it is neither unpacked nor installed, reports the test as skipped
/// and returns `None`.
pub fn haproxy() -> Option<Command> {
    let command = tree("haproxy").map_or_else(
        || Command::new("haproxy"),
        |tree| {
            let libraries = tree.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
            let mut command = Command::new(tree.join("usr/sbin/haproxy"));
            command.env("LD_LIBRARY_PATH", libraries);
            command
        },
    );
    let mut version = Command::new(command.get_program());
    version.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).arg("-v");
    if version.output().is_err() {
        super::skipped("haproxy is neither unpacked nor installed");
        return None;
    }
    Some(command)
}
