"""Values that Vault itself encrypts and decrypts: transit mode, and "vault:v1:..." from before."""

import base64
import concurrent.futures
import contextlib
import threading
import time

import pytest
from bson.binary import Binary
from pymongo.errors import BulkWriteError, OperationFailure

from harness import KEK, CtlError, Rekeyd, is_envelope, policy
from harness.protected import ENVELOPE_MAGIC, ENVELOPE_SUBTYPE, SECRET, key_id
from harness.waiting import wait_until
from on_vault import (
    FLAG_REMOTE,
    TRANSIT_FIELDS,
    flags,
    left_to_sweep,
    message_of,
    registry,
    settings_of,
    write_and_read,
)

ENCRYPT, DECRYPT = f"transit/encrypt/{KEK}", f"transit/decrypt/{KEK}"


def person(i):
    return {
        "_id": i,
        "name": f"name {i}",
        "answer": {"text": f"{SECRET} answer {i}", "list": [i, None, 1.5]},
        "ssn": f"{SECRET} ssn {i}",
        "contact": [{"kind": "home", "phone": f"{SECRET} phone {i}"}, {"phone": None}],
        "size": 7,
    }


@pytest.fixture
def people(vault, start):
    return start(vault, fields=TRANSIT_FIELDS, mode="transit")


@pytest.mark.tsan
def test_values_are_encrypted_by_vault(vault, people):
    before = vault.requests(ENCRYPT), vault.requests(DECRYPT)
    write_and_read(people, person(1))
    stored = people.check()[0]
    assert flags(stored["ssn"]) == FLAG_REMOTE
    assert vault.requests(ENCRYPT) > before[0] and vault.requests(DECRYPT) > before[1]
    record = registry(people).find_one()
    assert record["mode"] == "transit" and record["kek"].startswith(f"transit/{KEK}:v")
    # What lies there is Vault's: header as associated data, then version, nonce, ciphertext.
    value = bytes(stored["ssn"])
    version, sealed = int.from_bytes(value[20:24], "little"), base64.b64encode(value[24:]).decode()
    assert record["kek"] == f"transit/{KEK}:v{version}"
    opened = vault.api(
        "POST",
        DECRYPT,
        {
            "ciphertext": f"vault:v{version}:{sealed}",
            "associated_data": base64.b64encode(value[:20]).decode(),
        },
    )
    plain = base64.b64decode(opened["data"]["plaintext"])
    assert plain[4:-1].decode() == person(1)["ssn"]


def test_all_kinds_of_commands(people):
    """Each of them may have to wait for Vault; none is aware of it."""
    app = people.app
    people.app.insert_many([person(i) for i in range(50)])
    app.update_one({"_id": 1}, {"$set": {"ssn": f"{SECRET} new"}})
    app.replace_one({"_id": 2}, {"answer": 5})
    app.update_one({"_id": 100}, {"$set": {"contact": [{"phone": f"{SECRET} x"}]}}, upsert=True)
    app.update_many({"size": 7}, {"$push": {"contact": {"phone": f"{SECRET} more"}}})
    found = app.find_one_and_update({"_id": 3}, {"$set": {"answer": None}}, return_document=True)
    assert found["ssn"] == f"{SECRET} ssn 3" and found["answer"] is None
    assert app.find_one({"_id": 1})["ssn"] == f"{SECRET} new"
    assert [d["ssn"] for d in app.find({"_id": {"$lt": 50, "$gt": 2}}, batch_size=7)] == [
        f"{SECRET} ssn {i}" for i in range(3, 50)
    ]
    shown = list(app.aggregate([{"$match": {"_id": 4}}, {"$project": {"other": "$ssn"}}]))
    assert shown == [{"_id": 4, "other": f"{SECRET} ssn 4"}]
    with people.app_client.start_session() as session, session.start_transaction():
        app.insert_one(person("t"), session=session)
        assert app.find_one({"_id": "t"}, session=session) == person("t")
    with app.watch(full_document="updateLookup") as stream:
        app.update_one({"_id": 5}, {"$set": {"ssn": f"{SECRET} streamed"}})
        event = next(stream)
        assert event["fullDocument"]["ssn"] == f"{SECRET} streamed"
        assert event["updateDescription"]["updatedFields"]["ssn"] == f"{SECRET} streamed"
    assert app.distinct("name", {"_id": 5}) == ["name 5"]
    people.check()


