//! The functions that log events, each on one line.
//!
//! penfold-log(5) documents the lines; scripts rely on the keys in them.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ::log::Level;

use super::emit::emit;
use super::value::{Value, push};
use super::{counted, timestamp};
use crate::address::{self, Address};
use crate::envelope::{ByMode, MailOptions, MessageTls, Recipient};
use crate::message::mime::Conversion;
use crate::outcome::{Encryption, Fate, Outcome, Via};
use crate::stats::{self, Event};

/// The event that a message was accepted.
pub struct Accepted<'a> {
    /// The queue id.
    pub id: &'a dyn fmt::Display,
    /// The session id.
    pub session: &'a str,
    /// The reverse-path; `None` is the null path.
    pub sender: Option<&'a Address>,
    /// The recipients that the client named.
    pub named: &'a [&'a Address],
    /// The number of recipients after aliases were expanded.
    pub recipients: usize,
    /// The addresses to which a copy goes, which the client has not named.
    pub copies: &'a [Address],
    /// The options that the client gave at MAIL.
    pub options: &'a MailOptions,
    /// The size of the message with the fields that this host has added, in bytes.
    pub size: u64,
    /// The client, as name and address.
    pub peer: &'a str,
    /// The proxy that forwarded the client's connection; empty for none.
    pub via: &'a str,
    /// The id of the message at the proxy; empty if the proxy gives none.
    pub ident: &'a str,
    /// The protocol: `SMTP`, or an RFC 3848 keyword such as `ESMTPS`.
    pub protocol: &'a str,
    /// How the session is encrypted.
    pub tls: Encryption,
    /// The authenticated user, or the login name of a local user.
    pub user: Option<&'a str>,
    /// If a local user submitted the message: the uid, and the name of the program as the client
    /// gave it.
    pub caller: Option<(u32, &'a str)>,
    /// The name in HELO or EHLO; `None` for a local user.
    pub hello: Option<&'a str>,
    /// The Message-ID, if the message has one.
    pub message_id: Option<&'a str>,
}

/// The maximum number of octets of the recipients that a line lists.
const MAX_LISTED: usize = 4 << 10;

/// Logs a failed TLS handshake with a client.
pub fn handshake_failed(session: &str, address: Option<IpAddr>, error: &std::io::Error) {
    stats::event(Event::TlsFailedIn);
    let (peer, why) = (peer(None, address), error.to_string());
    emit(Level::Info, &format!("{session} tls-failed peer={} reply={}", Value(&peer), Value(&why)));
}

/// Logs an accepted message.
pub fn accepted(event: &Accepted<'_>) {
    counted::accepted(event);
    let Accepted { id, session, recipients, options, size, via, ident, protocol, tls, caller, .. } = event;
    let sender = address::path(event.sender);
    let user = event.user.filter(|user| !user.is_empty()).unwrap_or("-");
    let (from, peer, user) = (Value(&sender), Value(event.peer), Value(user));
    let mut front = String::new();
    for (key, value) in
        [("via", *via), ("ident", *ident), ("proto", *protocol), ("tls", tls.name()), ("cipher", tls.cipher())]
    {
        if !value.is_empty() {
            push(&mut front, key, value);
        }
    }
    push_options(&mut front, options);
    if let Some((uid, program)) = caller {
        push(&mut front, "uid", &uid.to_string());
        push(&mut front, "program", if program.is_empty() { "-" } else { program });
    }
    let mut line =
        format!("{id} accept from={from} to={recipients} size={size} peer={peer}{front} user={user} session={session}");
    push_message(&mut line, event.hello, event.message_id, event.named);
    event.copies.iter().for_each(|copy| push(&mut line, "bcc", &format!("<{copy}>")));
    emit(Level::Info, &line);
}

