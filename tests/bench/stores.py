#!/usr/bin/python3
"""stores.py PENFOLDD [MESSAGES [CLIENTS]]: the rates of penfold and of Postfix to the same Dovecot.

Run by root, with the packages that tests/setup unpacks. Each server takes MESSAGES messages (of 2 KiB)
with 1 recipient and then MESSAGES / 10 with 50 recipients from CLIENTS clients by SMTP, each
client over one connection, and sends them to Dovecot by LMTP over a Unix socket. The spools are on
the disk of /var/tmp, Dovecot's mailboxes in memory and without fsync, so that Dovecot costs as
little as it can. Prints the deliveries per second, from the first connection until Dovecot has
saved the last message, and the processor time. The servers take turns, three times each.
"""

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEERS = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(TREE, "target")), "peers")
USERS = 500
TEXT = "Subject: hello\r\n\r\n" + ("x" * 70 + "\r\n") * 28


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


class Dovecot:
    def __init__(self, memory):
        self.dir, self.socket = memory, f"{memory}/lmtp"
        self.log = f"{memory}/log"
        write(self.log, "")
        os.mkdir(f"{memory}/store")
        os.chown(f"{memory}/store", 65534, 65534)
        write(f"{memory}/dovecot.conf", f"""
base_dir = {memory}/run
state_dir = {memory}/run
log_path = {self.log}
protocols = lmtp
ssl = no
default_internal_user = root
default_login_user = root
default_internal_group = nogroup
service auth {{
 user = root
}}
service anvil {{
 chroot =
}}
service stats {{
 chroot =
}}
mail_location = maildir:{memory}/store/%n
mail_fsync = never
auth_username_format = %Ln
passdb {{
 driver = static
 args = nopassword=y
}}
userdb {{
 driver = static
 args = uid=65534 gid=65534 home={memory}/store/%n allow_all_users=yes
}}
service lmtp {{
 process_min_avail = 20
 process_limit = 100
 unix_listener {self.socket} {{
  mode = 0666
 }}
}}
""")
        script = os.path.join(TREE, "tests/interop/dovecot.sh")
        self.process = subprocess.Popen([script, f"{PEERS}/dovecot.pkg", f"{memory}/dovecot.conf"])
        while not os.path.exists(self.socket):
            time.sleep(0.05)
        self.offset = 0

    def saved(self):
        """The number of messages saved since the last call."""
        with open(self.log, "rb") as log:
            log.seek(self.offset)
            text = log.read()
        whole = text.rfind(b"\n") + 1
        self.offset += whole
        return text[:whole].count(b"saved mail to INBOX")


def cpu(root):
    """The seconds of processor time that a process and its descendants have used."""
    parents, times = {}, {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(pid)] = int(fields[1])
        times[int(pid)] = sum(int(field) for field in fields[11:15])
    total, wanted = 0, {root}
    while wanted:
        total += sum(times.get(pid, 0) for pid in wanted)
        wanted = {pid for pid, parent in parents.items() if parent in wanted}
    return total / os.sysconf("SC_CLK_TCK")


def ask(file, line, code):
    file.write(line.encode() + b"\r\n")
    file.flush()
    while True:
        reply = file.readline().decode()
        if reply[3:4] != "-":
            break
    if not reply.startswith(code):
        raise RuntimeError(f"{line[:60]}: {reply}")


def client(port, messages, recipients, number):
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rwb") as file:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        file.readline()
        ask(file, "EHLO client.test", "250")
        for message in range(messages):
            first = (number * 131 + message * recipients) % USERS
            names = [f"m{(first + n) % USERS}@razorback.test" for n in range(recipients)]
            ask(file, "MAIL FROM:<a@razorback.test>", "250")
            for name in names:
                ask(file, f"RCPT TO:<{name}>", "250")
            ask(file, "DATA", "354")
            ask(file, TEXT + ".", "250")
        ask(file, "QUIT", "221")


