//! Reads the credentials table: the user names and secrets of this server at other hosts.
//!
//! ```text
//! mail.example.net:jon@example.org:a pass: word
//! ann@example.org mail.example.net:ann:another
//! @example.com mail.example.net:example-com:a third
//! [2001:db8::1]:jon:secret
//! smtp.example.com:jon@example.com:xoauth2:file:/var/lib/tokens/jon
//! smtp.example.com:jon@example.com:xoauth2:command:/usr/bin/token jon
//! ```
//!
//! A line consists of a host, a user name without a colon, and the secret, which is the rest of the
//! line. A sender or `@domain` before the host limits the line to messages from that sender or
//! domain. The line with the sender takes precedence over the line with its domain, and both over the
//! line without a sender. A token is read from its file, or from the output of its command, whenever the token is
//! needed. The file or the output contains nothing but the token. The table and the token files
//! must not be accessible to group and others. No secret appears in an error or in `Debug`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::address::{Address, fold, parse_domain};
use crate::config::table::{Line, Watched, lines, read_private};
use crate::config::{Config, ConfigError, HostPort};
use crate::deliver::agent::{AgentPool, Owner, Request, Response};
use crate::destination::{HostTarget, Peer, SenderKey};
use crate::privsep::Rights;
use crate::route::Router;

/// Maximum duration of a command that prints a token, in seconds.
const COMMAND_LIMIT: u32 = 10;
/// Maximum length of a token, in bytes.
const MAX_TOKEN: usize = 8 << 10;

/// The credentials for all hosts.
#[derive(Debug)]
pub struct Credentials(Watched<Table>);

/// The logins by host. A host is written as in the configuration: the name in lower case, or the
/// address.
type Table = HashMap<String, HostLogins>;

/// The logins at one host.
#[derive(Debug, Default)]
struct HostLogins {
    /// The login for messages from any sender.
    general: Option<Arc<Login>>,
    /// The logins for messages from one sender, `local@domain` in lower case, or from the senders of
    /// one domain, `@domain`.
    by_sender: HashMap<SenderKey, Arc<Login>>,
}

impl HostLogins {
    /// The login of an account (see [`Credentials::account`]).
    fn of(&self, account: Option<&str>) -> Option<&Arc<Login>> {
        let found = account.and_then(|account| {
            let domain = || self.by_sender.get(domain_key(account));
            self.by_sender.get(account).or_else(domain)
        });
        found.or(self.general.as_ref())
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Login>> {
        self.general.iter().chain(self.by_sender.values())
    }
}

/// The `@` and the domain of a sender or of an account.
fn domain_key(sender: &str) -> &str {
    sender.rfind('@').map_or(sender, |at| &sender[at..])
}

/// The credentials for one host.
pub struct Login {
    /// The user name.
    pub user: String,
    secret: Secret,
    /// The number of the line in the table.
    line: usize,
    /// The connection to the monitor that starts the command's process, if there is a monitor.
    rights: Rights,
}

enum Secret {
    Password(String),
    TokenFile(PathBuf),
    TokenCommand(Vec<String>),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the table.
    ///
    /// # Errors
    /// If the table cannot be used: all errors in the table, or the error that its permissions are
    /// too wide.
    pub fn open(config: &Config, rights: &Rights) -> Result<Self, Vec<ConfigError>> {
        let login_rights = rights.clone();
        let parse = move |file: &Path, text: &str| parse(file, text, &login_rights);
        Watched::open_private(rights, &config.remote.credentials, parse).map(Self)
    }

    /// Lets a router know the accounts of senders.
    pub fn shared_with(self, router: &Router) -> Arc<Self> {
        let all = Arc::new(self);
        let (of_senders, any) = (Arc::clone(&all), Arc::clone(&all));
        let are_any = move || any.0.current().values().any(|logins| !logins.by_sender.is_empty());
        router.set_accounts(move |hosts, sender| of_senders.account(hosts, sender), are_any);
        all
    }

    /// The account with which messages from a sender go to these hosts: the key of the sender's line.
    /// `None` if no line for one of the hosts names the sender or the domain.
    pub fn account(&self, hosts: &[HostPort], sender: &Address) -> Option<SenderKey> {
        let table = self.0.current();
        let by_sender = || hosts.iter().filter_map(|host| table.get(&host.host)).map(|logins| &logins.by_sender);
        if by_sender().all(HashMap::is_empty) {
            return None;
        }
        let address = format!("{}@{}", fold(sender.local()), sender.domain());
        let keys = [&*address, domain_key(&address)];
        keys.iter().find_map(|key| by_sender().find_map(|logins| Some(logins.get_key_value(*key)?.0.clone())))
    }