/// Adds the name in HELO, the Message-ID, and the recipients up to a bound.
fn push_message(line: &mut String, hello: Option<&str>, message_id: Option<&str>, recipients: &[&Address]) {
    if let Some(hello) = hello {
        push(line, "helo", hello);
    }
    if let Some(message_id) = message_id {
        push(line, "msgid", message_id);
    }
    let start = line.len();
    for (number, recipient) in recipients.iter().enumerate() {
        let recipient = format!("<{recipient}>");
        if line.len() - start + recipient.len() > MAX_LISTED {
            push(line, "unlisted", &(recipients.len() - number).to_string());
            break;
        }
        push(line, "rcpt", &recipient);
    }
}

/// Adds the options that decide when and how a message is delivered.
fn push_options(line: &mut String, options: &MailOptions) {
    if options.priority != 0 {
        push(line, "priority", &options.priority.to_string());
    }
    if let Some(release) = options.release {
        push(line, "release", &timestamp(release));
    }
    if let Some(by) = options.deliver_by {
        let mode = if by.mode == ByMode::Return { "R" } else { "N" };
        let deadline = timestamp(by.deadline.try_into().unwrap_or(0));
        push(line, "deadline", &format!("{deadline};{mode}{}", if by.trace { "T" } else { "" }));
    }
    match options.tls {
        MessageTls::Default => {}
        MessageTls::Required => push(line, "require_tls", "yes"),
        MessageTls::Indifferent => push(line, "require_tls", "no"),
    }
}

/// The results of the checks of a message: each is a result and the domain that it is about.
#[derive(Debug, Default)]
pub struct Checked {
    /// The results of SPF.
    pub spf: Vec<(&'static str, String)>,
    /// The results of DKIM, one for each signature.
    pub dkim: Vec<(&'static str, String)>,
    /// The result of DMARC, and the policy that applies; `None` if it was not evaluated.
    pub dmarc: Option<(&'static str, String, &'static str)>,
    /// The result for the ARC chain, and the domain of the newest seal. The domain is `None` if the
    /// chain is broken. The whole is `None` if there is no chain.
    pub arc: Option<(&'static str, Option<String>)>,
}

/// Logs what SPF, DKIM, DMARC and ARC have shown about a message.
pub fn checked(id: &dyn fmt::Display, session: &str, event: &Checked) {
    counted::checked(event);
    let mut results = String::new();
    for (method, all) in [("spf", &event.spf), ("dkim", &event.dkim)] {
        for (result, domain) in all {
            push(&mut results, method, &format!("{result}:{domain}"));
        }
    }
    if let Some((result, domain, policy)) = &event.dmarc {
        push(&mut results, "dmarc", &format!("{result}:{domain}"));
        push(&mut results, "policy", policy);
    }
    if let Some((result, domain)) = &event.arc {
        let domain = domain.as_ref().map(|domain| format!(":{domain}")).unwrap_or_default();
        push(&mut results, "arc", &format!("{result}{domain}"));
    }
    emit(Level::Info, &format!("{id} checked session={session}{results}"));
}

/// Logs a successful authentication.
pub fn logged_in(session: &str, user: &str, address: Option<IpAddr>, mechanism: &str) {
    stats::event(Event::LoggedIn);
    emit(Level::Info, &format!("{session} auth user={} peer={} mechanism={mechanism}", Value(user), host(address)));
}

/// Logs that a client has asked for the mail of a node by ETRN, and the number of jobs that wait for
/// it; `None` if the queue has not answered.
pub fn asked_for_queue(
    session: &str,
    node: &dyn fmt::Display,
    jobs: Option<usize>,
    address: Option<IpAddr>,
    user: Option<&str>,
) {
    let (node, jobs) = (node.to_string(), jobs.map_or_else(|| "-".to_owned(), |jobs| jobs.to_string()));
    emit(
        Level::Info,
        &format!(
            "{session} etrn node={} jobs={jobs} peer={} user={}",
            Value(&node),
            host(address),
            Value(user.unwrap_or("-"))
        ),
    );
}

/// Logs a failed authentication, in a form that programs such as fail2ban can rely on: the claimed
/// user name cannot forge another line.
pub fn auth_failed(session: &str, user: &str, address: Option<IpAddr>, mechanism: &str) {
    stats::event(Event::AuthFailed);
    emit(
        Level::Info,
        &format!("{session} auth-failed user={} peer={} mechanism={mechanism}", Value(user), host(address)),
    );
}

/// The event that a command was refused.
pub struct Refused<'a> {
    /// The session id.
    pub session: &'a str,
    /// The address of the client.
    pub address: Option<IpAddr>,
    /// The command, as the client sent it.
    pub command: &'a str,
    /// The reply.
    pub reply: &'a dyn fmt::Display,
    /// The reverse-path; `None` if there was no MAIL, and `Some(None)` for the null path.
    pub sender: Option<Option<&'a Address>>,
    /// The recipients of the message, if a whole message was refused.
    pub named: &'a [&'a Address],
    /// The name in HELO or EHLO, if the client has sent one.
    pub hello: Option<&'a str>,
    /// The Message-ID, if a whole message was refused.
    pub message_id: Option<&'a str>,
    /// The rule behind the refusal, if there is one.
    pub rule: Option<Rule<'a>>,
}

/// The rule behind a refusal.
pub struct Rule<'a> {
    /// The short name of the rule.
    pub name: &'a str,
    /// The configuration key of the rule.
    pub key: Option<&'a str>,
    /// The line of a table that led to the refusal.
    pub line: Option<&'a dyn fmt::Display>,
}