def test_a_batch_moves_and_large_values(people):
    """About 1.3 MB of JSON each: several requests, each larger than batch_bytes_max."""
    large = [{"_id": i, "ssn": SECRET + "x" * 700_000} for i in range(8)]
    people.app.insert_many(large)
    assert list(people.app.find().sort("_id")) == large
    people.check()


@pytest.mark.tsan
def test_a_batch_above_vaults_limit_is_sent_in_halves(vault, start):
    """Vault takes 32 MB at once; a batch of this size has 40."""
    people = start(
        vault,
        fields=TRANSIT_FIELDS,
        mode="transit",
        transit={"batch_bytes_max": 100_000_000},
        request_timeout_ms=30_000,
        retry_timeout_ms=60_000,
        others={"limits": {"key_wait_timeout_ms": 60_000}},
    )
    large = [{"_id": i, "ssn": SECRET + "x" * 700_000} for i in range(40)]
    people.app.insert_many(large)
    assert list(people.app.find().sort("_id")) == large
    people.check()


def test_statements_that_cannot_be_stored_fail_alone(people):
    with pytest.raises(BulkWriteError) as failure:
        people.app.insert_many(
            [person(1), {"_id": 2, "ssn": Binary(ENVELOPE_MAGIC, ENVELOPE_SUBTYPE)}, person(3)],
            ordered=False,
        )
    assert [e["index"] for e in failure.value.details["writeErrors"]] == [1]
    assert people.seen() == [person(1), person(3)]


@pytest.mark.tsan
def test_sessions_share_requests(vault, start):
    people = start(
        vault, fields=TRANSIT_FIELDS, mode="transit", transit={"coalesce_us": 50_000, "requests_max": 1}
    )
    people.app.insert_many([person(i) for i in range(32)])
    before = vault.requests(DECRYPT)
    barrier = threading.Barrier(32)

    def read(i):
        barrier.wait()
        return people.app.find_one({"_id": i})

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        assert list(pool.map(read, range(32))) == [person(i) for i in range(32)]
    assert vault.requests(DECRYPT) - before <= 16


# Rotation and sweep.


@pytest.mark.tsan
def test_rotation_and_sweep(vault, people):
    people.app.insert_many([person(i) for i in range(1200)])
    version = vault.kek_version()
    assert people.rotate() == 2
    assert vault.kek_version() == version + 1
    write_and_read(people, person("new"))
    assert key_id(people.stored.find_one({"_id": "new"})["ssn"]) == 2
    assert people.app.find_one({"_id": 3}) == person(3)
    people.rekeyd.ctl("start", people.namespace, "--wait")
    assert left_to_sweep(people) == 0
    report = people.rekeyd.ctl("verify", people.namespace, "--deep")
    assert report["ok"]
    for field in report["namespaces"][0]["fields"]:
        assert field["undecryptable"] == 0 and field["opened"] == field["current"] > 0
    assert people.seen() == [*(person(i) for i in range(1200)), person("new")]
    assert people.rekeyd.ctl("keys", "rewrap") == {"rewrapped": 0}


def test_from_envelope_to_transit_and_back(vault, start, start_rekeyd, single_member_set, tmp_path):
    people = start(vault, fields=TRANSIT_FIELDS)
    people.app.insert_many([person(i) for i in range(20)])
    config = people.rekeyd.config
    for mode, flag in (("transit", FLAG_REMOTE), ("envelope", 0)):
        people.rekeyd.stop()
        config["keys"]["vault"]["mode"] = mode
        people.rekeyd.write_config()
        people.rekeyd.start()
        new = people.rotate()
        people.rekeyd.ctl("start", people.namespace, "--wait")
        stored = people.check()
        assert {key_id(d["ssn"]) for d in stored} == {new}
        assert {flags(d["ssn"]) for d in stored} == {flag}
        assert people.seen() == [person(i) for i in range(20)]


