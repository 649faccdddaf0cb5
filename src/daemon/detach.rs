//! Starts the daemon in the background, and makes its pid file.
//!
//! The program starts itself a second time. The first process waits until the second one serves
//! clients, then writes the pid file and exits with 0. The two processes share standard error. If
//! the second process cannot serve, it writes the reason there and exits, and the first one exits
//! with the same code. The second process leads its own session from the start. When it begins to
//! serve, it leaves the working directory and the terminal. The first process waits without a time
//! limit, but the user can interrupt it.
//!
//! The pid file is written under another name and then renamed. So an old pid file, or a link in
//! its place, is replaced, and such a link is not followed. Root makes no pid file where other
//! users may write.

use std::env;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, getppid, setsid};

use crate::exit::{self, Exit};
use crate::privsep::rootpath::is_roots_alone;
use crate::sys::{self, disk};

/// The environment variable in which the first process passes its process id to the second process.
/// A process is the second one if its parent has that process id.
const VARIABLE: &str = "PENFOLD_STARTED_BY";

/// The line that the second process writes to standard output when it serves.
const SERVING_LINE: &[u8] = b"serving\n";

/// Starts the daemon in the background, and returns when the daemon serves.
///
/// # Errors
/// If the daemon has ended, its exit code; the text is empty if the daemon has printed the reason.
/// Also if the daemon cannot be started, or the pid file cannot be made.
pub fn run(pid_file: Option<&Path>) -> Result<(), Exit> {
    let file = pid_file.map(PidFile::begin).transpose()?;
    let waited = start()
        .map_err(|e| Exit::new(exit::OSERR, "leave the foreground", &e))
        .and_then(|(mut child, pipe)| if is_serving(pipe) { Ok(child) } else { Err(fate(&mut child)) });
    match (waited, file) {
        (Ok(child), Some(file)) => file.commit(child.id()).inspect_err(|_| {
            // Without the pid file, the administrator's scripts would not find the daemon, so the
            // daemon is ended.
            let _ = i32::try_from(child.id()).map(|id| kill(Pid::from_raw(id), Signal::SIGTERM));
        }),
        (Ok(_), None) => Ok(()),
        (Err(exit), file) => {
            if let Some(file) = file {
                let _ = disk::remove(&file.draft);
            }
            Err(exit)
        }
    }
}

fn start() -> io::Result<(Child, io::PipeReader)> {
    let (pipe, writer) = io::pipe()?;
    let mut arguments = env::args_os();
    let mut command = Command::new(env::current_exe()?);
    command.arg0(arguments.next().unwrap_or_else(|| "penfoldd".into())).args(arguments);
    command.env(VARIABLE, std::process::id().to_string()).stdin(Stdio::null()).stdout(writer);
    if env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string()) {
        // Without LISTEN_PID, the second process takes over the sockets that were passed to this
        // process.
        command.env_remove("LISTEN_PID");
    }
    Ok((command.spawn()?, pipe))
}

/// Waits until the daemon serves; returns false if it has ended instead.
fn is_serving(pipe: io::PipeReader) -> bool {
    let mut line = Vec::new();
    pipe.take(SERVING_LINE.len() as u64).read_to_end(&mut line).is_ok() && line == SERVING_LINE
}

fn fate(child: &mut Child) -> Exit {
    match child.wait().map(|status| (status.code().and_then(|code| u8::try_from(code).ok()), status)) {
        Ok((Some(code), _)) if code != 0 => Exit { code, text: Vec::new() },
        Ok((_, status)) => Exit { code: exit::SOFTWARE, text: vec![format!("the daemon ended early: {status}")] },
        Err(e) => Exit::new(exit::OSERR, "wait for the daemon", &e),
    }
}

/// The second process of a daemon in the background, until this process serves clients.
pub struct Detached {
    /// `/dev/null`, opened before the process is confined.
    null: io::Result<File>,
}

impl Detached {
    /// If the first process of the daemon has started this one, makes this process the leader of a
    /// new session. Otherwise returns `None`.
    pub fn begin() -> Option<Self> {
        let is_second = env::var(VARIABLE).is_ok_and(|pid| pid == getppid().to_string());
        is_second.then(|| {
            // This fails only if the process leads a process group already.
            let _ = setsid();
            Self { null: File::options().read(true).write(true).open("/dev/null") }
        })
    }

    /// Tells the first process that this one serves, changes to the root directory, and replaces
    /// the standard streams by `/dev/null`.
    pub fn serving(self) {
        // Writing fails if the first process was interrupted. This process serves anyway.
        let mut out = io::stdout();
        let _ = out.write_all(SERVING_LINE).and_then(|()| out.flush());
        let _ = chdir("/");
        if let Ok(null) = self.null {
            let _ = (dup2_stdin(&null), dup2_stdout(&null), dup2_stderr(&null));
        }
    }
}

/// A pid file that is not complete yet.
struct PidFile {
    path: PathBuf,
    /// The path of the file until it is complete and gets its final name.
    draft: PathBuf,
    file: File,
}

impl PidFile {
    fn begin(path: &Path) -> Result<Self, Exit> {
        let failed = |e: &io::Error| Exit::new(exit::CANTCREAT, format!("make {}", path.display()), e);
        // If other users may write to the directory, they could make root overwrite or remove other
        // files, or put a process id there that root's scripts trust.
        if let Some(directory) = path.parent().filter(|directory| sys::is_root() && !is_roots_alone(directory)) {
            let others = "others than root may write to its directory, or to one above: use /run";
            return Err(failed(&fs::metadata(directory).err().unwrap_or_else(|| io::Error::other(others))));
        }
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}", std::process::id()));
        let draft = PathBuf::from(draft);
        // `create_new` neither opens an existing file nor follows a link.
        let file = disk::open(&draft, OpenOptions::new().write(true).create_new(true).mode(0o644))
            .and_then(|file| file.set_permissions(Permissions::from_mode(0o644)).map(|()| file))
            .map_err(|e| failed(&e))?;
        Ok(Self { path: path.to_owned(), draft, file })
    }

    fn commit(self, pid: u32) -> Result<(), Exit> {
        let written = disk::write(&self.file, format!("{pid}\n").as_bytes());
        written.and_then(|()| disk::rename(&self.draft, &self.path)).map_err(|e| {
            let _ = disk::remove(&self.draft);
            Exit::new(exit::CANTCREAT, format!("make {}", self.path.display()), &e)
        })
    }
}

/// Removes the pid file of a daemon that ends, if the file still contains the process id `daemon`.
/// If the file cannot be removed, the next start replaces it.
pub fn remove_pid_file(path: &Path, daemon: u32) {
    let is_regular = fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() < 32);
    if is_regular && fs::read(path).is_ok_and(|text| text.trim_ascii() == daemon.to_string().as_bytes()) {
        let _ = disk::remove(path);
    }
}
