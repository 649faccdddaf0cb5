//! Accounts from a users file: a user with a secret can log in.
//!
//! A line without a domain applies to every local domain; a line with a domain applies to that
//! domain only, and takes precedence. A user whose line has no domain is the same account in all
//! local domains, unless another line has that name with one of the domains. A login name without a
//! domain belongs to the first local domain. The file is read again when it changes. If it then has
//! errors, the old accounts stay in force. Clients cannot find out whether a name exists: see
//! `sasl::server`.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::file::{UserTable, parse};
use crate::address::{Address, fold};
use crate::config::table::Watched;
use crate::config::{Auth, Config, ConfigError, TableFile};
use crate::privsep::Rights;
use crate::sasl::dovecot::Dovecot;
use crate::sasl::secret::Secret;
use crate::sasl::server::{Abilities, Account, Accounts};
use crate::sasl::throttle::Throttle;
use crate::sasl::{Backend, Logins, complete};

/// The accounts of a users file.
#[derive(Debug)]
struct FileAccounts {
    table: Watched<Table>,
    domains: HashSet<String>,
    first: String,
}

#[derive(Debug)]
struct Table {
    users: UserTable,
    /// One secret of each kind.
    kinds: Vec<Secret>,
    abilities: Abilities,
}

/// Makes the authentication backend that the configuration names. Returns the backend and all
/// errors in the users file. `throttle` comes from the previous configuration, so that a reload
/// keeps the counts of failures.
pub fn begin(config: &Config, rights: &Rights, throttle: Arc<Throttle>) -> (Logins, Vec<ConfigError>) {
    let first = config.own_domain().to_owned();
    let mut errors = Vec::new();
    let backend = match &config.auth {
        Auth::None => Backend::Nobody,
        Auth::Dovecot(path) => Backend::Dovecot(Dovecot::at(path)),
        Auth::File(path) => {
            let file = TableFile { path: path.clone(), required: true };
            let (table, wrong) =
                Watched::open_tolerant_secret(rights, &file, read, |why| Table::of(UserTable::unreadable(why)));
            errors = wrong;
            let domains = config.local.domains.iter().cloned().collect();
            Backend::Own(Box::new(FileAccounts { table, domains, first: first.clone() }))
        }
    };
    (Logins { backend, throttle, domain: first }, errors)
}

fn read(file: &Path, text: &str) -> (Table, Vec<ConfigError>) {
    let (users, errors) = parse(file, text);
    (Table::of(users), errors)
}

impl Table {
    fn of(users: UserTable) -> Self {
        let all = users.domains.values().flat_map(|names| names.values());
        let secrets = all.filter_map(|user| user.secret.as_deref());
        let kinds: BTreeMap<String, Secret> = secrets.map(|secret| (secret.kind(), secret.clone())).collect();
        let kinds: Vec<Secret> = kinds.into_values().collect();
        let is_scram = |secret: &Secret| matches!(secret, Secret::Scram(_));
        let login = !kinds.is_empty();
        let abilities = Abilities { login, scram: login && kinds.iter().all(is_scram) };
        Self { users, kinds, abilities }
    }
}

impl Accounts for FileAccounts {
    fn find(&self, name: &str) -> Option<Account> {
        let address = Address::parse(&complete(name, &self.first)).ok()?;
        let (local, domain) = (fold(address.local()).into_owned(), address.domain());
        let table = self.table.current();
        let find = |domain: &str| table.users.domains.get(domain).and_then(|users| users.get(local.as_str()));
        let user = find(domain).or_else(|| if self.domains.contains(domain) { find("") } else { None })?;
        // If another line has the same name with a domain, the name alone would be ambiguous, so
        // the login includes the domain.
        let is_unique =
            !table.users.domains.iter().any(|(domain, names)| !domain.is_empty() && names.contains_key(local.as_str()));
        let login = if is_unique { local } else { format!("{local}@{domain}") };
        Some(Account { login, secret: user.secret.as_deref()?.clone() })
    }

    /// Returns one name for all spellings of an account's name, whether the account exists or not.
    fn qualify(&self, name: &str) -> String {
        let name = complete(name, &self.first);
        let Ok(address) = Address::parse(&name) else { return name };
        let address = address.with_local(&fold(address.local()));
        let table = self.table.current();
        let is_other =
            |domain: &str| table.users.domains.get(domain).is_some_and(|users| users.contains_key(address.local()));
        let is_in_all_domains =
            self.domains.contains(address.domain()) && !is_other(address.domain()) && !is_other(&self.first);
        if is_in_all_domains { address.at(&self.first).to_string() } else { address.to_string() }
    }

    fn kinds(&self) -> Vec<Secret> {
        self.table.current().kinds.clone()
    }

