//! A well-behaved SMTP client, which reads every reply.
//!
//! Replies have one line, except those to EHLO. An unexpected reply causes a panic that names the
//! command and the reply.

use std::net::TcpStream;

use super::Daemon;
use super::dialog::Wire;

/// A short message, without the dot that ends it.
pub const TEXT: &str = "Subject: hello\r\nMessage-ID: <x@razorback.test>\r\n\r\nHow are you?\r\n";

/// The client's side of an SMTP session.
pub struct Client {
    wire: Wire,
}

impl Client {
    /// Reads the banner and sends HELO.
    pub fn new(stream: TcpStream) -> Self {
        let mut client = Self::before_banner(stream);
        client.expect("220 ");
        client.ask("HELO client.test", "250 ");
        client
    }

    /// A client that has not read the banner yet.
    pub fn before_banner(stream: TcpStream) -> Self {
        Self { wire: Wire::new(stream, false) }
    }

    /// Sends a line, and returns the reply, which must begin with `begins`.
    pub fn ask(&mut self, line: &str, begins: &str) -> String {
        let reply = self.wire.ask(line).unwrap_or_else(|why| panic!("{line:.60}: {why}"));
        assert!(reply.starts_with(begins), "{line:.60}: {reply}");
        reply
    }

    /// Sends text without waiting for a reply.
    pub fn send_text(&mut self, bytes: &str) {
        self.wire.send(bytes.as_bytes()).expect("the connection is open");
    }

    /// Sends bytes without waiting for a reply.
    pub fn send_bytes(&mut self, octets: &[u8]) {
        self.wire.send(octets).expect("the connection is open");
    }

    /// Sends text on a connection that the server may have closed already.
    pub fn try_send(&mut self, bytes: &str) {
        let _ = self.wire.send(bytes.as_bytes());
    }

    /// The next line from the server, or `None` at the end of the connection.
    pub fn read_line(&mut self) -> Option<String> {
        self.wire.read_line().expect("a line")
    }

    /// The next line from the server, which must begin with `begins`.
    pub fn expect(&mut self, begins: &str) -> String {
        let reply = self.read_line().unwrap_or_else(|| panic!("the connection ended; expected {begins}"));
        assert!(reply.starts_with(begins), "{reply}");
        reply
    }

    /// Asserts that the server closes the connection without another line.
    pub fn expect_end(&mut self) {
        assert_eq!(self.wire.read_line(), Ok(None));
    }

    /// Sends EHLO; returns the lines of the reply.
    pub fn ehlo(&mut self) -> Vec<String> {
        self.send_text("EHLO client.test\r\n");
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

    /// Begins a transaction, up to the reply to DATA.
    pub fn begin(&mut self, sender: &str, recipients: &[&str]) {
        self.ask(&format!("MAIL FROM:<{sender}>"), "250 ");
        for recipient in recipients {
            self.ask(&format!("RCPT TO:<{recipient}>"), "250 ");
        }
        self.ask("DATA", "354 ");
    }

    /// Sends a message in a whole transaction. Returns its queue id.
    pub fn send(&mut self, sender: &str, recipients: &[&str], text: &str) -> String {
        self.begin(sender, recipients);
        let reply = self.ask(&format!("{text}."), "250 2.0.0 ");
        reply.split(' ').nth(2).expect("a queue id").to_owned()
    }
}

impl Daemon {
    /// Connects, and sends HELO.
    pub fn client(&self) -> Client {
        Client::new(self.connect())
    }

    /// Connects, and sends EHLO.
    pub fn greeted(&self) -> Client {
        let mut client = Client::before_banner(self.connect());
        client.expect("220 ");
        client.ehlo();
        client
    }

    /// Sends [`TEXT`] from jon in a session of its own. Returns the queue id.
    pub fn submit(&self, recipients: &[&str]) -> String {
        self.submit_from("jon@razorback.test", recipients)
    }

    /// Sends [`TEXT`] from `sender` in a session of its own. Returns the queue id.
    pub fn submit_from(&self, sender: &str, recipients: &[&str]) -> String {
        let mut client = self.client();
        let id = client.send(sender, recipients, TEXT);
        client.ask("QUIT", "221 ");
        id
    }

    /// Waits for a log line with all these words.
    pub fn wait_words(&self, words: &[&str]) -> String {
        self.wait_log(|line| words.iter().all(|word| line.contains(word)))
    }
}
