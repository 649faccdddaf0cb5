//! The first process of a container, which is the parent of whoever has lost his own.
//!
//! The real daemon in a namespace of processes, as root and as somebody else: it serves,
//! delivers, ends on SIGTERM with 0, and waits for what a command has left behind, so that no
//! zombie stays. Only root can make the namespace; who cannot says `skipped`.

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use common::books::{Answer, Letter, offer};
use common::homes::Homes;
use common::mounts::Mounts;
use common::{Daemon, Site};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// A daemon that is the first process.
struct Container {
    /// The process that waits for it.
    outside: Option<Daemon>,
    /// Its number outside.
    pid: i32,
}

/// Takes the message, and leaves a process behind that outlives it, as a daemon begins.
const COMMAND: &str = "cat > DIR/got; setsid sh -c 'sleep 1 & echo $! > DIR/part; mv DIR/part DIR/orphan'";

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

    /// What a script of the shell says in it.
    fn ask(&self, script: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-p", "-t", &self.pid.to_string(), "--", "sh", "-c", script]);
        let output = command.output().expect("a shell");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a command has left behind lives, and when it has ended nothing of it stays.
    fn waits_for_the_orphan(&self, orphan: &str) {
        let stat = self.ask(&format!("cat /proc/{orphan}/stat"));
        assert!(stat.contains("(sleep)"), "{stat:?}");
        self.daemon().wait_until("nothing", || self.ask(&format!("cat /proc/{orphan}/stat")).is_empty());
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
        // Who changes his user is not killed with his parent.
        if self.outside.is_some() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

#[test]
fn as_root_it_serves_and_waits_for_whom_nobody_waits() {
    let Some(homes) = Homes::new("") else { return };
    let home = homes.home("jon").display().to_string();
    homes.write("jon", ".forward", &format!("\"|{}\"\n", COMMAND.replace("DIR", &home)), 0o600);
    let container = Container::start(&homes.mounts, &homes.site, &[]);
    for user in ["mary", "jon"] {
        assert_eq!(offer(container.daemon().address(), &[user], Letter::new("letter")), Answer::Taken);
    }
    container.daemon().wait_until("mail", || homes.mail("mary").len() == 1);
    let orphan = homes.home("jon").join("orphan");
    container.daemon().wait_until("what is left behind", || orphan.exists());
    container.waits_for_the_orphan(fs::read_to_string(orphan).expect("a number").trim());
    container.daemon().wait_words(&["sent to=<jon@razorback>", "via=command"]);
    container.ends_well();
}

#[test]
fn as_somebody_else_it_does_so_too() {
    if !geteuid().is_root() {
        println!("skipped: only root can begin a container");
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
    container.daemon().wait_until("what is left behind", || orphan.exists());
    container.waits_for_the_orphan(fs::read_to_string(orphan).expect("a number").trim());
    container.daemon().wait_words(&["sent to=<cmd@razorback>", "via=command"]);
    container.ends_well();
}