/// Logs a refused command.
pub fn refused(event: &Refused<'_>) {
    let (peer, reply) = (host(event.address), event.reply.to_string());
    counted::refused(event.address, event.rule.as_ref().map(|rule| rule.name), &reply);
    let mut line =
        format!("{} refused command={} peer={peer} reply={}", event.session, Value(event.command), Value(&reply));
    if let Some(table) = event.rule.as_ref().and_then(|rule| rule.line) {
        push(&mut line, "table", &table.to_string());
    }
    if let Some(sender) = event.sender {
        push(&mut line, "from", &address::path(sender));
    }
    push_message(&mut line, event.hello, event.message_id, event.named);
    if let Some(rule) = &event.rule {
        push(&mut line, "reason", rule.name);
        if let Some(key) = rule.key {
            push(&mut line, "key", key);
        }
    }
    emit(Level::Info, &line);
}

/// Logs that a message got a 250, and was discarded because a filter wants that.
pub fn discarded(event: &Refused<'_>) {
    let (peer, sender) = (host(event.address), address::path(event.sender.flatten()));
    let mut line = format!("{} discarded from={} peer={peer}", event.session, Value(&sender));
    push_message(&mut line, event.hello, event.message_id, event.named);
    emit(Level::Info, &line);
}

/// A transaction that has ended before the end of a message, with its connection.
pub struct Lost<'a> {
    /// The session id.
    pub session: &'a str,
    /// The address of the client.
    pub address: Option<IpAddr>,
    /// The command after which the client was lost.
    pub stage: &'a str,
    /// Why the connection has ended.
    pub why: &'a str,
    /// The reverse-path; `None` is the null path.
    pub sender: Option<&'a Address>,
    /// The recipients that were accepted.
    pub named: &'a [&'a Address],
    /// The name in HELO or EHLO, if the client has sent one.
    pub hello: Option<&'a str>,
}

/// Logs that a client was lost although recipients of a message had been accepted.
pub fn lost(event: &Lost<'_>) {
    let (peer, sender) = (host(event.address), address::path(event.sender));
    let mut line = format!("{} lost from={} peer={peer}", event.session, Value(&sender));
    push(&mut line, "stage", event.stage);
    push(&mut line, "reason", event.why);
    push_message(&mut line, event.hello, None, event.named);
    emit(Level::Info, &line);
}

