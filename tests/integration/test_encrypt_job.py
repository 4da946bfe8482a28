"""The transform `encrypt`: what was stored before there was a policy is encrypted where it lies."""

import math
import random

import pytest
from bson import Binary, Code, Decimal128, Int64, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.son import SON

from harness import CtlError, is_envelope
from harness.protected import RAW, SECRET
from legacy_corpus import encrypt as encrypt_as_before
from on_vault import FLAG_REMOTE, TRANSIT_FIELDS, flags
from sweeping import OLD_KEY, legacy_format, letters

pytestmark = pytest.mark.timeout(120)

VALUES = [1.5, -0.0, math.nan, "", "x", "\x00", "é" * 3000, SON(), SON([("$gt", 1)]), [], [None]]
VALUES += [["x", ["x"]], Binary(b""), Binary(b"y" * 16, 4), ObjectId(), True, DatetimeMS(5)]
VALUES += [Regex("^x", "i"), Code("f"), Code("f", {"x": 1}), 5, Timestamp(1, 2), Int64(5)]
VALUES += [Decimal128("1.10"), {"a": [{"b": MinKey()}]}]


def start_encrypting(swept, *options):
    return swept.rekeyd.ctl("start", swept.namespace, "--transform", "encrypt", *options)


def encrypt(swept) -> dict:
    return start_encrypting(swept, "--wait")["jobs"][0]


def raw(collection, session=None) -> list:
    with collection.with_options(RAW).find(session=session).sort("_id") as found:
        return [document.raw for document in found]


@pytest.mark.tsan
def test_plaintext_of_every_type_becomes_an_envelope(swept):
    swept.stored.insert_many([{"_id": i, "answer": v, "o": v} for i, v in enumerate(VALUES)])
    before = raw(swept.stored)
    job = encrypt(swept)
    assert (job["state"], job["transform"]) == ("complete", "encrypt")
    assert (job["swept"], job["plaintext"], job["deadLettered"]) == (len(VALUES), 0, 0)
    assert all(is_envelope(document["answer"]) for document in swept.stored.find())
    assert raw(swept.app) == before
    field = swept.verify()["fields"][0]
    assert (field["plaintext"], field["current"], field["opened"]) == (0, len(VALUES), len(VALUES))
    again = encrypt(swept)
    assert (again["swept"], again["alreadyCurrent"]) == (0, len(VALUES))


def test_everything_else_is_left_alone(start_swept, single_member_set):
    fields = {"answer": {"algorithm": "random", "legacy": [legacy_format(version_hex="01")]}}
    swept = start_swept(single_member_set, fields=fields, legacy_keys={"old": OLD_KEY})
    legacy = Binary(b"\x01" + encrypt_as_before("cbc", OLD_KEY, b"from before", random.Random(1)))
    swept.insert([1])
    swept.rotate()
    swept.stored.insert_many([{"_id": 2, "answer": legacy}, {"_id": 3, "answer": None}, {"_id": 4}])
    swept.stored.insert_one({"_id": 5, "answer": Binary(b"RK\xe1\x1e damaged", 0x8E)})
    before = raw(swept.stored)
    job = encrypt(swept)
    assert (job["scanned"], job["alreadyCurrent"], job["deadLettered"]) == (5, 5, 0)
    assert raw(swept.stored) == before


def test_paths_through_arrays(start_swept, single_member_set):
    fields = {"contacts.phone": "random", "tags": "random"}
    swept = start_swept(single_member_set, fields=fields)
    documents = [
        {"_id": 1, "contacts": ["x", {"phone": "1"}, {"phone": ["2", {}]}, [{"phone": 3}]]},
        {"_id": 2, "contacts": {"phone": {"a": 1}}, "tags": ["a", "a"]},
        {"_id": 3, "contacts": [{"phone": f"{i}"} for i in range(3000)], "tags": "a"},
    ]
    swept.stored.insert_many(documents)
    job = encrypt(swept)
    assert (job["swept"], job["deadLettered"]) == (3, 0)
    assert list(swept.app.find().sort("_id")) == documents
    verified = {f["path"]: f for f in swept.verify()["fields"]}
    assert verified["contacts.phone"]["current"] == 3004 and verified["tags"]["current"] == 2
    assert all(f["plaintext"] == 0 for f in verified.values())


def test_the_end_of_accept_plaintext(start_swept, single_member_set):
    field = {"algorithm": "deterministic", "type": "string", "accept_plaintext": True}
    swept = start_swept(single_member_set, fields={"answer": field})
    swept.stored.insert_many([{"_id": i, "answer": f"a{i % 10}"} for i in range(100)])
    assert swept.app.count_documents({"answer": "a3"}) == 10
    assert encrypt(swept)["swept"] == 100
    assert swept.verify()["fields"][0]["plaintext"] == 0
    policies = swept.rekeyd.config["policies"]
    del policies[0]["fields"][0]["accept_plaintext"]
    swept.rekeyd.reload({})
    swept.wait(lambda: swept.app.count_documents({"answer": "a3"}) == 10)


def everywhere(swept) -> str:
    """All that Rekey has said and stored."""
    said = swept.rekeyd.logs() + str(swept.rekeyd.ctl("jobs")) + str(letters(swept, "--all"))
    return said + "".join(
        str(list(swept.state[name].find())) for name in swept.state.list_collection_names()
    )


