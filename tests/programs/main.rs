//! The other programs of the package, and the targets of the Makefile.
//!
//! - `check`: `penfoldctl check`: what it finds, with and without a daemon
//! - `completion`: completion in shells
//! - `control_socket`: programs when the daemon is busy, absent or misbehaves
//! - `dkim`: keys that sign mail: made, checked, used and replaced
//! - `daemon_state`: `config` and `reload` of penfoldctl(8), with and without a daemon
//! - `dropped`: messages that sendmail keeps while no daemon runs
//! - `explain`: explanations against real sessions
//! - `install`: `make install` and `make uninstall`
//! - `make`: `make run` and `make test`
//! - `package`: the Debian package of `make deb`
//! - `published`: the records and policies that `penfoldctl tlsa` and `mta-sts` print
//! - `sendmail`: sendmail(8), mailq(1) and newaliases(1)
//! - `trace`: what `penfoldctl trace` tells, with and without a daemon
//! - `stats`: `penfoldctl stats` and `top`

#[cfg(feature = "mailauth")]
mod check;
mod completion;
mod control_socket;
mod daemon_state;
#[cfg(feature = "mailauth")]
mod dkim;
mod dropped;
mod explain;
mod install;
mod make;
mod package;
mod published;
mod sendmail;
mod stats;
mod trace;
