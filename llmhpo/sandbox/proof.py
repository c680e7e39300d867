"""Does a sandbox hold on this machine? Lay out what is worth reaching, let `escapes` try from inside, and look what it reached."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from llmhpo.errors import SandboxError
from llmhpo.sandbox import escapes
from llmhpo.sandbox.base import Policy, Sandbox, label
from llmhpo.sandbox.places import allowed, environment_paths, home_in
from llmhpo.scratch import Scratch

_LIMIT_S = 60.0
_PATIENCE_S = 0.2
_LONGEST_ROOT = 60  # bytes; the rest is for the folder's own name and the socket's


class Check(NamedTuple):
    """One thing that was tried inside `sandbox` (level and version). `note` says what was reached, or what failed."""

    sandbox: str
    name: str
    holds: bool
    note: str = ""


class _Bait(NamedTuple):
    """What lies outside, and inside, during one proof."""

    outside: Path
    inside: Path
    targets: dict[str, str]
    canary: subprocess.Popen[bytes]
    listeners: dict[str, socket.socket]


def prove(sandbox: Sandbox) -> list[Check]:
    """Start the sandbox and try to get out of it in every way that `escapes` knows. Raises: SandboxError where it does not start."""
    with _laid_out() as bait:
        targets = bait.targets
        scratch = Path(targets["scratch"])
        policy = Policy(
            cwd=Path(targets["cwd"]),
            read=(Path(targets["data"]).parent, Path(escapes.__file__)),
            write=(scratch,),
            hide=(Path(targets["hidden"]),),
            tmp_mb=1,
            scratch=scratch,
        )
        argv = [sys.executable, "-I", "-S", escapes.__file__]
        env = allowed(os.environ | {"OPENAI_API_KEY": targets["key"]}) | home_in(scratch)
        found = _attempts(sandbox.wrap(argv, policy), env, json.dumps(targets))
        if not (scratch / "works").exists():
            raise SandboxError(f"{label(sandbox)}: a job inside cannot write into its own folder")
        seen = _effects(bait)
    told = label(sandbox)
    checks = [(name, _SEEN.get(name), reached) for name, reached in found.items()]
    return [
        Check(
            told,
            name.replace("_", " "),
            not (seen.get(trace, "") if trace else reached),
            seen.get(trace or "", reached or ""),
        )
        for name, trace, reached in checks
    ]


# Attempts that the kernel may swallow without an error: what counts is whether anything came through.
_SEEN = {
    "write_outside": "new", "write_through_a_link": "new", "send_by_udp": "udp", "send_to_a_socket_file": "datagram",
    "connect_by_tcp": "tcp", "connect_to_an_abstract_socket": "abstract", "connect_to_a_socket_file": "socket",
    "kill_another_process": "canary", "change_the_data": "data", "change_the_mode_of_the_data": "mode",
}  # fmt: skip


def _attempts(argv: list[str], env: dict[str, str], targets: str) -> dict[str, str | None]:
    try:
        done = subprocess.run(
            argv, env=env, input=targets, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"{argv[0]} cannot be run: {error}") from None
    if done.returncode != 0 or not done.stdout.startswith("{"):
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise SandboxError(lines[-1] if lines else f"{argv[0]} ended with code {done.returncode} and no message")
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


def _effects(bait: _Bait) -> dict[str, str]:
    """What came through, by the bait that shows it."""
    data = Path(bait.targets["data"])
    seen = {
        "new": "a new file outside" if Path(bait.targets["new"]).exists() else "",
        "data": "" if data.exists() and data.read_text() == _DATA else "changed data",
        "mode": "" if data.exists() and data.stat().st_mode & 0o777 == _MODE else "another mode",
        "canary": "" if bait.canary.poll() is None else "a process that was killed",
    }
    for name, listener in bait.listeners.items():
        listener.settimeout(_PATIENCE_S if name in ("udp", "datagram") else 0.0)
        try:
            listener.recv(16) if listener.type == socket.SOCK_DGRAM else listener.accept()[0].close()
            seen[name] = "heard outside"
        except OSError:
            seen[name] = ""
    return seen


_DATA, _MODE = "1 2 3\n", 0o644


@contextmanager
def _laid_out() -> Iterator[_Bait]:
    with ExitStack() as stack:
        outside, inside = (stack.enter_context(Scratch(_root())) for _ in range(2))
        key = secrets.token_hex(16)
        (outside / "secret").write_text(key)
        for name in ("code", "data", "scratch"):
            (inside / name).mkdir()
        (inside / "code" / "labels").write_text("hidden")
        (inside / "data" / "data").write_text(_DATA)
        (inside / "data" / "data").chmod(_MODE)
        listeners = _listeners(stack, outside, key)
        canary = stack.enter_context(_canary(key))
        shown = [*environment_paths(sys.executable), *map(Path, (escapes.__file__,)), inside]
        targets = {
            "key": key, "secret": str(outside / "secret"), "new": str(outside / "new"), "hidden": str(inside / "code" / "labels"),
            "home": str(Path.home()), "shown": "\n".join({p.parts[len(Path.home().parts)] for p in _below_home(shown)}),
            "data": str(inside / "data" / "data"), "scratch": str(inside / "scratch"), "cwd": str(inside / "code"),
            "environment": "\n".join(str(p) for p in (sys.prefix, sys.base_prefix)), "pid": str(canary.pid),
            "tcp": str(listeners["tcp"].getsockname()[1]), "udp": str(listeners["udp"].getsockname()[1]),
            "abstract": f"llmhpo-{key}", "socket": str(outside / "socket"), "datagram": str(outside / "datagram"),
        }  # fmt: skip
        yield _Bait(outside, inside, targets, canary, listeners)


def _root() -> Path:
    """Where temporary files lie, unless a socket there would have too long a path: 107 bytes are the most."""
    usual = Path(tempfile.gettempdir()).resolve()
    return usual if len(os.fsencode(usual)) <= _LONGEST_ROOT else Path("/tmp")


def _below_home(paths: list[Path]) -> list[Path]:
    home = Path.home()
    return [p for path in paths for p in (path, path.resolve()) if p != home and p.is_relative_to(home)]


def _listeners(stack: ExitStack, outside: Path, key: str) -> dict[str, socket.socket]:
    unix, stream, datagram = socket.AF_UNIX, socket.SOCK_STREAM, socket.SOCK_DGRAM
    addresses: dict[str, tuple[int, int, object]] = {
        "tcp": (socket.AF_INET, stream, ("127.0.0.1", 0)),
        "udp": (socket.AF_INET, datagram, ("127.0.0.1", 0)),
        "abstract": (unix, stream, f"\0llmhpo-{key}"),
        "socket": (unix, stream, str(outside / "socket")),
        "datagram": (unix, datagram, str(outside / "datagram")),
    }
    made = {}
    for name, (family, kind, address) in addresses.items():
        made[name] = stack.enter_context(socket.socket(family, kind))
        made[name].bind(address)  # type: ignore[arg-type]
        if kind == stream:
            made[name].listen()
    return made


@contextmanager
def _canary(key: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the key, and that nobody inside may touch."""
    words = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(words, env={"OPENAI_API_KEY": key}, stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
