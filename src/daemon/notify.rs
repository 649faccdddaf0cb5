//! Tells the service manager how the daemon fares: sd_notify(3).
//!
//! A datagram to the socket that `NOTIFY_SOCKET` names, a path or, after `@`, an
//! abstract name of Linux; where there is no such variable, nothing. What cannot
//! be told is not told: a service manager that does not listen ends no daemon, and
//! none is waited for. Knows no watchdog, and stores no descriptors.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::time::{ClockId, clock_gettime};

/// It serves.
pub fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={status}"));
}

/// It reads its configuration again; [`ready`] ends that.
pub fn reloading() {
    // The manager compares it with the time at which it asked.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    let stamp = now.map(|t| format!("MONOTONIC_USEC={}\n", t.tv_sec() * 1_000_000 + t.tv_nsec() / 1000));
    tell(&format!("RELOADING=1\n{}STATUS=Reading the configuration again", stamp.unwrap_or_default()));
}

/// It goes down.
pub fn stopping() {
    tell("STOPPING=1\nSTATUS=Ending sessions and deliveries");
}

fn tell(state: &str) {
    let told = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).map(|name| send(&name, state));
    if let Some(Err(e)) = told {
        ::log::debug!("NOTIFY_SOCKET: {e}");
    }
}

fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address(name)?).map(drop)
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().split_first() {
        #[cfg(target_os = "linux")]
        Some((b'@', rest)) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(rest),
        Some((b'/', _)) => SocketAddr::from_pathname(name),
        _ => Err(io::Error::other("neither a path nor an abstract name")),
    }
}
