"""Helps tests/interop/dmarc.rs: reads Authentication-Results fields with the package authres.

Each line of standard input is a field in JSON. The answer is a line in JSON: the identifier, and
for each result the method, the result, and the properties.
"""

import json
import re
import sys

from authres import FeatureContext, arc, dmarc

context = FeatureContext(dmarc, arc)


def text(value):
    """authres leaves the backslashes in a quoted string."""
    return re.sub(r"\\(.)", r"\1", value)


for line in sys.stdin:
    field = context.parse(json.loads(line))
    results = [
        [one.method, one.result, [[f"{p.type}.{p.name}", text(p.value)] for p in one.properties]]
        for one in field.results
    ]
    print(json.dumps([field.authserv_id, results]))
