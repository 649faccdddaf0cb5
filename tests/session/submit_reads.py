"""Reads pairs of messages from standard input: as submitted, and as passed on.

Each message follows its length (four octets, big endian). If the header and body of a message
can be told apart, it fails with the reason if the body has changed, if a field is missing or
has changed other than by an added domain, if a required field is missing, or if fields have a
new defect. Prints the number of pairs without a defect in the first message.
"""

import email
import email.policy
import struct
import sys

COMPLETED = ("from", "sender", "reply-to", "to", "cc")
NEEDED = ("from", "date", "message-id")


def read(data):
    return email.message_from_bytes(data, policy=email.policy.compat32)


def defects(data):
    """Every defect of a message and, where this Python can tell, of its fields."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    found = [repr(d) for d in message.defects]
    for name in set(map(str.lower, message.keys())):
        for value in message.get_all(name):
            found += [f"{name}: {d!r}" for d in value.defects]
    return found


def raw(message):
    return [(name.lower(), value) for name, value in message.raw_items()]


def same(name, before, after):
    """Whether a field is unchanged, except for added domains."""
    after = str(after)
    return str(before) == (after.replace("@razorback.test", "") if name in COMPLETED else after)


def compare(before, after):
    """Whether a message without defects still has none."""
    one, two = read(before), read(after)
    if one.defects or b"\nFrom " in before.partition(b"\n\n")[0]:  # Where the header ends is a matter of opinion then.
        return False
    assert not two.defects, two.defects
    assert one.get_payload(decode=False) == two.get_payload(decode=False), "the body is another"
    kept, now = raw(one), raw(two)
    assert len(now) >= len(kept), "a field is gone"
    for (name, value), (other, changed) in zip(kept, now):
        assert name == other and same(name, value, changed), f"{name}: {value!r} became {other}: {changed!r}"
    for name in NEEDED:
        assert name in [field for field, _ in now], f"{name} is missing"
    try:
        was_good = not defects(before)
    except Exception:  # The parser of fields has bugs of its own.
        return False
    if was_good:
        assert not defects(after), defects(after)
    return was_good


def main():
    data = sys.stdin.buffer
    good = 0
    while length := data.read(4):
        before = data.read(struct.unpack(">I", length)[0])
        after = data.read(struct.unpack(">I", data.read(4))[0])
        try:
            good += compare(before, after)
        except AssertionError as error:
            sys.exit(f"{error}\n--- submitted:\n{before!r}\n--- went on:\n{after!r}")
    print(good)


if __name__ == "__main__":
    main()
