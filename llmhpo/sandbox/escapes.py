"""Run inside a sandbox: try to get out, in every way that a doctor can try without doing harm. Stands alone.

    python escapes.py < TARGETS

TARGETS is JSON (not an argument, as it holds the key that other processes must not show): what `proof` has laid out outside. Prints JSON: for each attempt null where it was refused, else what was
reached. Every attempt really does what it is called; nothing here asks how the sandbox is made.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

Targets = dict[str, str]
_CLONE_NEWUSER, _MS_REMOUNT, _MS_BIND, _PTRACE_ATTACH, _PR_GET_NO_NEW_PRIVS = 0x10000000, 32, 4096, 16, 39
_SEEN_OUTSIDE = "maybe; `proof` looks"
_libc = ctypes.CDLL(None, use_errno=True)


def read_a_file_outside(t: Targets) -> str:
    """What other users of the machine call ~/.ssh."""
    return Path(t["secret"]).read_text()


def list_the_home(t: Targets) -> str:
    """Names in the home folder, but for those that lead to the Python environment."""
    return " ".join(sorted(set(os.listdir(t["home"])) - set(t["shown"].split("\n"))))  # noqa: PTH208


def read_what_is_hidden(t: Targets) -> str:
    """A file that the policy hides in a folder that the job sees."""
    return Path(t["hidden"]).read_text()


def follow_a_link(t: Targets) -> str:
    """A symbolic link in the scratch folder to a file outside."""
    link = Path(t["scratch"], "link")
    link.symlink_to(t["secret"])
    return link.read_text()


def write_through_a_link(t: Targets) -> str:
    """A symbolic link in the scratch folder to a new file outside."""
    link = Path(t["scratch"], "new-link")
    link.symlink_to(t["new"])
    link.write_text("escaped")
    return _SEEN_OUTSIDE


def write_outside(t: Targets) -> str:
    """A new file in a folder of another program."""
    Path(t["new"]).write_text("escaped")
    return _SEEN_OUTSIDE


def change_the_data(t: Targets) -> str:
    """A file that the job may read."""
    return _first([lambda: Path(t["data"]).write_text("x"), partial(os.truncate, t["data"], 0), Path(t["data"]).unlink])


def change_the_mode_of_the_data(t: Targets) -> str:
    """By path and by descriptor; where this is refused without an error, `proof` sees nothing changed."""
    with Path(t["data"]).open() as data:
        return _first([partial(os.chmod, t["data"], 0o777), partial(os.fchmod, data.fileno(), 0o777)])


def link_the_data(t: Targets) -> str:
    """A hard link in the scratch folder, to write through."""
    os.link(t["data"], t["scratch"] + "/hard")
    Path(t["scratch"], "hard").write_text("x")
    return "a hard link that can be written"


def change_the_code(t: Targets) -> str:
    """A new module beside the script, which the next job would import."""
    Path(t["cwd"], "numpy.py").write_text("x")
    return "a new module in the folder of the code"


def change_the_environment(t: Targets) -> str:
    """A file of start-up code for every later Python."""
    return _first([partial(_write, Path(folder, "escape.pth")) for folder in t["environment"].split("\n")])


def change_the_system(_: Targets) -> str:
    """New files in folders of the system, and in no folder at all."""
    return _first(
        [partial(_write, Path(folder, "llmhpo-escape")) for folder in ("/usr/bin", "/usr/lib", "/etc", "/", "/dev")]
    )


def read_a_key_in_the_environment(t: Targets) -> str:
    """A variable of the process that started the job."""
    return next((name for name, value in os.environ.items() if t["key"] in value), "")


def read_a_key_of_another_process(t: Targets) -> str:
    """The environment and the command line of every process to be seen."""
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        for name in ("environ", "cmdline"):
            try:
                if t["key"].encode() in Path("/proc", pid, name).read_bytes() and int(pid) != os.getpid():
                    return f"/proc/{pid}/{name}"
            except OSError:
                continue
    return ""


def kill_another_process(t: Targets) -> str:
    """A process of the same user."""
    os.kill(int(t["pid"]), signal.SIGTERM)
    return f"process {t['pid']}"


def attach_to_another_process(t: Targets) -> str:
    """As a debugger does."""
    return _call("ptrace", _PTRACE_ATTACH, int(t["pid"]), 0, 0)


def change_the_limits_of_another_process(t: Targets) -> str:
    """How many files it may have open."""
    resource.prlimit(int(t["pid"]), resource.RLIMIT_NOFILE, (64, 64))
    return f"process {t['pid']}"


def use_an_inherited_descriptor(_: Targets) -> str:
    """Any but the three that every process has."""
    found = []
    for fd in range(3, 1024):
        try:
            os.fstat(fd)
            found.append(str(fd))
        except OSError:
            continue
    return " ".join(found)


def connect_by_tcp(t: Targets) -> str:
    """To a port of this computer."""
    with socket.create_connection(("127.0.0.1", int(t["tcp"])), 2):
        return f"port {t['tcp']}"


def send_by_udp(t: Targets) -> str:
    """To a port of this computer."""
    return _send_udp("127.0.0.1", int(t["udp"]))


def send_to_the_internet(_: Targets) -> str:
    """A question to a name server; the address is one that nobody has."""
    return _send_udp("192.0.2.1", 53)


def connect_to_an_abstract_socket(t: Targets) -> str:
    """One that has no file, such as those of a desktop."""
    return _connect("\0" + t["abstract"])


def connect_to_a_socket_file(t: Targets) -> str:
    """One outside, such as that of Docker or of an agent with keys."""
    return _connect(t["socket"])


def send_to_a_socket_file(t: Targets) -> str:
    """Without a connection, as to the system's log: from a socket, and from one of a pair."""

    def send(sender: socket.socket) -> str:
        with sender:
            sender.sendmsg([b"escaped"], [], 0, t["datagram"])
        return _SEEN_OUTSIDE

    kind = socket.SOCK_DGRAM
    return _first(
        [lambda: send(socket.socket(socket.AF_UNIX, kind)), lambda: send(socket.socketpair(socket.AF_UNIX, kind)[0])]
    )


