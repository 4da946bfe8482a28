"""Applications that write while everything around them fails, and remember what they were told.

A writer has documents of its own, and for each the states that it may be in: the sequence number
of the last acknowledged write and of all since that ended with an error, which may have happened
or not; None stands for "is not there". Every write names the sequence number that it has to be
newer than, and an _id is inserted once: a request that was held up on the way and arrives after
later ones then changes nothing, as the application would have it.
"""

import random
import threading
import time
from collections import Counter

from bson import Binary, Decimal128
from bson.datetime_ms import DatetimeMS
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from fleet import COLL, DB

DOCS = 300  # of a writer, give or take
ABSENT = None


def key_of(writer: int, number: int) -> str:
    return f"{writer}/{number}"


def id_of(writer: int, number: int):
    """Of many types, so that ranges begin and end in all of them."""
    n = writer * 1_000_000 + number
    makers = (
        lambda: n,
        lambda: key_of(writer, number),
        lambda: {"w": writer, "n": number},
        lambda: n + 0.5,
        lambda: Binary(n.to_bytes(16, "big"), 4),
        lambda: DatetimeMS(n * 1000),
        lambda: Decimal128(f"{n}.25"),
    )
    return makers[number % len(makers)]()


def text_of(key: str, seq: int) -> str:
    return f"pl41n {key} {seq}"


def document_of(writer: int, number: int, seq: int) -> dict:
    key = key_of(writer, number)
    return {"_id": id_of(writer, number), "key": key, "other": [seq, {"answer": seq}], **values_of(key, seq)}


def values_of(key: str, seq: int) -> dict:
    text = text_of(key, seq)
    return {"n": seq, "answer": text, "ssn": text, "notes": [{"text": text}, {"text": None}, seq]}


def wrong_in(document: dict):
    """Why this is no document that a writer has written as a whole; None: it is one."""
    expected = values_of(document["key"], document["n"])
    for name, value in expected.items():
        if document.get(name) != value:
            return f"{document['key']}: {name} is {document.get(name)!r} with n {document['n']}"
    return None


