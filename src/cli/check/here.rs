//! The host itself: its clock, its spool, the sendmail program, the daemon.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{AccessFlags, access, geteuid};

use super::finding::{Finding, Level, Topic};
use crate::config::Config;
use crate::control;
use crate::dns::Dns;
use crate::json::Object;
use crate::log;
use crate::privsep;
use crate::shared_store::{SharedStore, Standing};
use crate::site::Settings;
use crate::spool::Spool;
use crate::sys;

/// A time before this program was written, in seconds since 1970: 2025-12-01.
const EARLIEST: u64 = 1_764_547_200;
/// The number of seconds by which the time of a file may be ahead of the clock.
const SKEW: u64 = 300;
/// The programs through which other programs send mail.
const SENDMAIL: [&str; 2] = ["/usr/sbin/sendmail", "/usr/lib/sendmail"];
/// The directory in which systemd-timesyncd(8) notes that it has set the clock.
const TIMESYNC: &str = "/run/systemd/timesync";

/// The time in which a daemon must answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Whether a daemon runs: whether it answers on its control socket. A service manager may hold the
/// socket without a daemon.
pub fn is_running(config: &Config) -> io::Result<bool> {
    match control::knock(&config.socket, ANSWER) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The finding about the daemon.
pub fn daemon(config: &Config, running: &io::Result<bool>) -> Finding {
    let socket = config.socket.display();
    match running {
        Ok(true) => Finding::new(Level::Good, Topic::Host, "penfoldd is running"),
        Ok(false) => Finding::new(Level::Warning, Topic::Host, format!("no penfoldd listens on the socket {socket}"))
            .at(config.places.complaint("socket", ""))
            .advise("start it; see SERVICE MANAGERS in penfold-admin(7)"),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            let text = format!("the control socket {socket} is open, but no penfoldd answers there");
            Finding::new(Level::Error, Topic::Host, text)
                .at(config.places.complaint("socket", ""))
                .advise("a service manager may hold the socket: start penfoldd, or look for its errors in the log")
        }
        Err(e) => Finding::new(Level::Error, Topic::Host, format!("the control socket {socket}: {e}"))
            .at(config.places.complaint("socket", "")),
    }
}

/// Checks that the shared store answers, by connecting to it. Returns `None` if there is none.
pub fn shared(settings: &Settings) -> Option<Finding> {
    let store = SharedStore::new(&Arc::new(Dns::new(&settings.config.dns)), &settings.config.hostname);
    store.aim(&settings.config, &settings.tls.client, settings.shared_secrets.as_ref());
    let (url, standing) = store.examine();
    let why = match standing {
        Standing::None => return None,
        Standing::Up { .. } => {
            let text = format!("the shared store {url} answers");
            return Some(Finding::new(Level::Good, Topic::Host, text));
        }
        Standing::Away { why, .. } => why,
        Standing::Untried => "no answer in time".to_owned(),
    };
    let text = format!("the shared store {url} cannot be used: {why}");
    let finding =
        Finding::new(Level::Warning, Topic::Host, text).at(settings.config.places.complaint("shared.store", ""));
    Some(finding.advise("until it answers, each host counts alone; see SEVERAL HOSTS in penfold-admin(7)"))
}

/// Checks that the server's user, which is this process's user, can make the control socket.
pub fn socket_directory(config: &Config) -> Option<Finding> {
    let directory = config.socket.parent().filter(|path| path.is_dir())?;
    access(directory, AccessFlags::W_OK | AccessFlags::X_OK).err().filter(|_| is_server(config))?;
    let text = format!(
        "the user {} cannot create the control socket in {}: only a service manager can",
        privsep::user_name(),
        directory.display()
    );
    let finding = Finding::new(Level::Warning, Topic::Host, text).at(config.places.complaint("socket", ""));
    Some(finding.advise("give the directory to that user, or choose one that does not exist: the daemon creates it"))
}

