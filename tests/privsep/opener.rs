//! The opener, the process that opens files that only root can read.
//!
//! Only root has such files; otherwise the tests are reported as skipped.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use common::Site;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::geteuid;
use penfold::privsep::OPENER;
use penfold::privsep::request::{Request, ask};

/// Writes a users file that only root can read.
fn secret(site: &Site, name: &str) -> PathBuf {
    let path = site.path(name);
    fs::write(&path, "anna::\n").expect("a scratch file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a scratch file");
    path
}

/// In a namespace for its processes, the number of the next process tells how many there were.
#[test]
fn one_process_opens_the_files_of_a_hundred_domains() {
    let script = "\"$@\" && echo \"$(sh -c 'echo $$')\"";
    let numbered = |command: &Command| {
        let mut inside = Command::new("unshare");
        inside.args(["--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"]);
        inside.arg(command.get_program()).args(command.get_args());
        inside.output().expect("unshare runs")
    };
    if !geteuid().is_root() || !numbered(&Command::new("true")).status.success() {
        return common::skipped("no private process numbers without root and unshare");
    }
    let mut site = Site::new();
    site.make_root_owned();
    for number in 0..100 {
        let section = format!("domain#{number}");
        site.set(&section, "names", &format!("[\"d{number}.test\"]"));
        site.set(&section, "users", &format!("\"file:{}\"", secret(&site, &format!("users{number}")).display()));
    }
    let output = numbered(&site.penfoldd(&["-n"]));
    assert!(output.status.success(), "{output:?}");
    let next: usize = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    assert!(next < 50, "{next} processes");
}

/// An opener, and the socket for requests to it.
struct Opener(Child, OwnedFd);

impl Opener {
    fn of(site: &Site) -> Self {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
        let mut command = site.penfoldd(&[]);
        Self(command.arg0(OPENER).stdin(theirs).spawn().expect("it starts"), ours)
    }

    fn opens(&self, path: &Path) -> bool {
        let request = Request::File(path.to_owned()).write().expect("short");
        ask(&self.1, &request, None).expect("an answer").is_ok_and(|file| file.is_some())
    }

    fn ends(self) {
        let Self(mut process, socket) = self;
        drop(socket);
        assert!(process.wait().expect("it ends").success());
    }
}

#[test]
fn an_opener_opens_the_files_that_the_configuration_names_now() {
    if !geteuid().is_root() {
        return common::skipped("only root has files that only root can read");
    }
    let mut site = Site::new();
    site.make_root_owned();
    let [one, two, other] = ["one", "two", "other"].map(|name| secret(&site, name));
    let name = |site: &mut Site, path: &Path| {
        site.set("local", "users", &format!("\"file:{}\"", path.display()));
        site.configure();
    };
    name(&mut site, &one);
    let opener = Opener::of(&site);
    let opens = || [&one, &two, &other].map(|path| opener.opens(path));
    assert_eq!(opens(), [true, false, false]);
    assert_eq!(opens(), [true, false, false], "again");
    name(&mut site, &two);
    assert_eq!(opens(), [false, true, false], "another file is named");
    // A user who can write to the configuration, or to a file, gets nothing.
    let configuration = site.path("penfold.conf");
    for path in [&configuration, &two] {
        let mode = |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root can");
        mode(0o622);
        assert_eq!(opens(), [false, false, false], "{}", path.display());
        mode(0o600);
        assert_eq!(opens(), [false, true, false], "{}", path.display());
    }
    fs::remove_file(&configuration).expect("it is there");
    assert_eq!(opens(), [false, false, false], "no configuration");
    name(&mut site, &one);
    assert_eq!(opens(), [true, false, false], "a new configuration");
    opener.ends();
}
