"""Compares messages before and after their conversion, as the email package of Python reads them.

Each line of the input has a number and two messages in base64, as they are sent. The parts must be
the same, with the same headers and, after decoding, the same octets. Only the fields that a
conversion replaces or adds may differ.
"""

import base64
import email
import os
import sys

REPLACED = {"content-transfer-encoding", "mime-version"}


def fields(part, was_typed):
    """The fields of a part that must not change, without folding."""
    shown = []
    for name, value in part.raw_items():
        name = name.lower()
        if name not in REPLACED and (name != "content-type" or was_typed):
            shown.append((name, " ".join(str(value).split())))
    return shown


def parts(message):
    return list(message.walk())


def same(before, after):
    one, other = parts(email.message_from_bytes(before)), parts(email.message_from_bytes(after))
    if len(one) != len(other):
        return f"{len(one)} parts before, {len(other)} after"
    # If a last boundary is missing, Python takes a line end from the last part, although no boundary
    # follows. It cannot do that if the part is base64.
    is_open = any("CloseBoundary" in type(defect).__name__ for part in one for defect in part.defects)
    for number, (a, b) in enumerate(zip(one, other)):
        was_typed = "content-type" in a
        if fields(a, was_typed) != fields(b, was_typed):
            return f"part {number}: fields {fields(a, was_typed)} and {fields(b, was_typed)}"
        if a.get_content_type() != b.get_content_type() or a.is_multipart() != b.is_multipart():
            return f"part {number}: {a.get_content_type()} and {b.get_content_type()}"
        if not a.is_multipart():
            x, y = a.get_payload(decode=True), b.get_payload(decode=True)
            if is_open:
                x, y = x.rstrip(b"\r\n"), y.rstrip(b"\r\n")
            if x != y:
                at = len(os.path.commonprefix([x, y]))
                return f"part {number}: after {at} octets {x[at:]!r} and {y[at:]!r}"
    return None


count = 0
for line in sys.stdin:
    number, before, after = line.split()
    before, after = base64.b64decode(before), base64.b64decode(after)
    why = same(before, after)
    if why:
        print(f"message {number}: {why}\n{before!r}\n{after!r}"[:4000])
        sys.exit(1)
    count += 1
print(f"{count} messages are the same")
