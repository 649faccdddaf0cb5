//! Checks whether only root can change a path, before root opens or makes anything there.
//!
//! A user who may write to a directory on a path can change where the path leads. So each directory
//! on the way is checked, including the directories that symbolic links lead through. If a path
//! passes, nobody but root can change later where the path leads. The checks themselves open
//! nothing.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The maximum depth of symbolic links. The depth is two if the target of a link leads through a
/// second link.
const MAX_LINKS: usize = 10;
/// The mode bit of a directory in which users can rename and remove only their own files.
const STICKY: u32 = 0o1000;

/// Whether an absolute path exists, and only root can change where the path leads, and what is at
/// its end. Each directory and symbolic link on the way, and the file or directory at the end, must
/// belong to root. Nobody else may have write permission, except in sticky directories on the way.
pub fn is_roots_alone(path: &Path) -> bool {
    path.is_absolute() && leads(path, MAX_LINKS) && fs::metadata(path).is_ok_and(|end| is_roots(&end))
}

/// Whether a file belongs to root, and only root may write to it.
pub fn is_roots(metadata: &Metadata) -> bool {
    metadata.uid() == 0 && metadata.mode() & 0o022 == 0
}

fn leads(path: &Path, links: usize) -> bool {
    let mut places: Vec<&Path> = path.ancestors().collect();
    places.reverse();
    places.into_iter().all(|place| match fs::symlink_metadata(place) {
        Ok(metadata) if metadata.is_symlink() => {
            let target = fs::read_link(place).ok().zip(place.parent()).map(|(to, from)| from.join(to));
            metadata.uid() == 0 && links > 0 && target.is_some_and(|to| leads(&to, links - 1))
        }
        Ok(metadata) => {
            is_roots(&metadata) || metadata.uid() == 0 && metadata.is_dir() && metadata.mode() & STICKY != 0
        }
        Err(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::PathBuf;

    #[test]
    fn a_path_passes_if_only_root_can_change_it() {
        if !nix::unistd::geteuid().is_root() {
            common::skipped("only root has files that are root's");
            return;
        }
        let top = std::env::temp_dir().join(format!("penfold-roots-{}", std::process::id()));
        let at = |name: &str| top.join(name);
        let directory = |name: &str, mode, uid| {
            fs::create_dir(at(name)).expect("a directory");
            chown(at(name), Some(uid), None).expect("root can");
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).expect("root can");
        };
        fs::create_dir(&top).expect("a directory");
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).expect("root can");
        for (name, mode, uid) in
            [("good", 0o755, 0), ("open", 0o777, 0), ("group", 0o775, 0), ("sticky", 0o1777, 0), ("his", 0o755, 7)]
        {
            directory(name, mode, uid);
            directory(&format!("{name}/below"), 0o755, 0);
            fs::write(at(&format!("{name}/below/file")), "").expect("a file");
            fs::set_permissions(at(&format!("{name}/below/file")), fs::Permissions::from_mode(0o600))
                .expect("root can");
        }
        symlink("good/below", at("link")).expect("a link");
        symlink("../open/below", at("good/bad")).expect("a link");
        symlink("../link", at("good/two")).expect("a link");
        symlink("round", at("round")).expect("a link");
        for (name, is) in [
            ("good", true),
            ("good/below/file", true),
            ("link", true),
            ("link/file", true),
            ("good/two/file", true),
            ("sticky/below/file", true),
            ("sticky", false),
            ("open", false),
            ("open/below/file", false),
            ("group/below/file", false),
            ("his", false),
            ("his/below/file", false),
            ("good/bad/file", false),
            ("round", false),
            ("good/absent", false),
        ] {
            assert_eq!(is_roots_alone(&at(name)), is, "{name}");
        }
        assert!(!is_roots_alone(&PathBuf::from("etc")), "a relative path");
        fs::remove_dir_all(top).expect("it is there");
    }
}
