//! The contract of a delivery agent: a message and where it goes in, one
//! [`Outcome`] for each recipient out.
//!
//! [`Outcome`]: crate::outcome::Outcome

pub mod agent;
pub mod local;
pub mod remote;

use crate::address::Address;
use crate::envelope::Body;
use crate::spool::Content;

/// One message on its way to one destination.
#[derive(Clone)]
pub struct Delivery<'a> {
    /// The queue id, for the log.
    pub id: &'a str,
    /// The reverse-path; `None` is the null path.
    pub sender: Option<&'a Address>,
    /// What the sender said of the content.
    pub body: Body,
    /// Who gets it; outcomes come in the same order.
    pub recipients: Vec<&'a Address>,
    /// The content; lines end in LF.
    pub content: Content<'a>,
}
