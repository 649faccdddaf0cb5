//! Makes the daemon read its configuration again, and waits for the result.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use signal_hook::consts::SIGHUP;

/// The result of a reload: the warnings, or the errors that leave the old settings in force.
pub type Reloaded = Result<Vec<String>, Vec<String>>;

/// How long a client waits for a reload.
const TIMEOUT: Duration = Duration::from_secs(50);

/// The clients that wait for the next reload. The reload itself is done by the thread that awaits
/// signals.
#[derive(Debug, Default)]
pub struct Reloads(Mutex<Vec<Sender<Reloaded>>>);

impl Reloads {
    /// Asks for a reload with a signal, as any administrator does, and waits for the result. `None`
    /// if there is none in time.
    pub(super) fn request(&self) -> Option<Reloaded> {
        let (sender, result) = bounded(1);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        signal_hook::low_level::raise(SIGHUP).ok()?;
        result.recv_timeout(TIMEOUT).ok()
    }

    /// Reloads, and sends the result to all clients that are waiting for it.
    pub fn serve(&self, reload: impl FnOnce() -> Reloaded) {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let result = reload();
        for client in waiting {
            let _ = client.send(result.clone());
        }
    }
}
