//! Stands in for `filters` in a build without filters.

use super::incoming::Complete;
use super::transaction::Transaction;
use super::{Client, Service, Session, Step};
use crate::address::{Address, AddressError};
use crate::reply::Reply;
use crate::smtp::command::Path;

/// The filters of a session: none.
#[derive(Debug, Default)]
pub struct Dialogue;

impl Dialogue {
    /// Does nothing.
    pub fn abort(&mut self) {}
}

pub(super) fn begin(_: &Service, _: &Client) -> Dialogue {
    Dialogue
}

pub(super) fn parameters(_: &Result<Path<'_>, AddressError>) -> Vec<String> {
    Vec::new()
}

impl Session<'_> {
    pub(super) fn ask_about_sender(&mut self, _: Option<&Address>, _: &[String]) -> Result<(), Step> {
        Ok(())
    }

    pub(super) fn ask_about_recipient(&mut self, _: &Address, _: &[String]) -> Result<(), Step> {
        Ok(())
    }

    pub(super) fn ask_about_data(&mut self, _: &str) -> Result<(), Step> {
        Ok(())
    }

    pub(super) fn show_to_filters(&mut self, _: &mut Complete, _: &mut Transaction) -> Result<(), Reply> {
        Ok(())
    }

    pub(super) fn ask_about_unknown(&mut self, _: &[u8], usual: Step) -> Step {
        usual
    }
}
