//! The form in which the last dialogues of a message are kept in a file, one for each destination.
//!
//! A dialogue begins with a line `@TIME DESTINATION`. Then follows a line `=ADDRESS` for each
//! recipient that other lines refer to, and a line for each line of the dialogue: a letter for its
//! kind, the number of the recipient if it is about one, a blank and the text. A file is never
//! trusted: what cannot be read is skipped.

use std::collections::HashMap;

use super::recorder::omitted;
use super::{Dialogue, Kind, Line, plain};

/// The maximum length of a file with dialogues, in bytes.
pub const MAX_FILE: u64 = 16 << 10;
/// The maximum length of one dialogue in a file, in bytes.
const MAX_DIALOGUE: usize = 8 << 10;

/// Returns the text of a file to which a dialogue is added. It replaces the dialogue with the same
/// destination. If there is too little space, the oldest dialogues are removed.
pub fn add(file: &str, dialogue: &Dialogue) -> String {
    let added = written(dialogue);
    let mut kept: Vec<String> = Vec::new();
    let mut size = added.len();
    for other in read(file).iter().rev().filter(|other| other.destination != dialogue.destination) {
        let text = written(other);
        size += text.len();
        if size as u64 > MAX_FILE {
            break;
        }
        kept.push(text);
    }
    kept.into_iter().rev().chain([added]).collect()
}

/// Reads the dialogues in a file, the oldest first.
pub fn read(file: &str) -> Vec<Dialogue> {
    let mut dialogues: Vec<Dialogue> = Vec::new();
    for line in file.lines() {
        if let Some((time, destination)) = line.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
            let (time, destination) = (time.parse().unwrap_or(0), plain(destination));
            dialogues.push(Dialogue { time, destination, ..Dialogue::default() });
        } else if let Some(dialogue) = dialogues.last_mut() {
            match line.strip_prefix('=') {
                Some(recipient) => dialogue.recipients.push(plain(recipient).into()),
                None => dialogue.lines.extend(read_line(line)),
            }
        }
    }
    dialogues
}

fn read_line(line: &str) -> Option<Line> {
    let (mark, text) = line.split_once(' ')?;
    let mut rest = mark.chars();
    let kind = match rest.next()? {
        'h' => Kind::Host,
        '*' => Kind::Remark,
        '>' => Kind::Command,
        '<' => Kind::Reply,
        _ => return None,
    };
    let about = match rest.as_str() {
        "" => None,
        number => Some(number.parse().ok()?),
    };
    Some(Line { kind, about, text: plain(text) })
}

/// Returns the text of one dialogue. If it is too long, lines in the middle are left out.
fn written(dialogue: &Dialogue) -> String {
    let Dialogue { time, destination, lines, .. } = dialogue;
    let size = |line: &Line| line.text.len() + 10 + dialogue.recipient_of(line).map_or(0, |about| about.len() + 2);
    let room = MAX_DIALOGUE.saturating_sub(destination.len() + 50);
    let (front, back) = if lines.iter().map(size).sum::<usize>() <= room {
        (lines.as_slice(), [].as_slice())
    } else {
        shortened(lines, size, room)
    };
    let omission = (front.len() < lines.len()).then(|| omitted(lines.len() - front.len() - back.len()));
    let omission = omission.map(|text| Line { kind: Kind::Remark, about: None, text });
    let (mut numbers, mut recipients, mut text) = (HashMap::new(), String::new(), String::new());
    for line in front.iter().chain(&omission).chain(back) {
        let mark = match line.kind {
            Kind::Host => 'h',
            Kind::Remark => '*',
            Kind::Command => '>',
            Kind::Reply => '<',
        };
        let number = dialogue.recipient_of(line).map(|recipient| {
            let next = numbers.len();
            *numbers.entry(recipient).or_insert_with(|| {
                recipients += &format!("={recipient}\n");
                next
            })
        });
        text += &format!("{mark}{} {}\n", number.map(|number| number.to_string()).unwrap_or_default(), line.text);
    }
    format!("@{time} {destination}\n{recipients}{text}")
}

/// Returns the lines at the front and those at the back that fit into `room` bytes. Most of the room
/// is for those at the back, which show how the attempt ended.
fn shortened(lines: &[Line], size: impl Fn(&Line) -> usize, room: usize) -> (&[Line], &[Line]) {
    let fitting = |lines: &mut dyn Iterator<Item = &Line>, room: usize| {
        let mut sum = 0;
        let fits = |line: &&Line| {
            sum += size(line);
            sum <= room
        };
        lines.take_while(fits).count()
    };
    let (front, rest) = lines.split_at(fitting(&mut lines.iter(), room / 4));
    let back = fitting(&mut rest.iter().rev(), room / 2);
    (front, rest.get(rest.len() - back..).unwrap_or_default())
}
