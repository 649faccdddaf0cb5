//! Selects messages of the queue by their senders, recipients, age and state, for the commands that
//! list or change messages.
//!
//! On the control socket, a selection is a list of words such as `from=@example.org`.

use std::time::Duration;

use crate::address::{Address, is_same_local, parse_domain};
use crate::config::parse_duration;
use crate::spool::{EntryName, QueueId};

/// The selected messages of the queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The sender of the envelope.
    pub from: Option<Party>,
    /// A recipient that still waits for the message, by the final address or the one that the client
    /// gave.
    pub to: Option<Party>,
    /// The domain of a recipient that still waits for the message.
    pub domain: Option<DomainPattern>,
    /// The minimum age.
    pub age: Option<Duration>,
    /// The state of a recipient that still waits for the message.
    pub state: Option<State>,
    /// The maximum number of messages.
    pub limit: Option<usize>,
}

/// A pattern for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    /// The null path.
    Null,
    /// An address. Without a domain, it matches the local part in every domain.
    Address(Address),
    /// All addresses of some domains.
    In(DomainPattern),
}

/// A pattern for a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainPattern {
    /// The domain in canonical form.
    name: Box<str>,
    /// Whether the domains below it match, too.
    with_below: bool,
}

/// The state of a recipient that still waits for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// An attempt is running.
    Running,
    /// The next attempt starts as soon as possible.
    Ready,
    /// An attempt has failed, and the next one is later.
    Deferred,
    /// The message is kept until a time that its sender has set.
    Scheduled,
    /// The message is held.
    Held,
}

impl State {
    /// All states, in the order of the manual page.
    pub const ALL: [Self; 5] = [Self::Running, Self::Ready, Self::Deferred, Self::Scheduled, Self::Held];

    /// The word for the state.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Deferred => "deferred",
            Self::Scheduled => "scheduled",
            Self::Held => "held",
        }
    }
}

impl DomainPattern {
    /// Parses a domain, or `@domain` for a domain and those below it.
    fn parse(text: &str) -> Option<Self> {
        let (name, with_below) = text.strip_prefix('@').map_or((text, false), |name| (name, true));
        Some(Self { name: parse_domain(name).ok()?, with_below })
    }

    /// Whether a domain in canonical form matches.
    pub fn matches(&self, domain: &str) -> bool {
        let below = domain.strip_suffix(&*self.name);
        below.is_some_and(|rest| rest.is_empty() || self.with_below && rest.ends_with('.'))
    }
}

impl Party {
    /// Parses an address, `@domain` or `<>`.
    fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
        if inner.is_empty() {
            return (text == "<>").then_some(Self::Null);
        }
        if inner.starts_with('@') {
            return DomainPattern::parse(inner).map(Self::In);
        }
        Address::parse(inner).ok().map(Self::Address)
    }

    /// Whether a path matches; `None` is the null path.
    pub fn matches(&self, path: Option<&Address>) -> bool {
        match (self, path) {
            (Self::Null, path) => path.is_none(),
            (_, None) => false,
            (Self::In(pattern), Some(address)) => pattern.matches(address.domain()),
            (Self::Address(wanted), Some(address)) => {
                is_same_local(wanted.local(), address.local())
                    && (wanted.domain().is_empty() || wanted.domain() == address.domain())
            }
        }
    }
}

impl Selection {
    /// Takes one word of a request, or one option of a command as `name=value`.
    ///
    /// # Errors
    /// A text that says what is expected in place of the value. `None` if the word is no selector.
    pub fn take(&mut self, word: &str) -> Result<(), Option<&'static str>> {
        let (name, value) = word.split_once('=').ok_or(None)?;
        match name {
            "from" => set(&mut self.from, Party::parse(value), "an address, @domain or <>"),
            "to" => {
                let to = Party::parse(value).filter(|to| *to != Party::Null);
                set(&mut self.to, to, "an address or @domain")
            }
            "domain" => set(&mut self.domain, DomainPattern::parse(value), "a domain or @domain"),
            "age" => set(&mut self.age, parse_duration(value), "a duration with a unit, such as 30m, 2h or 4d"),
            "state" => {
                let state = State::ALL.into_iter().find(|state| state.word() == value);
                set(&mut self.state, state, "running, ready, deferred, scheduled or held")
            }
            "limit" => set(&mut self.limit, value.parse().ok().filter(|limit| *limit > 0), "a number of at least 1"),
            _ => Err(None),
        }
    }

    /// Whether a message with this name can be selected, whatever is in its file. `now` is in seconds since
    /// 1970.
    pub fn admits(&self, name: &EntryName, now: u64) -> bool {
        self.age.is_none_or(|age| age_of(name.id, now) >= age.as_secs())
    }

    /// Whether recipients decide about a message.
    pub fn is_about_recipients(&self) -> bool {
        self.to.is_some() || self.domain.is_some() || self.state.is_some()
    }

    /// Whether a recipient is selected. `original` is the address that the client gave, if it is
    /// another one.
    pub fn selects(&self, address: &Address, original: Option<&Address>, state: State) -> bool {
        let is_party =
            |party: &Party| party.matches(Some(address)) || original.is_some_and(|to| party.matches(Some(to)));
        self.to.as_ref().is_none_or(is_party)
            && self.domain.as_ref().is_none_or(|domain| domain.matches(address.domain()))
            && self.state.is_none_or(|wanted| wanted == state)
    }
}

