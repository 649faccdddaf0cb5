"""Users without rights at the control socket of penfoldd.

    control.py fuzz SOCKET SEED SECONDS    sends malformed requests, as the user that runs this
    control.py hold SOCKET UID[+COUNT]...  takes all connections that these users get; by root

`fuzz` passes descriptors, closes the connection at every octet of whole dialogues, and then
sends changed ones, garbage, halves and too much until its time is over. Every answer must be
well-formed and must end; the id of an accepted message is printed. `hold` prints the number
of connections for each argument, COUNT consecutive uids beginning with UID, and keeps them
until its standard input ends. A broken promise ends either with a traceback.
"""

import array
import os
import random
import re
import socket
import sys
import time

# Longer than any timeout of the daemon in these dialogues.
TIMEOUT = 20
HEADS = {b"ok\n", b"permission denied\n", b"too many connections\n", b"malformed request\n", b"malformed queue id\n", b"no such message\n", b"--since is not before --until\n"}
REPLY = re.compile(rb"[2345][0-5][0-9][ -][^\x00-\x1f\x7f]*\r")
ACCEPTED = re.compile(rb"250 2\.0\.0 (\w+) Message accepted")

MESSAGE = b"Subject: x\r\nTo: jon\r\n\r\n..\r\nhello\r\n.\r\n"
# The requests of sendmail(8), mailq(1) and penfoldctl(8), and a session typed by hand.
DIALOGUES = [
    b"submit sendmail\nEHLO x\r\nMAIL FROM:<jon@razorback> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<jon@razorback>\r\n"
    b"RCPT TO:<root@razorback>\r\nDATA\r\n" + MESSAGE + b"QUIT\r\n",
    b"submit\nHELO x\r\nMAIL FROM:<>\r\nRCPT TO:<jon>\r\nDATA\r\n" + MESSAGE + b"RSET\r\nMAIL FROM:<root>\r\nRCPT TO:<nobody-here>\r\nQUIT\r\n",
    b"submit git-send-email\nEHLO x\r\nMAIL FROM:<a@b.test> SMTPUTF8\r\nRCPT TO:<jon@razorback>\r\nBDAT 12\r\nSubject: x\r\n"
    b"BDAT 9 LAST\r\n\r\nhello\r\nVRFY jon\r\nXCLIENT NAME=x LOGIN=root\r\nAUTH PLAIN AHJvb3QAcGVuY2ls\r\nSTARTTLS\r\nNOOP\r\nQUIT\r\n",
    b"trace 20 jon@razorback\n", b"trace json 1 <x@y>\n", b"trace 20 1K0TVZ6PH81DZ9JHPQF\n", b"trace json 1000 1K0TVZ6PH81DZ9JHPQF yesterday%2018:00\n",
    b"queue\n", b"queue json from=@razorback to=jon domain=@razorback age=1h state=ready limit=3\n", b"queue by=reason limit=2\n",
    b"queue ids state=held\n", b"verify jon@razorback\n", b"verify nobody-here\n", b"flush\n", b"flush razorback\n",
    b"show text 1K0TVZ6PH81DZ9JHPQF\n", b"show json 1K0TVZ6PH81DZ9JHPQF\n", b"show message 1K0TVZ6PH81DZ9JHPQF\n",
    b"hosts\n", b"hosts json example.test\n",
    b"config all\n", b"config given json queue.workers\n", b"reload\n", b"status\n", b"status json\n",
    b"hold 1K0TVZ6PH81DZ9JHPQF\n", b"release 1K0TVZ6PH81DZ9JHPQF\n", b"remove 1K0TVZ6PH81DZ9JHPQF\n",
    b"stats text - - -\n", b"stats json 0 18446744073709551615 1000\n", b"stats openmetrics - - -\n", b"stats prometheus - - -\n", b"stats raw - - -\n", b"stats report 5 1 x\n", b"stats text yesterday%2018:00 06:00 -\n",
    b"change hold 1K0TVZ6PH81DZ9JHPQF 1K0TVZ6PH81DZ9JHPQG\n", b"change bounce gone%20away 1K0TVZ6PH81DZ9JHPQF\n",
    b"change requeue 1K0TVZ6PH81DZ9JHPQF\n", b"change flush\n",
    b"wake 1K0TVZ6PH81DZ9JHPQF,S=829\n", b"explain 1K0TVZ6PH81DZ9JHPQF\n",
    b"explain from=a@b.test ip=192.0.2.1 helo=x size=9 kind=smtp no-dns json jon@razorback\n",
    b"submit a b\n", b"\n", b"",
]
SPICE = [b"\0", b"\n", b"\r", b"\r\n", b"\r\n.\r\n", b" ", b"<", b">", b"@", b"|", b"\"", b"\\", b"%s", b"\xff", b"\x1b[2J", b"../", b" NOTIFY=NEVER", b"=", b"-1", b"99999999999999999999"]


def connect(path):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(TIMEOUT)
    client.connect(path)
    return client


def begin(client, text, send, received):
    """Sends a text; after a request that begins a session it waits for the answer, in `received`."""
    head, end, rest = text.partition(b"\n")
    if end and rest and head.startswith(b"submit"):
        send(head + end)
        while not received.endswith(b"\n"):
            piece = client.recv(1)
            if not piece:
                return
            received += piece
        text = rest
    send(text)


def read_to_end(client, sent, received):
    """Reads to the end of the connection; every line must be a known answer."""
    try:
        while piece := client.recv(65536):
            received += piece
    except ConnectionError:
        pass  # The daemon did not read the rest.
    except TimeoutError:
        raise AssertionError(f"no end after {sent[:200]!r}: {received[-200:]!r}") from None
    check(received, sent)
    return received