    /// The credentials for a host of a destination. `host` is the host as the configuration writes
    /// it: the name in lower case, or the address. A host that was found in the DNS gets none. A store
    /// needs none.
    pub(super) fn at(&self, target: &HostTarget, host: &str) -> Option<Arc<Login>> {
        let HostTarget::Hosts { account, .. } = target else { return None };
        self.0.current().get(host)?.of(account.as_deref()).cloned()
    }

    /// The credentials for an address of a destination (see [`Credentials::at`]).
    pub(super) fn of(&self, target: &HostTarget, peer: &Peer) -> Option<Arc<Login>> {
        self.at(target, &peer.identity())
    }

    /// Warnings about lines that are probably mistakes: a port in place of the user name, or a host
    /// that the configuration does not name. `is_named` tells whether the configuration names a
    /// host.
    pub fn warnings(&self, is_named: impl Fn(&str) -> bool) -> Vec<ConfigError> {
        let table = self.0.current();
        let warning = |host: &str, login: &Login| match login.user.bytes().all(|b| b.is_ascii_digit()) {
            true => Some("the user is a number: write the host without its port".to_owned()),
            false if is_named(host) => None,
            false => Some(format!("this has no effect: no smart host and no route is named {host}")),
        };
        let located = |(host, login): (&String, &Arc<Login>)| {
            warning(host, login).map(|what| ConfigError::new(self.0.path(), login.line, 1, what))
        };
        let logins = table.iter().flat_map(|(host, logins)| logins.all().map(move |login| (host, login)));
        let mut warnings: Vec<_> = logins.filter_map(located).collect();
        warnings.sort_by_key(|error| error.line);
        warnings
    }
}

impl Login {
    /// Whether the secret is a token, for XOAUTH2.
    pub fn is_token(&self) -> bool {
        !matches!(self.secret, Secret::Password(_))
    }

    /// The password, or the current token.
    ///
    /// # Errors
    /// If the token cannot be read: the reason.
    pub fn secret(&self) -> Result<Cow<'_, str>, String> {
        match &self.secret {
            Secret::Password(password) => Ok(Cow::Borrowed(password)),
            Secret::TokenFile(path) => {
                let text = read_private(path, MAX_TOKEN as u64 + 1).map_err(|e| format!("the token: {e}"))?;
                token(&text)
            }
            Secret::TokenCommand(words) => {
                let request =
                    Request::Print { words: words.clone(), limit: COMMAND_LIMIT, max_output: MAX_TOKEN as u32 };
                let printed = AgentPool::new(self.rights.clone()).perform(&Owner::Server, &request, None);
                match printed.map_err(|trouble| format!("the token: {}: {}", trouble.doing, trouble.error))? {
                    Response::Printed(text) => token(&String::from_utf8_lossy(&text)),
                    _ => Err("the token: no answer".to_owned()),
                }
            }
        }
    }
}

fn token(text: &str) -> Result<Cow<'static, str>, String> {
    let token = text.trim();
    let is_one = !token.is_empty() && token.len() <= MAX_TOKEN && token.bytes().all(|b| b.is_ascii_graphic());
    if is_one { Ok(Cow::Owned(token.to_owned())) } else { Err("the token: there is none, or more than one".to_owned()) }
}

fn parse(file: &Path, text: &str, rights: &Rights) -> Result<Table, Vec<ConfigError>> {
    let (mut table, mut errors) = (Table::new(), Vec::new());
    for line in lines(text) {
        let (sender, of_host) = split_sender(line);
        let found = read_sender(sender).and_then(|sender| Ok((sender, read(of_host, rights)?)));
        let (sender, (host, login)) = match found {
            Ok(found) => found,
            Err((part, what)) => {
                errors.push(line.error(file, part, what));
                continue;
            }
        };
        let logins = table.entry(host).or_default();
        let is_known = match sender {
            None => logins.general.replace(Arc::new(login)).is_some(),
            Some(sender) => logins.by_sender.insert(sender, Arc::new(login)).is_some(),
        };
        if is_known {
            errors.push(line.error(file, line.text, "this host is on another line already"));
        }
    }
    if errors.is_empty() { Ok(table) } else { Err(errors) }
}

/// Splits the sender from a line. A first word with `@` and without a colon is a sender, because
/// every other line has a colon in its first word.
fn split_sender(line: Line<'_>) -> (Option<&str>, Line<'_>) {
    match line.text.split_once([' ', '\t']) {
        Some((sender, rest)) if sender.contains('@') && !sender.contains(':') => {
            (Some(sender), Line { text: rest.trim_start(), ..line })
        }
        _ => (None, line),
    }
}

