"""A user without rights at the control socket: sendmail_hostile.py SOCKET SEED.

Says nonsense, halves, too much and nothing, passes descriptors, hangs up at every
moment, and opens as many connections as it may. Says `held` when it holds all that it
gets, and keeps them until its standard input ends.
"""

import array
import random
import socket
import sys

path, seed = sys.argv[1], int(sys.argv[2])
chance = random.Random(seed)


def connect():
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(20)
    client.connect(path)
    return client


def hear(client):
    heard = b""
    try:
        while piece := client.recv(4096):
            heard += piece
    except OSError:
        pass
    return heard


REQUESTS = [
    b"", b"\n", b"queue\n", b"flush\n", b"wake x\n", b"submit", b"submit a b\n", b"submit \xff\0\n",
    b"submit x\nEHLO a\r\n", b"verify\n", b"verify |a\n", b"verify " + b"a" * 5000 + b"\n", b"submit " + b"x" * 900 + b"\n",
    b"x" * 100000, b"verify \r\n", b"submit\r\n",
]


def session(client):
    client.sendall(b"submit hostile\n")
    words = [b"EHLO a\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<jon>\r\n", b"DATA\r\n", b".\r\n", b"\n", b"RSET\r\n", b"AUTH PLAIN\r\n"]
    for _ in range(chance.randrange(12)):
        client.sendall(chance.choice(words) if chance.random() < 0.8 else chance.randbytes(chance.randrange(3000)))


for _ in range(150):
    with connect() as client:
        try:
            kind = chance.randrange(4)
            if kind == 0:
                client.sendall(chance.choice(REQUESTS))
            elif kind == 1:
                client.sendall(chance.randbytes(chance.randrange(2000)))
            elif kind == 2:
                session(client)
            else:
                file = open("/dev/null")
                fds = array.array("i", [file.fileno()] * 10)
                client.sendmsg([b"submit x\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            if chance.random() < 0.8:
                client.shutdown(socket.SHUT_WR)
                if chance.random() < 0.7:
                    hear(client)
        except OSError:
            pass

for request in (b"wake 1K0TVZ6PH81DZ9JHPQF,S=829\n", b"flush\n"):
    with connect() as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        assert hear(client) == b"you may not do that\n", request

held, refused = [], 0
for _ in range(900):
    client = connect()
    try:
        client.sendall(b"submit hostile\n")
        first = client.recv(64)
    except OSError:
        first = b""
    if first.startswith(b"ok"):
        held.append(client)
    else:
        refused += 1
assert len(held) == 40, len(held)
print("held", flush=True)
sys.stdin.read()
