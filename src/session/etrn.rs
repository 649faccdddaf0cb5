//! ETRN: has the mail for a domain tried now (RFC 1985).

use std::sync::atomic::Ordering;

use super::{Phase, Session, Step};
use crate::log;
use crate::policy;
use crate::reply::{self, Reply};
use crate::smtp::etrn::Node;

/// Has the waiting mail for a node tried now, and returns the number of its jobs. Returns `None` if
/// the queue does not answer.
pub type Flush = dyn Fn(&Node) -> Option<usize> + Send + Sync;

impl Session<'_> {
    pub(super) fn etrn(&mut self, argument: &[u8]) -> Step {
        Step::Reply(self.flush_queue(argument).unwrap_or_else(|refusal| refusal))
    }

    /// Returns the reply after attempts have begun. The error is the reply that refuses ETRN.
    fn flush_queue(&self, argument: &[u8]) -> Result<Reply, Reply> {
        let (facts, domains) = (self.facts(), &self.service.config.relay.etrn);
        if !policy::etrn::is_known(&facts, domains) {
            return Err(reply::command::disabled());
        }
        match &self.phase {
            Phase::Connected => return Err(reply::hello::required()),
            Phase::InMail(..) => return Err(reply::etrn::in_transaction()),
            Phase::Greeted(..) => {}
        }
        let usage = || reply::command::bad_arguments("ETRN domain, ETRN @domain or ETRN #queue");
        let node = Node::parse(argument).ok_or_else(usage)?;
        self.apply(policy::etrn::check(&facts, domains, &node))?;
        let jobs = (self.service.flush)(&node);
        log::asked_for_queue(&self.client.session, &node, jobs, self.client.address, self.login.as_deref());
        // Until the daemon has read the whole spool, more messages may wait than the queue knows.
        let is_scanned = self.service.site.is_scanned.load(Ordering::Acquire);
        Ok(match jobs {
            None => reply::etrn::unable(&node),
            Some(0) if !is_scanned => reply::etrn::started(&node),
            Some(0) => reply::etrn::nothing(&node),
            Some(_) if !is_scanned => reply::etrn::some(&node),
            Some(count) => reply::etrn::all(&node, count),
        })
    }
}
