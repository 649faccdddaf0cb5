//! Delivery to users of the system by a server that root has started. The monitor, which remains
//! root, starts agents, processes with the rights of one recipient, and processes that look up
//! users.
//!
//! The users are in a passwd file that a mount namespace has in the place of the system's, with
//! home directories in the scratch directory. All of this needs root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use common::books::{Letter, offer};
use common::client::Client;
use common::homes::{FIRST, Homes};
use common::stop::Stop;
use common::{Daemon, Site};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// Sends a message to a recipient.
fn send(daemon: &Daemon, to: &str) {
    common::books::offer(daemon.address(), &[to], common::books::Letter::new("one"));
}

fn files(maildir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(maildir.join("new")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn mail_in_a_home_directory_has_the_recipient_as_owner() {
    let Some(homes) = Homes::new("") else { return };
    let daemon = homes.start();
    for (uid, name) in (FIRST..).zip(["jon", "mary"]) {
        for count in 1..3 {
            send(&daemon, name);
            let maildir = homes.home(name).join("Maildir");
            daemon.wait_until("mail", || files(&maildir).len() == count);
            for path in [maildir.clone(), maildir.join("new")].into_iter().chain(files(&maildir)) {
                let metadata = fs::metadata(&path).expect("there");
                assert_eq!((metadata.uid(), metadata.gid()), (uid, uid), "{}", path.display());
                assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", path.display());
            }
        }
    }
    daemon.wait_until("the end", || homes.site.spooled().is_empty());
}

/// The child processes of a process, each with its name.
pub fn children(pid: u32) -> Vec<(u32, String)> {
    let tasks = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let numbers = tasks.split_whitespace().filter_map(|number| number.parse().ok());
    let name = |number: u32| fs::read_to_string(format!("/proc/{number}/cmdline")).unwrap_or_default();
    numbers.map(|number| (number, name(number).split('\0').next().unwrap_or_default().to_owned())).collect()
}

fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("a field").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The process ids of a daemon's monitor and of its agents.
fn family(daemon: &Daemon) -> (u32, Vec<u32>) {
    let server = daemon.pid().as_raw().unsigned_abs();
    let monitors = children(server);
    assert_eq!(monitors.len(), 1, "{monitors:?}");
    assert_eq!(monitors[0].1, "penfoldd: monitor");
    let agents = children(monitors[0].0);
    // A process that has just started does not count, because it still has the name of the monitor.
    let agents = agents.into_iter().filter(|agent| agent.1 == "penfoldd: agent");
    (monitors[0].0, agents.map(|agent| agent.0).collect())
}

#[test]
fn no_process_has_more_rights_than_it_needs() {
    let Some(homes) = Homes::new("") else { return };
    // The daemon starts with descriptors that its parent has left open: a pipe and a file.
    let mut command = homes.mounts.inside(&homes.site.penfoldd(&["-d"]));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    command.stdin(std::process::Stdio::from(reader));
    let shell = "exec 7<&0 9</etc/services; exec \"$0\" \"$@\" <&7";
    let mut wrapped = std::process::Command::new("sh");
    wrapped.args(["-c", shell]).arg(command.get_program()).args(command.get_args());
    wrapped.stdin(std::process::Stdio::null());
    let daemon = Daemon::spawn(wrapped);
    drop(writer);
    send(&daemon, "jon");
    daemon.wait_until("mail", || files(&homes.home("jon").join("Maildir")).len() == 1);
    let server = daemon.pid().as_raw().unsigned_abs();
    let (monitor, agents) = family(&daemon);
    assert_eq!(agents.len(), 1, "{agents:?}");
    let agent = agents[0];
    assert_ne!(status(server, "Uid"), "0 0 0 0");
    assert_eq!(status(monitor, "Uid"), "0 0 0 0");
    assert_eq!(status(monitor, "Threads"), "1");
    // The bits 0x21 are CAP_CHOWN and CAP_KILL.
    for (set, rights) in [("CapEff", "21"), ("CapPrm", "21"), ("CapInh", "00"), ("CapAmb", "00")] {
        assert_eq!(status(monitor, set), format!("00000000000000{rights}"), "{set} of the monitor");
    }
    assert_eq!(status(agent, "Uid"), [FIRST; 4].map(|n| n.to_string()).join(" "));
    assert_eq!(status(agent, "Gid"), [FIRST; 4].map(|n| n.to_string()).join(" "));
    assert_eq!(status(agent, "Groups"), "");
    for (who, pid) in [("server", server), ("agent", agent)] {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(pid, set), "0000000000000000", "{set} of the {who}");
        }
    }
    let open = |pid: u32| {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten();
        let mut links: Vec<(i32, String)> = links
            .map(|link| {
                let number = link.file_name().to_string_lossy().parse().expect("a number");
                (number, fs::read_link(link.path()).expect("a link").to_string_lossy().into_owned())
            })
            .collect();
        links.sort_unstable();
        links
    };
    for (_, what) in open(server).iter().chain(&open(monitor)).filter(|(number, _)| [7, 9].contains(number)) {
        assert!(!what.starts_with("pipe:") && what != "/etc/services", "{what} was inherited");
    }
    let of_agent = open(agent);
    assert!(of_agent.iter().all(|(number, what)| *number < 3 || what.starts_with("socket:")), "{of_agent:?}");
    let sockets = of_agent.iter().filter(|(_, what)| what.starts_with("socket:")).count();
    let same = of_agent.iter().filter(|(_, what)| *what == of_agent[0].1).count();
    assert_eq!((of_agent.len() - sockets, sockets), (2, same), "one socket: {of_agent:?}");
    // The agent runs as the recipient, who may kill it but not inspect it.
    let mut look = std::process::Command::new("ls");
    look.arg(format!("/proc/{agent}/fd")).uid(FIRST).gid(FIRST);
    let looked = look.output().expect("it runs");
    assert!(!looked.status.success() && String::from_utf8_lossy(&looked.stderr).contains("denied"), "{looked:?}");
    // Neither the agent nor the monitor has the terminal at which root has started the daemon.
    for pid in [monitor, agent] {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        assert_eq!((fields[3], fields[4]), (&*monitor.to_string(), "0"), "session and terminal: {stat}");
    }
    // No process of the daemon outlives the server, however the server ends.
    daemon.end_log();
    let is_there = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
    for _ in 0..500 {
        if !is_there(monitor) && !is_there(agent) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("monitor {} agent {}", is_there(monitor), is_there(agent));
}

#[test]
fn nothing_is_delivered_as_root() {
    let Some(homes) = Homes::new("") else { return };
    let daemon = homes.start();
    for (count, name) in ["root", "toor"].into_iter().enumerate() {
        send(&daemon, name);
        let kept = homes.site.path("spool/postmaster");
        daemon.wait_until("mail", || files(&kept).len() == count + 1);
    }
    assert!(!homes.home("toor").join("Maildir").exists());
    let (_, agents) = family(&daemon);
    assert!(agents.is_empty(), "{agents:?}");
}

#[test]
fn a_link_in_a_home_directory_leads_only_where_its_owner_may_write() {
    let Some(homes) = Homes::new("") else { return };
    let daemon = homes.start();
    send(&daemon, "mary");
    let (link, theirs) = (homes.home("jon").join("Maildir"), homes.home("mary").join("Maildir"));
    daemon.wait_until("mail", || files(&theirs).len() == 1);
    let roots = homes.site.path("home/roots");
    homes.mounts.shell(&format!("mkdir -p {0}/new {0}/cur {0}/tmp && chown -R 0:0 {0}", roots.display()));
    let own = homes.home("jon").join("elsewhere");
    for (to, count) in [(&theirs, 1), (&roots, 0), (&own, 1)] {
        homes.mounts.shell(&format!("ln -sfn {} {1} && chown -h {FIRST} {1}", to.display(), link.display()));
        if *to == own {
            fs::create_dir(&own).expect("a directory");
            homes.give("jon", &own);
        }
        let id = daemon.submit(&["jon"]);
        let ends = if *to == own { " sent to=<jon@" } else { " deferred to=<jon@" };
        daemon.wait_words(&[&id, ends]);
        assert_eq!(files(to).len(), count, "{}", to.display());
    }
}

#[test]
fn a_user_who_replaces_directories_by_links_gets_each_message_once() {
    const COUNT: usize = 60;
    let Some(homes) = Homes::new("queue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"") else { return };
    let (jon, mary) = (homes.home("jon").join("Maildir"), homes.home("mary").join("Maildir"));
    // Half of the mail is handed over: the spool file becomes the user's. The other half is copied.
    homes.site.add("aliases", "copies: jon, elvis");
    homes.write("elvis", ".forward", "/dev/null\n", 0o600);
    let daemon = homes.start();
    for name in ["jon", "mary"] {
        send(&daemon, name);
    }
    daemon.wait_until("mailboxes", || !files(&jon).is_empty() && !files(&mary).is_empty());
    for place in ["new", "tmp", "cur"] {
        fs::create_dir(jon.join(format!("own-{place}"))).expect("a directory");
        std::os::unix::fs::symlink(mary.join(place), jon.join(format!("hers-{place}"))).expect("a link");
        std::os::unix::fs::symlink(jon.join(format!("own-{place}")), jon.join(format!("link-{place}")))
            .expect("a link");
        for name in ["own-", "hers-", "link-"] {
            let path = jon.join(format!("{name}{place}"));
            std::os::unix::fs::lchown(path, Some(FIRST), Some(FIRST)).expect("his");
        }
    }
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let swap = |name: &str, place: &str| {
        let (one, other) = (jon.join(format!("{name}{place}")), jon.join(place));
        let _ = renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE);
    };
    std::thread::scope(|scope| {
        let _stop = Stop(&is_over);
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                for (name, place) in [("hers-", "new"), ("link-", "new"), ("hers-", "tmp"), ("hers-", "cur")] {
                    swap(name, place);
                    std::thread::yield_now();
                    swap(name, place);
                }
            }
        });
        for number in 0..COUNT {
            let to = if number % 2 == 0 { "jon" } else { "copies" };
            offer(daemon.address(), &[to], Letter::new(&format!("letter{number}")));
        }
    });
    assert!(daemon.flush_until(&homes.site, || homes.site.spooled().is_empty()), "{}", daemon.log());
    // The user sees these messages, to whichever directory he has moved them.
    let places = ["new", "cur", "own-new", "own-cur"];
    let files = places.iter().flat_map(|place| fs::read_dir(jon.join(place)).into_iter().flatten().flatten());
    let all: Vec<String> = files.map(|file| fs::read_to_string(file.path()).expect("text")).collect();
    for number in 0..COUNT {
        let subject = format!("Subject: letter{number}\n");
        assert_eq!(all.iter().filter(|text| text.contains(&subject)).count(), 1, "{subject}{}", daemon.log());
    }
    assert_eq!(["new", "tmp", "cur"].map(|place| fs::read_dir(mary.join(place)).expect("there").count()), [1, 0, 0]);
}

