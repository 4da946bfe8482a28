"""
What MongoDB's catalog knows and the configuration does not: default collations, and views over
protected collections. Made past the proxy here, as a DBA or an older release would.
"""

import time

import pytest
from harness import ReplicaSet, people_policy, policy, protected
from harness.protected import FIELDS, SECRET, person
from pymongo.collation import Collation
from pymongo.errors import OperationFailure

ANY_CASE = {"locale": "en", "strength": 2}
SIMPLE = Collation(locale="simple")


@pytest.fixture
def people(single_member_set, start_rekeyd, db_name):
    settings = {"upstream": {"catalog_interval_ms": 200}}
    rekeyd = start_rekeyd(single_member_set, [people_policy(db_name)], settings=settings)
    with protected(rekeyd, db_name) as people:
        yield people


def refused(code, act):
    with pytest.raises(OperationFailure) as refusal:
        act()
    assert refusal.value.code == code, refusal.value
    return str(refusal.value)


def noticed(people, event, timeout_s=20):
    people.rekeyd.wait_event(event, timeout_s=timeout_s)


def test_default_collation_that_was_there_before(single_member_set, start_rekeyd, db_name):
    with single_member_set.client() as direct:
        direct[db_name].create_collection("people", collation=ANY_CASE)
    rekeyd = start_rekeyd(single_member_set, [people_policy(db_name)])
    with protected(rekeyd, db_name) as people:
        people.app.insert_many([person(1), person(2)])
        query = {"ssn": f"{SECRET} ssn 1"}
        told = refused(31054, lambda: people.app.find_one(query))
        assert "simple" in told and "ssn" in told
        refused(31054, lambda: people.app.update_one(query, {"$set": {"size": 0}}))
        refused(31054, lambda: list(people.app.aggregate([{"$match": query}])))
        refused(31054, lambda: people.app.distinct("ssn"))
        assert people.app.find_one(query, collation=SIMPLE) == person(1)
        assert people.app.count_documents(query, collation=SIMPLE) == 1
        assert people.app.find_one({"name": "NAME 2"}) == person(2), "its own fields keep it"
        people.check()


def test_collation_of_the_command_wins_over_none(people):
    people.app.insert_one(person(1))
    assert people.app.find_one({"ssn": f"{SECRET} ssn 1"}) == person(1)
    refused(31054, lambda: people.app.distinct("ssn", collation=Collation(**ANY_CASE)))


def test_collection_that_is_made_again_with_a_collation(people):
    query = {"ssn": f"{SECRET} ssn 1"}
    people.app.insert_one(person(1))
    assert people.app.find_one(query) == person(1)
    people.stored.drop()
    people.stored_db.create_collection("people", collation=ANY_CASE)
    noticed(people, "collection_with_collation")
    refused(31054, lambda: people.app.find_one(query))
    people.stored.drop()
    deadline = time.monotonic() + 20
    while True:
        try:
            assert people.app.find_one(query) is None
            break
        except OperationFailure:
            assert time.monotonic() < deadline, "the mark stayed"
            time.sleep(0.1)


def test_collation_of_an_unprotected_collection(people):
    """Its pipelines compare by it, in the collections that they join as well."""
    people.app.insert_one(person(1))
    people.stored_db.create_collection("outside", collation=ANY_CASE)
    people.stored_db.outside.insert_one({"_id": 1})
    noticed(people, "unprotected_collection_with_collation")
    match = [{"$match": {"ssn": f"{SECRET} ssn 1"}}]
    for stage in (
        {"$lookup": {"from": "people", "pipeline": match, "as": "found"}},
        {"$unionWith": {"coll": "people", "pipeline": match}},
    ):
        refused(31054, lambda stage=stage: list(people.app_db.outside.aggregate([stage])))
        assert str(person(1)) in str(list(people.app_db.outside.aggregate([stage], collation=SIMPLE)))
    assert people.app.find_one({"ssn": f"{SECRET} ssn 1"}) == person(1)
    assert people.app_db.outside.find_one({"_id": 1}) == {"_id": 1}


def test_views_over_protected_collections(people):
    people.app.insert_many([person(1), person(2)])
    view, above, union = people.app_db.view, people.app_db.above, people.app_db.union
    stored = people.stored_db
    stored.create_collection("view", viewOn="people", pipeline=[{"$project": {"x": "$ssn"}}])
    stored.create_collection("above", viewOn="view", pipeline=[])
    pipeline = [{"$facet": {"a": [{"$unionWith": {"coll": "people"}}]}}]
    stored.create_collection("union", viewOn="plain", pipeline=pipeline)
    stored.create_collection("harmless", viewOn="plain", pipeline=[])
    people.rekeyd.wait_event("view_without_policy", count=3, timeout_s=20)

    assert [d["x"] for d in view.find()] == [f"{SECRET} ssn 1", f"{SECRET} ssn 2"]
    assert view.count_documents({}) == 2 and len(view.distinct("x")) == 2
    for name in (view, above, union):
        told = refused(51092, lambda: name.find_one({"x": f"{SECRET} ssn 1"}))
        assert "policy" in told and name.full_name in told
        refused(51092, lambda: list(name.aggregate([{"$match": {"x": f"{SECRET} ssn 1"}}])))
    refused(51092, lambda: list(view.find().sort("x", 1)))
    join = {"from": "view", "localField": "a", "foreignField": "x", "as": "found"}
    with pytest.raises(OperationFailure):
        list(people.plain.aggregate([{"$lookup": join}]))
    people.plain.insert_one({"_id": 1, "x": 5})
    assert people.app_db.harmless.find_one({"x": 5}) == {"_id": 1, "x": 5}


