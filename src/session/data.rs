//! DATA: the message goes into the spool while it arrives.
//!
//! Whatever is wrong with a message, it is read to its real end, so that no part
//! of it is taken for a command; then one verdict is given. The 250 is said only
//! after the commit.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::{memchr, memchr_iter};

use super::header_scan::HeaderScan;
use super::hello::Hello;
use super::transaction::Transaction;
use super::xclient::Forwarded;
use super::{Committed, Phase, Session, Step, submission};
use crate::config::Limits;
use crate::envelope::Action;
use crate::log;
use crate::message::trace::{self, Origin, Received};
use crate::outcome::Encryption;
use crate::policy;
use crate::reply::{self, Reply};
use crate::route::{Place, Route};
use crate::smtp::dot::DotReader;
use crate::spool::{Draft, EntryName, NewEntry};
use crate::users::{Mailbox, Owner};

/// How much of a message is read at a time.
const CHUNK: usize = 32 << 10;
/// The rate at which a message arrives at the least, in octets a second.
const LEAST_RATE: u64 = 1 << 10;

impl Session<'_> {
    pub(super) fn data(&mut self) -> Step {
        match &self.phase {
            Phase::Connected => Step::Say(reply::hello::required()),
            Phase::Greeted(..) => Step::Say(reply::recipient::needs_sender()),
            Phase::InMail(_, t) if t.envelope.recipients.is_empty() && t.has_refused => {
                Step::Say(reply::message::no_valid_recipients())
            }
            Phase::InMail(_, t) if t.envelope.recipients.is_empty() => Step::Say(reply::message::needs_recipient()),
            Phase::InMail(..) => Step::ReadMessage,
        }
    }

    /// Reads a message and answers it. The transaction is over then.
    pub(super) fn read_message(&mut self) -> io::Result<()> {
        let Phase::InMail(hello, transaction) = std::mem::replace(&mut self.phase, Phase::Connected) else {
            return Ok(());
        };
        let mailbox = self.only_mailbox(&transaction);
        let taken = match self.begin_draft(&hello, &transaction, mailbox.is_some()) {
            Ok((draft, received)) => {
                self.say(&reply::message::go_ahead())?;
                self.flush()?;
                let is_direct = mailbox.is_some();
                let entry = NewEntry { is_direct, ..NewEntry::queued(&transaction.envelope, &received) };
                self.receive(draft, &entry, &hello, &transaction)?
            }
            Err(e) => Err(storage_trouble(&e)),
        };
        self.phase = Phase::Greeted(hello, None);
        match taken {
            Ok(name) => {
                // The client does not wait for what comes then.
                self.log_unlogged_refusals();
                self.tally.begin_anew();
                let told = self.say(&reply::message::accepted(&name.id.to_string())).and_then(|()| self.flush());
                let only = transaction.envelope.recipients.first().map(|only| &only.address);
                // What becomes a user's own is the queue's matter: he may have a `.forward`.
                let own = mailbox.as_ref().filter(|mailbox| mailbox.owner == Owner::Server);
                (self.service.notify)(&Committed { name, home: only.zip(own.map(|mailbox| mailbox.path.as_path())) });
                told
            }
            Err(reply) => {
                self.note_refusal(b"DATA", &reply);
                self.say(&reply)
            }
        }
    }

    /// The Maildir of the only recipient, if the file can be renamed into it, or linked.
    fn only_mailbox(&self, transaction: &Transaction) -> Option<Mailbox> {
        match transaction.envelope.recipients.as_slice() {
            [only] if only.original.is_none() && only.action == Action::Deliver => {
                match self.service.router.route(&only.address) {
                    Route::Mailbox(mailbox) if !mailbox.is_mbox => {
                        let is_possible = mailbox.owner == Owner::Server || self.service.site.rights.has_monitor();
                        Some(mailbox)
                            .filter(|mailbox| is_possible && self.service.site.spool.can_rename_into(&mailbox.path))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn begin_draft(
        &mut self,
        hello: &Hello,
        transaction: &Transaction,
        is_direct: bool,
    ) -> io::Result<(Draft, String)> {
        let mut draft = self.service.site.spool.begin()?;
        let received = self.received_line(hello, &draft.id().to_string(), transaction);
        draft.expect(&NewEntry { is_direct, ..NewEntry::queued(&transaction.envelope, &received) })?;
        Ok((draft, received))
    }

    /// The trace field (RFC 5321 4.4).
    fn received_line(&mut self, hello: &Hello, id: &str, transaction: &Transaction) -> String {
        let recipient = transaction.named.as_ref();
        let is_hidden = self.hides_client();
        let name = if is_hidden { None } else { self.verified_name() };
        let origin = match &self.client.local_user {
            Some(user) => Origin::LocalUser(user),
            None => Origin::Client(trace::Client {
                address: self.client.address,
                name: name.as_deref(),
                is_local: self.client.is_local,
                hello: &hello.name,
                forwarded: transaction.forwarded.as_ref().and_then(Forwarded::trace),
                protocol: self.protocol(hello),
                tls: self.tls_info.as_ref().map(|tls| (tls.version, tls.cipher)),
            }),
        };
        let (hostname, date) = (self.hostname(), &trace::date(&log::local_time()));
        Received { hostname, id, origin, is_hidden, recipient, date }.to_string()
    }

    pub(super) fn verified_name(&mut self) -> Option<String> {
        let (dns, address) = (&self.service.site.dns, self.client.address?);
        self.name.get_or_insert_with(|| dns.verified_name(address)).clone()
    }

    /// Reads a message to its end and keeps it, or says why not.
    fn receive(
        &mut self,
        draft: Draft,
        entry: &NewEntry<'_>,
        hello: &Hello,
        transaction: &Transaction,
    ) -> io::Result<Result<EntryName, Reply>> {
        let limit = self.service.config.limits.message_size;
        let mut pace = Pace::new(&self.service.config.limits);
        let mut reader = DotReader::default();
        let mut filter = self.header_filter(&draft.id().to_string(), transaction);
        let router = Arc::clone(&self.service.router);
        let is_local = |domain: &str| router.place(domain) == Place::Local;
        let mut incoming = HeaderScan::new(draft, &is_local);
        let (mut text, mut size, mut has_nul, mut trouble) = (Vec::new(), 0, false, None);
        loop {
            self.input.source.set_deadline(pace.deadline(size, Instant::now()));
            self.input.widen(CHUNK);
            let chunk = self.input.chunk()?;
            if chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            text.clear();
            let (used, ended) = reader.feed(chunk, &mut text);
            self.input.consume(used);
            // RFC 1870 5: with CR LF, without the dots that were put before dots.
            size += (text.len() + memchr_iter(b'\n', &text).count()) as u64;
            has_nul |= memchr(0, &text).is_some();
            if size <= limit && !reader.is_flawed() && !has_nul && trouble.is_none() {
                trouble = filter.feed(&text, &mut incoming).err();
            }
            if ended {
                break;
            }
        }
        self.input.narrow();
        let message = policy::message::Message { has_bare_newline: reader.is_flawed(), has_nul, size, max_size: limit };
        if let Err(reply) = self.apply(policy::message::precheck(&message)) {
            return Ok(Err(reply));
        }
        let trouble = trouble.or_else(|| filter.finish(&mut incoming).err());
        if let Some(refusal) = filter.refusal() {
            return Ok(Err(submission::refused(refusal)));
        }
        let trace = incoming.trace(transaction.envelope.recipients.iter().map(|recipient| &recipient.address));
        if let Err(reply) = self.apply(policy::message::check(&self.facts(), &trace)) {
            return Ok(Err(reply));
        }
        let kept = trouble.map_or_else(|| incoming.finish(), Err);
        Ok(match kept {
            Ok(draft) => self.commit(draft, entry, hello, transaction),
            Err(e) => Err(storage_trouble(&e)),
        })
    }

    fn commit(
        &mut self,
        draft: Draft,
        entry: &NewEntry<'_>,
        hello: &Hello,
        transaction: &Transaction,
    ) -> Result<EntryName, Reply> {
        let name = draft.commit(entry).map_err(|e| storage_trouble(&e))?;
        let origin = self.origin(transaction.forwarded.as_ref());
        log::accepted(&log::Accepted {
            id: &name.id,
            session: &self.client.session,
            sender: transaction.envelope.sender.as_ref(),
            recipients: transaction.envelope.recipients.len(),
            size: name.size,
            peer: &origin.peer,
            via: &origin.via,
            ident: &origin.ident,
            protocol: self.protocol(hello),
            tls: self.tls_info.as_ref().map_or(Encryption::CLEAR, |tls| Encryption::by_tls(tls.version, tls.cipher)),
            user: self.login.as_deref().or(self.client.local_user.as_ref().map(|user| user.login.as_str())),
            caller: self.client.local_user.as_ref().map(|user| (user.uid, user.program.as_str())),
        });
        Ok(name)
    }
}

/// How long a message may take: `limits.data_timeout`, and the time that its octets take at
/// [`LEAST_RATE`]; no pause is longer than `limits.command_timeout`. What is beyond the
/// limit on its size has earned no time.
struct Pace {
    begun: Instant,
    silence: Duration,
    whole: Duration,
    limit: u64,
    /// When the message is over at the latest, once it is too big.
    end: Option<Instant>,
}

impl Pace {
    fn new(limits: &Limits) -> Self {
        let (silence, whole, limit) = (limits.command_timeout, limits.data_timeout, limits.message_size);
        Self { begun: Instant::now(), silence, whole, limit, end: None }
    }

    /// Until when the next piece has to come, after `size` octets.
    fn deadline(&mut self, size: u64, now: Instant) -> Instant {
        let earned = Duration::from_millis(size.min(self.limit) * 1000 / LEAST_RATE);
        let whole = self.begun + self.whole + earned;
        if size > self.limit {
            self.end.get_or_insert(now + self.whole);
        }
        whole.min(self.end.unwrap_or(whole)).min(now + self.silence)
    }
}

/// The reply where the spool fails: always one that brings the client back.
fn storage_trouble(error: &io::Error) -> Reply {
    ::log::error!("spool: keep a message: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
            reply::failure::no_storage()
        }
        _ => reply::failure::local_error(),
    }
}