def test_deterministic_fields_after_transit_mode(vault, start):
    """Old values lie under a key of Vault's, of which equality must not be afraid."""
    fields = {**TRANSIT_FIELDS, "mail": "deterministic"}
    people = start(vault, fields=TRANSIT_FIELDS, mode="transit")
    people.app.insert_many([person(i) for i in range(5)])
    config = people.rekeyd.config
    people.rekeyd.stop()
    config["keys"]["vault"]["mode"] = "envelope"
    config["policies"] = [policy(people.namespace, fields)]
    people.rekeyd.write_config()
    people.rekeyd.start()
    with pytest.raises(OperationFailure, match="stays with its provider"):
        people.app.find_one({"mail": SECRET})
    with pytest.raises(OperationFailure, match="stays with its provider"):
        people.app.insert_many([{"_id": 9, "mail": SECRET}])
    people.rotate()
    people.app.update_one({"_id": 3}, {"$set": {"mail": SECRET}})
    assert people.app.find_one({"mail": SECRET}) == {**person(3), "mail": SECRET}
    people.app.update_one({"mail": SECRET}, {"$set": {"size": 8}})
    assert people.app.count_documents({"mail": SECRET, "size": 8}) == 1
    people.check()


def test_rotation_needs_the_right(vault, people):
    write_and_read(people, person(1))
    narrow = vault.policy.replace(f'path "transit/keys/{KEK}/rotate"', 'path "transit/none"')
    assert narrow != vault.policy
    vault.api("PUT", "sys/policies/acl/rekey", {"policy": narrow})
    with pytest.raises(CtlError) as failure:
        people.rekeyd.ctl("keys", "rotate")
    assert f"transit/keys/{KEK}/rotate" in message_of(failure) and "403" not in message_of(failure)
    write_and_read(people, person(2))


def test_a_moved_record_is_refused(vault, people):
    write_and_read(people, person(1))
    people.rotate()
    records = registry(people)
    first = records.find_one({"_id": 1})
    records.update_one({"_id": 2}, {"$set": {"wrapped": first["wrapped"], "kek": first["kek"]}})
    people.rekeyd.stop()
    people.rekeyd.start()
    failed = people.rekeyd.wait_event("key_unwrap_failed")
    assert failed["key_id"] == 2 and "another one's, or was altered" in failed["reason"]
    with pytest.raises(OperationFailure):
        people.app.insert_one(person(2))
    assert people.app.find_one({"_id": 1}) == person(1)


# Bad items and outages.


def damage(people, name, field="ssn"):
    value = people.stored.find_one({"_id": name})[field]
    altered = bytes(value[:-1]) + bytes([value[-1] ^ 1])
    people.stored.update_one({"_id": name}, {"$set": {field: Binary(altered, value.subtype)}})


def test_a_batch_with_bad_items(vault, people):
    """An altered value is an error of its own read; those that were sent with it are read."""
    people.app.insert_many([person(i) for i in range(10)])
    damage(people, 4)
    with pytest.raises(OperationFailure, match="provider of key 1 does not open it"):
        list(people.app.find())
    assert people.rekeyd.wait_event("vault_item_failed")["key"].startswith("transit/")
    assert people.rekeyd.admin.value("rekey_vault_batch_values_total", result="failed") >= 1
    barrier = threading.Barrier(10)

    def read(i):
        barrier.wait()
        with contextlib.suppress(OperationFailure):
            return people.app.find_one({"_id": i})

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        found = list(pool.map(read, range(10)))
    assert found == [person(i) if i != 4 else None for i in range(10)]


def test_a_value_of_another_field_is_refused(people):
    """The header is associated data: what moves to another key's or field's place does not open."""
    write_and_read(people, person(1))
    value = bytes(people.stored.find_one({"_id": 1})["ssn"])
    forged = value[:12] + bytes(4) + value[16:]
    people.stored.update_one({"_id": 1}, {"$set": {"ssn": Binary(forged, ENVELOPE_SUBTYPE)}})
    with pytest.raises(OperationFailure, match="does not open it"):
        people.app.find_one({"_id": 1})


