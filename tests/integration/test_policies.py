"""Which collections and fields a configuration protects, and what a reload changes."""

import pytest
from bson.binary import Binary
from harness import SECRET, is_envelope, policy
from pymongo.errors import OperationFailure


@pytest.fixture
def both(single_member_set, start_rekeyd):
    """both(policies): (rekeyd, app client, direct client)"""
    opened = []

    def start(policies, **options):
        rekeyd = start_rekeyd(single_member_set, policies, **options)
        opened.extend([rekeyd.client(), single_member_set.client()])
        return rekeyd, *opened

    yield start
    for client in opened:
        client.close()


def stored(direct, db, coll, _id=1):
    return direct[db][coll].find_one({"_id": _id})


def is_protected(direct, db, coll, *paths) -> dict:
    document = stored(direct, db, coll)
    return {path: is_envelope(document[path]) for path in paths}


def test_wildcard_covers_every_collection(both, db_name):
    _, app, direct = both([policy(f"{db_name}.*", {"answer": "random"})])
    for name in ("a", "b.c", "x.system", "\u00fcber"):
        app[db_name][name].insert_one({"_id": 1, "answer": SECRET})
        assert is_protected(direct, db_name, name, "answer") == {"answer": True}, name
        assert app[db_name][name].find_one() == {"_id": 1, "answer": SECRET}
    for other in (f"{db_name}2", db_name[:-1]):
        app[other].a.insert_one({"_id": 1, "answer": SECRET})
        assert stored(direct, other, "a") == {"_id": 1, "answer": SECRET}
        direct.drop_database(other)


def test_exact_wins_over_wildcard(both, db_name):
    _, app, direct = both(
        [
            policy(f"{db_name}.*", {"answer": "random"}),
            policy(f"{db_name}.special", {"other": "deterministic"}),
        ]
    )
    for name in ("special", "special2", "specia"):
        app[db_name][name].insert_one({"_id": 1, "answer": SECRET, "other": SECRET})
    assert is_protected(direct, db_name, "special", "answer", "other") == {
        "answer": False,
        "other": True,
    }
    for name in ("special2", "specia"):
        assert is_protected(direct, db_name, name, "answer", "other") == {
            "answer": True,
            "other": False,
        }


def test_several_policies(both, db_name):
    second = f"{db_name}_b"
    _, app, direct = both(
        [
            policy(f"{db_name}.one", {"a": "random", "deep.er.est": "random"}),
            policy(f"{db_name}.two", {"b": "deterministic"}),
            policy(f"{second}.one", {"c": "random"}),
        ]
    )
    document = {"_id": 1, "a": SECRET, "b": SECRET, "c": SECRET, "deep": {"er": {"est": SECRET}}}
    for db, coll, protected in ((db_name, "one", "a"), (db_name, "two", "b"), (second, "one", "c")):
        app[db][coll].insert_one(document)
        found = is_protected(direct, db, coll, "a", "b", "c")
        assert [path for path in found if found[path]] == [protected]
        assert app[db][coll].find_one() == document
    assert is_envelope(stored(direct, db_name, "one")["deep"]["er"]["est"])
    assert app[db_name].two.find_one({"b": SECRET}) == document
    direct.drop_database(second)


def test_system_collections_are_left_alone(both, db_name):
    _, app, direct = both([policy(f"{db_name}.*", {"value": "random", "pipeline": "random"})])
    app[db_name].command("create", "view", viewOn="a", pipeline=[{"$match": {"x": 1}}])
    app[db_name]["system.js"].insert_one({"_id": "f", "value": "plain"})
    assert direct[db_name]["system.js"].find_one() == {"_id": "f", "value": "plain"}
    view = direct[db_name]["system.views"].find_one()
    assert view["pipeline"] == [{"$match": {"x": 1}}]
    assert app[db_name]["system.views"].find_one() == view


def test_admin_and_config_pass(both, db_name):
    _, app, _ = both([policy(f"{db_name}.*", {"value": "random"})])
    assert app.admin.command("buildInfo")["version"].startswith("6.")
    assert app.config["system.sessions"].count_documents({}) >= 0
    assert db_name not in app.list_database_names()
    assert app[db_name].command("dbStats")["collections"] == 0


