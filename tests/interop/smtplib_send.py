"""smtplib_send.py PORT SENDER RECIPIENT...: send the message on standard input,
which has its lines ending in CR LF, with Python's smtplib to 127.0.0.1.

Prints a line `refused ADDRESS CODE TEXT` for each recipient that the server
refused, and exits 1 when it refused them all. With an address outside ASCII it
uses SMTPUTF8, which the server must offer.
"""

import smtplib
import sys

port, sender, *recipients = sys.argv[1:]
message = sys.stdin.buffer.read()
everybody_refused = False
with smtplib.SMTP("127.0.0.1", int(port), timeout=60) as server:
    server.ehlo()
    options = ["BODY=8BITMIME"] if server.has_extn("8bitmime") else []
    if not all(address.isascii() for address in (sender, *recipients)):
        options.append("SMTPUTF8")
    try:
        refused = server.sendmail(sender, recipients, message, options)
    except smtplib.SMTPRecipientsRefused as error:
        refused, everybody_refused = error.recipients, True
for address, (code, text) in refused.items():
    print("refused", address, code, text.decode())
sys.exit(everybody_refused)