/// Reads a sender or `@domain`, and returns it in lower case.
fn read_sender(text: Option<&str>) -> Result<Option<SenderKey>, (&str, &'static str)> {
    let Some(text) = text else { return Ok(None) };
    let wrong = (text, "expected a sender or @domain before the host");
    if let Some(domain) = text.strip_prefix('@') {
        return Ok(Some(format!("@{}", parse_domain(domain).map_err(|_| wrong)?).into()));
    }
    let address = Address::parse(text).map_err(|_| wrong)?;
    Ok(Some(format!("{}@{}", fold(address.local()), address.domain()).into()))
}

const SCHEMES: [&str; 3] = ["smtp", "smtp+starttls", "smtps"];
const EXPECTED: &str = "expected host:user:secret, an IPv6 address in brackets";

fn read<'a>(line: Line<'a>, rights: &Rights) -> Result<(String, Login), (&'a str, &'static str)> {
    let wrong = (line.text, EXPECTED);
    if line.text.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme)) {
        return Err((line.text, "expected a host without scheme and port, then :user:secret"));
    }
    let end = if line.text.starts_with('[') { line.text.find(']').ok_or(wrong)? + 1 } else { 0 };
    let colon = end + line.text.get(end..).and_then(|rest| rest.find(':')).ok_or(wrong)?;
    let (host, rest) = line.text.split_at_checked(colon).ok_or(wrong)?;
    let (user, secret) = rest.get(1..).and_then(|rest| rest.split_once(':')).ok_or(wrong)?;
    if user.is_empty() || secret.is_empty() || user.contains(char::is_control) || secret.contains(char::is_control) {
        return Err(wrong);
    }
    let host = HostPort::parse(host, 25).ok_or((line.text, "expected the name or the address of a host"))?.host;
    let host = host.parse::<IpAddr>().map_or(host, |address| address.to_canonical().to_string());
    let secret = read_secret(secret).ok_or((
        secret,
        "expected xoauth2:file: and an absolute path, or xoauth2:command:, an absolute path and arguments",
    ))?;
    Ok((host, Login { user: user.to_owned(), secret, line: line.number, rights: rights.clone() }))
}