def test_a_version_that_may_no_longer_decrypt(vault, people):
    write_and_read(people, person(1))
    people.rotate()
    write_and_read(people, person(2))
    vault.configure_kek(min_decryption_version=vault.kek_version())
    with pytest.raises(OperationFailure, match="does not open it"):
        people.app.find_one({"_id": 1})
    assert "disallowed" in people.rekeyd.wait_event("vault_item_failed")["reason"]
    assert people.rekeyd.admin.value("rekey_vault_batch_values_total", result="failed") >= 1
    write_and_read(people, person(3))


@pytest.mark.tsan
def test_vault_away_fails_what_needs_it_and_nothing_else(vault, people):
    write_and_read(people, person(1))
    vault.seal()
    people.rekeyd.wait_event("vault_unavailable")
    for command in (
        lambda: people.app.find_one({"_id": 1}),
        lambda: people.app.insert_one(person(2)),
    ):
        with pytest.raises(OperationFailure, match="no unsealed server answers") as failure:
            command()
        assert failure.value.code == 6  # HostUnreachable: drivers take it for passing
    people.plain.insert_one({"_id": 1})
    assert people.app.count_documents({}) == 1
    assert people.app.find_one({"_id": 1}, {"name": 1}) == {"_id": 1, "name": "name 1"}
    vault.unseal()
    people.rekeyd.wait_event("vault_available", 2)
    write_and_read(people, person(2))


@pytest.mark.tsan
def test_the_sweep_waits_for_vault(vault, start):
    people = start(
        vault, fields=TRANSIT_FIELDS, mode="transit", others={"sweep": {"max_rate": 200, "batch_docs": 10}}
    )
    people.app.insert_many([person(i) for i in range(300)])
    people.rotate()
    people.rekeyd.ctl("start", people.namespace)
    wait_until(lambda: left_to_sweep(people) < 250)
    vault.seal()
    people.rekeyd.wait_event("vault_unavailable")
    time.sleep(0.5)
    vault.unseal()
    wait_until(lambda: left_to_sweep(people) == 0)
    assert people.seen() == [person(i) for i in range(300)]


@pytest.mark.tsan
def test_clients_that_leave_while_vault_is_asked(vault, people):
    """Their values are answered later, and by then belong to nobody."""
    people.app.insert_many([person(i) for i in range(20)])
    vault.suspend()
    try:
        for _ in range(20):
            with people.rekeyd.client(socketTimeoutMS=100, retryReads=False) as client:
                with contextlib.suppress(Exception):
                    client[people.app_db.name].people.find_one({"_id": 1})
    finally:
        vault.resume()
    people.rekeyd.wait_event("vault_available", 2)
    write_and_read(people, person("later"))


@pytest.mark.tsan
def test_stopping_while_vault_is_asked(vault, people):
    people.app.insert_many([person(i) for i in range(20)])
    vault.suspend()
    try:
        with people.rekeyd.client(socketTimeoutMS=100, retryReads=False) as client:
            with contextlib.suppress(Exception):
                client[people.app_db.name].people.find_one({"_id": 1})
        people.app_client.close()  # later it would look for a server to tell
        people.rekeyd.stop()
    finally:
        vault.resume()


# Values that the application had Vault encrypt.


@pytest.fixture
def encrypted_before(vault):
    """encrypted_before(text): what the application stored, before there was a Rekey."""
    if not vault.has("transit/keys/app"):
        vault.api("POST", "transit/keys/app", {"type": "aes256-gcm96"})

    def encrypt(text: str) -> str:
        plaintext = base64.b64encode(text.encode()).decode()
        return vault.api("POST", "transit/encrypt/app", {"plaintext": plaintext})["data"][
            "ciphertext"
        ]

    return encrypt


def legacy(key="transit/app", **more) -> dict:
    form = {"cipher": "vault-transit", "encoding": "base64", "key": key, **more}
    return {"answer": "random", "ssn": {"legacy": [form]}}


