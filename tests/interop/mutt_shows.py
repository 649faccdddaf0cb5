"""Shows a message from standard input in mutt, on a terminal of 300 lines, and prints what is on it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import tempfile
import termios
import time

LIMIT = 30


def read_until(terminal, wanted):
    """Reads what mutt writes until `wanted` is among it. Returns everything up to then."""
    seen, end = b"", time.monotonic() + LIMIT
    while wanted not in seen and time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], 1)
        if ready:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                break
    return seen


def main():
    message = sys.stdin.buffer.read()
    with tempfile.TemporaryDirectory() as directory:
        mailbox, settings = os.path.join(directory, "mbox"), os.path.join(directory, "muttrc")
        with open(mailbox, "wb") as file:
            file.write(b"From MAILER-DAEMON Sat Nov 21 10:00:00 2026\n" + message + b"\n")
        with open(settings, "w") as file:
            file.write(f"set folder={directory}\nset charset=utf-8\n")
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update(TERM="xterm", LANG="C.UTF-8", LC_ALL="C.UTF-8")
            os.execvp("mutt", ["mutt", "-n", "-F", settings, "-R", "-f", mailbox])
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 300, 120, 0, 0))
        try:
            read_until(terminal, b"Msgs:1")
            os.write(terminal, b"\r")
            shown = read_until(terminal, b"End of the original")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    # A control sequence moves the cursor to another place, often to another line.
    print(re.sub(rb"\x1b[\[(][0-9;?]*[a-zA-Z]", b" ", shown).decode("utf-8", "replace"))


if __name__ == "__main__":
    main()