#[test]
fn a_key_that_only_root_can_read_is_opened_by_the_monitor() {
    let Some(homes) = Homes::new("listen.tls = \"offered\"") else { return };
    let Homes { mut site, mounts } = homes;
    common::tls::Authority::new().give(&site, "c", "razorback.test", 300);
    mounts.shell(&format!(
        "mount -t tmpfs -o mode=755 tmpfs /mnt && mkdir -m 777 /mnt/open && cp {0}/c.pem {0}/c.key /mnt && cp {0}/c.key /mnt/open && \
         chown -R root /mnt && chmod 600 /mnt/c.key /mnt/open/c.key",
        site.path("").display()
    ));
    site.make_root_owned();
    site.set("tls", "certificate", "\"/mnt/c.pem\"");
    site.set("tls", "key", "\"/mnt/c.key\"");
    let daemon = mounts.start(&site);
    let offered = daemon.client().ehlo();
    assert!(offered.iter().any(|line| line == "STARTTLS"), "{offered:?}");
    // In a directory where others may write they could create a link to any file of root, so the
    // monitor opens no file there.
    mounts.shell("ln -s /mnt/c.key /mnt/open/link");
    for key in ["/mnt/open/c.key", "/mnt/open/link"] {
        site.set("tls", "key", &format!("{key:?}"));
        let refused = mounts.inside(&site.penfoldd(&["-n"])).output().expect("it runs");
        let printed = String::from_utf8_lossy(&refused.stderr);
        assert!(printed.contains(&format!("tls.key: {key}: Permission denied")), "{printed}");
    }
    // If another user may have written the configuration, the monitor opens no key that it names,
    // even under another key of the configuration.
    site.set("tls", "key", "\"/mnt/c.key\"");
    let examine = || {
        let run = mounts.inside(&site.penfoldd(&["-n"])).output().expect("it runs");
        (run.status.success(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    assert!(examine().0);
    for (mode, owner) in [(0o777, 0), (0o755, FIRST)] {
        fs::set_permissions(site.path(""), fs::Permissions::from_mode(mode)).expect("root can");
        chown(site.path(""), Some(owner), None).expect("root can");
        assert!(examine().1.contains("tls.key: /mnt/c.key: Permission denied"), "{mode:o} {owner}");
    }
    chown(site.path(""), Some(0), None).expect("root can");
    mounts.shell("cp /mnt/c.key /mnt/routes && chmod 600 /mnt/routes");
    let routes = site.path("routes");
    site.set("remote", "routes", "\"/mnt/routes\"");
    let refused = mounts.inside(&site.penfoldd(&["-n"])).output().expect("it runs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("remote.routes: /mnt/routes: Permission denied"));
    site.set("remote", "routes", &format!("{routes:?}"));
    // Signals about processes that have ended, such as a user's commands, do not disturb the
    // monitor while it opens files.
    site.set("tls", "key", "\"/mnt/c.key\"");
    site.configure();
    let (monitor, _) = family(&daemon);
    let stopped = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stopped);
        scope.spawn(|| {
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                send_signal(monitor, Signal::SIGCHLD);
            }
        });
        for count in 1..=5 {
            daemon.hup();
            let is_read = |line: &&str| line.ends_with("configuration and tables read again");
            daemon.wait_until("the reload", || {
                let log = daemon.log();
                log.lines().filter(is_read).count() == count || log.contains("stays in force")
            });
        }
    });
    assert!(!daemon.log().contains("stays in force"), "{}", daemon.log());
    // The monitor follows a link that root owns.
    mounts.shell("ln -s c.key /mnt/link");
    site.set("tls", "key", "\"/mnt/link\"");
    let taken = mounts.inside(&site.penfoldd(&["-n"])).output().expect("it runs");
    assert!(taken.status.success(), "{taken:?}");
}

