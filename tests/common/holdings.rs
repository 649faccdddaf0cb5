//! Reads the threads, descriptors and memory of a process, and sets its limits.
//!
//! Values come from proc(5); a value that cannot be read is 0. Limits are set by prlimit(1), as the
//! user that owns the process.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;

/// Resources that a process holds, for a comparison at two times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    pub threads: usize,
    pub descriptors: usize,
}

impl Holdings {
    /// The holdings of a process now.
    pub fn of(pid: Pid) -> Self {
        let count = |directory: &str| fs::read_dir(format!("/proc/{pid}/{directory}")).map_or(0, Iterator::count);
        Self { threads: count("task"), descriptors: count("fd") }
    }

    /// Waits until the holdings of a process have not changed for `rest`, and returns them. The
    /// process may still be releasing some of them at first.
    pub fn at_rest(pid: Pid, rest: Duration) -> Self {
        let (mut found, mut since) = (Self::of(pid), Instant::now());
        while since.elapsed() < rest {
            thread::sleep(rest / 10);
            let now = Self::of(pid);
            if now != found {
                (found, since) = (now, Instant::now());
            }
        }
        found
    }
}

/// The memory of a process in KiB (PSS): a page that several processes share counts in part. Kernel
/// stacks and socket buffers are not included.
pub fn memory(pid: Pid) -> usize {
    field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// The anonymous memory of a process, in KiB. Other processes of the same program do not change it.
pub fn own_memory(pid: Pid) -> usize {
    field(&format!("/proc/{pid}/smaps_rollup"), "Pss_Anon:")
}

/// A process, its children, their children and so on.
pub fn family(pid: Pid) -> Vec<Pid> {
    let all = fs::read_dir("/proc").expect("proc(5)").flatten();
    let parents: Vec<(Pid, Pid)> = all.filter_map(|entry| parent(entry.file_name().to_str()?)).collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&one) = family.get(next) {
        family.extend(parents.iter().filter(|(_, parent)| *parent == one).map(|(child, _)| *child));
        next += 1;
    }
    family
}

/// A process with this number, and its parent.
fn parent(number: &str) -> Option<(Pid, Pid)> {
    let pid = Pid::from_raw(number.parse().ok()?);
    Some((pid, Pid::from_raw(status(pid, 4)?)))
}

/// The processor time of a process and its threads, also of those that have ended, in steps of 10 ms.
/// Other processes do not change it.
pub fn processor_time(pid: Pid) -> Duration {
    let ticks: u64 = [14, 15].iter().filter_map(|&number| status::<u64>(pid, number)).sum();
    Duration::from_millis(10 * ticks)
}

/// A field of the file `stat` of a process, from the third one on.
fn status<T: std::str::FromStr>(pid: Pid, number: usize) -> Option<T> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may contain anything.
    text.rsplit_once(')')?.1.split_whitespace().nth(number - 3)?.parse().ok()
}

/// The size of the page tables of a process, in KiB.
pub fn page_tables(pid: Pid) -> usize {
    field(&format!("/proc/{pid}/status"), "VmPTE:")
}

/// The number of memory mappings of a process.
pub fn mappings(pid: Pid) -> usize {
    fs::read_to_string(format!("/proc/{pid}/maps")).map_or(0, |maps| maps.lines().count())
}

fn field(file: &str, name: &str) -> usize {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Sets a soft limit of a process, such as `nofile`. If prlimit does not work, reports the test as
/// skipped and returns false.
pub fn limit(pid: Pid, what: &str, limit: usize) -> bool {
    let Ok(owner) = fs::metadata(format!("/proc/{pid}")) else { return false };
    // The owner of a process may always lower the process's limits.
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string(), &format!("--{what}={limit}:")]).uid(owner.uid()).gid(owner.gid());
    let done = command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !done {
        super::skipped("prlimit does not work");
    }
    done
}
