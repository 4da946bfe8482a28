"""Clients that write through failovers, over every way that leads to a replica set at once."""

import threading
import time

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

DATABASE = "failover"


class Writer:
    """
    Inserts one document and increments one counter, again and again. An error leaves open whether
    the write happened, so it is counted as an error and never as a loss.
    """

    def __init__(self, way: str, number: int, uri: str):
        self.name = f"{way}-{number}"
        self.way = way
        self.client = MongoClient(uri, w="majority", serverSelectionTimeoutMS=60000)
        self.inserted, self.incremented = [], 0
        self.errors = []
        self.unsure_increments = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        database = self.client[DATABASE]
        i = 0
        while not self._ending.is_set():
            i += 1
            key = f"{self.name}-{i}"
            try:
                database.inserts.insert_one({"key": key})
                self.inserted.append(key)
            except PyMongoError as error:
                self.errors.append(f"insert {key}: {error!r}")
            try:
                changed = database.counters.update_one(
                    {"_id": self.name}, {"$inc": {"n": 1}}, upsert=True
                )
                assert changed.acknowledged
                self.incremented += 1
            except PyMongoError as error:
                self.unsure_increments += 1
                self.errors.append(f"increment {key}: {error!r}")
            time.sleep(0.01)

    def end(self, timeout_s=90):
        self._ending.set()
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"{self.name} hangs"
        self.client.close()


def write_through_failovers(servers, ways: dict, clients=4, step_downs=5, kill_every=5) -> dict:
    """ways: name to connection string. Every kill_every-th failover is a SIGKILL with restart."""
    writers = [Writer(way, i, uri) for way, uri in ways.items() for i in range(clients)]
    try:
        for i in range(1, step_downs + 1):
            _wait_progress(writers)
            if i % kill_every == 0:
                dying = servers.primary()
                dying.kill()
                _wait_progress(writers)
                dying.start()
                servers.wait_secondaries()
            else:
                _step_down(servers)
        _wait_progress(writers)
    finally:
        for writer in writers:
            writer._ending.set()
    for writer in writers:
        writer.end()
    return _account(servers, writers, clients, step_downs)


def _step_down(servers, timeout_s=60):
    """Briefly, so that the former primaries can be elected again soon."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with servers.client() as client:
                client.admin.command({"replSetStepDown": 3, "secondaryCatchUpPeriodSecs": 2})
        except OperationFailure:  # nobody else can be elected yet
            assert time.monotonic() < deadline, "no step-down"
            time.sleep(0.2)
        else:
            return


def _wait_progress(writers, timeout_s=60):
    """Until every writer has written on."""
    before = [(writer, len(writer.inserted)) for writer in writers]
    deadline = time.monotonic() + timeout_s
    while waiting := [w.name for w, n in before if len(w.inserted) < n + 3]:
        assert time.monotonic() < deadline, f"no progress: {waiting}"
        time.sleep(0.02)


def _account(servers, writers, clients, step_downs) -> dict:
    with servers.client() as client:
        database = client.get_database(DATABASE)
        stored = {}
        for document in database.inserts.find():
            stored[document["key"]] = stored.get(document["key"], 0) + 1
        counters = {document["_id"]: document["n"] for document in database.counters.find()}
    acknowledged = lost = duplicated = 0
    errors = {}
    for writer in writers:
        acknowledged += len(writer.inserted) + writer.incremented
        lost += sum(1 for key in writer.inserted if key not in stored)
        counted = counters.get(writer.name, 0)
        lost += max(0, writer.incremented - counted)
        duplicated += max(0, counted - writer.incremented - writer.unsure_increments)
        errors.setdefault(writer.way, []).extend(writer.errors)
    duplicated += sum(n - 1 for n in stored.values())
    return {
        "clients": clients,
        "step_downs": step_downs,
        "acknowledged": acknowledged,
        "lost": lost,
        "duplicated": duplicated,
        "errors": errors,
    }
