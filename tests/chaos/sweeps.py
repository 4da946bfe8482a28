"""The operator: rotates and sweeps, over and over, and the last time for good."""

import subprocess
import threading
import time

from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from harness import CtlError

from fleet import NAMESPACE

HELD_UP_S = 8  # what the writers sent and was held up on its way is there by then, or lost


class Sweeps(threading.Thread):
    def __init__(self, fleet):
        super().__init__(daemon=True, name="operator")
        self.fleet = fleet
        self.stopping = threading.Event()
        self.last = threading.Event()
        self.last_began = self.last_ended = None
        self.former = None  # ids of the jobs before the last sweep
        self.failed = self.delivered = 0
        self.ended = set()  # ids of complete jobs
        self.client = fleet.direct(serverSelectionTimeoutMS=5000, timeoutMS=15000)
        # A primary that does not know yet that it is none any more has to find out before it answers.
        self.jobs = self.client[fleet.state_db()].get_collection("jobs", read_concern=ReadConcern("linearizable"))

    def run(self):
        while not self.last.is_set():
            self.fleet.try_ctl("keys", "rotate")
            self.fleet.try_ctl("start", NAMESPACE)
            self.see_to_the_end(self.stopping.is_set)
            self.delivered = max(self.delivered, self.fleet.delivered())
            self.last.wait(0.5)
        if not self.stopping.wait(HELD_UP_S):
            self.sweep_last(self.stopping.is_set)

    def begin_last(self):
        """When what is under way has ended."""
        self.last.set()

    def last_s(self) -> float:
        """For how long the last sweep has been going on, or did; 0: not yet."""
        if self.last_began is None:
            return 0.0
        return round((self.last_ended or time.monotonic()) - self.last_began, 1)

    def sweep_last(self, given_up):
        """A rotation and a sweep, each tried until it succeeds; and to its end."""
        while self.former is None and not given_up():
            try:
                self.former = {job["_id"] for job in self.jobs.find({}, {"_id": 1})}
            except PyMongoError:
                time.sleep(0.5)
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
        if self.see_to_the_end(given_up) and self.last_began and not self.last_ended:
            self.last_ended = time.monotonic()

    def see_to_the_end(self, given_up) -> bool:
        """Whether no job is active any more; one that has failed is resumed. Which of them is the newest,
        no clock can tell here."""
        while not given_up():
            try:
                jobs = list(self.jobs.find())
            except PyMongoError:
                time.sleep(0.2)
                continue
            self.ended.update(job["_id"] for job in jobs if job["state"] == "complete")
            active = [job for job in jobs if job["state"] not in ("complete", "cancelled")]
            if not active:
                return True
            for job in active:
                if job["state"] == "failed":
                    self.failed += 1
                    self.fleet.try_ctl("resume", str(job["_id"]))
            time.sleep(0.2)
        return False

    def last_ids(self) -> set:
        """Of the last sweep's job; and of those that were told not to have begun."""
        return {job["_id"] for job in self.jobs.find({}, {"_id": 1})} - self.former

    def finish(self, timeout_s=240) -> int:
        """With everything healed: what is under way to its end; the last sweep, where it has not begun.
        Returns its key."""
        self.last.set()
        self.stopping.set()
        self.join(120)
        assert not self.is_alive(), "the operator hangs"
        deadline = time.monotonic() + timeout_s

        def late() -> bool:
            assert time.monotonic() < deadline, f"not done after {timeout_s} s: {list(self.jobs.find())[-2:]}"
            return False

        self.fleet.try_ctl("resume", "all")
        self.see_to_the_end(late)
        self.sweep_last(late)
        self.delivered = max(self.delivered, self.fleet.delivered())
        return self.fleet.last_key
