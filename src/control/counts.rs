//! Counts the messages of the queue by sender, domain, reason or age, like the program qshape of
//! Postfix.
//!
//! A message counts once in each row that it belongs to: in the rows of all domains of its
//! recipients, for example. The number of rows is limited, so that mail from many
//! addresses takes little memory; further messages count in the row of the others.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use super::list::{hold_reason, in_words, note, result};
use super::messages::{Found, Message, Waiting, Walk};
use super::selection::{State, age_of};
use super::visible::without_host;
use crate::address;
use crate::json::{Format, Object};
use crate::queue::NOT_TRIED;
use crate::spool::Note;
use crate::sys;

/// The maximum number of rows that are counted.
const MAX_ROWS: usize = 10_000;
/// The number of rows that are shown without a limit.
const SHOWN: usize = 20;
/// The maximum length of a reason, in characters.
const MAX_REASON: usize = 120;
/// The ages that divide the columns: the head of the column, its name in JSON, and the age in
/// seconds below which a message counts in it.
const AGES: [(&str, &str, u64); 8] = [
    ("<5m", "under_5m", 300),
    ("<15m", "under_15m", 900),
    ("<1h", "under_1h", 3600),
    ("<4h", "under_4h", 4 * 3600),
    ("<12h", "under_12h", 12 * 3600),
    ("<1d", "under_1d", 86_400),
    ("<3d", "under_3d", 3 * 86_400),
    ("older", "older", u64::MAX),
];
/// The name of the row for everything that was counted after the maximum number of rows.
const OTHERS: &str = "(others)";

/// What the rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The senders of the envelopes.
    Sender,
    /// The domains of the recipients that still wait.
    Domain,
    /// Why the recipients still wait.
    Reason,
    /// The ages of the messages. The columns are the states of the recipients.
    Age,
}

impl By {
    /// Parses the word for a kind of rows.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "sender" => Self::Sender,
            "domain" => Self::Domain,
            "reason" => Self::Reason,
            "age" => Self::Age,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Domain => "domain",
            Self::Reason => "reason",
            Self::Age => "age",
        }
    }

    /// The columns: their heads, and their names in JSON.
    fn columns(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Age => State::ALL.map(|state| (state.word(), state.word())).to_vec(),
            _ => AGES.map(|(head, name, _)| (head, name)).to_vec(),
        }
    }
}

/// The counts of a row.
#[derive(Debug, Clone, Default)]
struct Row {
    messages: u64,
    octets: u64,
    columns: [u64; AGES.len()],
}

/// The counts of all rows.
struct Counts {
    by: By,
    rows: HashMap<String, Row>,
    now: u64,
}

/// Writes a line for each row, the largest first, and a line for all messages. With JSON, each row
/// is an object.
///
/// # Errors
/// The errors of reading the spool's directories and of writing to `out`.
pub fn count(
    walk: &Walk<'_>,
    (by, shown): (By, Option<usize>),
    format: Format,
    out: &mut dyn Write,
    idle: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut counts = Counts { by, rows: HashMap::new(), now: sys::now() };
    let take = |found| {
        if let Found::Message(message) = found {
            let note = if by == By::Reason { note(walk, &message) } else { Note::default() };
            counts.add(&message, &note, walk.submitted_by.is_some());
        }
        Ok(())
    };
    let total = walk.run(take, &mut || idle(out))?;
    let (rows, all) = counts.end(shown.unwrap_or(SHOWN));
    match format {
        Format::Json => rows.iter().try_for_each(|(name, row)| writeln!(out, "{}", json(by, name, row))),
        Format::Text if rows.is_empty() => writeln!(out, "{}", in_words(total)),
        Format::Text => text(by, &rows, &all, out).and_then(|()| writeln!(out, "{}", in_words(total))),
    }
}

