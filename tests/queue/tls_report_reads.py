"""Reads TLS reports with parsedmarc: the first argument is its folder, and each further argument a
file with a whole message. Prints a line for each report: sender, contact, report id, begin and end. Then
prints a line for each policy: domain, type, numbers of successful and failed connections, the lines of
the policy, each in quotes, and for each failure the result type, the number of connections, the name of
the host, the name that it has given, the addresses of both ends and the reason.

What parsedmarc imports for other purposes, such as databases and DNS, is replaced by nothing."""

import email
import importlib.abc
import importlib.machinery
import sys
from unittest.mock import MagicMock

OTHERS = {"dateutil", "dns", "expiringdict", "httpx", "lxml", "mailparser", "mailsuite", "maxminddb", "publicsuffixlist",
          "tqdm", "xmltodict"}


class Nothing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        is_other = name.split(".")[0] in OTHERS
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_other else None

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module):
        pass


sys.path.insert(0, sys.argv[1])
sys.meta_path.insert(0, Nothing())

import parsedmarc

for name in sys.argv[2:]:
    with open(name, "rb") as file:
        message = email.message_from_bytes(file.read())
    assert message.get_content_type() == "multipart/report" and message.get_param("report-type") == "tlsrpt"
    [part] = [part for part in message.walk() if part.get_content_type() == "application/tlsrpt+gzip"]
    report = parsedmarc.parse_smtp_tls_report_json(parsedmarc.extract_report(part.get_payload(decode=True)))
    about = ["organization_name", "contact_info", "report_id", "begin_date", "end_date"]
    print("report", *[report[field] for field in about])
    for policy in report["policies"]:
        words = [policy["policy_domain"], policy["policy_type"]]
        words += [str(policy["successful_session_count"]), str(policy["failed_session_count"])]
        words += [f'"{line}"' for line in policy.get("policy_strings", [])]
        for one in policy.get("failure_details", []):
            fields = ["receiving_mx_hostname", "receiving_mx_helo", "sending_mta_ip", "receiving_ip",
                      "failure_reason_code"]
            more = ",".join(one.get(field, "-") for field in fields)
            words.append(f'{one["result_type"]}*{one["failed_session_count"]}@{more}')
        print(" ".join(words))