/// The age of a message in seconds; 0 if its time is in the future.
pub fn age_of(id: QueueId, now: u64) -> u64 {
    now.saturating_sub(id.seconds())
}

fn set<T>(slot: &mut Option<T>, value: Option<T>, expected: &'static str) -> Result<(), Option<&'static str>> {
    *slot = Some(value.ok_or(Some(expected))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Place;

    fn selection(words: &[&str]) -> Selection {
        let mut selection = Selection::default();
        words.iter().for_each(|word| selection.take(word).expect(word));
        selection
    }

    #[test]
    fn senders_are_matched_by_address_domain_or_null_path() {
        for (pattern, path, is_match) in [
            ("ann@x.test", Some("ann@x.test"), true),
            ("Ann@X.test", Some("aNN@x.test"), true),
            ("<ann@x.test>", Some("ann@x.test"), true),
            ("ann@x.test", Some("ann@y.test"), false),
            ("ann@x.test", None, false),
            ("ann", Some("ann@y.test"), true),
            ("ann", Some("joann@y.test"), false),
            ("@x.test", Some("a@x.test"), true),
            ("@x.test", Some("a@b.x.test"), true),
            ("@x.test", Some("a@bx.test"), false),
            ("@x.test", None, false),
            ("<>", None, true),
            ("<>", Some("a@x.test"), false),
        ] {
            let path: Option<Address> = path.map(|path| path.parse().expect("an address"));
            let from = selection(&[&format!("from={pattern}")]).from.expect("a sender");
            assert_eq!(from.matches(path.as_ref()), is_match, "{pattern} {path:?}");
        }
    }

    #[test]
    fn all_conditions_hold_for_one_recipient() {
        let address = |text: &str| text.parse::<Address>().expect("an address");
        for (words, is_selected) in [
            (&[][..], true),
            (&["to=jon@x.test"], true),
            (&["to=all@list.test"], true),
            (&["to=all@list.test", "domain=x.test"], true),
            (&["domain=list.test"], false),
            (&["domain=@test"], true),
            (&["domain=test"], false),
            (&["state=deferred"], true),
            (&["state=ready"], false),
            (&["to=jon@x.test", "state=held"], false),
        ] {
            let (jon, all) = (address("jon@x.test"), address("all@list.test"));
            assert_eq!(selection(words).selects(&jon, Some(&all), State::Deferred), is_selected, "{words:?}");
        }
    }

    #[test]
    fn the_age_follows_from_the_name() {
        let name = EntryName { id: QueueId::generate().expect("an id"), size: 1, place: Place::New };
        let now = name.id.seconds();
        for (age, later, is_old) in [("2h", 7200, true), ("2h", 7199, false), ("0s", 0, true), ("1d", 0, false)] {
            assert_eq!(selection(&[&format!("age={age}")]).admits(&name, now + later), is_old, "{age} {later}");
        }
        assert!(!selection(&["age=1s"]).admits(&name, now.saturating_sub(60)));
    }

    #[test]
    fn other_words_are_refused() {
        for (word, expected) in [
            ("from=", Some("an address, @domain or <>")),
            ("from=a b@", Some("an address, @domain or <>")),
            ("from=@", Some("an address, @domain or <>")),
            ("to=<>", Some("an address or @domain")),
            ("to=x@y@", Some("an address or @domain")),
            ("domain=a..b", Some("a domain or @domain")),
            ("age=2", Some("a duration with a unit, such as 30m, 2h or 4d")),
            ("age=-2h", Some("a duration with a unit, such as 30m, 2h or 4d")),
            ("state=", Some("running, ready, deferred, scheduled or held")),
            ("limit=-1", Some("a number of at least 1")),
            ("limit=0", Some("a number of at least 1")),
            ("limit=99999999999999999999", Some("a number of at least 1")),
            ("from", None),
            ("size=3", None),
            ("", None),
        ] {
            assert_eq!(Selection::default().take(word), Err(expected), "{word}");
        }
    }
}
