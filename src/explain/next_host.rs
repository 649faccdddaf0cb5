//! The question to the next host about a recipient. Nobody is asked: the steps tell what is remembered.

use super::scene::Scene;
use super::steps::{Effect, Stage, Steps};
use crate::address::Address;
use crate::callout::{Question, Remembered};
use crate::destination::Destination;
use crate::log;
use crate::policy::rcpt::{self, NextHost};
use crate::policy::{Source, relay};
use crate::route::{Expansion, Traced};
use crate::sys;

/// Adds the steps about the question to the next host, if it would be asked. Returns whether the
/// recipient is accepted, as far as that is known.
pub fn tell(scene: &Scene<'_>, recipient: &Address, traced: &Traced, steps: &mut Steps) -> bool {
    let Expansion::Finals(finals) = &traced.expansion else { return true };
    let class = scene.router.class_of(recipient.domain());
    let Some((to, target)) = scene.router.to_be_asked(finals).filter(|_| !rcpt::is_postmaster(class.into(), recipient))
    else {
        return true;
    };
    let domain: relay::Domain = scene.router.class_of(to.domain()).into();
    let known = scene.callouts.remembered(&Question::new("", to, &target));
    let name = Destination::Remote(target, None).listed_name();
    let (effect, text) = words(&name, to, known.as_ref());
    let key = rcpt::next_host_key(domain, scene.config.key_of_users(to.domain()));
    steps.add_by(Stage::Rcpt, effect, "next-host", text, Some(Source::Key(key)));
    let answer = known.filter(|known| known.is_fresh).map_or(NextHost::Accepted, |known| known.answer);
    steps.judge(Stage::Rcpt, rcpt::next_host(recipient, key, answer))
}

/// Tells in words what is remembered.
fn words(name: &str, to: &Address, known: Option<&Remembered>) -> (Effect, String) {
    let Some(Remembered { answer, time, is_fresh, accepts_all }) = known else {
        return (Effect::Skipped, format!("{name} would be asked whether it accepts {to}; its answer is not known"));
    };
    let ago = log::span(sys::now().saturating_sub(*time));
    let said = match answer {
        NextHost::Accepted if *accepts_all => format!("accepted every recipient of {}", to.domain()),
        NextHost::Accepted => format!("accepted {to}"),
        NextHost::Unknown => format!("did not know {to}"),
        NextHost::Full(_) => format!("said that the mailbox of {to} is full"),
        NextHost::Refused(status) => format!("refused {to} with {status}"),
        NextHost::NoAnswer => format!("gave no clear answer about {to}"),
    };
    match is_fresh {
        true if *answer == NextHost::Accepted => (Effect::Passed, format!("{name} {said} {ago} ago")),
        true => (Effect::Fact, format!("{name} {said} {ago} ago")),
        false => (Effect::Skipped, format!("{name} {said} {ago} ago, and would be asked again")),
    }
}
