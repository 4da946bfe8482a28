"""What must hold afterwards. Each check takes what it looks at, and returns what is wrong with it."""

import threading

from bson import MaxKey, MinKey
from pymongo.errors import PyMongoError

from harness import is_envelope, key_id, values_at
from writers import ABSENT, wrong_in

COUNTS = ("swept", "alreadyCurrent", "gone", "rejected")


def check_documents(ledger: dict, documents: list):
    """Acknowledged writes that are not there, and values that are wrong. documents: through rekeyd."""
    lost, wrong, seen = [], [], set()
    for document in documents:
        key = document.get("key")
        possible = ledger.get(key, {ABSENT})
        seen.add(key)
        problem = wrong_in(document) if key else f"{document.get('_id')!r} has no key"
        if problem:
            wrong.append(problem)
        elif possible == {ABSENT}:
            lost.append(f"{key} is there again: its deletion is lost")
        elif document["n"] not in possible:
            lost.append(f"{key} has n {document['n']}, none of {possible}")
    for key, possible in ledger.items():
        if key not in seen and ABSENT not in possible:
            lost.append(f"{key} is gone, and was one of {possible}")
    return lost, wrong


def check_envelopes(documents: list, paths, current: int) -> list:
    """Values that do not lie under the current key. documents: as they are stored."""
    old = []
    for document in documents:
        for path in paths:
            for value in values_at(document, path):
                if value is not None and not (is_envelope(value) and key_id(value) == current):
                    what = f"key {key_id(value)}" if is_envelope(value) else "no envelope"
                    old.append(f"{document['_id']!r} {path}: {what}")
    return old


def check_ranges(job: dict, ranges: list) -> list:
    """Of one complete job. ranges: in the order of startId, as mongod sorts it."""
    wrong = []
    name = f"job {job['_id']}"
    if not ranges:
        return [f"{name} has no ranges"]
    if not isinstance(ranges[0]["startId"], MinKey) or not isinstance(ranges[-1]["endId"], MaxKey):
        wrong.append(f"{name} does not reach from MinKey to MaxKey")
    for one, following in zip(ranges, ranges[1:]):
        if repr(one["endId"]) != repr(following["startId"]):
            wrong.append(f"{name}: range {one['seq']} ends at {one['endId']!r}, {following['seq']} begins elsewhere")
    for each in ranges:
        counted = {count: each.get(count, 0) for count in COUNTS}
        if each.get("scanned", 0) != sum(counted.values()):
            wrong.append(f"{name}, range {each['seq']}: scanned {each.get('scanned')}, but {counted}")
        if each["state"] != "done" or not each["isComplete"] or "finishedAt" not in each:
            wrong.append(f"{name}, range {each['seq']} is {each['state']}")
    return wrong


def check_totals(state, jobs, documents: int) -> list:
    """Of jobs (ids) over documents that nobody wrote to meanwhile: each is counted once."""
    wrong = [] if jobs else ["the last sweep has no job"]
    for id in jobs:
        ranges = list(state.jobStatus.find({"jobId": id}))
        scanned, swept, already = (sum(r.get(c, 0) for r in ranges) for c in ("scanned", "swept", "alreadyCurrent"))
        if not scanned == documents == swept + already:
            wrong.append(f"job {id}: {scanned} scanned, {swept} swept and {already} current of {documents} documents")
    return wrong


class History(threading.Thread):
    """Every change of jobStatus that a majority has seen, from a change stream."""

    def __init__(self, fleet):
        super().__init__(daemon=True, name="history")
        self.client = fleet.direct(serverSelectionTimeoutMS=5000)
        self.coll = self.client[fleet.state_db()].jobStatus
        self.done = {}  # range: its epoch when it was done
        self.repeated = []
        self.changes = 0
        self.stopping = threading.Event()
        self.token = None
        self.failure = None
        self._stream = self._open()

    def _open(self):
        return self.coll.watch(max_await_time_ms=200, resume_after=self.token)

    def run(self):
        while True:
            try:
                event = self._stream.try_next()
                self.token = self._stream.resume_token or self.token
                self.failure = None
            except PyMongoError as failure:
                self.failure = failure
                self._reopen()
                continue
            if event is not None:
                self.note(event)
            elif self.stopping.is_set():
                return

    def _reopen(self):
        try:
            self._stream = self._open()
            self.failure = None
        except PyMongoError as failure:
            self.failure = failure
            self.stopping.wait(0.5)

    def note(self, event):
        """Once done, nobody has anything to do with a range any more."""
        self.changes += 1
        id = event["documentKey"]["_id"]
        if id in self.done:
            self.repeated.append(f"range {id} after it was done: {event.get('updateDescription')}")
        updated = event.get("updateDescription", {}).get("updatedFields", {})
        if updated.get("state") == "done":
            self.done[id] = updated.get("finishedAt")

    def finish(self):
        self.stopping.set()
        self.join(60)
        assert not self.is_alive() and self.failure is None, self.failure
        self.client.close()


def check_jobs(state) -> list:
    """Of all jobs in the state database."""
    wrong = []
    for job in state.jobs.find():
        if job["state"] != "complete":
            wrong.append(f"job {job['_id']} is {job['state']}: {job.get('error')}")
            continue
        ranges = list(state.jobStatus.find({"jobId": job["_id"]}).sort("startId"))
        wrong.extend(check_ranges(job, ranges))
    return wrong
