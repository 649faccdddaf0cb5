//! Disks with power cuts.
//!
//! An outer XFS in a sparse file holds the image of a disk; the image is a loop device with an
//! ext4, xfs or btrfs on it, for spool and mailboxes together, or one for each. A [`Lever`] cuts
//! the power at one instant, in one of two ways. [`Cut::Given`] keeps all writes that the device
//! has received, since the outer file system clones the image. [`Cut::Flushed`] keeps only
//! flushed writes: a flush is an fsync of the image, and the outer file system is shut down and
//! forgets the rest. All mounts are in a namespace of their own; they and their loop devices
//! are gone with the [`Disks`]. Writes are not reordered between two flushes, except that the
//! last flush may have reached only a part of its pages.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use nix::unistd::geteuid;

use super::people::People;
use common::mounts::Mounts;
use common::{Daemon, Site};

/// The writes that survive a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All that the device has received.
    Given,
    /// The writes that were flushed.
    Flushed,
}

/// The file systems of spool and mailboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One file system: mail is renamed.
    One,
    /// One each: mail is copied.
    Two,
}

/// The disks of a site.
pub struct Disks {
    mounts: Mounts,
    site: PathBuf,
    /// The directory that contains a directory for each user.
    pub mailboxes: PathBuf,
    cut: Cut,
    layout: Layout,
    people: People,
    clones: usize,
}

/// A file system: its file, its offset there, and its mount point.
struct Part {
    file: String,
    offset: u64,
    directory: &'static str,
}

/// The size of a disk, the minimum for xfs and btrfs. The files are sparse.
const SIZE: u64 = 400 << 20;
/// The image in use.
const LIVE: &str = "live";

/// A prepared power cut, as fast as possible.
pub struct Lever {
    xfs_io: Child,
    command: String,
}

/// The instant of a cut is between these two.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Mail acknowledged before this must survive.
    pub begin: Instant,
    /// Mail offered after this cannot be there.
    pub end: Instant,
}

impl Disks {
    /// Mounts empty disks, and puts the site's spool and mailboxes on them; `None`, and reported as
    /// skipped, where that is not possible.
    ///
    /// # Panics
    /// If it is not possible although CI=true and the programs of tests/setup are there.
    pub fn new(site: &mut Site, file_system: &str, people: People, layout: Layout, cut: Cut) -> Option<Self> {
        let (root, mut script) = (site.path(""), String::new());
        let mailboxes = root.join(if layout == Layout::One { "spools/mail" } else { "mailboxes/mail" });
        let users = people.write_tables(site, &mailboxes);
        for line in [
            &format!("cd {} && mkdir outer spools mailboxes", root.display()),
            "truncate -s 8G outer.img && mkfs.xfs -q outer.img && mount -o loop outer.img outer",
            &format!("command -v xfs_io losetup mkfs.{file_system}"),
            &users,
        ] {
            write!(script, "{line} >&2 && ").expect("memory");
        }
        let mounts = Mounts::new(&(script + "true"));
        let is_ci = std::env::var("CI").as_deref() == Ok("true");
        let is_able = geteuid().is_root() && Path::new("/dev/loop-control").exists();
        assert!(mounts.is_some() || !(is_ci && is_able), "no disks to be had");
        let disks = Self { mounts: mounts?, site: root, mailboxes, cut, layout, people, clones: 0 };
        disks.make(file_system);
        site.set("", "spool", &format!("{:?}", disks.spool()));
        Some(disks)
    }

    /// Creates the file systems durably, and mounts them.
    fn make(&self, file_system: &str) {
        for Part { file, offset, .. } in self.parts(LIVE) {
            self.run(&format!(
                "truncate -s $(({offset} + {SIZE})) {file}
                 device=$(losetup -f --show -o {offset} --sizelimit {SIZE} {file})
                 mkfs.{file_system} -q $device > /dev/null 2>&1
                 losetup -d $device
                 sync {file}"
            ));
        }
        self.mount(LIVE);
        let mail = self.mailboxes.display();
        self.run(&format!("chown nobody spools mailboxes; mkdir -p spools/eve {mail}/eve"));
        self.people.move_in(&self.mailboxes, &self.site.join("spools/eve"), |path| self.path(path));
        self.run("sync -f spools; sync -f mailboxes");
        self.bind();
    }

    /// Two disks that are cloned at one instant are two halves of one file; two disks that can be
    /// flushed independently are two files.
    fn parts(&self, image: &str) -> Vec<Part> {
        let part = |name: &str, offset, directory| Part { file: format!("outer/{name}"), offset, directory };
        match (self.layout, self.cut) {
            (Layout::One, _) => vec![part(image, 0, "spools")],
            (Layout::Two, Cut::Given) => vec![part(image, 0, "spools"), part(image, SIZE, "mailboxes")],
            (Layout::Two, Cut::Flushed) => {
                vec![part(image, 0, "spools"), part(&format!("{image}.mailboxes"), 0, "mailboxes")]
            }
        }
    }

