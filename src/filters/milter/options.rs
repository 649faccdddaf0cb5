//! The negotiation at the start of a connection: the version, what the filter may change, which
//! events it wants, and the macros that it asks for.

use super::macros::{self, Stage};
use super::packet::{number, take_text};
use crate::filters::Trouble;

/// What a filter may do to a message.
pub mod action {
    pub const ADD_HEADERS: u32 = 0x1;
    pub const CHANGE_BODY: u32 = 0x2;
    pub const ADD_RECIPIENTS: u32 = 0x4;
    pub const DELETE_RECIPIENTS: u32 = 0x8;
    pub const CHANGE_HEADERS: u32 = 0x10;
    pub const QUARANTINE: u32 = 0x20;
    pub const CHANGE_SENDER: u32 = 0x40;
    pub const ADD_RECIPIENTS_WITH_PARAMETERS: u32 = 0x80;
    pub const ALL: u32 = 0x1ff; // with the last one, to ask for macros
}

/// The flags of the protocol. Without any flag, every event is sent, and every reply is awaited.
pub mod protocol {
    pub const NO_CONNECT: u32 = 0x1;
    pub const NO_HELO: u32 = 0x2;
    pub const NO_MAIL: u32 = 0x4;
    pub const NO_RCPT: u32 = 0x8;
    pub const NO_BODY: u32 = 0x10;
    pub const NO_HEADERS: u32 = 0x20;
    pub const NO_END_OF_HEADER: u32 = 0x40;
    pub const NO_REPLY_TO_HEADER: u32 = 0x80;
    pub const NO_UNKNOWN: u32 = 0x100;
    pub const NO_DATA: u32 = 0x200;
    pub const SKIP: u32 = 0x400;
    pub const NO_REPLY_TO_CONNECT: u32 = 0x1000;
    pub const NO_REPLY_TO_HELO: u32 = 0x2000;
    pub const NO_REPLY_TO_MAIL: u32 = 0x4000;
    pub const NO_REPLY_TO_RCPT: u32 = 0x8000;
    pub const NO_REPLY_TO_DATA: u32 = 0x1_0000;
    pub const NO_REPLY_TO_UNKNOWN: u32 = 0x2_0000;
    pub const NO_REPLY_TO_END_OF_HEADER: u32 = 0x4_0000;
    pub const NO_REPLY_TO_BODY: u32 = 0x8_0000;
    pub const LEADING_SPACE: u32 = 0x10_0000;
    /// The flags that this server offers: all but those for larger packets and those for recipients
    /// that this server itself has refused.
    pub const ALL: u32 = 0x1f_f7ff;
    /// The flags that exist in versions before 6.
    pub const OLD: u32 = 0x3ff;
}

/// The version that this server offers.
const VERSION: u32 = 6;
/// The maximum number of macros that a filter may ask for at one stage.
const MAX_MACROS: usize = 100;

/// The result of the negotiation.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    version: u32,
    actions: u32,
    protocol: u32,
    /// The macros that the filter has asked for, at the stages where it has.
    macros: Vec<(Stage, Vec<String>)>,
}

