//! A client that means well: it says what is asked of it and reads every reply.
//!
//! Replies are one line each, but to EHLO. What comes otherwise than the test
//! says is a panic with the command and the reply.

use std::net::TcpStream;

use super::Daemon;
use super::dialog::Wire;

/// A message of a few lines, without the dot.
pub const TEXT: &str = "Subject: hello\r\nMessage-ID: <x@razorback.test>\r\n\r\nHow are you?\r\n";

/// A session.
pub struct Client {
    wire: Wire,
}

impl Client {
    /// Hears the banner and says HELO.
    pub fn new(stream: TcpStream) -> Self {
        let mut client = Self::mute(stream);
        client.expect("220 ");
        client.ask("HELO client.test", "250 ");
        client
    }

    /// One that has not even read the banner.
    pub fn mute(stream: TcpStream) -> Self {
        Self { wire: Wire::new(stream, false) }
    }

    /// Sends a line; the reply, which begins as given.
    pub fn ask(&mut self, line: &str, begins: &str) -> String {
        let reply = self.wire.ask(line).unwrap_or_else(|why| panic!("{line:.60}: {why}"));
        assert!(reply.starts_with(begins), "{line:.60}: {reply}");
        reply
    }

    /// Sends bytes and waits for nothing.
    pub fn say(&mut self, bytes: &str) {
        self.wire.say(bytes.as_bytes()).expect("the session goes on");
    }

    /// The same, of what need not be text.
    pub fn say_octets(&mut self, octets: &[u8]) {
        self.wire.say(octets).expect("the session goes on");
    }

    /// Sends bytes to one that may be gone.
    pub fn try_say(&mut self, bytes: &str) {
        let _ = self.wire.say(bytes.as_bytes());
    }

    /// The next line, if there is one.
    pub fn hear(&mut self) -> Option<String> {
        self.wire.hear().expect("a line")
    }

    /// The next line, which begins as given.
    pub fn expect(&mut self, begins: &str) -> String {
        let reply = self.hear().unwrap_or_else(|| panic!("the end instead of {begins}"));
        assert!(reply.starts_with(begins), "{reply}");
        reply
    }

    /// The other side has nothing more to say and closes the connection.
    pub fn expect_end(&mut self) {
        assert_eq!(self.wire.hear(), Ok(None));
    }

    /// Says EHLO; what it offers, a line each.
    pub fn ehlo(&mut self) -> Vec<String> {
        self.say("EHLO client.test\r\n");
        let mut offers = Vec::new();
        loop {
            let line = self.expect("250");
            let is_last = line.starts_with("250 ");
            offers.push(line.get(4..).unwrap_or_default().to_owned());
            if is_last {
                return offers;
            }
        }
    }

    /// A transaction up to the reply to DATA.
    pub fn begin(&mut self, sender: &str, recipients: &[&str]) {
        self.ask(&format!("MAIL FROM:<{sender}>"), "250 ");
        for recipient in recipients {
            self.ask(&format!("RCPT TO:<{recipient}>"), "250 ");
        }
        self.ask("DATA", "354 ");
    }

    /// A whole transaction; the queue id.
    pub fn send(&mut self, sender: &str, recipients: &[&str], text: &str) -> String {
        self.begin(sender, recipients);
        let reply = self.ask(&format!("{text}."), "250 2.0.0 ");
        reply.split(' ').nth(2).expect("a queue id").to_owned()
    }
}

impl Daemon {
    /// A session that has said HELO.
    pub fn client(&self) -> Client {
        Client::new(self.connect())
    }

    /// A session that has said EHLO.
    pub fn greeted(&self) -> Client {
        let mut client = Client::mute(self.connect());
        client.expect("220 ");
        client.ehlo();
        client
    }

    /// Sends [`TEXT`] from jon in a session of its own; the queue id.
    pub fn submit(&self, recipients: &[&str]) -> String {
        self.submit_from("jon@razorback.test", recipients)
    }

    /// The same from someone else.
    pub fn submit_from(&self, sender: &str, recipients: &[&str]) -> String {
        let mut client = self.client();
        let id = client.send(sender, recipients, TEXT);
        client.ask("QUIT", "221 ");
        id
    }

    /// Waits for a line of the log with all these words.
    pub fn wait_words(&self, words: &[&str]) -> String {
        self.wait_log(|line| words.iter().all(|word| line.contains(word)))
    }
}
