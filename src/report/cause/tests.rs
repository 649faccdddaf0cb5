//! Replies of large providers and of other mail servers, and the causes that they show.

use super::*;
use crate::outcome::NoAnswer as Lookup;
use crate::reply::Status;

#[test]
fn replies_of_hosts_show_their_causes() {
    for (reply, cause) in [
        ("550 5.1.1 <spam@x.org>: Recipient address rejected: User unknown", NoMailbox),
        ("550 No such user here", NoMailbox),
        ("550 5.0.0 quota@x.org... User unknown", NoMailbox),
        ("550 5.4.1 Recipient address rejected: Access denied", NoMailbox),
        ("550 5.5.0 Requested action not taken: mailbox unavailable", NoMailbox),
        ("550 5.1.6 has moved", Moved),
        ("551 User not local; please try <a@y.org>", Moved),
        ("553 5.1.3 what is that?", BadAddress),
        ("550 5.1.2 no", NoDomain),
        ("556 Domain does not accept mail", NoMailDomain),
        ("554 5.7.1 <a@x.org>: Relay access denied", NotItsDomain),
        ("550 relaying denied", NotItsDomain),
        ("550 5.2.1 The email account that you tried to reach is disabled.", MailboxClosed),
        ("554 account suspended", MailboxClosed),
        ("452 4.2.2 The email account is over quota", MailboxFull),
        ("552 Mailbox is full", MailboxFull),
        ("552 Requested mail action aborted: exceeded storage allocation", MailboxFull),
        ("550 5.7.133 sender not authenticated for group", SenderNotAllowed),
        ("550 5.7.1 You are not a member of this list", SenderNotAllowed),
        ("552 5.3.4 no", TooBig),
        ("552 Message size exceeds fixed limit", TooBig),
        ("552 no", TooBig),
        ("452 4.5.3 Too many recipients", TooManyRecipients),
        ("550 5.6.0 no From", BadMessage),
        ("552 5.7.0 This message was blocked because of its attachment", Attachment),
        ("554 5.7.1 The message contains a virus (Eicar)", Malware),
        ("550 5.7.1 Message rejected as spam", Spam),
        ("554 5.6.7 SMTPUTF8 please", ForeignLetters),
        ("550 5.1.8 sender", BadSender),
        ("550 <jon@y.org>: Sender address rejected: Domain not found", BadSender),
        ("550 5.7.26 Unauthenticated email from y.org is not accepted", SenderUnproven),
        ("550 5.7.1 SPF check failed", SenderUnproven),
        ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", HostBlocked),
        ("550 5.7.1 Your IP has a poor reputation", HostBlocked),
        ("550 5.7.606 Access denied, banned sending IP [192.0.2.1]", HostBlocked),
        ("550 5.7.25 no PTR", HostUnnamed),
        ("450 4.7.1 Client host rejected: cannot find your reverse hostname", HostUnnamed),
        ("421 4.7.28 Gmail has detected an unusual rate of mail", RateLimited),
        ("451 too many messages, slow down", RateLimited),
        ("450 4.2.0 <a@x.org>: Recipient address rejected: Greylisted", Greylisted),
        ("451 4.7.1 Graylisting in action", Greylisted),
        ("550 5.7.1 no", Policy),
        ("530 5.7.0 Authentication required", Login),
        ("530 5.7.0 Must issue a STARTTLS command first", TlsDemanded),
        ("550 5.7.10 encryption needed", TlsDemanded),
        ("554 5.4.6 hop count exceeded", Loop),
        ("421 4.3.2 shutting down", Busy),
        ("421 bye", Busy),
        ("450 4.4.5 congested", Busy),
        ("521 no mail here", NoService),
        ("550 5.3.2 no mail here", NoService),
        ("452 4.3.1 Insufficient system storage", Trouble),
        ("451 4.3.0 Mail server temporarily rejected message", Trouble),
        ("451 4.3.5 Server configuration problem", Misconfigured),
        ("503 5.5.1 bad sequence", Misunderstood),
        ("501 what?", Misunderstood),
        ("451 not now", Later),
        ("451 4.7.1 not now", Later),
        ("550 go away", Refused),
        ("554 5.7.0 no", Refused),
        ("999 ?", Later),
    ] {
        let reply = Reply::read_all(format!("{reply}\r\n").as_bytes()).expect(reply);
        assert_eq!(Cause::of(&Outcome::from_reply("RCPT TO", reply.clone())), cause, "{reply}");
    }
}

