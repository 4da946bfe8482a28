"""Ways past the encryption that were tried against real servers. What got through once is here;
commands that are refused whole are in test_refusals.py. Nothing secret may reach mongod's log
either, which shows every command here."""

import secrets

import pytest
from bson import Binary
from bson.son import SON
from pymongo.errors import OperationFailure

from harness import SECRET, is_envelope, people_policy, policy, protected

HOME = {"kind": "home", "phone": f"{SECRET} home", "mail": f"{SECRET} mail"}
WORK = {"kind": "work", "phone": f"{SECRET} work"}


@pytest.fixture
def logged(people):
    """people with two contacts, on a server that logs every command while the test runs."""
    people.app.insert_one({"_id": 1, "name": "n", "ssn": SECRET, "contact": [HOME, WORK]})
    (server,) = people.rekeyd.upstream.members
    start = len(server.logs())
    people.stored_db.command("profile", 0, slowms=-1)
    yield people
    people.stored_db.command("profile", 0, slowms=100)
    people.check()
    said = server.logs()[start:]
    assert people.stored_db.name in said
    assert SECRET not in said


def refused(db, command, *codes):
    with pytest.raises(OperationFailure) as failure:
        db.command(command)
    assert failure.value.code in codes, failure.value
    assert SECRET not in str(failure.value)


def test_conditions_on_elements(logged):
    """Conditions in arrayFilters were sent in plaintext, and matched nothing."""
    change = {"$set": {"contact.$[c].kind": "x"}}
    for condition in ({"c.mail": SECRET}, {"c": {"$elemMatch": {"phone": SECRET}}},
                      {"$or": [{"c.kind": "y"}, {"c.phone": SECRET}]}):
        statement = {"q": {"_id": 1}, "u": change, "arrayFilters": [condition]}
        refused(logged.app_db, SON(update="people", updates=[statement]), 51150)
        modify = SON(findAndModify="people", query={"_id": 1}, update=change,
                     arrayFilters=[condition])
        refused(logged.app_db, modify, 51150)
    assert logged.app.find_one({"_id": 1})["contact"] == [HOME, WORK]


def test_positions(logged):
    """Elements may be chosen by what is not encrypted, and what is set in them is."""
    new = f"{SECRET} new"
    logged.app.update_one({"contact.kind": "work"}, {"$set": {"contact.$.phone": new}})
    assert logged.app.find_one()["contact"] == [HOME, {**WORK, "phone": new}]
    logged.app.update_one({}, {"$set": {"contact.$[c]": {"kind": "away", "phone": new}}},
                          array_filters=[{"c.kind": "home"}])
    logged.app.update_one({}, {"$set": {"contact.$[].mail": new}})
    assert [c["kind"] for c in logged.app.find_one()["contact"]] == ["away", "work"]
    (stored,) = logged.check()
    for contact in stored["contact"]:
        assert is_envelope(contact["phone"]) and is_envelope(contact["mail"])
    assert logged.app.find_one({"contact.mail": new})["contact"][0]["mail"] == new


def test_above_protected_fields(logged):
    find = logged.app.count_documents
    assert find({"contact": {"$elemMatch": {"kind": "home", "mail": HOME["mail"]}}}) == 1
    assert find({"contact": {"$elemMatch": {"kind": "work", "mail": HOME["mail"]}}}) == 0
    assert find({"contact": {"$size": 2}}) == 1 and find({"contact": {"$size": 1}}) == 0
    assert find({"contact": []}) == 0 and find({"contact": {"$ne": []}}) == 1
    assert logged.app.find_one({}, {"contact": {"$slice": -1}})["contact"] == [WORK]


def test_streams_over_many_collections(logged):
    """A filter of the whole database went to the server in plaintext, and never matched."""
    watched = {"fullDocument.ssn": SECRET}
    pipeline = [{"$changeStream": {}}, {"$match": watched}]
    refused(logged.app_db, SON(aggregate=1, pipeline=pipeline, cursor={}), 51092)
    pipeline[0] = {"$changeStream": {"allChangesForCluster": True}}
    refused(logged.app_client.admin, SON(aggregate=1, pipeline=pipeline, cursor={}), 51092)
    with logged.app_db.watch([{"$match": {"fullDocument.name": "m"}}]) as stream:
        logged.app.insert_one({"_id": 2, "name": "m", "ssn": SECRET})
        assert next(stream)["fullDocument"]["ssn"] == SECRET


def test_plan_cache(logged):
    refused(logged.app_db, SON(planCacheClear="people", query={"contact.phone": SECRET}), 51158)
    logged.app_db.command(SON(planCacheClear="people", query={"ssn": SECRET}))


def test_views(logged):
    """Queries on a view that shows protected fields were sent in plaintext."""
    refused(logged.app_db, SON(create="view", viewOn="people", pipeline=[]), 51092)
    names = [{"$project": {"name": 1}}]
    logged.app_db.command(SON(create="names", viewOn="people", pipeline=names))
    assert logged.app_db.names.find_one() == {"_id": 1, "name": "n"}
    logged.app_db.names.drop()


