//! SPF for a message of a client that may not relay: the checks begin at MAIL, and are waited for
//! when a rule or the Authentication-Results field needs them.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::screen::Screening;
use crate::address::Address;
use crate::config::policy::Spf;
use crate::mailauth::lookup::Until;
use crate::mailauth::spf::{self, Checked, SpfResult};
use crate::policy::strangers::SpfFound;
use crate::screen::background::Background;

impl Session<'_> {
    /// Begins to check the name in HELO, unless that was done, and the sender. Returns the check of
    /// the sender; `None` if the reverse-path is null, so that only HELO counts, or if SPF is not
    /// used.
    pub(super) fn begin_spf(
        &mut self,
        hello: &str,
        sender: Option<&Address>,
        until: Instant,
    ) -> Option<Background<Checked>> {
        let is_used = self.service.config.policy.spf != Spf::None;
        let client = self.client_address().filter(|_| is_used)?;
        let (dns, here) = (Arc::clone(&self.service.site.dns), self.hostname().to_owned());
        let is_trouble = |checked: &Checked| checked.result == SpfResult::TempError;
        let is_usable = |(known, check): &(String, Background<Checked>)| known == hello && !check.is_failed(is_trouble);
        if !self.screen.hello_spf.as_ref().is_some_and(is_usable) {
            let (dns, here, name) = (Arc::clone(&dns), here.clone(), hello.to_owned());
            let work = move || spf::check_hello(&Until { dns: &dns, until }, client, &name, &here);
            self.screen.hello_spf = Some((hello.to_owned(), Background::begin(until, work)));
        }
        let (sender, hello) = (sender?.to_string(), hello.to_owned());
        let work = move || spf::check(&Until { dns: &dns, until }, client, &hello, &sender, &here);
        Some(Background::begin(until, work))
    }

    /// The results of SPF for a message: of HELO, and of the sender unless the reverse-path is
    /// null. Waits for the checks, but never beyond the time of the message. A check that has not
    /// ended is missing.
    pub(super) fn spf_results(&mut self, screening: &mut Screening) -> Vec<Checked> {
        let begun = Instant::now();
        let hello = self.screen.hello_spf.as_mut().and_then(|(_, check)| check.wait().cloned());
        let mail = screening.spf.as_mut().and_then(|check| check.wait().cloned());
        self.screen.waited += begun.elapsed();
        hello.into_iter().chain(mail).collect()
    }

    /// What the results of SPF mean for the rules. A fail of either name counts most, then a check
    /// that got no answer, then a softfail of the sender.
    pub(super) fn spf_found(&mut self, screening: &mut Screening) -> SpfFound {
        if self.service.config.policy.spf == Spf::None {
            return SpfFound::Good;
        }
        let has_sender = screening.spf.is_some();
        found(&self.spf_results(screening), has_sender)
    }
}

fn found(results: &[Checked], has_sender: bool) -> SpfFound {
    let of = |result| results.iter().find(|checked| checked.result == result);
    if let Some(fail) = of(SpfResult::Fail) {
        return SpfFound::Fail(fail.domain.clone(), fail.explanation.clone());
    }
    if let Some(trouble) = of(SpfResult::TempError) {
        return SpfFound::Unknown(trouble.domain.clone());
    }
    // A check that has not ended in time has no result.
    if results.len() < 1 + usize::from(has_sender) {
        return SpfFound::Unknown("the sender".into());
    }
    // If there is a sender, a softfail of the name in HELO does not count: where others administer
    // the server, that name often has a record that fits badly.
    match results.last() {
        Some(last) if last.result == SpfResult::SoftFail => SpfFound::SoftFail,
        _ => SpfFound::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailauth::spf::Identity;

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
            assert_eq!(found(&[checked(hello), checked(mail)], true), want, "{hello} {mail}");
        }
        assert_eq!(found(&[checked(SoftFail)], false), SpfFound::SoftFail, "the null reverse-path");
        assert_eq!(found(&[checked(Pass)], true), SpfFound::Unknown("the sender".into()));
        assert_eq!(found(&[], false), SpfFound::Unknown("the sender".into()));
    }
}
