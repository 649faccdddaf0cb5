//! Reads the time zone of this host, for dates in messages and at the front of log lines.
//!
//! As in libc, the variable TZ names a file or is a POSIX rule. A colon before the name is ignored,
//! and a relative path is below TZDIR. Without TZ, the file /etc/localtime applies, or UTC if that
//! file is not usable. The zone is read once, before the server is confined, because its file may
//! be inaccessible later. No directory is listed, and only one file is opened, since every process
//! under inetd has to read the zone anew.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use jiff::tz::TimeZone;

const LOCALTIME: &str = "/etc/localtime";
const ZONEINFO: &str = "/usr/share/zoneinfo";
/// The dates of daylight saving time for a POSIX rule that gives no dates. As in libc, they are
/// those of the United States.
const DEFAULT_DST: &str = ",M3.2.0,M11.1.0";
/// The maximum size of a zone file, in bytes. Real zone files have at most 4 KiB.
const MAX_SIZE: u64 = 256 << 10;

/// The time zone of this host.
pub fn zone() -> &'static TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(|| read(env::var_os("TZ").as_deref()).unwrap_or(TimeZone::UTC))
}

/// Warns of a TZ that names no time zone.
pub fn warn_of_zone() {
    let named = env::var_os("TZ").filter(|name| read(Some(name)).is_none());
    if let Some(name) = named {
        let name = name.to_string_lossy();
        ::log::warn!("TZ: {} is not a time zone of this system: times are in UTC", name.escape_debug());
    }
}

/// Returns the time zone that a value of TZ names or, without a value, the time zone of the host.
/// Returns `None` if the value is invalid.
fn read(name: Option<&OsStr>) -> Option<TimeZone> {
    let Some(name) = name else { return file(Path::new(LOCALTIME)).or(Some(TimeZone::UTC)) };
    let name = name.as_bytes();
    let name = name.strip_prefix(b":").unwrap_or(name);
    if name.is_empty() {
        return Some(TimeZone::UTC);
    }
    let directory = env::var_os("TZDIR").filter(|directory| !directory.is_empty());
    let directory = directory.as_deref().unwrap_or(OsStr::new(ZONEINFO));
    file(&Path::new(directory).join(OsStr::from_bytes(name))).or_else(|| rule(std::str::from_utf8(name).ok()?))
}

fn file(path: &Path) -> Option<TimeZone> {
    let mut data = Vec::new();
    File::open(path).ok()?.take(MAX_SIZE).read_to_end(&mut data).ok()?;
    TimeZone::tzif("", &data).ok()
}

fn rule(text: &str) -> Option<TimeZone> {
    TimeZone::posix(text).or_else(|_| TimeZone::posix(&format!("{text}{DEFAULT_DST}"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_posix_defines_them() {
        let offset = |name: &str, time: &str| {
            let time: jiff::Timestamp = time.parse().expect("a time");
            read(Some(OsStr::new(name))).map(|zone| zone.to_offset(time).seconds())
        };
        for (name, winter, summer) in [
            ("", 0, 0),
            (":", 0, 0),
            ("JST-9", 32_400, 32_400),
            ("<-03>3", -10_800, -10_800),
            ("XST5XDT", -18_000, -14_400),
            (":XST5XDT", -18_000, -14_400),
            ("CET-1CEST,M3.5.0,M10.5.0/3", 3600, 7200),
            ("UTC0", 0, 0),
        ] {
            assert_eq!(offset(name, "2026-01-15T12:00:00Z"), Some(winter), "{name}");
            assert_eq!(offset(name, "2026-07-15T12:00:00Z"), Some(summer), "{name}");
        }
        for name in ["Nowhere/City", "/", "/etc/passwd", "/dev/zero", ":::", "\u{f6}", "../..", "X"] {
            assert_eq!(offset(name, "2026-01-15T12:00:00Z"), None, "{name}");
        }
    }
}