class Writer(threading.Thread):
    def __init__(self, number: int, seed: int, clients: list):
        super().__init__(daemon=True, name=f"writer {number}")
        self.number, self.clients = number, clients
        self.random = random.Random(f"{seed} writer {number}")
        self.ledger = {}  # key: set of sequence numbers, or ABSENT
        self.live = []  # numbers of documents that may be there
        self.next_number = self.seq = 0
        self.acknowledged = self.unsure = self.reads = self.failed_reads = 0
        self.errors = Counter()
        self.broken = []  # what must never be seen
        self.stopping = threading.Event()
        self.time = None, None  # cluster and operation time of what was acknowledged last

    def run(self):
        while not self.stopping.is_set():
            self.step()
            time.sleep(0.005)

    def step(self):
        if len(self.live) < DOCS // 2 or self.random.random() < 0.06:
            return self.insert()
        number = self.random.choice(self.live)
        ways = [self.set_fields, self.replace, self.modify, self.delete, self.find, self.find_equal]
        self.random.choices(ways, [6, 3, 3, 1, 4, 4])[0](number)

    # Writes.

    def insert(self):
        number, self.next_number = self.next_number, self.next_number + 1
        self.live.append(number)
        self.ledger[key_of(self.number, number)] = {ABSENT}
        self.write(number, lambda coll, document, s: coll.insert_one(document, session=s))

    def set_fields(self, number):
        def work(coll, document, session):
            changed = {name: document[name] for name in ("n", "answer", "ssn")}
            changed["notes.0.text"] = document["answer"]
            changed["notes.2"] = document["n"]
            return coll.update_one(older(document), {"$set": changed}, session=session).matched_count

        self.write(number, work)

    def replace(self, number):
        def work(coll, document, session):
            return coll.replace_one(older(document), document, session=session).matched_count

        self.write(number, work)

    def modify(self, number):
        def work(coll, document, session):
            changed = {"$set": values_of(document["key"], document["n"])}
            before = coll.find_one_and_update(older(document), changed, session=session)
            if before is not None:
                self.check(before, "findAndModify returns")
            return before is not None

        self.write(number, work)

    def delete(self, number):
        def work(coll, document, session):
            return coll.delete_one(older(document), session=session).deleted_count

        self.write(number, work, ABSENT)

    def write(self, number, work, after="written"):
        key, self.seq = key_of(self.number, number), self.seq + 1
        new = ABSENT if after is ABSENT else self.seq
        possible = self.ledger[key]
        try:
            found = self.with_session(work, document_of(self.number, number, self.seq))
        except PyMongoError as error:
            self.note(error)
            self.unsure += 1
            self.ledger[key] = possible | {new}
            return
        self.acknowledged += 1
        if found:
            self.ledger[key] = {new}
        elif ABSENT not in possible:
            self.broken.append(f"lost: {key} is not found, and is one of {possible}")
        if self.ledger[key] == {ABSENT}:
            self.live.remove(number)

    # Reads: of what a majority has, not older than what this writer was told.

    def find(self, number):
        self.read(number, {"_id": document_of(self.number, number, 0)["_id"]})

    def find_equal(self, number):
        possible = self.ledger[key_of(self.number, number)]
        if len(possible) == 1:
            (seq,) = possible
            self.read(number, {"ssn": text_of(key_of(self.number, number), seq)})

    def read(self, number, wanted):
        key = key_of(self.number, number)
        if isinstance(wanted.get("_id"), dict):
            wanted = {"_id": {"$eq": wanted["_id"]}}
        try:
            found = self.with_session(lambda coll, _, s: coll.find_one(wanted, session=s), None)
        except PyMongoError as error:
            self.note(error)
            self.failed_reads += 1
            return
        self.reads += 1
        if found is not None:
            self.check(found, f"find {list(wanted)} returns")
        elif ABSENT not in self.ledger[key]:
            self.broken.append(f"find {list(wanted)} misses {key}, one of {self.ledger[key]}")

    def check(self, document, what):
        wrong = wrong_in(document)
        if wrong or document["n"] not in self.ledger[document["key"]]:
            allowed = self.ledger[document["key"]]
            self.broken.append(f"{what} {wrong or (document['key'], document['n'])}, not of {allowed}")

    def with_session(self, work, document):
        client = self.random.choice(self.clients)
        coll = client[DB].get_collection(
            COLL, read_concern=ReadConcern("majority"), write_concern=WriteConcern("majority")
        )
        with client.start_session(causal_consistency=True) as session:
            cluster_time, operation_time = self.time
            if operation_time is not None:
                session.advance_cluster_time(cluster_time)
                session.advance_operation_time(operation_time)
            result = work(coll, document, session)
            self.time = session.cluster_time, session.operation_time
            return result

    def note(self, error):
        """rekeyd's refusals are no accident of the network: they are told in the report."""
        code = getattr(error, "code", None) if isinstance(error, OperationFailure) else None
        self.errors[f"{type(error).__name__} {code or ''}".strip()] += 1


def older(document) -> dict:
    wanted = document["_id"]
    return {"_id": {"$eq": wanted} if isinstance(wanted, dict) else wanted, "n": {"$lt": document["n"]}}


def start_writers(fleet, seed: int, n=8) -> list:
    options = {
        "timeoutMS": 8000,
        "connectTimeoutMS": 3000,
        "serverSelectionTimeoutMS": 8000,
        "heartbeatFrequencyMS": 1000,
        "retryWrites": True,
    }
    clients = [fleet.app_client(number, **options) for number in range(len(fleet.instances))]
    writers = [Writer(number, seed, clients) for number in range(n)]
    for writer in writers:
        writer.start()
    return writers


def stop_writers(writers: list):
    for writer in writers:
        writer.stopping.set()
    for writer in writers:
        writer.join(120)
        assert not writer.is_alive(), f"{writer.name} hangs"
    for client in writers[0].clients:
        client.close()
