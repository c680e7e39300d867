"""Ports for servers that want to be told theirs."""

import random
import socket


def free_port() -> int:
    """A port of this machine that nobody listens on.

    It lies below those that the kernel hands out by itself: to whom meanwhile asks for any, it gives no such one.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
