//! Disks whose power can be cut.
//!
//! An outer XFS in a sparse file holds the image of a disk; the image is a loop
//! device with an ext4, xfs or btrfs on it, for spool and mailboxes together, or
//! one for each. A [`Lever`] cuts, at one instant, in one of two ways:
//! [`Cut::Given`] keeps all that the device was given, for the outer file system
//! clones the image; [`Cut::Flushed`] keeps what the device was told to flush and
//! nothing else, for a flush is an fsync of the image, and the outer file system is
//! shut down and forgets the rest. All mounts are in a namespace of their own; they
//! and their loop devices are gone with the [`Disks`]. Nothing is reordered between
//! two flushes, except that the last flush may have come only to a part of its pages.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use nix::unistd::geteuid;

use super::people::People;
use common::mounts::Mounts;
use common::{Daemon, Site};

/// What is left after a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All that the device was given.
    Given,
    /// What the device was told to flush.
    Flushed,
}

/// Where spool and mailboxes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// On one file system: mail can be renamed.
    One,
    /// On one each: mail is copied.
    Two,
}

/// The disks of a site.
pub struct Disks {
    mounts: Mounts,
    site: PathBuf,
    /// Below it everybody has a directory of his own.
    pub mailboxes: PathBuf,
    cut: Cut,
    layout: Layout,
    people: People,
    clones: usize,
}

/// A file system: where in which file, and where it is mounted.
struct Part {
    file: String,
    offset: u64,
    directory: &'static str,
}

/// xfs and btrfs do not want less. The files are sparse.
const SIZE: u64 = 400 << 20;
/// The image that is written to.
const LIVE: &str = "live";

/// What cuts the power, as fast as can be.
pub struct Lever {
    xfs_io: Child,
    command: String,
}

/// The instant of a cut lies between the two.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// What was acknowledged before this must be there.
    pub begin: Instant,
    /// What was offered after this cannot be there.
    pub end: Instant,
}

impl Disks {
    /// Empty disks, mounted, and the site with its spool and mailboxes on them; `None`,
    /// and says so, where that cannot be had.
    ///
    /// # Panics
    /// If it cannot be had where CI=true and all is there that tests/setup does not install.
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

    /// Makes the file systems, durably, and mounts them.
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

    /// Two disks that are cloned at one instant are two halves of one file; two of
    /// which one may be flushed and the other one not are two files.
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

    /// Puts the mailbox of eve on the same file system behind a mount, so that nothing
    /// can be renamed into it.
    fn bind(&self) {
        if self.layout == Layout::One {
            self.run(&format!("mount --bind spools/eve {}/eve", self.mailboxes.display()));
        }
    }

    /// Unmounts. Whoever looks for a free loop device holds this one for a moment.
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

    /// A path as this process sees it.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.mounts.path(path)
    }

    /// Starts the daemon of the site on what is mounted, with rules for PENFOLD_FAULT.
    pub fn start(&self, site: &Site, faults: &str) -> Daemon {
        let penfoldd = site.penfoldd(&["-d"]);
        let mut command = self.mounts.enter("env");
        command.arg(format!("PENFOLD_FAULT={faults}")).arg(penfoldd.get_program()).args(penfoldd.get_args());
        Daemon::spawn(command)
    }

    /// What cuts the power, ready to be pulled.
    pub fn lever(&mut self) -> Lever {
        let outer = self.site.join("outer");
        let (options, object, command) = match self.cut {
            Cut::Given => {
                self.clones += 1;
                let clone = outer.join(self.clones.to_string());
                ("-f", clone, format!("reflink {}\n", outer.join(LIVE).display()))
            }
            // Without -f: not even the log is written.
            Cut::Flushed => ("-x", outer, "shutdown\n".to_owned()),
        };
        let mut xfs_io = self.mounts.enter("stdbuf");
        xfs_io.args(["-oL", "xfs_io", options]).arg(object).stdin(Stdio::piped()).stdout(Stdio::piped());
        Lever::new(xfs_io.spawn().expect("xfs_io"), command)
    }

    /// Ends the use of what was cut: nothing may be running on it.
    pub fn power_off(&self) {
        self.unmount();
        if self.cut == Cut::Flushed {
            self.leave("outer");
            self.run("mount -o loop outer.img outer");
        }
    }

    /// After [`Disks::power_off`]: mounts what the cut of this number left, for as
    /// long as `look` looks at it.
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
    /// Waits until it takes commands.
    fn new(mut xfs_io: Child, command: String) -> Self {
        let mut line = String::new();
        let stdout = xfs_io.stdout.as_mut().expect("a pipe");
        xfs_io.stdin.as_mut().expect("a pipe").write_all(b"print\n").expect("xfs_io reads");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert!(line.starts_with("[000]"), "xfs_io says {line:?}");
        Self { xfs_io, command }
    }

    /// Cuts.
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
        // Without input it ends by itself.
        drop(self.xfs_io.stdin.take());
        let _ = self.xfs_io.wait();
    }
}
