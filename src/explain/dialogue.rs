//! MAIL, RCPT and the message: the rules of a session, in its order.

use super::client::{Client, default_sender};
use super::look_ups::LookUps;
use super::scene::Scene;
use super::steps::{Effect, Stage, Steps};
use super::{Query, next_host, path};
use crate::address::{self, Address, AddressError};
use crate::config::policy::{Dmarc, Quarantine};
use crate::config::{Kind, Limit};
use crate::deliver::quota;
use crate::envelope::Recipient;
use crate::policy::mail::{Mail, Room, SenderRight};
use crate::policy::rcpt::{Found, Rcpt};
use crate::policy::screening::{self, Question};
use crate::policy::{self, Facts, Mark, Source, Verdict, strangers};
use crate::reply;
use crate::route::{DomainClass, Expansion, RoutedMail, Traced};
use crate::submit::usage::Counted;
use crate::users::Mailbox;

/// Adds the steps of a session. `recipient` is the recipient, completed with a domain, and its expansion;
/// `None` if it is malformed.
pub fn run(
    scene: &Scene<'_>,
    query: &Query,
    recipient: Option<(&Address, &Traced)>,
    steps: &mut Steps,
) -> Option<Option<Address>> {
    let client = Client::of(scene, query);
    if !client.greet(scene, steps) {
        return None;
    }
    let dialogue = Dialogue { scene, query, client: &client };
    let sender = dialogue.mail(steps)?;
    if dialogue.rcpt(sender.as_ref(), recipient, steps) {
        dialogue.message(steps);
    }
    Some(sender)
}

struct Dialogue<'a> {
    scene: &'a Scene<'a>,
    query: &'a Query,
    client: &'a Client,
}

