"""The end of a key: retired when a full scan has shown that nothing needs it, then destroyed."""

import base64
import os
import pty
import subprocess
import threading

import pytest
from bson import Binary, Code
from pymongo.errors import OperationFailure

from harness import KEK, ReplicaSet, Vault, admin_settings, people_policy, policy, protected
from harness.derived import derived_keys
from harness.memory import occurrences
from harness.protected import key_id, person
from harness.vault import POLICY
from harness.waiting import wait_until

pytestmark = pytest.mark.timeout(60)

OK, FAILED, USAGE, STATE = range(4)
SETTLE = {
    "write_settle_ms": 300,
    "refresh_interval_ms": 100,
    "instance_lease_ms": 2000,
    "cursor_grace_ms": 0,
}
TRIM = """
path "transit/keys/rekey" { capabilities = ["read"] }
path "transit/keys/rekey/config" { capabilities = ["update"] }
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Transactions end soon here: a retirement waits for them."""
    args = ["--setParameter", "transactionLifetimeLimitSeconds=1"]
    with ReplicaSet(1, tmp_path_factory.mktemp("servers"), args=args) as servers:
        yield servers


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    with Vault(tmp_path_factory.mktemp("vault"), policy=POLICY + TRIM) as vault:
        yield vault


@pytest.fixture
def people(servers, start_rekeyd, db_name):
    settings = {"keys": SETTLE, **admin_settings()}
    rekeyd = start_rekeyd(servers, [people_policy(db_name)], settings=settings)
    with protected(rekeyd, db_name) as collection:
        yield collection


@pytest.fixture
def vault_people(servers, start_rekeyd, db_name, vault, tmp_path):
    settings = vault.settings(tmp_path / "secrets")
    settings["keys"].update(SETTLE)
    rekeyd = start_rekeyd(servers, [people_policy(db_name)], settings=settings)
    with protected(rekeyd, db_name) as collection:
        yield collection


def key_states(people) -> dict:
    return {key["id"]: key["state"] for key in people.rekeyd.ctl("keys", "list")["keys"]}


def events(people, action) -> list:
    """(key, result) of what was done, in its order."""
    found = people.state.audit.find({"action": action}).sort([("at", 1), ("_id", 1)])
    return [(event["keyId"], event["result"]) for event in found]


def rotate(people) -> int:
    id = people.rekeyd.ctl("keys", "rotate")["keyId"]
    people.wait_for_key(id)
    return id


def sweep(people):
    people.rekeyd.ctl("start", people.namespace, "--wait")


def retire(people, id=1, *options, check=True):
    return people.rekeyd.ctl("keys", "retire", id, "--wait", *options, check=check)


def destroy(people, id=1, *options, name="default", check=True):
    return people.rekeyd.ctl("keys", "destroy", id, "--confirm", name, *options, check=check)


def retired(people) -> dict:
    """Everything under key 1 is swept, and it is retired; what was written under it before."""
    people.app.insert_many([person(i) for i in range(20)])
    before = people.stored.find_one({"_id": 7})
    assert key_id(before["ssn"]) == 1
    rotate(people)
    sweep(people)
    retire(people)
    return before


def refused(result, *words, code=STATE):
    assert result.returncode == code, result.stderr
    for word in words:
        assert word in result.stderr


# Retiring.


@pytest.mark.tsan
def test_life_of_a_key_under_traffic(people):
    stop, failures, rounds = threading.Event(), [], [0]

    def traffic():
        try:
            while not stop.is_set():
                i = f"traffic {rounds[0]}"
                people.app.insert_one(person(i))
                assert people.app.find_one({"ssn": person(i)["ssn"]}) == person(i)
                rounds[0] += 1
        except Exception as failure:  # told by the test
            failures.append(failure)

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        people.app.insert_many([person(i) for i in range(200)])
        rotate(people)
        refused(retire(people, check=False), "values need key 1", people.namespace, "sweep")
        sweep(people)
        before = rounds[0]
        result = retire(people)
        assert result["retired"] == [1] and result["documents"] >= 200
        assert key_states(people) == {1: "retired", 2: "current"}
        assert destroy(people)["destroyed"] == [1]
        assert key_states(people) == {1: "destroyed", 2: "current"}
        people.rekeyd.wait_event("key_dropped")
        wait_until(lambda: rounds[0] > before + 3)
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert people.seen(_id={"$lt": 200}) == [person(i) for i in range(200)]
    document = people.state["keys"].find_one({"_id": 1})
    assert "wrapped" not in document and document["destroyedAt"] and document["retiredAt"]
    tries = events(people, "key.retire")
    assert tries == [(1, "started"), (1, "failed"), (1, "started"), (1, "ok")]
    assert events(people, "key.destroy") == [(1, "started"), (1, "ok")]
    # Its id never returns.
    assert rotate(people) == 3


