//! SPF for a message of a client that may not relay: the checks begin at MAIL, or at RCPT if no
//! thread was left at MAIL. The session waits for them when a rule or the Authentication-Results
//! field needs them. If there is still no thread then, the session makes the checks itself.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::screen::Screening;
use crate::address::Address;
use crate::config::policy::Spf;
use crate::dns::lookup::Until;
use crate::mailauth::spf::{self, Checked, Identity, SpfResult};
use crate::policy::strangers::SpfFound;
use crate::screen::background::Background;

/// A check and the domain that it is about.
pub type Begun = (String, Background<Checked>);

impl Session<'_> {
    /// Begins to check the sender, and also the name in HELO, unless there is already a usable
    /// check of that name. Returns the check of the sender. Returns `None` if the reverse-path is
    /// null, so that only HELO counts, if SPF is not used, or if the client's address is not known.
    pub(super) fn begin_spf(&mut self, hello: &str, sender: Option<&Address>, until: Instant) -> Option<Begun> {
        let is_used = self.service.config.policy.spf != Spf::None;
        let client = self.client_address().filter(|_| is_used)?;
        let (dns, here) = (Arc::clone(&self.service.site.dns), self.hostname().to_owned());
        let is_trouble = |checked: &Checked| checked.result == SpfResult::TempError;
        let is_usable = |(known, check): &Begun| known == hello && !check.is_failed(is_trouble);
        if !self.screen.hello_spf.as_ref().is_some_and(is_usable) {
            let (dns, here, name) = (Arc::clone(&dns), here.clone(), hello.to_owned());
            let work = move |until| spf::check_hello(&Until { dns: &dns, until }, client, &name, &here);
            let begun = Background::begin(&self.screen.threads, client, until, work);
            self.screen.hello_spf = Some((hello.to_owned(), begun));
        }
        let domain = sender?.domain().to_owned();
        let (sender, hello) = (sender?.to_string(), hello.to_owned());
        let work = move |until| spf::check(&Until { dns: &dns, until }, client, &hello, &sender, &here);
        Some((domain, Background::begin(&self.screen.threads, client, until, work)))
    }

    /// Begins the checks for which no thread was left at MAIL, if there is one now.
    pub(super) fn begin_late_spf(&mut self, screening: &mut Screening) {
        let until = self.screen.until();
        for (_, check) in screening.spf.iter_mut().chain(&mut self.screen.hello_spf) {
            check.begin_late(until);
        }
    }

    /// The results of SPF for a message: of HELO, and of the sender unless the reverse-path is
    /// null. Waits for the checks, but not beyond their deadline. A check that has not ended has
    /// the result temperror.
    pub(super) fn spf_results(&mut self, screening: &mut Screening) -> Vec<Checked> {
        self.begin_late_spf(screening);
        let begun = Instant::now();
        // The sender is more important, so its check comes first if the session makes both itself.
        let mail = screening.spf.as_mut().map(|(domain, check)| result(check.wait(), Identity::MailFrom, domain));
        let hello = self.screen.hello_spf.as_mut().map(|(name, check)| result(check.wait(), Identity::Hello, name));
        self.screen.waited += begun.elapsed();
        hello.into_iter().chain(mail).collect()
    }

    /// What the results of SPF mean for the rules; see [`spf::found`]. A client without a known
    /// address is not checked.
    pub(super) fn spf_found(&mut self, screening: &mut Screening) -> SpfFound {
        if self.service.config.policy.spf == Spf::None || self.client_address().is_none() {
            return SpfFound::Good;
        }
        spf::found(&self.spf_results(screening))
    }
}

/// Returns the result of a check. If the check has not ended in time, the result is temperror.
fn result(check: Option<&Checked>, identity: Identity, domain: &str) -> Checked {
    check.cloned().unwrap_or_else(|| Checked {
        result: SpfResult::TempError,
        identity,
        domain: domain.to_ascii_lowercase().into(),
        explanation: None,
        mechanism: "the check has not ended in time".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailauth::spf::{Identity, found};

    #[test]
    fn a_fail_of_either_name_counts_and_a_softfail_only_of_the_sender() {
        let checked = |result| Checked {
            result,
            identity: Identity::MailFrom,
            domain: "x.example".into(),
            explanation: None,
            mechanism: "default".into(),
        };
        let fail = SpfFound::Fail("x.example".into(), None);
        use SpfResult::{Fail, Neutral, Pass, PermError, SoftFail, TempError};
        for (hello, mail, want) in [
            (SpfResult::None, Pass, SpfFound::Good),
            (Pass, Fail, fail.clone()),
            (Fail, Pass, fail.clone()),
            (TempError, Fail, fail),
            (TempError, Pass, SpfFound::Unknown("x.example".into())),
            (SpfResult::None, TempError, SpfFound::Unknown("x.example".into())),
            (SpfResult::None, SoftFail, SpfFound::SoftFail),
            (SoftFail, Pass, SpfFound::Good),
            (PermError, Neutral, SpfFound::Good),
        ] {
            assert_eq!(found(&[checked(hello), checked(mail)]), want, "{hello} {mail}");
        }
        assert_eq!(found(&[checked(SoftFail)]), SpfFound::SoftFail, "the null reverse-path");
        assert_eq!(found(&[]), SpfFound::Unknown("the sender".into()));
    }

    #[test]
    fn a_check_that_has_not_ended_is_a_temperror() {
        let result = result(None, Identity::MailFrom, "X.example");
        assert_eq!(found(&[result]), SpfFound::Unknown("x.example".into()));
    }
}
