"""Reads a report from standard input, as a mail program would.

Fails with the reason if it is not a multipart/report (RFC 6522) of three parts with a delivery
status (RFC 3464, RFC 6533), or if the email package finds a defect. Prints the report as a line of
JSON with sorted keys.
"""

import email
import email.policy
import json
import quopri
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
    is_eight_bit = b"\nContent-Transfer-Encoding: 8bit\n" in data.split(b"\n\n")[0]
    for line in data.split(b"\n"):
        assert len(line) <= 998, f"a line of {len(line)} octets"
        assert all(b == 9 or 32 <= b < 127 or (is_eight_bit and b > 127) for b in line), f"not plain text: {line!r}"
    assert data.endswith(b"\n"), "the last line has no end"


KINDS = [
    ("message/delivery-status", "text/rfc822-headers"),
    ("message/delivery-status", "message/rfc822"),
    ("message/global-delivery-status", "message/global-headers"),
    ("message/global-delivery-status", "message/global"),
]


def status_blocks(status):
    """The blocks of the second part. Those in UTF-8 are encoded, which the email package does not
    expect in a message part."""
    if status.get_content_type() == "message/delivery-status":
        return status.get_payload()
    [inner] = status.get_payload() if status.is_multipart() else [status]
    data = quopri.decodestring(inner.as_bytes().split(b"\n\n", 1 if inner is status else 0)[-1])
    blocks = data.strip(b"\n").split(b"\n\n")
    return [email.message_from_bytes(block, policy=email.policy.SMTPUTF8) for block in blocks]


def original_of(part):
    """The third part: the header or the message."""
    if part.is_multipart():
        [inner] = part.get_payload()
        return inner.as_bytes()
    return part.get_payload(decode=True)


def structure(message):
    """The three parts: text, list of status blocks, header of the original."""
    assert message.get_content_type() == "multipart/report", message.get_content_type()
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    parts = message.get_payload()
    kinds = [part.get_content_type() for part in parts]
    assert kinds[0] in ("text/plain", "multipart/multilingual") and tuple(kinds[1:]) in KINDS, kinds
    assert not message.preamble and not message.epilogue
    return parts


def text_of(part):
    """The text of the first part. Of a text in several languages (RFC 8255), the texts of all parts,
    each after its subject."""
    if not part.is_multipart():
        assert part["Content-Language"], "no Content-Language"
        return part.get_content()
    preface, *messages = part.get_payload()
    assert preface.get_content_type() == "text/plain" and len(messages) > 1, part
    text = preface.get_content()
    for message in messages:
        assert message.get_content_type() == "message/rfc822" and message["Content-Language"], message
        [inner] = message.get_payload()
        assert inner["From"].addresses[0].addr_spec.startswith("MAILER-DAEMON@"), inner
        text += f"{message['Content-Language']} {inner['Subject']}\n{inner.get_content()}"
    return text


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
    blocks = [fields(block) for block in status_blocks(status)]
    assert len(blocks) >= 2, f"{len(blocks)} blocks"
    assert "Reporting-MTA" in blocks[0] and "Arrival-Date" in blocks[0], blocks[0]
    for block in blocks[1:]:
        assert {"Final-Recipient", "Action", "Status"} <= block.keys(), block
        assert block["Action"] in ("failed", "delayed", "delivered", "relayed", "expanded"), block
    original = original_of(header)
    json.dump(
        {
            "from": [a.addr_spec for a in message["From"].addresses],
            "to": [a.addr_spec for a in message["To"].addresses],
            "subject": top["Subject"],
            "message_id": top["Message-ID"],
            "in_reply_to": top.get("In-Reply-To"),
            "references": top.get("References", "").split(),
            "text": text_of(text),
            "message": blocks[0],
            "recipients": blocks[1:],
            "original": original.decode("latin-1"),
        },
        sys.stdout,
        sort_keys=True,
    )


if __name__ == "__main__":
    main()
