//! Other mail software.
//!
//! - `cyrus`: mail to Cyrus by LMTP
//! - `dkim`: signatures for and by dkimpy and OpenDKIM
//! - `dmarc`: opendmarc's results, and fields that authres reads
//! - `filters`: rspamd, OpenDKIM, OpenDMARC, postgrey, policyd-spf and Dovecot's quota-status as filters
//! - `maildirsize`: one Maildir with a quota, shared with Dovecot and Courier
//! - `mail_programs`: users' mail programs submit a message
//! - `migration`: main.cf files, translated for penfold, beside Postfix with the originals
//! - `mime`: converted messages for Python's email package, openssl and gpg
//! - `post_quantum`: the key exchange X25519MLKEM768 with OpenSSL
//! - `servers`: mail to and from Postfix, Exim and OpenSMTPD, behind haproxy
//! - `spf`: the published test suite for SPF, and the same results as pyspf
//! - `sql_ldap`: users that Dovecot has in SQL and in LDAP
//! - `srs`: senders that Mail::SRS and penfold rewrite one after the other
//! - `stores`: mail to and from Dovecot by LMTP
//! - `userdb`: users that Dovecot looks up

mod cyrus;
#[cfg(feature = "mailauth")]
mod dkim;
#[cfg(feature = "mailauth")]
mod dmarc;
#[cfg(feature = "filters")]
mod filters;
mod mail_programs;
mod maildirsize;
mod migration;
mod mime;
mod post_quantum;
mod servers;
#[cfg(feature = "mailauth")]
mod spf;
mod sql_ldap;
mod srs;
mod stores;
mod userdb;