impl Dialogue<'_> {
    /// Adds the steps of MAIL. Returns the sender; `None` if MAIL is refused.
    fn mail(&self, steps: &mut Steps) -> Option<Option<Address>> {
        let Self { scene, query, client } = *self;
        let (stage, facts) = (Stage::Mail, client.facts());
        let text = query.from.clone().unwrap_or_else(|| default_sender(scene, client));
        let size = query.size.map(|size| format!(" SIZE={size}")).unwrap_or_default();
        // The client must ask for SMTPUTF8 if an address is not in ASCII (RFC 6531 3.4).
        let utf8 = if text.is_ascii() && query.recipient().is_ascii() { "" } else { " SMTPUTF8" };
        steps.command(stage, format!("MAIL FROM:<{text}>{size}{utf8}"));
        if !steps.judge(stage, policy::mail::precheck(&facts)) {
            return None;
        }
        let given = path(&text).map_err(|why| malformed(steps, stage, why, reply::sender::malformed)).ok()?;
        let sender = given.as_ref().map(|address| scene.router.qualify(address));
        let (size, max_size) = (query.size.unwrap_or(0), scene.config.limits.message_size);
        let room = match scene.spool.has_room(size.min(max_size)) {
            Ok(true) => Room::Enough,
            Ok(false) => Room::Short,
            Err(_) => Room::Unknown,
        };
        let right = scene.senders.right(&facts, sender.as_ref());
        let mail = Mail { path: given.as_ref(), sender: sender.as_ref(), size, max_size, room, right };
        if !steps.judge(stage, policy::mail::check(&facts, &mail)) {
            return None;
        }
        if query.size.is_some() {
            let text = format!("{size} octets are within the limit of {max_size}");
            steps.add_by(stage, Effect::Passed, "size", text, Some(Source::Key("limits.message_size")));
        }
        if let (Some(login), SenderRight::Granted) = (facts.account(), right) {
            let text = format!("{login} may send from {}", address::path(sender.as_ref()));
            steps.add_by(stage, Effect::Passed, "sender-right", text, Some(Source::Key("submission.senders")));
        }
        if !self.hourly_messages(&facts, steps) {
            return None;
        }
        let rewritten = sender.as_ref().filter(|_| facts.is_submission());
        let rewritten = rewritten.and_then(|sender| scene.senders.rewriting.apply(sender));
        if let Some(rewritten) = &rewritten {
            let text = format!("the sender becomes <{rewritten}>");
            steps.add_by(stage, Effect::Fact, "", text, Some(Source::Key("submission.rewrite")));
        }
        let sender = rewritten.or(sender);
        steps.reply(stage, &reply::sender::accepted(&address::path(sender.as_ref())));
        Some(sender)
    }

    /// Applies the limits on messages of an account and of a user on this host.
    fn hourly_messages(&self, facts: &Facts<'_>, steps: &mut Steps) -> bool {
        let (stage, config) = (Stage::Mail, &self.scene.config.submission);
        if facts.is_local_user && config.local_messages_per_hour > 0 {
            let text = format!("each user may send {} messages an hour", config.local_messages_per_hour);
            let key = Source::Key("submission.local_messages_per_hour");
            steps.add_by(stage, Effect::Skipped, "hourly-messages", text, Some(key));
        }
        let Some(account) = facts.account() else { return true };
        let count = self.scene.usage.total(account, Counted::Messages);
        let limit @ Limit { value: max, key } = self.scene.config.messages_per_hour(account);
        if !steps.judge(stage, policy::mail::hourly(count < max, limit)) {
            return false;
        }
        let text = format!("{account} has sent {count} of {max} messages within the hour");
        steps.add_by(stage, Effect::Passed, "hourly-messages", text, Some(Source::Key(key)));
        true
    }

    /// Adds the steps of RCPT. Returns whether the recipient is accepted.
    fn rcpt(&self, sender: Option<&Address>, recipient: Option<(&Address, &Traced)>, steps: &mut Steps) -> bool {
        let (stage, facts, text) = (Stage::Rcpt, self.client.facts(), self.query.recipient());
        steps.command(stage, format!("RCPT TO:<{text}>"));
        let Some((recipient, traced)) = recipient else {
            let why = path(text).err().unwrap_or(AddressError::Empty);
            malformed(steps, stage, why, reply::recipient::malformed);
            return false;
        };
        let verdict = self.relayed(&facts, sender, (recipient, traced), steps);
        if !steps.judge(stage, verdict) {
            return false;
        }
        if let Expansion::Finals(finals) = &traced.expansion {
            let domain = recipient.domain();
            let is_asked = self.scene.router.to_be_asked(finals).is_some();
            let text = match (finals.as_slice(), self.scene.router.class_of(domain)) {
                ([one], DomainClass::Local) if is_asked && one.address == *recipient => {
                    format!("every name in {domain} may be that of a user")
                }
                ([_], DomainClass::Local) => "the recipient exists".to_owned(),
                // The users of other hosts are not known here.
                ([one], DomainClass::Relay) if one.address == *recipient => {
                    format!("every client may send mail for {domain}")
                }
                ([one], DomainClass::Elsewhere) if one.address == *recipient => format!("it may relay to {domain}"),
                ([one], _) => format!("the recipient stands for {}", one.address),
                (all, _) => format!("the recipient stands for {} final recipients", all.len()),
            };
            steps.add_by(stage, Effect::Passed, "unknown-user", text, None);
        }
        if !facts.may_relay() && !self.screen(sender, recipient, steps) {
            return false;
        }
        if let Expansion::Finals(finals) = &traced.expansion
            && !self.room(&facts, recipient, finals, steps)
        {
            return false;
        }
        if !next_host::tell(self.scene, recipient, traced, steps) {
            return false;
        }
        if let Some(account) = facts.account() {
            let limit @ Limit { value: max, key } = self.scene.config.recipients_per_hour(account);
            let count = self.scene.usage.total(account, Counted::Recipients);
            if !steps.judge(stage, policy::rcpt::hourly(count < max, limit)) {
                return false;
            }
            let text = format!("{account} has sent to {count} of {max} recipients within the hour");
            steps.add_by(stage, Effect::Passed, "hourly-recipients", text, Some(Source::Key(key)));
        }
        steps.reply(stage, &reply::recipient::accepted(recipient));
        true
    }

    /// Applies the quotas of mailboxes.
    fn room(&self, facts: &Facts<'_>, recipient: &Address, finals: &[Recipient], steps: &mut Steps) -> bool {
        let (scene, size) = (self.scene, self.query.size.unwrap_or(0));
        let Some(agents) = scene.agents else { return true };
        let contents =
            |mailbox: &Mailbox, to: &Recipient| quota::explain(agents, scene.router, mailbox, to, size).ok()?;
        let full = || {
            let full = quota::full_by(scene.router, finals, size, contents)?;
            Some((full.quota.is_final, scene.router.source_of_quota(finals, full.quota)))
        };
        steps.judge(Stage::Rcpt, policy::rcpt::quota(facts, recipient, full))
    }

    /// The rules of RCPT for all clients.
    fn relayed(
        &self,
        facts: &Facts<'_>,
        sender: Option<&Address>,
        (recipient, traced): (&Address, &Traced),
        steps: &mut Steps,
    ) -> Verdict {
        let (scene, client) = (self.scene, self.client);
        let class = scene.router.class_of(recipient.domain());
        let (text, key) = match class {
            DomainClass::Local => ("local", Some(Source::Key(scene.config.key_of_local(recipient.domain())))),
            DomainClass::Relay => ("one for which any client may send mail here", Some(Source::Key("relay.domains"))),
            DomainClass::Elsewhere => ("elsewhere", None),
        };
        steps.add_by(Stage::Rcpt, Effect::Fact, "", format!("the domain {} is {text}", recipient.domain()), key);
        let (accepted, max_recipients) = (0, scene.config.limits.recipients);
        let (size, max_size) = (self.query.size.unwrap_or(0), scene.config.message_size_of(recipient.domain()));
        let users = scene.config.key_of_users(recipient.domain());
        let rcpt = Rcpt { recipient, domain: class.into(), accepted, max_recipients, size, max_size, users };
        let bounces =
            || policy::rcpt::only_bounces(&rcpt, scene.router.is_rewritten_sender(recipient), sender.is_some());
        let limit = scene.config.policy.unknown_recipients_per_hour;
        let unknown = || {
            let is_welcome = |address| scene.access.is_welcome(address);
            if !strangers::limits_unknown(facts, client.address, limit, is_welcome) {
                return Verdict::Accept;
            }
            let count = client.stranger().map_or(0, |key| scene.stranger_usage.total(&key, Counted::Recipients));
            strangers::unknown_recipients(count < limit, limit)
        };
        let find = || Found { lookup: traced.expansion.lookup(|_| false), final_recipients: 0 };
        let mut verdict = policy::rcpt::decide(facts, &rcpt, bounces, unknown, find);
        if let (Expansion::Refused(..), Verdict::Refuse(_, reason)) = (&traced.expansion, &mut verdict) {
            // The session names only the table.
            let source = scene.router.route_source(&Recipient::new(recipient.clone()), &RoutedMail::default());
            reason.source = source.unwrap_or(reason.source.clone());
        }
        if let (Expansion::Temporary(why), Verdict::Defer(_, reason)) = (&traced.expansion, &verdict)
            && reason.source == Source::Failure
        {
            steps.add(Stage::Rcpt, Effect::Fact, format!("the look-up fails: {why}"));
        }
        verdict
    }

    /// The rules about clients that may not relay.
    fn screen(&self, sender: Option<&Address>, recipient: &Address, steps: &mut Steps) -> bool {
        let (scene, client) = (self.scene, self.client);
        let is_local = scene.router.class_of(recipient.domain()) == DomainClass::Local;
        let question = Question {
            policy: &scene.config.policy,
            client: client.address,
            hello: &client.hello,
            sender: &address::path(sender),
            is_postmaster: is_local && recipient.local().eq_ignore_ascii_case("postmaster"),
        };
        let uses_dns = self.query.uses_dns;
        let screened =
            screening::check(&question, &mut LookUps { scene, client, uses_dns, sender, recipient, spf: None, steps });
        if screened.is_exempt && screened.verdict == Verdict::Accept {
            let text = "the access table accepts the message without the other rules";
            steps.add_by(Stage::Rcpt, Effect::Passed, "access", text, None);
        }
        if !steps.judge(Stage::Rcpt, screened.verdict) {
            return false;
        }
        for (mark, reason) in screened.marks {
            let text = match (mark, &scene.config.policy.quarantine) {
                (Mark::Quarantine, Quarantine::Hold) => "the message goes into quarantine: it is held".to_owned(),
                (Mark::Quarantine, Quarantine::Folder(folder)) => {
                    format!("the message goes into the quarantine folder {folder}")
                }
                (Mark::Tag(name), _) => format!("the message gets the tag {name}"),
            };
            steps.add_by(Stage::Rcpt, Effect::Marked, reason.rule, text, Some(reason.source));
        }
        true
    }

    /// Names what is decided by the text of the message.
    fn message(&self, steps: &mut Steps) {
        let (stage, scene, facts) = (Stage::Message, self.scene, self.client.facts());
        let recipient = path(self.query.recipient()).ok().flatten();
        let limit = recipient.map(|to| scene.config.message_size_of(scene.router.qualify(&to).domain()));
        let Limit { value, key } = limit.unwrap_or_else(|| scene.config.message_size());
        let text = format!("it may have at most {value} octets");
        steps.add_by(stage, Effect::Fact, "size", text, Some(Source::Key(key)));
        let mut skip = |text: String, key| steps.add_by(stage, Effect::Skipped, "", text, Some(Source::Key(key)));
        if facts.may_relay() {
            if facts.account().is_some() && facts.listener == Kind::Submission {
                skip("the author in From must be one that the account may use".to_owned(), "submission.senders");
            }
            return;
        }
        match scene.config.policy.dmarc {
            Dmarc::None => {}
            Dmarc::Mark => skip("DKIM and DMARC are checked, and refuse nothing".to_owned(), "policy.dmarc"),
            Dmarc::Obey => {
                skip(
                    "DKIM and DMARC are checked; the author's domain may ask for rejection".to_owned(),
                    "policy.dmarc",
                );
            }
        }
    }
}

/// Adds the refusal of a malformed address.
fn malformed(steps: &mut Steps, stage: Stage, why: AddressError, reply: impl Fn(AddressError) -> reply::Reply) {
    steps.add(stage, Effect::Refused, format!("the address is malformed: {why}"));
    steps.reply(stage, &reply(why));
}