#[test]
fn files_as_certbot_keeps_them_are_read_at_the_start_and_at_a_reload() {
    let Some(homes) = Homes::new("listen.tls = \"offered\"") else { return };
    let Homes { mut site, mounts } = homes;
    let authority = common::tls::Authority::new();
    // As with certbot, links that root owns lead from one directory of root to another.
    let renew = |site: &Site, number: u32, days| {
        authority.give(site, "c", "razorback.test", days);
        mounts.shell(&format!(
            "mkdir -p -m 700 /mnt/live /mnt/archive && cd /mnt/live && cp {0}/c.pem ../archive/c{number}.pem && \
             cp {0}/c.key ../archive/k{number}.pem && chown 0:0 ../archive/* && chmod 600 ../archive/k* && \
             ln -sf ../archive/c{number}.pem fullchain.pem && ln -sf ../archive/k{number}.pem privkey.pem",
            site.path("").display()
        ));
    };
    mounts.shell("mount -t tmpfs -o mode=755 tmpfs /mnt");
    renew(&site, 1, 5);
    site.make_root_owned();
    site.set("tls", "certificate", "\"/mnt/live/fullchain.pem\"");
    site.set("tls", "key", "\"/mnt/live/privkey.pem\"");
    let daemon = mounts.start(&site);
    let offered = || daemon.client().ehlo().iter().any(|line| line == "STARTTLS");
    let expires = |days: &str| daemon.log().matches(&format!("the certificate expires in {days} days")).count();
    assert!(offered());
    daemon.wait_until("a word on it", || expires("4") + expires("5") == 1);
    renew(&site, 2, 11);
    daemon.hup();
    daemon.wait_log(|line| line.contains("configuration and tables read again"));
    assert!(offered());
    daemon.wait_until("a word on the new one", || expires("10") + expires("11") == 1);
}

