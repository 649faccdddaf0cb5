//! Shows one message of the queue: what is known about it, its header, or the whole message.
//!
//! What is shown comes from the spool. A daemon adds what it alone knows: which attempts are
//! running, the routes of the recipients, and the state of their hosts. An unprivileged user
//! sees only messages that this user has submitted, without the mailboxes, the commands and the
//! hosts of this site.
//!
//! - `facts`: what is known about a message
//! - `json`: the facts as JSON
//! - `sender`: what the sender may see of the facts
//! - `text`: the facts as text for people

use std::io::{self, Read, Write};
use std::sync::Arc;

use super::visible;
use crate::json::Format;
use crate::message::field;
use crate::outgoing::Outgoing;
use crate::queue::{DestinationStatus, RunningJob};
use crate::retry::Schedule;
use crate::route::Router;
use crate::spool::{Entry, Place, QueueId, Spool, Unusable};

mod facts;
mod json;
mod sender;
mod text;

use facts::Facts;

/// The answer if there is no such message, or if the user may not see it.
pub const MISSING: &str = "no such message";
/// The maximum length of a header that is shown, in bytes.
const MAX_HEADER: u64 = 1 << 20;
/// The number of bytes at the front of a message in which its first trace field is looked for.
const MAX_FRONT: u64 = 16 << 10;

/// What is shown of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What is known about it.
    Facts(Format),
    /// Its header.
    Header,
    /// The whole message.
    Message,
}

impl Part {
    /// The part with this name in a request.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Facts(Format::Text), Self::Facts(Format::Json), Self::Header, Self::Message]
            .into_iter()
            .find(|part| part.word() == word)
    }

    /// The name of the part in a request.
    pub fn word(self) -> &'static str {
        match self {
            Self::Facts(Format::Text) => "text",
            Self::Facts(Format::Json) => "json",
            Self::Header => "header",
            Self::Message => "message",
        }
    }
}

/// What only a daemon knows.
pub struct Live<'a> {
    /// Returns the jobs of the message that run now. The queue is asked only about a message that the
    /// user may see.
    pub running: &'a dyn Fn() -> Vec<RunningJob>,
    /// The router in force.
    pub router: &'a Router,
    /// The table that decides how mail leaves this host.
    pub outgoing: &'a Outgoing,
    /// Returns what the queue knows about the destination with this name.
    pub status: &'a dyn Fn(String) -> Option<DestinationStatus>,
}

/// The message that is shown, and what is needed for that.
pub struct Shown<'a> {
    /// The spool.
    pub spool: &'a Arc<Spool>,
    /// The queue id.
    pub id: QueueId,
    /// The retry intervals.
    pub schedule: Schedule,
    /// If this is a uid, the message is shown only if this user has submitted it.
    pub submitted_by: Option<u32>,
    /// `None` without a daemon.
    pub live: Option<Live<'a>>,
}

/// Why a message is not shown.
#[derive(Debug)]
pub enum NotShown {
    /// There is no such message, or the user may not see it.
    Missing,
    /// The message is corrupt, or a later version has written it, as this text says.
    Unreadable(&'static str),
    /// The spool cannot be read.
    Io(io::Error),
}

impl NotShown {
    /// The answer to a request.
    pub fn answer(&self) -> String {
        match self {
            Self::Missing => MISSING.to_owned(),
            Self::Unreadable(why) => format!("the message cannot be read: {why}"),
            Self::Io(e) => format!("the spool cannot be read: {e}"),
        }
    }
}

impl From<io::Error> for NotShown {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Shown<'_> {
    /// Finds and opens the message.
    ///
    /// # Errors
    /// [`NotShown`].
    pub fn open(&self) -> Result<Entry, NotShown> {
        // A message may move from `new/` to `cur/` meanwhile. An entry in `cur/` has replaced a duplicate.
        for places in [&[Place::Cur][..], &[Place::New, Place::Cur, Place::Hold]] {
            let Some(name) = self.spool.find(self.id, places)? else { continue };
            match self.spool.entry(name) {
                Ok(entry) => match self.submitted_by {
                    Some(uid) if visible::submitter(&entry) != Some(uid) => return Err(NotShown::Missing),
                    _ => return Ok(entry),
                },
                Err(Unusable::Gone) => {}
                Err(_) if self.submitted_by.is_some() => return Err(NotShown::Missing),
                Err(Unusable::Later(why) | Unusable::Corrupt(why)) => return Err(NotShown::Unreadable(why)),
                Err(Unusable::Io(e)) => return Err(e.into()),
            }
        }
        Err(NotShown::Missing)
    }

