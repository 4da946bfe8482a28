"""Clients that read and write throughout a rotation, each with a driver of its own, and check every
answer. A read that fails is a failure of the test, not something to be tried again."""

import collections
import datetime
import threading
import time

from harness.protected import key_id
from pymongo import ReadPreference
from pymongo.errors import AutoReconnect, ConnectionFailure, PyMongoError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

GROUPS = 6
MEMBERS = 7  # of a group: all have the same value in a deterministic field
SLACK = datetime.timedelta(milliseconds=500)
CUT_OFF = (AutoReconnect, ConnectionFailure, ServerSelectionTimeoutError)


def seed(people):
    people.app.insert_many(
        {"_id": f"{group}/{i}", "ssn": value_of(group), "answer": f"s3cr3t answer {group}/{i}", "n": 0}
        for group in range(GROUPS)
        for i in range(MEMBERS)
    )


def value_of(group: int) -> str:
    return f"s3cr3t group {group}"


def members(group: int) -> list:
    return [f"{group}/{i}" for i in range(MEMBERS)]


class Traffic(threading.Thread):
    """
    One client at one instance. interrupted: set while that instance is made to restart, which cuts
    connections; what is cut then is counted, and everything else is a failure.
    """

    def __init__(self, name: str, instance, db_name: str):
        super().__init__(name=name)
        self.client = instance.client(serverSelectionTimeoutMS=30000)
        self.people = self.client[db_name].people
        self.counts = collections.Counter()
        self.failures = []
        self.interrupted = threading.Event()
        self.stopping = threading.Event()

    def run(self):
        round = 0
        while not self.stopping.is_set():
            steps = self.steps()
            self.one(steps[round % len(steps)], round)
            round += 1
        self.client.close()

    def one(self, step, round: int):
        began_interrupted = self.interrupted.is_set()
        try:
            step(round)
            self.counts[step.__name__] += 1
        except CUT_OFF as cut:
            if not (began_interrupted or self.interrupted.is_set()):
                self.failures.append(f"{step.__name__}: {cut!r}")
            self.counts["cut off by a restart"] += 1
        except (PyMongoError, AssertionError) as failure:
            self.failures.append(f"{step.__name__}: {failure!r}")

    def steps(self) -> list:
        raise NotImplementedError

    def finish(self):
        self.stopping.set()
        self.join()


class Reader(Traffic):
    """missed: (_id, when the read began, when it ended) of what is in the collection and was not shown."""

    def __init__(self, *args):
        super().__init__(*args)
        self.missed = []

    def steps(self):
        return [
            self.find_by_id,
            self.find_equal_slowly,
            self.count,
            self.find_by_id,
            self.aggregate_slowly,
            self.distinct,
            self.find_in_snapshot,
            self.find_unconditionally,
        ]

    def find_by_id(self, round):
        for wanted in members(round % GROUPS):
            found = self.people.find_one({"_id": wanted})
            assert found["ssn"] == value_of(round % GROUPS), found
            assert found["answer"] == f"s3cr3t answer {wanted}", found

    def find_equal_slowly(self, round):
        group = round % GROUPS
        cursor = self.people.find({"ssn": value_of(group)}, batch_size=2)
        self.check(group, cursor)

    def aggregate_slowly(self, round):
        group = round % GROUPS
        pipeline = [{"$match": {"ssn": {"$in": [value_of(group), "nobody"]}}}, {"$project": {"answer": 1}}]
        self.check(group, self.people.aggregate(pipeline, batchSize=2))

    def slowly(self, cursor) -> list:
        ids = []
        for document in cursor:
            ids.append(document["_id"])
            time.sleep(0.02)
        return ids

    def check(self, group, cursor):
        """An index may show a document twice that a sweep moves on meanwhile, as in mongod, and miss
        one that is moved back (MovesBack)."""
        began = datetime.datetime.utcnow()
        ids = self.slowly(cursor)
        self.counts["seen twice"] += len(ids) - len(set(ids))
        assert set(ids) <= set(members(group)), f"group {group}: {sorted(ids)}"
        for id in set(members(group)) - set(ids):
            self.missed.append((id, began, datetime.datetime.utcnow()))

    def count(self, round):
        group = round % GROUPS
        found = self.people.count_documents({"ssn": value_of(group)})
        assert found == MEMBERS, f"{found} of group {group}"
        others = {"$and": [{"ssn": {"$ne": value_of(group)}}, {"_id": {"$in": members(group)}}]}
        assert self.people.count_documents(others) == 0

    def distinct(self, round):
        group = round % GROUPS
        found = self.people.distinct("ssn", {"_id": {"$in": members(group)}})
        assert found == [value_of(group)], found

    def find_in_snapshot(self, round):
        """Equality in a transaction: every statement sees the same moment."""
        group = round % GROUPS
        with self.client.start_session() as session:
            with session.start_transaction(read_concern=ReadConcern("snapshot")):
                found = self.people.find({"ssn": value_of(group)}, batch_size=2, session=session)
                ids = self.slowly(found)
                n = self.people.count_documents({"ssn": value_of(group)}, session=session)
        assert sorted(ids) == members(group) and n == MEMBERS, f"group {group}: {ids}, {n}"

    def find_unconditionally(self, round):
        found = {d["_id"]: d for d in self.people.find({"n": {"$gte": 0}}, batch_size=5)}
        for group in range(GROUPS):
            for id in members(group):
                assert found[id]["ssn"] == value_of(group), found.get(id)