impl Options {
    /// The data of the packet that offers everything.
    pub fn offer() -> Vec<u8> {
        [VERSION, action::ALL, protocol::ALL].iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    /// Reads the answer of a filter.
    ///
    /// # Errors
    /// If the answer is malformed, or asks for something that was not offered.
    pub fn read(data: &[u8]) -> Result<Self, Trouble> {
        let at = |index: usize| data.get(4 * index..).and_then(number);
        let (Some(version), Some(actions), Some(wanted)) = (at(0), at(1), at(2)) else {
            return Err(Trouble::new("its negotiation is malformed"));
        };
        if !(2..=VERSION).contains(&version) {
            return Err(Trouble::new(format!("it uses version {version} of the protocol")));
        }
        if actions & !action::ALL != 0 {
            return Err(Trouble::new(format!("it asks for the actions {actions:#x}")));
        }
        let known = if version < 6 { protocol::OLD } else { protocol::ALL };
        let macros = requested(data.get(12..).unwrap_or_default())?;
        Ok(Self { version, actions, protocol: wanted & known, macros })
    }

    /// Whether this flag of [`protocol`] is set.
    pub fn has(&self, flag: u32) -> bool {
        self.protocol & flag != 0
    }

    /// Whether the filter may take one of these actions.
    pub fn may(&self, actions: u32) -> bool {
        self.actions & actions != 0
    }

    /// Whether the filter knows the event DATA.
    pub fn knows_data(&self) -> bool {
        self.version >= 4
    }

    /// Whether the filter knows the event for unknown commands.
    pub fn knows_unknown(&self) -> bool {
        self.version >= 3
    }

    /// The names of the macros that are sent at a stage.
    pub fn macros(&self, stage: Stage) -> Vec<&str> {
        match self.macros.iter().find(|(asked, _)| *asked == stage) {
            Some((_, names)) => names.iter().map(String::as_str).collect(),
            None => macros::usual(stage).to_vec(),
        }
    }
}

/// Reads the lists of macros at the end of the answer: pairs of a stage and a text of names.
fn requested(mut data: &[u8]) -> Result<Vec<(Stage, Vec<String>)>, Trouble> {
    let mut lists: Vec<(Stage, Vec<String>)> = Vec::new();
    while !data.is_empty() && lists.len() < Stage::ALL.len() {
        let stage = number(data).and_then(Stage::of_number);
        let mut rest = data.get(4..).unwrap_or_default();
        let names = take_text(&mut rest);
        let (Some(stage), Some(names)) = (stage, names) else {
            return Err(Trouble::new("its list of macros is malformed"));
        };
        let names = String::from_utf8_lossy(names);
        let names = names.split([' ', ',', '\t']).filter(|name| !name.is_empty()).take(MAX_MACROS);
        lists.push((stage, names.map(str::to_owned).collect()));
        data = rest;
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(numbers: [u32; 3], rest: &[u8]) -> Result<Options, Trouble> {
        let mut data: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        data.extend_from_slice(rest);
        Options::read(&data)
    }

    #[test]
    fn versions_and_actions_that_were_not_offered_are_errors() {
        for version in 2..=6 {
            assert!(answer([version, 0x1ff, 0x1f_ffff], b"").is_ok(), "{version}");
        }
        for (numbers, rest) in [
            ([1, 0, 0], &b""[..]),
            ([7, 0, 0], b""),
            ([0, 0, 0], b""),
            ([6, 0x200, 0], b""),
            ([6, 0, 0], b"\0\0"),
            ([6, 0, 0], b"\0\0\0\x01j"),
            ([6, 0, 0], b"\0\0\0\x09j\0"),
        ] {
            assert!(answer(numbers, rest).is_err(), "{numbers:?} {rest:?}");
        }
        for length in 0..12 {
            assert!(Options::read(&vec![0; length]).is_err());
        }
    }

    #[test]
    fn an_old_filter_gets_no_newer_events_and_answers_everything() {
        let old = answer([2, 0x3f, 0x1f_ffff], b"").expect("good");
        assert!(!old.knows_data() && !old.knows_unknown() && old.has(protocol::NO_REPLY_TO_HEADER));
        assert!(!old.has(protocol::SKIP) && !old.has(protocol::NO_REPLY_TO_BODY));
        let new = answer([6, 0x1, 0x1f_ffff], b"").expect("good");
        assert!(new.knows_data() && new.knows_unknown() && new.has(protocol::NO_REPLY_TO_BODY));
        assert!(new.may(action::ADD_HEADERS) && !new.may(action::CHANGE_BODY));
    }

    #[test]
    fn macros_that_a_filter_asks_for_replace_the_usual_ones() {
        let options = answer([6, 0x100, 0], b"\0\0\0\x02{auth_type}, i\0\0\0\0\x05\0").expect("good");
        assert_eq!(options.macros(Stage::Mail), ["{auth_type}", "i"]);
        assert!(options.macros(Stage::EndOfMessage).is_empty());
        assert_eq!(options.macros(Stage::Rcpt), macros::usual(Stage::Rcpt));
    }
}
