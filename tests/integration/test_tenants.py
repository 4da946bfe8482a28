"""A key for each tenant: chosen by a field of the document, in writes, queries and sweeps."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from bson import SON, Binary, Decimal128, Int64, ObjectId, encode
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import OperationFailure, WriteError

from harness import Rekeyd, key_id, policy

FIELDS = {"ssn": {"algorithm": "deterministic"}, "note": "random", "contact.mail": "random"}


def tenanted(namespace, path="org", fields=None, **options):
    return {**policy(namespace, fields or FIELDS), "key": "people", "tenant": path, **options}


class Both:
    def __init__(self, rekeyd, client, direct, db_name):
        self.rekeyd, self.app, self.stored = rekeyd, client[db_name].c, direct[db_name].c
        self.state = direct[rekeyd.config["upstream"]["state_db"]]
        self.app_db, self.stored_db = client[db_name], direct[db_name]

    def names(self) -> dict:
        return {key["id"]: key["name"] for key in self.rekeyd.ctl("keys", "list")["keys"]}

    def key_of(self, _id, path="ssn") -> str:
        return self.names()[key_id(self.stored.find_one({"_id": _id})[path])]


@pytest.fixture
def both(start_rekeyd, single_member_set, db_name):
    rekeyd = start_rekeyd(single_member_set, [tenanted(f"{db_name}.c")])
    with rekeyd.client() as client, single_member_set.client() as direct:
        yield Both(rekeyd, client, direct, db_name)


def refused(call, *words, code=None):
    with pytest.raises((OperationFailure, WriteError)) as failure:
        call()
    for word in words:
        assert word in str(failure.value), str(failure.value)
    assert code is None or failure.value.code == code, str(failure.value)


def test_every_write_lies_under_its_tenants_key(both):
    app = both.app
    app.insert_one({"_id": 1, "org": "acme", "ssn": "a", "note": "n", "contact": [{"mail": "m"}]})
    app.insert_many([{"_id": i, "org": f"o{i % 2}", "ssn": f"s{i}"} for i in range(2, 6)])
    app.update_one({"org": "acme", "ssn": "a"}, {"$set": {"note": "changed", "n": 1}})
    app.update_many({"$and": [{"org": "o0"}, {"n": None}]}, {"$set": {"note": "many"}})
    app.update_one({"org": "o7", "ssn": "up"}, {"$set": {"note": "up"}}, upsert=True)
    app.replace_one({"_id": 3}, {"org": "o1", "ssn": "replaced"})
    app.find_one_and_update({"org": {"$eq": "o1"}, "ssn": "s5"}, {"$set": {"note": "fam"}})
    app.bulk_write(
        [
            InsertOne({"_id": 20, "org": "b1", "ssn": "x"}),
            UpdateOne({"_id": 20, "org": "b1"}, {"$set": {"ssn": "y", "org": "b1"}}),
            ReplaceOne({"_id": 21}, {"org": "b2", "ssn": "z"}, upsert=True),
            DeleteOne({"org": "o0", "ssn": "s2"}),
        ]
    )
    names = both.names()
    for document in both.stored.find():
        for path in ("ssn", "note"):
            if path in document:
                assert names[key_id(document[path])] == f"people:{document['org']}"
        for contact in document.get("contact", []):
            assert names[key_id(contact["mail"])] == f"people:{document['org']}"
    assert app.find_one({"org": "acme", "ssn": "a"})["note"] == "changed"
    assert app.find_one({"org": "o0", "ssn": "s2"}) is None
    assert app.find_one({"org": "o7", "ssn": "up"})["note"] == "up"
    assert app.find_one({"ssn": "y", "org": "b1"})["_id"] == 20
    assert app.count_documents({"org": "o1", "ssn": {"$ne": "s5"}}) == 1
    assert app.find_one({"org": "acme", "ssn": "x"}) is None
    assert sorted(d["ssn"] for d in app.find()) == ["a", "replaced", "s4", "s5", "up", "y", "z"]
    assert sorted(app.distinct("ssn"))[0] == "a"


@pytest.mark.parametrize(
    "value, name",
    [
        ("a b/ü:%", "a%20b%2F%C3%BC%3A%25"),
        (5, "int:5"),
        (Int64(5), "int:5"),
        (5.0, "int:5"),
        (-7, "int:-7"),
        (ObjectId("507f1f77bcf86cd799439011"), "oid:507f1f77bcf86cd799439011"),
        (Binary.from_uuid(uuid.UUID(int=5)), "uuid:" + "0" * 31 + "5"),
    ],
)
def test_names(both, value, name):
    both.app.insert_one({"_id": 1, "org": value, "ssn": "a"})
    assert both.key_of(1) == f"people:{name}"
    assert both.app.find_one({"org": value, "ssn": "a"})["_id"] == 1


def test_numbers_that_are_equal_are_one_tenant(both):
    both.app.insert_many([{"org": v, "ssn": "a"} for v in (5, Int64(5), 5.0)])
    both.app.insert_one({"org": "5", "ssn": "a"})
    assert both.app.count_documents({"org": 5, "ssn": "a"}) == 3
    assert both.app.count_documents({"org": "5", "ssn": "a"}) == 1


UNUSABLE = [["acme"], [], None, True, 1.5, {"a": 1}, Decimal128("5"), "", "x" * 200, Binary(b"x")]


@pytest.mark.parametrize("value", UNUSABLE, ids=str)
def test_what_names_no_tenant(both, value):
    """Not even without a protected value: a later update would find it."""
    for document in ({"org": value, "ssn": "a"}, {"org": value}):
        refused(lambda d=document: both.app.insert_one(d), "keys are chosen by", code=31041)
    refused(lambda: both.app.replace_one({"_id": 1}, {"org": value}, upsert=True))
    refused(lambda: both.app.find_one({"org": value, "ssn": "a"}), "tenant")
    refused(lambda: both.app.update_one({"org": value}, {"$set": {"note": "a"}}), "tenant")
    assert both.stored.count_documents({}) == 0


def test_where_the_tenant_is_not_known(both):
    app, x = both.app, "x"
    app.insert_one({"_id": 1, "org": "acme", "ssn": "a", "note": "n"})
    app.insert_one({"_id": 2, "plain": 1})
    app.insert_one({"_id": 3, "ssn": None})
    before = list(both.stored.find())
    refused(lambda: app.insert_one({"ssn": x}), "tenant")
    refused(lambda: app.insert_many([{"org": "acme", "ssn": x}, {"note": x}]), "tenant")
    both.stored.delete_many({"org": "acme", "_id": {"$ne": 1}})
    for query in (
        {"ssn": x},
        {"org": {"$in": ["acme"]}, "ssn": x},
        {"org": {"$ne": "acme"}, "ssn": x},
        {"$or": [{"org": "acme"}, {"org": "b"}], "ssn": x},
        {"org": "acme", "$and": [{"org": "b"}], "ssn": x},
        {"org": {"$regex": "a"}, "ssn": x},
        {"$expr": {"$eq": ["$org", "acme"]}, "ssn": x},
        {"$nor": [{"org": "acme", "ssn": x}]},
    ):
        refused(lambda q=query: app.find_one(q), "tenant", code=51092)
        refused(lambda q=query: app.delete_one(q), "tenant")
        refused(lambda q=query: app.update_one(q, {"$set": {"plain": 1}}), "tenant")
        refused(lambda q=query: app.find_one_and_delete(q), "tenant")
    collation = {"locale": "en", "strength": 1}
    refused(lambda: app.find_one({"org": "acme", "ssn": x}, collation=collation))
    refused(
        lambda: app.update_one({"org": "ACME"}, {"$set": {"note": x}}, collation=collation),
        "collation",
    )
    refused(lambda: app.update_one({"_id": 1}, {"$set": {"note": x}}), "tenant")
    refused(lambda: app.update_one({"_id": 1}, {"$push": {"contact": {"mail": x}}}), "tenant")
    for pipeline in (
        [{"$match": {"ssn": "a"}}],
        [{"$match": {"name": 1}}, {"$match": {"org": "acme", "ssn": "a"}}],
        [{"$addFields": {"org": "acme"}}, {"$match": {"org": "acme", "ssn": "a"}}],
        [{"$match": {"org": "acme"}}, {"$unionWith": "c"}, {"$match": {"ssn": "a"}}],
        [{"$match": {"org": "acme"}}, {"$group": {"_id": "$ssn"}}],
        [{"$group": {"_id": "$ssn"}}],
        [{"$lookup": {"from": "c", "localField": "ssn", "foreignField": "ssn", "as": "x"}}],
        [{"$unionWith": {"coll": "c", "pipeline": [{"$match": {"org": "acme", "ssn": "a"}}]}}],
    ):
        refused(lambda p=pipeline: list(app.aggregate(p)))
    assert list(both.stored.find()) == before
    # What needs no key needs no tenant.
    assert app.find_one({"_id": 1})["ssn"] == "a"
    assert app.find_one({"ssn": {"$exists": True}, "_id": 1})["note"] == "n"
    assert list(app.aggregate([{"$match": {"org": "acme"}}]))[0]["ssn"] == "a"
    found = [{"$match": {"org": "acme"}}, {"$match": {"$expr": {"$eq": ["$ssn", "a"]}}}]
    assert [d["_id"] for d in app.aggregate(found)] == [1]
    app.update_one({"_id": 1}, {"$unset": {"note": ""}, "$set": {"plain": 2}})
    assert app.find_one({"org": "acme", "ssn": "a"})["plain"] == 2


MOVES = [
    {"$set": {"org": "b"}},
    {"$set": {"org": "b", "ssn": "x", "note": "x", "contact": []}},
    {"$set": {"org": ["acme"]}},
    {"$set": {"org.x": 1}},
    {"$unset": {"org": ""}},
    {"$rename": {"org": "former"}},
    {"$rename": {"plain": "org"}},
    {"$rename": {"plain": "org.x"}},
    {"$push": {"org": "b"}},
    {"$addToSet": {"org": "b"}},
    {"$inc": {"org": 1}},
    {"$min": {"org": "a"}},
    {"$max": {"org": "b"}},
    {"$currentDate": {"org": True}},
    {"$setOnInsert": {"org": "b"}},
    [{"$set": {"org": "b"}}],
    [{"$set": {"plain": 1}}],
    [{"$unset": "org"}],
    [{"$replaceWith": {"_id": "$_id", "ssn": "$ssn"}}],
]


@pytest.mark.parametrize("update", MOVES, ids=str)
def test_a_document_keeps_its_tenant(both, update):
    app = both.app
    app.insert_one({"_id": 1, "org": "acme", "ssn": "a", "plain": "p"})
    before = both.stored.find_one()
    for query in ({"_id": 1}, {"_id": 1, "org": "acme"}):
        refused(lambda q=query: app.update_one(q, update), "keys are chosen")
        refused(lambda q=query: app.find_one_and_update(q, update), "keys are chosen")
        refused(lambda q=query: app.bulk_write([UpdateOne(q, update)]))
        refused(lambda q=query: app.update_one({**q, "no": 1}, update, upsert=True))
    assert list(both.stored.find()) == [before]


def test_the_same_tenant_may_be_written_again(both):
    app = both.app
    app.insert_one({"_id": 1, "org": "acme", "ssn": "a"})
    app.update_one({"_id": 1, "org": "acme"}, {"$set": {"org": "acme", "ssn": "b"}})
    app.update_one(
        {"_id": 2, "org": "b"}, {"$set": {"ssn": "x"}, "$setOnInsert": {"org": "b"}}, upsert=True
    )
    assert app.find_one({"org": "acme", "ssn": "b"})["_id"] == 1
    assert app.find_one({"org": "b", "ssn": "x"})["_id"] == 2
    assert both.key_of(2) == "people:b"


def test_a_whole_document_changes_its_tenant(both):
    app = both.app
    app.insert_one({"_id": 1, "org": "acme", "ssn": "a"})
    app.replace_one({"org": "acme", "ssn": "a"}, {"org": "b", "ssn": "a"})
    assert both.key_of(1) == "people:b"
    assert app.find_one({"org": "b", "ssn": "a"})["_id"] == 1
    app.find_one_and_replace({"_id": 1, "org": "b", "ssn": "a"}, {"org": "d", "ssn": "a"})
    assert both.key_of(1) == "people:d"
    refused(lambda: app.replace_one({"_id": 1, "org": "d"}, {"ssn": "a"}), "tenant")


def test_two_fields_of_one_name(both):
    """Nobody could tell which of them mongod compares."""
    app = both.app
    for document in (
        SON([("_id", 1), ("org", "acme"), ("ssn", "a")]),
        SON([("_id", 1), ("ssn", "a"), ("org", "acme")]),
    ):
        raw = encode(document)
        twice = raw[4:-1] + encode({"org": "b"})[4:-1]
        doubled = RawBSONDocument((len(twice) + 5).to_bytes(4, "little") + twice + b"\0")
        refused(lambda d=doubled: app.insert_one(d), "twice", code=31041)
    assert both.stored.count_documents({}) == 0


def test_another_tenants_ciphertext_is_not_taken(both):
    app = both.app
    app.insert_one({"_id": 1, "org": "acme", "ssn": "a"})
    raw = both.stored.find_one()["ssn"]
    refused(lambda: app.insert_one({"_id": 2, "org": "b", "ssn": raw}), "another tenant", code=31041)
    refused(lambda: app.update_one({"_id": 9, "org": "b"}, {"$set": {"ssn": raw}}, upsert=True))
    app.insert_one({"_id": 3, "org": "acme", "ssn": raw})
    assert app.count_documents({"org": "acme", "ssn": "a"}) == 2


def test_nested_path(start_rekeyd, single_member_set, db_name):
    rekeyd = start_rekeyd(single_member_set, [tenanted(f"{db_name}.c", path="meta.org")])
    with rekeyd.client() as client, single_member_set.client() as direct:
        both = Both(rekeyd, client, direct, db_name)
        both.app.insert_one({"_id": 1, "meta": {"org": "acme", "x": 1}, "ssn": "a"})
        assert both.key_of(1) == "people:acme"
        assert both.app.find_one({"meta.org": "acme", "ssn": "a"})["_id"] == 1
        both.app.update_one({"_id": 1, "meta.org": "acme"}, {"$set": {"meta.x": 2, "note": "n"}})
        refused(lambda: both.app.insert_one({"meta": [{"org": "acme"}], "ssn": "a"}))
        for update in (
            {"$set": {"meta": {"org": "b"}}},
            {"$unset": {"meta": ""}},
            {"$set": {"meta.org.x": 1}},
            {"$rename": {"meta": "m"}},
        ):
            refused(lambda u=update: both.app.update_one({"meta.org": "acme"}, u), "keys are chosen")
        refused(lambda: both.app.find_one({"meta": {"org": "acme"}, "ssn": "a"}), "tenant")


def test_one_tenant_is_destroyed(both):
    app = both.app
    app.insert_many([{"_id": i, "org": f"o{i % 3}", "ssn": f"s{i}"} for i in range(30)])
    lost = [id for id, name in both.names().items() if name == "people:o1"]
    both.rekeyd.ctl(
        "keys", "destroy", "people:o1", "--shred", "--count", "10", "--confirm", "people:o1"
    )
    both.rekeyd.wait_event("key_dropped")
    gone = {"rekeyError": "key destroyed", "keyId": lost[0], "key": "people:o1"}
    found = list(app.find(sort=[("_id", 1)], batch_size=4))
    assert [d["ssn"] for d in found] == [gone if i % 3 == 1 else f"s{i}" for i in range(30)]
    assert app.count_documents({"org": "o0", "ssn": "s3"}) == 1
    for use in (
        lambda: app.insert_one({"org": "o1", "ssn": "x"}),
        lambda: app.find_one({"org": "o1", "ssn": "x"}),
    ):
        refused(use, "rekeyctl keys rotate people:o1")
    app.insert_one({"org": "o2", "ssn": "x"})


def test_sweep_and_verify(both, db_name):
    app = both.app
    app.insert_many([{"_id": i, "org": f"o{i % 3}", "ssn": f"s{i}"} for i in range(30)])
    assert both.rekeyd.ctl("verify", check=False).returncode == 0
    new = both.rekeyd.ctl("keys", "rotate", "people:o1")["keyId"]
    while all(e["to"] != new for e in both.rekeyd.events("current_key_changed")):
        time.sleep(0.02)
    assert app.count_documents({"org": "o1", "ssn": "s4"}) == 1
    assert both.rekeyd.ctl("verify", check=False).returncode != 0
    both.rekeyd.ctl("start", "--wait")
    assert both.rekeyd.ctl("verify", check=False).returncode == 0
    ids = {d["_id"]: key_id(d["ssn"]) for d in both.stored.find()}
    assert {i for i, key in ids.items() if key == new} == {i for i in range(30) if i % 3 == 1}
    assert sorted(d["ssn"] for d in app.find()) == sorted(f"s{i}" for i in range(30))


def test_from_one_key_to_one_for_each(start_rekeyd, single_member_set, db_name):
    namespace = f"{db_name}.c"
    plain = {**policy(namespace, FIELDS), "key": "people"}
    rekeyd = start_rekeyd(single_member_set, [plain])
    with rekeyd.client() as client, single_member_set.client() as direct:
        both = Both(rekeyd, client, direct, db_name)
        both.app.insert_many([{"_id": i, "org": f"o{i % 3}", "ssn": f"s{i}"} for i in range(9)])
        both.app.insert_one({"_id": 99, "ssn": "nobody's"})
        rekeyd.reload({"policies": [tenanted(namespace)]})
        rekeyd.wait_event("reloaded")
        assert both.app.find_one({"org": "o1", "ssn": "s4"})["_id"] == 4
        rekeyd.ctl("start", "--wait", check=False)
        names = both.names()
        for document in both.stored.find({"_id": {"$lt": 99}}):
            assert names[key_id(document["ssn"])] == f"people:{document['org']}"
        assert both.state.deadLetters.count_documents({}) == 1
        assert both.app.find_one({"_id": 99})["ssn"] == "nobody's"
        assert both.app.find_one({"org": "o1", "ssn": "s4"})["_id"] == 4


def test_how_many_tenants(start_rekeyd, single_member_set, db_name):
    settings = {"keys": {"tenants_max": 2}}
    rekeyd = start_rekeyd(single_member_set, [tenanted(f"{db_name}.c")], settings=settings)
    with rekeyd.client() as client:
        app = client[db_name].c
        app.insert_one({"org": "a", "ssn": "x"})
        app.insert_one({"org": "b", "ssn": "x"})
        refused(lambda: app.insert_one({"org": "c", "ssn": "x"}), "keys.tenants_max")
        app.insert_one({"org": "a", "ssn": "x"})
        rekeyd.ctl("keys", "rotate", "people:c")
        app.insert_one({"org": "c", "ssn": "x"})


def test_tenants_by_hand(start_rekeyd, single_member_set, db_name):
    settings = {"keys": {"create_tenant_keys": False}}
    rekeyd = start_rekeyd(single_member_set, [tenanted(f"{db_name}.c")], settings=settings)
    with rekeyd.client() as client:
        app = client[db_name].c
        refused(lambda: app.insert_one({"org": "a", "ssn": "x"}), "keys rotate people:a")
        rekeyd.ctl("keys", "rotate", "people:a")
        app.insert_one({"org": "a", "ssn": "x"})


def test_two_instances_meet_new_tenants(both, db_name):
    with both.rekeyd.sibling() as second, second.client() as other:
        apps = [both.app, other[db_name].c]

        def write(i):
            apps[i % 2].insert_one({"_id": i, "org": f"o{i // 4}", "ssn": "x"})

        with ThreadPoolExecutor(8) as pool:
            for job in [pool.submit(write, i) for i in range(40)]:
                job.result()
        names = [name for name in both.names().values() if ":" in name]
        assert sorted(names) == sorted(f"people:o{i}" for i in range(10))
        for app in apps:
            for i in range(10):
                assert app.count_documents({"org": f"o{i}", "ssn": "x"}) == 4


def test_refused_configurations(single_member_set, tmp_path, db_name):
    for i, (path, reason) in enumerate(
        [("ssn", "protected"), ("contact", "protected"), ("ssn.x", "protected"), ("a..b", "empty")]
    ):
        rekeyd = Rekeyd(
            single_member_set, [tenanted(f"{db_name}.c", path=path)], directory=tmp_path / str(i)
        )
        result = rekeyd.ctl("config", "check", check=False)
        assert result.returncode != 0 and reason in result.stderr
