"""Helps tests/interop/spf.rs. All fields of a line are percent-encoded and separated by tabs.

spf.py suite DIRECTORY: prints the scenarios of the published test suite for RFC 7208, which pyspf
has in its sources: `scenario`, then its records, `record NAME TYPE DATA`, then its tests,
`test NAME HELO ADDRESS SENDER RESULTS EXPLANATION`.

spf.py check DIRECTORY: reads the same lines from standard input and prints what pyspf finds for
each test: `NAME RESULT EXPLANATION`. The records are its DNS.
"""

import socket
import sys
import types
from urllib.parse import quote, unquote_to_bytes

TIMEOUT = "TIMEOUT"


def show(*fields):
    octets = [field if isinstance(field, bytes) else str(field).encode() for field in fields]
    print("\t".join(quote(field, safe="") for field in octets))


def records(name, entries):
    """The records of a name. A record of type SPF stands for one of type TXT, unless there are any."""
    has_txt = any(isinstance(entry, dict) and "TXT" in entry for entry in entries)
    for entry in entries:
        if entry == TIMEOUT:
            yield name, TIMEOUT, ""
            continue
        for kind, data in entry.items():
            if kind == "SPF" and not has_txt:
                kind = "TXT"
            if kind == "SPF" or data == "NONE":
                yield name, "OTHER", ""
            elif kind == "TXT":
                strings = [data] if isinstance(data, str) else data
                yield name, kind, b"".join(string.encode("latin-1") for string in strings)
            elif kind == "MX":
                yield name, kind, f"{data[0]} {data[1] or '.'}"
            else:
                yield name, kind, data


def suite(directory):
    import yaml

    with open(f"{directory}/test/rfc7208-tests.yml", "rb") as file:
        for scenario in yaml.safe_load_all(file):
            show("scenario", scenario["description"])
            for name, entries in scenario["zonedata"].items():
                for record in records(name, entries):
                    show("record", *record)
            for name, test in scenario["tests"].items():
                results = test["result"] if isinstance(test["result"], list) else [test["result"]]
                fields = [test["helo"], test["host"], test["mailfrom"], " ".join(results), test.get("explanation", "")]
                show("test", name, *fields)


def check(directory):
    # The module insists on a DNS library, of which it uses nothing here.
    library = types.ModuleType("DNS")
    library.Type = types.SimpleNamespace(SPF=99)
    library.DiscoverNameServers = lambda: None
    sys.modules["dns"], sys.modules["DNS"] = None, library
    sys.path.insert(0, directory)
    import spf

    zone = {}

    def look_up(name, kind, strict=True, timeout=None):
        """The records of a name; aliases are followed as a resolver does."""
        found, seen = [], set()
        name = name.rstrip(".")
        while name.lower() not in seen:
            seen.add(name.lower())
            here = zone.get(name.lower(), [])
            if any(k == TIMEOUT for k, _ in here) and not any(k == kind for k, _ in here):
                raise spf.TempError("DNS timeout")
            found += [((name, k), data) for k, data in here if k in (kind, "CNAME")]
            alias = [data for k, data in here if k == "CNAME"]
            if not alias or kind == "CNAME":
                break
            name = alias[0].rstrip(".")
        return found

    class Query(spf.query):
        """Counts void look-ups as penfold does: one for each term, and none for the client's names."""

        is_quiet = False

        def dns(self, name, kind, cnames=None, ignore_void=False):
            return super().dns(name, kind, cnames, ignore_void or self.is_quiet or kind == "PTR")

        def validated_ptrs(self):
            self.is_quiet = True
            try:
                return super().validated_ptrs()
            finally:
                self.is_quiet = False

        def dns_mx(self, name):
            exchangers = self.dns(name, "MX")
            self.is_quiet = True
            try:
                found = super().dns_mx(name)
            finally:
                self.is_quiet = False
            if exchangers and not found:
                self.void_lookups += 1
                if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                    raise spf.PermError("void")
            return found

    spf.DNSLookup = look_up
    for line in sys.stdin:
        what, *fields = [unquote_to_bytes(field) for field in line.rstrip("\n").split("\t")]
        if what == b"scenario":
            zone.clear()
        elif what == b"record":
            name, kind, data = fields[0].decode().lower(), fields[1].decode(), fields[2]
            if kind == "MX":
                preference, _, host = data.decode().partition(" ")
                data = (int(preference), host)
            elif kind == "AAAA":
                data = socket.inet_pton(socket.AF_INET6, data.decode())
            elif kind == "TXT":
                data = (data,)
            else:
                data = data.decode()
            zone.setdefault(name, []).append((kind, data))
        else:
            test, hello, address, sender = [field.decode() for field in fields[:4]]
            query = Query(address, sender, hello, receiver="mx.here.test", strict=True, timeout=20, querytime=0)
            query.set_default_explanation("DEFAULT")
            try:
                result, _, explanation = query.check()
            except Exception as error:
                result, explanation = "exception", repr(error)
            show(test, result, explanation)
            sys.stdout.flush()


{"suite": suite, "check": check}[sys.argv[1]](sys.argv[2])
