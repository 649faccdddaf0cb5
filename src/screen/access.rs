//! Reads the access table, whose lines accept, refuse or mark mail from clients that may not relay.
//!
//! A line has a kind, a key and an action:
//!
//! ```text
//! client     192.0.2.0/24          ok
//! client     .dynamic.example      reject 550 5.7.1 no mail from dial-up lines
//! client     unknown               defer
//! helo       spammer.example       reject
//! sender     @partner.example      tag partner
//! recipient  old@example.org       reject 550 5.1.1 this mailbox is closed
//! ```
//!
//! Of each kind, only the most specific line applies. `policy::strangers` decides what the lines of
//! several kinds mean together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::action;
use crate::address::{Address, fold, parse_domain};
use crate::config::table::{Line, Watched, fill};
use crate::config::{Config, ConfigError, Network};
use crate::policy::strangers::{Action, Rule};
use crate::policy::{self, strangers};
use crate::reply::Status;

/// The access table of a configuration.
#[derive(Debug)]
pub struct Access {
    table: Watched<Table>,
    /// The separator between the user and the detail of a recipient; `None` if there are no
    /// details.
    separator: Option<char>,
}

/// The client, the sender and the recipient about which the table is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The client's address, if it is known.
    pub address: Option<IpAddr>,
    /// The client's verified name, as far as it is known.
    pub name: ClientName<'a>,
    /// The name that the client gave in HELO or EHLO.
    pub hello: &'a str,
    /// The sender; `None` for the null reverse-path.
    pub sender: Option<&'a Address>,
    /// The recipient in question.
    pub recipient: &'a Address,
}

/// The result of the look-ups for a client's verified name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientName<'a> {
    /// The client has this name, in lower case.
    Verified(&'a str),
    /// The client has no verified name.
    None,
    /// The look-ups failed.
    Unknown,
}

/// The lines of a table.
#[derive(Debug, Default)]
struct Table {
    /// The rows whose key is a network. The map's key is the length of the network's prefix, and
    /// the network's address with all bits after the prefix zero.
    networks: HashMap<(u8, IpAddr), Row>,
    /// For each kind of line, the rows whose key is not a network. The map's key is the one that
    /// [`key`] returns.
    rows: [HashMap<Box<str>, Row>; 4],
    /// The error, if the file cannot be read.
    unreadable: Option<ConfigError>,
}

#[derive(Debug)]
struct Row {
    line: usize,
    action: Action,
}

/// The kind of a line, its first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Client,
    Helo,
    Sender,
    Recipient,
}

/// The key for clients without a verified name.
const UNKNOWN: &str = "unknown";
/// The key for the null reverse-path.
const NULL: &str = "<>";

impl Access {
    /// Reads the access table. Returns the table and its errors. If the action of a line has an
    /// error, mail to which the line applies is refused temporarily.
    pub fn begin(config: &Config) -> (Self, Vec<ConfigError>) {
        let unreadable = |why: &ConfigError| Table { unreadable: Some(why.clone()), ..Table::default() };
        let (table, errors) = Watched::open_tolerant(&config.policy.access, Table::read, unreadable);
        (Self { table, separator: config.local.subaddress }, errors)
    }

    /// Returns whether the answer of [`Access::rules`] may depend on the client's verified name.
    pub fn needs_name(&self) -> bool {
        !self.table.current().of(Kind::Client).is_empty()
    }

    /// Returns whether the table accepts all mail of a client because of the client's address.
    pub fn is_welcome(&self, address: IpAddr) -> bool {
        self.table.current().network(address).is_some_and(|row| row.action == Action::Ok)
    }

    /// Returns the lines that apply, in their order of precedence: recipient, client, HELO, sender.
    pub fn rules(&self, question: &Question<'_>) -> Vec<Rule> {
        let table = self.table.current();
        let file: Arc<Path> = self.table.path().into();
        let rule = |(row, is_doubtful): (&Row, bool)| Rule {
            action: row.action.clone(),
            line: policy::Line { file: Arc::clone(&file), number: row.line },
            is_doubtful,
        };
        if table.unreadable.is_some() {
            let action = waiting();
            return vec![rule((&Row { line: 0, action }, false))];
        }
        table.find(question, self.separator).into_iter().map(rule).collect()
    }

    /// Returns the decision about a recipient.
    pub fn ask(&self, question: &Question<'_>) -> strangers::Access {
        strangers::access(self.rules(question).iter())
    }
}

impl Table {
    /// Reads the text of a table as far as possible, and returns all errors in the order of the
    /// file.
    fn read(file: &Path, text: &str) -> (Self, Vec<ConfigError>) {
        fill(file, text, Self::add)
    }