def make_a_user_namespace(_: Targets) -> str:
    """The first step of many an attack on the kernel."""
    return _call("unshare", _CLONE_NEWUSER)


def mount_something(t: Targets) -> str:
    """A file system of one's own, and the data once more, to be written."""
    data = os.path.dirname(t["data"]).encode()  # noqa: PTH120
    return _first(
        [
            lambda: _call("mount", b"none", t["scratch"].encode(), b"tmpfs", 0, None),
            lambda: _call("mount", None, data, None, _MS_REMOUNT | _MS_BIND, None),
        ]
    )


def set_the_clock(_: Targets) -> str:
    """To what it is."""
    time.clock_settime(time.CLOCK_REALTIME, time.time())
    return "the clock"


def change_the_kernel(_: Targets) -> str:
    """Opens settings for writing; does not write."""
    for name in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/mm/transparent_hugepage/enabled"):
        if Path(name).exists():
            os.close(os.open(name, os.O_WRONLY))
            return name
    return ""


def open_a_device(_: Targets) -> str:
    """The kernel's log, memory and the first disks."""
    return _first([partial(_open, f"/dev/{name}") for name in ("kmsg", "mem", "sda", "vda", "nvme0n1")])


def gain_privileges(_: Targets) -> str:
    """Whether programs with the set-user-ID bit still give any."""
    return "" if _libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 else "set-user-ID programs"


ATTEMPTS: tuple[Callable[[Targets], str], ...] = (
    read_a_file_outside, list_the_home, read_what_is_hidden, follow_a_link, write_through_a_link, write_outside, change_the_data,
    change_the_mode_of_the_data, link_the_data, change_the_code, change_the_environment, change_the_system,
    read_a_key_in_the_environment, read_a_key_of_another_process, kill_another_process, attach_to_another_process,
    change_the_limits_of_another_process, use_an_inherited_descriptor, connect_by_tcp, send_by_udp, send_to_the_internet,
    connect_to_an_abstract_socket, connect_to_a_socket_file, send_to_a_socket_file, mount_something,
    set_the_clock, change_the_kernel, open_a_device, gain_privileges,
    make_a_user_namespace,  # last: where it succeeds, it takes from this process what the others need
)  # fmt: skip


def _first(attempts: list[Callable[[], object]]) -> str:
    """What the first attempt that is not refused gives. Raises: OSError where all are."""
    refused: OSError | None = None
    for attempt in attempts:
        try:
            return str(attempt())
        except OSError as error:
            refused = error
    assert refused is not None
    raise refused


def _write(path: Path) -> str:
    path.write_text("")
    path.unlink()
    return str(path)


def _open(name: str) -> str:
    os.close(os.open(name, os.O_RDONLY))
    return name


def _send_udp(host: str, port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"escaped", (host, port))
    return f"{host}, port {port}"


def _connect(address: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(address)
    return address


def _call(name: str, *arguments: object) -> str:
    if getattr(_libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return name


def main(targets: Targets) -> dict[str, str | None]:
    """Make every attempt; each gives what it reached, or None."""
    works = Path(targets["data"]).read_text()
    Path(targets["scratch"], "works").write_text(works)  # a fence that lets nothing be done is of no use
    found: dict[str, str | None] = {}
    for attempt in ATTEMPTS:
        try:
            found[attempt.__name__] = attempt(targets) or None
        except OSError:
            found[attempt.__name__] = None
    return found


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