#[test]
fn outcomes_without_a_reply_show_their_causes() {
    let command = |code| Outcome::from_command(crate::sys::command::Ended::Code(code), "spam");
    let eof = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let deferred = |subject, detail, why: &str| Outcome::deferred(Status(4, subject, detail), why);
    let failed = |subject, detail, why: &str| Outcome::failed(Status(5, subject, detail), why);
    for (outcome, cause) in [
        (failed(1, 1, "User unknown"), NoMailbox),
        (Outcome::from_dns("x.org", &Lookup::NxDomain), NoDomain),
        (Outcome::from_dns("x.org", &Lookup::Timeout), NoAnswer),
        (failed(1, 10, "x.org: null MX"), NoMailDomain),
        (failed(4, 4, "x.org: only private addresses"), BrokenDomain),
        (failed(4, 4, "No mail leaves this host").via(Via::Maildir), NoWayOut),
        (deferred(4, 4, "mx has no address"), Misconfigured),
        (deferred(4, 1, "timed out while connecting"), Unreachable),
        (deferred(4, 0, "no host could be tried"), Unreachable),
        (Outcome::from_connection("waiting for the reply to DATA", &eof, false), ConnectionLost),
        (failed(4, 6, "mail for x.org loops back to this host"), Loop),
        (failed(4, 7, "the deadline of the message has passed"), Deadline),
        (failed(3, 3, "the message has a deadline"), Deadline),
        (failed(3, 4, "the host wants at most 1"), TooBig),
        (failed(6, 3, "cannot be converted"), Unconvertible),
        (failed(6, 9, "the header is not in ASCII"), ForeignLetters),
        (deferred(5, 0, "the host said nothing"), Misunderstood),
        (deferred(7, 0, "logging in: bad password"), Login),
        (deferred(7, 4, "no common mechanism"), Login),
        (deferred(7, 4, "the host does not offer STARTTLS"), TlsNotOffered),
        (deferred(7, 5, "bad certificate"), TlsFailed),
        (Outcome::from_io("write", &std::io::Error::from_raw_os_error(28)), Trouble),
        (Outcome::from_io("write", &std::io::Error::from_raw_os_error(122)), MailboxFull),
        (deferred(2, 0, "the mailbox is gone"), Trouble),
        (deferred(3, 5, "the list is empty"), Misconfigured),
        (command(67), NoMailbox),
        (command(69), Program),
        (command(75), Trouble),
        (command(78), Misconfigured),
        (failed(7, 1, "no"), Policy),
        (failed(0, 0, "they moved"), Returned),
        (failed(0, 0, "").via(Via::Smtp), Refused),
        (deferred(0, 0, ""), Later),
    ] {
        assert_eq!(Cause::of(&outcome), cause, "{outcome:?}");
    }
}

