//! A network with a penfoldd that sends mail.

use common::network::Network;
use common::programs::sendmail;
use common::{Daemon, Site};

/// A penfoldd in the machine of a network.
pub struct Scene {
    pub daemon: Daemon,
    pub network: Network,
    pub site: Site,
}

impl Scene {
    pub fn start(network: Network, site: Site) -> Self {
        Self { daemon: network.start_site(&site), network, site }
    }

    /// Sends a message to these recipients.
    pub fn send(&self, recipients: &[&str]) {
        self.send_text(recipients, "Subject: x\n\nx\n");
    }

    /// Sends a message with this text.
    pub fn send_text(&self, recipients: &[&str], text: &str) {
        let arguments = [&["-f", "jon@razorback.test"], recipients].concat();
        let output = sendmail(&self.site, &arguments, text.as_bytes());
        assert!(output.status.success(), "{output:?}");
    }

    /// The first line of the log that says what became of mail for a recipient.
    pub fn line(&self, recipient: &str) -> String {
        let is_fate = |line: &str| [" sent ", " deferred ", " failed "].iter().any(|word| line.contains(word));
        self.daemon.wait_log(|line| is_fate(line) && line.contains(&format!(" to=<{recipient}>")))
    }

    /// The same in one word: `verified`, `encrypted`, `clear`, `deferred` or `failed`.
    pub fn fate(&self, recipient: &str) -> String {
        let line = self.line(recipient);
        match line.split(' ').nth(1).unwrap_or_default() {
            "sent" if line.contains(" verified=") => "verified",
            "sent" if line.contains(" tls=- ") => "clear",
            "sent" => "encrypted",
            word => word,
        }
        .to_owned()
    }
}
