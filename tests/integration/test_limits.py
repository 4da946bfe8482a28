"""Sizes at the limits, and statements of a batch that cannot be stored: an application meets what
it would meet without rekeyd, at the same indexes, and the rest of the batch goes on or stops there
as mongod does it."""

import uuid

import bson
import pytest
from bson import Binary, Int64
from harness import SECRET
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne, WriteConcern
from pymongo.errors import BulkWriteError, OperationFailure, WriteError
from wire import RawClient, compressed, op_msg, sequence_section

DOCUMENT_MAX = 16_777_216
OBJECT_MAX = 16_793_600
MESSAGE_MAX = 48_000_000
ENVELOPE_GROWTH = 65  # a random envelope, and the head of a BSON binary
TIMES = ("$clusterTime", "operationTime", "opTime", "electionId", "lastWrite")

# A statement that cannot be stored through rekeyd (a type that cannot be encrypted), and for the
# mirror one that mongod refuses itself.
BAD_INSERT = {"_id": "bad", "ssn": 1.5}, {"_id": ["bad"]}
BAD_UPDATE = (
    {"q": {"_id": 0}, "u": {"$set": {"ssn": 1.5}}},
    {"q": {"_id": 0}, "u": {"$nothing": {"_id": 99}}},
)
BAD_DELETE = {"q": {"ssn": 1.5}, "limit": 1}, {"q": {"$nothing": 1}, "limit": 1}


def without_times(reply):
    return {k: v for k, v in reply.items() if k not in TIMES}


def without_reasons(reply):
    """writeErrors by their indexes: codes and messages differ between what rekeyd and mongod
    refuse."""
    errors = [e["index"] for e in reply.get("writeErrors", [])]
    return {**without_times(reply), "writeErrors": errors}


