//! Decides which addresses an authenticated user may send from: the user's own, and those of the
//! senders table.
//!
//! The own addresses of a user are those with which the user could log in: see `sasl::server::Accounts`.
//! A line of the table is `login address ...`. A login without a domain stands for that name in
//! every local domain that has the users of `[local]`. An address may also be `@domain`, which stands
//! for all addresses of a domain, or `*`, which stands for any address. An address includes its
//! subaddresses, as it does for incoming mail: `info@` includes `info+sales@`. Case is ignored. Reading
//! never stops at the first error. Authentication itself is in `sasl`.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::rewrite::Rewriting;
use crate::address::{Address, fold, is_same_local, parse_domain};
use crate::config::table::{Line, Watched, fill};
use crate::config::{Config, ConfigError, Domain};
use crate::policy::Facts;
use crate::policy::mail::SenderRight;

/// The senders table, and the settings that decide which addresses are a user's own.
#[derive(Debug)]
pub struct Senders {
    table: Watched<Option<Table>>,
    groups: Arc<Groups>,
    separators: Arc<Separators>,
    known: Arc<Known>,
    /// The rules that replace senders.
    pub rewriting: Arc<Rewriting>,
}

/// What is known about the users of local domains.
#[derive(Default)]
pub struct Known {
    /// Says whether a user is the same in all domains that share the accounts.
    is_one_user: Option<Box<Says>>,
    /// Says whether a whole local part, with what looks like a detail, is that of a user.
    is_user: Option<Box<Says>>,
}

type Says = dyn Fn(&Address) -> bool + Send + Sync;

impl Known {
    /// Makes it from two functions. The first says whether a user is the same in all domains that share
    /// the accounts, and the second whether a whole local part is that of a user.
    pub fn new(
        is_one_user: impl Fn(&Address) -> bool + Send + Sync + 'static,
        is_user: impl Fn(&Address) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { is_one_user: Some(Box::new(is_one_user)), is_user: Some(Box::new(is_user)) }
    }
}

/// What `question` says about an address; `false` if nothing is known.
fn says(question: Option<&Says>, address: &Address) -> bool {
    question.is_some_and(|says| says(address))
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known")
    }
}

/// The local domains by their accounts.
#[derive(Debug)]
struct Groups {
    /// What is known about each domain.
    domains: HashMap<String, Member>,
    /// The first domain of each group. A login without a domain belongs to the first group, which may
    /// have no domain.
    firsts: Vec<Option<String>>,
}

/// What is known about a local domain.
#[derive(Debug)]
struct Member {
    /// The number of its group.
    group: usize,
    /// Whether lines without a domain apply to it.
    has_local_users: bool,
}

impl Groups {
    fn group(&self, domain: &str) -> Option<usize> {
        self.domains.get(domain).map(|member| member.group)
    }

    fn has_local_users(&self, domain: &str) -> bool {
        self.domains.get(domain).is_some_and(|member| member.has_local_users)
    }
}

/// The separators of subaddresses.
#[derive(Debug)]
struct Separators {
    /// Those of the domains that have one of their own.
    by_domain: HashMap<String, Option<char>>,
    /// That of all other domains.
    rest: Option<char>,
}

impl Separators {
    fn of(&self, domain: &str) -> Option<char> {
        self.by_domain.get(domain).copied().unwrap_or(self.rest)
    }
}

/// The rows by name and then by domain of the login, both in lower case. An empty domain stands for
/// every local domain with the users of `[local]`.
type Table = HashMap<Box<str>, HashMap<Box<str>, Row>>;

#[derive(Debug)]
struct Row {
    line: usize,
    grants: Vec<Grant>,
}

/// The addresses that one word after the login permits.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Grant {
    Address(Address),
    Domain(Box<str>),
    Anyone,
}

/// An authenticated user, and the addresses that the user may send from.
#[derive(Debug, Clone)]
pub struct Identity {
    primary: Address,
    /// The group of domains in which the name is this user's; `None` if it is that only in the domain of
    /// the primary address.
    group: Option<usize>,
    groups: Arc<Groups>,
    grants: Vec<Grant>,
    separators: Arc<Separators>,
    known: Arc<Known>,
}

