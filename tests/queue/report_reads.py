"""Reads a report from standard input, as a mail program would.

Fails with the reason if it is not a multipart/report (RFC 6522) of three parts with a delivery
status (RFC 3464), or if the email package finds a defect. Prints the report as a line of JSON
with sorted keys.
"""

import email
import email.policy
import json
import sys


def defects(message):
    """Every defect of a message, of its fields and of its parts."""
    found = [repr(d) for d in message.defects]
    for name in message.keys():
        for value in message.get_all(name):
            found += [f"{name}: {d!r}" for d in value.defects]
    if message.is_multipart():
        for part in message.get_payload():
            found += defects(part)
    return found


def bytes_are_clean(data):
    for line in data.split(b"\n"):
        assert len(line) <= 998, f"a line of {len(line)} octets"
        assert all(b == 9 or 32 <= b < 127 for b in line), f"not plain ASCII: {line!r}"
    assert data.endswith(b"\n"), "the last line has no end"


def structure(message):
    """The three parts: text, list of status blocks, header of the original."""
    assert message.get_content_type() == "multipart/report", message.get_content_type()
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    parts = message.get_payload()
    kinds = [part.get_content_type() for part in parts]
    assert kinds == ["text/plain", "message/delivery-status", "text/rfc822-headers"], kinds
    assert not message.preamble and not message.epilogue
    return parts


def fields(block):
    assert len(set(map(str.lower, block.keys()))) == len(block.keys()), f"a field twice: {block.keys()}"
    return {name: str(value) for name, value in block.items()}


def main():
    data = sys.stdin.buffer.read()
    bytes_are_clean(data)
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert not defects(message), defects(message)
    text, status, header = structure(message)
    top = fields(message)
    assert top["Auto-Submitted"] == "auto-replied", "Auto-Submitted"
    assert message["Date"].datetime is not None
    blocks = [fields(block) for block in status.get_payload()]
    assert len(blocks) >= 2, f"{len(blocks)} blocks"
    assert "Reporting-MTA" in blocks[0] and "Arrival-Date" in blocks[0], blocks[0]
    for block in blocks[1:]:
        assert {"Final-Recipient", "Action", "Status"} <= block.keys(), block
        assert block["Action"] == "failed", block
    original = header.get_payload(decode=True)
    json.dump(
        {
            "from": [a.addr_spec for a in message["From"].addresses],
            "to": [a.addr_spec for a in message["To"].addresses],
            "subject": top["Subject"],
            "message_id": top["Message-ID"],
            "in_reply_to": top.get("In-Reply-To"),
            "references": top.get("References", "").split(),
            "text": text.get_content(),
            "message": blocks[0],
            "recipients": blocks[1:],
            "original": original.decode("latin-1"),
        },
        sys.stdout,
        sort_keys=True,
    )


if __name__ == "__main__":
    main()