def test_only_a_retiring_key_is_retired(people):
    people.app.insert_one(person(1))
    refused(retire(people, check=False), "key 1 is current")
    refused(retire(people, 9, check=False), "no key 9", code=FAILED)
    refused(people.rekeyd.ctl("keys", "retire", check=False), "takes the id", code=USAGE)
    assert events(people, "key.retire") == []


def test_writes_on_their_way_are_waited_for(people):
    """A transaction may commit what it wrote under the former key after the rotation."""
    people.rekeyd.config["keys"]["write_settle_ms"] = 60000
    people.rekeyd.write_config()
    people.app.insert_one(person(1))
    rotate(people)
    sweep(people)
    result = people.rekeyd.ctl("keys", "retire", 1, check=False)
    refused(result, "may still be on its way", "try again in")
    assert events(people, "key.retire")[-1] == (1, "failed")


def test_transactions_count_in_the_wait(servers, people):
    with servers.client() as client:
        client.admin.command({"setParameter": 1, "transactionLifetimeLimitSeconds": 90})
        try:
            people.app.insert_one(person(1))
            rotate(people)
            sweep(people)
            refused(people.rekeyd.ctl("keys", "retire", 1, check=False), "may still be on its way")
        finally:
            client.admin.command({"setParameter": 1, "transactionLifetimeLimitSeconds": 1})


def test_values_anywhere_forbid_it(people):
    people.app.insert_many([person(i) for i in range(3)])
    old = people.stored.find_one({"_id": 2})["answer"]
    rotate(people)
    sweep(people)
    swept = people.stored.find_one({"_id": 2})
    for change in (
        {"answer": [["x", old]]},
        {"other": {"deep": [{"er": old}]}},
        {"code": Code("f()", {"x": old})},
    ):
        people.stored.update_one({"_id": 2}, {"$set": change})
        refused(retire(people, check=False), "1 values need key 1", people.namespace)
        people.stored.replace_one({"_id": 2}, swept)
    assert retire(people)["retired"] == [1]


def test_namespaces_that_left_the_policies_count(people):
    """They were swept once, so that a job remembers them."""
    people.app.insert_many([person(i) for i in range(3)])
    old = people.stored.find_one({"_id": 2})
    rotate(people)
    sweep(people)
    people.stored.replace_one({"_id": 2}, old)
    people.rekeyd.config["policies"] = [people_policy(people.stored_db.name + "x")]
    people.rekeyd.write_config()
    refused(retire(people, check=False), "5 in " + people.namespace)


def test_namespaces_that_were_never_swept_count(people):
    """That they are protected is noted as soon as a policy says so."""
    other = people.app_db.other
    people.rekeyd.reload({"policies": [people_policy(other.database.name), policy(
        other.full_name, {"ssn": "deterministic"})]})
    people.rekeyd.wait_event("reloaded")
    other.insert_one({"_id": 1, "ssn": "x"})
    known = people.state.protected
    wait_until(lambda: known.count_documents({"_id": other.full_name}) == 1)
    people.rekeyd.reload({"policies": [people_policy(other.database.name)]})
    people.rekeyd.wait_event("reloaded", 2)
    people.app.insert_one(person(1))
    rotate(people)
    sweep(people)
    refused(retire(people, check=False), "1 values need key 1 (1 in " + other.full_name)
    people.stored_db.other.drop()
    assert retire(people)["retired"] == [1]