def test_one_name_joins_two_fields(both, db_name):
    """The same logical name: ciphertext of one field is genuine for the other."""
    shared = {"algorithm": "deterministic", "name": "mail"}
    _, app, direct = both(
        [policy(f"{db_name}.a", {"mail": shared}), policy(f"{db_name}.b", {"address": shared})]
    )
    app[db_name].a.insert_one({"_id": 1, "mail": SECRET})
    app[db_name].b.insert_one({"_id": 1, "address": SECRET})
    assert stored(direct, db_name, "a")["mail"] == stored(direct, db_name, "b")["address"]
    raw = stored(direct, db_name, "a")["mail"]
    app[db_name].b.insert_one({"_id": 2, "address": Binary(bytes(raw), raw.subtype)})
    assert app[db_name].b.count_documents({"address": SECRET}) == 2


def test_own_names_part_equal_fields(both, db_name):
    _, app, direct = both(
        [policy(f"{db_name}.a", {"mail": "deterministic", "copy": "deterministic"})]
    )
    app[db_name].a.insert_one({"_id": 1, "mail": SECRET, "copy": SECRET})
    found = stored(direct, db_name, "a")
    assert found["mail"] != found["copy"]
    with pytest.raises(OperationFailure) as refused:
        raw = Binary(bytes(found["mail"]), found["mail"].subtype)
        app[db_name].a.insert_one({"_id": 2, "copy": raw})
    assert refused.value.code == 31041 and "another field" in str(refused.value)


def test_reload_adds_and_removes_fields(both, db_name):
    rekeyd, app, direct = both([policy(f"{db_name}.a", {"x": "random"})])
    document = {"x": SECRET, "y": f"{SECRET} y"}
    app[db_name].a.insert_one({"_id": 1, **document})
    assert is_protected(direct, db_name, "a", "x", "y") == {"x": True, "y": False}

    def reload(*policies):
        number = len(rekeyd.events("reloaded")) + 1
        rekeyd.reload({"policies": list(policies)})
        rekeyd.wait_event("reloaded", count=number)

    reload(policy(f"{db_name}.a", {"x": "random", "y": "deterministic"}))
    app[db_name].a.insert_one({"_id": 2, **document})
    assert is_envelope(stored(direct, db_name, "a", 2)["y"])
    assert list(app[db_name].a.find()) == [{"_id": 1, **document}, {"_id": 2, **document}]
    assert app[db_name].a.count_documents({"y": f"{SECRET} y"}) == 1, "1 is still plaintext"
    app[db_name].a.update_one({"_id": 1}, {"$set": {"y": f"{SECRET} y"}})
    assert app[db_name].a.count_documents({"y": f"{SECRET} y"}) == 2

    # A field that is no longer protected is still decrypted: the mark says what it is.
    reload(policy(f"{db_name}.a", {"x": "random"}))
    app[db_name].a.insert_one({"_id": 3, **document})
    assert stored(direct, db_name, "a", 3)["y"] == f"{SECRET} y"
    assert [d["y"] for d in app[db_name].a.find()] == [f"{SECRET} y"] * 3

    # So is one that was never told of again, in its database.
    reload(policy(f"{db_name}.b", {"z": "random"}))
    assert app[db_name].a.find_one({"_id": 2}) == {"_id": 2, **document}


def test_refused_reload_changes_nothing(both, db_name):
    rekeyd, app, direct = both([policy(f"{db_name}.a", {"x": "random"})])
    rekeyd.reload({"policies": [policy(f"{db_name}.a", {"x": "random", "x.y": "random"})]})
    refused = rekeyd.wait_event("reload_refused")
    assert "x.y" in refused["reason"] and f"{db_name}.a" in refused["reason"]
    app[db_name].a.insert_one({"_id": 1, "x": SECRET})
    assert is_protected(direct, db_name, "a", "x") == {"x": True}


def test_reload_holds_for_open_cursors_and_connections(both, db_name):
    rekeyd, app, direct = both([policy(f"{db_name}.a", {"x": "random"})])
    wanted = [{"_id": i, "x": SECRET} for i in range(300)]
    app[db_name].a.insert_many(wanted)
    cursor = app[db_name].a.find(batch_size=10).sort("_id")
    first = next(cursor)
    rekeyd.reload({"policies": [policy(f"{db_name}.a", {"x": "deterministic"})]})
    rekeyd.wait_event("reloaded")
    assert [first, *cursor] == wanted
    app[db_name].a.update_many({}, {"$set": {"x": SECRET}})
    assert app[db_name].a.count_documents({"x": SECRET}) == 300
    assert len(direct[db_name].a.distinct("x")) == 1
