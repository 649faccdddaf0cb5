//! The drop directory, in which sendmail(8) keeps messages while no daemon runs.
//!
//! Every user can make files in the directory, and only the server's user can list it. Its mode is
//! [`MODE`]: because it is sticky, nobody but the server removes or renames the files of others, and
//! because of setgid the files get the server's group, which lets the server read them. No program
//! needs the rights of another user for that. The owner of a file is the user who has sent the
//! message. The server trusts nothing else in the directory: `control::dropped` takes the files.
//!
//! - `file`: the form of a file
//! - `keep`: makes a file, for sendmail(8)

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgroups};

pub mod file;
pub mod keep;

/// The mode of the directory.
pub const MODE: u32 = 0o3733;
/// The mode of a file.
pub const FILE_MODE: u32 = 0o640;
/// The start of the name of a file that is being written, on a file system without unnamed files.
pub const UNFINISHED: &str = "tmp.";
/// The directory with the files that the server has taken, and that are not in the spool yet.
pub const TAKEN: &str = "taken";
/// The directory with the files that the server has refused.
pub const BAD: &str = "bad";

const STICKY: u32 = 0o1000;
/// The maximum number of files that are counted.
const MAX_COUNTED: usize = 100_000;

/// Says what keeps sendmail(8) from using the directory; `None` if nothing does. The server would
/// leave messages in a directory that does not belong to it, so sendmail must not accept them: the
/// owner of the spool shows who the server is.
pub fn fault_for_users(directory: &Path, spool: &Path) -> Option<String> {
    let owners = |found: &Metadata| {
        let Ok(spool) = fs::metadata(spool) else { return Ok(()) };
        if found.uid() != spool.uid() {
            return Err(format!("its owner is {} instead of {}", user(found.uid()), user(spool.uid())));
        }
        match User::from_uid(Uid::from_raw(spool.uid())) {
            Ok(Some(server)) if !is_member(&server, found.gid()) => {
                Err(format!("its group is {} instead of {}", group(found.gid()), group(server.gid.as_raw())))
            }
            _ => Ok(()),
        }
    };
    look(directory).and_then(|found| fault_of_mode(&found).and_then(|()| owners(&found))).err()
}

/// Whether a group is one of a user's, in the user database. The process may have others.
fn is_member(user: &User, gid: u32) -> bool {
    let has_user = |group: Group| group.mem.contains(&user.name);
    user.gid.as_raw() == gid || Group::from_gid(Gid::from_raw(gid)).ok().flatten().is_some_and(has_user)
}

/// Says what keeps this process, the server, from using the directory; `None` if nothing does.
pub fn fault(directory: &Path) -> Option<String> {
    look(directory).and_then(|found| check(directory, &found)).err()
}

/// Returns the directory's group, which its files must have.
///
/// # Errors
/// A text that says what keeps this process, the server, from using the directory.
pub fn examine(directory: &Path) -> Result<u32, String> {
    let found = look(directory)?;
    check(directory, &found).map(|()| found.gid())
}

fn look(directory: &Path) -> Result<Metadata, String> {
    let found = fs::symlink_metadata(directory).map_err(|e| e.to_string())?;
    if found.is_dir() { Ok(found) } else { Err("it is not a directory".to_owned()) }
}

fn fault_of_mode(found: &Metadata) -> Result<(), String> {
    match found.mode() & 0o7777 {
        MODE => Ok(()),
        mode => Err(format!("its mode is {mode:04o} instead of {MODE:04o}")),
    }
}

fn check(directory: &Path, found: &Metadata) -> Result<(), String> {
    fault_of_mode(found)?;
    let (uid, gid) = (geteuid(), getegid());
    if found.uid() != uid.as_raw() {
        return Err(format!("its owner is {} instead of {}", user(found.uid()), user(uid.as_raw())));
    }
    let is_own = |group: u32| gid.as_raw() == group || getgroups().unwrap_or_default().contains(&Gid::from_raw(group));
    if !is_own(found.gid()) {
        return Err(format!("its group is {} instead of {}", group(found.gid()), group(gid.as_raw())));
    }
    let parent = directory.parent().unwrap_or(directory);
    let real = fs::canonicalize(parent).map_err(|e| e.to_string())?;
    match parent.ancestors().chain(real.ancestors()).find(|above| !is_safe(above)) {
        Some(above) => Err(format!("other users can replace it, because they may write to {}", above.display())),
        None => Ok(()),
    }
}

/// Whether only root and the server's user can rename what is in a directory, except for files of
/// other users. Of a symbolic link, only the owner matters: the caller examines where it leads, too.
fn is_safe(directory: &Path) -> bool {
    fs::symlink_metadata(directory).is_ok_and(|found| {
        let is_ours = found.uid() == 0 || found.uid() == geteuid().as_raw();
        is_ours && (found.is_symlink() || found.mode() & 0o022 == 0 || found.mode() & STICKY != 0)
    })
}

/// Returns the command with which root makes the directory for the server's user `name`, or for the
/// user of this process if there is no user with that name.
pub fn command(directory: &Path, name: &str) -> String {
    let found = User::from_name(name).ok().flatten();
    let (uid, gid) = found.map_or_else(|| (geteuid(), getegid()), |user| (user.uid, user.gid));
    let (user, group) = (user(uid.as_raw()), group(gid.as_raw()));
    format!("install -d -m {MODE:o} -o {user} -g {group} {}", directory.display())
}

fn user(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn group(gid: u32) -> String {
    Group::from_gid(Gid::from_raw(gid)).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name)
}

/// Returns the number of messages that wait in the directory: all of them, or only those of one
/// user. Returns `None` if the directory cannot be read.
pub fn count(directory: &Path, uid: Option<u32>) -> Option<usize> {
    let count_in = |path: PathBuf| -> Option<usize> {
        let files = fs::read_dir(path).ok()?.flatten().take(MAX_COUNTED);
        let is_counted = |file: &fs::DirEntry| {
            let is_message = file.file_name().to_str().is_none_or(|name| !name.starts_with(UNFINISHED));
            is_message && file.metadata().is_ok_and(|found| !found.is_dir() && uid.is_none_or(|uid| uid == found.uid()))
        };
        Some(files.filter(is_counted).count())
    };
    Some(count_in(directory.to_owned())? + count_in(directory.join(TAKEN)).unwrap_or(0))
}

/// Says in words how many messages wait in the directory; `None` if none do.
pub fn count_in_words(directory: &Path, uid: Option<u32>) -> Option<String> {
    let directory_name = directory.display();
    match count(directory, uid)? {
        0 => None,
        1 => Some(format!("1 message waits in {directory_name}")),
        count => Some(format!("{count} messages wait in {directory_name}")),
    }
}