/// Logs that a message gets a mark: the key and the value of the mark, and the line of the table
/// that led to it.
pub fn marked(session: &str, address: Option<IpAddr>, (key, value): (&str, &str), line: &dyn fmt::Display) {
    let mut text = String::new();
    push(&mut text, key, value);
    push(&mut text, "table", &line.to_string());
    emit(Level::Info, &format!("{session} marked{text} peer={}", host(address)));
}

/// Logs the number of refused commands that were not logged one by one.
pub fn refused_more(session: &str, address: Option<IpAddr>, count: usize) {
    counted::refused_more(address, count);
    emit(Level::Info, &format!("{session} refused more={count} peer={}", host(address)));
}

/// Logs that an account has reached the hourly limit `limit`. `what` is the key under which the
/// line shows this number.
pub fn limit_reached(session: &str, account: &str, what: &str, limit: usize) {
    stats::event(Event::Limit);
    emit(Level::Warn, &format!("{session} limit account={} {what}={limit}", Value(account)));
}

/// An attempt to deliver a message to one recipient.
pub struct Attempt<'a> {
    /// The queue id.
    pub id: &'a dyn fmt::Display,
    /// The recipient after aliases were expanded.
    pub recipient: &'a Address,
    /// The address from the RCPT command, if an alias replaced it.
    pub original: Option<&'a Address>,
    /// The way of delivery, such as `maildir` or `smtp`.
    pub via: &'a str,
    /// The outcome of the attempt.
    pub outcome: &'a Outcome,
    /// The cause of a deferral or failure, in a few words, for statistics.
    pub cause: &'a str,
    /// The age of the message when the attempt ends.
    pub delay: Duration,
    /// The time of the next attempt, in seconds since 1970, if there is one.
    pub next: Option<u64>,
}

/// Logs an attempt.
pub fn attempt(event: &Attempt<'_>) {
    counted::attempt(event);
    let Attempt { id, recipient, original, via, outcome, delay, next, .. } = event;
    let word = match outcome.fate {
        Fate::Delivered if *via == Via::Discard.word() => "discarded",
        Fate::Delivered => "sent",
        Fate::Deferred => "deferred",
        Fate::Failed => "failed",
    };
    let mut line = format!("{id} {word} to={}", Value(&format!("<{recipient}>")));
    if let Some(original) = original {
        push(&mut line, "orig", &format!("<{original}>"));
    }
    push(&mut line, "via", via);
    if !outcome.host.is_empty() {
        push(&mut line, "host", &outcome.host);
    }
    if !outcome.tls.name().is_empty() {
        push(&mut line, "tls", outcome.tls.name());
    }
    if !outcome.tls.cipher().is_empty() {
        push(&mut line, "cipher", outcome.tls.cipher());
    }
    if !outcome.tls.verified_by().is_empty() {
        push(&mut line, "verified", outcome.tls.verified_by());
    }
    line.push_str(&format!(" delay={:.1}", delay.as_secs_f64()));
    if let Some(next) = next {
        push(&mut line, "next", &timestamp(*next));
    }
    push_answer(&mut line, outcome);
    emit(Level::Info, &line);
}

/// Adds what was answered, or the reason of the outcome if nothing was.
pub(super) fn push_answer(line: &mut String, outcome: &Outcome) {
    if let Some(reply) = &outcome.reply {
        line.push_str(&format!(" code={}", reply.code()));
    }
    line.push_str(&format!(" dsn={}", outcome.status));
    if outcome.fate != Fate::Delivered && outcome.reply.is_some() {
        push(line, "said_to", outcome.answered);
    }
    match &outcome.reply {
        Some(reply) => push(line, "reply", &reply.to_string()),
        None if outcome.why.is_empty() => {}
        None => push(line, "reason", &outcome.why),
    }
}

