"""Reads messages from standard input, and looks for senders in From and Sender.

Each message follows its length (four octets, big endian), and was accepted from a user who may
send as jon, with or without an address extension, and as info. Fails if any reader of Python's
email package finds another address in a From or a Sender. Prints the number of messages in
which an allowed address was found.
"""

import email
import email.policy
import email.utils
import re
import struct
import sys

HIS = re.compile(r"(jon(\+[^@]*)?|info(\+[^@]*)?)@razorback\.test", re.IGNORECASE)


def strict(data):
    """The addresses that the RFC 5322 parser finds."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    values = [value for name, value in message.items() if name.strip().lower() in ("from", "sender")]
    return [address.addr_spec for value in values for address in value.addresses]


def old(data):
    """The addresses that the older functions find, which most programs call."""
    message = email.message_from_bytes(data, policy=email.policy.compat32)
    values = [str(v) for n, v in message.raw_items() if n.strip().lower() in ("from", "sender")]
    return [address for _, address in email.utils.getaddresses(values)]


def main():
    data = sys.stdin.buffer
    count = 0
    while length := data.read(4):
        message = data.read(struct.unpack(">I", length)[0])
        found = 0
        for reader in (strict, old):
            try:
                addresses = reader(message)
            except Exception:  # The parser of fields has bugs of its own.
                continue
            # A name without a domain is not an address.
            others = [a for a in addresses if "@" in a and not HIS.fullmatch(a.replace('"', ""))]
            if others:
                sys.exit(f"{reader.__name__}: {others}\n{message!r}")
            found += len(addresses)
        count += found > 0
    print(count)


if __name__ == "__main__":
    main()
