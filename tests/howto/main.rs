//! The how-to pages, run from their own text.
//!
//! - `containers`: penfold-containers(7)
//! - `dovecot`: penfold-dovecot(7)
//! - `gateway`: penfold-gateway(7)
//! - `growing`: penfold-growing(7)
//! - `handover`: the queues of Exim and sendmail in penfold-migration(7)
//! - `machine`: the Debian system in which a page runs
//! - `migration`: the move from Postfix in penfold-migration(7)
//! - `page`: the displays of a page
//! - `pattern`: output that a page shows, and what came
//! - `reader`: types what a page says, and compares
//! - `satellite`: penfold-satellite(7)
//! - `server`: penfold-server(7) and penfold-filters(7)
//! - `tls`: penfold-tls(7)
//! - `web`: penfold-web(7)
//! - `zone`: the zones of a page as a name server answers them

mod containers;
mod dovecot;
mod gateway;
mod growing;
mod handover;
mod machine;
mod migration;
mod page;
mod pattern;
mod reader;
mod satellite;
mod server;
mod tls;
mod web;
mod zone;
