"""A TCP port for a server that is about to be started."""

from __future__ import annotations

import random
import socket

FIRST, LAST = 20_000, 31_999
"""Below what Linux hands out by itself (32768 and up), above Ray's workers (10002 to 19999)."""
_TRIES = 200


def free_port() -> int:
    """A port that nobody on this host listens on. Raises OSError where none is found.

    Asking the system for any port would give one that its next outgoing connection, or one of Ray's
    many servers, may get too before ours has bound it.
    """
    for _ in range(_TRIES):
        port = random.randint(FIRST, LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port found from {FIRST} to {LAST}")
