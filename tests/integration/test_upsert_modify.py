"""Writes that match first: upserts on encrypted equalities, findAndModify, transactions."""

import pytest
from bson import Int64, ObjectId
from harness import SECRET, key_id
from harness.protected import person
from pymongo import ReturnDocument
from pymongo.errors import OperationFailure, WriteError


# Upserts.


def test_set_on_insert(people):
    update = {"$set": {"answer": f"{SECRET} a"}, "$setOnInsert": {"contact.phone": f"{SECRET} p"}}
    for _ in range(2):
        people.app.update_one({"_id": 1}, update, upsert=True)
    assert people.seen() == [
        {"_id": 1, "answer": f"{SECRET} a", "contact": {"phone": f"{SECRET} p"}}
    ]
    people.check()


def upserts(people, number):
    """Each form of an upsert on an equality: inserts the first time, matches the second."""
    app = people.app
    value = {"ssn": f"{SECRET} {number}", "contact.mail": Int64(number)}
    fields = {"ssn": value["ssn"], "contact": {"mail": Int64(number)}}
    forms = {
        "set": lambda q: app.update_one(q, {"$set": {"size": number}}, upsert=True),
        "setOnInsert": lambda q: app.update_one(
            q, {"$set": {"size": number}, "$setOnInsert": {"name": "n"}}, upsert=True
        ),
        "and": lambda q: app.update_one(
            {"$and": [{k: {"$eq": v}} for k, v in q.items()]},
            {"$set": {"size": number}},
            upsert=True,
        ),
        "find_one_and_update": lambda q: app.find_one_and_update(
            q, {"$set": {"size": number}}, upsert=True, return_document=ReturnDocument.AFTER
        ),
        "replace": lambda q: app.replace_one(q, {**fields, "size": number}, upsert=True),
    }
    for name, upsert in forms.items():
        people.stored.delete_many({"size": number})
        for _ in range(2):
            upsert(value)
        (seen,) = people.seen(size=number)
        assert isinstance(seen.pop("_id"), ObjectId)
        assert seen.pop("name", "n") == "n"
        assert seen == {**fields, "size": number}, name
        (stored,) = people.stored.find({"size": number})
        people.check()
    return key_id(stored["ssn"])


# An integer may be stored as int or as long, so that an equality becomes a list.


def test_upsert_does_not_lose_the_equality_below_an_array_operator(people):
    """It was left out where an operator worked on its parent: $push then made a new document
    without the field, where mongod fails."""
    query, update = {"_id": 1, "contact.mail": 1}, {"$push": {"contact": {"kind": "home"}}}
    with pytest.raises(WriteError) as wanted:
        people.plain.update_one(query, update, upsert=True)
    assert wanted.value.code == 2
    with pytest.raises(OperationFailure) as refused:
        people.app.update_one(query, update, upsert=True)
    assert refused.value.code == 51150 and "contact.mail" in str(refused.value)
    assert people.seen() == []
    people.app.insert_one({"_id": 1, "contact": [{"mail": 1}]})
    assert people.app.update_one(query, update).modified_count == 1
    assert people.seen() == [{"_id": 1, "contact": [{"mail": 1}, {"kind": "home"}]}]


def test_upsert_that_unsets_its_equality(people):
    """It left out the parent, which stays in a new document."""
    query = {"_id": 1, "contact.mail": 1, "ssn": 1}
    people.plain.update_one(query, {"$unset": {"contact.mail": 1}}, upsert=True)
    assert people.plain.find_one() == {"_id": 1, "contact": {}, "ssn": 1}
    with pytest.raises(OperationFailure) as refused:
        people.app.update_one(query, {"$unset": {"contact.mail": 1}}, upsert=True)
    assert refused.value.code == 51150 and "contact.mail" in str(refused.value)
    people.app.update_one(query, {"$unset": {"contact": 1, "ssn": 1}}, upsert=True)
    assert people.seen() == [{"_id": 1}]


def test_upsert_that_sets_elements_beside_its_equality(people):
    """It failed with a conflict even where there was a document to update."""
    query, update = {"_id": 1, "contact.mail": 1}, {"$set": {"contact.$[].kind": "home"}}
    for collection in (people.plain, people.app):
        with pytest.raises(WriteError) as failed:
            collection.update_one(query, update, upsert=True)
        assert failed.value.code == 2
        collection.insert_one({"_id": 1, "contact": [{"mail": 1}]})
        assert collection.update_one(query, update, upsert=True).modified_count == 1
        assert list(collection.find()) == [{"_id": 1, "contact": [{"mail": 1, "kind": "home"}]}]


