"""Makes TLS connections with a newer OpenSSL than that of the system, and prints the group of the key
exchange. The first argument is the folder with pyOpenSSL and cryptography, which has its own OpenSSL.
`curve` is empty for all groups of that OpenSSL, or `P-256` for this one alone.

client PORT CURVE: begins TLS with an SMTP server on 127.0.0.1, says EHLO and QUIT, prints the group.
server CERTIFICATE KEY CURVE: prints its port, takes one message over SMTP with TLS, prints the group."""

import socket
import sys
import warnings

sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")

from OpenSSL import SSL
from cryptography.hazmat.primitives.asymmetric import ec


def context(curve):
    made = SSL.Context(SSL.TLS_METHOD)
    if curve:
        made.set_tmp_ecdh(ec.SECP256R1())
    return made


def line(stream):
    text = b""
    while not text.endswith(b"\r\n"):
        octet = stream.recv(1)
        assert octet, f"the connection ends after {text}"
        text += octet
    return text.decode().rstrip()


def reply(stream, code):
    text = line(stream)
    while text[3:4] == "-":
        text = line(stream)
    assert text.startswith(code), text


def client(port, curve):
    plain = socket.create_connection(("127.0.0.1", int(port)), timeout=60)
    reply(plain, "220")
    for command, code in [("EHLO client.test", "250"), ("STARTTLS", "220")]:
        plain.sendall(command.encode() + b"\r\n")
        reply(plain, code)
    plain.settimeout(None)
    stream = SSL.Connection(context(curve), plain)
    stream.set_connect_state()
    stream.do_handshake()
    for command, code in [("EHLO client.test", "250"), ("QUIT", "221")]:
        stream.sendall(command.encode() + b"\r\n")
        reply(stream, code)
    print(stream.get_group_name())


def server(certificate, key, curve):
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    stream, _ = listener.accept()
    stream.sendall(b"220 sink.test\r\n")
    while True:
        command = line(stream).upper()
        verb = command.split(" ")[0]
        if verb == "EHLO":
            stream.sendall(b"250-sink.test\r\n250 STARTTLS\r\n")
        elif verb == "STARTTLS":
            stream.sendall(b"220 go\r\n")
            settings = context(curve)
            settings.use_certificate_chain_file(certificate)
            settings.use_privatekey_file(key)
            stream = SSL.Connection(settings, stream)
            stream.set_accept_state()
            stream.do_handshake()
            group = stream.get_group_name()
        elif verb == "DATA":
            stream.sendall(b"354 go\r\n")
            while line(stream) != ".":
                pass
            stream.sendall(b"250 taken\r\n")
            break
        else:
            stream.sendall(b"250 ok\r\n")
    print(group)


globals()[sys.argv[2]](*sys.argv[3:])