#[test]
fn an_agent_delivers_to_a_directory_that_is_configured_later() {
    if !geteuid().is_root() {
        common::skipped("only root has a monitor");
        return;
    }
    let mut site = Site::new();
    site.set("", "socket", &format!("{:?}", site.path("run/sock")));
    let daemon = site.start();
    let other = site.path("other");
    fs::create_dir(&other).expect("a directory");
    chown(&other, fs::metadata(site.path("mail")).ok().map(|m| m.uid()), None).expect("its own");
    site.add("users", &format!("late::{}/late", other.display()));
    daemon.hup();
    daemon.wait_log(|line| line.ends_with("configuration and tables read again"));
    send(&daemon, "late");
    daemon.wait_words(&["sent to=<late@"]);
    assert_eq!(files(&other.join("late")).len(), 1);
    assert!(!daemon.log().contains("deferred"), "{}", daemon.log());
}

/// The rights that the unit for systemd leaves to root, in the form of setpriv(1).
fn rights_of_the_unit() -> String {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/systemd/penfold.service");
    let unit = fs::read_to_string(unit).expect("the unit");
    let rights = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("a set");
    rights.split(' ').fold("-all".to_owned(), |all, right| all + ",+" + &right.to_lowercase().replacen("cap_", "", 1))
}

#[test]
fn the_rights_that_the_unit_leaves_to_root_are_enough() {
    let Some(mut homes) = Homes::new("") else { return };
    // Root has to create the spool, and to enter home directories that are closed to others.
    homes.site.make_root_owned();
    let spool = homes.site.path("lib/spool");
    homes.site.set("", "spool", &format!("{spool:?}"));
    fs::set_permissions(homes.home("jon"), fs::Permissions::from_mode(0o700)).expect("mode 700");
    let (inside, mut command) = (homes.site.penfoldd(&["-d"]), homes.mounts.enter("setpriv"));
    command.args(["--bounding-set", &rights_of_the_unit()]).arg(inside.get_program()).args(inside.get_args());
    let daemon = Daemon::spawn(command);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("its status");
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).expect("a set");
    let count = u64::from_str_radix(bounding, 16).expect("a number").count_ones() as usize;
    assert_eq!(count, rights_of_the_unit().matches('+').count(), "{bounding}");
    assert!(fs::metadata(&spool).is_ok_and(|metadata| metadata.uid() != 0));
    send(&daemon, "jon");
    let maildir = homes.home("jon").join("Maildir");
    daemon.wait_until("mail", || files(&maildir).len() == 1);
    assert!(daemon.terminate().success());
}

