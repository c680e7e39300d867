"""Calls that a filter cannot judge, because they hang on a path: the monitor of a Landlock job makes them in its stead.

The kernel stops the caller and tells the monitor (`seccomp_unotify(2)`), which opens the path, looks at where it really lies
and acts on what it has opened: nobody can swap it meanwhile. Connections to sockets' files, modes and times are for the
folders that the job may write into alone. Imports nothing heavy.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct

from llmhpo.sandbox.seccomp import ARCHES, NUMBERS

_libc = ctypes.CDLL(None, use_errno=True)
_RECV, _SEND, _ID_VALID = 0xC0502100, 0xC0182101, 0x40082102
PIDFD_GETFD = 438  # the same number on every machine
_PIDFD_THREAD, _AF_UNIX = os.O_EXCL, 1
_MAX_ADDRESS, _MAX_PATH, _TIMES_BYTES = 110, 4096, 32
_EPERM, _EACCES, _EFAULT = 1, 13, 14
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _AT_EMPTY_PATH = 0xFFFFFF9C, 0x100, 0x1000
_MODE = 0o1777  # no set-user-ID bit: the file would lend our rights to others on this machine


class Broker:
    """Answers to the calls that arrive at `listener`, for a job that may write into `folders`."""

    def __init__(self, listener: int, folders: list[str]) -> None:
        self._listener, self._folders = listener, folders
        column = ARCHES[os.uname().machine][0]
        self._names = {numbers[column]: name for name, numbers in NUMBERS.items() if numbers[column] >= 0}

    def answer(self) -> None:
        """Take one call, make it or refuse it."""
        notice = bytearray(80)
        try:
            fcntl.ioctl(self._listener, _RECV, notice)
        except OSError:  # the caller has been killed meanwhile
            return
        number, pid, _, call = struct.unpack_from("QIIi", notice)
        arguments = struct.unpack_from("6Q", notice, 32)
        opened: list[int] = []
        try:
            error = self._make(_Caller(self._listener, number, pid, opened), self._names[call], arguments)
        except OSError as problem:
            error = problem.errno or _EACCES
        finally:
            for fd in opened:
                os.close(fd)
        try:
            fcntl.ioctl(self._listener, _SEND, struct.pack("QqiI", number, 0, -error, 0))
        except OSError:
            return

    def _make(self, caller: _Caller, name: str, arguments: tuple[int, ...]) -> int:
        """Returns 0 or an error number. Raises: OSError."""
        first, second, third, fourth = (argument & 0xFFFFFFFF for argument in arguments[:4])
        match name:
            case "connect":
                return self._connect(caller, first, arguments[1], third)
            case "chmod":
                return self._chmod(caller.open(_AT_FDCWD, arguments[0]), second)
            case "fchmod":
                return self._chmod(caller.duplicate(first), second)
            case "fchmodat":
                return self._chmod(caller.open(first, arguments[1]), third)
            case "fchmodat2":
                return self._chmod(caller.open(first, arguments[1], fourth), third)
        assert name == "utimensat", name
        target = caller.open(first, arguments[1], fourth) if arguments[1] else caller.duplicate(first)
        return self._set_times(target, caller.read(arguments[2], _TIMES_BYTES) if arguments[2] else None)

    def _is_ours(self, fd: int) -> bool:
        place = os.readlink(_name(fd))  # noqa: PTH115 - of what is open: nobody swaps it any more
        return any(place == folder or place.startswith(f"{folder}/") for folder in self._folders)

    def _connect(self, caller: _Caller, fd: int, address: int, length: int) -> int:
        if not 2 < length <= _MAX_ADDRESS:
            return _EACCES
        raw = caller.read(address, length)
        if len(raw) < length or struct.unpack_from("H", raw)[0] != _AF_UNIX or not raw[2]:
            return _EACCES  # abstract sockets too: the rule that keeps a job to its own does not bind the monitor
        target = caller.open_name(_AT_FDCWD, raw[2:].split(b"\0")[0], 0)
        if not self._is_ours(target):
            return _EACCES
        found = struct.pack("H108s", _AF_UNIX, _name(target).encode())
        check(_libc.connect(caller.duplicate(fd), found, len(found)))
        return 0

    def _chmod(self, target: int, mode: int) -> int:
        if not self._is_ours(target):
            return _EPERM
        if not stat.S_ISLNK(os.fstat(target).st_mode):
            os.chmod(_name(target), mode & _MODE)  # noqa: PTH101
        return 0

    def _set_times(self, target: int, times: bytes | None) -> int:
        if not self._is_ours(target):
            return _EPERM
        if times is not None and len(times) < _TIMES_BYTES:
            return _EFAULT
        if not stat.S_ISLNK(os.fstat(target).st_mode):
            check(_libc.utimensat(-1, _name(target).encode(), times, 0))
        return 0


class _Caller:
    """The thread that made a call: its memory, its descriptors and its paths. What is opened is noted in `opened`."""

    def __init__(self, listener: int, number: int, pid: int, opened: list[int]) -> None:
        self._pid, self._opened = pid, opened
        self._process = self._keep(os.pidfd_open(pid, _PIDFD_THREAD))
        self._memory = self._keep(os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))
        fcntl.ioctl(listener, _ID_VALID, struct.pack("Q", number))  # else the number may be another process's by now

    def _keep(self, fd: int) -> int:
        self._opened.append(fd)
        return fd

    def read(self, address: int, length: int) -> bytes:
        """So many bytes of its memory, fewer where that ends. Raises: OSError."""
        return os.pread(self._memory, length, address)

    def duplicate(self, fd: int) -> int:
        """One of its descriptors as ours. Raises: OSError."""
        return self._keep(check(_libc.syscall(PIDFD_GETFD, self._process, fd, 0)))

    def open(self, folder: int, address: int, flags: int = 0) -> int:
        """What a path in its memory names, opened as a place only. Raises: OSError."""
        return self.open_name(folder, self.read(address, _MAX_PATH).split(b"\0")[0], flags)

    def open_name(self, folder: int, name: bytes, flags: int) -> int:
        """The same for a path that has been read. Raises: OSError."""
        if not name and flags & _AT_EMPTY_PATH:
            return self.duplicate(folder)
        base = f"/proc/{self._pid}/cwd" if folder == _AT_FDCWD else _name(self.duplicate(folder))
        how = os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW if flags & _AT_SYMLINK_NOFOLLOW else 0)
        return self._keep(os.open(os.path.join(base.encode(), name), how))  # noqa: PTH118


def _name(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def check(result: int) -> int:
    """What a C function returned, where it succeeded. Raises: OSError."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
