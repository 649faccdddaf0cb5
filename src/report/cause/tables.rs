//! The tables of what shows a cause: statuses, words and codes of replies.

use super::Cause::{self, *};

/// The causes that follow from subject and detail of a specific status (RFC 3463 and the registry
/// of its codes).
pub(super) const STATUSES: &[(u16, u16, Cause)] = &[
    (1, 3, BadAddress),
    (1, 4, NoMailbox),
    (1, 6, Moved),
    (1, 7, BadSender),
    (1, 8, BadSender),
    // A sender's daily limit at Exchange.
    (1, 90, RateLimited),
    (2, 2, MailboxFull),
    (2, 3, TooBig),
    (2, 4, Misconfigured),
    // The limits of Exchange for a sender and for a mailbox.
    (2, 121, RateLimited),
    (2, 122, RateLimited),
    (3, 1, Trouble),
    (3, 3, Unconvertible),
    (3, 4, TooBig),
    (3, 5, Misconfigured),
    (4, 2, ConnectionLost),
    (4, 3, NoAnswer),
    (4, 4, BrokenDomain),
    (4, 5, Busy),
    (4, 6, Loop),
    (6, 1, Attachment),
    (6, 2, Unconvertible),
    (6, 3, Unconvertible),
    (6, 5, Unconvertible),
    (6, 7, ForeignLetters),
    (6, 8, ForeignLetters),
    (6, 9, ForeignLetters),
    (6, 10, ForeignLetters),
    (7, 2, SenderNotAllowed),
    (7, 4, TlsNotOffered),
    (7, 5, TlsFailed),
    (7, 8, Login),
    (7, 9, Login),
    (7, 10, TlsDemanded),
    (7, 11, Login),
    (7, 12, SenderNotAllowed),
    (7, 13, MailboxClosed),
    (7, 17, NoMailbox),
    (7, 18, NoMailbox),
    (7, 20, SenderUnproven),
    (7, 21, SenderUnproven),
    (7, 22, SenderUnproven),
    (7, 23, SenderUnproven),
    (7, 24, SenderUnproven),
    (7, 25, HostUnnamed),
    (7, 26, SenderUnproven),
    (7, 28, RateLimited),
    (7, 57, Login),
    // The codes of Exchange for groups and users that accept only certain senders.
    (7, 124, SenderNotAllowed),
    (7, 129, SenderNotAllowed),
    (7, 133, SenderNotAllowed),
    (7, 134, SenderNotAllowed),
    (7, 135, SenderNotAllowed),
    (7, 136, SenderNotAllowed),
    (7, 515, SenderUnproven),
];

/// The causes that follow from a status if the words of the reply show none. Some hosts use these
/// codes for other things, too.
pub(super) const DOUBTFUL: &[(u16, u16, Cause)] = &[
    (1, 1, NoMailbox),
    (1, 2, NoDomain),
    // Exchange: a recipient that was not found.
    (1, 10, NoMailDomain),
    // Gmail: a mailbox that gets too many messages.
    (2, 1, MailboxClosed),
    // Exchange: no such mailbox; in the standard, a host that does not answer.
    (4, 1, NoMailbox),
    (5, 3, TooManyRecipients),
    // Gmail: SPF, and a connection without TLS.
    (7, 27, BadSender),
    (7, 29, SenderUnproven),
];

