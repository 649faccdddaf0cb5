//! Accounts from a users file: a user with a secret can log in.
//!
//! A line without a domain applies to every domain that has the file; a line with a domain applies to
//! that domain only, and takes precedence. A user whose line has no domain is the same account in all
//! these domains, except where the mailboxes are in another users file (see [`Config::account_groups`]),
//! and unless another line has that name with a domain. A login name without a domain belongs to the
//! first local domain. A `[[domain]]` can have a file of its own, and is then looked up only there. The
//! file is read again when it changes. If it then has errors, the old accounts stay in force. Clients cannot find out whether a name exists: see
//! `sasl::server`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::file::{User, UserTable, parse};
use crate::address::{Address, fold};
use crate::config::table::Watched;
use crate::config::{AccountGroup, Auth, Config, ConfigError, TableFile};
use crate::privsep::Rights;
use crate::sasl::dovecot::Dovecot;
use crate::sasl::secret::Secret;
use crate::sasl::server::{Abilities, Account, Accounts};
use crate::sasl::throttle::Throttle;
use crate::sasl::{Logins, Source, complete};

/// The accounts of one or several users files.
#[derive(Debug, Default)]
struct FileAccounts {
    groups: Vec<Group>,
    /// The number of the group of each domain.
    domains: HashMap<String, usize>,
    /// The group of all other domains; `None` if they have no users file.
    rest: Option<usize>,
    /// The domains whose accounts are in no users file, although others' are.
    elsewhere: HashSet<String>,
    /// The domain that completes a login name without one.
    first: String,
    /// The users files, each once.
    tables: Vec<Arc<Watched<Table>>>,
    /// One secret of each kind in several files, and when they were last asked.
    kinds: Mutex<Option<(Instant, Kinds)>>,
}

/// One secret of each kind, by the name of the kind.
type Kinds = BTreeMap<String, Secret>;

/// How long the kinds of secrets in several files stay known. Each EHLO needs them, and there may be a file
/// for each of hundreds of domains.
const KINDS_KNOWN: Duration = Duration::from_secs(1);

/// The domains that share their accounts.
#[derive(Debug)]
struct Group {
    table: Arc<Watched<Table>>,
    /// The domain that completes the logins of the group; `None` if they have no domain.
    domain: Option<String>,
}

#[derive(Debug)]
struct Table {
    users: UserTable,
    /// The names that have a line without a domain and a line with one.
    repeated: HashSet<Box<str>>,
    /// One secret of each kind.
    kinds: Vec<Secret>,
}

/// Opens the sources of accounts that the configuration names. Returns them and all errors in users
/// files. `throttle` comes from the previous configuration, so that a reload keeps the counts of
/// failures.
pub fn begin(config: &Config, rights: &Rights, throttle: Arc<Throttle>) -> (Logins, Vec<ConfigError>) {
    let first = config.own_domain().to_owned();
    let accounts = FileAccounts { first: first.clone(), ..FileAccounts::default() };
    let mut opened = Opened { rights, accounts, files: HashMap::new(), dovecots: HashMap::new(), errors: Vec::new() };
    let mut groups = config.account_groups().into_iter();
    let rest = groups.next().map_or(Source::Nobody, |group| {
        // A login without a domain belongs to the first local domain.
        let domain = group.domains.first().filter(|domain| **domain != first);
        opened.source(&group, domain.copied())
    });
    opened.accounts.rest = (!opened.accounts.groups.is_empty()).then_some(0);
    let mut by_domain = HashMap::new();
    for group in groups {
        let source = opened.source(&group, group.domains.first().copied());
        // A `[[domain]]` with the accounts of all others has no source of its own.
        if *group.auth == config.auth {
            continue;
        }
        let domains = || group.domains.iter().map(|domain| (*domain).to_owned());
        if !matches!(source, Source::Own) {
            opened.accounts.elsewhere.extend(domains());
        }
        by_domain.extend(domains().map(|domain| (domain, source.clone())));
    }
    let Opened { accounts, errors, .. } = opened;
    (Logins::new(Box::new(accounts), (by_domain, rest), throttle, first), errors)
}

/// The users files that were opened, and the Dovecots that are asked, by path.
struct Opened<'a> {
    rights: &'a Rights,
    accounts: FileAccounts,
    files: HashMap<PathBuf, Arc<Watched<Table>>>,
    dovecots: HashMap<PathBuf, Arc<Dovecot>>,
    errors: Vec<ConfigError>,
}

impl Opened<'_> {
    /// Returns the source of the accounts of a group. If it is a users file, adds the group. `domain`
    /// completes its logins.
    fn source(&mut self, AccountGroup { auth, domains, .. }: &AccountGroup<'_>, domain: Option<&str>) -> Source {
        let path = match auth {
            Auth::None => return Source::Nobody,
            Auth::Dovecot(path) => {
                let dovecot = self.dovecots.entry(path.clone()).or_insert_with(|| Arc::new(Dovecot::at(path)));
                return Source::Dovecot(Arc::clone(dovecot));
            }
            Auth::File(path) => path,
        };
        let table = match self.files.get(path) {
            Some(table) => Arc::clone(table),
            None => {
                let file = TableFile { path: path.clone(), required: true };
                let unreadable = |why: &ConfigError| Table::of(UserTable::unreadable(why));
                let (table, errors) = Watched::open_tolerant_secret(self.rights, &file, read, unreadable);
                self.errors.extend(errors);
                let table = Arc::new(table);
                self.files.insert(path.clone(), Arc::clone(&table));
                self.accounts.tables.push(Arc::clone(&table));
                table
            }
        };
        let number = self.accounts.groups.len();
        self.accounts.domains.extend(domains.iter().map(|name| ((*name).to_owned(), number)));
        self.accounts.groups.push(Group { table, domain: domain.map(str::to_owned) });
        Source::Own
    }
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
        let everywhere = users.domains.get("");
        let with_domain =
            users.domains.iter().filter(|(domain, _)| !domain.is_empty()).flat_map(|(_, names)| names.keys());
        let repeated = with_domain.filter(|name| everywhere.is_some_and(|names| names.contains_key(*name)));
        let repeated = repeated.cloned().collect();
        Self { users, repeated, kinds }
    }

    /// The line of a name in a domain, or for all domains if `domain` is empty.
    fn line(&self, name: &str, domain: &str) -> Option<&User> {
        self.users.domains.get(domain).and_then(|users| users.get(name))
    }
}

