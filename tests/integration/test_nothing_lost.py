"""Eight writers and a sweep, rekeyd killed six times, the primary stepped down once:
every acknowledged write is there, every plaintext is right, nothing is under an old key, and no
plaintext ever reached a disk or a log."""

import random
import threading
import time

import pytest
from pymongo.errors import PyMongoError

from harness import CtlError, ReplicaSet, policy

WRITERS = 8
DOCS_PER_WRITER = 250
KILLS = 6  # ./dev chaos kills all the time
SECRET = "Tr4ceableSecret"  # part of every protected value
PUBLIC = "Tr4ceablePublic"  # part of every unprotected one: the control of the search
QUICK = {
    # A killed instance holds up neither rotations nor ranges for long.
    "keys": {"refresh_interval_ms": 100, "instance_lease_ms": 1000, "cursor_grace_ms": 0},
    "sweep": {"range_docs": 100, "batch_docs": 20, "lease_ms": 2000},
}
ON_DISK_AS_WRITTEN = [
    "--wiredTigerCollectionBlockCompressor=none",
    "--wiredTigerJournalCompressor=none",
    "--slowms=0",  # mongod logs every command
]


class Writer(threading.Thread):
    """Writes its own documents and knows what each may hold: after an error, old or new."""

    def __init__(self, number, rekeyd, db_name, stopping):
        super().__init__(daemon=True)
        self.number, self.stopping, self.rekeyd, self.db_name = number, stopping, rekeyd, db_name
        self.random = random.Random(number)
        self.possible = {}
        self.acknowledged = self.uncertain = self.sequence = 0
        self.broken = None

    def run(self):
        with self.rekeyd.client(retryWrites=True, w="majority", timeoutMS=20000) as client:
            self.coll = client[self.db_name].responses
            while not self.stopping.is_set():
                try:
                    self.step()
                except AssertionError as broken:
                    self.broken = broken
                    return

    def step(self):
        i = f"{self.number}-{self.random.randrange(DOCS_PER_WRITER)}"
        self.sequence += 1
        value = f"{SECRET} {i} {self.sequence}"
        before = self.possible.get(i, {None})
        try:
            self.write(i, value, before)
        except PyMongoError:
            self.possible[i] = before | {value}
            self.uncertain += 1
            return
        self.possible[i] = {value}
        self.acknowledged += 1
        if self.sequence % 5 == 0:
            self.read_back(i)

    def write(self, i, value, before):
        new = {"answer": value, "public": PUBLIC, "contact": [{"mail": value}, {"mail": None}]}
        changed = {"$set": {"answer": value, "contact.0.mail": value}}
        if before == {None}:
            self.coll.replace_one({"_id": i}, new, upsert=True)
        elif None in before or self.random.random() < 0.3:
            self.coll.replace_one({"_id": i}, new, upsert=True)
        elif self.random.random() < 0.5:
            self.coll.update_one({"_id": i}, changed)
        else:
            seen = self.coll.find_one_and_update({"_id": i}, changed)
            assert seen["answer"] in before, f"{i}: {seen['answer']!r} is none of {before}"

    def read_back(self, i):
        try:
            seen = self.coll.find_one({"_id": i})
        except PyMongoError:
            return
        assert seen["answer"] in self.possible[i], f"{i}: {seen!r}, expected {self.possible[i]}"
        assert seen["contact"][0]["mail"] in self.possible[i]


def try_ctl(rekeyd, *words):
    """rekeyctl while servers come and go."""
    try:
        rekeyd.ctl(*words)
    except CtlError as failure:
        assert failure.returncode in (3, 4), failure


def files_with(servers, marker):
    found = []
    for member in servers.members:
        for path in member.data_files():
            if path.exists() and marker.encode() in path.read_bytes():
                found.append(path.name)
    return found


@pytest.fixture
def servers(tmp_path):
    with ReplicaSet(3, tmp_path / "rs", args=ON_DISK_AS_WRITTEN) as servers:
        yield servers


@pytest.mark.timeout(400)
def test_nothing_is_lost_and_nothing_leaks(servers, start_rekeyd, db_name):
    protected = {"answer": "random", "contact.mail": "deterministic"}
    rekeyd = start_rekeyd(servers, [policy(f"{db_name}.responses", protected)], settings=QUICK)
    stopping = threading.Event()
    writers = [Writer(n, rekeyd, db_name, stopping) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    time.sleep(2)
    chance = random.Random(4)
    for kill in range(KILLS):
        if kill % 2 == 0:
            try_ctl(rekeyd, "keys", "rotate")
        try_ctl(rekeyd, "start")
        time.sleep(chance.uniform(0.3, 2.0))
        rekeyd.kill9()
        time.sleep(chance.uniform(0, 0.2))
        rekeyd.start()
        if kill == KILLS // 2:
            servers.step_down()
    time.sleep(2)
    stopping.set()
    for writer in writers:
        writer.join(60)
        assert not writer.is_alive()
        assert writer.broken is None, writer.broken
    acknowledged = sum(w.acknowledged for w in writers)
    print(f"acknowledged={acknowledged} uncertain={sum(w.uncertain for w in writers)}")
    assert acknowledged > 500

    try_ctl(rekeyd, "keys", "rotate")
    finish_sweep(rekeyd)
    report = rekeyd.ctl("verify", "--deep", timeout_s=120)
    assert report, "verify reports what it saw"
    check_values(rekeyd, servers, db_name, writers)

    with servers.client() as direct:
        direct.admin.command("fsync")
    assert files_with(servers, PUBLIC), "the search itself must work"
    assert files_with(servers, SECRET) == []
    assert SECRET not in rekeyd.logs()


def until_idle(rekeyd):
    """Every job that was started comes to its end."""
    deadline = time.monotonic() + 100
    while (status := rekeyd.ctl("status"))["jobs"]:
        assert time.monotonic() < deadline, status  # with what holds the sweep
        time.sleep(0.2)


def finish_sweep(rekeyd):
    until_idle(rekeyd)
    started = rekeyd.ctl("start")["started"]
    until_idle(rekeyd)
    jobs = [job for job in rekeyd.ctl("jobs")["jobs"] if job["id"] in started]
    assert [job["state"] for job in jobs] == ["complete"], jobs


def check_values(rekeyd, servers, db_name, writers):
    with servers.client() as direct:
        state = direct[rekeyd.config["upstream"]["state_db"]]
        current = max(key["_id"] for key in state["keys"].find())
        for raw in direct[db_name].responses.find():
            for envelope in (raw["answer"], raw["contact"][0]["mail"]):
                assert envelope.subtype == 0x8E
                assert int.from_bytes(envelope[8:12], "big") == current
    with rekeyd.client() as client:
        seen = {d["_id"]: d for d in client[db_name].responses.find()}
    for writer in writers:
        for i, possible in writer.possible.items():
            if i not in seen:
                assert None in possible, f"{i} was acknowledged and is gone"
                continue
            assert seen[i]["answer"] in possible, f"{i}: {seen[i]['answer']!r} not in {possible}"
            assert seen[i]["contact"][0]["mail"] == seen[i]["answer"]
            assert seen[i]["contact"][1]["mail"] is None
