//! Accepted mail survives crashes, power cuts, full disks and damage.
//!
//! - `crash`: the daemon is killed at every step, and starts on every state that a crash can leave
//! - `damage`: damaged and planted spool entries
//! - `disk_errors`: disk errors by name: the reply, the log line, the recovery
//! - `faults`: full disks, missing descriptors and directories, a second daemon
//! - `powercut`: the power fails, on ext4, xfs and btrfs
//! - `versions`: spools that an earlier or a later version has written

mod crash;
mod damage;
mod disk_errors;
mod faults;
mod powercut;
mod versions;
