"""Several data keys at once: each policy, or field, writes under the key that it names."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pymongo.errors import OperationFailure

from harness import Rekeyd, Vault, key_id, policy

SSN = {"algorithm": "deterministic", "type": "string"}


def keyed(namespace, fields, **options):
    return {**policy(namespace, fields), **options}


@pytest.fixture
def two(start_rekeyd, single_member_set, db_name):
    """people under "patients", staff under the default key."""
    return start_rekeyd(
        single_member_set,
        [
            keyed(f"{db_name}.people", {"ssn": SSN, "note": "random"}, key="patients"),
            policy(f"{db_name}.staff", {"ssn": SSN}),
        ],
    )


def names_of(rekeyd) -> dict:
    return {key["id"]: key["name"] for key in rekeyd.ctl("keys", "list")["keys"]}


def current_of(rekeyd, name) -> int:
    keys = rekeyd.ctl("keys", "list")["keys"]
    (current,) = [k["id"] for k in keys if (k["name"], k["state"]) == (name, "current")]
    return current


def ids_at(collection, path="ssn") -> set:
    return {key_id(document[path]) for document in collection.find()}


def rotate(rekeyd, name) -> int:
    new = rekeyd.ctl("keys", "rotate", name)["keyId"]
    while all(e["to"] != new for e in rekeyd.events("current_key_changed")):
        time.sleep(0.02)
    return new


def in_parallel(calls):
    with ThreadPoolExecutor(len(calls)) as pool:
        return [job.result() for job in [pool.submit(call) for call in calls]]


def test_each_policy_has_its_key(two, single_member_set, db_name):
    with two.client() as client, single_member_set.client() as direct:
        app, stored = client[db_name], direct[db_name]
        app.people.insert_one({"_id": 1, "ssn": "a", "note": "n"})
        app.staff.insert_one({"_id": 1, "ssn": "a"})
        patients, default = current_of(two, "patients"), current_of(two, "default")
        assert patients != default
        assert ids_at(stored.people) == ids_at(stored.people, "note") == {patients}
        assert ids_at(stored.staff) == {default}
        assert app.people.find_one({"ssn": "a"}) == {"_id": 1, "ssn": "a", "note": "n"}

        newer = rotate(two, "patients")
        app.people.insert_one({"_id": 2, "ssn": "a"})
        app.staff.insert_one({"_id": 2, "ssn": "a"})
        assert ids_at(stored.people) == {patients, newer}
        assert ids_at(stored.staff) == {default}
        assert app.people.count_documents({"ssn": "a"}) == 2
        # The rotation of one name leaves the other one exact: its values can still be grouped.
        assert list(app.staff.aggregate([{"$sortByCount": "$ssn"}])) == [{"_id": "a", "count": 2}]
        with pytest.raises(OperationFailure, match="several keys"):
            list(app.people.aggregate([{"$sortByCount": "$ssn"}]))

        two.ctl("start", f"{db_name}.people", "--wait")
        assert ids_at(stored.people) == {newer} and ids_at(stored.staff) == {default}
        assert two.ctl("verify", check=False).returncode == 0


def test_changing_the_name_and_sweeping_moves_the_values(start_rekeyd, single_member_set, db_name):
    namespace = f"{db_name}.people"
    rekeyd = start_rekeyd(single_member_set, [policy(namespace, {"ssn": SSN})])
    with rekeyd.client() as client, single_member_set.client() as direct:
        app, stored = client[db_name].people, direct[db_name].people
        app.insert_many([{"_id": i, "ssn": f"s{i}"} for i in range(50)])
        (default,) = ids_at(stored)
        rekeyd.reload({"policies": [keyed(namespace, {"ssn": SSN}, key="patients")]})
        rekeyd.wait_event("reloaded")
        app.insert_one({"_id": 50, "ssn": "s7"})
        patients = current_of(rekeyd, "patients")
        assert ids_at(stored) == {default, patients}
        # Former keys are searched, so that nothing is missed on the way.
        assert sorted(d["_id"] for d in app.find({"ssn": "s7"})) == [7, 50]
        assert app.count_documents({"ssn": {"$ne": "s7"}}) == 49
        rekeyd.ctl("start", namespace, "--wait")
        assert ids_at(stored) == {patients}
        assert rekeyd.ctl("verify", check=False).returncode == 0
        with pytest.raises(OperationFailure, match="several keys"):
            list(app.aggregate([{"$group": {"_id": "$ssn"}}]))
        done = keyed(namespace, {"ssn": SSN}, key="patients", former_keys=[])
        rekeyd.reload({"policies": [done]})
        rekeyd.wait_event("reloaded", count=2)
        assert len(list(app.aggregate([{"$group": {"_id": "$ssn"}}]))) == 50
        assert sorted(d["_id"] for d in app.find({"ssn": "s7"})) == [7, 50]


def test_fields_of_one_policy(start_rekeyd, single_member_set, db_name):
    fields = {"ssn": SSN, "note": {"algorithm": "random", "key": "notes"}}
    rekeyd = start_rekeyd(single_member_set, [keyed(f"{db_name}.people", fields, key="people")])
    with rekeyd.client() as client, single_member_set.client() as direct:
        app, stored = client[db_name].people, direct[db_name].people
        app.insert_one({"_id": 1, "ssn": "a", "note": "n"})
        app.update_one({"ssn": "a"}, {"$set": {"note": "m"}})
        names = names_of(rekeyd)
        document = stored.find_one()
        assert names[key_id(document["ssn"])] == "people"
        assert names[key_id(document["note"])] == "notes"
        assert app.find_one() == {"_id": 1, "ssn": "a", "note": "m"}
        rotate(rekeyd, "notes")
        rekeyd.ctl("start", "--wait")
        assert key_id(stored.find_one()["note"]) == current_of(rekeyd, "notes")
        assert rekeyd.ctl("verify", check=False).returncode == 0


def test_jobs_wait_for_the_key_that_became_current_last(two, single_member_set, db_name):
    """Not for that of the highest id: an instance could know it, and not yet the other one."""
    with two.client() as client, single_member_set.client() as direct:
        client[db_name].people.insert_one({"_id": 1, "ssn": "a"})
        state = direct[two.config["upstream"]["state_db"]]
        patients = rotate(two, "patients")
        default = rotate(two, "default")
        later = {"$currentDate": {"activatedAt": True}}
        state.keys.update_one({"_id": patients}, later)
        two.ctl("start", f"{db_name}.people", "--wait")
        assert default > patients and state.jobs.find_one()["keyId"] == patients
        assert ids_at(direct[db_name].people) == {patients}


def test_with_vault(start_rekeyd, single_member_set, db_name, tmp_path):
    """Two names in a real Vault: rotated, swept and destroyed by themselves."""
    with Vault(tmp_path / "vault") as vault:
        rekeyd = start_rekeyd(
            single_member_set,
            [
                keyed(f"{db_name}.people", {"ssn": SSN}, key="patients"),
                policy(f"{db_name}.staff", {"ssn": SSN}),
            ],
            settings=vault.settings(tmp_path / "secrets"),
        )
        with rekeyd.client() as client, single_member_set.client() as direct:
            app, stored = client[db_name], direct[db_name]
            for collection in (app.people, app.staff):
                collection.insert_many([{"_id": i, "ssn": f"s{i}"} for i in range(5)])
            patients = rotate(rekeyd, "patients")
            (staff,) = ids_at(stored.staff)
            rekeyd.ctl("start", "--wait")
            assert ids_at(stored.people) == {patients} and ids_at(stored.staff) == {staff}
            assert app.people.count_documents({"ssn": "s3"}) == 1
            destroy(direct[rekeyd.config["upstream"]["state_db"]], "patients")
            rekeyd.wait_event("key_dropped")
            gone = {**GONE, "keyId": patients, "key": "patients"}
            assert [d["ssn"] for d in app.people.find()] == [gone] * 5
            assert sorted(d["ssn"] for d in app.staff.find()) == [f"s{i}" for i in range(5)]


def test_joins_need_one_key(start_rekeyd, single_member_set, db_name):
    """Equal values under two names are two ciphertexts: nothing would be joined."""
    field = {**SSN, "name": "ssn"}
    options = {"former_keys": []}
    rekeyd = start_rekeyd(
        single_member_set,
        [
            keyed(f"{db_name}.a", {"ssn": field}, key="one", **options),
            keyed(f"{db_name}.b", {"ssn": field}, key="one", **options),
            keyed(f"{db_name}.c", {"ssn": field}, key="two", **options),
        ],
    )
    with rekeyd.client() as client:
        app = client[db_name]
        for name in "abc":
            app[name].insert_one({"_id": name, "ssn": "x"})

        def join(other):
            lookup = {"from": other, "localField": "ssn", "foreignField": "ssn", "as": "found"}
            (found,) = app.a.aggregate([{"$lookup": lookup}])
            return [d["_id"] for d in found["found"]]

        assert join("b") == ["b"]
        with pytest.raises(OperationFailure) as refused:
            join("c")
        assert refused.value.code == 51204


def test_without_a_first_key(start_rekeyd, single_member_set, db_name):
    rekeyd = start_rekeyd(
        single_member_set,
        [keyed(f"{db_name}.people", {"ssn": SSN}, key="patients")],
        settings={"keys": {"create_first_key": False}},
    )
    with rekeyd.client() as client:
        app = client[db_name].people
        for use in (lambda: app.insert_one({"ssn": "a"}), lambda: app.find_one({"ssn": "a"})):
            with pytest.raises(OperationFailure, match="rekeyctl keys rotate patients"):
                use()
        assert app.find_one({"name": "a"}) is None
        rekeyd.ctl("keys", "rotate", "patients")
        app.insert_one({"_id": 1, "ssn": "a"})
        assert app.find_one({"ssn": "a"})["_id"] == 1


def test_instances_make_one_first_key(start_rekeyd, single_member_set, db_name):
    """Two instances meet a name without a key at once: one key is made, and both find all."""
    first = start_rekeyd(
        single_member_set, [keyed(f"{db_name}.people", {"ssn": SSN}, key="patients")]
    )
    with first.sibling() as second, first.client() as a, second.client() as b:
        clients = [a, b] * 4
        results = in_parallel(
            [
                lambda c=c, i=i: c[db_name].people.insert_one({"_id": i, "ssn": "x"})
                for i, c in enumerate(clients)
            ]
        )
        assert len(results) == 8
        assert sorted(names_of(first).values()) == ["default", "patients"]
        for client in (a, b):
            assert client[db_name].people.count_documents({"ssn": "x"}) == 8


def test_refused_configurations(single_member_set, tmp_path, db_name):
    fields = {"ssn": SSN}
    cases = [
        (keyed(f"{db_name}.a", fields, key="a:b"), "is no name for a key"),
        (keyed(f"{db_name}.a", fields, key="x" * 65), "is no name for a key"),
        (keyed(f"{db_name}.a", fields, former_keys=["a b"]), "is no name for a key"),
        (keyed(f"{db_name}.a", fields, former_keys=["a", "a"]), "is there twice"),
        (keyed(f"{db_name}.a", fields, former_keys=list("abcdefgh")), "more than 7"),
    ]
    for i, (wrong, reason) in enumerate(cases):
        rekeyd = Rekeyd(single_member_set, [wrong], directory=tmp_path / str(i))
        result = rekeyd.ctl("config", "check", check=False)
        assert result.returncode != 0 and reason in result.stderr


GONE = {"rekeyError": "key destroyed"}


def destroy(state, name):
    """As `keys destroy` leaves it."""
    gone = {"$set": {"state": "destroyed"}, "$unset": {"wrapped": "", "kek": ""}}
    state.keys.update_many({"name": name}, gone)


@pytest.fixture
def half_gone(start_rekeyd, single_member_set, db_name):
    """Values of two fields in 20 documents; the key of ssn is then destroyed."""
    fields = {"ssn": {**SSN, "key": "lost"}, "note": {"algorithm": "random", "key": "kept"}}
    shown = {
        "people": {},
        "nulls": {"unreadable": "placeholder"},
        "texts": {"unreadable": "placeholder", "placeholder": "(gone)"},
    }
    rekeyd = start_rekeyd(
        single_member_set,
        [keyed(f"{db_name}.{name}", fields, **options) for name, options in shown.items()],
    )
    with rekeyd.client() as client, single_member_set.client() as direct:
        for name in shown:
            client[db_name][name].insert_many(
                [{"_id": i, "ssn": f"s{i}", "note": f"n{i}"} for i in range(20)]
            )
        lost = current_of(rekeyd, "lost")
        destroy(direct[rekeyd.config["upstream"]["state_db"]], "lost")
        rekeyd.wait_event("key_dropped")
        yield rekeyd, client[db_name], direct[db_name], {**GONE, "keyId": lost, "key": "lost"}


def test_values_under_a_destroyed_key(half_gone):
    rekeyd, app, stored, gone = half_gone
    for name, expected in [("people", gone), ("nulls", None), ("texts", "(gone)")]:
        documents = [{"_id": i, "ssn": expected, "note": f"n{i}"} for i in range(20)]
        assert list(app[name].find(sort=[("_id", 1)], batch_size=7)) == documents
        assert list(app[name].aggregate([{"$sort": {"_id": 1}}])) == documents
        moved = app[name].aggregate([{"$match": {"_id": 3}}, {"$project": {"s": "$ssn"}}])
        assert list(moved) == [{"_id": 3, "s": expected}]
        assert app[name].distinct("ssn") == [expected]
        found = app[name].find_one_and_update({"_id": 3}, {"$set": {"note": "m"}})
        assert found == documents[3]
        with app[name].watch(full_document="updateLookup") as stream:
            app[name].update_one({"_id": 4}, {"$set": {"note": "m"}})
            assert next(stream)["fullDocument"] == {"_id": 4, "ssn": expected, "note": "m"}
        with pytest.raises(OperationFailure, match="lost"):
            app[name].find_one({"ssn": "s1"})  # nothing could be found under it


def test_writing_back_what_stands_for_a_value(half_gone):
    rekeyd, app, stored, gone = half_gone
    before = stored.people.find_one({"_id": 5})
    read = app.people.find_one({"_id": 5})
    for write in (
        lambda: app.people.replace_one({"_id": 5}, read),
        lambda: app.people.update_one({"_id": 5}, {"$set": {"ssn": read["ssn"]}}),
        lambda: app.people.find_one_and_replace({"_id": 5}, read),
        lambda: app.people.insert_one({**read, "_id": 99}),
        lambda: app.people.update_one({"_id": 5}, [{"$set": {"ssn": {"$literal": gone}}}]),
    ):
        with pytest.raises(OperationFailure) as refused:
            write()
        assert refused.value.code == 31041 or "31041" in str(refused.value)
    assert stored.people.find_one({"_id": 5}) == before
    app.people.update_one({"_id": 5}, {"$set": {"note": "m"}, "$unset": {"ssn": ""}})
    assert app.people.find_one({"_id": 5}) == {"_id": 5, "note": "m"}


def test_a_provider_that_is_away_is_no_destroyed_key(start_rekeyd, single_member_set, db_name):
    """What exists must not be shown as lost."""
    policies = [keyed(f"{db_name}.people", {"ssn": SSN}, key="patients")]
    rekeyd = start_rekeyd(single_member_set, policies)
    with rekeyd.client() as client, single_member_set.client() as direct:
        client[db_name].people.insert_one({"_id": 1, "ssn": "a"})
        state = direct[rekeyd.config["upstream"]["state_db"]]
        good = state.keys.find_one_and_update({"name": "patients"}, {"$set": {"kek": "away"}})
        restarted = rekeyd.sibling()
        with restarted, restarted.client() as again:
            with pytest.raises(OperationFailure) as failed:
                again[db_name].people.find_one({"_id": 1})
            assert failed.value.code == 6
            state.keys.replace_one({"_id": good["_id"]}, good)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    assert again[db_name].people.find_one({"_id": 1})["ssn"] == "a"
                    return
                except OperationFailure:
                    time.sleep(0.2)
            raise AssertionError("the key never came")
