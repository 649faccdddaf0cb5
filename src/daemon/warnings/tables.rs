//! What is meant of local mail and cannot be: names that stand for no place, and users of the
//! system whose mail nobody thinks of.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::config::{Config, Users, table};
use crate::privsep::{Rights, User};
use crate::site::Settings;
use crate::users::placeholder;

/// Users of the system who run programs and are no persons.
const NO_PERSONS: [&str; 16] = [
    "daemon", "bin", "mail", "news", "uucp", "proxy", "www-data", "www", "nginx", "apache", "backup", "list", "nobody",
    "cron", "games", "man",
];

/// Names in one warning.
const MOST_NAMES: usize = 3;

/// Warns of all of it.
pub fn tell(settings: &Settings, rights: &Rights) {
    let config = &settings.config;
    if config.local.domains.is_empty() {
        return;
    }
    of_this_host(config);
    if let Some(sign) = placeholder(&config.local.mailbox) {
        ::log::warn!("local.mailbox: nothing takes the place of {sign}: expected {{user}} or {{domain}}");
    }
    table::limited(&settings.router.unfilled_mailboxes()).for_each(|warning| ::log::warn!("{warning}"));
    of_no_persons(settings, rights);
}

/// Warns where mail for this host itself is not local.
fn of_this_host(config: &Config) {
    let (domains, hostname) = (&config.local.domains, &config.hostname);
    if !domains.contains(hostname) && !domains.iter().any(|domain| domain == "localhost") {
        ::log::warn!(
            "local.domains has neither {hostname} nor localhost: mail that programs send to a user there leaves this host"
        );
    }
}

/// Warns of what becomes of mail for users of the system who are no persons, such as what
/// cron(8) and web servers send.
fn of_no_persons(settings: &Settings, rights: &Rights) {
    if settings.config.local.users != Users::System || !rights.has_monitor() {
        return;
    }
    let is_theirs = |person: &User| fs::metadata(&person.home).is_ok_and(|home| home.uid() == person.uid);
    let people = NO_PERSONS.iter().filter_map(|name| rights.user_named(name).ok().flatten());
    let waiting = people.filter(|person| settings.router.keeps_mail_at_home(person) && !is_theirs(person));
    let waiting: Vec<String> = waiting.map(|person| person.name).collect();
    let (first, others) = waiting.split_at(waiting.len().min(MOST_NAMES));
    if first.is_empty() {
        return;
    }
    let names = first.join(", ");
    let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    let file = settings.config.local.aliases.path.display();
    ::log::warn!("mail for {names}{more} waits for homes that are not theirs: give them lines in {file}");
}