def start_penfold(scratch, store, port):
    os.mkdir(f"{scratch}/spool")
    os.chown(scratch, 65534, 65534)
    os.chown(f"{scratch}/spool", 65534, 65534)
    write(f"{scratch}/users", "".join(f"m{n}::\n" for n in range(USERS)))
    os.chmod(f"{scratch}/users", 0o644)
    write(f"{scratch}/penfold.conf", f"""
hostname = "razorback.test"
user = "nobody"
spool = "{scratch}/spool"
socket = "{scratch}/sock"
[[listen]]
address = "127.0.0.1:{port}"
[local]
domains = ["razorback.test"]
users = "file:{scratch}/users"
mailbox = "lmtp:{store}"
aliases = "/dev/null"
[relay]
networks = ["127.0.0.0/8"]
[log]
to = "{scratch}/log"
""")
    log = open(f"{scratch}/stderr", "w")
    return subprocess.Popen([sys.argv[1], "-d", "-f", f"{scratch}/penfold.conf"], stderr=log)


def start_postfix(scratch, store, port):
    os.mkdir(f"{scratch}/mail")
    write(f"{scratch}/boxes", "".join(f"m{n}@razorback.test m{n}/\n" for n in range(USERS)))
    script = os.path.join(TREE, "tests/bench/postfix.sh")
    command = [script, f"{PEERS}/postfix.pkg", scratch, str(port), str(free_port())]
    return subprocess.Popen(command, env={**os.environ, "STORE": store})


def measure(start, dovecot, messages, recipients, clients):
    scratch, port = tempfile.mkdtemp(dir="/var/tmp"), free_port()
    os.chmod(scratch, 0o755)
    server = start(scratch, dovecot.socket, port)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        time.sleep(0.5)
        dovecot.saved()
        began, before, store_before = time.monotonic(), cpu(server.pid), cpu(dovecot.process.pid)
        each = messages // clients
        threads = [threading.Thread(target=client, args=(port, each, recipients, n)) for n in range(clients)]
        for thread in threads:
            thread.start()
        left = each * clients * recipients
        while left > 0 and time.monotonic() - began < 120:
            time.sleep(0.01)
            left -= dovecot.saved()
        rate = (each * clients * recipients - left) / (time.monotonic() - began)
        for thread in threads:
            thread.join()
        if left != 0:
            print(f"{left} deliveries are missing", file=sys.stderr)
        count = each * clients * recipients / 1000
        return rate, (cpu(server.pid) - before) / count, (cpu(dovecot.process.pid) - store_before) / count
    finally:
        server.send_signal(signal.SIGKILL if start == start_postfix else signal.SIGTERM)
        server.wait()
        time.sleep(0.5)
        shutil.rmtree(scratch, ignore_errors=True)


def main():
    messages = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    clients = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    memory = tempfile.mkdtemp(dir="/dev/shm")
    os.chmod(memory, 0o755)
    dovecot = Dovecot(memory)
    try:
        for recipients, count in [(1, messages), (50, messages // 10)]:
            rates = {"penfold": [], "postfix": []}
            for _ in range(int(os.environ.get("ROUNDS", "3"))):
                for name, start in [("penfold", start_penfold), ("postfix", start_postfix)]:
                    rates[name].append(measure(start, dovecot, count, recipients, clients))
                    shutil.rmtree(f"{memory}/store")
                    os.mkdir(f"{memory}/store")
                    os.chown(f"{memory}/store", 65534, 65534)
            medians = {name: [statistics.median(column) for column in zip(*each)] for name, each in rates.items()}
            for name, (rate, own, store) in medians.items():
                samples = [round(rate) for rate, _, _ in rates[name]]
                print(f"{recipients} recipients, {name}: {rate:.0f} deliveries/s {samples}; processor time per delivery: "
                      f"{own:.2f} ms, Dovecot {store:.2f} ms")
            print(f"ratio {medians['penfold'][0] / medians['postfix'][0]:.1f}")
    finally:
        dovecot.process.send_signal(signal.SIGTERM)
        dovecot.process.wait()
        shutil.rmtree(memory, ignore_errors=True)


main()