def test_view_with_a_policy(single_member_set, start_rekeyd):
    db_name = f"t{secrets.token_hex(5)}"
    ssn = {"algorithm": "deterministic", "name": f"{db_name}.people/ssn"}
    policies = [people_policy(db_name), policy(f"{db_name}.view", {"ssn": ssn})]
    with protected(start_rekeyd(single_member_set, policies), db_name) as people:
        people.app.insert_many({"_id": i, "ssn": f"{SECRET} {i}"} for i in range(3))
        people.app_db.command(SON(create="view", viewOn="people", pipeline=[]))
        found = people.app_db.view.find_one({"ssn": f"{SECRET} 1"})
        assert found == {"_id": 1, "ssn": f"{SECRET} 1"}


def test_totals_may_be_written(logged):
    """Documents of harmless fields may be stored by the server."""
    logged.app.aggregate([{"$group": {"_id": "$name", "n": {"$sum": 1}}}, {"$out": "totals"}])
    assert logged.stored_db.totals.find_one() == {"_id": "n", "n": 1}
    logged.stored_db.totals.drop()


# Bytes that only look like an envelope, to make every later reader fail.

FORGED = Binary(b"RK\xe1\x1e\1\1\2\0" + bytes(80), 0x8E)


def poison(app, forged):
    """Each way to store a value at an unprotected path."""
    yield lambda: app.insert_one({"_id": 9, "name": forged})
    yield lambda: app.insert_one({"_id": 9, "list": [{"deep": [forged]}]})
    yield lambda: app.insert_one({"_id": forged})
    yield lambda: app.insert_one({"_id": 9, "contact": forged})
    yield lambda: app.insert_one({"_id": 9, "contact": [{"kind": forged}, forged]})
    yield lambda: app.replace_one({"_id": 1}, {"name": forged})
    yield lambda: app.find_one_and_replace({"_id": 1}, {"name": forged})
    yield lambda: app.update_one({"_id": 9, "name": forged}, {"$set": {"n": 1}}, upsert=True)
    for update in (
        {"$set": {"name": forged}}, {"$set": {"contact.0.kind": forged}},
        {"$setOnInsert": {"name": [forged]}}, {"$set": {"contact": [forged]}},
        {"$push": {"list": forged}}, {"$addToSet": {"list": {"$each": [forged]}}},
        {"$push": {"contact": forged}}, {"$push": {"contact": {"kind": forged}}},
        {"$min": {"name": forged}}, {"$max": {"name": forged}},
        [{"$set": {"name": forged}}], [{"$set": {"name": {"$literal": [forged]}}}],
        [{"$set": {"contact": {"kind": forged}}}], [{"$set": {"contact": forged}}],
        [{"$replaceWith": {"name": forged}}], [{"$project": {"name": {"$literal": forged}}}],
    ):
        yield lambda update=update: app.update_one({"_id": 1}, update, upsert=True)
        yield lambda update=update: app.find_one_and_update({"_id": 1}, update, upsert=True)
    for update in ([{"$set": {"name": "$$x"}}],):
        yield lambda update=update: app.update_one({"_id": 1}, update, let={"x": forged})
        yield lambda update=update: app.find_one_and_update({"_id": 1}, update, let={"x": forged})


def test_poison_is_not_stored(people):
    wanted = {"_id": 1, "name": "n", "ssn": SECRET, "contact": [HOME], "list": []}
    people.app.insert_one(dict(wanted))
    genuine = people.stored.find_one()["ssn"]
    for forged in (FORGED, Binary(FORGED[:4], 0x8E), genuine):
        for write in poison(people.app, forged):
            with pytest.raises(OperationFailure) as refused:
                write()
            assert refused.value.code == 31041 and "ciphertext" in str(refused.value)
        assert people.seen() == [wanted]
    people.app.update_one({"_id": 1}, {"$set": {"name": Binary(FORGED, 0), "s": "\x8eRK"}})
    assert people.app.find_one()["name"] == bytes(FORGED), "the bytes alone are nothing special"


def test_poison_beside_protected_collections(people):
    """A collection without a policy is not looked at when it is written: what was stored is read.
    More ids of keys that do not exist than one message may wait for make no difference."""
    def forged(key_id):
        head = b"RK\xe1\x1e\1\1\2\0" + key_id.to_bytes(4, "big")
        return Binary(head + bytes(60), 0x8E)

    wanted = [{"_id": i, "x": forged(1000 + i)} for i in range(40)] + [{"_id": 99, "x": FORGED}]
    people.plain.insert_many(wanted)
    assert list(people.plain.find().sort("_id")) == wanted
    assert people.plain.distinct("x", {"_id": 99}) == [FORGED]
    assert people.plain.find_one_and_update({"_id": 99}, {"$set": {"n": 1}}) == wanted[-1]
    assert list(people.plain.aggregate([{"$match": {"_id": 99}}, {"$unset": "n"}])) == wanted[-1:]