    fn abilities(&self) -> Abilities {
        self.table.current().abilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn open_text(name: &str, text: &str) -> Result<FileAccounts, Vec<String>> {
        let path = std::env::temp_dir().join(format!("penfold-accounts-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("write");
        let (accounts, errors) = begin_text(&path);
        let _ = std::fs::remove_file(&path);
        let text = |e: &ConfigError| format!("{}:{}: {}", e.line, e.column, e.text);
        if errors.is_empty() { Ok(accounts) } else { Err(errors.iter().map(text).collect()) }
    }

    fn begin_text(path: &Path) -> (FileAccounts, Vec<ConfigError>) {
        let file = TableFile { path: path.to_owned(), required: true };
        let (table, errors) = Watched::open_tolerant(&file, read, |why| Table::of(UserTable::unreadable(why)));
        let domains = ["here", "also.here"].map(str::to_owned).into();
        (FileAccounts { table, domains, first: "here".into() }, errors)
    }

    /// In a file with errors only the users of well-formed lines can log in, and no other user
    /// takes the place of one whose line is malformed.
    #[test]
    fn a_malformed_line_authenticates_nobody() {
        let path = std::env::temp_dir().join(format!("penfold-accounts-{}-wrong", std::process::id()));
        let good = format!("jon:{SECRET}:\nmary:{SECRET}:\nanna:{SECRET}:\nann:{SECRET}:\nsue:{SECRET}:\n");
        let bad = format!("mary:{SECRET}:\nanna@also.here:{{PLAIN}}x:\nann@also.here\nsue@also. here:{SECRET}:\n");
        std::fs::write(&path, good + &bad).expect("write");
        let (accounts, errors) = begin_text(&path);
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), [6, 7, 8, 9]);
        let can_log_in = ["jon", "mary", "anna", "anna@also.here", "ann@here", "ann@also.here", "sue", "sue@also.here"]
            .map(|name| accounts.find(name).is_some());
        assert_eq!(can_log_in, [true, false, true, false, true, false, false, false]);
        assert!(begin_text(Path::new("/nonexistent/users")).0.find("jon").is_none());
    }

    #[test]
    fn a_login_name_leads_to_the_account_of_its_line() {
        let text = format!(
            "jon:{SECRET}:\nmary@also.here:{SECRET}:\nelvis@else:{SECRET}:\npaul::\nmary@here::\nanna:{SECRET}:\nanna@also.here:{SECRET}:\n"
        );
        let accounts = open_text("names", &text).expect("good");
        for (name, wanted) in [
            ("jon", Some("jon")),
            ("JON", Some("jon")),
            ("jon@also.here", Some("jon")),
            ("Jon@Also.Here", Some("jon")),
            ("jon@else", None),
            ("mary@also.here", Some("mary@also.here")),
            ("anna", Some("anna@here")),
            ("anna@also.here", Some("anna@also.here")),
            ("mary", None),
            ("elvis@else", Some("elvis@else")),
            ("elvis", None),
            ("paul", None),
            ("nobody", None),
            ("", None),
            ("@", None),
            ("jon@here@here", None),
            ("\u{0}", None),
        ] {
            assert_eq!(accounts.find(name).map(|a| a.login).as_deref(), wanted, "{name:?}");
        }
        for (name, wanted) in [
            ("jon", "jon@here"),
            ("JON@Also.Here", "jon@here"),
            ("\"j\\on\"@here", "jon@here"),
            ("\"jon\"@also.here", "jon@here"),
            ("nobody@also.here", "nobody@here"),
            ("\"no\\body\"", "nobody@here"),
            ("mary@also.here", "mary@also.here"),
            ("anna@also.here", "anna@also.here"),
            ("elvis@else", "elvis@else"),
            ("a b\"c", "a b\"c@here"),
        ] {
            assert_eq!(accounts.qualify(name), wanted, "{name}");
            assert_eq!(accounts.find(name).map(|a| a.login), accounts.find(wanted).map(|a| a.login), "{name}");
        }
        assert_eq!(accounts.abilities(), Abilities { login: true, scram: true });
        assert_eq!(accounts.kinds().len(), 1);
    }

    #[test]
    fn scram_is_offered_only_if_every_account_can_use_it() {
        let crypt = format!("{{SHA512-CRYPT}}$6$salt${}", "x".repeat(86));
        let abilities = |text: &str| open_text("scram", text).expect("good").abilities();
        assert_eq!(abilities(&format!("jon:{SECRET}:\nmary:{crypt}:\n")), Abilities { login: true, scram: false });
        assert_eq!(abilities("jon::\n"), Abilities::default());
    }

    #[test]
    fn an_error_in_a_secret_gives_its_place_and_not_its_text() {
        let errors = open_text("bad", "jon::\nmary:{PLAIN}hush:\n").expect_err("a bad secret");
        assert!(errors.len() == 1 && errors[0].starts_with("2:6: expected a secret"), "{errors:?}");
        assert!(!errors[0].contains("hush"));
    }
}