/// Checks that the daemon has read the file that is being checked, and has read it since it was
/// changed. Only root and the server's user may ask that.
pub fn in_force(config: &Config) -> Option<Finding> {
    let mut answer = Vec::new();
    control::ask(&config.socket, &["status", "json"], &mut answer, control::ANSWER_TIMEOUT).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (file, rest) = answer.split_once(r#""file":""#)?.1.split_once(r#"","since":""#)?;
    let since: jiff::Timestamp = rest.split('"').next()?.parse().ok()?;
    let since = u64::try_from(since.as_second()).ok()?;
    let ours = config.places.file();
    let make = |level, text: String| Some(Finding::new(level, Topic::Host, text).at(config.places.complaint("", "")));
    if !Object::new().text("file", &ours.display().to_string()).to_string().contains(&format!(r#":"{file}""#)) {
        return make(Level::Warning, format!("penfoldd runs with another configuration: {file}"))
            .map(|finding| finding.advise(format!("check that one: penfoldctl -f {file} check")));
    }
    let changed = fs::metadata(ours).ok().and_then(|found| u64::try_from(found.mtime()).ok());
    let changed = changed?;
    if changed > since {
        let (changed, since) = (log::local_timestamp(changed), log::local_timestamp(since));
        return make(Level::Warning, format!("it was changed at {changed}, and penfoldd read it at {since}"))
            .map(|finding| finding.advise("put it into force: penfoldctl reload"));
    }
    None
}

/// Checks the clock. `spool` is the directory that penfold has written to last.
pub fn clock(spool: &Path) -> Finding {
    let changed = fs::metadata(spool).ok().and_then(|found| u64::try_from(found.mtime()).ok());
    let is_set = match Path::new(TIMESYNC).exists() {
        true => Some(Path::new(TIMESYNC).join("synchronized").exists()),
        false => None,
    };
    clock_at(sys::now(), changed, is_set)
}

/// `changed` is the time of the last change in the spool. `is_set` says whether a service has set
/// the clock; `None` if that is not known.
fn clock_at(now: u64, changed: Option<u64>, is_set: Option<bool>) -> Finding {
    let time = log::local_timestamp(now);
    let set = "set the clock, and start a service that keeps it right";
    if now < EARLIEST {
        let text = format!("the clock is wrong: it says {time}, which is before this program was written");
        return Finding::new(Level::Error, Topic::Host, text).advise(set);
    }
    if let Some(changed) = changed.filter(|changed| *changed > now + SKEW) {
        let changed = log::local_timestamp(changed);
        let text = format!("the clock was set back: it says {time}, and the spool was changed at {changed}");
        return Finding::new(Level::Warning, Topic::Host, text).advise(set);
    }
    match is_set {
        Some(true) => Finding::new(Level::Good, Topic::Host, format!("the clock is synchronized: it says {time}")),
        Some(false) => Finding::new(
            Level::Warning,
            Topic::Host,
            format!("systemd-timesyncd has not set the clock: it says {time}"),
        )
        .advise("see timedatectl(1): a wrong clock spoils dates, certificates and signatures"),
        None => Finding::new(Level::Good, Topic::Host, format!("the clock says {time}")),
    }
}

/// Checks that the sendmail programs of this host belong to penfold.
pub fn sendmail() -> Vec<Finding> {
    let mut findings: Vec<Finding> = SENDMAIL.iter().filter_map(|path| sendmail_at(Path::new(path))).collect();
    // Usually the second path is a link to the first one, and one finding suffices.
    let real = |path: &str| Path::new(path).canonicalize().ok();
    if real(SENDMAIL[0]).is_some() && real(SENDMAIL[0]) == real(SENDMAIL[1]) {
        findings.truncate(1);
    }
    findings
}

fn sendmail_at(path: &Path) -> Option<Finding> {
    let name = path.display();
    let real = match path.canonicalize() {
        Ok(real) => real,
        // The second path is one that only old programs use.
        Err(_) if path != Path::new(SENDMAIL[0]) => return None,
        Err(_) => {
            let text = format!("there is no {name}: cron and other programs cannot send mail");
            return Some(
                Finding::new(Level::Warning, Topic::Host, text).advise("give it to penfold: make install-sendmail"),
            );
        }
    };
    if real.file_name().is_some_and(|file| file == "penfoldctl") {
        return Some(Finding::new(Level::Good, Topic::Host, format!("{name} is penfold's")));
    }
    let text = format!("{name} is {}: mail from cron and other programs does not come to penfold", real.display());
    Some(Finding::new(Level::Warning, Topic::Host, text).advise("give it to penfold: make install-sendmail"))
}

/// Whether this process has the rights of the server: whether its user is the one in the configuration,
/// or the owner of the spool.
fn is_server(config: &Config) -> bool {
    let user = privsep::user_name();
    user == config.user || fs::metadata(&config.spool).is_ok_and(|found| found.uid() == geteuid().as_raw())
}

/// Checks the spool, as the server's user.
pub fn spool(config: &Config) -> Vec<Finding> {
    let path = config.spool.display();
    if !is_server(config) {
        let text = format!("the spool {path} was not checked: this is the user {}", privsep::user_name());
        let finding = Finding::new(Level::Unknown, Topic::Host, text).at(config.places.complaint("spool", ""));
        return vec![finding.advise(format!("run the check as root or as the user {}", config.user))];
    }
    let make = |level, text: String| Finding::new(level, Topic::Host, text).at(config.places.complaint("spool", ""));
    if matches!(config.spool.try_exists(), Ok(false)) {
        // A warning says so.
        return Vec::new();
    }
    let opened = Spool::open_read_only(&config.spool);
    let scarce = opened.as_ref().map(|spool| control::scarce(&control::spool_gauges(spool, false))).unwrap_or_default();
    let room = opened.and_then(|spool| spool.has_room(config.limits.message_size));
    let mut findings = vec![match room {
        Ok(true) if !scarce.is_empty() => {
            make(Level::Warning, format!("the {} ({path})", scarce.join(", and the "))).advise("make room soon")
        }
        Ok(true) => make(Level::Good, format!("the spool {path} has room")),
        Ok(false) => make(
            Level::Error,
            format!("the spool {path} has no room for a message of {} octets", config.limits.message_size),
        )
        .advise("make room on its file system: large messages get 452 now"),
        Err(e) => make(Level::Error, format!("the spool {path} cannot be read: {e}")),
    }];
    if access(&config.spool, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let text = format!("the user {} cannot write to the spool {path}", privsep::user_name());
        findings.push(make(Level::Error, text).advise("give it to that user"));
    }
    if sys::is_in_memory(&config.spool) {
        findings
            .push(make(Level::Error, format!("the spool {path} is in memory: a restart of the host loses all mail")));
    }
    let corrupt = fs::read_dir(config.spool.join("bad")).map_or(0, Iterator::count);
    if corrupt > 0 {
        let text = format!("{} has {corrupt} files that could not be read", config.spool.join("bad").display());
        findings.push(make(Level::Warning, text).advise("see penfold-spool(5)"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_found() {
        for (now, changed, is_set, level, text) in [
            (0, None, Some(true), Level::Error, "the clock is wrong: it says 19"),
            (EARLIEST, None, None, Level::Good, "the clock says 20"),
            (EARLIEST, Some(EARLIEST + SKEW), Some(true), Level::Good, "the clock is synchronized: "),
            (EARLIEST, Some(EARLIEST + SKEW + 1), Some(true), Level::Warning, "the clock was set back: "),
            (EARLIEST, Some(0), Some(false), Level::Warning, "systemd-timesyncd has not set the clock"),
        ] {
            let found = clock_at(now, changed, is_set);
            assert_eq!((found.level, found.at.text.starts_with(text)), (level, true), "{found}");
        }
    }

    #[test]
    fn a_sendmail_of_another_system_is_found() {
        let directory = std::env::temp_dir().join(format!("penfold-sendmail-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let (ours, theirs) = (directory.join("penfoldctl"), directory.join("exim4"));
        for (program, level) in [(&ours, Level::Good), (&theirs, Level::Warning)] {
            fs::write(program, "").expect("a file");
            let link = directory.join("sendmail");
            std::os::unix::fs::symlink(program, &link).expect("a link");
            let found = sendmail_at(&link).expect("a finding");
            assert_eq!(found.level, level, "{found}");
            fs::remove_file(&link).expect("removed");
        }
        assert_eq!(sendmail_at(&directory.join("none")), None);
        fs::remove_dir_all(&directory).expect("removed");
    }
}