/// The causes that words in a reply show; the first row with one of its texts counts. A reply is
/// compared in lower case, with one blank in place of all characters between words, and without
/// addresses.
pub(super) const WORDS: &[(Cause, &[&str])] = &[
    (Greylisted, &["greylist", "graylist", "grey list"]),
    (Loop, &["mail loop", "loop detected", "too many hops", "hop count", "too many received", "routing loop"]),
    (
        TlsDemanded,
        &["starttls", "requires tls", "tls required", "tls is required", "encryption required", "without tls"],
    ),
    (Malware, &["virus", "malware", "infected", "trojan"]),
    (Attachment, &["attachment", "file type", "file extension", "filename extension", "banned content"]),
    (
        HostUnnamed,
        &["reverse dns", " ptr ", " rdns ", "reverse host", "reverse name", "reverse lookup", "find your hostname"],
    ),
    (
        SenderUnproven,
        &[" spf ", " dkim ", " dmarc ", "unauthenticated", "spoof", "authentication level", "pass authentication"],
    ),
    (
        RateLimited,
        &[
            "rate limit",
            "ratelimit",
            "message rate",
            "unusual rate",
            "at a rate",
            "too quickly",
            "too fast",
            "too many recent",
            "too many connections",
            "concurrent connections",
            "message per connection",
            "messages per connection",
            "too much mail",
            "excessive volume",
            "unexpected volume",
            "user complaints",
            "frequency limited",
            "queue quota",
            "limit for the number of messages",
            "throttl",
        ],
    ),
    (
        HostBlocked,
        &[
            "blacklist",
            "blocklist",
            "block list",
            "black list",
            "blocked using",
            "block for spam",
            "client host blocked",
            "ip blocked",
            "dnsbl",
            " rbl ",
            "spamhaus",
            "spamcop",
            "reputation",
            " listed ",
            "your ip ",
            "connections will not be accepted",
            "banned sending ip",
        ],
    ),
    (HostUnnamed, &[" helo ", " ehlo "]),
    (TooManyRecipients, &["too many recipients"]),
    (
        MailboxFull,
        &[
            " quota",
            "overquota",
            "box full",
            "box is full",
            "mailbox size",
            "exceeded storage",
            "allowed storage",
            "out of storage",
            "messages on the server",
        ],
    ),
    (
        TooBig,
        &["message size", "too large", "too big", "size limit", "size exceed", "exceeds maximum", "message too long"],
    ),
    (RateLimited, &["too many messages"]),
    (NotItsDomain, &[" relay ", " relaying ", "not hosted here", "not a local domain", "allowed rcpthosts"]),
    (
        SenderNotAllowed,
        &[
            "not a member",
            "members only",
            "subscriber",
            "not allowed to post",
            "allowed to send to",
            "authorized to send to",
            "permitted to send to",
            "blocked senders",
            "only accepts",
        ],
    ),
    (Login, &["authentication required", "authentication is required", "must authenticate", "not authenticated"]),
    (
        BadSender,
        &[
            "sender address",
            "sender rejected",
            "invalid sender",
            "sender verif",
            "bad sender",
            "sender domain",
            "banned sender",
        ],
    ),
    (BadAddress, &["valid rfc 5321", "bad address syntax", "malformed address", "syntax error in address"]),
    (
        BadMessage,
        &[
            "rfc compliant",
            "rfc 5322",
            "rfc5322",
            "rfc 2822",
            "rfc2822",
            "in from header",
            "no from header",
            "malformed",
        ],
    ),
    (
        MailboxClosed,
        &["disabled", "suspended", "inactive", "inactivity", "deactivated", "discontinued", "account closed"],
    ),
    (
        NoMailbox,
        &[
            "user unknown",
            "unknown user",
            "user is unknown",
            "no such user",
            "recipient unknown",
            "unknown recipient",
            "addressee unknown",
            "no such recipient",
            "no mailbox",
            "no such mailbox",
            "mailbox not found",
            "user not found",
            "recipient not found",
            "recipientnotfound",
            "could not be found",
            "invalid recipient",
            "recipient invalid",
            "invalid mailbox",
            "mailbox unallocated",
            "not in recipient list",
            "not our customer",
            "unknown address",
            "no such address",
            "address unknown",
            "address not found",
            "does not exist",
            "doesn t exist",
            "doesn t have a",
            "no longer valid",
            "not a valid email address",
            "unrouteable address",
            "unroutable address",
        ],
    ),
    (Spam, &[" spam", "unsolicited", " junk ", " bulk "]),
];

/// The causes that words in the reply of a failure show, after [`WORDS`].
pub(super) const WORDS_OF_FAILURES: &[(Cause, &[&str])] = &[
    (Policy, &[" policy ", " policies ", "policy violation", "administrative prohibition"]),
    (NoMailbox, &["recipient address rejected", "recipient addresses rejected", "mailbox unavailable"]),
    (NoService, &["no smtp service"]),
    (Misunderstood, &["syntax error"]),
];

/// The causes that words in the reply of a delay show, after [`WORDS`].
pub(super) const WORDS_OF_DELAYS: &[(Cause, &[&str])] =
    &[(Busy, &["too busy", "server busy", "overload", "service unavailable", "not available now", "resources"])];

/// The causes that follow from a reply code without anything more specific.
pub(super) const CODES: &[(u16, Cause)] = &[
    (421, Busy),
    (452, Trouble),
    (500, Misunderstood),
    (501, Misunderstood),
    (502, Misunderstood),
    (503, Misunderstood),
    (504, Misunderstood),
    (521, NoService),
    (551, Moved),
    (552, TooBig),
    (553, BadAddress),
    (555, Misunderstood),
    (556, NoMailDomain),
];