impl Senders {
    /// Reads the senders table and the rewrite table.
    ///
    /// # Errors
    /// All errors in both tables.
    pub fn open(config: &Config) -> Result<Self, Vec<ConfigError>> {
        let (senders, errors) = Self::begin(config, Known::default());
        if errors.is_empty() { Ok(senders) } else { Err(errors) }
    }

    /// Reads the senders table and the rewrite table, and returns the errors in both. A line with
    /// an error permits nothing.
    pub fn begin(config: &Config, known: Known) -> (Self, Vec<ConfigError>) {
        let first = config.own_domain().to_owned();
        let parse = move |file: &Path, text: &str| {
            let (table, errors) = parse(file, text, &first);
            (Some(table), errors)
        };
        let (table, mut errors) = Watched::open_tolerant(&config.submission.senders, parse, |_| None);
        let (rewriting, rewrite_errors) = Rewriting::begin(config);
        errors.extend(rewrite_errors);
        let (groups, separators) = (Arc::new(groups(config)), Arc::new(separators(config)));
        let (known, rewriting) = (Arc::new(known), Arc::new(rewriting));
        (Self { table, groups, separators, known, rewriting }, errors)
    }

    /// Whether one of the tables cannot be read, so that no sender can be checked.
    pub fn are_unreadable(&self) -> bool {
        self.table.current().is_none() || self.rewriting.is_unreadable()
    }

    /// Returns warnings about lines whose login does not exist. `exists` says whether a login
    /// exists.
    pub fn unused(&self, exists: impl Fn(&str) -> bool) -> Vec<ConfigError> {
        let is_used = |name: &str, domain: &str| {
            let exists = |domain: &str| exists(&format!("{name}@{domain}"));
            let mut members = self.groups.domains.iter().filter(|(_, member)| member.has_local_users);
            if domain.is_empty() { members.any(|(domain, _)| exists(domain)) } else { exists(domain) }
        };
        let table = self.table.current();
        let rows =
            table.iter().flatten().flat_map(|(name, rows)| rows.iter().map(move |(domain, row)| (name, domain, row)));
        let unused = rows.filter(|(name, domain, _)| !is_used(name, domain));
        let mut lines: Vec<_> = unused.map(|(name, _, row)| (row.line, name)).collect();
        lines.sort_unstable();
        let warning = |line, name| {
            ConfigError::new(self.table.path(), line, 1, format!("this has no effect: no user logs in as {name}"))
        };
        lines.into_iter().map(|(line, name)| warning(line, name)).collect()
    }

    /// Whether the client's account may use a sender. If the login name is not an address, the account
    /// may use no sender, not even the null path.
    pub fn right(&self, facts: &Facts<'_>, sender: Option<&Address>) -> SenderRight {
        if facts.is_submission() && self.are_unreadable() {
            return SenderRight::Unknown;
        }
        let Some(login) = facts.account() else { return SenderRight::Granted };
        let identity = self.identity(login);
        let is_granted = identity.is_some_and(|identity| sender.is_none_or(|sender| identity.may_use(sender)));
        if is_granted { SenderRight::Granted } else { SenderRight::Denied }
    }

    /// Returns the user with this login; `None` if the login is not an address.
    pub fn identity(&self, login: &str) -> Option<Identity> {
        let login = Address::parse(login).ok()?;
        let domain = login.domain();
        let group = if domain.is_empty() { Some(0) } else { self.groups.group(domain) };
        let group = group.filter(|_| says(self.known.is_one_user.as_deref(), &login));
        let first = self.groups.firsts.get(group.unwrap_or(0)).and_then(Option::as_deref);
        let primary = if group.is_some() || domain.is_empty() { login.at(first?) } else { login.clone() };
        // Users of a `[[domain]]` with users of its own are other people with the same names.
        let is_local = domain.is_empty() || self.groups.has_local_users(primary.domain());
        let (groups, separators, known) =
            (Arc::clone(&self.groups), Arc::clone(&self.separators), Arc::clone(&self.known));
        let mut identity = Identity { primary, group, groups, grants: Vec::new(), separators, known };
        let table = self.table.current();
        let rows = table.as_ref().as_ref().and_then(|table| table.get(&*fold(login.local())));
        let applies = |domain: &str| if domain.is_empty() { is_local } else { identity.has_domain(domain) };
        let rows = rows.into_iter().flatten().filter(|(domain, _)| applies(domain));
        let grants = rows.flat_map(|(_, row)| row.grants.iter().cloned()).collect();
        identity.grants = grants;
        Some(identity)
    }
}

