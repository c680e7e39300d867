"""A filter for system calls, written by hand: what Landlock does not see, a job may not do. Imports nothing heavy.

Landlock guards opening, making, linking and removing files, TCP ports, signals and abstract sockets. It does not guard other
networks, modes and owners of files, files of sockets, System V IPC, keyrings, nor limits and priorities of other processes
of the same user. Source: `seccomp(2)`, `linux/filter.h`, `landlock(7)`; numbers from `asm/unistd.h`, checked by a test.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping

# name: (x86_64, aarch64); -1: the machine has none.
NUMBERS = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsmount": (432, 432), "open_tree": (428, 428), "mount_setattr": (442, 442), "unshare": (272, 97),
    "setns": (308, 268), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
    "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116), "open_by_handle_at": (304, 265), "shmget": (29, 194),
    "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186), "msgctl": (71, 187), "semget": (64, 190),
    "semctl": (66, 191), "mq_open": (240, 180), "mq_unlink": (241, 181), "ioprio_set": (251, 30), "iopl": (172, -1),
    "ioperm": (173, -1), "setpriority": (141, 140), "ptrace": (101, 117), "process_vm_writev": (311, 271),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "clone3": (435, 435),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "setxattrat": (463, 463), "removexattrat": (466, 466),
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1),
    "lchown": (94, -1), "fchown": (93, 55), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1),
    "futimesat": (261, -1), "utimensat": (280, 88),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "prlimit64": (302, 261), "socket": (41, 198), "socketpair": (53, 199), "clone": (56, 220),
    "connect": (42, 203),
}  # fmt: skip
ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*
_ASKED = frozenset(("connect", "chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat"))  # `broker` looks at the path
_PRETENDED = frozenset(
    ("chown", "lchown", "fchown", "fchownat")
)  # done in name only: copying programs can live with it
_MISSING = frozenset(("io_uring_setup", "io_uring_enter", "io_uring_register", "clone3"))  # callers know another way
_OF_OTHERS = ("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr", "prlimit64")  # 0 is oneself
_WITH_RULES = frozenset((*_OF_OTHERS, "socket", "socketpair", "clone", *_ASKED))
_X32 = 0x40000000
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97
_KILL, _ALLOW, _NOTIFY, _ERRNO = 0x80000000, 0x7FFF0000, 0x7FC00000, 0x00050000
_LD, _AND, _JEQ, _JGE, _JSET, _RET = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*
_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET, _KIND = 1, 1, 5, 0xF

Step = tuple[int, int, int, int]


def is_supported() -> bool:
    """Whether the numbers of this machine's system calls are known here."""
    return os.uname().machine in ARCHES


def program(machine: str) -> bytes:
    """The filter as an array of `struct sock_filter`; calls that hang on a path are passed to whoever listens."""
    return _assembled(machine, {name: list(_block(name)) for name in NUMBERS})


def refusal(machine: str, names: Iterable[str]) -> bytes:
    """A filter in the same form that refuses these calls, and those of another architecture, and nothing else."""
    return _assembled(machine, {name: [_ret(_ERRNO | _EPERM)] for name in names})


def _assembled(machine: str, blocks: Mapping[str, list[Step]]) -> bytes:
    column, arch = ARCHES[machine]
    steps: list[Step] = [_load(_ARCH), (_JEQ, 1, 0, arch), _ret(_KILL), _load(_NR)]
    if machine == "x86_64":
        steps += [(_JGE, 0, 1, _X32), _ret(_ERRNO | _ENOSYS)]
    for name, block in blocks.items():
        if NUMBERS[name][column] >= 0:
            steps += [(_JEQ, 0, len(block), NUMBERS[name][column]), *block]
    steps.append(_ret(_ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _block(name: str) -> Iterable[Step]:
    """What is done at one system call; a block never falls through."""
    if name not in _WITH_RULES:
        error = 0 if name in _PRETENDED else _ENOSYS if name in _MISSING else _EPERM
        yield _ret(_ERRNO | error)
    elif name in _ASKED:
        yield _ret(_NOTIFY)
    elif name == "clone":
        yield from (_load(_ARGS), (_JSET, 0, 1, _NEW_NAMESPACES), _ret(_ERRNO | _EPERM), _ret(_ALLOW))
    elif name in ("socket", "socketpair"):  # datagrams could go to any socket's file
        yield from (
            _load(_ARGS),
            (_JEQ, 0, 4, _AF_UNIX),
            _load(_ARGS + 8),
            (_AND, 0, 0, _KIND),
            (_JEQ, 2, 0, _SOCK_STREAM),
        )
        yield from ((_JEQ, 1, 0, _SOCK_SEQPACKET), _ret(_ERRNO | _EAFNOSUPPORT), _ret(_ALLOW))
    else:
        yield from (_load(_ARGS), (_JEQ, 1, 0, 0), _ret(_ERRNO | _EPERM), _ret(_ALLOW))


def _load(offset: int) -> Step:
    """Low half of a 64-bit argument: the kernel, too, takes these as 32 bits."""
    return (_LD, 0, 0, offset)


def _ret(value: int) -> Step:
    return (_RET, 0, 0, value)
