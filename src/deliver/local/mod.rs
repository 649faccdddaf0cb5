//! Delivery on this host.
//!
//! - `handover`: a message's file becomes its recipient's own
//! - `maildir`: one message into one Maildir, exactly once

mod handover;
pub mod maildir;
