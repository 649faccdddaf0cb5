//! `penfoldctl dkim`: makes the keys that sign mail, and compares them with the DNS.
//!
//! - `check`: `dkim check`
//! - `new`: `dkim new`

mod check;
mod new;

pub(super) use check::check;
pub(super) use new::{New, new, zone_record};