def test_dead_letters_count(people):
    people.app.insert_many([person(i) for i in range(3)])
    answer = people.stored.find_one({"_id": 2})["answer"]
    damaged = Binary(answer[:-1] + bytes([answer[-1] ^ 1]), answer.subtype)
    people.stored.update_one({"_id": 2}, {"$set": {"answer": damaged}})
    rotate(people)
    sweep(people)
    refused(retire(people, check=False), "1 in dead letters", "1 in " + people.namespace)
    people.stored.delete_one({"_id": 2})
    refused(retire(people, check=False), "1 values need key 1 (1 in dead letters)")
    (letter,) = people.rekeyd.ctl("dead-letters", "list")["deadLetters"]
    why = ["--reason", "its document is gone", "--confirm"]
    assert people.rekeyd.ctl("dead-letters", "discard", letter["id"], *why)["discarded"] == 1
    assert retire(people)["retired"] == [1]


def killed_midway(people, *words):
    """A count that is killed (kill -9) when it has counted something, and not all."""
    people.rekeyd.config["verify"] = {
        "checkpoint_interval_ms": 50,
        "lease_ms": 1000,
        "max_rate": 100,
    }
    people.rekeyd.write_config()
    parts = people.state.proofParts
    known = parts.count_documents({})
    running = people.rekeyd.ctl_begin(*words, stderr=subprocess.PIPE)
    try:
        midway = {"documents": {"$gt": 0}, "done": False}
        wait_until(lambda: parts.count_documents({}) > known and parts.find_one(midway))
    finally:
        running.kill()
        running.communicate()
    people.rekeyd.config["verify"]["max_rate"] = 0
    people.rekeyd.write_config()


def test_a_count_that_was_killed_is_gone_on_with(people):
    people.app.insert_many([person(i) for i in range(200)])
    killed_midway(people, "keys", "status", "--count")
    rotate(people)
    sweep(people)
    # That one began when values were written under the key: it proves nothing.
    killed_midway(people, "keys", "retire", "1", "--wait")
    stale, begun = people.state.proofs.find().sort("startedAt")
    assert "completedAt" not in stale and "completedAt" not in begun
    # A count may go on only where no write under the key can have come behind it.
    people.state.keys.update_one({"_id": 1}, {"$set": {"quietAt": begun["startedAt"]}})
    killed_midway(people, "keys", "retire", "1", "--wait")
    assert people.state.proofs.count_documents({}) == 3
    retired = retire(people)
    last = list(people.state.proofs.find().sort("startedAt"))[-1]
    assert retired["proof"] == str(last["_id"]) and last["epoch"] == 2
    assert people.state.proofs.count_documents({}) == 3 and retired["documents"] == 200


def test_everywhere_finds_copies(people):
    own = people.state.name
    for name in people.direct_client.list_database_names():
        if name.startswith("rekey_") and name != own:
            people.direct_client.drop_database(name)  # of tests before, with the same key ids
    people.app.insert_many([person(i) for i in range(3)])
    copy = people.direct_client[people.stored_db.name + "_copy"]
    copy.backup.insert_one(people.stored.find_one({"_id": 1}))
    try:
        rotate(people)
        sweep(people)
        refused(retire(people, 1, "--everywhere", check=False), "5 in " + copy.backup.full_name)
        copy.backup.drop()
        assert retire(people, 1, "--everywhere")["retired"] == [1]
    finally:
        people.direct_client.drop_database(copy.name)


@pytest.mark.tsan
def test_an_instance_that_fell_silent_may_still_write(people):
    people.app.insert_one(person(1))
    second = people.rekeyd.sibling()
    second.start()
    wait_until(lambda: people.state.instances.count_documents({"writes": 1}) == 2)
    second.suspend()
    rotate(people)
    sweep(people)
    refused(retire(people, check=False), "1 instances wrote under key 1", "--gone")
    second.resume()
    # It learns of the rotation, and says so.
    wait_until(lambda: people.state.instances.count_documents({"writes": 2}) == 2)
    assert retire(people)["retired"] == [1]
    second.finish()


