"""The names of clients in Received: lines. Run by names.rs as root in a network
namespace of its own, where 192.0.2.1 to .3 and 2001:db8::1 are this host's:

    names.py PENFOLDD CONFIGURATION MAILDIR

Answers the DNS by itself: .1 has a name that leads back to it, .2 has one that
leads elsewhere, .3 has none, 2001:db8::1 has one. Prints a JSON object, address to
the "from" part of its Received: line.
"""

import json
import pathlib
import smtplib
import socket
import struct
import subprocess
import sys
import threading
import time

A, PTR, AAAA = 1, 12, 28
V6 = "2001:db8::1"
V6_ARPA = ".".join(reversed(socket.inet_pton(socket.AF_INET6, V6).hex())) + ".ip6.arpa"


def labels(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


ANSWERS = {
    ("1.2.0.192.in-addr.arpa", PTR): labels("good.example"),
    ("2.2.0.192.in-addr.arpa", PTR): labels("good.example"),
    (V6_ARPA, PTR): labels("six.example"),
    ("good.example", A): socket.inet_aton("192.0.2.1"),
    ("six.example", AAAA): socket.inet_pton(socket.AF_INET6, V6),
}


def answer(query):
    name, at = [], 12
    while query[at]:
        name.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
    question = query[12 : at + 5]
    data = ANSWERS.get((".".join(name).lower(), kind))
    head = query[:2] + struct.pack(">HHHHH", 0x8180 if data else 0x8183, 1, 1 if data else 0, 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data if data else b""
    return head + question + record


def serve(sock):
    while True:
        query, peer = sock.recvfrom(512)
        sock.sendto(answer(query), peer)


def main(penfoldd, configuration, maildir):
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind(("127.0.0.1", 53))
    threading.Thread(target=serve, args=(dns,), daemon=True).start()
    daemon = subprocess.Popen([penfoldd, "-d", "-f", configuration], stderr=subprocess.PIPE, text=True)
    for line in daemon.stderr:
        if "started" in line:
            break
    threading.Thread(target=daemon.stderr.read, daemon=True).start()
    seen = {}
    for source in ["192.0.2.1", "192.0.2.2", "192.0.2.3", V6]:
        host = "2001:db8::9" if ":" in source else "192.0.2.9"
        client = smtplib.SMTP(host, 25, "client.test", source_address=(source, 0), timeout=20)
        client.sendmail("a@example.test", ["jon@razorback"], "Subject: x\r\n\r\nhello\r\n")
        client.quit()
        new = pathlib.Path(maildir, "new")
        while not (new.is_dir() and list(new.iterdir())):
            time.sleep(0.02)
        message = next(new.iterdir())
        received = [line for line in message.read_text().splitlines() if line.startswith("Received: ")]
        seen[source] = received[0]
        message.unlink()
    daemon.terminate()
    daemon.wait()
    print(json.dumps(seen))


main(*sys.argv[1:])