#[test]
fn root_creates_nothing_where_a_user_may_write() {
    let Some(mut homes) = Homes::new("") else { return };
    homes.site.make_root_owned();
    let (spool, socket) = (homes.home("jon").join("spool"), homes.home("jon").join("run/sock"));
    for (section, path) in [("spool", spool), ("socket", socket)] {
        let old = homes.site.path(if section == "spool" { "spool" } else { "var/penfold.sock" });
        homes.site.set("", section, &format!("{path:?}"));
        let refused = homes.mounts.inside(&homes.site.penfoldd(&["-d"])).output().expect("it runs");
        let printed = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(77), "{printed}");
        assert!(printed.contains("make ") && printed.contains("Permission denied"), "{printed}");
        assert_eq!(fs::read_dir(homes.home("jon")).expect("there").count(), 0);
        homes.site.set("", section, &format!("{old:?}"));
    }
    // A spool in a directory of the server's own user is created, and belongs to that user.
    let nobodys = homes.site.path("mail/a/spool");
    homes.site.set("", "spool", &format!("{nobodys:?}"));
    let daemon = homes.start();
    assert_eq!(fs::metadata(nobodys).expect("made").uid(), fs::metadata(homes.site.path("mail")).expect("there").uid());
    assert!(daemon.terminate().success());
}

#[test]
fn the_server_ends_without_its_monitor() {
    let Some(homes) = Homes::new("") else { return };
    let daemon = homes.start();
    send_signal(family(&daemon).0, Signal::SIGKILL);
    send(&daemon, "jon");
    daemon.wait_log(|line| line.ends_with("the monitor has ended: stopping"));
    assert_eq!(daemon.wait_end().code(), Some(71));
}

#[test]
fn stopped_agents_of_one_user_delay_no_other_user() {
    let Some(homes) = Homes::new("queue.workers = 4\nqueue.workers_per_destination = 4") else { return };
    let daemon = homes.start();
    send(&daemon, "jon");
    daemon.wait_until("mail", || files(&homes.home("jon").join("Maildir")).len() == 1);
    // The test stops every agent of jon as soon as it exists.
    for _ in 0..6 {
        family(&daemon).1.into_iter().for_each(|agent| send_signal(agent, Signal::SIGSTOP));
        send(&daemon, "jon");
    }
    send(&daemon, "mary");
    daemon.wait_until("mail", || files(&homes.home("mary").join("Maildir")).len() == 1);
}

#[test]
fn slow_commands_of_two_users_do_not_delay_a_third() {
    let Some(homes) = Homes::new("queue.workers = 12") else { return };
    for name in ["jon", "mary"] {
        homes.write(name, ".forward", "|sleep 900\n", 0o644);
    }
    let daemon = homes.start();
    for _ in 0..10 {
        send(&daemon, "jon");
        send(&daemon, "mary");
    }
    let asleep = || {
        let hosts = homes.site.penfoldctl(&["hosts"]);
        let of = |user: &str| {
            hosts.lines().any(|line| line.starts_with(&format!("command:{user}  ")) && !line.contains(" 0 of "))
        };
        of("jon") && of("mary")
    };
    daemon.wait_until("commands of both", asleep);
    send(&daemon, "elvis");
    daemon.wait_until("mail", || files(&homes.home("elvis").join("Maildir")).len() == 1);
}

fn send_signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a process")), signal).expect("it runs");
}

/// Whether a process runs with these words in its command line.
fn runs(arguments: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let printed = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let wanted = arguments.replace(' ', "\0");
    printed.into_iter().any(|printed| String::from_utf8_lossy(&printed).trim_end_matches('\0') == wanted)
}