def test_an_instance_that_was_killed_is_declared_gone(people):
    people.app.insert_one(person(1))
    second = people.rekeyd.sibling()
    second.start()
    wait_until(lambda: people.state.instances.count_documents({"writes": 1}) == 2)
    second.kill9()
    second.close()
    rotate(people)
    sweep(people)
    refused(retire(people, check=False), "--gone")
    assert retire(people, 1, "--gone")["retired"] == [1]


@pytest.mark.tsan
def test_a_value_under_a_retired_key_is_read_with_a_warning(people):
    before = retired(people)
    people.rekeyd.wait_event("key_dropped")
    people.stored.replace_one({"_id": 7}, before)
    assert people.app.find_one({"_id": 7}) == person(7)
    assert people.rekeyd.wait_event("retired_key_needed")["key_id"] == 1
    assert people.rekeyd.admin.value("rekey_retired_keys_needed_total") == 1
    refused(destroy(people, check=False), "5 values need key 1", "after it was retired")
    assert key_states(people)[1] == "retired"
    sweep(people)
    assert destroy(people)["destroyed"] == [1]


# Status.


def test_status_tells_what_comes_next_and_hinders_it(people):
    def status(*options) -> dict:
        keys = people.rekeyd.ctl("keys", "status", *options)["keys"]
        return {key["id"]: key for key in keys}

    people.app.insert_many([person(i) for i in range(3)])
    (first,) = status().values()
    assert (first["name"], first["state"], first["next"]) == ("default", "current", "rotate")
    assert (first["loadedBy"], first["writtenBy"], first["hindrance"]) == (1, 1, "")
    assert "values" not in first and first["createdAt"] and first["activatedAt"]
    rotate(people)
    wait_until(lambda: status()[1]["writtenBy"] == 0)
    assert status("1")[1]["next"] == "retire"
    counted = status("--count", "default")
    assert (counted[1]["values"], counted[2]["values"]) == (15, 0) and counted[1]["countedAt"]
    assert counted[1]["hindrance"].startswith("15 values needed it at ")
    assert counted[1]["hindrance"].endswith(f": 15 in {people.namespace}")
    sweep(people)
    retire(people)
    after = status()
    assert (after[1]["state"], after[1]["next"]) == ("retired", "destroy")
    assert (after[1]["values"], after[1]["hindrance"], after[2]["values"]) == (0, "", 15)
    wait_until(lambda: (status()[1]["loadedBy"], status()[2]["loadedBy"]) == (0, 1))
    destroy(people)
    assert (status()[1]["state"], status()[1]["next"]) == ("destroyed", "")
    refused(people.rekeyd.ctl("keys", "status", "7", check=False), "no key 7", code=FAILED)


def test_status_for_people(people):
    people.app.insert_one(person(1))
    rotate(people)
    header, first, second = people.rekeyd.ctl_text("keys", "status").splitlines()
    assert header.split()[:5] == ["ID", "NAME", "STATE", "AGE", "KEK"]
    assert first.split()[:6] == ["1", "default", "retiring", "0:00", "h", "main"]
    assert second.split()[:3] == ["2", "default", "current"]


# Destroying.


def test_destroy_asks_for_the_name_and_can_be_given_again(people):
    retired(people)
    refused(destroy(people, name="defualt", check=False), "not default")
    refused(people.rekeyd.ctl("keys", "destroy", 1, check=False), "--confirm NAME", code=USAGE)
    assert key_states(people)[1] == "retired" and events(people, "key.destroy") == []
    for answer, code, after in (
        ("", STATE, "retired"),
        ("yes", STATE, "retired"),
        ("default", OK, "destroyed"),
    ):
        destroy_on_a_terminal(people, answer, code)
        assert key_states(people)[1] == after
    # What was cut short is gone on with.
    assert destroy(people)["destroyed"] == [1]
    assert destroy(people)["destroyed"] == [1]


def destroy_on_a_terminal(people, answer, code):
    ours, theirs = pty.openpty()
    pipes = {"stdin": theirs, "stderr": subprocess.PIPE}
    with people.rekeyd.ctl_begin("keys", "destroy", 1, **pipes) as ctl:
        os.write(ours, answer.encode() + b"\n")
        _, text = ctl.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert ctl.returncode == code and "The key's name" in text


