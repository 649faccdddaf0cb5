//! How many descriptors, threads and mappings the system lets this process have.
//!
//! Some limits are this process's, some its user's, its control group's or the
//! whole system's: then others take their part of them, and what is said here is the
//! most that there can be. A limit that cannot be found out is left out. Changes
//! nothing.

use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What its manual calls it.
    pub name: &'static str,
    /// What it is of.
    pub of: Good,
    /// How many.
    pub most: u64,
}

/// What a limit is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Good {
    /// Open files, which connections are.
    Descriptors,
    /// Threads.
    Threads,
    /// Areas of memory: a thread's stack and what it needs to notice that it is full.
    Mappings,
}

/// All limits that are known here.
pub fn limits() -> Vec<Limit> {
    let own = |resource| getrlimit(resource).ok().map(|(soft, _)| soft);
    let kernel = |key: &str| number(&Path::new("/proc/sys").join(key));
    let groups = || Some(pids_max(&fs::read_to_string("/proc/self/cgroup").ok()?, Path::new("/sys/fs/cgroup")));
    let found = [
        ("RLIMIT_NOFILE", Good::Descriptors, own(Resource::RLIMIT_NOFILE)),
        ("RLIMIT_NPROC", Good::Threads, own(Resource::RLIMIT_NPROC)),
        ("pids.max", Good::Threads, groups().flatten()),
        ("kernel.threads-max", Good::Threads, kernel("kernel/threads-max")),
        ("kernel.pid_max", Good::Threads, kernel("kernel/pid_max")),
        ("vm.max_map_count", Good::Mappings, kernel("vm/max_map_count")),
    ];
    found.into_iter().filter_map(|(name, of, most)| Some(Limit { name, of, most: most? })).collect()
}

/// The least pids.max of the control group in which this process is, and of those
/// above it; `own` is /proc/self/cgroup. In a container its root is not the
/// hierarchy's, and what is above it is not seen.
fn pids_max(own: &str, root: &Path) -> Option<u64> {
    let path_of = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/').to_owned());
        match controllers {
            "" => Some((root.to_owned(), path)),
            // The first version has a hierarchy for each controller.
            "pids" => Some((root.join("pids"), path)),
            _ => None,
        }
    };
    let of_group = |(root, path): (std::path::PathBuf, String)| {
        Path::new(&path).ancestors().filter_map(|group| number(&root.join(group).join("pids.max"))).min()
    };
    own.lines().filter_map(path_of).filter_map(of_group).min()
}

/// The number in a file; `None` for "max" and for no file.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_control_group_counts_in_both_versions() {
        let root = std::env::temp_dir().join(format!("penfold-limits-{}", std::process::id()));
        let set = |group: &str, most: &str| {
            fs::create_dir_all(root.join(group)).expect("a directory");
            fs::write(root.join(group).join("pids.max"), format!("{most}\n")).expect("a file");
        };
        set("system.slice", "400");
        set("system.slice/penfold.service", "max");
        set("pids", "max");
        set("pids/a/b", "300");
        let found = ["0::/", "0::/system.slice/penfold.service\n", "9:name=systemd:/\n8:pids:/a/b\n0::/", "8:cpu:/a/b"]
            .map(|own| pids_max(own, &root));
        fs::remove_dir_all(&root).expect("it is ours");
        assert_eq!(found, [None, Some(400), Some(300), None]);
    }
}
