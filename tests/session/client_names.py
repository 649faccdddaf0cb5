"""The names of clients in Received: lines. Run by client_names.rs as root in a network
namespace of its own, where 192.0.2.1 to .3 and 2001:db8::1 are this host's:

    client_names.py clients PENFOLDD CONFIGURATION MAILDIR
    client_names.py networks PENFOLDD CONFIGURATION MAILDIR

It is the name server: .1 has a name that resolves back to it, .2 has one that resolves
to another address, .3 has none, 2001:db8::1 has one. It prints a JSON object from addresses to
the "from" parts of their Received: lines.

`networks` has a mount namespace, too, in which /etc/resolv.conf is a link to a file of
/run that is not there yet, and may change /etc. It prints what .1 is called while the
host comes from one network into another.
"""

import json
import os
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


OTHER_NETWORK = {
    ("1.2.0.192.in-addr.arpa", PTR): labels("other.example"),
    ("3.2.0.192.in-addr.arpa", PTR): labels("third.example"),
    ("other.example", A): socket.inet_aton("192.0.2.1"),
    ("third.example", A): socket.inet_aton("192.0.2.3"),
}


def answer(query, answers):
    name, at = [], 12
    while query[at]:
        name.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
    question = query[12 : at + 5]
    data = answers.get((".".join(name).lower(), kind))
    head = query[:2] + struct.pack(">HHHHH", 0x8180 if data else 0x8183, 1, 1 if data else 0, 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data if data else b""
    return head + question + record


def serve(address, answers):
    def answer_all():
        while True:
            query, peer = dns.recvfrom(512)
            dns.sendto(answer(query, answers), peer)

    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind((address, 53))
    threading.Thread(target=answer_all, daemon=True).start()


def start(penfoldd, configuration):
    daemon = subprocess.Popen([penfoldd, "-d", "-f", configuration], stderr=subprocess.PIPE, text=True)
    for line in daemon.stderr:
        if "started" in line:
            break
        print(line, end="", file=sys.stderr)

    def copy_log():
        for line in daemon.stderr:
            print(line, end="", file=sys.stderr)

    threading.Thread(target=copy_log, daemon=True).start()
    return daemon


def received_line(source, maildir):
    host = "2001:db8::9" if ":" in source else "192.0.2.9"
    client = smtplib.SMTP(host, 25, "client.test", source_address=(source, 0), timeout=20)
    client.sendmail("a@example.test", ["jon@razorback"], "Subject: x\r\n\r\nhello\r\n")
    client.quit()
    new = pathlib.Path(maildir, "new")
    while not (new.is_dir() and list(new.iterdir())):
        time.sleep(0.02)
    message = next(new.iterdir())
    received = [line for line in message.read_text().splitlines() if line.startswith("Received: ")]
    message.unlink()
    return received[0]


def clients(penfoldd, configuration, maildir):
    serve("127.0.0.1", ANSWERS)
    daemon = start(penfoldd, configuration)
    seen = {source: received_line(source, maildir) for source in ["192.0.2.1", "192.0.2.2", "192.0.2.3", V6]}
    daemon.terminate()
    daemon.wait()
    print(json.dumps(seen))


def replace(path, text):
    """Replaces a file by a rename, as the programs that write resolv.conf do."""
    pathlib.Path(path).parent.mkdir(exist_ok=True)
    pathlib.Path(path + ".new").write_text(text)
    os.rename(path + ".new", path)


def networks(penfoldd, configuration, maildir):
    serve("127.0.0.2", ANSWERS)
    serve("127.0.0.3", OTHER_NETWORK)
    daemon = start(penfoldd, configuration)
    seen = {}

    def until(name, wanted, source="192.0.2.1"):
        end = time.monotonic() + 15
        while wanted not in (line := received_line(source, maildir)) and time.monotonic() < end:
            time.sleep(0.1)
        seen[name] = line

    conf = "/run/systemd/resolve/resolv.conf"
    until("without servers", "unknown")
    replace(conf, "nameserver 127.0.0.2\n")
    until("in one network", "good.example")
    replace(conf, "# not written yet\n")
    time.sleep(2.5)
    until("while the file is written", "good.example")
    replace(conf, "search x\nnameserver 127.0.0.3\n")
    until("in another network", "other.example")
    until("a third host", "third.example", "192.0.2.3")
    replace("/etc/hosts", "127.0.0.1 localhost\n192.0.2.3 listed.example\n")
    until("in hosts", "listed.example", "192.0.2.3")
    daemon.terminate()
    daemon.wait()
    print(json.dumps(seen))


{"clients": clients, "networks": networks}[sys.argv[1]](*sys.argv[2:])
