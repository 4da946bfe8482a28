"""A driver's runner as a process that answers requests, one line each."""

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parents[1] / "runners"
ANSWER_TIMEOUT_S = 120


class RunnerError(Exception):
    pass


def names() -> list:
    return sorted(path.parent.name for path in DIRECTORY.glob("*/run"))


def prepare(name: str, cache: Path):
    """Raises RunnerError with what the script said when the driver cannot run here."""
    result = subprocess.run(
        [DIRECTORY / name / "prepare"],
        env=_environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode != 0:
        raise RunnerError(f"{name}: prepare failed\n{result.stdout}")


class Runner:
    """Started at the first question, and again after it crashed or hung."""

    def __init__(self, name: str, cache: Path, log_path: Path):
        self.name, self.cache, self.log_path = name, cache, log_path
        self.popen = None

    def describe(self) -> dict:
        return self.ask({"describe": True})

    def ask(self, request: dict) -> dict:
        if self.popen is None:
            self._start()
        try:
            self.popen.stdin.write(json.dumps(request) + "\n")
            self.popen.stdin.flush()
            line = self.lines.get(timeout=ANSWER_TIMEOUT_S)
        except (OSError, queue.Empty) as failure:
            self.close()
            raise RunnerError(f"{self.name}: no answer ({type(failure).__name__})") from None
        if not line:
            status = self.popen.wait()
            self.close()
            raise RunnerError(f"{self.name}: ended with {status}; see {self.log_path}")
        try:
            return json.loads(line)
        except ValueError:
            self.close()
            raise RunnerError(f"{self.name}: answered no JSON: {line[:200]!r}") from None

    def _start(self):
        with open(self.log_path, "a") as log:
            self.popen = subprocess.Popen(
                [DIRECTORY / self.name / "run"],
                env=_environment(self.cache),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.lines = queue.Queue()
        threading.Thread(target=_read, args=(self.popen.stdout, self.lines), daemon=True).start()

    def close(self):
        if self.popen is None:
            return
        try:
            self.popen.stdin.close()
        except OSError:
            pass  # it ended with something unread
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.popen = None


def _read(stream, lines):
    for line in stream:
        lines.put(line)
    lines.put("")


def _environment(cache: Path) -> dict:
    return {**os.environ, "COMPAT_CACHE": str(cache), "COMPAT_PYTHON": sys.executable}
