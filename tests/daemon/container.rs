//! penfoldd as the first process of a container, which becomes the parent of orphans.
//!
//! The real daemon runs in a PID namespace, as root and as another user. It serves, delivers, ends
//! on SIGTERM with 0, and reaps the orphans of commands, so that no zombies accumulate. The
//! namespace needs root; otherwise the tests are reported as skipped.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use common::books::{Answer, Letter, offer};
use common::homes::Homes;
use common::mounts::Mounts;
use common::{Daemon, Site};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// A daemon that is the first process of a PID namespace.
struct Container {
    /// The process outside the container that waits for the daemon; `None` after the end.
    outside: Option<Daemon>,
    /// The daemon's process id outside the container.
    pid: i32,
}

/// A delivery command that stores the message, and leaves a process behind, like a program that
/// starts a daemon.
const COMMAND: &str = "cat > DIR/got; setsid sh -c 'sleep 600 & echo $! > DIR/part; mv DIR/part DIR/orphan'";

impl Container {
    fn start(mounts: &Mounts, site: &Site, before: &[&str]) -> Self {
        let penfoldd = site.penfoldd(&["-d"]);
        let mut command = mounts.enter("unshare");
        command.args(["-p", "-f", "--mount-proc", "--"]).args(before);
        command.arg(penfoldd.get_program()).args(penfoldd.get_args()).stdin(Stdio::null());
        let outside = Daemon::spawn(command);
        let unshare = outside.pid();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).expect("proc(5)");
        Self { outside: Some(outside), pid: children.trim().parse().expect("one child") }
    }

    /// Runs a shell script in the container, and returns its output.
    fn ask(&self, script: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-p", "-t", &self.pid.to_string(), "--", "sh", "-c", script]);
        let output = command.output().expect("a shell");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Asserts that the orphan of a command continues to run, and is reaped when it ends.
    fn waits_for_the_orphan(&self, orphan: &str) {
        let stat = || self.ask(&format!("cat /proc/{orphan}/stat"));
        self.daemon().wait_until("the orphan", || stat().contains("(sleep)"));
        self.ask(&format!("kill {orphan}"));
        self.daemon().wait_until("its end", || stat().is_empty());
        self.daemon().wait_until("no zombie", || !self.ask("cat /proc/[0-9]*/stat").contains(") Z "));
    }

    fn ends_well(mut self) {
        assert!(self.ask("cat /proc/1/cmdline").contains("penfoldd\0-f"), "not the first process");
        kill(Pid::from_raw(self.pid), Signal::SIGTERM).expect("it runs");
        let status = self.outside.take().expect("it runs").wait_end();
        assert_eq!((status.code(), status.signal()), (Some(0), None));
    }

    fn daemon(&self) -> &Daemon {
        self.outside.as_ref().expect("it runs")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A process that changes its user does not end with its parent, so the daemon is killed by
        // its id.
        if self.outside.is_some() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

#[test]
fn as_root_it_serves_and_reaps_orphans() {
    let Some(homes) = Homes::new("") else { return };
    let home = homes.home("jon").display().to_string();
    homes.write("jon", ".forward", &format!("\"|{}\"\n", COMMAND.replace("DIR", &home)), 0o600);
    let container = Container::start(&homes.mounts, &homes.site, &[]);
    for user in ["mary", "jon"] {
        assert_eq!(offer(container.daemon().address(), &[user], Letter::new("letter")), Answer::Taken);
    }
    container.daemon().wait_until("mail", || homes.mail("mary").len() == 1);
    let orphan = homes.home("jon").join("orphan");
    container.daemon().wait_until("the orphan", || orphan.exists());
    container.waits_for_the_orphan(fs::read_to_string(orphan).expect("a number").trim());
    container.daemon().wait_words(&["sent to=<jon@razorback>", "via=command"]);
    container.ends_well();
}

#[test]
fn as_another_user_it_serves_and_reaps_orphans() {
    if !geteuid().is_root() {
        common::skipped("only root can begin a container");
        return;
    }
    let Some(mounts) = Mounts::new("true") else { return };
    let site = Site::new();
    let mail = site.path("mail").display().to_string();
    site.write("aliases", &format!("cmd: \"|{}\"\n", COMMAND.replace("DIR", &mail)));
    let nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"];
    let container = Container::start(&mounts, &site, &nobody);
    for user in ["jon", "cmd"] {
        assert_eq!(offer(container.daemon().address(), &[user], Letter::new("letter")), Answer::Taken);
    }
    container.daemon().wait_mail(&site, "jon", 1);
    let orphan = site.path("mail/orphan");
    container.daemon().wait_until("the orphan", || orphan.exists());
    container.waits_for_the_orphan(fs::read_to_string(orphan).expect("a number").trim());
    container.daemon().wait_words(&["sent to=<cmd@razorback>", "via=command"]);
    container.ends_well();
}

/// Runs a program of the package as a user without rights, outside of any container. `before` is a
/// program that runs it, such as unshare, with its arguments.
fn as_somebody(uid: u32, before: &[&str], program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    let uid = uid.to_string();
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--"]).args(before);
    command.arg(program).args(arguments);
    command
}

#[test]
fn a_program_in_a_container_submits_under_its_uid_outside() {
    if !geteuid().is_root() {
        common::skipped("only root can run a command as another user");
        return;
    }
    let site = Site::new();
    let daemon = site.start();
    let sendmail = site.path("sendmail");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_penfoldctl"), &sendmail).expect("a link");
    let (sendmail, config) = (sendmail.display().to_string(), site.path("penfold.conf").display().to_string());
    // The user in the namespace is root or nobody; outside, both are the user 70101.
    for within in ["--map-root-user", "--map-user=65534"] {
        let before = ["unshare", "-U", within, "-m", "-p", "-f", "--"];
        let mut child = as_somebody(70_101, &before, &sendmail, &["-C", &config, "jon@razorback"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), b"Subject: within\n\nhello\n")
            .expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        if printed.contains("unshare failed") {
            common::skipped(format_args!("no user namespace available: {printed}"));
            return;
        }
        assert!(output.status.success() && printed.is_empty(), "{within}: {output:?}");
    }
    daemon.wait_until("mail", || fs::read_dir(site.path("mail/jon/new")).is_ok_and(|new| new.count() == 2));
    for file in fs::read_dir(site.path("mail/jon/new")).expect("mail").flatten() {
        let text = fs::read_to_string(file.path()).expect("text");
        assert!(text.contains("uid 70101"), "{text}");
    }
}

#[test]
fn users_without_a_mapping_have_no_rights() {
    if !geteuid().is_root() {
        common::skipped("only root can run a command as another user");
        return;
    }
    let site = Site::new();
    let daemon_runs = 70_102;
    for path in ["", "spool", "mail"] {
        std::os::unix::fs::chown(site.path(path), Some(daemon_runs), Some(daemon_runs)).expect("root can");
    }
    // The server is nobody in a user namespace, in which every user from outside also appears as
    // nobody.
    let penfoldd = site.penfoldd(&["-d"]);
    let arguments: Vec<&str> = penfoldd.get_args().map(|word| word.to_str().expect("UTF-8")).collect();
    let before = ["unshare", "-U", "--map-user=65534", "--"];
    let mut probe = as_somebody(daemon_runs, &before, "true", &[]);
    if !probe.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        common::skipped("no user namespace available");
        return;
    }
    let mut command = as_somebody(daemon_runs, &before, env!("CARGO_BIN_EXE_penfoldd"), &arguments);
    command.stdin(Stdio::null());
    let daemon = Daemon::spawn(command);
    let config = site.path("penfold.conf").display().to_string();
    // Root outside the namespace also appears as nobody inside.
    for uid in [70_103, 0] {
        let flush = ["-f", &config, "flush"];
        let output = as_somebody(uid, &[], env!("CARGO_BIN_EXE_penfoldctl"), &flush).output().expect("it runs");
        assert_eq!(output.status.code(), Some(77), "{uid}: {output:?}");
    }
    assert!(daemon.terminate().success());
}

/// Root owns a new volume. If the volume is empty and only root can have created it, it becomes the
/// server's; otherwise the error says what to do.
#[test]
fn an_empty_volume_owned_by_root_becomes_the_spool() {
    if !geteuid().is_root() {
        common::skipped("only root can have files that root owns");
        return;
    }
    for (what, before, is_taken) in [
        ("empty", &[][..], true),
        ("a new file system", &["lost+found"], true),
        ("with something in it", &["lost+found", "new"], false),
        ("for others to write", &[], false),
        ("below what others may change", &[], false),
    ] {
        let mut site = Site::new();
        site.make_root_owned();
        let volume = site.path("volume");
        fs::create_dir(&volume).expect("a directory");
        before.iter().for_each(|name| fs::create_dir(volume.join(name)).expect("a directory"));
        if what.starts_with("for others") {
            fs::set_permissions(&volume, fs::Permissions::from_mode(0o775)).expect("root can");
        }
        if what.starts_with("below") {
            common::own(&site.path(""));
        }
        site.set("", "spool", &format!("{volume:?}"));
        let owner = || fs::metadata(&volume).expect("there").uid();
        if is_taken {
            let daemon = site.start();
            daemon.submit(&["jon"]);
            daemon.wait_mail(&site, "jon", 1);
            assert_ne!(owner(), 0, "{what}");
            continue;
        }
        let output = site.penfoldd(&["-d"]).output().expect("it ends");
        let printed = String::from_utf8_lossy(&output.stderr);
        let remedy =
            format!("spool: it must belong to the user that runs penfoldd: chown -R nobody {}", volume.display());
        assert!(output.status.code() == Some(77) && printed.contains(&remedy), "{what}: {output:?}");
        assert_eq!(owner(), 0, "{what}");
    }
    // A daemon that does not run as root gives the same error.
    let mut site = Site::new();
    let volume = site.path("volume");
    fs::create_dir(&volume).expect("a directory");
    site.set("", "spool", &format!("{volume:?}"));
    let penfoldd = site.penfoldd(&["-d"]);
    let arguments: Vec<&str> = penfoldd.get_args().map(|word| word.to_str().expect("UTF-8")).collect();
    let program = penfoldd.get_program().to_str().expect("UTF-8");
    let output = as_somebody(70_104, &[], program, &arguments).output().expect("it ends");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(77) && printed.contains(": chown -R 70104 "), "{output:?}");
}
