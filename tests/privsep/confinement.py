"""System calls in the threads of a process, and a simulation of older kernels.

    confinement.py landlock WHAT PROGRAM ARGUMENTS...    runs a program where Landlock is WHAT: the name
                                                   of an error, or the number of an older ABI
    confinement.py inside PID                            has each thread of a process make system calls

The first installs a filter (seccomp(2)) that all children inherit; a number is returned by a
supervising process, which ends with the last of them. The second reads calls from standard
input, a line each, and prints a result for each: `ok`, or the name of the error, the same for all
threads; if not, all of them. `exec PATH`, `open WAY PATH` with r, w or c (a new file), `rename FROM TO`,
`link FROM TO`, `unlink PATH`, `truncate PATH`, `mkdir PATH`, `device PATH`, `mount PATH`,
`setuid UID`, `trace PID`, `memory`, which runs a program that is nowhere but in memory.
It is done by ptrace(2), for x86_64 alone, and the threads are left as they were found.
"""

import array
import ctypes
import errno
import fcntl
import os
import re
import select
import signal
import socket
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)


def must(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


# An older kernel

CREATE_RULESET = 444
ALLOW, USER_NOTIF, ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000


def install_filter(filter, flags):
    code = b"".join(struct.pack("HBBI", *step) for step in filter)
    program = struct.pack("HxxxxxxP", len(filter), ctypes.cast(ctypes.c_char_p(code), ctypes.c_void_p).value)
    return must(libc.syscall(317 if os.uname().machine == "x86_64" else 277, 1, flags, program))


def landlock(what, *command):
    load, is_equal, is_any, give = 0x20, 0x15, 0x45, 0x06
    if not what.isdigit():
        number = getattr(errno, what)
        steps = [(load, 0, 0, 0)]
        # 444 to 446, on every machine.
        steps += [(is_equal, 3 - n, 0, CREATE_RULESET + n) for n in range(1, 3)] + [(is_equal, 1, 0, CREATE_RULESET)]
        install_filter(steps + [(give, 0, 0, ALLOW), (give, 0, 0, ERRNO | number)], 0)
        os.execvp(command[0], command)
    here, there = socket.socketpair()
    if os.fork() == 0:
        # A grandchild, so that the command does not have it as a child.
        if os.fork() == 0:
            here.close()
            answer_version(there, int(what))
        os._exit(0)
    os.wait()
    there.close()
    # The third argument asks for the version; the grandchild answers such calls.
    steps = [(load, 0, 0, 0), (is_equal, 0, 2, CREATE_RULESET), (load, 0, 0, 32), (is_any, 1, 0, 3)]
    notices = install_filter(steps + [(give, 0, 0, ALLOW), (give, 0, 0, USER_NOTIF)], 8)
    here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [notices]))])
    os.close(notices)
    here.recv(1)
    here.close()
    os.execvp(command[0], command)


def answer_version(there, version):
    for descriptor in range(3):
        os.close(descriptor)
    _, beside, _, _ = there.recvmsg(1, 64)
    notices = struct.unpack("i", beside[0][2][:4])[0]
    there.close()
    poll = select.poll()
    poll.register(notices, select.POLLIN)
    while not poll.poll()[0][1] & select.POLLHUP:
        notice = bytearray(80)
        try:
            fcntl.ioctl(notices, 0xC0502100, notice)
            number, flags = struct.unpack_from("Q", notice)[0], struct.unpack_from("Q", notice, 48)[0]
            answer = (version, 0) if flags == 1 else (0, -errno.EINVAL)
            fcntl.ioctl(notices, 0xC0182101, bytearray(struct.pack("QqiI", number, *answer, 0)))
        except FileNotFoundError:
            pass  # The calling thread has ended.


# Calls from within

ATTACH, DETACH, STEP, GET, SET = 16, 17, 9, 12, 13
REGISTERS = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs gs ds es f g".split()
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
AT_FDCWD = -100
# Only exit(42).
CODE = bytes.fromhex("bf2a000000b83c0000000f05")
BASE = 0x400000
ELF = (
    struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, BASE + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    + struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, 120 + len(CODE), 120 + len(CODE), 4096)
    + CODE
)