    fn mount(&self, image: &str) {
        for Part { file, offset, directory } in self.parts(image) {
            self.run(&format!("mount -o loop,offset={offset},sizelimit={SIZE} {file} {directory}"));
        }
    }

    /// Puts the mailbox of eve on the same file system behind a bind mount, so that nothing can be
    /// renamed into it.
    fn bind(&self) {
        if self.layout == Layout::One {
            self.run(&format!("mount --bind spools/eve {}/eve", self.mailboxes.display()));
        }
    }

    /// Unmounts a disk, repeatedly if necessary, since a process that looks for a free loop device
    /// may have this one open for a moment.
    fn leave(&self, directory: &str) {
        self.run(&format!("n=0; until umount -R {directory}; do n=$((n + 1)); [ $n -lt 100 ]; sleep 0.1; done"));
    }

    fn unmount(&self) {
        self.parts(LIVE).iter().for_each(|part| self.leave(part.directory));
    }

    /// Runs a script in the directory of the site.
    pub fn run(&self, script: &str) {
        self.mounts.shell(&format!("set -e; cd {}; {script}", self.site.display()));
    }

    /// The spool.
    pub fn spool(&self) -> PathBuf {
        self.site.join("spools/spool")
    }

    /// The path by which this process reaches a path of the namespace.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.mounts.path(path)
    }

    /// Starts the daemon of the site on these disks, with rules for PENFOLD_FAULT.
    pub fn start(&self, site: &Site, faults: &str) -> Daemon {
        let penfoldd = site.penfoldd(&["-d"]);
        let mut command = self.mounts.enter("env");
        command.arg(format!("PENFOLD_FAULT={faults}")).arg(penfoldd.get_program()).args(penfoldd.get_args());
        Daemon::spawn(command)
    }

    /// Prepares a power cut.
    pub fn lever(&mut self) -> Lever {
        let outer = self.site.join("outer");
        let (options, object, command) = match self.cut {
            Cut::Given => {
                self.clones += 1;
                let clone = outer.join(self.clones.to_string());
                ("-f", clone, format!("reflink {}\n", outer.join(LIVE).display()))
            }
            // Without -f not even the log is written.
            Cut::Flushed => ("-x", outer, "shutdown\n".to_owned()),
        };
        let mut xfs_io = self.mounts.enter("stdbuf");
        xfs_io.args(["-oL", "xfs_io", options]).arg(object).stdin(Stdio::piped()).stdout(Stdio::piped());
        Lever::new(xfs_io.spawn().expect("xfs_io"), command)
    }

    /// Unmounts after a cut. No process may be using the disks.
    pub fn power_off(&self) {
        self.unmount();
        if self.cut == Cut::Flushed {
            self.leave("outer");
            self.run("mount -o loop outer.img outer");
        }
    }

    /// After [`Disks::power_off`]: mounts the state after the cut of this number, while `look` runs.
    pub fn after_cut<T>(&self, number: usize, look: impl FnOnce() -> T) -> T {
        let image = if self.cut == Cut::Given { (number + 1).to_string() } else { LIVE.to_owned() };
        self.mount(&image);
        self.bind();
        let seen = look();
        self.unmount();
        self.run(&format!("rm outer/{image}*"));
        seen
    }
}

impl Lever {
    /// Waits until xfs_io accepts commands.
    fn new(mut xfs_io: Child, command: String) -> Self {
        let mut line = String::new();
        let stdout = xfs_io.stdout.as_mut().expect("a pipe");
        xfs_io.stdin.as_mut().expect("a pipe").write_all(b"print\n").expect("xfs_io reads");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert!(line.starts_with("[000]"), "xfs_io says {line:?}");
        Self { xfs_io, command }
    }

    /// Cuts the power.
    pub fn pull(mut self) -> Moment {
        let begin = Instant::now();
        let command = format!("{}quit\n", self.command);
        self.xfs_io.stdin.take().expect("a pipe").write_all(command.as_bytes()).expect("xfs_io reads");
        let status = self.xfs_io.wait().expect("a child");
        assert!(status.success(), "{command:?}: {status}");
        Moment { begin, end: Instant::now() }
    }
}

impl Drop for Lever {
    fn drop(&mut self) {
        // xfs_io ends with its input.
        drop(self.xfs_io.stdin.take());
        let _ = self.xfs_io.wait();
    }
}