/// Returns the local domains by their accounts.
fn groups(config: &Config) -> Groups {
    let is_local = |table: &Domain| (&table.local.users, &table.auth) == (&config.local.users, &config.auth);
    let others = config.domains.iter().filter(|table| !is_local(table)).flat_map(|table| &table.local.domains);
    let others: HashSet<&str> = others.map(String::as_str).collect();
    let groups = config.account_groups();
    let firsts = groups.iter().map(|group| group.domains.first().map(|first| (*first).to_owned())).collect();
    let numbered =
        groups.iter().enumerate().flat_map(|(number, group)| group.domains.iter().map(move |name| (number, *name)));
    let member =
        |(group, name): (usize, &str)| (name.to_owned(), Member { group, has_local_users: !others.contains(name) });
    Groups { domains: numbered.map(member).collect(), firsts }
}

/// Returns the separators of subaddresses.
fn separators(config: &Config) -> Separators {
    let own = config.locals().filter(|local| local.subaddress != config.local.subaddress);
    let by_domain = own.flat_map(|local| local.domains.iter().map(|name| (name.clone(), local.subaddress))).collect();
    Separators { by_domain, rest: config.local.subaddress }
}

impl Identity {
    /// Returns the user's own address, or the first one if the user has several.
    pub fn primary(&self) -> &Address {
        &self.primary
    }

    /// Whether an address is the user's own, with or without a subaddress.
    pub fn is_own(&self, address: &Address) -> bool {
        self.has_domain(address.domain()) && self.includes(&self.primary.at(address.domain()), address)
    }

    /// Whether the user's name is this user's in a domain.
    fn has_domain(&self, domain: &str) -> bool {
        domain == self.primary.domain() || self.group.is_some_and(|group| self.groups.group(domain) == Some(group))
    }

    /// Whether the user may send from this address.
    pub fn may_use(&self, address: &Address) -> bool {
        let covers = |grant: &Grant| match grant {
            Grant::Address(granted) => self.includes(granted, address),
            Grant::Domain(domain) => **domain == *address.domain(),
            Grant::Anyone => true,
        };
        self.is_own(address) || self.grants.iter().any(covers)
    }

    /// Whether the user may send from any address.
    pub fn is_anyone(&self) -> bool {
        self.grants.contains(&Grant::Anyone)
    }

    /// Whether `used` is the address `granted`, or a subaddress of it.
    fn includes(&self, granted: &Address, used: &Address) -> bool {
        // Some readers could take a tag that needs quotes for an address, so such a tag is not
        // accepted.
        let is_plain = |tag: &str| tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-_=.#".contains(&b));
        let parts = self.separators.of(granted.domain()).and_then(|mark| used.local().split_once(mark));
        let base = parts.filter(|(_, tag)| is_plain(tag)).map(|(base, _)| base);
        let is_same = |local: &str| is_same_local(local, granted.local());
        // As for incoming mail, a whole name that is a user is not a detail of another.
        let is_detail = || base.is_some_and(is_same) && !says(self.known.is_user.as_deref(), used);
        granted.domain() == used.domain() && (is_same(used.local()) || is_detail())
    }
}

fn parse(file: &Path, text: &str, first_domain: &str) -> (Table, Vec<ConfigError>) {
    fill(file, text, |table, line| add(table, line, first_domain))
}

