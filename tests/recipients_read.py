"""Reads lists of addresses on standard input, each after its length (four octets, big
endian), and prints the addresses that Python finds in each: a line of JSON for a list."""

import email.utils
import json
import struct
import sys

data = sys.stdin.buffer.read()
while data:
    (length,), data = struct.unpack(">I", data[:4]), data[4:]
    value, data = data[:length].decode("ascii").replace("\n", ""), data[length:]
    print(json.dumps([address for _, address in email.utils.getaddresses([value]) if address]))
