//! Redis, as the store that several hosts share.
//!
//! It listens on a Unix socket in a directory of its own, so that no port is taken, and on a port of
//! 127.0.0.1 only if the test says which.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use super::{Daemon, unpacked};

/// The directory of a Redis, which can be started there several times.
pub struct RedisDir {
    dir: PathBuf,
}

impl RedisDir {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("penfold-redis-{}-{number}", std::process::id()));
        fs::create_dir(&dir).expect("a directory");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("mode 755");
        Self { dir }
    }

    /// The path of the socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("redis.sock")
    }

    /// The value of `shared.store`.
    pub fn url(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// Starts Redis with further options, and waits until it answers. It ends when the returned
    /// value is dropped, and forgets everything. Without Redis, reports the test as skipped and
    /// returns `None`.
    pub fn start(&self, options: &[&str]) -> Option<Daemon> {
        let mut command = program("redis-server")?;
        command.arg("--unixsocket").arg(self.socket()).args(["--unixsocketperm", "777", "--port", "0", "--save", ""]);
        command.arg("--dir").arg(&self.dir).args(["--databases", "4"]).args(options);
        // The log goes to standard output, and the daemons of tests are read from standard error.
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$@\" >&2", "sh"]).arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        match Daemon::spawn_until(shell, |line| line.contains("eady to accept connections").then_some(1)) {
            Ok(daemon) => Some(daemon),
            Err(log) => panic!("redis does not start:\n{log}"),
        }
    }

    /// Runs a command at Redis, and returns the answer as redis-cli prints it.
    pub fn ask(&self, words: &[&str]) -> String {
        let mut client = program("redis-cli").expect("it is there with the server");
        let output = client.arg("-s").arg(self.socket()).args(words).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for RedisDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn program(name: &str) -> Option<Command> {
    let Some(tree) = unpacked::tree("redis") else {
        super::skipped("redis is not unpacked");
        return None;
    };
    let mut command = Command::new(tree.join("usr/bin").join(name));
    command.env("LD_LIBRARY_PATH", tree.join(format!("usr/lib/{}-linux-gnu", env::consts::ARCH)));
    Some(command)
}