class Writer(Traffic):
    """readers: what others see, through other instances."""

    def __init__(self, number, instance, db_name, others):
        super().__init__(f"writer {number}", instance, db_name)
        self.number = number
        self.others = [other.client(serverSelectionTimeoutMS=30000) for other in others]
        self.reading = [client[db_name].people for client in self.others]

    def run(self):
        super().run()
        for client in self.others:
            client.close()

    def steps(self):
        return [self.insert_and_find, self.rewrite, self.upsert_and_delete, self.transact]

    def insert_and_find(self, round):
        ssn = f"s3cr3t {self.number}-{round}"
        self.people.insert_one({"_id": ssn, "ssn": ssn, "n": -1})
        for reader in (self.people, *self.reading):
            found = reader.find_one({"ssn": ssn})
            assert found is not None and found["_id"] == ssn, f"{ssn} is missed"
        deleted = self.people.delete_many({"ssn": ssn}).deleted_count
        assert deleted == 1, f"{deleted} of {ssn} deleted"

    def rewrite(self, round):
        """What is equal stays equal, under whichever key it lies."""
        group = round % GROUPS
        wanted = members(group)[round % MEMBERS]
        changed = self.people.update_one(
            {"_id": wanted, "ssn": value_of(group)},
            {"$set": {"ssn": value_of(group), "answer": f"s3cr3t answer {wanted}"}, "$inc": {"n": 1}},
        )
        assert changed.matched_count == 1, f"{wanted} is missed"

    def upsert_and_delete(self, round):
        ssn = f"s3cr3t upsert {self.number}-{round}"
        for n in range(3):
            self.people.update_one({"ssn": ssn}, {"$set": {"n": -n}}, upsert=True)
        found = self.people.find_one_and_delete({"ssn": ssn})
        assert found["n"] == -2, found
        assert self.people.find_one({"ssn": ssn}) is None, f"{ssn} was there twice"

    def transact(self, round):
        ssn = f"s3cr3t transaction {self.number}-{round}"

        def body(session):
            self.people.insert_one({"_id": ssn, "ssn": ssn, "n": -1}, session=session)
            assert self.people.count_documents({"ssn": ssn}, session=session) == 1, f"{ssn} is missed"
            assert self.people.delete_one({"ssn": ssn}, session=session).deleted_count == 1

        with self.client.start_session() as session:
            session.with_transaction(
                body, ReadConcern("snapshot"), WriteConcern("majority"), ReadPreference.PRIMARY
            )


class MovesBack(threading.Thread):
    """
    When a value went from a later key to an earlier one. That happens only while the instances
    switch: one of them has written under the new key, and another one, that still has the former,
    writes the same document. A scan of the index that is between the two keys misses it then, as
    mongod's do whenever an indexed value changes under them.
    """

    def __init__(self, stored):
        super().__init__(name="moves back")
        self.moves = collections.defaultdict(list)  # _id: times
        self.keys = {}
        self.stopping = threading.Event()
        changed = {"operationType": "update", "updateDescription.updatedFields.ssn": {"$exists": True}}
        self.stream = stored.watch([{"$match": changed}], max_await_time_ms=100)

    def run(self):
        while (event := self.stream.try_next()) is not None or not self.stopping.is_set():
            if event is not None:
                self.note(event)
        self.stream.close()

    def note(self, event):
        id = event["documentKey"]["_id"]
        key = key_id(event["updateDescription"]["updatedFields"]["ssn"])
        if key < self.keys.get(id, 0):
            self.moves[id].append(event["wallTime"])
        self.keys[id] = key

    def finish(self):
        self.stopping.set()
        self.join()

    def explains(self, id, began, ended) -> bool:
        return any(began - SLACK <= at <= ended + SLACK for at in self.moves[id])


class Watcher(Traffic):
    """A change stream whose condition compares a protected field, and who fulfils it."""

    def __init__(self, instance, writing_instance, db_name):
        super().__init__("watcher", instance, db_name)
        self.writing = writing_instance.client(serverSelectionTimeoutMS=30000)
        self.sink = self.writing[db_name].people
        self.sent, self.received = 0, 0
        wanted = [{"$match": {"operationType": "insert", "fullDocument.ssn": "s3cr3t watched"}}]
        self.stream = self.people.watch(wanted, max_await_time_ms=100)

    def run(self):
        super().run()
        self.stream.close()
        self.writing.close()

    def steps(self):
        return [self.watch]

    def watch(self, _):
        document = {"_id": f"watched {self.sent}", "ssn": "s3cr3t watched", "n": -1}
        self.sink.insert_one(document)
        self.sent += 1
        deadline = time.monotonic() + 30
        while (event := self.stream.try_next()) is None:
            assert time.monotonic() < deadline, f"{document['_id']} is missed"
        assert event["fullDocument"] == document, f"{event} instead of {document['_id']}"
        self.received += 1
        time.sleep(0.02)
