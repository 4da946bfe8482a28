"""Free TCP ports on loopback that no two processes of a parallel test run pick at once.

Ports come from below the ephemeral range, where no outgoing connection can take them between
the choice and the bind. A port stays reserved (flock on a file named after it) for as long as
this process lives, so a server can be restarted on the address that its clients know.
"""

import fcntl
import os
import random
import socket
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

HOST = "127.0.0.1"
FIRST, LAST = 20000, 31999

_locks = {}


def free_port() -> int:
    directory = Path(tempfile.gettempdir()) / f"rekey-ports-{os.getuid()}"
    directory.mkdir(exist_ok=True)
    for port in random.sample(range(FIRST, LAST + 1), 500):
        lock = os.open(directory / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if port not in _locks and _bindable(port):
                _locks[port] = lock
                return port
        except BlockingIOError:
            pass
        os.close(lock)
    raise RuntimeError("no free port between %d and %d" % (FIRST, LAST))


def accepts(port: int, host: str = HOST) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def black_hole(address: str = f"{HOST}:0"):
    """A listener whose backlog is full: connecting to the address that this is takes for ever."""
    host, port = address.rsplit(":", 1)
    with socket.create_server((host, int(port)), backlog=0) as server:
        waiting = [socket.socket() for _ in range(4)]
        for filler in waiting:
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(server.getsockname())
        try:
            yield "%s:%d" % server.getsockname()
        finally:
            for filler in waiting:
                filler.close()


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
