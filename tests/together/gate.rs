//! A passage in front of a mail store. It passes on what comes, counts the replies that say that a
//! message is in a mailbox, and can withhold such replies from one host.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use common::TIMEOUT;

use super::lan::Host;

/// The passage. It ends with the process of the test.
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The host that gets no reply any more about a message that the store has taken.
    withheld_from: Option<IpAddr>,
    withheld: usize,
    /// The replies that were passed on, by the host that got them.
    passed: HashMap<IpAddr, usize>,
}

impl Gate {
    /// Listens on port `from` of a host, and connects to the port `to` of the same host.
    pub fn start(host: &Host, from: u16, to: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let (kept, address) = (Arc::clone(&shared), host.address);
        host.inside(move || {
            let listener = TcpListener::bind((address, from)).expect("a free port");
            thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    let shared = Arc::clone(&kept);
                    // If the store does not run, the connection just ends.
                    thread::spawn(move || {
                        let _ = TcpStream::connect((address, to)).and_then(|store| shared.pass(&client, &store));
                    });
                }
            });
        });
        Self { shared }
    }

    /// From now on, withholds all replies from the address once the store has taken a message there.
    pub fn withhold(&self, from: Ipv4Addr) {
        self.shared.lock().withheld_from = Some(from.into());
    }

    /// Waits until this many replies were withheld.
    pub fn wait_withheld(&self, count: usize) {
        let state = self.shared.lock();
        let too_few = |state: &mut State| state.withheld < count;
        let waited = self.shared.changed.wait_timeout_while(state, TIMEOUT, too_few);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "only {} of {count} replies to withhold", state.withheld);
    }

    /// The number of withheld replies.
    pub fn withheld(&self) -> usize {
        self.shared.lock().withheld
    }

    /// The number of replies that this host got.
    pub fn passed_to(&self, host: Ipv4Addr) -> usize {
        self.shared.lock().passed.get(&host.into()).copied().unwrap_or(0)
    }

    /// The number of replies that all hosts got.
    pub fn passed(&self) -> usize {
        self.shared.lock().passed.values().sum()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes on what comes until one side ends, and then ends both.
    fn pass(&self, client: &TcpStream, store: &TcpStream) -> io::Result<()> {
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = io::copy(&mut &*client, &mut &*store);
                let _ = store.shutdown(Shutdown::Both);
            });
            let result = self.pass_replies(client, store);
            let _ = client.shutdown(Shutdown::Both);
            result
        })
    }

    fn pass_replies(&self, mut client: &TcpStream, store: &TcpStream) -> io::Result<()> {
        let host = client.peer_addr()?.ip();
        let (mut replies, mut line, mut is_silent) = (BufReader::new(store), Vec::new(), false);
        while replies.read_until(b'\n', &mut line)? > 0 {
            // Dovecot's reply about each recipient of a message.
            let is_about_mail = line.starts_with(b"250 2.0.0 <") && line.ends_with(b" Saved\r\n");
            let mut state = self.lock();
            is_silent |= is_about_mail && state.withheld_from == Some(host);
            if is_silent {
                state.withheld += usize::from(is_about_mail);
            } else {
                // With the lock: a reply is either passed on or withheld when a count is read.
                client.write_all(&line)?;
                *state.passed.entry(host).or_default() += usize::from(is_about_mail);
            }
            drop(state);
            self.changed.notify_all();
            line.clear();
        }
        Ok(())
    }
}