impl FileAccounts {
    /// Returns the group of a domain. `None` if its accounts are in no users file.
    fn group(&self, domain: &str) -> Option<&Group> {
        let rest = self.rest.filter(|_| !self.elsewhere.contains(domain));
        self.groups.get(self.domains.get(domain).copied().or(rest)?)
    }

    /// Returns one secret of each kind that the accounts have.
    fn all_kinds(&self) -> Kinds {
        let is_alone = self.tables.len() <= 1;
        let read = || {
            let tables =
                self.tables.iter().map(|table| if is_alone { table.current() } else { table.current_if_seen() });
            tables.flat_map(|table| table.kinds.clone()).map(|secret| (secret.kind(), secret)).collect()
        };
        if is_alone {
            return read();
        }
        let mut known = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((at, kinds)) if at.elapsed() < KINDS_KNOWN => kinds.clone(),
            _ => known.insert((Instant::now(), read())).1.clone(),
        }
    }
}

impl Accounts for FileAccounts {
    fn find(&self, name: &str) -> Option<Account> {
        let address = Address::parse(&complete(name, &self.first)).ok()?;
        let (local, domain) = (fold(address.local()).into_owned(), address.domain());
        let group = self.group(domain)?;
        let table = group.table.current();
        let is_in_group = self.domains.contains_key(domain);
        let of_all = || table.line(&local, "").filter(|_| is_in_group);
        // If another line has the same name with a domain, the name alone would be ambiguous, so
        // the login includes the domain.
        let (user, is_unique) = match table.line(&local, domain) {
            Some(user) => (user, false),
            None => (of_all()?, !table.repeated.contains(local.as_str())),
        };
        let login = match &group.domain {
            None if is_unique => local,
            Some(first) if is_unique => format!("{local}@{first}"),
            _ => format!("{local}@{domain}"),
        };
        Some(Account { login, secret: user.secret.as_deref()?.clone() })
    }

    /// Returns one name for all spellings of an account's name, whether the account exists or not.
    fn qualify(&self, name: &str) -> String {
        let name = complete(name, &self.first);
        let Ok(address) = Address::parse(&name) else { return name };
        let address = address.with_local(&fold(address.local()));
        let Some(group) = self.group(address.domain()) else { return address.to_string() };
        let (table, first) = (group.table.current(), group.domain.as_deref().unwrap_or(&self.first));
        let is_other = |domain: &str| table.line(address.local(), domain).is_some();
        let is_in_group = self.domains.contains_key(address.domain());
        let is_in_all_domains = is_in_group && !is_other(address.domain()) && !is_other(first);
        if is_in_all_domains { address.at(first).to_string() } else { address.to_string() }
    }

    fn domain(&self, name: &str) -> Option<String> {
        Address::parse(&complete(name, &self.first)).ok().map(|address| address.domain().to_owned())
    }

    fn is_one_user(&self, login: &str) -> bool {
        let Ok(login) = Address::parse(login) else { return false };
        let has_no_domain = login.domain().is_empty();
        let domain = if has_no_domain { &self.first } else { login.domain() };
        // Only a trusted proxy names a user without a domain who is in no users file.
        let Some(group) = self.group(domain) else { return has_no_domain };
        // The login has read the file.
        let (table, name) = (group.table.current_if_seen(), fold(login.local()));
        match (table.line(&name, domain), table.line(&name, "")) {
            (Some(_), _) => false,
            (None, Some(_)) => !table.repeated.contains(&*name),
            (None, None) => has_no_domain && !table.users.domains.values().any(|names| names.contains_key(&*name)),
        }
    }

    fn has_users_of_all_domains(&self, domain: &str) -> bool {
        let table = self.group(domain).map(|group| group.table.current_if_seen());
        table.is_some_and(|table| table.users.domains.get("").is_some_and(|names| !names.is_empty()))
    }

    fn kinds(&self) -> Vec<Secret> {
        self.all_kinds().into_values().collect()
    }

    fn abilities(&self) -> Abilities {
        Abilities::of(self.all_kinds().values())
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
        let domains: Vec<_> = ["here", "also.here"].map(str::to_owned).into();
        let by_domain = domains.iter().map(|domain| (domain.clone(), 0)).collect();
        let table = Arc::new(table);
        let accounts = FileAccounts {
            tables: vec![Arc::clone(&table)],
            groups: vec![Group { table, domain: None }],
            domains: by_domain,
            rest: Some(0),
            first: "here".into(),
            ..FileAccounts::default()
        };
        (accounts, errors)
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
