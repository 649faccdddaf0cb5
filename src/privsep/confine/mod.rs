//! Confines the server to some parts of the file system, and keeps it from executing programs.
//!
//! - `linux`: Landlock and seccomp. Other systems have nothing like it here.

#[cfg(target_os = "linux")]
mod linux;

use std::path::PathBuf;

#[cfg(target_os = "linux")]
pub use linux::confine;

/// The places that a process may use.
#[derive(Debug, Default, Clone)]
pub struct Places {
    /// Files that may be read, and directories below which everything may be read.
    pub read: Vec<PathBuf>,
    /// Files that may be read and written, and directories below which everything may be read and
    /// changed. Below such a directory, programs cannot be executed, and device files cannot be
    /// made.
    pub write: Vec<PathBuf>,
}

/// How far a process is confined after [`confine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// The process is confined as requested.
    Full,
    /// The process is confined as far as this kernel and this machine support the restrictions.
    Partial,
    /// The process can use all places, because the system is not Linux, or the kernel has no
    /// Landlock, or only its first version (Linux 5.13). Executing programs is forbidden all the
    /// same if the kernel and the machine support the filter.
    None,
}

/// Does nothing, because this system is not Linux.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn confine(_: &Places) -> std::io::Result<Confinement> {
    Ok(Confinement::None)
}