fn read_secret(text: &str) -> Option<Secret> {
    let Some(token) = text.strip_prefix("xoauth2:") else { return Some(Secret::Password(text.to_owned())) };
    if let Some(path) = token.strip_prefix("file:") {
        return path.starts_with('/').then(|| Secret::TokenFile(path.into()));
    }
    let words: Vec<String> = token.strip_prefix("command:")?.split_ascii_whitespace().map(str::to_owned).collect();
    words.first()?.starts_with('/').then_some(Secret::TokenCommand(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TableFile;

    #[test]
    fn no_error_and_no_debug_output_contains_a_secret() {
        let file = Path::new("credentials");
        let text = "Mail.example.net:jon@x:a pass: hush\n[2001:DB8::1]:jon:hush\n# x\n192.0.2.1:jon:hush\n";
        let table = parse(file, text, &Rights::Alone).expect("good");
        assert_eq!(table["mail.example.net"].of(None).expect("a login").secret().as_deref(), Ok("a pass: hush"));
        assert!(table.contains_key("2001:db8::1") && table.contains_key("192.0.2.1"));
        assert!(!format!("{table:?}").contains("hush"));
        for bad in [
            "hush",
            "smtps://mail.example.net:465:jon:hush",
            "mail:jon",
            "mail::hush",
            "mail:jon:",
            "mail..x:jon:hush",
            "[::1:jon:hush",
            "[::1]x:jon:hush",
            ":jon:hush",
            "mail:jon:xoauth2:hush",
            "mail:jon:xoauth2:file:hush",
            "mail:jon:xoauth2:command:hush x",
            "mail:jon:xoauth2:command:",
            "mail:jon:hush\nMAIL:joe:hush",
            "@x..test mail:jon:hush",
            "@x.test hush",
            "jon@x.test",
            "jon@x.test mail:jon:hush\nJon@X.test\tmail:joe:hush",
        ] {
            let errors = parse(file, bad, &Rights::Alone).expect_err(bad);
            assert_eq!(errors.len(), 1, "{bad}");
            assert!(!format!("{errors:?} {}", errors[0]).contains("hush"), "{errors:?}");
        }
    }

    #[test]
    fn the_line_with_the_sender_takes_precedence() {
        let text = "a.test:any:x\n@x.org a.test:domain:x\nJon@x.org a.test:jon:x\nb.test:jon@x.org:p w\n\
                    ann@x.org c.test:ann:x\n@x.org c.test:shared:x\n@y.org [2001:db8::1]:six:x\n";
        let (file, table) = scratch_table("senders", text);
        let credentials = Credentials(table);
        for (host, sender, account, login) in [
            ("a.test", "jon@x.org", Some("jon@x.org"), Some("jon")),
            ("a.test", "JON@x.org", Some("jon@x.org"), Some("jon")),
            ("a.test", "ann@x.org", Some("@x.org"), Some("domain")),
            ("a.test", "ann@y.org", None, Some("any")),
            ("b.test", "jon@x.org", None, Some("jon@x.org")),
            ("c.test", "ann@x.org", Some("ann@x.org"), Some("ann")),
            ("c.test", "jon@x.org", Some("@x.org"), Some("shared")),
            ("c.test", "jon@y.org", None, None),
            ("2001:db8::1", "jon@y.org", Some("@y.org"), Some("six")),
            ("d.test", "jon@x.org", None, None),
        ] {
            let hosts = vec![HostPort { host: host.to_owned(), port: 25, scheme: crate::config::Scheme::Smtp }];
            let found = credentials.account(&hosts, &sender.parse().expect("an address"));
            assert_eq!(found.as_deref(), account, "{sender} at {host}");
            let target = HostTarget::Hosts { hosts: hosts.into(), account: found };
            let found = credentials.at(&target, host);
            assert_eq!(found.as_ref().map(|login| login.user.as_str()), login, "{sender} at {host}");
        }
        // With several hosts, the account names the sender if one of them has a line for the sender.
        let hosts = ["a.test", "c.test"].map(|host| HostPort {
            host: host.to_owned(),
            port: 25,
            scheme: crate::config::Scheme::Smtp,
        });
        let account = credentials.account(&hosts, &"ann@x.org".parse().expect("an address"));
        let target = HostTarget::Hosts { hosts: hosts.into(), account };
        let login = |host| credentials.at(&target, host).map(|login| login.user.clone());
        assert_eq!((login("a.test").as_deref(), login("c.test").as_deref()), (Some("domain"), Some("ann")));
        let mx = HostTarget::Mx { domain: "x.org".into(), port: 25 };
        assert!(credentials.at(&mx, "a.test").is_none(), "a host from the DNS gets no credentials");
        std::fs::remove_file(&file).expect("it was there");
    }

    /// A table in a file that only this user can read.
    fn scratch_table(name: &str, text: &str) -> (PathBuf, Watched<Table>) {
        use std::os::unix::fs::PermissionsExt;
        let file = std::env::temp_dir().join(format!("penfold-credentials-{name}-{}", std::process::id()));
        std::fs::write(&file, text).expect("write");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a file of ours");
        let table = TableFile { path: file.clone(), required: true };
        let parse = |file: &Path, text: &str| parse(file, text, &Rights::Alone);
        (file, Watched::open_private(&Rights::Alone, &table, parse).expect("good"))
    }

    #[test]
    fn a_line_for_an_unknown_host_is_reported_with_its_number() {
        let file = std::env::temp_dir().join(format!("penfold-credentials-{}", std::process::id()));
        std::fs::write(&file, "# x\nmail.test:jon:hush\n[2001:DB8::1]:jon:hush\n\nother.test:jon:hush\n")
            .expect("write");
        let open = |mode| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("a file of ours");
            let table = TableFile { path: file.clone(), required: true };
            Watched::open_private(&Rights::Alone, &table, |file, text| parse(file, text, &Rights::Alone))
                .map(Credentials)
        };
        assert!(open(0o644).is_err());
        let credentials = open(0o600).expect("good");
        let warnings = |known: &[&str]| -> Vec<_> {
            credentials.warnings(|host| known.contains(&host)).iter().map(|e| (e.line, e.text.clone())).collect()
        };
        let text = "this has no effect: no smart host and no route is named";
        assert_eq!(warnings(&["2001:db8::1"]), [(2, format!("{text} mail.test")), (5, format!("{text} other.test"))]);
        assert_eq!(warnings(&["mail.test", "other.test"]), [(3, format!("{text} 2001:db8::1"))]);
        std::fs::remove_file(&file).expect("it was there");
    }

    #[test]
    fn a_command_prints_a_token() {
        for (command, wanted) in [
            ("/bin/echo tok+en=", Ok("tok+en=")),
            ("/bin/echo two words", Err("there is none, or more than one")),
            ("/bin/true", Err("there is none, or more than one")),
            ("/bin/false", Err("/bin/false: exit status: 1")),
            ("/nonexistent/x", Err("/nonexistent/x: No such file or directory (os error 2)")),
        ] {
            let login = read(Line { number: 1, text: &format!("mail:jon:xoauth2:command:{command}") }, &Rights::Alone)
                .expect("good")
                .1;
            assert!(login.is_token());
            assert_eq!(
                login.secret().as_deref().map_err(|why| why.replace("the token: ", "")),
                wanted.map_err(str::to_owned)
            );
        }
    }
}