def test_only_a_retired_key_is_destroyed(people):
    people.app.insert_one(person(1))
    rotate(people)
    refused(destroy(people, check=False), "key 1 is retiring", "keys retire 1")
    refused(destroy(people, 2, check=False), "key 2 is current")


@pytest.mark.tsan
def test_what_lies_under_a_destroyed_key(people):
    before = retired(people)
    destroy(people)
    people.stored.replace_one({"_id": 7}, before)
    gone = {"rekeyError": "key destroyed", "keyId": 1, "key": "default"}
    assert people.app.find_one({"_id": 7})["ssn"] == gone
    assert people.app.find_one({"_id": 8}) == person(8)
    # rewrap leaves it alone, and so does a fresh instance.
    people.rekeyd.ctl("keys", "rewrap")
    second = people.rekeyd.sibling()
    with second, second.client() as client:
        assert client[people.app.database.name].people.find_one({"_id": 8}) == person(8)
    assert second.events("key_unwrap_failed") == []


def test_shredding_asks_for_name_and_count(people):
    people.app.insert_many([person(i) for i in range(3)])
    rotate(people)
    refused(destroy(people, 1, "--shred", check=False), "--count N", code=USAGE)
    refused(destroy(people, 1, "--shred", "--count", "11", check=False), "not 15")
    refused(destroy(people, 2, "--shred", "--count", "0", check=False), "key 2 is current")
    result = destroy(people, 1, "--shred", "--count", "15")
    assert (result["destroyed"], result["values"]) == ([1], 15)
    told = people.state.audit.find_one({"action": "key.destroy", "result": "ok"})
    assert told["detail"] == f"shredded: 15 values needed it: 15 in {people.namespace}"
    people.rekeyd.wait_event("key_dropped")
    assert people.app.find_one({"_id": 1})["ssn"]["rekeyError"] == "key destroyed"


@pytest.mark.parametrize("command", ["retire", "destroy"])
def test_a_command_that_is_killed_can_be_given_again(people, command):
    """At any point: each step is one write, and what was before it is repeated."""
    people.app.insert_many([person(i) for i in range(50)])
    rotate(people)
    sweep(people)
    options = {"retire": ["--wait"], "destroy": ["--confirm", "default"]}[command]
    if command == "destroy":
        retire(people)
    for tenths in range(0, 12, 2):
        with people.rekeyd.ctl_begin("keys", command, 1, *options) as ctl:
            try:
                ctl.wait(0.05 + tenths / 10)
            except subprocess.TimeoutExpired:
                ctl.kill()
    again = retire(people) if command == "retire" else destroy(people)
    past = {"retire": "retired", "destroy": "destroyed"}[command]
    assert again[past] == [1] and key_states(people)[1] == past
    assert people.seen() == [person(i) for i in range(50)]


@pytest.mark.tsan
def test_shredding_all_versions_of_a_name(servers, start_rekeyd, db_name):
    """What lies under other names stays readable, and can be written."""
    patients = {**people_policy(db_name), "key": "patients"}
    staff = policy(f"{db_name}.staff", {"ssn": "deterministic"})
    rekeyd = start_rekeyd(servers, [patients, staff], settings={"keys": SETTLE})
    with protected(rekeyd, db_name) as people:
        people.app.insert_one(person(1))
        people.app_db.staff.insert_one({"_id": 1, "ssn": "x"})
        names = {key["id"]: key["name"] for key in rekeyd.ctl("keys", "list")["keys"]}
        newer = rekeyd.ctl("keys", "rotate", "patients")["keyId"]
        people.wait_for_key(newer)
        people.app.insert_one(person(2))
        older = next(id for id, name in names.items() if name == "patients")
        refused(destroy(people, "patients", name="patients", check=False), "is retiring")
        options = ["patients", "--shred", "--count", str(2 * 5)]
        refused(destroy(people, *options, check=False), "not patients")
        result = destroy(people, *options, name="patients")
        assert (result["destroyed"], result["values"]) == ([older, newer], 10)
        rekeyd.wait_event("key_dropped", 2)
        assert people.app_db.staff.find_one({"ssn": "x"}) == {"_id": 1, "ssn": "x"}
        people.app_db.staff.insert_one({"_id": 2, "ssn": "y"})
        for i in (1, 2):
            assert "destroyed" in str(people.app.find_one({"_id": i})["ssn"])
        with pytest.raises(OperationFailure):
            people.app.insert_one(person(3))
        assert people.stored.count_documents({}) == 2


