//! Explains what happens to mail for an address, and why a message is still in the queue.
//!
//! The look-ups of SPF may need more stack than the thread of a client has, so an explanation has a
//! thread of its own.

use std::io;
use std::thread::{self, Builder};

use super::Control;
use crate::explain::{Query, Scene, Steps, Work, explain_address, explain_message};
use crate::queue::Event;

/// The size of the stack of an explanation's thread, in bytes.
const STACK: usize = 1 << 20;

/// Answers a query; the answer is empty if the message is not in the queue.
///
/// # Errors
/// The errors of reading the spool. Also if the system has no thread, or a bug ends it.
pub(super) fn explain(control: &Control, query: &Query) -> io::Result<String> {
    let steps = thread::scope(|scope| {
        let answering = Builder::new().name("explain".into()).stack_size(STACK);
        let answering = answering.spawn_scoped(scope, || steps(control, query))?;
        answering.join().map_err(|_| io::Error::other("a bug ended the explanation"))?
    })?;
    Ok(steps.map(|steps| steps.render(query.format)).unwrap_or_default())
}

fn steps(control: &Control, query: &Query) -> io::Result<Option<Steps>> {
    let settings = control.site.settings();
    let scene = Scene::live(&control.site, &settings);
    let Some(id) = query.id() else { return Ok(Some(explain_address(&scene, query))) };
    let work = Work {
        running: control.ask(|answer| Event::Running(Some(id), answer)).unwrap_or_default(),
        destinations: control.ask(|answer| Event::Hosts(None, answer)).unwrap_or_default(),
    };
    explain_message(&scene, query, id, &work)
}
