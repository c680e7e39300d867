"""The process that puts Landlock, seccomp and no capabilities on, and the monitor beside it. Imports nothing heavy.

    RULES PROGRAM ARGUMENT...

RULES has a line for each path, behind what is to be done with it: "read", "list", "write", "device" or "cwd". The monitor, which is the first process, waits for the
command, ends with its exit code or 128 + signal, and makes those calls for it that a filter cannot judge (`broker`).
"""

from __future__ import annotations

import ctypes
import os
import select
import stat
import struct

from llmhpo.sandbox import seccomp
from llmhpo.sandbox.broker import PIDFD_GETFD, Broker, check

_libc = ctypes.CDLL(None, use_errno=True)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _SECCOMP = 444, 445, 446, {"x86_64": 317, "aarch64": 277}
_READ, _LIST, _WRITE_FILE = 0b1101, 0b1000, 0b10  # execute, read and list; list; write
_ALL = 0xFFFF  # ABI 5
_MAKE_CHAR, _MAKE_BLOCK, _IOCTL_DEV = 1 << 6, 1 << 11, 1 << 15
_WRITE = _ALL & ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV)
_FILE_ONLY = 0b111 | 1 << 14 | 1 << 15  # execute, write, read, truncate, ioctl: what a rule on a file may hold
_NET, _SCOPES = 0b11, 0b11  # bind and connect TCP; abstract sockets and signals
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_SET_SUBREAPER, _PR_CAP_AMBIENT = 1, 38, 24, 36, 47
_CAPSET, _CAP_V3, _MAX_CAP = {"x86_64": 126, "aarch64": 91}, 0x20080522, 64
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
# Python's own modules for signals, sockets and JSON would take most of the time that a start takes.
_SIGHUP, _SIGINT, _SIGKILL, _SIGPIPE, _SIGTERM, _SIGXFSZ, _SIG_IGN = 1, 2, 9, 13, 15, 25, 1


def main(arguments: list[str]) -> None:
    """See at the top. Does not return."""
    rules: dict[str, list[str]] = {kind: [] for kind in ("read", "list", "write", "device", "cwd")}
    for line in arguments[0].split("\n"):
        kind, _, path = line.partition(" ")
        rules[kind].append(path)
    news, tell = os.pipe()
    go_on, let_go = os.pipe()
    monitor = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(let_go)
        _become(rules, arguments[1:], monitor, tell, go_on)
    os.close(tell)
    os.close(go_on)
    for number in (_SIGTERM, _SIGINT, _SIGHUP):
        _libc.signal(number, ctypes.c_void_p(_SIG_IGN))
    # What the command leaves stays below us, where Yama lets us look into it.
    _libc.prctl(_PR_SET_SUBREAPER, 1, 0, 0, 0)
    os._exit(_watch(child, news, let_go, rules["write"]))


# --- inside -----------------------------------------------------------------------------------------------------------


def _become(rules: dict[str, list[str]], command: list[str], parent: int, tell: int, go_on: int) -> None:
    try:
        check(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0))
        if os.getppid() != parent:
            return
        os.chdir(rules["cwd"][0])
        check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _restrict(rules)
        _drop_capabilities()
        for number in (_SIGPIPE, _SIGXFSZ):  # Python ignores these, which exec would pass on
            _libc.signal(number, ctypes.c_void_p(0))
        listener = _filter()
        os.write(tell, str(listener).encode())
        os.read(go_on, 1)  # until the monitor has a copy of it
        os.close(listener)
        os.execv(command[0], command)
    except OSError as problem:
        os.write(2, f"landlock: {problem}\n".encode())
    finally:
        os._exit(127)


def _restrict(rules: dict[str, list[str]]) -> None:
    attributes = struct.pack("QQQ", _ALL, _NET, _SCOPES)
    ruleset = check(_libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    allowed = [(path, _READ) for path in rules["read"]]
    allowed += [(path, _LIST) for path in rules["list"]]
    allowed += [(path, _WRITE) for path in [*rules["write"], "/dev/shm"]]
    allowed += [(path, _READ | _WRITE_FILE | _IOCTL_DEV) for path in rules["device"]]
    for path, rights in allowed:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # not everything is there everywhere; what is not granted is refused
            continue
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _FILE_ONLY
        check(_libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, fd), 0))
        os.close(fd)
    check(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _drop_capabilities() -> None:
    """All, also for programs to come. An ordinary user has none, and may not lower the bounds either."""
    for capability in range(_MAX_CAP):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(_PR_CAP_AMBIENT, 4, 0, 0, 0)
    check(_libc.syscall(_CAPSET[os.uname().machine], struct.pack("Ii", _CAP_V3, 0), bytes(24)))


def _filter() -> int:
    """Put the filter on. Returns the descriptor that tells of `connect`."""
    machine = os.uname().machine
    code = ctypes.create_string_buffer(seccomp.program(machine))
    head = struct.pack("HxxxxxxP", (len(code) - 1) // 8, ctypes.addressof(code))
    return check(_libc.syscall(_SECCOMP[machine], _SET_MODE_FILTER, _NEW_LISTENER, head))


# --- beside it --------------------------------------------------------------------------------------------------------


def _watch(child: int, news: int, let_go: int, folders: list[str]) -> int:
    """Make calls until the command has ended. Returns the exit code that tells of it."""
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    listener = -1
    if number := os.read(news, 16):  # else the command could not be fenced, and has ended
        listener = check(_libc.syscall(PIDFD_GETFD, ended, int(number), 0))
        poll.register(listener, select.POLLIN)
        os.write(let_go, b"x")
    os.close(news)
    os.close(let_go)
    broker = Broker(listener, folders)
    while True:
        for fd, event in poll.poll():
            if fd == ended:
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                return code if code >= 0 else 128 - code
            if event & select.POLLIN:
                broker.answer()
            else:
                poll.unregister(listener)
