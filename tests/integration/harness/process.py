"""A child process of a test: started, watched and stopped, with its output in a file of its own.

Environment: REKEY_BUILD (build directory with rekeyd, default build/release), REKEY_MONGOD
(mongod binary), REKEY_WRAP (words put before rekeyd, such as "setarch -R").
"""

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from . import ports

ROOT = Path(__file__).resolve().parents[3]
LOG_TAIL_BYTES = 8192

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class ProcessError(Exception):
    """A process did not start, stop or behave; the message ends with the tail of its log."""


def rekey_binary(name: str) -> str:
    build = Path(os.environ.get("REKEY_BUILD", "build/release"))
    path = ROOT / build / name
    if not path.exists():
        raise ProcessError(f"{path} is not there: build it first (./dev build)")
    return str(path)


def mongod_binary() -> str:
    named = os.environ.get("REKEY_MONGOD")
    if named:
        return named
    bundled = importlib.util.find_spec("fiftyone")
    for place in bundled.submodule_search_locations if bundled else ():
        path = Path(place) / "db" / "bin" / "mongod"
        if path.exists():
            return str(path)
    found = shutil.which("mongod")
    if found:
        return found
    raise ProcessError("no mongod: set REKEY_MONGOD, or run through ./dev")


class Process:
    """One server. Subclasses give argv() and, where it listens, port."""

    everyone = []  # started and not yet closed, so that a failing test can print their logs

    def __init__(self, name: str, directory=None, port: int = 0):
        self.name = name
        self.port = port
        self._owns_directory = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="rekey-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_path = self.directory / f"{name}.log"
        self.popen = None
        self._killed = False

    # What subclasses say about themselves.

    def argv(self) -> list:
        raise NotImplementedError

    def environment(self) -> dict:
        return dict(os.environ)

    def listen_ports(self) -> list:
        return [self.port] if self.port else []

    # Life.

    def start(self, timeout_s: float = 30):
        self.spawn()
        self.wait_ready(timeout_s)
        return self

    def spawn(self):
        """Starts without waiting; several can come up side by side."""
        assert not self.alive, f"{self.name} is already running"
        self._killed = False
        # The kernel ties the death signal to the starting thread, not to the process.
        tied = threading.current_thread() is threading.main_thread()
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                self.argv(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                cwd=self.directory,
                preexec_fn=_die_with_parent if tied else None,
            )
        if self not in Process.everyone:
            Process.everyone.append(self)
        return self

    def wait_ready(self, timeout_s: float = 30):
        waiting = self.listen_ports()
        deadline = time.monotonic() + timeout_s
        while waiting:
            if not self.alive:
                raise self.error(f"exited with {self.popen.returncode} while starting")
            if time.monotonic() > deadline:
                raise self.error(f"does not accept on {waiting} after {timeout_s} s")
            waiting = [port for port in waiting if not ports.accepts(port)]
            time.sleep(0.02)

    @property
    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def returncode(self):
        return None if self.popen is None else self.popen.poll()

    def wait(self, timeout_s: float = 30) -> int:
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self.error(f"still runs after {timeout_s} s") from None

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM, then the exit status. Already ended is fine."""
        if self.alive:
            self.popen.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self):
        """SIGKILL; also ends a suspended process."""
        if self.alive:
            self._killed = True
            self.popen.kill()
        if self.popen is not None:
            self.popen.wait()

    def suspend(self):
        """None of its threads runs any more then."""
        self.popen.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while set(self._thread_states()) - set("TtZX") and time.monotonic() < deadline:
            time.sleep(0.001)

    def _thread_states(self):
        for thread in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with suppress(OSError):  # it has ended
                yield thread.read_text().rpartition(")")[2].split()[0]

    def resume(self):
        self.popen.send_signal(signal.SIGCONT)

    def close(self):
        """Ends the process for good and gives its files back."""
        self.kill()
        if self in Process.everyone:
            Process.everyone.remove(self)
        self.remove_data()
        if self._owns_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def remove_data(self):
        """Subclasses delete what is large; logs stay for a failing test's directory."""

    # What it said.

    def logs(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self) -> str:
        return self.logs()[-LOG_TAIL_BYTES:]

    def error(self, message: str) -> ProcessError:
        return ProcessError(f"{self.name}: {message}\n{self.log_tail()}")

    def __enter__(self):
        try:
            return self if self.alive else self.start()
        except BaseException:
            self.close()  # nobody will leave what was not entered
            raise

    def __exit__(self, *_):
        self.close()


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
