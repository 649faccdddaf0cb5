//! Names the families of numbers.

/// A family of numbers that have the same labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Accepted messages.
    Accepted,
    /// The octets of accepted messages.
    Octets,
    /// The recipients of accepted messages.
    Recipients,
    /// Accepted messages by the encryption of the client's connection.
    TlsIn,
    /// Refused commands.
    Refused,
    /// The outcomes of attempts, one for each recipient.
    Attempts,
    /// Deferrals.
    Deferred,
    /// Final failures.
    Failed,
    /// Recipients for which other hosts have accepted a message.
    SentTo,
    /// The same, by the encryption of the connection.
    TlsOut,
    /// Delivered recipients by the age of the message, in the ranges of [`super::Delays`].
    Delay,
    /// The sum of these ages, in milliseconds.
    DelaySum,
    /// Other events; see [`Event`].
    Events,
    /// The results of SPF, DKIM, DMARC and ARC.
    Check,
    /// What filters have done.
    Filter,
    /// Accepted messages by login or local user.
    Account,
    /// The recipients of these messages.
    AccountRecipients,
    /// Accepted messages by reverse-path.
    Sender,
    /// Accepted messages by client.
    Client,
    /// Refused commands by client.
    RefusedClient,
}

/// What the labels of a family can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Labels {
    /// A few words that penfold chooses.
    Fixed,
    /// Any text.
    Open,
    /// Any text, which may name people or clients.
    Personal,
}

/// The families with their names, the names of their labels, and what the labels can be.
const TABLE: [(Family, &str, &[&str], Labels); 20] = [
    (Family::Accepted, "accepted", &["from"], Labels::Fixed),
    (Family::Octets, "octets", &["from"], Labels::Fixed),
    (Family::Recipients, "recipients", &["from"], Labels::Fixed),
    (Family::TlsIn, "tls_in", &["version"], Labels::Fixed),
    (Family::Refused, "refused", &["reason"], Labels::Open),
    (Family::Attempts, "attempts", &["via", "result"], Labels::Fixed),
    (Family::Deferred, "deferred", &["destination", "reason"], Labels::Open),
    (Family::Failed, "failed", &["reason"], Labels::Open),
    (Family::SentTo, "sent_to", &["destination"], Labels::Open),
    (Family::TlsOut, "tls_out", &["version"], Labels::Fixed),
    (Family::Delay, "delay", &["place", "up_to"], Labels::Fixed),
    (Family::DelaySum, "delay_sum", &["place"], Labels::Fixed),
    (Family::Events, "events", &["event"], Labels::Fixed),
    (Family::Check, "checks", &["method", "result"], Labels::Open),
    (Family::Filter, "filters", &["result"], Labels::Open),
    (Family::Account, "account", &["account"], Labels::Personal),
    (Family::AccountRecipients, "account_recipients", &["account"], Labels::Personal),
    (Family::Sender, "sender", &["sender"], Labels::Personal),
    (Family::Client, "client", &["client"], Labels::Personal),
    (Family::RefusedClient, "refused_client", &["client"], Labels::Personal),
];

impl Family {
    /// Returns all families.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// Returns the family with this name.
    pub fn parse(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Returns the name, which the file in `state/` and `--json` use.
    pub fn name(self) -> &'static str {
        TABLE.get(self as usize).map_or("", |row| row.1)
    }

    /// Returns the names of the labels.
    pub fn labels(self) -> &'static [&'static str] {
        TABLE.get(self as usize).map_or(&[], |row| row.2)
    }

    /// Whether the labels name people or clients.
    pub fn is_personal(self) -> bool {
        TABLE.get(self as usize).is_some_and(|row| row.3 == Labels::Personal)
    }

    /// Whether the number of different labels is only bounded by folding.
    pub fn is_open(self) -> bool {
        TABLE.get(self as usize).is_some_and(|row| row.3 != Labels::Fixed)
    }
}

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From a client without a login.
    Network,
    /// From a client with a login.
    Login,
    /// From a program on this host.
    Local,
}

/// The words for [`Origin`], in its order.
pub const ORIGINS: [&str; 3] = ["network", "login", "local"];

/// Where mail is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this host.
    Local,
    /// By SMTP to another host.
    Remote,
    /// By LMTP to a mail store.
    Store,
}

/// The words for [`Place`], in its order.
pub const PLACES: [&str; 3] = ["local", "remote", "store"];

impl Place {
    /// Returns the place to which a way of delivery leads. `via` is the word in the log.
    pub fn of(via: &str) -> Self {
        match via {
            "smtp" => Self::Remote,
            "lmtp" => Self::Store,
            _ => Self::Local,
        }
    }

    /// Returns the word for the place.
    pub fn word(self) -> &'static str {
        PLACES[self as usize]
    }
}

/// An event that has no further properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// All recipients of a message are settled.
    Done,
    /// A message is held.
    Held,
    /// A user has released a held message.
    Released,
    /// A user has removed a message, counted for each recipient.
    Removed,
    /// A report about failures was made.
    Bounced,
    /// A report about a delay was made.
    Warned,
    /// A report about successful deliveries was made.
    Confirmed,
    /// A report was due, and was not sent.
    Dropped,
    /// A client has authenticated.
    LoggedIn,
    /// An authentication has failed.
    AuthFailed,
    /// A TLS handshake with a client has failed.
    TlsFailedIn,
    /// TLS with a host has failed, and the message was sent in plaintext.
    TlsFailedOut,
    /// An account has reached a limit.
    Limit,
    /// A client has connected.
    Connection,
    /// A connection was rejected because of a limit.
    ConnectionRejected,
    /// A filter is in trouble.
    FilterFailed,
}

/// The words for [`Event`], in its order.
pub const EVENTS: [&str; 16] = [
    "done",
    "held",
    "released",
    "removed",
    "bounced",
    "warned",
    "confirmed",
    "dropped",
    "auth",
    "auth-failed",
    "tls-failed-in",
    "tls-failed-out",
    "limit",
    "connection",
    "connection-rejected",
    "filter-failed",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_families() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!((row.0 as usize, Family::parse(row.1)), (at, Some(row.0)));
            assert!((1..=2).contains(&row.2.len()));
        }
        assert_eq!(EVENTS[Event::FilterFailed as usize], "filter-failed");
        assert_eq!((Place::Store.word(), Place::of("mbox")), ("store", Place::Local));
    }
}
