//! Sends messages about the state of the daemon to the service manager (sd_notify(3)).
//!
//! Each message is a datagram to the socket that the variable `NOTIFY_SOCKET` names. The name is a
//! path or, after `@`, a name in Linux's abstract namespace. If the variable is not set, nothing is
//! sent. A message that cannot be sent at once is dropped. The watchdog and the descriptor store
//! are not used.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::time::{ClockId, clock_gettime};

/// Reports that the daemon serves, with a status text.
pub fn ready(status: &str) {
    notify(&format!("READY=1\nSTATUS={status}"));
}

/// Reports that the daemon reads its configuration again. [`ready`] reports that it has finished.
pub fn reloading() {
    // The service manager compares this time with the time at which it asked for the reload.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    let stamp = now.map(|t| format!("MONOTONIC_USEC={}\n", t.tv_sec() * 1_000_000 + t.tv_nsec() / 1000));
    notify(&format!("RELOADING=1\n{}STATUS=Reading the configuration again", stamp.unwrap_or_default()));
}

/// Reports that the daemon is stopping.
pub fn stopping() {
    notify("STOPPING=1\nSTATUS=Ending sessions and deliveries");
}

fn notify(state: &str) {
    let sent = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).map(|name| send(&name, state));
    if let Some(Err(e)) = sent {
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
