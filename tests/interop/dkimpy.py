"""Helps tests/interop/dkim.rs: lets dkimpy sign and verify.

Standard input has one request a line, whose fields are separated by tabs; messages and keys are in
base64, and the message has CR LF.

key NAME RECORD: the TXT record of a name.
sign ALGORITHM SELECTOR DOMAIN CANON KEY LENGTH MESSAGE: prints the signature field in base64.
verify MESSAGE: prints `pass` or `fail` for each signature, from top to bottom.
seal SELECTOR DOMAIN KEY NAME MESSAGE: prints the fields of an ARC set in base64. The message has an
Authentication-Results field of NAME.
chain MESSAGE: prints the result for the ARC chain.
"""

import base64
import re
import sys

import dkim

keys = {}


def lookup(name, timeout=5):
    return keys.get(name.decode().rstrip("."))


def sign(algorithm, selector, domain, canon, key, length, message):
    field = dkim.sign(
        base64.b64decode(message),
        selector.encode(),
        domain.encode(),
        base64.b64decode(key),
        canonicalize=tuple(canon.encode().split(b"/")),
        signature_algorithm=algorithm.encode(),
        length=length == "length",
    )
    return base64.b64encode(field).decode()


def verify(message):
    message = base64.b64decode(message)
    header = message.split(b"\r\n\r\n", 1)[0]
    count = len(re.findall(rb"(?im)^dkim-signature[ \t]*:", header))
    results = []
    for number in range(count):
        try:
            passes = dkim.DKIM(message, minkey=1024).verify(idx=number, dnsfunc=lookup)
        except dkim.DKIMException:
            passes = False
        results.append("pass" if passes else "fail")
    return " ".join(results)


def seal(selector, domain, key, name, message):
    fields = dkim.arc_sign(
        base64.b64decode(message), selector.encode(), domain.encode(), base64.b64decode(key), name.encode()
    )
    return base64.b64encode(b"".join(fields)).decode()


def chain(message):
    result, _, _ = dkim.arc_verify(base64.b64decode(message), dnsfunc=lookup)
    return result.decode()


verbs = {"sign": sign, "verify": verify, "seal": seal, "chain": chain}
for line in sys.stdin:
    verb, *fields = line.rstrip("\n").split("\t")
    if verb == "key":
        keys[fields[0]] = fields[1].encode()
    else:
        print(verbs[verb](*fields))
