//! Filters: random and mutated packets of milters, and actions of policy services.
//!
//! Nothing panics. A field that is read is one field, a reply is a refusal of well-formed lines, and
//! a message to which such changes are applied keeps its body.

use std::io::{self, Read};

use penfold::address::Address;
use penfold::filters::{Action, Change, Content, NewField, Options, Response, Text};

use super::{mutate, repeat};

/// Packets of well-behaved filters.
const PACKETS: &[&[u8]] = &[
    b"c",
    b"y550 5.7.1 no\0",
    b"y550-5.7.1 one\r\n550-5.7.1 100%% two\r\n550 5.7.1 three\0",
    b"hX-Spam\0yes\n\tscore=7\0",
    b"i\0\0\0\x01X-Spam\0 yes\0",
    b"m\0\0\0\x01Subject\0[SPAM] hello\0",
    b"m\0\0\0\x02X-Old\0\0",
    b"+<jon@razorback.test>\0",
    b"2<jon@razorback.test>\0NOTIFY=NEVER\0",
    b"-\"jon 1\"@razorback.test\0",
    b"e<>\0",
    b"qa virus\0",
    b"bbody\r\n",
];

const ACTIONS: &[&str] = &[
    "DUNNO",
    "REJECT 5.7.23 SPF says no",
    "DEFER_IF_PERMIT Greylisted, see http://postgrey.schweikert.ch/help/razorback.test.html",
    "550 5.2.2 the mailbox is full",
    "PREPEND Received-SPF: pass (mailfrom) identity=mailfrom; client-ip=192.0.2.1",
    "HOLD odd",
    "WARN odd",
];

struct Fixed<'a>(&'a [u8]);

impl Content for Fixed<'_> {
    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.0))
    }
}

const MESSAGE: &[u8] = b"Received: x\nSubject: hello\n again\nX-Old: 1\nX-Old: 2\n\nbody\n";

#[test]
fn packets_of_milters_are_read_without_a_panic() {
    repeat(|chance| {
        let mut text = Text::read(&Fixed(MESSAGE)).expect("read").expect("short");
        for _ in 0..chance.of(1..8) {
            let packet = match chance.of(0..4) {
                0 => chance.octets(0..200),
                _ => {
                    let packet = *chance.pick(PACKETS);
                    mutate(chance, packet)
                }
            };
            let Some((letter, data)) = packet.split_first() else { continue };
            let has_space = chance.percent(50);
            match Response::read(*letter, data) {
                Ok(Response::Refuse(reply)) => is_a_refusal(&reply, &packet),
                Ok(Response::Change(Change::AddField(field))) => {
                    is_one_field(&field);
                    let _ = text.header.add(&field, has_space);
                }
                Ok(Response::Change(Change::InsertField(index, field))) => {
                    is_one_field(&field);
                    let _ = text.header.insert(index, &field, has_space);
                }
                Ok(Response::Change(Change::ChangeField(index, field))) => {
                    is_one_field(&field);
                    let _ = text.header.change(index, &field, has_space);
                }
                _ => {}
            }
        }
        let (count, changes) = (text.header.fields.len(), text.into_changes());
        let mut changed = Vec::new();
        changes.apply(&mut &*MESSAGE, &mut changed).expect("applied");
        assert!(changed.ends_with(b"\n\nbody\n") || changed == b"\nbody\n", "{changed:?}");
        let content = Fixed(&changed);
        let again = Text::read(&content).expect("read").expect("short");
        assert_eq!(again.header.fields.len(), count, "{}", String::from_utf8_lossy(&changed));
    });
}

fn is_one_field(field: &NewField) {
    assert!(!field.name.is_empty() && field.name.iter().all(|b| b.is_ascii_graphic() && *b != b':'), "{field:?}");
    let mut lines = field.value.split(|b| *b == b'\n').skip(1);
    assert!(lines.all(|line| line.starts_with(b" ") || line.starts_with(b"\t")), "{field:?}");
    assert!(!field.value.contains(&0) && !field.value.contains(&b'\r'), "{field:?}");
}

fn is_a_refusal(reply: &penfold::reply::Reply, from: &[u8]) {
    let mut sent = Vec::new();
    reply.write_to(&mut sent);
    let text = String::from_utf8(sent).expect("ASCII");
    let lines: Vec<&str> = text.split_inclusive("\r\n").collect();
    for (index, line) in lines.iter().enumerate() {
        let mark = if index + 1 == lines.len() { ' ' } else { '-' };
        let front = format!("{}{mark}{}.", reply.code(), reply.code() / 100);
        assert!(line.starts_with(&front) && line.len() <= 512 && line.ends_with("\r\n"), "{from:?}: {text}");
        assert!(line.trim_end().bytes().all(|b| (b' '..=b'~').contains(&b)), "{from:?}: {text}");
        assert_eq!(line.matches(['\r', '\n']).count(), 2, "{from:?}: {text}");
    }
    assert!((400..600).contains(&reply.code()) && !lines.is_empty(), "{from:?}: {text}");
}

#[test]
fn negotiations_of_milters_are_read_without_a_panic() {
    let good = b"\0\0\0\x06\0\0\x01\xff\0\x1f\xf7\xff\0\0\0\x02{auth_type} i\0\0\0\0\x05i\0";
    repeat(|chance| {
        let _ = Options::read(&mutate(chance, good));
    });
}

#[test]
fn actions_of_policy_services_are_read_without_a_panic() {
    let recipient = Address::parse("jon@razorback.test").expect("an address");
    repeat(|chance| {
        let action = *chance.pick(ACTIONS);
        let text = mutate(chance, action.as_bytes());
        match Action::read(&String::from_utf8_lossy(&text), Some(&recipient)) {
            Ok(Action::Refuse(reply)) => is_a_refusal(&reply, &text),
            Ok(Action::Prepend(field)) => is_one_field(&field),
            _ => {}
        }
    });
}
