//! Nothing is checked in a build without the feature `mailauth`.

use super::super::Session;
use super::super::incoming::Complete;
use super::super::transaction::Transaction;
use crate::envelope::Body;
use crate::reply::Reply;

/// The SPF results of a transaction: none.
pub type SpfResults = ();

/// Stands in for the `Collector` of the file `checks.rs`, but ignores the text of the message.
#[derive(Debug)]
pub struct Collector;

impl Collector {
    /// Takes the next piece of the text.
    pub fn feed(&mut self, _: &[u8]) {}
}

/// Returns false: SPF is not checked.
pub fn is_sender_proven(_: &Transaction) -> bool {
    false
}

impl Session<'_> {
    /// Returns `None`: no message is checked.
    pub(in super::super) fn collector(&self) -> Option<Collector> {
        None
    }

    /// Accepts the message unchanged.
    pub(in super::super) fn check_authenticity(
        &self,
        _: Option<Collector>,
        _: &mut Transaction,
        _: &mut Complete,
    ) -> Result<(), Reply> {
        Ok(())
    }

    /// Leaves the message without a signature.
    pub(in super::super) fn sign(&self, _: &mut Complete, _: Body) -> Result<(), Reply> {
        Ok(())
    }
}
