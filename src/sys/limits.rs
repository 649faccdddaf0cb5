//! Reads the system's limits on the descriptors, threads and memory mappings of this process.
//!
//! Some limits apply to this process alone. Others apply to its user, its control group or the
//! whole system; other processes use up a part of these limits. Limits that cannot be
//! determined are left out. Nothing is changed.

use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};

/// A limit of the system that applies to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The name of the limit, as in the manual pages.
    pub name: &'static str,
    /// The resource that is limited.
    pub of: Limited,
    /// The maximum number of descriptors, threads or mappings.
    pub max: u64,
}

/// A limited system resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Open files; each connection needs one.
    Descriptors,
    /// Threads; a process has at least one.
    Threads,
    /// Memory mappings: each thread needs some for its stacks and their guard pages.
    Mappings,
}

/// Returns the limits that can be determined.
pub fn limits() -> Vec<Limit> {
    // The type differs between systems.
    let soft_limit = |resource| u64::try_from(i128::from(getrlimit(resource).ok()?.0)).ok();
    let kernel = |key: &str| number(&Path::new("/proc/sys").join(key));
    let groups = || Some(pids_max(&fs::read_to_string("/proc/self/cgroup").ok()?, Path::new("/sys/fs/cgroup")));
    let found = [
        ("RLIMIT_NOFILE", Limited::Descriptors, soft_limit(Resource::RLIMIT_NOFILE)),
        ("RLIMIT_NPROC", Limited::Threads, soft_limit(Resource::RLIMIT_NPROC)),
        ("pids.max", Limited::Threads, groups().flatten()),
        ("kernel.threads-max", Limited::Threads, kernel("kernel/threads-max")),
        ("kernel.pid_max", Limited::Threads, kernel("kernel/pid_max")),
        ("vm.max_map_count", Limited::Mappings, kernel("vm/max_map_count")),
    ];
    found.into_iter().filter_map(|(name, of, max)| Some(Limit { name, of, max: max? })).collect()
}

/// Returns the lowest `pids.max` of this process's control group and the groups above it. `cgroups`
/// is the text of /proc/self/cgroup. In a container only the groups inside the container are
/// visible.
fn pids_max(cgroups: &str, root: &Path) -> Option<u64> {
    let path_of = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/').to_owned());
        match controllers {
            "" => Some((root.to_owned(), path)),
            // cgroup v1 has a separate hierarchy for each controller.
            "pids" => Some((root.join("pids"), path)),
            _ => None,
        }
    };
    let of_group = |(root, path): (std::path::PathBuf, String)| {
        Path::new(&path).ancestors().filter_map(|group| number(&root.join(group).join("pids.max"))).min()
    };
    cgroups.lines().filter_map(path_of).filter_map(of_group).min()
}

/// Returns the number in a file; `None` if the file contains `max` or cannot be read.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_control_group_counts_in_both_versions() {
        let root = std::env::temp_dir().join(format!("penfold-limits-{}", std::process::id()));
        let set = |group: &str, max: &str| {
            fs::create_dir_all(root.join(group)).expect("a directory");
            fs::write(root.join(group).join("pids.max"), format!("{max}\n")).expect("a file");
        };
        set("system.slice", "400");
        set("system.slice/penfold.service", "max");
        set("pids", "max");
        set("pids/a/b", "300");
        let found = ["0::/", "0::/system.slice/penfold.service\n", "9:name=systemd:/\n8:pids:/a/b\n0::/", "8:cpu:/a/b"]
            .map(|cgroups| pids_max(cgroups, &root));
        fs::remove_dir_all(&root).expect("it is ours");
        assert_eq!(found, [None, Some(400), Some(300), None]);
    }
}
