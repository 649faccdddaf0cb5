//! What a process has of the system: threads, descriptors, memory. And its limits.
//!
//! Figures come from proc(5); one that is not there is 0. Limits are set by
//! prlimit(1), as the user who owns the process. Ends nothing and waits for nothing.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;

/// What a process has of one kind each, to be compared with itself at another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    pub threads: usize,
    pub descriptors: usize,
}

impl Holdings {
    /// Of a process, now.
    pub fn of(pid: Pid) -> Self {
        let count = |directory: &str| fs::read_dir(format!("/proc/{pid}/{directory}")).map_or(0, Iterator::count);
        Self { threads: count("task"), descriptors: count("fd") }
    }

    /// Of a process that has done what it was asked to, and may still be putting things
    /// away: what it has when that has not changed for so long.
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

/// Its share of the memory, in KiB: its own pages, and its part of those that it
/// shares. Neither stacks in the kernel nor the buffers of sockets are in it.
pub fn memory(pid: Pid) -> usize {
    field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// The pages that are its own alone, in KiB: its part of the program's pages grows when other
/// processes of the same program end.
pub fn own_memory(pid: Pid) -> usize {
    field(&format!("/proc/{pid}/smaps_rollup"), "Pss_Anon:")
}

/// What the kernel needs to find that memory, in KiB.
pub fn page_tables(pid: Pid) -> usize {
    field(&format!("/proc/{pid}/status"), "VmPTE:")
}

/// The number of its mappings.
pub fn mappings(pid: Pid) -> usize {
    fs::read_to_string(format!("/proc/{pid}/maps")).map_or(0, |maps| maps.lines().count())
}

fn field(file: &str, name: &str) -> usize {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Sets the soft limit of something, such as `nofile`, for a process; false, and
/// says so, where prlimit does not work.
pub fn limit(pid: Pid, what: &str, most: usize) -> bool {
    let Ok(owner) = fs::metadata(format!("/proc/{pid}")) else { return false };
    // As the process's own user, who may always do that.
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string(), &format!("--{what}={most}:")]).uid(owner.uid()).gid(owner.gid());
    let done = command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !done {
        super::skipped("prlimit does not work");
    }
    done
}
