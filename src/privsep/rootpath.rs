//! What nobody but root can have put in its place.
//!
//! Root is asked for files by name, and a name leads where whoever may write to a
//! directory on the way wants it to. So each of them is looked at, behind links too, before
//! root opens or makes anything there. Looks, and opens nothing. A look says what is
//! there now: of a path that it is content with, only root can change that later.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Links on the way to a file.
const MOST_LINKS: usize = 10;
/// Of a directory: what is in it can be renamed and removed by whose it is alone.
const STICKY: u32 = 0o1000;

/// Whether nobody but root can change where an absolute path leads, nor what is there:
/// all that it passes, behind links too, is root's, and others may not write to it. On
/// the way, others may write to a sticky directory.
pub fn is_roots_alone(path: &Path) -> bool {
    path.is_absolute() && leads(path, MOST_LINKS) && fs::metadata(path).is_ok_and(|end| is_roots(&end))
}

/// Whether this is root's, and others may not write to it.
pub fn is_roots(metadata: &Metadata) -> bool {
    metadata.uid() == 0 && metadata.mode() & 0o022 == 0
}

fn leads(path: &Path, links: usize) -> bool {
    let mut on_the_way: Vec<&Path> = path.ancestors().collect();
    on_the_way.reverse();
    on_the_way.into_iter().all(|place| match fs::symlink_metadata(place) {
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

    /// What only root can lay out.
    #[test]
    fn only_where_root_alone_can_write() {
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
        assert!(!is_roots_alone(&PathBuf::from("etc")), "where that leads, who knows");
        fs::remove_dir_all(top).expect("it is there");
    }
}