def test_what_cannot_be_encrypted_is_told_without_its_value(start_swept, single_member_set):
    fields = {"answer": {"algorithm": "deterministic", "type": "string"}}
    swept = start_swept(single_member_set, fields=fields)
    values = [f"{SECRET} fits", {"a": SECRET}, 5, MinKey(), Binary(SECRET.encode())]
    swept.stored.insert_many([{"_id": i, "answer": v} for i, v in enumerate(values)])
    swept.stored.insert_one({"_id": 5, "answer": f"{SECRET} refused"})
    swept.stored_db.command("collMod", "people", validator={"_id": {"$ne": 5}})
    job = encrypt(swept)
    assert (job["state"], job["swept"], job["deadLettered"]) == ("complete", 1, 5)
    assert {letter["docId"]: letter["reason"] for letter in letters(swept)} == {
        1: "a value of this type cannot be encrypted deterministically",
        2: "the value is not of the policy's type",
        3: "a value of this type cannot be encrypted",
        4: "the value is not of the policy's type",
        5: "document fails validation",
    }
    for letter in swept.state.deadLetters.find():
        assert letter["rawOmitted"] and "raw" not in letter and letter["transform"] == "encrypt"
    assert SECRET not in everywhere(swept)

    # They are not re-encryption's business, which does not meet them, and so resolves none.
    swept.rotate()
    assert swept.sweep()["swept"] == 1
    assert len(letters(swept)) == 5

    # Tried again they are encrypted.
    swept.stored.update_one({"_id": 2}, {"$set": {"answer": f"{SECRET} repaired"}})
    swept.rekeyd.ctl("dead-letters", "retry")
    swept.wait(lambda: not any(letter["retry"] for letter in letters(swept)))
    assert {letter["docId"] for letter in letters(swept)} == {1, 3, 4, 5}
    assert is_envelope(swept.stored.find_one({"_id": 2})["answer"])
    swept.stored.delete_many({"_id": {"$in": [1, 3, 4, 5]}})
    encrypt(swept)
    swept.wait(lambda: letters(swept) == [])
    assert SECRET not in everywhere(swept)


def test_a_transform_that_does_not_exist(swept):
    swept.insert([1])
    with pytest.raises(CtlError, match='there is no transform "anonymize"'):
        swept.rekeyd.ctl("start", swept.namespace, "--transform", "anonymize")


# Each of these equals what it was for mongod, and is another value.
CHANGES = [
    (1, 1.0),
    (1, Int64(1)),
    (1.0, Decimal128("1")),
    ("x", ["x", "y"]),
    ("a", "A"),
    ("long " * 100, "LONG " * 100),
    ([1], [[1], 2]),
    ({"a": 1}, [{"a": 1}]),
    (Binary(b"b"), [Binary(b"b")]),
    (True, [False, True]),
    (Code("f"), [Code("f"), Code("g")]),
    (Regex("r"), [Regex("r"), "r"]),
    ("r", Regex("r")),
    (math.nan, Decimal128("NaN")),
]


@pytest.mark.parametrize("kind", ["number", "string"])
@pytest.mark.parametrize("collated", [False, True])
def test_what_others_write_stays(start_swept, single_member_set, kind, collated):
    fields = {"answer": "random", "contacts.phone": "random"}
    swept = start_swept(single_member_set, fields=fields)
    options = {"collation": {"locale": "en", "strength": 2}} if collated else {}
    swept.stored_db.create_collection("people", **options)
    ids = [f"id {i}" if kind == "string" else i for i in range(len(CHANGES))]
    swept.stored.insert_many([{"_id": i, "answer": old} for i, (old, _) in zip(ids, CHANGES)])
    many = "zz" if kind == "string" else 1000
    contacts = [{"phone": f"p{i}", "at": "home"} for i in range(50)]
    swept.stored.insert_one({"_id": many, "contacts": contacts})
    swept.stored_db.command("profile", 2)
    with swept.direct.start_session() as session:
        session.start_transaction()  # whose changes the sweep does not see, but waits for
        for i, (_, new) in zip(ids, CHANGES):
            swept.stored.update_one({"_id": i}, {"$set": {"answer": new}}, session=session)
        contact = {"$set": {"contacts.7.phone": ["p7", 1]}}
        swept.stored.update_one({"_id": many}, contact, session=session)
        after = raw(swept.stored, session)
        start_encrypting(swept)
        batch = {"command.find": "people", "command.projection.answer": {"$exists": True}}
        swept.wait(lambda: swept.stored_db.system.profile.find_one(batch))
        session.commit_transaction()
    swept.stored_db.command("profile", 0)
    swept.wait(lambda: swept.job()["state"] == "complete")
    job = swept.job()
    assert (job["changedAgain"], job["swept"]) == (len(CHANGES) + 1, len(CHANGES) + 1)
    assert swept.verify()["fields"][0]["plaintext"] == 0
    assert raw(swept.app) == after


@pytest.mark.tsan
def test_values_that_vault_encrypts(vault, start):
    people = start(vault, fields=TRANSIT_FIELDS, mode="transit")
    documents = [{"_id": i, "answer": {"a": f"{SECRET} {i}"}, "ssn": i} for i in range(50)]
    people.stored.insert_many(documents)
    job = people.rekeyd.ctl("start", people.namespace, "--transform", "encrypt", "--wait")
    (job,) = job["jobs"]
    assert (job["state"], job["swept"], job["plaintext"]) == ("complete", 50, 0)
    assert all(flags(d["ssn"]) == flags(d["answer"]) == FLAG_REMOTE for d in people.stored.find())
    assert list(people.app.find().sort("_id")) == documents
    people.check()