# With Vault.


def data_keys(people, vault) -> dict:
    """What is derived from every data key, by id."""
    found = {}
    for key in people.state["keys"].find():
        text = bytes(key["wrapped"])[16:].decode()
        answer = vault.api("POST", f"transit/decrypt/{KEK}", {"ciphertext": text})
        root = base64.b64decode(answer["data"]["plaintext"])
        found[key["_id"]] = derived_keys(root)
    return found


def named(keys: dict) -> dict:
    return {f"{id} {name}": key for id, all in keys.items() for name, key in all.items()}


@pytest.mark.tsan
def test_a_destroyed_key_leaves_memory_and_vault(vault_people, vault):
    people = vault_people
    retired(people)
    first = vault.kek_version()
    keys = data_keys(people, vault)
    vault.rotate_kek()
    result = destroy(people)
    assert result["trimmed"] is False and "keys rewrap" in result["note"]
    people.rekeyd.wait_event("key_dropped")
    people.app.insert_one(person("after"))
    # The search must be able to find: the current key is in memory by right.
    wait_until(lambda: not occurrences(people.rekeyd.pid, named({1: keys[1]})))
    left = occurrences(people.rekeyd.pid, named(keys))
    assert left and {name.split()[0] for name in left} == {"2"}
    assert people.rekeyd.ctl("keys", "rewrap") == {"rewrapped": 1}
    result = destroy(people)
    assert result["trimmed"] is True, result
    assert f"min_decryption_version of transit/{KEK} is {first + 1}" in result["note"]
    settings = vault.api("GET", f"transit/keys/{KEK}")["data"]
    assert settings["min_decryption_version"] == first + 1
    # Both logs have it.
    assert events(people, "key.trim") == [(1, "started"), (1, "failed"), (1, "started"), (1, "ok")]
    assert vault.requests(f"transit/keys/{KEK}/config") == 1
    assert destroy(people)["trimmed"] is True
    assert vault.requests(f"transit/keys/{KEK}/config") == 1
    second = people.rekeyd.sibling()
    with second, second.client() as client:
        assert client[people.app.database.name].people.find_one({"_id": 7}) == person(7)


def test_vault_that_does_not_allow_it(vault_people, vault):
    """The key is destroyed all the same, and it is said what was not done."""
    people = vault_people
    retired(people)
    vault.rotate_kek()
    people.rekeyd.ctl("keys", "rewrap")
    vault.api("PUT", "sys/policies/acl/rekey", {"policy": POLICY})
    try:
        vault.rotate_kek()
        result = destroy(people)
    finally:
        vault.api("PUT", "sys/policies/acl/rekey", {"policy": POLICY + TRIM})
    assert result["destroyed"] == [1] and result["trimmed"] is False
    assert "was not raised" in result["note"]
    assert events(people, "key.trim") == [(1, "started"), (1, "failed")]


def test_versions_that_old_values_need_stay(vault_people, vault):
    """Values that the application had Vault encrypt itself, before Rekey: nothing counts them."""
    people = vault_people
    retired(people)
    vault.rotate_kek()
    people.rekeyd.ctl("keys", "rewrap")
    old = {"cipher": "vault-transit", "encoding": "base64", "key": f"transit/{KEK}"}
    fields = {"answer": {"algorithm": "random", "legacy": [old]}}
    people.rekeyd.config["policies"] = [people_policy(people.stored_db.name, fields)]
    people.rekeyd.write_config()
    result = destroy(people)
    assert result["trimmed"] is False and "policies read old values" in result["note"]


def test_trim_is_a_choice(vault_people, vault):
    people = vault_people
    retired(people)
    people.rekeyd.config["keys"]["vault"]["trim"] = False
    people.rekeyd.write_config()
    assert destroy(people)["note"] == ""
    assert events(people, "key.trim") == []