impl Counts {
    fn add(&mut self, message: &Message, note: &Note, is_for_user: bool) {
        let (id, size) = (message.entry.id(), message.entry.content_size());
        let age = age_column(age_of(id, self.now));
        let (names, columns): (BTreeSet<String>, BTreeSet<usize>) = match self.by {
            By::Sender => ([address::path(message.entry.sender()).to_lowercase()].into(), [age].into()),
            By::Domain => {
                let domain = |to: &Waiting| to.recipient.address.domain().to_owned();
                (message.recipients.iter().map(domain).collect(), [age].into())
            }
            By::Reason => {
                let held = hold_reason(&message.entry, note, is_for_user);
                let reason = |to: &Waiting| reason(to, note, held.as_deref(), is_for_user);
                (message.recipients.iter().map(reason).collect(), [age].into())
            }
            By::Age => {
                let state = |to: &Waiting| State::ALL.iter().position(|state| *state == to.state).unwrap_or(0);
                ([AGES[age].0.to_owned()].into(), message.recipients.iter().map(state).collect())
            }
        };
        for row in names {
            let is_full = self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&row);
            let row = self.rows.entry(if is_full { OTHERS.to_owned() } else { row }).or_default();
            row.messages += 1;
            row.octets = row.octets.saturating_add(size);
            columns.iter().for_each(|&column| row.columns[column] += 1);
        }
    }

    /// Returns the first rows and, if there are more, one row for the others. The second value is the
    /// sum of all rows.
    fn end(self, shown: usize) -> (Vec<(String, Row)>, Row) {
        let mut rows: Vec<(String, Row)> = self.rows.into_iter().collect();
        if self.by == By::Age {
            rows.sort_by_key(|(name, _)| AGES.iter().position(|(head, ..)| head == name));
        } else {
            rows.sort_by(|(a, one), (b, other)| {
                (name_is_others(a), other.messages, a).cmp(&(name_is_others(b), one.messages, b))
            });
        }
        let all = sum(&rows);
        if rows.len() > shown {
            let rest = rows.split_off(shown);
            rows.push((OTHERS.to_owned(), sum(&rest)));
        }
        (rows, all)
    }
}

fn name_is_others(name: &str) -> bool {
    name == OTHERS
}

fn sum(rows: &[(String, Row)]) -> Row {
    rows.iter().fold(Row::default(), |mut sum, (_, row)| {
        sum.messages += row.messages;
        sum.octets = sum.octets.saturating_add(row.octets);
        sum.columns.iter_mut().zip(row.columns).for_each(|(sum, count)| *sum += count);
        sum
    })
}

fn age_column(age: u64) -> usize {
    AGES.iter().position(|(_, _, below)| age < *below).unwrap_or(AGES.len() - 1)
}

/// Why a recipient waits, in a form that many messages share: without the host, addresses and
/// numbers other than reply codes.
fn reason(to: &Waiting, note: &Note, held: Option<&str>, is_for_user: bool) -> String {
    match to.state {
        State::Held => format!("held: {}", masked(held.unwrap_or("no reason is known"))),
        State::Scheduled => "the sender wants it kept until a time".to_owned(),
        _ => match result(to, note, is_for_user) {
            Some(result) => masked(&cause(&without_host(&result))),
            None if to.last > 0 => "not known".to_owned(),
            None if to.state == State::Running => "being tried for the first time".to_owned(),
            None => "not tried yet".to_owned(),
        },
    }
}

/// The cause of a result: while a destination is down, mail for it is not tried, for the cause that was seen
/// before. The number of an error of the operating system says no more than its text.
fn cause(result: &str) -> String {
    let cause =
        result.strip_prefix(NOT_TRIED).and_then(|rest| rest.split_once(": ")).map_or(result, |(_, cause)| cause);
    match cause.split_once(" (os error ") {
        Some((text, rest)) => format!("{text}{}", rest.split_once(')').map_or("", |(_, rest)| rest)),
        None => cause.to_owned(),
    }
}

