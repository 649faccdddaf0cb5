//! Reads the resources of a daemon from /proc.

use std::fs;
use std::time::Duration;

use common::Daemon;

/// The private memory of a daemon, in octets. The text of the program is left out, since it is
/// shared: its part would depend on the number of processes.
pub fn memory(daemon: &Daemon) -> u64 {
    kilobytes(daemon, "status", "RssAnon:")
}

/// The largest private memory that a daemon has had, in octets. Linux keeps only the largest sum of private
/// memory and text; the text that is in memory now is taken off, which does not shrink before the end.
pub fn peak(daemon: &Daemon) -> u64 {
    kilobytes(daemon, "status", "VmHWM:").saturating_sub(kilobytes(daemon, "status", "RssFile:"))
}

/// The processor time that a daemon has used.
pub fn work(daemon: &Daemon) -> Duration {
    let path = format!("/proc/{}/schedstat", daemon.pid());
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap_or_else(|e| panic!("{path}: {e}"));
    let spent = |path| fs::read_to_string(path).ok()?.split(' ').next()?.parse::<u64>().ok();
    Duration::from_nanos(tasks.flatten().filter_map(|task| spent(task.path().join("schedstat"))).sum())
}

fn kilobytes(daemon: &Daemon, file: &str, key: &str) -> u64 {
    let path = format!("/proc/{}/{file}", daemon.pid());
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{path}: no {key}"));
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}

/// Whether the daemon is running.
pub fn is_there(daemon: &Daemon) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).is_ok_and(|stat| !stat.contains(") Z "))
}
