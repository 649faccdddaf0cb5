//! The macros: facts about the session and the message that a filter reads by name.
//!
//! Names and values are those of Postfix, because most filters are tested with Postfix.

use super::packet::push_text;
use crate::address;
use crate::filters::facts::{Client, Person};

/// The stage of the dialogue at which macros are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Connect,
    Hello,
    Mail,
    Rcpt,
    Data,
    EndOfMessage,
    EndOfHeader,
}

impl Stage {
    /// All stages, in the order of their numbers in the protocol.
    pub const ALL: [Self; 7] =
        [Self::Connect, Self::Hello, Self::Mail, Self::Rcpt, Self::Data, Self::EndOfMessage, Self::EndOfHeader];

    /// The stage with this number.
    pub fn of_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// The names of the macros that are sent at a stage if the filter asks for none.
pub fn usual(stage: Stage) -> &'static [&'static str] {
    match stage {
        Stage::Connect => &[
            "j",
            "_",
            "v",
            "b",
            "{daemon_name}",
            "{daemon_addr}",
            "{daemon_port}",
            "{if_name}",
            "{if_addr}",
            "{client_addr}",
            "{client_name}",
            "{client_port}",
            "{client_ptr}",
        ],
        Stage::Hello => &["{tls_version}", "{cipher}", "{cipher_bits}", "{cert_subject}", "{cert_issuer}"],
        Stage::Mail => {
            &["i", "{auth_type}", "{auth_authen}", "{auth_author}", "{mail_addr}", "{mail_host}", "{mail_mailer}"]
        }
        Stage::Rcpt => &["i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"],
        Stage::Data | Stage::EndOfHeader => &["i"],
        Stage::EndOfMessage => &["i", "{nrcpts}"],
    }
}

/// What the values of the macros are taken from.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The name of this host.
    pub hostname: &'a str,
    /// The client.
    pub client: &'a Client,
    /// The sender, from MAIL on.
    pub sender: Option<&'a Person>,
    /// The recipient, at RCPT.
    pub recipient: Option<&'a Person>,
    /// The queue id, from DATA on; empty before.
    pub id: &'a str,
    /// The number of accepted recipients.
    pub recipients: usize,
}

impl Values<'_> {
    /// The data of a packet with macros. It contains each macro in `names` that has a value.
    pub fn packet(&self, letter: u8, names: &[&str]) -> Vec<u8> {
        let mut data = vec![letter];
        for name in names {
            let bare = name.trim_matches(['{', '}']);
            if let Some(value) = self.value(bare).filter(|value| !value.is_empty()) {
                let name = if bare.chars().count() > 1 { format!("{{{bare}}}") } else { bare.to_owned() };
                push_text(&mut data, name.as_bytes());
                push_text(&mut data, clean(&value).as_bytes());
            }
        }
        data
    }

    fn value(&self, name: &str) -> Option<String> {
        let client = self.client;
        let tls = client.tls.as_ref();
        Some(match name {
            "j" | "daemon_name" | "if_name" => self.hostname.to_owned(),
            "v" => format!("penfold {}", env!("CARGO_PKG_VERSION")),
            "b" => crate::message::trace::date(&crate::log::local_time()),
            "_" => format!("{} [{}]", client.shown_name(), client.shown_address()),
            "i" => self.id.to_owned(),
            "daemon_addr" | "if_addr" => client.own?.ip().to_canonical().to_string(),
            "daemon_port" => client.own?.port().to_string(),
            "client_addr" => client.shown_address(),
            "client_name" | "client_ptr" => client.shown_name().to_owned(),
            "client_port" => client.port.to_string(),
            "client_resolve" => if client.name.is_some() { "OK" } else { "FAIL" }.to_owned(),
            "tls_version" => tls?.0.replace("TLS1", "TLSv1"),
            "cipher" => tls?.1.clone(),
            "cipher_bits" => if tls?.1.contains("128") { "128" } else { "256" }.to_owned(),
            "auth_type" => client.login.as_ref()?.1.clone(),
            "auth_authen" => client.login.as_ref()?.0.clone(),
            "mail_addr" => self.sender?.address(),
            "mail_host" => self.sender?.host(),
            "mail_mailer" => self.sender?.mailer().to_owned(),
            "rcpt_addr" => self.recipient?.address(),
            "rcpt_host" => self.recipient?.host(),
            "rcpt_mailer" => self.recipient?.mailer().to_owned(),
            "nrcpts" => self.recipients.to_string(),
            _ => return None,
        })
    }
}

impl Person {
    fn address(&self) -> String {
        self.address.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    fn host(&self) -> String {
        self.address.as_ref().map(|address| address.domain().to_owned()).unwrap_or_default()
    }

    fn mailer(&self) -> &'static str {
        if self.is_local { "local" } else { "smtp" }
    }

    /// The address in angle brackets, and the parameters, each with a NUL.
    pub fn arguments(&self) -> Vec<u8> {
        let mut data = Vec::new();
        push_text(&mut data, address::path(self.address.as_ref()).as_bytes());
        self.parameters.iter().for_each(|parameter| push_text(&mut data, parameter.as_bytes()));
        data
    }
}

/// A value without control characters.
fn clean(value: &str) -> String {
    value.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