fn within(seconds: u64, holds: impl Fn() -> bool) -> bool {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    while !holds() {
        if std::time::Instant::now() > end {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    true
}

#[test]
fn no_command_outlives_the_server() {
    for (number, is_killed) in [(1, false), (2, true)] {
        let Some(homes) = Homes::new("") else { return };
        let sleep = format!("/bin/sleep 61.{}{number}", std::process::id());
        fs::write(homes.home("jon").join(".forward"), format!("|{sleep}\n")).expect("a file");
        let daemon = homes.start();
        send(&daemon, "jon");
        daemon.wait_until("a command", || runs(&sleep));
        if is_killed {
            daemon.end_log();
        } else {
            daemon.terminate();
        }
        assert!(within(5, || !runs(&sleep)), "killed: {is_killed}");
    }
}

#[test]
fn a_command_has_the_usual_limit_of_open_files() {
    let Some(homes) = Homes::new("") else { return };
    fs::write(homes.home("jon").join(".forward"), "|ulimit -Sn > part && mv part limit\n").expect("a file");
    let daemon = homes.start();
    send(&daemon, "jon");
    let limit = homes.home("jon").join("limit");
    daemon.wait_until("the command", || limit.exists());
    assert_eq!(fs::read_to_string(limit).expect("a number"), "1024\n");
}

#[test]
fn processes_left_behind_by_a_command_are_reaped() {
    let Some(homes) = Homes::new("") else { return };
    let forward = "\"|setsid sh -c 'sleep 0.5; : > $HOME/over' & sleep 0.2\"\n";
    fs::write(homes.home("jon").join(".forward"), forward).expect("a file");
    let daemon = homes.start();
    send(&daemon, "jon");
    daemon.wait_until("the end of it", || homes.home("jon").join("over").exists());
    assert!(within(5, || children(family(&daemon).0).len() <= 2), "{:?}", children(family(&daemon).0));
}

#[test]
fn a_table_that_is_a_link_is_followed() {
    if !geteuid().is_root() {
        common::skipped("only root has a monitor");
        return;
    }
    let (mut site, elsewhere) = (Site::new(), Site::new());
    elsewhere.write("real", "info: jon\n");
    let link = site.path("linked");
    std::os::unix::fs::symlink(elsewhere.path("real"), &link).expect("a link");
    site.set("", "socket", &format!("{:?}", site.path("run/sock")));
    site.set("local", "aliases", &format!("{link:?}"));
    let daemon = site.start();
    send(&daemon, "info");
    daemon.wait_mail(&site, "jon", 1);
    elsewhere.write("real.new", "news: jon\n");
    fs::rename(elsewhere.path("real.new"), elsewhere.path("real")).expect("a rename");
    send(&daemon, "news");
    daemon.wait_mail(&site, "jon", 2);
    assert!(!daemon.log().contains("stays in force"), "{}", daemon.log());
}

#[test]
fn a_server_without_root_delivers_to_its_own_user() {
    let Some(mut homes) = Homes::new("") else { return };
    for name in ["own", "own/spool", "own/run"] {
        let path = homes.site.path(name);
        fs::create_dir(&path).expect("a directory");
        homes.give("jon", &path);
    }
    homes.site.set("", "spool", &format!("{:?}", homes.site.path("own/spool")));
    homes.site.set("", "socket", &format!("{:?}", homes.site.path("own/run/sock")));
    let inside = homes.site.penfoldd(&["-d"]);
    let mut command = homes.mounts.enter("setpriv");
    let id = FIRST.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs"]);
    command.arg(inside.get_program()).args(inside.get_args()).stdin(std::process::Stdio::null());
    let daemon = Daemon::spawn(command);
    assert!(children(daemon.pid().as_raw().unsigned_abs()).is_empty(), "no monitor");
    send(&daemon, "jon");
    daemon.wait_until("mail", || files(&homes.home("jon").join("Maildir")).len() == 1);
    homes.write("jon", ".forward", "\\jon, \"|cat > $HOME/copy\"\n", 0o644);
    send(&daemon, "jon");
    daemon
        .wait_until("a copy", || fs::read_to_string(homes.home("jon").join("copy")).is_ok_and(|text| !text.is_empty()));
    daemon.wait_until("mail", || files(&homes.home("jon").join("Maildir")).len() == 2);
    send(&daemon, "mary");
    daemon.wait_words(&["deferred to=<mary@", "Permission denied"]);
}

/// The process ids of those children of a daemon's monitor that have this name.
fn called(daemon: &Daemon, name: &str) -> Vec<u32> {
    let (monitor, _) = family(daemon);
    children(monitor).into_iter().filter(|child| child.1 == name).map(|child| child.0).collect()
}

#[test]
fn a_slow_name_service_delays_only_its_own_lookups() {
    let Some(homes) = Homes::new("") else { return };
    let done = homes.site.path("mail/done");
    homes.site.write("aliases", &format!("robot: \"|touch {}\"\n", done.display()));
    let daemon = homes.start();
    // A pipe takes the place of the passwd file, so that every process that opens it waits.
    let pipe = homes.site.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o644)).expect("a pipe");
    homes.mounts.shell(&format!("mount --bind {} /etc/passwd", pipe.display()));
    let ask = |name: &str| {
        let mut client = Client::new(daemon.connect());
        client.ask("HELO client.test", "250 ");
        client.ask("MAIL FROM:<>", "250 ");
        client.send_text(&format!("RCPT TO:<{name}@razorback>\r\n"));
        client
    };
    let mut waiting = ["jon", "mary", "elvis"].map(ask);
    daemon.wait_until("the question", || called(&daemon, "penfoldd: lookup").len() == 3);
    let names = called(&daemon, "penfoldd: lookup");
    let server = status(daemon.pid().as_raw().unsigned_abs(), "Uid");
    for &pid in &names {
        daemon.wait_until("its start", || status(pid, "Uid") == server);
        assert_eq!((status(pid, "Groups"), status(pid, "CapPrm")), (String::new(), "0000000000000000".to_owned()));
    }
    send(&daemon, "robot");
    daemon.wait_until("a command", || done.exists());
    // The failure of a lookup is temporary, and has no later effect.
    homes.mounts.shell("umount -l /etc/passwd");
    names.into_iter().for_each(|pid| send_signal(pid, Signal::SIGKILL));
    let replies = waiting.each_mut().map(|client| client.read_line().expect("a reply"));
    let count = |code: &str| replies.iter().filter(|reply| reply.starts_with(code)).count();
    // At least two clients got a temporary failure, because their lookup processes were killed.
    assert!(count("451 4.3.0 ") >= 2 && count("451 ") + count("250 ") == 3, "{replies:?}");
    send(&daemon, "jon");
    daemon.wait_until("mail", || files(&homes.home("jon").join("Maildir")).len() == 1);
}