@pytest.mark.tsan
@pytest.mark.parametrize("mode", ["envelope", "transit"])
def test_texts_of_vault_are_read_and_swept(vault, start, encrypted_before, mode):
    people = start(vault, fields=legacy(), mode=mode)
    documents = [{"_id": i, "ssn": encrypted_before(f"{SECRET} {i}")} for i in range(30)]
    vault.api("POST", "transit/keys/app/rotate", {})
    documents += [{"_id": i, "ssn": encrypted_before(f"{SECRET} {i}")} for i in range(30, 60)]
    people.stored.insert_many(documents)
    wanted = [{"_id": i, "ssn": f"{SECRET} {i}"} for i in range(60)]
    assert people.seen() == wanted
    assert next(iter(people.app.find({"_id": 31}, {"ssn": 1}))) == wanted[31]
    people.app.update_one({"_id": 1}, {"$set": {"size": 1}})
    assert people.app.find_one({"_id": 1}) == {**wanted[1], "size": 1}
    people.rekeyd.ctl("start", people.namespace, "--wait")
    assert all(is_envelope(d["ssn"]) for d in people.check())
    assert [d["ssn"] for d in people.app.find().sort("_id")] == [d["ssn"] for d in wanted]
    assert people.rekeyd.ctl("verify", people.namespace, "--deep")["ok"]


def test_texts_under_a_key_that_is_not_allowed(vault, start, encrypted_before):
    people = start(vault, fields=legacy("transit/other"))
    people.stored.insert_one({"_id": 1, "ssn": encrypted_before(SECRET)})
    with pytest.raises(OperationFailure, match="transit/decrypt/other") as failure:
        people.app.find_one({"_id": 1})
    assert failure.value.code == 96  # not to be tried again


def test_a_text_that_vault_did_not_make_is_a_dead_letter(vault, start, encrypted_before):
    people = start(vault, fields=legacy())
    good, bad = encrypted_before(f"{SECRET} 1"), encrypted_before(f"{SECRET} 2")
    bad = bad[:-6] + ("AAAA" if bad[-6:-2] != "AAAA" else "BBBB") + bad[-2:]
    people.stored.insert_many([{"_id": 1, "ssn": good}, {"_id": 2, "ssn": bad}])
    with pytest.raises(OperationFailure, match="opens under none of the field's legacy formats"):
        people.app.find_one({"_id": 2})
    people.rekeyd.ctl("start", people.namespace, "--wait", check=False)
    assert people.app.find_one({"_id": 1}) == {"_id": 1, "ssn": f"{SECRET} 1"}
    assert people.stored.find_one({"_id": 2})["ssn"] == bad
    (letter,) = people.rekeyd.ctl("dead-letters", "list")["deadLetters"]
    assert letter["docId"] == 2


# Configuration.


@pytest.mark.parametrize(
    ("fields", "changes", "message"),
    [
        ({"ssn": "deterministic"}, {"mode": "transit"}, "fields[0].algorithm: deterministic needs"),
        (legacy("app"), {}, "legacy[0].key: must be MOUNT/KEY"),
        (legacy("transit/app", iv_hex="00" * 16), {}, "legacy[0].cipher: vault-transit goes with"),
        ({"ssn": "random"}, {"mode": "both"}, "mode"),
        ({"ssn": "random"}, {"transit": {"requests_max": 0}}, "transit.requests_max"),
    ],
)
def test_settings_that_cannot_be(single_member_set, vault, tmp_path, fields, changes, message):
    settings = settings_of(vault, tmp_path, changes=changes)
    rekeyd = Rekeyd(single_member_set, [policy("a.b", fields)], settings, tmp_path)
    result = rekeyd.ctl("config", "check", check=False)
    assert result.returncode == 1 and message in result.stderr


def test_texts_of_vault_need_vault(single_member_set, tmp_path):
    rekeyd = Rekeyd(single_member_set, [policy("a.b", legacy())], directory=tmp_path)
    result = rekeyd.ctl("config", "check", check=False)
    assert "vault-transit needs keys.provider: vault" in result.stderr
