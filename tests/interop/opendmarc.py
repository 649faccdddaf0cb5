"""Helps tests/interop/dmarc.rs: evaluates DMARC with opendmarc's library.

Each line of standard input is a case in JSON: the records of a zone, the domain in From, the
result of SPF for a domain, and the signatures. The answer is a line with opendmarc's policy. The
library is given the records instead of asking the DNS, and each case runs in a process of its own,
because the library cannot forget a record.
"""

import ctypes
import json
import os
import sys

MOZILLA, IPV4, MAILFROM, HELO = 1, 4, 1, 2
RESULTS = {"none": 0, "pass": 1, "fail": 2, "temperror": 3}
POLICIES = {14: "none", 15: "pass", 16: "fail reject", 17: "fail quarantine", 18: "fail none"}
SUFFIXES = "/usr/share/publicsuffix/public_suffix_list.dat"


def evaluate(library, case):
    start = ctypes.create_string_buffer(MOZILLA.to_bytes(4, sys.byteorder) + SUFFIXES.encode(), 1 << 14)
    library.opendmarc_policy_library_init(start)
    for name, text in case["zone"]:
        library.opendmarc_dns_fake_record(name.encode(), text.encode())
    library.opendmarc_policy_connect_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.opendmarc_policy_connect_init(b"192.0.2.1", IPV4))
    sender = case["from"].encode()
    library.opendmarc_policy_store_from_domain(context, sender)
    if case["spf"]:
        domain, result, is_hello = case["spf"]
        origin = HELO if is_hello else MAILFROM
        library.opendmarc_policy_store_spf(context, domain.encode(), RESULTS[result], origin, None)
    for domain, result in case["dkim"]:
        library.opendmarc_policy_store_dkim(context, domain.encode(), b"s", RESULTS[result], None)
    answer = library.opendmarc_policy_query_dmarc(context, sender)
    if answer == 11:
        return "temperror"
    if answer in (9, 10):
        return "none"
    if answer:
        return f"error {answer}"
    policy = library.opendmarc_get_policy_to_enforce(context)
    return POLICIES.get(policy, f"policy {policy}")


def main():
    library = ctypes.CDLL("libopendmarc.so.2")
    for line in sys.stdin:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            print(evaluate(library, json.loads(line)))
            sys.stdout.flush()
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            print("crash")


main()