def check(received, sent):
    head, _, rest = received.partition(b"\n")
    assert not received or bytes(head + b"\n") in HEADS, f"{received[:200]!r} to {sent[:200]!r}"
    # This is an SMTP session; all other answers are listings.
    if rest[:3] in (b"220", b"421"):
        for line in rest.split(b"\n")[:-1]:
            assert REPLY.fullmatch(line) and len(line) < 1500, f"{line[:200]!r} to {sent[:200]!r}"
        for queue_id in ACCEPTED.findall(rest):
            print("accepted", bytes(queue_id).decode(), flush=True)


def files(path):
    """Passed descriptors are closed, during the connection and at its end."""
    for request in (b"submit x\n", b"queue\n", b"verify jon\n", b"x"):
        reader, writer = os.pipe()
        with connect(path) as client:
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer] * 250))]
            client.sendmsg([request], beside)
            os.close(writer)
            if request.startswith(b"submit"):
                while b"220 " not in client.recv(4096):
                    pass
                # Another descriptor with each octet of a command.
                for octet in b"NOOP\r\n":
                    null = os.open("/dev/null", os.O_RDONLY)
                    client.sendmsg([bytes([octet])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null]))])
                    os.close(null)
                assert client.recv(4096).startswith(b"250 ")
                assert os.read(reader, 1) == b"", "a descriptor that was passed is open"
        assert os.read(reader, 1) == b"", "a descriptor that was passed is open"
        os.close(reader)


def cut(path):
    """Closes the connection at every octet, in one direction or in both."""
    for dialogue in DIALOGUES[:3]:
        for end in range(len(dialogue)):
            with connect(path) as client:
                received = bytearray()
                begin(client, dialogue[:end], client.sendall, received)
                if end % 2:
                    client.shutdown(socket.SHUT_WR)
                    read_to_end(client, dialogue[:end], received)


def unchanged(path):
    """Plays each dialogue unchanged, once."""
    for dialogue in DIALOGUES:
        with connect(path) as client:
            received = bytearray()
            begin(client, dialogue, client.sendall, received)
            client.shutdown(socket.SHUT_WR)
            read_to_end(client, dialogue, received)


def changed(chance, text):
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(text) + 1)
        kind = chance.randrange(9)
        if kind == 0:
            text = text[:at]
        elif kind == 1:
            text = text[:at] + chance.choice(SPICE) + text[at:]
        elif kind == 2:
            text = text[:at] + bytes([chance.randrange(256)]) + text[at + 1:]
        elif kind == 3:
            text = text[:at] + text[at + chance.randrange(20):]
        elif kind == 4:
            text = text[:at] + text[at:at + 1] * chance.choice((10, 998, 1000, 1024, 2000, 70000)) + text[at:]
        elif kind == 5:
            text = text[:at] + chance.choice(DIALOGUES)
        elif kind == 6:
            text = text[:at] + chance.randbytes(chance.randrange(1, 300)) + text[at:]
        elif kind == 7:
            text = text.replace(b"\r\n", chance.choice((b"\n", b"\r", b"\n\r")), chance.randrange(1, 10))
        else:
            # A repeated line.
            lines = text.splitlines(keepends=True) or [b""]
            line = chance.choice(lines)
            text = text.replace(line, line * chance.choice((2, 30)), 1) if line else text
    return text


def send_in_pieces(chance, client, text):
    """Sends a text in pieces, sometimes with a descriptor; the daemon may end the connection meanwhile."""
    at = 0
    while at < len(text):
        piece = text[at:at + chance.choice((1, 7, 100, 5000, 100000))] if chance.random() < 0.1 else text[at:]
        at += len(piece)
        if chance.random() < 0.02:
            beside = array.array("i", [0] * chance.choice((1, 253)))
            sent = client.sendmsg([piece], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, beside)])
            client.sendall(piece[sent:])
        else:
            client.sendall(piece)
        if chance.random() < 0.01:
            time.sleep(0.002)


def once(chance, path):
    text = chance.randbytes(chance.randrange(3000)) if chance.random() < 0.05 else changed(chance, chance.choice(DIALOGUES))
    with connect(path) as client:
        received = bytearray()
        try:
            # Sometimes the answer is not read before the rest is sent.
            if chance.random() < 0.9:
                begin(client, text, lambda part: send_in_pieces(chance, client, part), received)
            else:
                send_in_pieces(chance, client, text)
            if chance.random() < 0.9:
                # Otherwise the session ends by its timeout, which takes longer.
                if chance.random() < 0.997:
                    client.shutdown(socket.SHUT_WR)
                read_to_end(client, text, received)
        except (BrokenPipeError, ConnectionResetError):
            read_to_end(client, text, received)
        except TimeoutError:
            raise AssertionError(f"stuck with {text[:200]!r}") from None


def fuzz(path, seed, seconds):
    end, chance, tries = time.monotonic() + float(seconds), random.Random(int(seed)), 0
    files(path)
    cut(path)
    unchanged(path)
    while tries < 20 or time.monotonic() < end:
        once(chance, path)
        tries += 1
    print("tried", tries)


def hold(path, *users):
    held, counts = [], []
    for user in users:
        first, _, more = user.partition("+")
        taken, uid, last = 0, int(first), int(first) + int(more or 0)
        while uid <= last:
            # The daemon gets this uid from the kernel.
            os.seteuid(uid)
            client = connect(path)
            os.seteuid(0)
            try:
                client.sendall(b"submit hold\n")
                is_accepted = client.recv(64).startswith(b"ok")
            except ConnectionError:
                is_accepted = False
            if is_accepted:
                held.append(client)
                taken += 1
            else:
                uid += 1
        counts.append(taken)
    print("held", *counts, flush=True)
    sys.stdin.read()


{"fuzz": fuzz, "hold": hold}[sys.argv[1]](*sys.argv[2:])
