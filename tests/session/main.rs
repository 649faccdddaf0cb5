//! The SMTP server: its replies, and how it interprets the text of clients.
//!
//! - `auth`: AUTH with other software: gsasl, smtplib, swaks, and Dovecot as the password database
//! - `authenticity`: the Authentication-Results: field, and DMARC, for the messages of strangers
//! - `client_names`: the name and address of the client in Received:
//! - `dialog`: plays the dialogues in dialog/, one promise a file
//! - `filters`: milters and policy services, well-behaved and hostile
//! - `hostile_names`: SPF with hostile and broken name servers
//! - `limits`: limits that take more than a dialogue to reach
//! - `lmtp`: LMTP with Python's smtplib, over TCP and a Unix socket
//! - `proxy`: PROXY headers and XCLIENT
//! - `shared`: several hosts that count together in Redis
//! - `signatures`: the keys of each domain, for mail and for reports
//! - `smuggling`: only CR LF . CR LF ends a message
//! - `strangers`: the rules for clients that may not relay, with a name server
//! - `submit`: the header fields that a submitted message gets
//! - `throttle`: password guessing, and the message quota of an account
//! - `tls`: STARTTLS and implicit TLS as a server
//! - `userdb`: users that Dovecot knows, behind a socket that may say anything

mod auth;
#[cfg(feature = "mailauth")]
mod authenticity;
mod client_names;
mod dialog;
#[cfg(feature = "filters")]
mod filters;
#[cfg(feature = "mailauth")]
mod hostile_names;
mod limits;
mod lmtp;
mod proxy;
#[cfg(feature = "shared-store")]
mod shared;
#[cfg(feature = "mailauth")]
mod signatures;
mod smuggling;
mod strangers;
mod submit;
mod throttle;
mod tls;
mod userdb;
