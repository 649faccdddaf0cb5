"""Reads lists of addresses on standard input, each after its length (four octets, big
endian), and prints the addresses that Python finds in each: a line of JSON for a list."""

import email.utils
import json
import struct
import sys



def addresses(value):
    try:
        # The strict mode of newer versions finds nothing in lists that RFC 5322 allows.
        found = email.utils.getaddresses([value], strict=False)
    except TypeError:
        found = email.utils.getaddresses([value])
    return [address for _, address in found if address]


data = sys.stdin.buffer.read()
while data:
    (length,), data = struct.unpack(">I", data[:4]), data[4:]
    value, data = data[:length].decode("ascii").replace("\n", ""), data[length:]
    print(json.dumps(addresses(value)))