#[test]
fn no_lookup_process_outlives_the_server() {
    let Some(homes) = Homes::new("") else { return };
    let daemon = homes.start();
    let mut letter = Client::new(daemon.connect());
    letter.begin("", &["mary@razorback"]);
    let pipe = homes.site.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o644)).expect("a pipe");
    homes.mounts.shell(&format!("mount --bind {} /etc/passwd", pipe.display()));
    // One client waits for a lookup process, the other for an agent, which is still root until it
    // becomes mary.
    let mut client = Client::new(daemon.connect());
    client.ask("HELO client.test", "250 ");
    client.ask("MAIL FROM:<>", "250 ");
    client.send_text("RCPT TO:<jon@razorback>\r\n");
    letter.ask("Subject: one\r\n.", "250 ");
    let both = || ["penfoldd: lookup", "penfoldd: agent"].map(|name| called(&daemon, name)).concat();
    daemon.wait_until("both", || both().len() == 2);
    let both = both();
    daemon.wait_until("root", || both.iter().any(|pid| status(*pid, "Uid") == "0 0 0 0"));
    daemon.end_log();
    let is_there = |pid: &u32| Path::new(&format!("/proc/{pid}")).exists();
    assert!(within(5, || !both.iter().any(is_there)), "{both:?}");
}

#[test]
fn a_lookup_fails_temporarily_if_the_servers_own_user_is_unknown() {
    let Some(mut homes) = Homes::new("") else { return };
    // The server's own user must be one that only the passwd file has; other name services also
    // know nobody.
    homes.site.set("", "user", "\"elvis\"");
    for path in ["", "spool", "mail"] {
        chown(homes.site.path(path), Some(FIRST + 2), None).expect("root can");
    }
    let daemon = homes.start();
    let passwd = fs::read_to_string(homes.site.path("passwd")).expect("a table");
    // In the first row even the server's own user is missing, as if the name service of the users
    // failed and the next one did not know them. In the second row it is there.
    for (users, reply) in [
        (passwd.lines().filter(|line| !line.starts_with("elvis:")).collect::<Vec<_>>(), "451 4.3.0 "),
        (passwd.lines().collect(), "550 5.1.1 "),
    ] {
        fs::write(homes.site.path("passwd"), users.join("\n") + "\n").expect("a table");
        let mut client = Client::new(daemon.connect());
        client.ask("HELO client.test", "250 ");
        client.ask("MAIL FROM:<>", "250 ");
        client.ask("RCPT TO:<no-such-user@razorback>", reply);
    }
    daemon
        .wait_words(&["look up the user no-such-user: the system does not even know the user that the server runs as"]);
}

#[test]
fn mail_for_a_user_who_has_just_been_removed_is_deferred() {
    let Some(homes) = Homes::new("") else { return };
    let daemon = homes.start();
    let passwd = fs::read_to_string(homes.site.path("passwd")).expect("a table");
    for (name, instead, why) in [
        ("mary", "", "there is no such user"),
        ("elvis", "elvis:x:0:0::/root:/bin/sh\n", "an agent never runs as root"),
    ] {
        let others = passwd.split_inclusive('\n').filter(|line| !line.starts_with(&format!("{name}:")));
        let others = others.collect::<String>() + instead;
        // The user is removed between the two lookups: that of the recipient, whose result is kept
        // for two seconds, and that of the agent.
        let is_said = (0..9).any(|_| {
            let mut client = Client::new(daemon.connect());
            client.begin("", &[&format!("{name}@razorback")]);
            fs::write(homes.site.path("passwd"), &others).expect("a table");
            client.ask("Subject: too late\r\n.", "250 ");
            let line = daemon.wait_words(&[&format!("to=<{name}@razorback>")]);
            fs::write(homes.site.path("passwd"), &passwd).expect("a table");
            line.contains("deferred") && line.contains(why)
        });
        assert!(is_said, "{name}: {}", daemon.log());
    }
}