    fn add<'a>(&mut self, line: Line<'a>) -> Result<(), (&'a str, String)> {
        let (kind, rest) = word(line.text);
        let (text, rest) = word(rest);
        let of_kind = match kind {
            "client" => Kind::Client,
            "helo" => Kind::Helo,
            "sender" => Kind::Sender,
            "recipient" => Kind::Recipient,
            _ => return Err((kind, "expected client, helo, sender or recipient".to_owned())),
        };
        let (action, error) = match action::parse(rest) {
            Ok(action) => (action, Ok(())),
            Err(what) => (waiting(), Err((if rest.is_empty() { text } else { rest }, what))),
        };
        let row = Row { line: line.number, action };
        let first = match (of_kind, Network::parse(text)) {
            (Kind::Client, Some(network)) => occupied(self.networks.entry(masked(network)), row),
            _ => {
                let key = key(of_kind, text).map_err(|what| (text, what))?;
                occupied(self.rows[of_kind as usize].entry(key), row)
            }
        };
        match first {
            Some(number) => Err((text, format!("{kind} {text} is already on line {number}"))),
            None => error,
        }
    }

    /// Returns the rows that apply, in their order of precedence. The bool of a row says whether it
    /// is doubtful that the row applies. `separator` separates a recipient's user from its detail.
    fn find(&self, question: &Question<'_>, separator: Option<char>) -> Vec<(&Row, bool)> {
        let mut found = Vec::new();
        let recipient = self.mailbox(Kind::Recipient, Some(question.recipient), separator);
        found.extend(recipient.map(|row| (row, false)));
        found.extend(question.address.and_then(|address| self.network(address)).map(|row| (row, false)));
        let unknown = || self.row(Kind::Client, UNKNOWN);
        found.extend(match question.name {
            ClientName::Verified(name) => self.name(Kind::Client, name).map(|row| (row, false)),
            ClientName::None => unknown().map(|row| (row, false)),
            ClientName::Unknown => unknown().map(|row| (row, true)),
        });
        found.extend(self.name(Kind::Helo, &question.hello.to_ascii_lowercase()).map(|row| (row, false)));
        found.extend(self.mailbox(Kind::Sender, question.sender, None).map(|row| (row, false)));
        found
    }

    fn of(&self, kind: Kind) -> &HashMap<Box<str>, Row> {
        &self.rows[kind as usize]
    }

    fn row(&self, kind: Kind, key: &str) -> Option<&Row> {
        self.of(kind).get(key)
    }

    /// Returns the row of the smallest network that contains an address.
    fn network(&self, address: IpAddr) -> Option<&Row> {
        if self.networks.is_empty() {
            return None;
        }
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (0..=bits).rev().find_map(|prefix| self.networks.get(&masked(Network { address, prefix })))
    }

    /// Returns the row of a name, or of the smallest `.domain` that contains the name.
    fn name(&self, kind: Kind, name: &str) -> Option<&Row> {
        let exact = self.row(kind, name).filter(|_| name != UNKNOWN || kind != Kind::Client);
        exact.or_else(|| self.above(kind, name))
    }

    /// Returns the row of the smallest `.domain` that contains a name.
    fn above(&self, kind: Kind, name: &str) -> Option<&Row> {
        // An address literal contains dots, but is in no domain.
        let dots = if name.starts_with('[') { "" } else { name };
        dots.match_indices('.').find_map(|(at, _)| self.row(kind, dots.get(at..)?))
    }

    /// Returns the row of an address, of the address without its detail, of its domain, or of the
    /// smallest `.domain` that contains its domain. The null reverse-path has a row of its own.
    fn mailbox(&self, kind: Kind, address: Option<&Address>, separator: Option<char>) -> Option<&Row> {
        let Some(address) = address else { return self.row(kind, NULL) };
        let base = || Some(address.local().split_once(separator?)?.0).filter(|base| !base.is_empty());
        self.row(kind, &mailbox_key(address))
            .or_else(|| self.row(kind, &mailbox_key(&address.with_local(base()?))))
            .or_else(|| self.row(kind, &format!("@{}", address.domain())))
            .or_else(|| self.above(kind, address.domain()))
    }
}

/// Returns the action for a line that cannot be read: a temporary refusal.
fn waiting() -> Action {
    Action::Refuse(451, Status(4, 3, 5), "The access table has an error, please try again later".into())
}

/// Puts a row into a map. If the key already has a row, returns that row's line instead.
fn occupied<K>(entry: Entry<'_, K, Row>, row: Row) -> Option<usize> {
    match entry {
        Entry::Occupied(first) => Some(first.get().line),
        Entry::Vacant(slot) => {
            slot.insert(row);
            None
        }
    }
}

