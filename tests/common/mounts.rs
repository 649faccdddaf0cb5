//! Mounts small disks for a test, in a mount namespace of their own.
//!
//! The mounts need root; otherwise the test is reported as skipped. A daemon that is started in the
//! namespace sees the disks; a test reaches them through [`Mounts::path`]. The disks are removed
//! when the [`Mounts`] is dropped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::books::Books;
use super::{Daemon, Site};

/// A mount namespace, which ends with its last process.
pub struct Mounts {
    holder: Child,
}

impl Mounts {
    /// A namespace in which the shell script `script` has mounted something. Where that is not
    /// possible, reports the test as skipped and returns `None`.
    pub fn new(script: &str) -> Option<Self> {
        let mut unshare = Command::new("unshare");
        unshare.args(["-m", "sh", "-c", &format!("{script} && echo ready && exec cat")]);
        let mut holder = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut line = String::new();
        let stdout = holder.stdout.take()?;
        let received = BufReader::new(stdout).read_line(&mut line);
        let mounts = Self { holder };
        if received.is_err() || line != "ready\n" {
            super::skipped("no mount namespace available");
            return None;
        }
        Some(mounts)
    }

    /// Moves the spool and the mailboxes of a site to a small disk, mounted at `disk/` with these
    /// options.
    pub fn disk(mut site: Site, options: &str) -> Option<(Site, Self)> {
        let disk = site.path("disk");
        fs::create_dir(&disk).expect("a directory");
        site.set("", "spool", &format!("{:?}", disk.join("spool")));
        site.set("local", "mailbox", &format!("\"{}/mail/{{user}}\"", disk.display()));
        let disk = disk.display();
        let mounts = Self::new(&format!("mount -t tmpfs -o {options} tmpfs {disk} && chown nobody {disk}"))?;
        Some((site, mounts))
    }

    /// A command that runs a program in the namespace.
    pub fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.holder.id().to_string(), "--", program]);
        command
    }

    /// Starts the daemon of the site in the namespace.
    pub fn start(&self, site: &Site) -> Daemon {
        Daemon::spawn(self.inside(&site.penfoldd(&["-d"])))
    }

    /// A command that runs `outside` in the namespace, with the same arguments and variables.
    pub fn inside(&self, outside: &Command) -> Command {
        let mut command = self.enter(&outside.get_program().to_string_lossy());
        let variables = outside.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.args(outside.get_args()).envs(variables).stdin(Stdio::null());
        command
    }

    /// Runs a shell script in the namespace.
    pub fn shell(&self, script: &str) {
        let status = self.enter("sh").args(["-c", script]).status().expect("a shell");
        assert!(status.success(), "{script}");
    }

    /// The path by which a process outside the namespace reaches a path inside.
    pub fn path(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// The letters and reports in a mailbox on a disk of the namespace.
    pub fn books(&self, mailbox: &Path) -> Books {
        let directories = ["new", "cur"].map(|sub| self.path(mailbox).join(sub));
        let files = directories.iter().flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten());
        Books::of(files.filter_map(|file| fs::read(file.path()).ok()).collect())
    }

    /// The number of unfinished entries of a spool on a disk of the namespace.
    pub fn entries(&self, spool: &Path) -> usize {
        ["new", "cur"].map(|place| fs::read_dir(self.path(spool).join(place)).map_or(0, Iterator::count)).iter().sum()
    }

    /// Writes to a file until the disk is full or the file has this size.
    pub fn fill(&self, path: &Path, size: usize) {
        let mut file = File::create(self.path(path)).expect("a file");
        let block = [0; 4096];
        for _ in 0..size / block.len() {
            if file.write_all(&block).is_err() {
                return;
            }
        }
    }

    /// Frees the space of a file that [`Mounts::fill`] has written. The file is emptied first,
    /// because a process that another test is starting may still have it open.
    pub fn clear(&self, path: &Path) {
        File::create(self.path(path)).expect("a file");
        fs::remove_file(self.path(path)).expect("a file");
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