/// On some systems every user may create files in /var/mail. A user may have created another user's
/// mailbox there, and could read or empty it.
#[test]
fn a_mailbox_created_by_another_user_is_not_used() {
    for (what, template, made) in [
        ("a file", "mbox:{}/{user}", "umask 0; : >{}/jon; : >{}/root-owned; mkdir {}/elvis"),
        ("a Maildir", "{}/{user}/", "umask 0; mkdir -p {}/jon/new {}/jon/tmp {}/jon/cur; : >{}/elvis"),
        ("a link", "{}/{user}/", "umask 0; mkdir -p {}/x/new {}/x/tmp {}/x/cur; ln -s x {}/jon; mkfifo {}/elvis"),
    ] {
        let Some(mut homes) = Homes::new("") else { return };
        let place = homes.site.path("home/var");
        fs::create_dir(&place).expect("a directory");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o1777)).expect("root can");
        let filled = |text: &str| text.replace("{}", &place.display().to_string());
        homes.site.set("local", "mailbox", &format!("{:?}", filled(template)));
        let mary = format!("setpriv --reuid={0} --regid={0} --clear-groups sh -c", FIRST + 1);
        homes.mounts.shell(&format!("{mary} '{}'", filled(made)));
        let daemon = homes.start();
        daemon.submit(&["jon", "mary"]);
        let line = daemon.wait_words(&["to=<jon@razorback>"]);
        assert!(line.contains(" deferred ") && line.contains("dsn=4."), "{what}: {line}");
        daemon.wait_words(&["sent to=<mary@razorback>"]);
        for name in ["jon", "jon/new", "jon/tmp", "x/new", "x/tmp"] {
            let path = place.join(name);
            let count = fs::read_dir(&path).map_or(0, Iterator::count);
            let size = fs::metadata(&path).map_or(0, |file| if file.is_file() { file.len() } else { 0 });
            assert_eq!((name == "jon" || count == 0, size), (true, 0), "{what}: {name}");
        }
        // When the foreign mailbox is removed, the user gets a new one.
        homes.mounts.shell(&filled("rm -rf {}/jon {}/x"));
        assert!(daemon.flush_until(&homes.site, || homes.site.spooled().is_empty()), "{what}: {}", daemon.log());
        assert_eq!(fs::metadata(place.join("jon")).expect("a mailbox").uid(), FIRST, "{what}");
    }
}

/// The directories of a Maildir belong to the recipient. A recipient who replaces them during a
/// delivery harms only himself.
#[test]
fn replacing_ones_own_directories_delays_no_other_user() {
    let Some(homes) = Homes::new("queue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"") else { return };
    let daemon = homes.start();
    daemon.submit(&["jon", "mary"]);
    daemon.wait_until("mailboxes", || homes.mail("jon").len() == 1 && homes.mail("mary").len() == 1);
    let (home, site) = (homes.home("jon").display().to_string(), homes.site.path("").display().to_string());
    let script = format!(
        "cd {home}/Maildir; mkdir ../other ../third; mkfifo ../pipe; \
         while test ! -e ../stop; do for to in ../other ../third ../pipe {site}/spool/new {home} /dev/null {site}/home/mary/Maildir/new; do \
         for name in new tmp cur; do mv $name real; ln -s $to $name; rm $name; mkfifo $name; rm $name; ln -s $to $name; \
         rm $name; mv real $name; done; done; done"
    );
    let user = FIRST.to_string();
    let mut attacker = homes.mounts.enter("setpriv");
    attacker.args(["--reuid", &user, "--regid", &user, "--clear-groups", "sh", "-c", &script]);
    let mut attacker = attacker.stderr(std::process::Stdio::null()).spawn().expect("a shell");
    for _ in 0..60 {
        daemon.submit(&["jon", "mary"]);
    }
    daemon.wait_until("mail of another", || homes.mail("mary").len() >= 61);
    fs::write(homes.home("jon").join("stop"), "").expect("written");
    attacker.wait().expect("it ends");
    // No message is lost: it is where the user has moved it, or it waits in the spool until its
    // directory is back. The user owns every file that was written.
    let his = || {
        let (mut todo, mut count) = (vec![homes.home("jon")], 0);
        while let Some(path) = todo.pop() {
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            count += usize::from(metadata.is_file() && path.to_string_lossy().contains(",S="));
            if metadata.is_dir() {
                todo.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|file| file.path()));
            }
        }
        count
    };
    daemon.wait_until("each message", || his() + homes.site.spooled().len() >= 61);
    assert_eq!(homes.mail("mary").len(), 61);
    assert_eq!(fs::read_dir(homes.site.path("spool/bad")).map_or(0, Iterator::count), 0);
    assert!(!daemon.log().contains("a bug ended"), "{}", daemon.log());
}