def test_upsert_on_equality_under_one_and_two_keys(own_people):
    assert upserts(own_people, 1) == 1
    own_people.app.insert_one({"ssn": f"{SECRET} old", "size": 5})
    own_people.rotate()
    assert upserts(own_people, 2) == 2
    for size in (6, 7):
        result = own_people.app.update_one(
            {"ssn": f"{SECRET} old"}, {"$set": {"size": size}}, upsert=True
        )
        assert result.matched_count == 1 and result.upserted_id is None
    assert own_people.seen(size=7)[0]["ssn"] == f"{SECRET} old"
    assert key_id(own_people.stored.find_one({"size": 7})["ssn"]) == 1, "not touched, not rewritten"
    own_people.app.update_one({"size": 7}, {"$set": {"ssn": f"{SECRET} old"}})
    assert key_id(own_people.stored.find_one({"size": 7})["ssn"]) == 2
    own_people.check()


# findAndModify.


def test_find_one_and_update(people):
    people.app.insert_one(person(1))
    change = {"$set": {"answer": f"{SECRET} 2", "contact.0.mail": f"{SECRET} m"}}
    before = people.app.find_one_and_update({"ssn": f"{SECRET} ssn 1"}, change)
    assert before == person(1)
    after = people.app.find_one_and_update(
        {"_id": 1}, {"$set": {"answer": f"{SECRET} 3"}}, return_document=ReturnDocument.AFTER
    )
    wanted = person(1, answer=f"{SECRET} 3")
    wanted["contact"][0]["mail"] = f"{SECRET} m"
    assert after == wanted
    assert people.seen() == [wanted]
    people.check()
    only = people.app.find_one_and_update(
        {"_id": 1}, {"$set": {"size": 2}}, projection={"ssn": 1, "_id": 0}
    )
    assert only == {"ssn": f"{SECRET} ssn 1"}


def test_find_one_and_replace_and_delete(people):
    people.app.insert_many([person(1), person(2)])
    replaced = people.app.find_one_and_replace(
        {"_id": 1}, {"answer": f"{SECRET} r"}, return_document=ReturnDocument.AFTER
    )
    assert replaced == {"_id": 1, "answer": f"{SECRET} r"}
    people.check()
    assert people.app.find_one_and_delete({"ssn": f"{SECRET} ssn 2"}) == person(2)
    assert people.app.find_one_and_delete({"_id": 2}) is None
    assert people.seen() == [replaced]


# Transactions.


def test_transactions(people):
    people.app.insert_one(person(1))
    with people.app_client.start_session() as session:
        with session.start_transaction():
            people.app.insert_one(person(2), session=session)
            people.app.update_one({"_id": 1}, {"$set": {"answer": f"{SECRET} t"}}, session=session)
            found = people.app.find_one({"ssn": f"{SECRET} ssn 2"}, session=session)
            assert found == person(2)
            assert people.app.find_one({"_id": 2}) is None
        assert people.seen() == [person(1, answer=f"{SECRET} t"), person(2)]
        session.start_transaction()
        people.app.insert_one(person(3), session=session)
        people.app.delete_one({"ssn": f"{SECRET} ssn 1"}, session=session)
        assert people.app.count_documents({}, session=session) == 2
        session.abort_transaction()
    assert people.seen() == [person(1, answer=f"{SECRET} t"), person(2)]
    people.check()


@pytest.mark.parametrize("update", [{"$k": [], "ssn": "x"}, {"$b": 1, "ssn": "x", "size": 1}])
def test_an_update_that_does_not_parse_fails_alone(people, update):
    """As mongod has it: an entry of writeErrors, and the statements before it hold."""
    people.app.insert_many([person(1), person(2)])
    good = {"q": {"_id": 1}, "u": {"$set": {"size": 7}}}
    bad = {"q": {"_id": 2}, "u": update}
    for ordered in (True, False):
        reply = people.app_db.command(
            "update", "people", updates=[good, bad, good], ordered=ordered, check=False
        )
        assert reply["ok"] == 1
        assert [(e["index"], e["code"]) for e in reply["writeErrors"]] == [(1, 9)]
        assert reply["n"] == (1 if ordered else 2)
    assert people.app.find_one({"_id": 2}) == person(2)
    people.check()
