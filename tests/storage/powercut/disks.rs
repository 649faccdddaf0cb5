//! Disks on which the power can be cut.
//!
//! An outer XFS in a sparse file holds the image of a disk. The image is a loop device with an
//! ext4, xfs or btrfs on it, for spool and mailboxes together, or there is an image for each. A
//! [`Lever`] cuts the power at one instant, in one of two ways. [`Cut::Given`] keeps all writes
//! that the device has received: the outer file system clones the image. [`Cut::Flushed`] keeps
//! only flushed writes: a flush is an fsync of the image, and the outer file system is shut down
//! and forgets the rest. All mounts are in a namespace of their own; they and their loop devices
//! are gone with the [`Disks`]. Writes are not reordered between two flushes, except that the last
//! flush may have reached only a part of its pages.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use nix::unistd::geteuid;

use super::people::{People, SHOP};
use common::mounts::Mounts;
use common::{Daemon, Site};

/// Which writes survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All writes that the device has received.
    Given,
    /// Only the writes that were flushed.
    Flushed,
}

/// Whether spool and mailboxes share a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// They share one, so mail is renamed into mailboxes.
    One,
    /// Each has its own, so mail is copied.
    Two,
}

/// The disks of a site, mounted.
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

/// A file system: the file that contains it, its offset in that file in octets, and its mount
/// point.
struct Part {
    file: String,
    offset: u64,
    directory: &'static str,
}

/// The size of a disk in octets, the minimum for xfs and btrfs. The files are sparse.
const SIZE: u64 = 400 << 20;
/// The name of the image that is in use.
const LIVE: &str = "live";

/// A power cut that is prepared, so that it can be made as fast as possible.
pub struct Lever {
    xfs_io: Child,
    command: String,
}

/// Two times between which the power was cut.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Just before the cut: mail acknowledged earlier must survive.
    pub begin: Instant,
    /// Just after the cut: mail offered later cannot be on the disks.
    pub end: Instant,
}

impl Disks {
    /// Mounts empty disks, and puts the site's spool and mailboxes on them. Where that is not
    /// possible, reports the test as skipped and returns `None`.
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
        site.set("submission", "drop", &format!("{:?}", disks.drop_directory()));
        Some(disks)
    }

    /// Creates the file systems, makes them durable, and mounts them.
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
        self.run(&format!(
            "chown nobody spools mailboxes; mkdir -p spools/eve {mail}/eve
             mkdir {SHOP}; chown nobody: {SHOP}
             mkdir spools/drop; chown nobody: spools/drop; chmod 3733 spools/drop"
        ));
        self.people.move_in(&self.mailboxes, &self.site.join("spools/eve"), |path| self.path(path));
        self.run("sync -f spools; sync -f mailboxes");
        self.bind();
    }

    /// The file systems of an image. If two disks are cloned at one instant, they are two halves of
    /// one file; if they are flushed independently, they are two files.
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

    /// Puts the mailbox of eve behind a bind mount of the same file system, so that nothing can be
    /// renamed into it.
    fn bind(&self) {
        if self.layout == Layout::One {
            self.run(&format!("mount --bind spools/eve {}/eve", self.mailboxes.display()));
        }
    }

    /// Unmounts a disk. The unmount is repeated if it fails, since a process that looks for a free
    /// loop device may have this device open for a moment.
    fn leave(&self, directory: &str) {
        self.run(&format!("n=0; until umount -R {directory}; do n=$((n + 1)); [ $n -lt 100 ]; sleep 0.1; done"));
    }

    fn unmount(&self) {
        self.parts(LIVE).iter().for_each(|part| self.leave(part.directory));
    }

    /// Runs a shell script in the directory of the site, in the namespace.
    pub fn run(&self, script: &str) {
        self.mounts.shell(&format!("set -e; cd {}; {script}", self.site.display()));
    }

    /// The path of the spool.
    pub fn spool(&self) -> PathBuf {
        self.site.join("spools/spool")
    }

    /// The path of the drop directory, which is beside the spool.
    pub fn drop_directory(&self) -> PathBuf {
        self.site.join("spools/drop")
    }

    /// The directory of the mailboxes of shop.test.
    pub fn shop(&self) -> PathBuf {
        self.site.join(SHOP)
    }

    /// The path by which the test reaches a path of the namespace.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.mounts.path(path)
    }

    /// Starts the daemon of the site on these disks. `faults` is the value of PENFOLD_FAULT.
    pub fn start(&self, site: &Site, faults: &str) -> Daemon {
        let penfoldd = site.penfoldd(&["-d"]);
        let mut command = self.mounts.enter("env");
        command.arg(format!("PENFOLD_FAULT={faults}")).arg(penfoldd.get_program()).args(penfoldd.get_args());
        Daemon::spawn(command)
    }

    /// Prepares the next power cut.
    pub fn lever(&mut self) -> Lever {
        let outer = self.site.join("outer");
        let (options, object, command) = match self.cut {
            Cut::Given => {
                self.clones += 1;
                let clone = outer.join(self.clones.to_string());
                ("-f", clone, format!("reflink {}\n", outer.join(LIVE).display()))
            }
            // Without the option -f of `shutdown`, not even the log of the file system is written.
            Cut::Flushed => ("-x", outer, "shutdown\n".to_owned()),
        };
        let mut xfs_io = self.mounts.enter("stdbuf");
        xfs_io.args(["-oL", "xfs_io", options]).arg(object).stdin(Stdio::piped()).stdout(Stdio::piped());
        Lever::new(xfs_io.spawn().expect("xfs_io"), command)
    }

    /// Unmounts the disks after a cut. No process may be using them.
    pub fn power_off(&self) {
        self.unmount();
        if self.cut == Cut::Flushed {
            self.leave("outer");
            self.run("mount -o loop outer.img outer");
        }
    }

    /// Mounts the state after the cut of this number, calls `look`, and unmounts it. Needs
    /// [`Disks::power_off`] first.
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
    /// Waits until xfs_io accepts commands. `command` is the command that cuts the power.
    fn new(mut xfs_io: Child, command: String) -> Self {
        let mut line = String::new();
        let stdout = xfs_io.stdout.as_mut().expect("a pipe");
        xfs_io.stdin.as_mut().expect("a pipe").write_all(b"print\n").expect("xfs_io reads");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert!(line.starts_with("[000]"), "xfs_io says {line:?}");
        Self { xfs_io, command }
    }

    /// Cuts the power. Returns the times just before and just after the cut.
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
        // When its standard input is closed, xfs_io ends.
        drop(self.xfs_io.stdin.take());
        let _ = self.xfs_io.wait();
    }
}
