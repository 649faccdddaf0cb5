//! LMTP with Python's smtplib, over TCP and over a Unix socket.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use common::Site;

/// Sends a message to three recipients, the second of which does not exist, and one more with
/// `sendmail`. Prints the replies.
const SCRIPT: &str = "
import smtplib, sys
host, port = sys.argv[1], int(sys.argv[2])
client = smtplib.LMTP(host, port)
print(client.ehlo()[0], *sorted(client.esmtp_features))
client.mail('ann@frogbog.example')
print(*[client.rcpt(name + '@razorback')[0] for name in ('jon', 'no', 'root')])
code, text = client.data('Subject: three\\r\\n\\r\\nHow are you?\\r\\n')
print(code, text.decode().split()[1], *(client.getreply()[0] for _ in range(1)))
print(client.sendmail('ann@frogbog.example', ['jon@razorback'], 'Subject: one\\r\\n\\r\\nHow are you?\\r\\n'))
client.quit()
";

#[test]
fn smtplib_delivers_over_tcp_and_a_unix_socket() {
    let mut site = Site::new();
    let path = site.path("lmtp").display().to_string();
    site.set("listen", "kind", &format!("\"lmtp\"\n[[listen]]\naddress = \"unix:{path}\"\nkind = \"lmtp\""));
    for round in 1..=2 {
        // In the second round the socket of the first is left over.
        let daemon = site.start();
        let port = daemon.address().port().to_string();
        // Only the server's user and group may connect: it is the owner of the spool as well.
        let (socket, spool) = (fs::metadata(&path).expect("a socket"), fs::metadata(site.path("spool/new")));
        let spool = spool.expect("a spool");
        assert_eq!((socket.mode() & 0o777, socket.uid(), socket.gid()), (0o660, spool.uid(), spool.gid()));
        for (count, (host, port)) in (2 * round - 1..).zip([("127.0.0.1", port.as_str()), (path.as_str(), "0")]) {
            let output = Command::new("python3").args(["-c", SCRIPT, host, port]).output().expect("python3");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            assert!(output.status.success() && lines.len() == 4, "{output:?}\n{}", daemon.log());
            assert!(lines[0].starts_with("250 ") && lines[0].contains(" pipelining "), "{text}");
            assert_eq!(lines[1..], ["250 550 250", "250 <jon@razorback> 250", "{}"]);
            assert_eq!(daemon.wait_mail(&site, "root", count).len(), count);
            let mail = daemon.wait_mail(&site, "jon", 2 * count);
            let by_socket = |message: &&Vec<u8>| String::from_utf8_lossy(message).contains("(localhost)");
            // Two messages came over the Unix socket in each round before this one.
            let expected = 2 * (round - 1) + if host == path { 2 } else { 0 };
            assert_eq!(mail.iter().filter(by_socket).count(), expected, "{mail:?}");
            assert!(mail.iter().all(|message| String::from_utf8_lossy(message).contains(" with LMTP id ")));
        }
        daemon.wait_words(&[&format!("listening on {path}")]);
        assert!(daemon.terminate().success());
    }
}
