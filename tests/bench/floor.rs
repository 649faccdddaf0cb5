//! Measures the floor: how many messages a second this disk could store without a mail server.
//!
//! Each thread repeats the least work of a server that stores a message: it creates a file without
//! a name, writes the octets, gives the file a name, and calls fsync once. There is no network, no
//! parser and no rename.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

use crate::load::Sent;

/// Measures `threads` threads for `time`. Together they write at most `max_files` files of `size`
/// octets each, in a new directory below `parent`.
///
/// # Errors
/// Errors of the system; some file systems have no files without names.
pub fn measure(parent: &Path, threads: usize, size: usize, time: Duration, max_files: usize) -> io::Result<Sent> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let dir = &parent.join(format!("floor{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(dir)?;
    let octets = vec![b'x'; size];
    let start = Instant::now();
    let each = max_files.div_ceil(threads);
    thread::scope(|scope| {
        let spawn = |number| {
            let octets = &octets;
            scope.spawn(move || -> io::Result<usize> {
                let mut count = 0;
                while count == 0 || (count < each && start.elapsed() < time) {
                    store(dir, &format!("{number}.{count}"), octets)?;
                    count += 1;
                }
                Ok(count)
            })
        };
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        let mut sent = Sent { messages: 0, start, last: start };
        for thread in threads {
            sent.messages += thread.join().expect("no panic in a thread")?;
        }
        sent.last = Instant::now();
        Ok(sent)
    })
}

fn store(dir: &Path, name: &str, octets: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).mode(0o600).custom_flags(nix::libc::O_TMPFILE).open(dir)?;
    file.write_all(octets)?;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(AT_FDCWD, link.as_str(), AT_FDCWD, &dir.join(name), AtFlags::AT_SYMLINK_FOLLOW)?;
    file.sync_all()
}
