//! The client side of Postfix's policy delegation protocol: one request with the facts about a
//! recipient, and one action as the answer.
//!
//! A request and an answer are lines `name=value`, up to an empty line. A connection is used for
//! all requests of a session. If the service has closed it since the last request, as many do after
//! a pause, it is opened again.

use std::time::{Duration, Instant};

use super::Trouble;
use super::facts::{Client, Person};
use super::link::Link;
use super::milter::{Change, NewField, Response};
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::reply::filter::refusal;
use crate::reply::{Reply, Status};

/// The maximum length of a line of an answer, in octets.
const MAX_LINE: usize = 4096;
/// The maximum number of lines of an answer.
const MAX_LINES: usize = 100;
/// The maximum length of a reason, in characters.
const MAX_REASON: usize = 200;

/// What a service decides about a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing: DUNNO, and actions that have no effect here.
    Dunno,
    /// OK: no further services are asked about the recipient.
    Permit,
    /// The recipient is refused.
    Refuse(Reply),
    /// PREPEND: the message gets this field.
    Prepend(NewField),
    /// HOLD: the message is quarantined for this reason.
    Hold(String),
    /// DISCARD: the message is accepted and dropped.
    Discard,
    /// WARN or INFO: this text is logged.
    Warn(String),
}

impl Action {
    /// Reads an action about `recipient`. The reply to a refusal names the recipient.
    ///
    /// # Errors
    /// If the action is unknown, or cannot be done here.
    pub fn read(text: &str, recipient: Option<&Address>) -> Result<Self, Trouble> {
        let (word, rest) = text.trim().split_once([' ', '\t']).unwrap_or((text.trim(), ""));
        let rest = rest.trim();
        let refuse = |code, status| Ok(Self::Refuse(refused(code, status, rest, recipient)));
        match word.to_ascii_uppercase().as_str() {
            // DEFER_IF_REJECT decides only about recipients that are refused anyway.
            "DUNNO" | "DEFER_IF_REJECT" => Ok(Self::Dunno),
            "OK" | "PERMIT" => Ok(Self::Permit),
            "REJECT" => refuse(554, Status(5, 7, 1)),
            "DEFER" | "DEFER_IF_PERMIT" => refuse(450, Status(4, 7, 1)),
            "PREPEND" => prepend(rest).map(Self::Prepend),
            "HOLD" => Ok(Self::Hold(shown(rest))),
            "DISCARD" => Ok(Self::Discard),
            "WARN" | "INFO" => Ok(Self::Warn(shown(rest))),
            digits if digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                let code = digits.parse().ok().filter(|code| (400..600).contains(code));
                let code = code.ok_or_else(|| unknown(text))?;
                refuse(code, Status(if code < 500 { 4 } else { 5 }, 7, 1))
            }
            _ => Err(unknown(text)),
        }
    }
}

fn unknown(text: &str) -> Trouble {
    Trouble::new(format!("it answered with the action {:?}", text.chars().take(80).collect::<String>()))
}

fn refused(code: u16, status: Status, text: &str, recipient: Option<&Address>) -> Reply {
    let (status, text) = Status::read(text).unwrap_or((status, text));
    let text = if text.is_empty() { "Access denied" } else { text };
    let line = match recipient {
        Some(recipient) => format!("<{recipient}>: Recipient address rejected: {text}"),
        None => text.to_owned(),
    };
    refusal(code, Some(status), std::iter::once(line.as_str()))
}

/// Reads a field. The rules for fields are those for milters.
fn prepend(text: &str) -> Result<NewField, Trouble> {
    let (name, value) = text.split_once(':').ok_or_else(|| unknown(text))?;
    let data = [name.trim_end().as_bytes(), b"\0", value.trim_start().as_bytes(), b"\0"].concat();
    match Response::read(b'h', &data) {
        Ok(Response::Change(Change::AddField(field))) => Ok(field),
        _ => Err(unknown(text)),
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect()
}

/// The facts of a request.
#[derive(Debug)]
pub struct Request<'a> {
    /// The client.
    pub client: &'a Client,
    /// The sender.
    pub sender: &'a Person,
    /// The recipient.
    pub recipient: &'a Person,
    /// A text that is the same in all requests about one message.
    pub instance: &'a str,
}

