//! Reads the credentials table: the user names and secrets of this server at other hosts.
//!
//! ```text
//! mail.example.net:jon@example.org:a pass: word
//! [2001:db8::1]:jon:secret
//! smtp.example.com:jon@example.com:xoauth2:file:/var/lib/tokens/jon
//! smtp.example.com:jon@example.com:xoauth2:command:/usr/bin/token jon
//! ```
//!
//! A line consists of a host, a user name without a colon, and the secret, which is the rest of the
//! line. A token is read from its file, or from the output of its command, whenever the token is
//! needed. The file or the output contains nothing but the token. The table and the token files
//! must not be accessible to group and others. No secret appears in an error or in `Debug`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::table::{Line, Watched, lines, read_private};
use crate::config::{Config, ConfigError, HostPort};
use crate::deliver::agent::{AgentPool, Owner, Request, Response};
use crate::destination::{HostTarget, Peer};
use crate::privsep::Rights;

/// Maximum duration of a command that prints a token, in seconds.
const COMMAND_LIMIT: u32 = 10;
/// Maximum length of a token, in bytes.
const MAX_TOKEN: usize = 8 << 10;

/// The credentials for all hosts.
#[derive(Debug)]
pub struct Credentials(Watched<HashMap<String, Arc<Login>>>);

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

    /// The credentials for a host. `host` is the host as the configuration writes it: the name in
    /// lower case, or the address.
    pub fn find(&self, host: &str) -> Option<Arc<Login>> {
        self.0.current().get(host).cloned()
    }

    /// The credentials for an address of a destination. A host that was found in the DNS gets none. A
    /// store needs none.
    pub(super) fn of(&self, target: &HostTarget, peer: &Peer) -> Option<Arc<Login>> {
        match target {
            HostTarget::Hosts(_) => self.find(&peer.identity()),
            HostTarget::Mx { .. } | HostTarget::Store(_) => None,
        }
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
        let mut warnings: Vec<_> = table.iter().filter_map(located).collect();
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

fn parse(file: &Path, text: &str, rights: &Rights) -> Result<HashMap<String, Arc<Login>>, Vec<ConfigError>> {
    let (mut table, mut errors) = (HashMap::new(), Vec::new());
    for line in lines(text) {
        match read(line, rights) {
            Err((part, what)) => errors.push(line.error(file, part, what)),
            Ok((host, login)) => match table.entry(host) {
                Entry::Occupied(_) => errors.push(line.error(file, line.text, "this host is on another line already")),
                Entry::Vacant(slot) => _ = slot.insert(Arc::new(login)),
            },
        }
    }
    if errors.is_empty() { Ok(table) } else { Err(errors) }
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
        assert_eq!(table["mail.example.net"].secret().as_deref(), Ok("a pass: hush"));
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
        ] {
            let errors = parse(file, bad, &Rights::Alone).expect_err(bad);
            assert_eq!(errors.len(), 1, "{bad}");
            assert!(!format!("{errors:?} {}", errors[0]).contains("hush"), "{errors:?}");
        }
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