/// Adds the permissions on one line to the table. The error is the wrong part of the line, and what
/// is wrong with it.
fn add<'a>(table: &mut Table, line: Line<'a>, first_domain: &str) -> Result<(), (&'a str, String)> {
    let mut words = line.text.split_whitespace();
    let Some(login) = words.next() else { return Ok(()) };
    if login.starts_with(['@', '*']) {
        return Err((login, "expected a login: user@domain or user".to_owned()));
    }
    if login.ends_with(':') {
        return Err((login, "expected a login and addresses, without a colon".to_owned()));
    }
    let user = Address::parse(login).map_err(|error| (login, error.to_string()))?;
    let grants = words.map(|word| grant(word, first_domain).map_err(|error| (word, error)));
    let grants = grants.collect::<Result<Vec<_>, _>>()?;
    if grants.is_empty() {
        return Err((login, "expected addresses after the login".to_owned()));
    }
    let rows = table.entry(fold(user.local()).into()).or_default();
    match rows.entry(user.domain().into()) {
        Entry::Occupied(mut first) => {
            // If two lines have the same login, neither line counts.
            first.get_mut().grants.clear();
            Err((login, format!("{login} is already on line {}", first.get().line)))
        }
        Entry::Vacant(slot) => {
            slot.insert(Row { line: line.number, grants });
            Ok(())
        }
    }
}