impl Request<'_> {
    fn text(&self) -> Vec<u8> {
        let Self { client, sender, recipient, instance } = self;
        let path = |person: &Person| person.address.as_ref().map(ToString::to_string).unwrap_or_default();
        let size = sender.parameters.iter().find_map(|parameter| parameter.strip_prefix("SIZE="));
        let (user, mechanism) = client.login.clone().unwrap_or_default();
        let (version, cipher) = client.tls.clone().unwrap_or_default();
        let bits = match cipher.is_empty() {
            true => "0",
            false if cipher.contains("128") => "128",
            false => "256",
        };
        let (own, port) =
            client.own.map(|own| (own.ip().to_canonical().to_string(), own.port().to_string())).unwrap_or_default();
        let attributes = [
            ("request", "smtpd_access_policy".to_owned()),
            ("protocol_state", "RCPT".to_owned()),
            ("protocol_name", if client.is_extended { "ESMTP" } else { "SMTP" }.to_owned()),
            ("client_address", client.shown_address()),
            ("client_name", client.shown_name().to_owned()),
            ("client_port", client.port.to_string()),
            ("reverse_client_name", client.shown_name().to_owned()),
            ("server_address", own),
            ("server_port", port),
            ("helo_name", client.hello.clone()),
            ("sender", path(sender)),
            ("recipient", path(recipient)),
            ("recipient_count", "0".to_owned()),
            ("queue_id", String::new()),
            ("instance", (*instance).to_owned()),
            ("size", size.unwrap_or("0").to_owned()),
            ("etrn_domain", String::new()),
            ("stress", String::new()),
            ("sasl_method", mechanism),
            ("sasl_username", user),
            ("sasl_sender", String::new()),
            ("ccert_subject", String::new()),
            ("ccert_issuer", String::new()),
            ("ccert_fingerprint", String::new()),
            ("ccert_pubkey_fingerprint", String::new()),
            ("encryption_protocol", version.replace("TLS1", "TLSv1")),
            ("encryption_cipher", cipher),
            ("encryption_keysize", bits.to_owned()),
            ("policy_context", String::new()),
        ];
        let mut text = Vec::new();
        for (name, value) in attributes {
            let value = value.chars().map(|c| if c.is_control() { '?' } else { c });
            text.extend(format!("{name}={}\n", value.collect::<String>()).into_bytes());
        }
        text.push(b'\n');
        text
    }
}

/// A connection to a policy service.
#[derive(Debug)]
pub struct Service {
    link: Link,
}

impl Service {
    /// Connects to a service.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn open(socket: &Endpoint, timeout: Duration) -> Result<Self, Trouble> {
        Ok(Self { link: Link::open(socket, timeout)? })
    }

    /// Whether the service has closed the connection.
    pub fn is_stale(&mut self) -> bool {
        self.link.is_stale()
    }

    /// Sends a request and reads the action.
    ///
    /// # Errors
    /// If the service fails, does not answer within `timeout`, or answers with an unknown action.
    pub fn ask(&mut self, request: &Request<'_>, timeout: Duration) -> Result<Action, Trouble> {
        self.link.set_deadline(Instant::now() + timeout);
        self.link.put(&request.text())?;
        self.link.send()?;
        let mut action: Option<String> = None;
        for _ in 0..MAX_LINES {
            let line = self.link.line(MAX_LINE)?;
            let line = String::from_utf8_lossy(&line);
            if line.is_empty() {
                let action = action.ok_or_else(|| Trouble::new("it answered without an action"))?;
                return Action::read(&action, request.recipient.address.as_ref());
            }
            if action.is_none() {
                action = line.strip_prefix("action=").map(str::to_owned);
            }
        }
        Err(Trouble::new("its answer is too long"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_of_postfix_are_read() {
        let recipient = Address::parse("jon@here.test").expect("an address");
        let shown = |text: &str| match Action::read(text, Some(&recipient)) {
            Ok(Action::Refuse(reply)) => reply.to_string(),
            Ok(Action::Prepend(field)) => {
                format!("{}: {}", String::from_utf8_lossy(&field.name), String::from_utf8_lossy(&field.value))
            }
            Ok(action) => format!("{action:?}"),
            Err(_) => "trouble".to_owned(),
        };
        let rejected = "<jon@here.test>: Recipient address rejected: ";
        for (text, want) in [
            ("DUNNO", "Dunno".to_owned()),
            ("dunno", "Dunno".to_owned()),
            ("DEFER_IF_REJECT later", "Dunno".to_owned()),
            ("OK", "Permit".to_owned()),
            ("REJECT", format!("554 5.7.1 {rejected}Access denied")),
            ("REJECT 5.7.23 SPF fail", format!("554 5.7.23 {rejected}SPF fail")),
            ("DEFER_IF_PERMIT Greylisted, see http://x", format!("450 4.7.1 {rejected}Greylisted, see http://x")),
            ("DEFER 4.2.0", format!("450 4.2.0 {rejected}Access denied")),
            ("550 5.2.2 mailbox is full", format!("550 5.2.2 {rejected}mailbox is full")),
            ("552", format!("552 5.7.1 {rejected}Access denied")),
            ("450 5.1.1 mixed", format!("450 4.7.1 {rejected}mixed")),
            ("421 4.7.0 x", format!("421 4.7.0 {rejected}x")),
            ("PREPEND Received-SPF: pass (x) y=z", "Received-SPF: pass (x) y=z".to_owned()),
            ("HOLD too odd", "Hold(\"too odd\")".to_owned()),
            ("DISCARD", "Discard".to_owned()),
            ("WARN odd\u{1b}[2J", "Warn(\"odd[2J\")".to_owned()),
            ("250 fine", "trouble".to_owned()),
            ("999", "trouble".to_owned()),
            ("PREPEND no field", "trouble".to_owned()),
            ("REDIRECT a@b.test", "trouble".to_owned()),
            ("FILTER smtp:x", "trouble".to_owned()),
            ("", "trouble".to_owned()),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
    }
}
