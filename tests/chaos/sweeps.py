"""The operator: rotates and sweeps, over and over, and the last time for good."""

import threading
import time

from pymongo.errors import PyMongoError

from harness import CtlError

from fleet import NAMESPACE


class Sweeps(threading.Thread):
    def __init__(self, fleet):
        super().__init__(daemon=True, name="operator")
        self.fleet = fleet
        self.stopping = threading.Event()
        self.failed = 0
        self.ended = set()  # ids of complete jobs
        self.client = fleet.direct(serverSelectionTimeoutMS=5000, timeoutMS=15000)
        self.jobs = self.client[fleet.state_db()].jobs

    def run(self):
        while not self.stopping.is_set():
            self.fleet.try_ctl("keys", "rotate")
            self.fleet.try_ctl("start", NAMESPACE)
            self.see_to_the_end(self.stopping.is_set)
            self.stopping.wait(0.5)

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
        """With everything healed: what is under way to its end, then one sweep to a new key, whose id
        is returned."""
        self.stopping.set()
        self.join(120)
        deadline = time.monotonic() + timeout_s

        def late() -> bool:
            assert time.monotonic() < deadline, f"not done after {timeout_s} s: {self.last_jobs()}"
            return False

        self.fleet.try_ctl("resume", "all")
        self.see_to_the_end(late)
        while True:
            try:
                key = self.fleet.control.ctl("keys", "rotate", timeout_s=60)["keyId"]
                break
            except CtlError:
                late()
                time.sleep(0.5)
        while self.fleet.try_ctl("start", NAMESPACE) != 0:
            late()
            time.sleep(0.5)
        self.see_to_the_end(late)
        return key

    def last_jobs(self) -> list:
        return list(self.jobs.find(sort=[("createdAt", -1)], limit=2))
