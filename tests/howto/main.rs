//! The how-to pages, run from their own text.
//!
//! - `machine`: the Debian system in which they run

mod machine;