class Batches:
    """The same batch to the protected collection through rekeyd and to a plain one without it."""

    def __init__(self, people):
        self.people = people
        self.mirror = people.direct_client[f"{people.app_db.name}_mirror"]
        self.mirror.people.drop()
        self.lsids = [{"id": Binary(uuid.uuid4().bytes, 4)} for _ in range(2)]
        self.clients = [
            (RawClient(people.rekeyd.addresses[0], 60), people.app_db.name, 0),
            (RawClient(people.rekeyd.upstream.addresses[0], 60), self.mirror.name, 1),
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client, _, _ in self.clients:
            client.close()
        self.mirror.client.drop_database(self.mirror.name)

    def run(self, name, statements, array=False, **options):
        """The two replies. A statement that is a pair has one form for each side; what has a
        txnNumber belongs to a session."""
        field = {"insert": "documents", "update": "updates", "delete": "deletes"}[name]
        replies = []
        for client, db, side in self.clients:
            own = [s[side] if isinstance(s, tuple) else s for s in statements]
            command = {name: "people", **self.in_session(side, options), "$db": db}
            if array:
                replies.append(client.command({**command, field: own}))
            else:
                replies.append(client.command(command, sequence_section(field, own)))
        return replies

    def in_session(self, side, options):
        return {**options, "lsid": self.lsids[side]} if "txnNumber" in options else options

    def admin(self, **command):
        return [
            client.command({**self.in_session(side, command), "$db": "admin"})
            for client, _, side in self.clients
        ]

    def stored(self):
        """What both sides hold; the same."""
        seen = self.people.seen()
        assert seen == list(self.mirror.people.find().sort("_id"))
        return seen


@pytest.fixture
def batches(people):
    with Batches(people) as batches:
        yield batches


def batch_of(name, *numbers):
    """Statements that work, and at each None one that does not."""
    make = {
        "insert": (lambda i: {"_id": i, "answer": f"{SECRET} {i}"}, BAD_INSERT),
        "update": (
            lambda i: {"q": {"_id": i}, "u": {"$set": {"ssn": f"{SECRET} {i}"}, "$inc": {"n": 1}},
                       "upsert": True},
            BAD_UPDATE,
        ),
        "delete": (lambda i: {"q": {"_id": i}, "limit": 1}, BAD_DELETE),
    }[name]
    return [make[1] if i is None else make[0](i) for i in numbers]


def same(replies):
    seen, wanted = replies
    assert without_reasons(seen) == without_reasons(wanted)
    for error in seen.get("writeErrors", []):
        if error["code"] != 11000:
            assert error["code"] == 31041 and "ssn" in error["errmsg"], error
            assert set(error) == {"index", "code", "errmsg"}
    return seen


# Values that cannot be encrypted.


@pytest.mark.parametrize("array", [True, False], ids=["array", "sequence"])
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
@pytest.mark.parametrize("name", ["insert", "update", "delete"])
def test_one_bad_statement(batches, name, ordered, array):
    batches.people.app.insert_many([{"_id": 0}, {"_id": 7}])
    batches.mirror.people.insert_many([{"_id": 0}, {"_id": 7}])
    numbers = (1, 2, None, 7, None, 3)
    reply = same(batches.run(name, batch_of(name, *numbers), array, ordered=ordered))
    failed = [e["index"] for e in reply["writeErrors"]]
    duplicate = [3] if name == "insert" else []
    assert failed == ([2] if ordered else sorted([2, 4, *duplicate]))
    batches.stored()
    batches.people.check()


@pytest.mark.parametrize("name", ["insert", "update", "delete"])
def test_nothing_but_bad_statements(batches, name):
    for ordered in (True, False):
        reply = same(batches.run(name, batch_of(name, None, None), ordered=ordered))
        assert len(reply["writeErrors"]) == (1 if ordered else 2) and reply["ok"] == 1
    assert batches.stored() == []


def test_bad_statements_beside_those_that_mongod_refuses(batches):
    statements = [{"_id": 1}, {"_id": 1}, BAD_INSERT, {"_id": 1}, {"_id": 2}]
    reply = same(batches.run("insert", statements, ordered=False))
    codes = [(e["index"], e["code"]) for e in reply["writeErrors"]]
    assert codes == [(1, 11000), (2, 31041), (3, 11000)]
    assert [d["_id"] for d in batches.stored()] == [1, 2]


def test_every_statement_of_a_long_batch(batches):
    """Alternating fields, so that no two messages after each other are the same."""
    bad = [({"_id": i, ("ssn", "contact.phone")[i % 2]: 1.5}, {"_id": []}) for i in range(2000)]
    seen, wanted = batches.run("insert", bad, ordered=False)
    assert without_reasons(seen) == without_reasons(wanted)
    assert [e["code"] for e in seen["writeErrors"]] == [31041, 57] * 1000


@pytest.mark.parametrize("name", ["insert", "update", "delete"])
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
def test_retried(batches, name, ordered):
    """The same numbers of statements, so that a retry does each of them once."""
    for number in (1, 2):
        options = {"txnNumber": Int64(number), "ordered": ordered}
        batch = batch_of(name, 1, None, 2)
        first = same(batches.run(name, batch, **options))
        again = same(batches.run(name, batch, **options))
        assert {**again, "retriedStmtIds": 0}.keys() >= first.keys()
        batches.stored()
    if name == "update":
        assert again["retriedStmtIds"] == ([0] if ordered else [0, 2])


@pytest.mark.parametrize("name", ["insert", "update", "delete"])
@pytest.mark.parametrize("before", [0, 1], ids=["first", "second"])
def test_in_a_transaction(batches, name, before):
    """A failed write aborts the transaction, as any other does."""
    for side in (batches.people.app, batches.mirror.people):
        side.insert_one({"_id": 0})
    options = {"txnNumber": Int64(1), "autocommit": False}
    start = {"startTransaction": True}
    if before:
        same(batches.run("insert", batch_of("insert", 5), **options, **start))
        start = {}
    same(batches.run(name, batch_of(name, 1, None, 2), **options, **start))
    for reply in batches.run("insert", batch_of("insert", 6), **options):
        assert (reply["ok"], reply["code"]) == (0, 251)
        assert reply["errorLabels"] == ["TransientTransactionError"]
    for reply in batches.admin(commitTransaction=1, **options):
        assert (reply["ok"], reply["code"]) == (0, 251)
    assert batches.stored() == [{"_id": 0}]


def test_driver(people):
    people.app.insert_one({"_id": 0, "name": "n"})
    with pytest.raises(WriteError) as refused:
        people.app.insert_one({"_id": 1, "ssn": 1.5})
    assert refused.value.code == 31041
    with pytest.raises(OperationFailure) as refused:
        people.app.find_one_and_update({"_id": 0}, {"$set": {"ssn": 1.5}})
    assert refused.value.code == 31041
    operations = [
        InsertOne({"_id": 1, "ssn": SECRET}),
        InsertOne({"_id": 2, "ssn": 1.5}),
        UpdateOne({"_id": 0}, {"$set": {"ssn": [1]}}),
        ReplaceOne({"_id": 0}, {"ssn": SECRET}),
        DeleteOne({"ssn": 1.5}),
        UpdateOne({"_id": 3}, {"$set": {"ssn": SECRET}}, upsert=True),
    ]
    with pytest.raises(BulkWriteError) as refused:
        people.app.bulk_write(operations, ordered=False)
    details = refused.value.details
    assert [(e["index"], e["code"]) for e in details["writeErrors"]] == [
        (1, 31041), (2, 31041), (4, 31041),
    ]
    assert (details["nInserted"], details["nModified"], details["nUpserted"]) == (1, 1, 1)
    assert details["upserted"] == [{"index": 5, "_id": 3}]
    assert [d["_id"] for d in people.seen()] == [0, 1, 3]
    people.check()


def test_unacknowledged(people):
    quiet = people.app.with_options(write_concern=WriteConcern(w=0))
    quiet.insert_many([{"_id": 1}, {"_id": 2, "ssn": 1.5}, {"_id": 3}], ordered=False)
    dropped = people.rekeyd.wait_event("unacknowledged_statements_dropped")
    assert (dropped["statements"], dropped["collection"]) == (1, "people")
    for _ in range(100):
        if people.stored.count_documents({}) == 2:
            break
        people.app_client.admin.command("ping")
    assert [d["_id"] for d in people.seen()] == [1, 3]


# Sizes.


def sized(size, path="answer", **fields):
    """A document of exactly this many bytes."""
    document = {**fields, path: b""}
    document[path] = bytes(size - len(bson.encode(document)))
    assert len(bson.encode(document)) == size
    return document


def outgrowing(size, **fields):
    """As many bytes, and so many protected values that encryption adds more than 16 KiB."""
    contact = [{"phone": i} for i in range(400)]
    return sized(size, path="pad", contact=contact, **fields)


@pytest.mark.parametrize("size", [
    DOCUMENT_MAX - ENVELOPE_GROWTH, DOCUMENT_MAX - ENVELOPE_GROWTH + 1, DOCUMENT_MAX,
])
def test_largest_document(people, size):
    """One value: the document is stored as long as its ciphertext fits, and read again."""
    document = sized(size, _id=1)
    if size + ENVELOPE_GROWTH <= DOCUMENT_MAX:
        people.app.insert_one(document)
        assert people.app.find_one() == document
        assert people.app.find_one_and_update({}, {"$unset": {"n": 1}}) == document
        people.app.replace_one({"_id": 1}, document)
        assert people.seen() == [document]
        people.check()
    else:
        with pytest.raises(BulkWriteError) as refused:
            people.app.insert_many([{"_id": 0}, document, {"_id": 2}], ordered=False)
        assert [(e["index"], e["code"]) for e in refused.value.details["writeErrors"]] == [(1, 2)]
        assert [d["_id"] for d in people.seen()] == [0, 2]


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("limit", [DOCUMENT_MAX, OBJECT_MAX])
def test_unprotected_bytes_at_the_limits(batches, limit, extra):
    """Nothing to encrypt in it: word for word the server's answer."""
    statements = [{"_id": 1}, sized(limit + extra, path="pad", _id=2), {"_id": 3}]
    seen, wanted = (without_times(r) for r in batches.run("insert", statements, ordered=False))
    assert seen == wanted
    assert seen["ok"] == (0 if limit + extra > OBJECT_MAX else 1)


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
def test_only_encryption_makes_it_too_large(batches, ordered):
    """More than any BSON object may have would fail the whole command."""
    large = outgrowing(DOCUMENT_MAX, _id="bad")
    seen, wanted = batches.run(
        "insert", [{"_id": 1}, (large, {"_id": []}), {"_id": 3}], ordered=ordered
    )
    assert without_reasons(seen) == without_reasons(wanted)
    (error,) = seen["writeErrors"]
    assert error["code"] == 2 and "too large" in error["errmsg"]
    fitting = large["pad"][:-30_000]
    update = {"q": {"_id": 1}, "u": {"$set": {**large, "pad": fitting, "_id": 1}}}
    over = {"q": {"_id": 1}, "u": {**outgrowing(DOCUMENT_MAX), "_id": 1}}
    seen, wanted = batches.run(
        "update",
        [(over, {"q": {}, "u": {"$nothing": 1}}), update, {"q": {"_id": 1}, "u": {"$inc": {"a": 1}}}],
        ordered=ordered,
    )
    assert without_reasons(seen) == without_reasons(wanted)
    (error,) = seen["writeErrors"]
    assert error["code"] == 10334 and "too large" in error["errmsg"]
    batches.stored()


@pytest.mark.timeout(120)
def test_body_that_outgrows_the_limit_by_encryption(batches):
    """Some drivers send a batch as an array of the body and fill it to the limit."""
    each = 400
    count = (OBJECT_MAX - 1000) // (each + 9)
    documents = [sized(each, path="ssn", _id=i) for i in range(count)]
    documents[3] = ({"_id": 3, "ssn": 1.5}, {"_id": []})
    seen, wanted = batches.run("insert", documents, array=True, ordered=False)
    assert without_reasons(seen) == without_reasons(wanted)
    assert seen["n"] == count - 1 and seen["writeErrors"][0]["code"] == 31041
    assert batches.people.app.find_one({"_id": count - 1}) == documents[-1]
    assert batches.people.stored.count_documents({}) == count - 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("compressor", [None, "snappy"])
def test_longest_message(batches, compressor):
    """48,000,000 bytes reach the server, compressed or not; a message that only encryption makes
    longer is refused whole, and one that came too long ends the connection, as it does without
    rekeyd."""
    def message(db, size, **fields):
        documents = [sized(15_000_000, path="pad", _id=i) for i in range(3)]
        documents.append({"_id": 4, **fields, "pad": b""})
        sent = op_msg({"insert": "people", "$db": db}, sequence_section("documents", documents))
        documents[3]["pad"] = bytes(size - len(sent))
        whole = op_msg({"insert": "people", "$db": db}, sequence_section("documents", documents))
        return compressed(whole, compressor) if compressor else whole

    for client, db, _ in batches.clients:
        if compressor:
            hello = client.command({"hello": 1, "compression": [compressor], "$db": "admin"})
            assert hello["compression"] == [compressor]
        client.send(message(db, MESSAGE_MAX))
        reply = client.receive()
        assert reply.compressor == compressor
        assert without_times(reply.plain.document) == {"n": 4, "ok": 1}
    people = batches.people
    people.stored.delete_many({})
    client, db, _ = batches.clients[0]
    client.send(message(db, MESSAGE_MAX - ENVELOPE_GROWTH, answer=SECRET))
    assert client.receive().plain.document["n"] == 4
    people.check()
    people.stored.delete_many({})
    client.send(message(db, MESSAGE_MAX - ENVELOPE_GROWTH + 1, answer=SECRET))
    reply = client.receive().plain.document
    assert (reply["ok"], reply["code"]) == (0, 10334) and "smaller" in reply["errmsg"]
    assert people.stored.count_documents({}) == 0
    for client, db, _ in batches.clients:
        client.send(message(db, MESSAGE_MAX + 1))
        assert client.receive() is None


@pytest.mark.timeout(120)
def test_batches_of_large_documents(people):
    """Replies of 16 MB, first and later ones."""
    documents = [sized(4_000_000, _id=i) for i in range(9)]
    for document in documents:
        people.app.insert_one(document)
    assert list(people.app.find().sort("_id")) == documents
    assert list(people.app.find(batch_size=2).sort("_id")) == documents
    people.app.delete_many({})
