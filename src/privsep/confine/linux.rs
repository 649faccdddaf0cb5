//! Landlock (Linux 5.19) limits a process to some parts of the file system, and a system call filter
//! (seccomp(2)) keeps it from executing programs.
//!
//! Both are irrevocable, and apply to the calling thread and to the threads and processes that it
//! starts afterwards. The filter is needed because Landlock does not cover a program that is in no
//! file system (memfd_create(2)). Sockets are not affected.
//!
//! If the kernel cannot control a kind of access, that kind is left unrestricted. If the kernel
//! cannot control renaming between directories, Landlock is not applied at all, because Landlock
//! would forbid every such renaming. A kernel that supports only a part of these restrictions, or
//! nothing, is not an error: see [`Confinement`].

use std::fs;
use std::io;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus,
};

use super::{Confinement, Places};

/// The Landlock version that defines which kinds of access are controlled.
const RIGHTS: ABI = ABI::V5;

/// Confines the calling thread, and the threads and processes that it starts afterwards, to
/// `places`. Places that do not exist are ignored.
///
/// # Errors
/// Those of the Landlock system calls.
pub fn confine(places: &Places) -> io::Result<Confinement> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = (AccessFs::from_all(RIGHTS) & !AccessFs::Execute) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let read = places.read.iter().map(|path| (path, read));
    let all = read.chain(places.write.iter().map(|path| (path, write)));
    // Each place is open only while its rule is added, because there may be more places than free
    // descriptors.
    let rules = all.filter_map(|(path, access)| {
        let is_directory = fs::metadata(path).ok()?.is_dir();
        let access = if is_directory { access } else { access & AccessFs::from_file(RIGHTS) };
        Some(Ok::<_, landlock::RulesetError>(PathBeneath::new(PathFd::new(path).ok()?, access)))
    });
    let confined = Ruleset::default()
        // The first version of Landlock forbids all renaming between directories, so a kernel with
        // that version gets no Landlock rules.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)
        .map(|ruleset| ruleset.set_compatibility(CompatLevel::BestEffort))
        .and_then(|ruleset| ruleset.handle_access(AccessFs::from_all(RIGHTS)))
        .and_then(Ruleset::create)
        .and_then(|created| created.add_rules(rules))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(io::Error::other)?;
    let has_no_exec = forbid_exec().inspect_err(|e| ::log::debug!("seccomp: {e}")).is_ok();
    Ok(match confined.ruleset {
        RulesetStatus::FullyEnforced if has_no_exec => Confinement::Full,
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Confinement::Partial,
        RulesetStatus::NotEnforced => Confinement::None,
    })
}

/// Installs a filter that makes execve(2) and execveat(2) fail with `EACCES`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
fn forbid_exec() -> io::Result<()> {
    use nix::libc;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
    // The numbers of execve(2) and execveat(2) for x32, an ABI of some x86_64 kernels. Bit 30 is
    // set in these numbers.
    const OTHERS: [i64; 2] = if cfg!(target_arch = "x86_64") { [X32 | 520, X32 | 545] } else { [libc::SYS_execve; 2] };
    const X32: i64 = 0x4000_0000;
    let calls = [libc::SYS_execve, libc::SYS_execveat].into_iter().chain(OTHERS).map(|call| (call, Vec::new()));
    let machine = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let refused = SeccompAction::Errno(libc::EACCES.cast_unsigned());
    let program = SeccompFilter::new(calls.collect(), SeccompAction::Allow, refused, machine)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}

/// Always fails, because there is no filter for this type of machine.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
fn forbid_exec() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::thread;

    #[test]
    fn other_places_are_inaccessible() {
        let scratch = std::env::temp_dir().join(format!("penfold-sandbox-{}", std::process::id()));
        for name in ["own", "other"] {
            fs::create_dir_all(scratch.join(name)).expect("a directory");
            fs::write(scratch.join(name).join("file"), "x").expect("a file");
        }
        let places = Places { read: vec!["/etc".into()], write: vec![scratch.join("own"), "/dev/null".into()] };
        let inside = scratch.clone();
        // Only this thread is confined, not those of other tests.
        let allowed = thread::spawn(move || {
            if confine(&places).expect("confined") == Confinement::None {
                common::skipped("this kernel has no Landlock");
                return None;
            }
            let denied = |result: io::Result<()>| result.is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
            Some([
                fs::write(inside.join("own/new"), "y").is_ok(),
                fs::rename(inside.join("own/new"), inside.join("own/newer")).is_ok(),
                denied(fs::read(inside.join("other/file")).map(drop)),
                denied(fs::write(inside.join("other/new"), "y")),
                denied(fs::rename(inside.join("own/newer"), inside.join("other/newer"))),
                fs::read("/etc/passwd").is_ok(),
                denied(Command::new("/bin/true").status().map(drop)),
            ])
        });
        let allowed = allowed.join().expect("no panic");
        fs::remove_dir_all(&scratch).expect("removed");
        assert!(allowed.is_none_or(|allowed| allowed == [true; 7]), "{allowed:?}");
    }
}