/// Fragments of the replies that large providers and other mail servers send in practice.
#[test]
fn replies_of_providers_show_their_causes() {
    for (reply, cause) in [
        // Gmail.
        ("450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents", RateLimited),
        ("450 4.2.1 The user you are trying to contact is receiving mail too quickly", RateLimited),
        ("421 4.7.0 unusual rate of unsolicited mail originating from your IP address", RateLimited),
        ("421 4.7.32 rate limited because there is no DMARC alignment", SenderUnproven),
        ("550 5.7.27 rejected because the sender did not pass SPF checks", SenderUnproven),
        ("550 5.7.27 the sender has a null MX", BadSender),
        ("421 4.7.29 rate limited because it was sent without TLS", TlsDemanded),
        ("550 5.7.1 very low reputation of the sending domain", HostBlocked),
        ("550 5.7.1 likely unsolicited mail", Spam),
        ("550 5.7.1 Messages missing a valid address in From: header are not accepted", BadMessage),
        ("553 5.1.2 The recipient address is not a valid RFC-5321 address", BadAddress),
        ("552 5.2.3 exceeded the size limits", TooBig),
        ("421 4.7.0 TLS required for RCPT domain", TlsDemanded),
        ("452 4.5.3 Your message has too many recipients", TooManyRecipients),
        // Outlook and Exchange.
        ("550 5.4.1 All recipient addresses rejected : Access denied", NoMailbox),
        ("550 5.1.10 RESOLVER.ADR.RecipientNotFound", NoMailbox),
        ("550 5.1.10 no", NoMailDomain),
        (
            "550 5.7.1 messages from [192.0.2.1] weren't sent, part of their network is on our block list (S3140)",
            HostBlocked,
        ),
        ("451 4.7.650 temporarily rate limited due to IP reputation", RateLimited),
        ("451 4.7.500 Server busy", Busy),
        ("550 5.7.1 Service unavailable, Helo domain is listed in Spamhaus", HostBlocked),
        ("550 5.7.509 sending domain y.org does not pass DMARC verification", SenderUnproven),
        ("550 5.7.515 does not meet the required authentication level", SenderUnproven),
        ("550 5.7.57 Client not authenticated to send mail", Login),
        ("550 5.7.511 Access denied, banned sender", BadSender),
        ("554 5.2.122 the limit for the number of messages per hour", RateLimited),
        ("450 4.7.3 Organization queue quota exceeded", RateLimited),
        ("452 4.3.1 Insufficient system resources", Trouble),
        ("550 5.7.12 Sender was not authenticated by organization", SenderNotAllowed),
        // Yahoo and AOL.
        ("421 4.7.0 [TSS04] temporarily deferred due to unexpected volume or user complaints", RateLimited),
        ("554 delivery error: dd This user doesn't have a yahoo.com account", NoMailbox),
        ("554 delivery error: dd This mailbox is disabled (554.30)", MailboxClosed),
        ("553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1", HostBlocked),
        ("554 5.7.9 Message not accepted for policy reasons", Login),
        ("554 Message not allowed - Headers are not RFC compliant[291]", BadMessage),
        ("451 Resources temporarily unavailable [#4.16.1]", Busy),
        // Apple, Comcast and others.
        ("552 5.2.2 user is overquota", MailboxFull),
        ("552 5.1.1 recipient rejected - extended quota violation", MailboxFull),
        ("452 4.1.1 too many recent messages", RateLimited),
        ("550 5.1.1 recipient mailbox unallocated", NoMailbox),
        ("450 4.2.0 Recipient temporarily unavailable", Trouble),
        ("554 Comcast block for spam", HostBlocked),
        ("550 5.2.1 Addressee unknown", NoMailbox),
        ("550 5.2.1 This mailbox has been blocked due to inactivity", MailboxClosed),
        ("550 Sender frequency limited", RateLimited),
        // GMX and web.de.
        ("550 Requested action not taken: mailbox unavailable", NoMailbox),
        ("550 Requested action not taken: mailbox unavailable Reject due to policy restrictions", Policy),
        ("550 Reject due to SPF policy", SenderUnproven),
        ("550 Bad DNS PTR resource record", HostUnnamed),
        ("550 Requested mail action aborted: exceeded storage allocation, Quota exceeded", MailboxFull),
        (
            "554-mx Nemesis ESMTP Service not available\r\n554-No SMTP service\r\n554 IP address is block listed",
            HostBlocked,
        ),
        ("554 No SMTP service", NoService),
        ("550 User has exhausted allowed storage space", MailboxFull),
        ("550 User has too many messages on the server", MailboxFull),
        // Postfix.
        ("450 4.1.1 <a@x.org>: Recipient address rejected: unverified address: no answer", Later),
        ("450 4.1.1 <a@x.org>: Recipient address rejected: User unknown in local recipient table", NoMailbox),
        ("554 5.7.1 <a@x.org>: Recipient address rejected: policy rejection", Policy),
        ("450 4.7.1 <mx.y.org>: Helo command rejected: Host not found", HostUnnamed),
        ("450 4.7.1 Client host rejected: cannot find your hostname, [192.0.2.1]", HostUnnamed),
        ("504 5.5.2 <jon>: Sender address rejected: need fully-qualified address", BadSender),
        ("421 4.7.0 mx Error: too many connections from 192.0.2.1", RateLimited),
        ("450 4.2.1 mailbox busy", Trouble),
        ("450 mailbox busy", Later),
        ("450 Requested mail action not taken: mailbox unavailable", Later),
        ("450 4.2.1 account disabled for now", MailboxClosed),
        // Exim, sendmail and qmail.
        ("550 Unrouteable address", NoMailbox),
        ("550 relay not permitted", NotItsDomain),
        ("550-Sender verify failed\r\n550 Verification failed", BadSender),
        ("550 Too many \"Received\" headers - suspected mail loop", Loop),
        ("553 5.1.8 Domain of sender address does not exist", BadSender),
        ("501 Domain of sender address does not exist", BadSender),
        ("550 5.7.1 Relaying denied", NotItsDomain),
        ("553 sorry, that domain isn't in my list of allowed rcpthosts", NotItsDomain),
        ("554 Sorry, no mailbox here by that name. (#5.1.1)", NoMailbox),
        ("554 5.7.1 rejecting banned content", Attachment),
        ("554 5.7.1 rejecting spoofed message", SenderUnproven),
    ] {
        let reply = Reply::read_all(format!("{reply}\r\n").as_bytes()).expect(reply);
        assert_eq!(Cause::of(&Outcome::from_reply("RCPT TO", reply.clone())), cause, "{reply}");
    }
}
