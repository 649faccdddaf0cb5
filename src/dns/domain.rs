//! Finds out whether mail could be sent to a domain. The domain is that of an envelope sender.

use std::time::Instant;

use super::{Begun, Dns, Pair};
use crate::outcome::NoAnswer;

/// What the DNS says about mail to a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailDomain {
    /// The domain has a mail exchanger or an address, or is an address literal.
    Usable,
    /// The domain says that it accepts no mail (RFC 7505).
    NullMx,
    /// The domain does not exist, or has neither a mail exchanger nor an address.
    Absent,
    /// The look-ups failed; a later check may succeed.
    Unknown(NoAnswer),
}

/// A look-up of a domain that has begun.
pub struct BegunDomain {
    /// The domain, for `Debug`.
    domain: Box<str>,
    /// The look-ups of the mail exchangers and the addresses; none for an address literal.
    asked: Option<Asked>,
}

struct Asked {
    exchangers: Begun<(u16, String)>,
    addresses: Result<Pair, NoAnswer>,
}

impl Dns {
    /// Begins to look up whether mail could be sent to `domain`. The addresses of its mail
    /// exchangers are not looked up. The look-ups run at the same time and end at `until`, or
    /// within `dns.timeout` if that is earlier.
    pub fn begin_mail_domain(&self, domain: &str, until: Instant) -> BegunDomain {
        let ask = || Asked {
            exchangers: self.begin_mx(domain, until),
            addresses: self
                .running()
                .and_then(|running| Pair::ask(&running, domain, until.min(self.deadline()), false)),
        };
        let asked = (!domain.starts_with('[')).then(ask);
        BegunDomain { domain: domain.into(), asked }
    }
}

impl BegunDomain {
    /// Waits for the mail exchangers and, only if the domain has none, for its addresses.
    pub fn wait(self) -> MailDomain {
        let Some(Asked { exchangers, addresses }) = self.asked else { return MailDomain::Usable };
        match exchangers.wait() {
            Ok(found) if found.iter().any(|(_, name)| name != ".") => return MailDomain::Usable,
            Ok(found) if !found.is_empty() => return MailDomain::NullMx,
            // The mail exchangers of the domain have impossible names. If a domain has MX records,
            // its own addresses do not count.
            Ok(_) => return MailDomain::Absent,
            Err(NoAnswer::NoData | NoAnswer::NxDomain) => {}
            Err(NoAnswer::BadName) => return MailDomain::Absent,
            Err(trouble) => return MailDomain::Unknown(trouble),
        }
        match addresses.and_then(Pair::wait) {
            Ok(_) => MailDomain::Usable,
            Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) => MailDomain::Absent,
            Err(trouble) => MailDomain::Unknown(trouble),
        }
    }
}

impl std::fmt::Debug for BegunDomain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.domain)
    }
}
