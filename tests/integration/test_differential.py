"""The same random operations on a protected collection through rekeyd and on a plain one without
it: an application must not be able to tell them apart, and nothing may lie in the clear."""

import datetime
import random

import pytest
from bson import Decimal128, Int64, ObjectId
from harness import SECRET
from pymongo import ReturnDocument
from pymongo.errors import OperationFailure

IDS = range(12)
STEPS = 150
COMPARABLE = [
    f"{SECRET} a", f"{SECRET} b", "", None, 1, Int64(1), 2, Int64(2**40), True, b"\0\1",
    datetime.datetime(2020, 1, 1), ObjectId(b"0" * 12),
]
ANYTHING = [
    *COMPARABLE, 1.5, float("inf"), Decimal128("1.5"), [], {}, [f"{SECRET} x", [None]],
    {"deep": {"er": f"{SECRET} y"}, "0": [1]},
]


class Pair:
    """One operation, done to both; outcomes are compared."""

    def __init__(self, people, seed):
        self.people, self.random = people, random.Random(seed)
        self.mirror = people.direct_client[f"{people.app_db.name}_mirror"].people
        self.mirror.drop()

    def pick(self, *choices):
        return self.random.choice(choices)

    def comparable(self):
        return self.pick(*COMPARABLE)

    def anything(self):
        return self.pick(*ANYTHING)

    def contact(self, depth=0):
        """What stands above protected paths: documents, arrays, arrays of arrays, scalars."""
        kind = self.pick("document", "document", "array", "scalar" if depth else "array")
        if kind == "scalar":
            return self.pick(None, 7, "x", [], {})
        if kind == "array":
            return [self.contact(depth + 1) for _ in range(self.random.randrange(3))]
        document = {"kind": self.pick("home", "work")}
        if self.random.random() < 0.7:
            document["phone"] = self.anything()
        if self.random.random() < 0.7:
            document["mail"] = self.comparable()
        return document

    def document(self):
        document = {"n": self.random.randrange(5)}
        for path, make in (
            ("answer", self.anything), ("ssn", self.comparable), ("contact", self.contact)
        ):
            if self.random.random() < 0.8:
                document[path] = make()
        return document

    def path_and_value(self):
        return self.pick(
            lambda: ("answer", self.anything()),
            lambda: ("ssn", self.comparable()),
            lambda: ("contact", self.contact()),
            lambda: ("contact.phone", self.anything()),
            lambda: ("contact.mail", self.comparable()),
            lambda: ("contact.0", self.contact(1)),
            lambda: ("contact.1.phone", self.anything()),
            lambda: ("contact.0.0.mail", self.comparable()),
            lambda: ("n", self.random.randrange(5)),
        )()

    def query(self):
        path, value, other = self.pick("ssn", "contact.mail"), self.comparable(), self.comparable()
        return self.pick(
            {path: value},
            {path: {"$in": [value, other]}},
            {path: {"$ne": value}},
            {path: {"$nin": [value, other]}},
            {"$or": [{path: value}, {"n": 1}]},
            {"$and": [{path: {"$not": {"$eq": value}}}, {"n": {"$gt": 1}}]},
            {"$nor": [{"ssn": value}, {"contact.mail": other}]},
            {"answer": {"$exists": self.pick(True, False)}, "n": {"$lt": 4}},
        )

    def step(self):
        """An operation as a function of the collection, with a result to compare."""
        one, query = {"_id": self.pick(*IDS)}, self.query()
        document, (path, value) = self.document(), self.path_and_value()
        equality = {**one, self.pick("ssn", "contact.mail"): self.comparable()}
        element, member = self.contact(1), {"mail": self.comparable(), "kind": "home"}
        after = self.pick(ReturnDocument.BEFORE, ReturnDocument.AFTER)
        return self.pick(
            lambda c: c.insert_one({**one, **document}).inserted_id,
            lambda c: c.replace_one(one, document, upsert=True).matched_count,
            lambda c: c.update_one(one, {"$set": {path: value}}, upsert=True).matched_count,
            lambda c: c.update_many(query, {"$set": {path: value}}).matched_count,
            lambda c: c.update_one(one, {"$unset": {path: 1}}).matched_count,
            lambda c: c.update_one(equality, {"$set": {"n": 9}}, upsert=True).matched_count,
            lambda c: c.update_one(
                equality, {"$setOnInsert": {path: value}}, upsert=True
            ).matched_count,
            lambda c: c.update_one(one, {"$push": {"contact": element}}).matched_count,
            lambda c: c.update_many({}, {"$push": {"contact.0": {"$each": [element, member]}}}).matched_count,
            lambda c: c.update_many({}, {"$pull": {"contact": member}}).matched_count,
            lambda c: c.update_one(one, {"$pop": {"contact": 1}}).matched_count,
            lambda c: c.update_one(one, [{"$set": {path: {"$literal": value}}}]).matched_count,
            lambda c: c.update_one(one, [{"$unset": path}, {"$set": {"n": 3}}]).matched_count,
            lambda c: c.find_one_and_update(one, {"$set": {path: value}}, return_document=after),
            lambda c: c.find_one_and_delete(query, sort=[("_id", 1)]),
            lambda c: c.delete_many({**query, "n": 2}).deleted_count,
            lambda c: list(c.find(query).sort("_id")),
            lambda c: c.count_documents(query),
            lambda c: list(c.find(one, {path: 1})),
            lambda c: list(c.find(one, {"contact.mail": 0, "answer": 0})),
        )

    def run(self):
        operation = self.step()
        seen, wanted = (outcome(operation, c) for c in (self.people.app, self.mirror))
        assert canonical(seen) == canonical(wanted)
        assert canonical(self.people.seen()) == canonical(list(self.mirror.find().sort("_id")))


def canonical(value) -> str:
    """Types count, the order of keys does not: what an upsert takes from an equality that may
    stand for several ciphertexts comes last."""
    if isinstance(value, list):
        return f"[{', '.join(map(canonical, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {canonical(v)}' for k, v in sorted(value.items()))}}}"
    return f"{type(value).__name__} {value!r}"


def outcome(operation, collection):
    try:
        return operation(collection)
    except OperationFailure as failure:
        return failure.code


@pytest.mark.parametrize("seed", range(8))
def test_one_key(people, seed):
    pair = Pair(people, seed)
    for _ in range(STEPS):
        pair.run()
    people.check()


@pytest.mark.parametrize("seed", [100, 101])
def test_three_keys(own_people, seed):
    pair = Pair(own_people, seed)
    for _ in range(3):
        for _ in range(STEPS // 2):
            pair.run()
        own_people.check()
        own_people.rotate()
