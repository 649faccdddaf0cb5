//! Logs warnings about local mail that cannot be delivered or read. The causes are placeholders
//! that are unknown or cannot be filled in, mail for this host that is not local, and service users
//! that cannot get mail.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::config::{Auth, Config, Users, table};
use crate::privsep::{Rights, User};
use crate::site::Settings;
use crate::users::placeholder;

/// The names of system users that run services and are not people.
const SERVICE_USERS: [&str; 16] = [
    "daemon", "bin", "mail", "news", "uucp", "proxy", "www-data", "www", "nginx", "apache", "backup", "list", "nobody",
    "cron", "games", "man",
];

/// The maximum number of names in one warning.
const MAX_NAMES: usize = 3;

/// Logs all warnings of this module.
pub fn log_all(settings: &Settings, rights: &Rights) {
    let config = &settings.config;
    if config.local_domains().next().is_none() {
        return;
    }
    of_this_host(config);
    for (table, local) in config.named_locals().filter(|(_, local)| !local.domains.is_empty()) {
        if let Some(sign) = local.mailbox.path().and_then(placeholder) {
            let (at, table) = (config.places.at(&format!("{table}.mailbox")), super::table_of(&table));
            ::log::warn!("{at}{table}.mailbox: {sign} is not a placeholder: expected {{user}} or {{domain}}");
        }
    }
    table::limited(&settings.router.unfilled_mailboxes()).for_each(|warning| ::log::warn!("{warning}"));
    of_quotas(settings);
    of_hourly_limits(settings);
    of_service_users(settings, rights);
}

/// Warns of quotas that have no effect: only Maildirs have quotas.
fn of_quotas(settings: &Settings) {
    let config = &settings.config;
    for (number, (has_maildirs, has_quotas)) in settings.router.maildirs_and_quotas().enumerate() {
        let table = number.checked_sub(1).map_or("local".to_owned(), |number| format!("domain[{number}]"));
        let warn = |key: &str, why: &str| {
            let place = format!("{table}.{key}");
            if config.places.of_key(&place).is_some() {
                let (at, table) = (config.places.at(&place), if number == 0 { "local" } else { "domain" });
                ::log::warn!("{at}{table}.{key} has no effect: {why}");
            }
        };
        match (has_maildirs, has_quotas) {
            (false, true) => warn("quota", "no mailbox is a Maildir"),
            (_, false) => warn("over_quota", "no mailbox has a quota"),
            (true, true) => {}
        }
    }
    table::limited(&settings.router.vain_quotas()).for_each(|warning| ::log::warn!("{warning}"));
}

/// Warns of hourly limits of a `[[domain]]` that do not apply to those of its users who are the same in
/// several tables: such a user is one account, with the limits of the first domain.
fn of_hourly_limits(settings: &Settings) {
    let config = &settings.config;
    for group in config.account_groups() {
        let Some(first) = group.domains.first().filter(|_| matches!(group.auth, Auth::File(_))) else { continue };
        let login = format!("@{first}");
        let limits = [
            ("messages_per_hour", config.messages_per_hour(&login).value),
            ("recipients_per_hour", config.recipients_per_hour(&login).value),
        ];
        for table in group.tables {
            let domain = &config.domains[table];
            for ((key, limit), own) in limits.into_iter().zip([domain.messages_per_hour, domain.recipients_per_hour]) {
                let place = format!("domain[{table}].{key}");
                let is_given = own != limit && config.places.of_key(&place).is_some();
                if is_given && settings.logins.accounts.has_users_of_all_domains(first) {
                    let at = config.places.at(&place);
                    ::log::warn!(
                        "{at}domain.{key} has no effect on users whose line has no domain: they have the limit of {first}"
                    );
                }
            }
        }
    }
}

/// Warns if `local.domains` contains neither the hostname nor localhost. In that case, mail from
/// programs to users of this host leaves the host.
fn of_this_host(config: &Config) {
    let hostname = &config.hostname;
    if !config.is_local(hostname) && !config.is_local("localhost") {
        let at = config.places.at("local.domains");
        ::log::warn!(
            "{at}local.domains has neither {hostname} nor localhost: mail that programs send to a user there leaves this host"
        );
    }
}

/// Warns that mail for some service users, for example from cron(8), waits because another user
/// owns their home directories.
fn of_service_users(settings: &Settings, rights: &Rights) {
    if settings.config.local.users != Users::System || !rights.has_monitor() {
        return;
    }
    let owns_home = |user: &User| fs::metadata(&user.home).is_ok_and(|home| home.uid() == user.uid);
    let users = SERVICE_USERS.iter().filter_map(|name| rights.user_named(name).ok().flatten());
    let waiting = users.filter(|user| settings.router.keeps_mail_at_home(user) && !owns_home(user));
    let waiting: Vec<String> = waiting.map(|user| user.name).collect();
    let (first, others) = waiting.split_at(waiting.len().min(MAX_NAMES));
    if first.is_empty() {
        return;
    }
    let names = first.join(", ");
    let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    let file = match settings.config.local.aliases.path.to_string_lossy() {
        path if path.is_empty() => "a file that local.aliases names".into(),
        path => path,
    };
    ::log::warn!("mail for {names}{more} waits, as their homes belong to other users: add aliases for them to {file}");
}
