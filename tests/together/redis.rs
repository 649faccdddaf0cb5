//! Redis on a host of its own, where all hosts with penfold count together.

use common::Daemon;
use common::redis::RedisDir;

use super::lan::{Host, Lan};

/// The settings of a host that counts there.
pub const SHARED: &str = "shared.store = \"redis://192.0.2.30\"";

/// The shared store.
pub struct Redis {
    daemon: Option<Daemon>,
    dir: RedisDir,
    host: Host,
}

impl Redis {
    /// Starts Redis. Without it, reports the test as skipped and returns `None`.
    pub fn start(lan: &Lan) -> Option<Self> {
        let mut redis = Self { daemon: None, dir: RedisDir::new(), host: lan.host(30) };
        redis.open();
        redis.daemon.is_some().then_some(redis)
    }

    /// Starts Redis. It has forgotten everything.
    pub fn open(&mut self) {
        let address = self.host.address.to_string();
        let options = ["--bind", &*address, "--port", "6379", "--protected-mode", "no"];
        self.daemon = self.host.inside(|| self.dir.start(&options));
    }

    /// Ends Redis.
    pub fn close(&mut self) {
        self.daemon = None;
    }
}
