//! Describes the machine, and measures the resources of processes and the load by other processes.
//!
//! Everything is read from /proc. Times are in kernel ticks of 10 ms, which is precise enough for
//! measurements of a second, but not for a single message. Values that cannot be read are 0.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{self, Command};
use std::time::Instant;

const TICKS_A_SECOND: f64 = 100.0;
/// The process id of kthreadd, the parent of all kernel threads.
const KTHREADD: u32 = 2;

/// Some fields of /proc/PID/stat.
struct Process {
    pid: u32,
    parent: u32,
    /// Processor time of the process and of the children that it has reaped, in ticks.
    ticks: f64,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(process).collect()
}

fn process(pid: u32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in brackets, and may contain any characters.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(Process { pid, parent: fields.get(1)?.parse().ok()?, ticks })
}

/// A process and all its descendants.
pub fn tree(root: u32) -> HashSet<u32> {
    let all = processes();
    let mut tree = HashSet::from([root]);
    loop {
        let known = tree.len();
        tree.extend(all.iter().filter(|p| tree.contains(&p.parent)).map(|p| p.pid).collect::<Vec<_>>());
        if tree.len() == known {
            return tree;
        }
    }
}

/// The process id of the parent; `None` if the process does not exist.
pub fn parent(pid: u32) -> Option<u32> {
    process(pid).map(|process| process.parent)
}

/// Seconds of processor time of these processes, and of the children that they have reaped.
pub fn cpu(pids: &HashSet<u32>) -> f64 {
    pids.iter().filter_map(|&pid| process(pid)).map(|p| p.ticks).sum::<f64>() / TICKS_A_SECOND
}

/// Memory of these processes in KiB (PSS). The size of a shared page is divided by the number of
/// processes that share it.
pub fn pss(pids: &HashSet<u32>) -> f64 {
    let one = |pid: &u32| -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    pids.iter().filter_map(one).sum()
}

/// Measures how much of the machine other processes use.
pub struct Watch {
    start: Instant,
    others: f64,
    root: Option<u32>,
}

impl Watch {
    /// Starts the measurement. `root` is the measured server: neither it and its descendants nor
    /// this process count as others.
    pub fn start(root: Option<u32>) -> Self {
        Self { start: Instant::now(), others: others(root), root }
    }

    /// The average number of processors that other processes have used since [`Watch::start`].
    pub fn others(&self) -> f64 {
        let seconds = self.start.elapsed().as_secs_f64().max(0.01);
        ((others(self.root) - self.others) / seconds).max(0.0)
    }
}

/// Seconds of processor time that other processes have used since the machine started. The kernel's
/// own threads do not count. Time that a hypervisor gave to other virtual machines does.
fn others(root: Option<u32>) -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
    // The fields for user, nice, system and steal.
    let busy: f64 = [0, 1, 2, 7].iter().filter_map(|&at| fields.get(at)).sum();
    let mut ours = root.map(tree).unwrap_or_default();
    ours.insert(process::id());
    let all = processes();
    let known = all.iter().filter(|p| ours.contains(&p.pid) || p.parent == KTHREADD);
    (busy - known.map(|p| p.ticks).sum::<f64>()) / TICKS_A_SECOND
}

/// A description of the machine, a line for each fact.
pub fn facts(scratch: &Path) -> Vec<String> {
    let word = |file: &str, key: &str| -> Option<String> {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = word("/proc/cpuinfo", "model name").unwrap_or_default();
    let memory = word("/proc/meminfo", "MemTotal").unwrap_or_default();
    let memory: f64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    vec![
        format!("date          {}", said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        format!("processors    {cores} {model}, {:.0} GiB", memory / f64::from(1 << 20)),
        format!("kernel        {}", said("uname", &["-sr"])),
        format!(
            "scratch       {}",
            said("findmnt", &["-no", "SOURCE,FSTYPE,OPTIONS", "-T", &scratch.to_string_lossy()])
        ),
        format!("load average  {} before this run", load.split(' ').take(3).collect::<Vec<_>>().join(" ")),
    ]
}

/// The first line of a program's output; empty if there is no such program.
pub fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// Seconds of processor time of this process.
pub fn own_cpu() -> f64 {
    cpu(&HashSet::from([process::id()]))
}
