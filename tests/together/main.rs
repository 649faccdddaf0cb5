//! Several penfolds that share the work of one site, in network namespaces: haproxy with PROXY v2 in
//! front of them, and Dovecot as the mail stores behind them. Most tests need root.
//!
//! - `death`: a host dies under load, and another host sends what its spool has
//! - `disk`: the spool of a host on another host
//! - `front`: haproxy, and the addresses of all hosts
//! - `gate`: a passage in front of a store that counts its replies, or withholds them
//! - `lan`: hosts on one network, whose links can be cut
//! - `limits`: a limit for all hosts together
//! - `load`: clients that send letters until the test says stop
//! - `loops`: hosts that route a domain to each other
//! - `redis`: the shared store
//! - `site`: the hosts with penfold, and the stores

mod death;
mod disk;
mod front;
mod gate;
mod lan;
#[cfg(feature = "shared-store")]
mod limits;
mod load;
mod loops;
mod redis;
mod site;