def test_views_that_show_nothing_protected(people):
    """What Rekey lets a client make, it lets a client query, whoever made it and when."""
    people.app.insert_many([person(1), person(2)])
    people.plain.insert_one({"_id": 1, "size": 2})
    sizes = [{"$match": {"size": {"$gt": 0}}}, {"$project": {"size": 1}}]
    people.app_db.create_collection("sizes", viewOn="people", pipeline=sizes)
    people.stored_db.create_collection("past", viewOn="people", pipeline=sizes)
    people.stored_db.create_collection("above", viewOn="past", pipeline=[{"$match": {"size": 2}}])
    people.stored_db.create_collection("all", viewOn="people", pipeline=[{"$match": {"size": 2}}])
    people.rekeyd.wait_event("view_without_policy", timeout_s=20)
    for name in ("sizes", "past", "above"):
        assert people.app_db[name].find_one({"size": 2}) == {"_id": 2, "size": 2}
        join = {"from": name, "localField": "size", "foreignField": "size", "as": "found"}
        assert list(people.plain.aggregate([{"$lookup": join}]))[0]["found"]
    refused(51092, lambda: people.app_db.all.find_one({"ssn": "x"}))
    marked = people.rekeyd.events("view_without_policy")
    assert {event["collection"] for event in marked} == {"all"}


def test_view_that_is_changed(people):
    people.app.insert_one(person(1))
    shown = {"size": 1}
    people.stored_db.create_collection("view", viewOn="people", pipeline=[{"$project": shown}])
    assert people.app_db.view.find_one({"size": 1}) == {"_id": 1, "size": 1}
    shown = {"size": 1, "ssn": 1}
    people.stored_db.command("collMod", "view", viewOn="people", pipeline=[{"$project": shown}])
    noticed(people, "view_without_policy")
    refused(51092, lambda: people.app_db.view.find_one({"ssn": "x"}))


def test_view_with_a_policy_of_its_own(people, db_name):
    people.app.insert_many([person(1), person(2)])
    people.stored_db.create_collection(
        "view", viewOn="people", pipeline=[{"$project": {"x": "$ssn"}}]
    )
    noticed(people, "view_without_policy")
    ssn = {"algorithm": FIELDS["ssn"], "name": f"{db_name}.people/ssn"}
    view = policy(f"{db_name}.view", {"x": ssn})
    people.rekeyd.reload({"policies": [people_policy(db_name), view]})
    people.rekeyd.wait_event("reloaded")
    found = people.app_db.view.find_one({"x": f"{SECRET} ssn 2"})
    assert found == {"_id": 2, "x": f"{SECRET} ssn 2"}


def test_marks_outlive_a_reload(people):
    people.app.insert_one(person(1))
    people.stored_db.create_collection("view", viewOn="people", pipeline=[])
    noticed(people, "view_without_policy")
    people.rekeyd.reload({"upstream": {"catalog_interval_ms": 3_600_000}})
    people.rekeyd.wait_event("reloaded")
    refused(51092, lambda: people.app_db.view.find_one({"ssn": "x"}))


def test_without_the_right_to_look(start_rekeyd, tmp_path, db_name):
    with ReplicaSet(1, tmp_path / "servers", auth=True) as servers:
        rekeyd = start_rekeyd(servers, [people_policy(db_name)], name="ready")
        state = rekeyd.config["upstream"]["state_db"]
        with servers.client() as root:
            roles = [{"role": "readWrite", "db": state}]
            root.admin.command("createUser", "narrow", pwd="pwd", roles=roles)
        uri = servers.uri.replace(f"{servers.username}:{servers.password}@", "narrow:pwd@")
        narrow = start_rekeyd(
            servers,
            [people_policy(db_name)],
            settings={"upstream": {"uri": uri, "state_db": state}},
            directory=rekeyd.directory,
            name="narrow",
        )
        event = narrow.wait_event("catalog_unreadable", timeout_s=20)
        assert "listCollections" in event["advice"]
        with narrow.client() as client:
            client[db_name].people.insert_one(person(1))
            assert client[db_name].people.find_one({"ssn": f"{SECRET} ssn 1"}) == person(1)
        narrow.terminate()
        rekeyd.terminate()