/// Replaces addresses, ids and numbers, except for the reply code and the status at the front.
fn masked(text: &str) -> String {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let is_code = words.len() < 2 && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let has = |c: char| word.contains(c);
        words.push(match word {
            _ if is_code => word.to_owned(),
            _ if has('@') || has('<') && has('>') => "<...>".to_owned(),
            _ if word.bytes().any(|b| b.is_ascii_digit()) => "#".to_owned(),
            _ => word.to_owned(),
        });
    }
    let text = words.join(" ");
    if text.chars().count() <= MAX_REASON {
        text
    } else {
        text.chars().take(MAX_REASON - 3).collect::<String>() + "..."
    }
}

/// Writes the rows, with the name of each at its end.
fn text(by: By, rows: &[(String, Row)], all: &Row, out: &mut dyn Write) -> io::Result<()> {
    let columns = by.columns();
    let line = |out: &mut dyn Write, cells: [String; 2], counts: &[String], name: &str| {
        write!(out, "{:>8} {:>12}", cells[0], cells[1])?;
        counts.iter().zip(&columns).try_for_each(|(count, (head, _))| {
            let width = head.len().max(6);
            write!(out, " {count:>width$}")
        })?;
        writeln!(out, "  {name}")
    };
    let heads: Vec<String> = columns.iter().map(|(head, _)| (*head).to_owned()).collect();
    line(out, ["messages".into(), "octets".into()], &heads, by.word())?;
    for (name, row) in rows.iter().map(|(name, row)| (&**name, row)).chain([("(all rows)", all)]) {
        let counts: Vec<String> = row.columns.iter().map(ToString::to_string).collect();
        line(out, [row.messages.to_string(), row.octets.to_string()], &counts, &name.replace(char::is_control, " "))?;
    }
    Ok(())
}

fn json(by: By, name: &str, row: &Row) -> Object {
    let mut object = Object::new();
    object.text(by.word(), name).number("messages", row.messages).number("octets", row.octets);
    for ((_, column), count) in by.columns().iter().zip(row.columns) {
        object.number(column, count);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_same_for_many_messages() {
        for (result, wanted) in [
            (
                "mx.x.test[192.0.2.1]:25 450 4.2.0 <jon@x.test> Greylisted, try in 300 seconds",
                "450 4.2.0 <...> Greylisted, try in # seconds",
            ),
            ("450 4.2.0 no host", "450 4.2.0 no host"),
            ("/var/mail/jon the disk is full", "the disk is full"),
            ("not tried: the destination has been down for 12 min: timed out", "timed out"),
            ("[127.0.0.2]:25 connecting: Connection refused (os error 111)", "connecting: Connection refused"),
            (
                "[127.0.0.2]:25 not tried: the destination has been down for 20 s: connecting: Connection refused",
                "connecting: Connection refused",
            ),
            ("", ""),
        ] {
            assert_eq!(masked(&cause(&without_host(result))), wanted, "{result}");
        }
        assert_eq!(masked(&"x ".repeat(500)).chars().count(), MAX_REASON);
    }

    #[test]
    fn rows_beyond_the_limit_count_together() {
        let row = |messages| Row { messages, octets: 10 * messages, columns: [messages, 0, 0, 0, 0, 0, 0, 0] };
        let rows: HashMap<String, Row> =
            [("a", 1), ("b", 5), ("c", 3), (OTHERS, 9)].map(|(name, count)| (name.to_owned(), row(count))).into();
        let (rows, all) = Counts { by: By::Sender, rows, now: 0 }.end(2);
        let rows: Vec<_> = rows.iter().map(|(name, row)| (&**name, row.messages, row.columns[0])).collect();
        assert_eq!(rows, [("b", 5, 5), ("c", 3, 3), (OTHERS, 10, 10)]);
        assert_eq!((all.messages, all.octets), (18, 180));
        for (age, column) in [(0, 0), (299, 0), (300, 1), (86_400, 6), (u64::MAX, 7)] {
            assert_eq!(age_column(age), column, "{age}");
        }
    }
}
