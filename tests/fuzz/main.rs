//! Random and mutated input, for `PENFOLD_FUZZ` seconds a test; `make fuzz` takes an hour.
//!
//! - `auth`: AUTH commands and responses, and the answers of Dovecot, with the real daemon
//! - `control`: the control socket, with the real daemon
//! - `sasl`: SASL exchanges without a connection

mod auth;
mod control;
mod sasl;