    /// Writes a part of a message that was opened.
    ///
    /// # Errors
    /// Those of reading the message and of `out`.
    pub fn write(&self, entry: &Entry, part: Part, out: &mut dyn Write) -> io::Result<()> {
        match part {
            Part::Facts(format) => {
                let facts = Facts::gather(self, entry)?;
                match format {
                    Format::Text => text::write(&facts, out),
                    Format::Json => writeln!(out, "{}", json::object(&facts)),
                }
            }
            Part::Header => {
                let mut text = Vec::new();
                entry.content().take(MAX_HEADER).read_to_end(&mut text)?;
                out.write_all(field::header(&text))
            }
            Part::Message => io::copy(&mut entry.content(), out).map(|_| ()),
        }
    }
}

/// Returns the front of a message.
fn front(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    entry.content().take(MAX_FRONT).read_to_end(&mut text)?;
    Ok(text)
}

/// Whether a message is held.
fn is_held(entry: &Entry) -> bool {
    entry.name().place == Place::Hold
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Envelope, MailOptions, Origin, Recipient};
    use crate::privsep::Rights;
    use crate::spool::NewEntry;
    use std::cell::Cell;
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    /// The queue is asked about a message only after it was found and may be seen. A message that ends
    /// between the two is still shown.
    #[test]
    fn the_queue_is_asked_only_about_a_message_that_is_shown() {
        let root = std::env::temp_dir().join(format!("penfold-show-{}", std::process::id()));
        let spool = Spool::open(&root).expect("a new spool");
        let config = crate::config::parse(Path::new("penfold.conf"), "hostname = \"razorback\"").expect("good");
        let router = Router::open(&config, &Rights::Alone).expect("no tables");
        let (outgoing, _) = Outgoing::begin(&config);
        let recipients = vec![Recipient::new("jon@far.test".parse().expect("an address"))];
        let options = MailOptions::default();
        let envelope = Envelope { sender: None, recipients, options, origin: Origin::Client };
        let mut draft = spool.begin().expect("a draft");
        draft.write_all(b"Subject: x\n\nx\n").expect("written");
        let name = draft.commit(&NewEntry::queued(&envelope, "")).expect("committed");
        let asked = Cell::new(0);
        let running = || {
            asked.set(asked.get() + 1);
            Vec::new()
        };
        let [min, max, expire_after] = [60, 3600, 86_400].map(Duration::from_secs);
        let shown = |id, submitted_by| Shown {
            spool: &spool,
            id,
            schedule: Schedule { min, max, expire_after },
            submitted_by,
            live: Some(Live { running: &running, router: &router, outgoing: &outgoing, status: &|_| None }),
        };
        let other = QueueId::generate().expect("an id");
        for (id, submitted_by) in [(other, None), (name.id, Some(1234)), (other, Some(1234))] {
            assert!(matches!(shown(id, submitted_by).open(), Err(NotShown::Missing)));
        }
        let shown = shown(name.id, None);
        let entry = shown.open().expect("an entry");
        assert_eq!(asked.get(), 0);
        fs::remove_file(root.join("new").join(name.file_name())).expect("it ends");
        let mut text = Vec::new();
        shown.write(&entry, Part::Facts(Format::Text), &mut text).expect("written");
        let text = String::from_utf8(text).expect("ASCII");
        assert!(text.contains("<jon@far.test>\n    State:        not tried yet\n"), "{text}");
        assert_eq!(asked.get(), 1);
        fs::remove_dir_all(&root).expect("removed");
    }
}