/// Logs that opportunistic TLS with a host failed and the message is sent in plaintext.
pub fn plaintext(id: &dyn fmt::Display, host: &dyn fmt::Display, why: &str) {
    stats::event(Event::TlsFailedOut);
    emit(Level::Info, &format!("{id} tls-failed host={} tls=none reason={}", Value(&host.to_string()), Value(why)));
}

/// Logs that a message was converted for a host.
pub fn converted(id: &dyn fmt::Display, host: &dyn fmt::Display, conversion: Conversion) {
    let form = if conversion.keeps_eight_bit { "8bit" } else { "7bit" };
    emit(Level::Info, &format!("{id} converted host={} form={form}", Value(&host.to_string())));
}

/// Logs that a report about failures was made, and to whom it goes.
pub fn bounced(id: &dyn fmt::Display, report: &dyn fmt::Display, to: &Address) {
    stats::event(Event::Bounced);
    emit(Level::Info, &format!("{id} bounced report={report} to={}", Value(&format!("<{to}>"))));
}

/// Logs that a report about a delay was made, and to whom it goes.
pub fn warned(id: &dyn fmt::Display, report: &dyn fmt::Display, to: &Address) {
    stats::event(Event::Warned);
    emit(Level::Info, &format!("{id} warned report={report} to={}", Value(&format!("<{to}>"))));
}

/// Logs that a report about successful deliveries was made, and to whom it goes.
pub fn confirmed(id: &dyn fmt::Display, report: &dyn fmt::Display, to: &Address) {
    stats::event(Event::Confirmed);
    emit(Level::Info, &format!("{id} confirmed report={report} to={}", Value(&format!("<{to}>"))));
}

/// Logs that something that could be reported is reported to no one.
pub fn dropped(id: &dyn fmt::Display, why: &str) {
    stats::event(Event::Dropped);
    emit(Level::Info, &format!("{id} dropped reason={}", Value(why)));
}

/// Logs that a message is held.
pub fn held(id: &dyn fmt::Display, reason: &str) {
    stats::event(Event::Held);
    emit(Level::Info, &format!("{id} held reason={}", Value(reason)));
}

/// Logs that a limit on the mail for a destination delays a message until `next`, in seconds since 1970.
pub fn paced(id: &dyn fmt::Display, destination: &str, reason: &dyn fmt::Display, next: u64) {
    let reason = reason.to_string();
    let (destination, reason, next) = (Value(destination), Value(&reason), timestamp(next));
    emit(Level::Info, &format!("{id} paced dest={destination} reason={reason} next={next}"));
}

/// Logs that a user has released a held message.
pub fn released(id: &dyn fmt::Display, user: &str) {
    stats::event(Event::Released);
    emit(Level::Info, &format!("{id} released user={}", Value(user)));
}

/// Logs that a user has removed a message while its delivery to `recipient` was still open.
pub fn removed(id: &dyn fmt::Display, sender: Option<&Address>, recipient: &Recipient, user: &str) {
    stats::event(Event::Removed);
    let mut line = format!("{id} removed to={}", Value(&format!("<{}>", recipient.address)));
    if let Some(original) = &recipient.original {
        push(&mut line, "orig", &format!("<{original}>"));
    }
    emit(Level::Info, &format!("{line} from={} user={}", Value(&address::path(sender)), Value(user)));
}

/// Logs that all recipients of a message are settled: each is delivered or has failed.
pub fn done(id: &dyn fmt::Display) {
    stats::event(Event::Done);
    emit(Level::Info, &format!("{id} done"));
}

/// A client in the log: `name[192.0.2.1]`.
pub fn peer(name: Option<&str>, address: Option<IpAddr>) -> String {
    match address {
        Some(address) => format!("{}[{address}]", name.unwrap_or("unknown")),
        None => "-".to_owned(),
    }
}

fn host(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "-".to_owned(), |address| format!("[{address}]"))
}