fn grant(word: &str, first_domain: &str) -> Result<Grant, String> {
    if word.len() > 1 && word.trim_matches(',').len() < word.len() {
        return Err("addresses are separated by blanks, without commas".to_owned());
    }
    if word == "*" {
        return Ok(Grant::Anyone);
    }
    if let Some(domain) = word.strip_prefix('@') {
        return parse_domain(domain).map(Grant::Domain).map_err(|error| error.to_string());
    }
    if word.starts_with('*') {
        return Err("expected an address, @domain, or * alone".to_owned());
    }
    let address = Address::parse(word).map_err(|error| match word.contains(',') {
        true => "addresses are separated by blanks, without commas".to_owned(),
        false => error.to_string(),
    })?;
    Ok(Grant::Address(if address.domain().is_empty() { address.at(first_domain) } else { address }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TableFile, parse as configure};

    /// Returns senders with this table, in the local domains razorback.test and frogbog.test.
    fn senders(table: &str) -> Senders {
        let text = "hostname = \"razorback.test\"\nlocal.domains = [\"razorback.test\", \"frogbog.test\"]\n";
        let config = configure(Path::new("penfold.conf"), text).expect("a configuration");
        let rewriting = Arc::new(Rewriting::begin(&config).0);
        let (groups, separators, table) = (groups(&config).into(), separators(&config).into(), table.to_owned());
        let none = TableFile { path: "/nonexistent/senders".into(), required: false };
        let parse = move |file: &Path, _: &str| {
            let (table, _) = parse(file, &table, "razorback.test");
            (Some(table), Vec::new())
        };
        Senders {
            table: Watched::open_tolerant(&none, parse, |_| None).0,
            groups,
            separators,
            known: Arc::new(Known::new(|login| login.domain().is_empty(), |_| false)),
            rewriting,
        }
    }

    #[test]
    fn users_may_send_from_their_own_addresses_and_those_of_the_table() {
        let senders = senders(
            "# comment\njon@razorback.test Info@Razorback.Test sales\nnews @lists.test\nRoot@razorback.test *\nanna@elsewhere.test x@y.test\n",
        );
        for (login, address, may) in [
            ("jon@razorback.test", "jon@razorback.test", true),
            ("jon@razorback.test", "JON@razorback.test", true),
            ("jon@razorback.test", "jon+list@razorback.test", true),
            ("jon@razorback.test", "jon+a+b@razorback.test", true),
            ("jon@razorback.test", "jonny@razorback.test", false),
            ("jon@razorback.test", "+jon@razorback.test", false),
            ("jon@razorback.test", "jon-list@razorback.test", false),
            ("jon@razorback.test", "jon@frogbog.test", false),
            ("jon@razorback.test", "jon@sub.razorback.test", false),
            ("jon@razorback.test", "info@razorback.test", true),
            ("jon@razorback.test", "info+x@razorback.test", true),
            ("jon@razorback.test", "sales@razorback.test", true),
            ("jon@razorback.test", "any@lists.test", false),
            ("jon@frogbog.test", "info@razorback.test", false),
            ("jon@frogbog.test", "jon@frogbog.test", true),
            ("jon", "jon@razorback.test", true),
            ("jon", "jon+x@frogbog.test", true),
            ("jon", "jon@elsewhere.test", false),
            ("jon", "info@razorback.test", true),
            ("news", "x@lists.test", true),
            ("news@razorback.test", "bounce-1@lists.test", true),
            ("news@frogbog.test", "x@lists.test", true),
            ("news@elsewhere.test", "x@lists.test", false),
            ("news@razorback.test", "x@sub.lists.test", false),
            ("root@razorback.test", "anyone@at.all", true),
            ("root@frogbog.test", "anyone@at.all", false),
            ("anna@elsewhere.test", "x@y.test", true),
            ("jon", "jon@razorback.test", true),
            ("jon", "info@razorback.test", true),
        ] {
            let identity = senders.identity(login).expect(login);
            assert_eq!(identity.may_use(&address.parse().expect(address)), may, "{login} as {address}");
        }
        assert!(senders.identity("a b").is_none());
        assert!(senders.identity("root@razorback.test").is_some_and(|root| root.is_anyone()));
    }

    #[test]
    fn a_line_with_an_error_permits_nothing() {
        let senders = senders("jon info@x.test sa;les@x.test\nmary a@x.test\nann a@x.test\nMARY b@x.test\nj;n *\n");
        for (login, address, may) in [
            ("jon", "info@x.test", false),
            ("jon", "jon@razorback.test", true),
            ("mary", "a@x.test", false),
            ("mary", "b@x.test", false),
            ("ann", "a@x.test", true),
        ] {
            let identity = senders.identity(login).expect(login);
            assert_eq!(identity.may_use(&address.parse().expect(address)), may, "{login} as {address}");
        }
    }

    #[test]
    fn a_line_for_an_unknown_login_gets_a_warning_with_its_place() {
        let senders = senders("# x\njon *\nMary @x\nanna@frogbog.test *\npaul@elsewhere.test *\n");
        let logins = ["jon@frogbog.test", "anna@razorback.test", "paul@elsewhere.test"];
        let unused = senders.unused(|name| logins.contains(&name));
        let warnings: Vec<_> = unused.iter().map(|e| (e.line, e.column, e.text.as_str())).collect();
        let text = |name: &str| format!("this has no effect: no user logs in as {name}");
        assert_eq!(warnings, [(3, 1, &*text("mary")), (4, 1, &*text("anna"))]);
    }

    #[test]
    fn errors_in_the_table_have_a_line_and_a_column() {
        for (text, place) in [
            ("jon", "1:1: expected addresses after the login"),
            ("\njon info@x sa;les@x", "2:12: the part before the @ is not a valid name"),
            ("jon info@x, sales@x", "1:5: addresses are separated by blanks, without commas"),
            ("jon info@x,sales@x", "1:5: addresses are separated by blanks, without commas"),
            ("jon @x, sales@x", "1:5: addresses are separated by blanks, without commas"),
            ("jon: info@x", "1:1: expected a login and addresses, without a colon"),
            ("jon *@x", "1:5: expected an address, @domain, or * alone"),
            ("jon @", "1:5: the domain is not valid"),
            ("* jon@x", "1:1: expected a login: user@domain or user"),
            ("@x jon@x", "1:1: expected a login: user@domain or user"),
            ("jon a@x\nJON b@x", "2:1: JON is already on line 1"),
        ] {
            let errors = parse(Path::new("senders"), text, "razorback.test").1;
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [format!("senders:{place}")]);
        }
        assert_eq!(parse(Path::new("senders"), "a\nb\n", "x").1.len(), 2);
    }
}
