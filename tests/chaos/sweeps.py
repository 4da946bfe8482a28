"""The operator: rotates and sweeps, over and over, and the last time for good."""

import subprocess
import threading
import time

from pymongo.errors import PyMongoError

from harness import CtlError

from fleet import NAMESPACE

HELD_UP_S = 8  # what the writers sent and was held up on its way is there by then, or lost


class Sweeps(threading.Thread):
    def __init__(self, fleet):
        super().__init__(daemon=True, name="operator")
        self.fleet = fleet
        self.stopping = threading.Event()
        self.last = threading.Event()
        self.last_began = None
        self.failed = self.delivered = 0
        self.ended = set()  # ids of complete jobs
        self.client = fleet.direct(serverSelectionTimeoutMS=5000, timeoutMS=15000)
        self.jobs = self.client[fleet.state_db()].jobs

    def run(self):
        while not self.last.is_set():
            self.fleet.try_ctl("keys", "rotate")
            self.fleet.try_ctl("start", NAMESPACE)
            self.see_to_the_end(self.stopping.is_set)
            self.delivered = max(self.delivered, self.fleet.delivered())
            self.last.wait(0.5)
        if not self.stopping.wait(HELD_UP_S):
            self.start_last(self.stopping.is_set)

    def begin_last(self):
        """When what is under way has ended."""
        self.last.set()

    def last_s(self) -> float:
        """How long ago the last sweep began; 0: not yet."""
        return round(time.monotonic() - self.last_began, 1) if self.last_began else 0.0

    def start_last(self, given_up):
        """A rotation and a sweep, each tried until it succeeds."""
        with self.fleet.rotating:
            while self.fleet.last_key is None and not given_up():
                try:
                    rotated = self.fleet.control.ctl("keys", "rotate", timeout_s=60)
                    self.fleet.last_key = rotated["keyId"]
                except (CtlError, subprocess.TimeoutExpired):
                    time.sleep(0.5)
        while self.last_began is None and not given_up():
            if self.fleet.try_ctl("start", NAMESPACE) == 0:
                self.last_began = time.monotonic()
            else:
                self.see_to_the_end(given_up)  # a start that was told as failed may have succeeded
                time.sleep(0.5)

    def see_to_the_end(self, given_up):
        """Until no job is active any more; one that has failed is resumed."""
        while not given_up():
            try:
                newest = self.jobs.find_one(sort=[("createdAt", -1)])
            except PyMongoError:
                newest = {"state": "unknown"}
            if newest is None:
                return
            if newest["state"] == "failed":
                self.failed += 1
                self.fleet.try_ctl("resume", str(newest["_id"]))
            elif newest["state"] in ("complete", "cancelled"):
                if newest["state"] == "complete":
                    self.ended.add(newest["_id"])
                return
            time.sleep(0.2)

    def finish(self, timeout_s=240) -> int:
        """With everything healed: what is under way to its end; the last sweep, where it has not begun.
        Returns its key."""
        self.last.set()
        self.stopping.set()
        self.join(120)
        assert not self.is_alive(), "the operator hangs"
        deadline = time.monotonic() + timeout_s

        def late() -> bool:
            assert time.monotonic() < deadline, f"not done after {timeout_s} s: {self.last_jobs()}"
            return False

        self.fleet.try_ctl("resume", "all")
        self.see_to_the_end(late)
        self.start_last(late)
        self.see_to_the_end(late)
        self.delivered = max(self.delivered, self.fleet.delivered())
        return self.fleet.last_key

    def last_jobs(self) -> list:
        return list(self.jobs.find(sort=[("createdAt", -1)], limit=2))