/// Returns the key of a network: the length of its prefix, and its address with all bits after the
/// prefix zero.
fn masked(Network { address, prefix }: Network) -> (u8, IpAddr) {
    let shift = |bits: u32| bits.saturating_sub(u32::from(prefix));
    let address = match address.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(shift(32)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(shift(128)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    };
    (prefix, address)
}

/// Reads the key of a line: a name, `.domain`, `unknown`, an address, `@domain` or `<>`.
fn key(kind: Kind, text: &str) -> Result<Box<str>, String> {
    let domain = |text: &str| parse_domain(text).ok();
    let below = text.strip_prefix('.').and_then(domain).map(|domain| format!(".{domain}").into());
    let found = match kind {
        Kind::Client if text == UNKNOWN => Some(UNKNOWN.into()),
        Kind::Client => below.or_else(|| domain(text).filter(|name| !name.starts_with('['))),
        Kind::Helo => below.or_else(|| Some(text.to_ascii_lowercase().into()).filter(|_| !text.is_empty())),
        Kind::Sender if text == NULL => Some(NULL.into()),
        Kind::Sender | Kind::Recipient => match text.strip_prefix('@') {
            Some(text) => domain(text).map(|domain| format!("@{domain}").into()),
            None => below.or_else(|| {
                let address = Address::parse(text).ok()?;
                (!address.domain().is_empty()).then(|| mailbox_key(&address).into())
            }),
        },
    };
    let expected = match kind {
        Kind::Client => "expected an address, a network, a name, .domain or unknown",
        Kind::Helo => "expected a name or .domain",
        Kind::Sender => "expected an address, @domain, .domain or <>",
        Kind::Recipient => "expected an address, @domain or .domain",
    };
    found.ok_or_else(|| expected.to_owned())
}

fn mailbox_key(address: &Address) -> String {
    format!("{}@{}", fold(address.local()), address.domain())
}

/// Splits off the first word of a text.
fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or_else(|| text.split_at(text.len()));
    (word, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Mark;

    fn table(text: &str) -> Table {
        let (table, errors) = Table::read(Path::new("access"), text);
        assert_eq!(errors, [], "{text}");
        table
    }

    /// Returns the lines that apply. A doubtful line has a question mark.
    fn found(table: &Table, question: &Question<'_>) -> String {
        let rows = table.find(question, Some('+')).into_iter();
        let shown = rows.map(|(row, is_doubtful)| format!("{}{}", row.line, if is_doubtful { "?" } else { "" }));
        shown.collect::<Vec<_>>().join(" ")
    }

    const TABLE: &str = "\
# line 1
client  192.0.2.0/24           ok
client  192.0.2.7              reject
client  0.0.0.0/0              tag four
client  2001:db8::/32          ok
client  mx.example.org         reject
client  .example.org           reject
client  unknown                reject
helo    Mx.Bad.example         reject
helo    .bad.example           reject
helo    [192.0.2.9]            reject
sender  Jon@example.org        ok
sender  @example.org           ok
sender  .example.org           ok
sender  <>                     tag null
recipient  abuse@razorback     ok
recipient  @razorback          ok
recipient  Old@razorback       reject
recipient  old+new@razorback   ok
recipient  a@example.net       ok
";

    #[test]
    fn the_most_specific_line_of_each_kind_applies() {
        let table = table(TABLE);
        let address = |text: &str| Address::parse(text).expect(text);
        let recipient = address("x@elsewhere");
        let nobody = address("x@nowhere.example");
        let other = Question {
            address: None,
            name: ClientName::Verified("a.b"),
            hello: "a.b",
            sender: Some(&nobody),
            recipient: &recipient,
        };
        let from = |text: &str| Question { address: Some(text.parse().expect(text)), ..other };
        let named = |name| Question { name, ..other };
        assert_eq!(found(&table, &other), "");
        for (question, want) in [
            (from("192.0.2.7"), "3"),
            (from("::ffff:192.0.2.7"), "3"),
            (from("192.0.2.8"), "2"),
            (from("192.0.3.8"), "4"),
            (from("2001:db8:1::1"), "5"),
            (from("2001:db9::1"), ""),
            (named(ClientName::Verified("mx.example.org")), "6"),
            (named(ClientName::Verified("a.b.example.org")), "7"),
            (named(ClientName::Verified("example.org")), ""),
            (named(ClientName::Verified("unknown")), ""),
            (named(ClientName::None), "8"),
            (named(ClientName::Unknown), "8?"),
            (Question { hello: "MX.bad.example", ..other }, "9"),
            (Question { hello: "x.bad.example", ..other }, "10"),
            (Question { hello: "[192.0.2.9]", ..other }, "11"),
            (Question { sender: Some(&address("jon@Example.ORG")), ..other }, "12"),
            (Question { sender: Some(&address("jim@example.org")), ..other }, "13"),
            (Question { sender: Some(&address("jim@a.example.org")), ..other }, "14"),
            (Question { sender: None, ..other }, "15"),
            (Question { recipient: &address("Abuse@razorback"), ..other }, "16"),
            (Question { recipient: &address("jon@razorback"), ..other }, "17"),
            (Question { recipient: &address("jon+x@razorback"), ..other }, "17"),
            (Question { recipient: &address("OLD+x+y@razorback"), ..other }, "18"),
            (Question { recipient: &address("old+@razorback"), ..other }, "18"),
            (Question { recipient: &address("old+new@razorback"), ..other }, "19"),
            (Question { recipient: &address("+old@razorback"), ..other }, "17"),
            (Question { recipient: &address("a-x@example.net"), ..other }, ""),
            (Question { sender: Some(&address("jon+x@example.org")), ..other }, "13"),
            (
                Question {
                    recipient: &address("jon@razorback"),
                    name: ClientName::None,
                    hello: "mx.bad.example",
                    sender: None,
                    ..from("192.0.2.7")
                },
                "17 3 8 9 15",
            ),
        ] {
            assert_eq!(found(&table, &question), want, "{question:?}");
        }
    }

    #[test]
    fn an_erroneous_line_says_what_was_expected() {
        for (text, want) in [
            ("clients 192.0.2.1 ok", "1:1: expected client, helo, sender or recipient"),
            ("client 192.0.2.0/33 ok", "1:8: expected an address, a network, a name, .domain or unknown"),
            ("client 192.0.2.1", "1:8: expected ok, reject, defer, quarantine or tag NAME"),
            ("helo x", "1:6: expected ok, reject, defer, quarantine or tag NAME"),
            ("sender jon reject", "1:8: expected an address, @domain, .domain or <>"),
            ("recipient <> reject", "1:11: expected an address, @domain or .domain"),
            ("client a.b ok\n\nclient A.B reject", "3:8: client A.B is already on line 1"),
        ] {
            let (_, errors) = Table::read(Path::new("access"), text);
            let shown: Vec<_> = errors.iter().map(|e| format!("{}:{}: {}", e.line, e.column, e.text)).collect();
            assert_eq!(shown, [want], "{text}");
        }
    }

    /// If the action of a line is invalid, the mail that the line might have refused must not be
    /// accepted.
    #[test]
    fn mail_waits_for_a_line_with_an_invalid_action() {
        let (table, errors) = Table::read(Path::new("access"), "client 192.0.2.1 refuse\n");
        assert_eq!(errors.len(), 1);
        assert_eq!(table.network("192.0.2.1".parse().expect("an address")).map(|row| &row.action), Some(&waiting()));
    }

    #[test]
    fn mail_waits_if_the_table_cannot_be_read() {
        let mut config = crate::config::default();
        config.policy.access.path = std::env::temp_dir();
        let (access, errors) = Access::begin(&config);
        assert_eq!(errors.len(), 1);
        let recipient = Address::parse("jon@razorback").expect("an address");
        let question =
            Question { address: None, name: ClientName::None, hello: "x", sender: None, recipient: &recipient };
        let Some(policy::Verdict::Defer(reply, reason)) = access.ask(&question).verdict else { panic!() };
        assert_eq!(reply.code(), 451);
        assert_eq!(reason.to_string(), format!("rule=access table={}", std::env::temp_dir().display()));
    }

    /// A file with any content is read without a panic, and each line is either in the table or has
    /// an error.
    #[test]
    fn any_text_is_a_table_or_has_errors() {
        const WORDS: &str = "client helo sender recipient unknown <> @ @a.b .a . a@b 192.0.2.1/33 \
                             ::/0 0/0 ok reject defer 421 550 5.7.1 tag x \u{fc} quarantine";
        let known: Vec<&str> = WORDS.split(' ').collect();
        let mut seed: u32 = 1;
        let mut number = |below: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % below
        };
        for _ in 0..5000 {
            let words: Vec<&str> = (0..1 + number(6)).map(|_| known[number(known.len())]).collect();
            let text = words.join([" ", "\t", "  "][number(3)]);
            let (table, errors) = Table::read(Path::new("access"), &text);
            let rows = table.networks.len() + table.rows.iter().map(HashMap::len).sum::<usize>();
            assert!(errors.len() <= 1 && (rows == 1 || errors.len() == 1), "{text}: {errors:?}");
        }
    }

    #[test]
    fn marks_are_kept() {
        let table = table("sender @a.example tag x\n");
        assert_eq!(
            table.of(Kind::Sender).values().next().map(|row| &row.action),
            Some(&Action::Mark(Mark::Tag("x".into())))
        );
    }
}
