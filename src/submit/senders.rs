//! Decides which addresses an authenticated user may send from: the user's own, and those of the
//! senders table.
//!
//! A line of the table is `login address ...`. A login without a domain stands for that name in
//! every local domain that has the users of `[local]`. An address may also be `@domain`, which stands for all addresses of a
//! domain, or `*`, which stands for any address. An address includes its subaddresses, as it does
//! for incoming mail: `info@` includes `info+sales@`. Case is ignored. Reading never stops at the
//! first error. Authentication itself is in `sasl`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::rewrite::Rewriting;
use crate::address::{Address, fold, is_same_local, parse_domain};
use crate::config::table::{Line, Watched, fill};
use crate::config::{Auth, Config, ConfigError, Domain};
use crate::policy::Facts;
use crate::policy::mail::SenderRight;

/// The senders table, and the settings that decide which addresses are a user's own.
#[derive(Debug)]
pub struct Senders {
    table: Watched<Option<Table>>,
    /// The local domains by the users and accounts that they have. The first group has those of
    /// `[local]`: a login without a domain is one of them.
    groups: Vec<Vec<String>>,
    separators: Arc<Separators>,
    known: Arc<Known>,
    /// The rules that replace senders.
    pub rewriting: Arc<Rewriting>,
}

/// What is known about the users of local domains.
#[derive(Default)]
pub struct Known {
    /// Says whether a user is the same in all domains that have the same users.
    is_one_user: Option<Box<Says>>,
    /// Says whether a whole local part, with what looks like a detail, is that of a user.
    is_user: Option<Box<Says>>,
}

type Says = dyn Fn(&Address) -> bool + Send + Sync;

impl Known {
    /// Makes it from two functions. The first says whether a user is the same in all domains that have
    /// the same users, and the second whether a whole local part is that of a user.
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

/// The rows by name and domain of the login, both in lower case. An empty domain stands for every
/// local domain with the users of `[local]`.
type Table = HashMap<(Box<str>, Box<str>), Row>;

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
    /// All addresses of the user; the primary address is the first.
    addresses: Vec<Address>,
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
        let (groups, separators) = domains(config);
        let (known, rewriting) = (Arc::new(known), Arc::new(rewriting));
        (Self { table, groups, separators, known, rewriting }, errors)
    }

    /// Returns all addresses of a user.
    fn addresses(&self, login: Address) -> Vec<Address> {
        let everywhere = |group: &Vec<String>| group.iter().map(|domain| login.at(domain)).collect();
        if login.domain().is_empty() {
            return self.groups.first().map(everywhere).unwrap_or_default();
        }
        // The users of [local] have logins without a domain where they are the same in all domains.
        let group = self.groups.iter().skip(1).find(|group| group.iter().any(|name| name == login.domain()));
        group
            .filter(|_| says(self.known.is_one_user.as_deref(), &login))
            .map_or_else(|| vec![login.clone()], everywhere)
    }

    /// Whether one of the tables cannot be read, so that no sender can be checked.
    pub fn are_unreadable(&self) -> bool {
        self.table.current().is_none() || self.rewriting.is_unreadable()
    }

    /// Returns warnings about lines whose login does not exist. `exists` says whether a login
    /// exists.
    pub fn unused(&self, exists: impl Fn(&str) -> bool) -> Vec<ConfigError> {
        let is_unused = |name: &str, domain: &str| {
            let all = || self.groups.iter().take(1).flatten().map(String::as_str);
            let domains: Vec<&str> = if domain.is_empty() { all().collect() } else { vec![domain] };
            !domains.iter().any(|domain| exists(&format!("{name}@{domain}")))
        };
        let table = self.table.current();
        let unused = table.iter().flatten().filter(|((name, domain), _)| is_unused(name, domain));
        let mut lines: Vec<_> = unused.map(|((name, _), row)| (row.line, name)).collect();
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
        let addresses = self.addresses(Address::parse(login).ok()?);
        let primary = addresses.first()?.clone();
        let table = self.table.current();
        let name: Box<str> = fold(primary.local()).into();
        // Users of a `[[domain]]` with users of its own are other people with the same names.
        let is_local = self.groups.first().is_some_and(|group| group.iter().any(|domain| domain == primary.domain()));
        let row = |domain: &str| table.as_ref().as_ref().and_then(|table| table.get(&(name.clone(), domain.into())));
        let own_rows = addresses.iter().map(|address| row(address.domain()));
        let rows = own_rows.chain([row("").filter(|_| is_local)]);
        let grants = rows.flatten().flat_map(|row| row.grants.iter().cloned()).collect();
        let (separators, known) = (Arc::clone(&self.separators), Arc::clone(&self.known));
        Some(Identity { primary, addresses, grants, separators, known })
    }
}

/// Returns the local domains by their users and accounts, and the separators of their subaddresses.
fn domains(config: &Config) -> (Vec<Vec<String>>, Arc<Separators>) {
    let first = (&config.local.users, &config.auth);
    let (alike, own): (Vec<_>, Vec<_>) =
        config.domains.iter().partition(|domain| (&domain.local.users, &domain.auth) == first);
    let alike = std::iter::once(&config.local).chain(alike.into_iter().map(|domain| &domain.local));
    let mut groups = vec![alike.flat_map(|local| local.domains.iter().cloned()).collect()];
    // Only with accounts in a users file it is known that a name is one user in several domains.
    let is_known = |domain: &&Domain| matches!(domain.auth, Auth::File(_));
    groups.extend(own.into_iter().filter(is_known).map(|domain| domain.local.domains.clone()));
    let own = config.locals().filter(|local| local.subaddress != config.local.subaddress);
    let by_domain = own.flat_map(|local| local.domains.iter().map(|name| (name.clone(), local.subaddress))).collect();
    (groups, Arc::new(Separators { by_domain, rest: config.local.subaddress }))
}

impl Identity {
    /// Returns the user's own address, or the first one if the user has several.
    pub fn primary(&self) -> &Address {
        &self.primary
    }

    /// Whether an address is the user's own, with or without a subaddress.
    pub fn is_own(&self, address: &Address) -> bool {
        self.addresses.iter().any(|granted| self.includes(granted, address))
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
    match table.entry((fold(user.local()).into(), user.domain().into())) {
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
        let ((groups, separators), table) = (domains(&config), table.to_owned());
        let none = TableFile { path: "/nonexistent/senders".into(), required: false };
        let parse = move |file: &Path, _: &str| {
            let (table, _) = parse(file, &table, "razorback.test");
            (Some(table), Vec::new())
        };
        Senders {
            table: Watched::open_tolerant(&none, parse, |_| None).0,
            groups,
            separators,
            known: Arc::default(),
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
