"""Fixtures and helpers of the tests that sweep."""

import datetime
import time

import pytest
from bson import Int64, ObjectId

from harness import ReplicaSet, policy
from harness.protected import key_id

FAST = {
    "keys": {"refresh_interval_ms": 100, "negative_cache_ms": 100},
    "sweep": {"poll_interval_ms": 100, "lease_ms": 2000, "range_docs": 50, "batch_docs": 20},
}
STATE, FAILED = 3, 1  # rekeyctl's exit codes
PAST = datetime.datetime(2020, 1, 1)
OLD_KEY = bytes(range(32))
FAIL_POINTS = ("--setParameter", "enableTestCommands=1")


def slow(rate):
    return {"sweep": {"max_rate": rate, "range_docs": 100}}


def legacy_format(**changes) -> dict:
    """How values were encrypted before Rekey, with OLD_KEY under the name "old"."""
    return {"cipher": "aes-256-cbc", "encoding": "binary", "key": "old", "type": "string", **changes}


class Swept:
    """A protected collection `people` with field `answer`, and the job over it."""

    def __init__(self, rekeyd, app, direct, db_name):
        self.rekeyd = rekeyd
        self.namespace = f"{db_name}.people"
        self.app, self.stored = app[db_name].people, direct[db_name].people
        self.stored_db = direct[db_name]
        self.direct = direct
        self.state = direct[rekeyd.config["upstream"]["state_db"]]

    def insert(self, ids):
        documents = [{"_id": i, "answer": f"answer {n}"} for n, i in enumerate(ids)]
        self.app.insert_many(documents)
        return documents

    def rotate(self) -> int:
        return self.rekeyd.ctl("keys", "rotate")["keyId"]

    def sweep(self) -> dict:
        return self.rekeyd.ctl("start", self.namespace, "--wait")["jobs"][0]

    def start(self):
        return self.rekeyd.ctl("start", self.namespace)["started"][0]

    def job(self) -> dict:
        return self.rekeyd.ctl("jobs")["jobs"][0]

    def ranges(self) -> list:
        return list(self.state.jobStatus.find().sort("seq"))

    def verify(self, *options) -> dict:
        return self.rekeyd.ctl("verify", self.namespace, "--deep", *options)["namespaces"][0]

    def keys_used(self) -> set:
        return {key_id(document["answer"]) for document in self.stored.find()}

    def check_held(self):
        """Nothing is swept, although no job waits any longer for its key to settle."""
        self.state.jobs.update_many({}, {"$set": {"notBefore": PAST}})
        time.sleep(0.7)
        jobs = self.rekeyd.ctl("jobs")["jobs"]
        assert {job["scanned"] for job in jobs} == {0}, jobs

    def wait(self, condition, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"did not happen: {self.job()}"
            time.sleep(0.05)


@pytest.fixture
def start_swept(start_rekeyd, db_name):
    clients = []

    def start(upstream, settings=None, fields=None, **options):
        merged = {**FAST, **(settings or {})}
        merged["sweep"] = {**FAST["sweep"], **merged["sweep"]}
        protected = policy(f"{db_name}.*", fields or {"answer": "random"})
        rekeyd = start_rekeyd(upstream, [protected], settings=merged, **options)
        app, direct = rekeyd.client(), upstream.client()
        clients.extend([app, direct])
        return Swept(rekeyd, app, direct, db_name)

    yield start
    for client in clients:
        client.close()


@pytest.fixture
def swept(start_swept, single_member_set):
    return start_swept(single_member_set)


def letters(swept, *options) -> list:
    return swept.rekeyd.ctl("dead-letters", "list", *options)["deadLetters"]


@pytest.fixture(scope="module")
def fragile_set(tmp_path_factory):
    """One member whose commands can be made to fail."""
    with ReplicaSet(1, tmp_path_factory.mktemp("fragile"), args=FAIL_POINTS) as servers:
        yield servers


def fail(swept, command, times, coll=None, **how):
    """The next commands of this kind fail, or all until fail(..., times="off")."""
    mode = {"times": times} if isinstance(times, int) else times
    data = {"failCommands": [command], **how}
    if coll is not None:
        data["namespace"] = f"{coll.database.name}.{coll.name}"
    swept.direct.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)


def is_asked(client, coll) -> bool:
    """Does a scan's read of the collection wait here?"""
    waiting = [{"$currentOp": {}}, {"$match": {"command.find": coll.name}}]
    return any(op["command"]["$db"] == coll.database.name for op in client.admin.aggregate(waiting))


# Documents as version 0.1.0 wrote them before jobs had a format.


def former_job(swept, **changes):
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "_id": ObjectId(),
        "active": True,
        "createdAt": now,
        "createdBy": "root@vm",
        "error": "",
        "keyId": Int64(2),
        "notBefore": now,
        "ns": swept.namespace,
        "planComplete": False,
        "plannerEpoch": Int64(1),
        "plannerOwner": "vm:1234:0a1b2c3d",
        "plannerLeaseUntil": PAST,
        "plannedTo": 60,
        "startedAt": now,
        "state": "running",
        "transform": "reencrypt",
        **changes,
    }


def former_range(job, seq, start, end, **changes):
    return {
        "_id": ObjectId(),
        "jobId": job["_id"],
        "seq": Int64(seq),
        "collectionName": job["ns"],
        "batchSize": Int64(30),
        "consumerProcessed": Int64(0),
        "startId": start,
        "endId": end,
        "isComplete": False,
        "creationTimeStamp": job["createdAt"],
        "state": "pending",
        "epoch": Int64(0),
        "attempts": Int64(0),
        **changes,
    }


def taken(job, processed, **changes):
    names = ["consumerProcessed", "scanned", "swept"]
    rest = ["alreadyCurrent", "gone", "changedAgain", "deadLettered", "plaintext"]
    return {
        "owner": "vm:1234:0a1b2c3d",
        "epoch": Int64(1),
        "leaseUntil": PAST,
        "error": "",
        **{name: Int64(processed) for name in names},
        **{name: Int64(0) for name in rest},
        **changes,
    }