class Thread:
    """A thread that makes calls for us."""

    def __init__(self, pid, tid):
        self.pid, self.tid = pid, tid
        self.memory = open(f"/proc/{pid}/mem", "r+b", buffering=0)
        for line in open(f"/proc/{pid}/maps"):
            if found := re.match(r"(\w+)-(\w+) r-x", line):
                start, end = (int(edge, 16) for edge in found.groups())
                self.memory.seek(start)
                at = self.memory.read(end - start).find(b"\x0f\x05")
                if at >= 0:
                    self.syscall = start + at
                    break

    def __enter__(self):
        must(libc.ptrace(ATTACH, self.tid, None, None))
        self.wait()
        self.found = self.registers()
        return self

    def __exit__(self, *_):
        self.registers(self.found)
        libc.ptrace(DETACH, self.tid, None, None)

    def wait(self):
        _, status = os.waitpid(self.tid, 0x40000000)
        assert os.WIFSTOPPED(status), f"thread {self.tid} is gone: {status}"

    def registers(self, new=None):
        room = (ctypes.c_ulonglong * len(REGISTERS))()
        if new is None:
            must(libc.ptrace(GET, self.tid, None, room))
            return dict(zip(REGISTERS, room))
        for at, name in enumerate(REGISTERS):
            room[at] = new[name]
        must(libc.ptrace(SET, self.tid, None, room))

    def call(self, number, *arguments):
        """The result; octets among the arguments are put below its stack."""
        free, values = self.found["rsp"] - 128, []
        for argument in arguments:
            if isinstance(argument, bytes):
                free = (free - len(argument) - 1) & ~15
                self.memory.seek(free)
                self.memory.write(argument + b"\0")
                argument = free
            values.append(argument % 2**64)
        values += [0] * (6 - len(values))
        names = zip(["rdi", "rsi", "rdx", "r10", "r8", "r9"], values)
        self.registers(self.found | dict(names) | {"rax": number, "orig_rax": 2**64 - 1, "rip": self.syscall})
        must(libc.ptrace(STEP, self.tid, None, None))
        self.wait()
        result = ctypes.c_long(self.registers()["rax"]).value
        return result

    def make(self, name, *words):
        """Makes a call by name; returns `ok` or the name of the error."""
        paths = [word.encode() for word in words]
        if name == "open":
            flags = {"r": os.O_RDONLY, "w": os.O_WRONLY, "c": os.O_WRONLY | os.O_CREAT | os.O_EXCL}[words[0]]
            # None of these blocks, nor changes what it opens.
            result = self.call(257, AT_FDCWD, paths[1], flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
            if result >= 0:
                self.call(3, result)
                if words[0] == "c":
                    self.call(87, paths[1])
        elif name == "memory":
            file = self.call(319, b"memory", 0)
            assert self.call(1, file, ELF, len(ELF)) == len(ELF)
            result = self.call(322, file, b"", 0, 0, 0x1000)
            self.call(3, file)
        else:
            calls = {
                "exec": lambda path: (59, path, 0, 0),
                "rename": lambda old, new: (82, old, new),
                "link": lambda old, new: (86, old, new),
                "unlink": lambda path: (87, path),
                "truncate": lambda path: (76, path, 0),
                "mkdir": lambda path: (83, path, 0o700),
                "device": lambda path: (133, path, 0o20600, os.makedev(1, 3)),
                "mount": lambda path: (165, b"none", path, b"tmpfs", 0, 0),
                "setuid": lambda uid: (105, int(uid)),
                "trace": lambda pid: (101, ATTACH, int(pid), 0, 0),
            }
            result = self.call(*calls[name](*paths))
        return "ok" if result >= 0 else errno.errorcode[-result]


def inside(pid):
    for line in sys.stdin:
        said = set()
        threads = sorted(int(tid) for tid in os.listdir(f"/proc/{pid}/task"))
        # A call that changes something is made only once.
        changes = line.split()[0] in ("rename", "link", "unlink", "mkdir", "truncate")
        for tid in threads[:1] if changes else threads:
            with Thread(pid, tid) as thread:
                said.add(thread.make(*line.split()))
        print(*sorted(said), flush=True)


{"landlock": landlock, "inside": inside}[sys.argv[1]](*sys.argv[2:])
