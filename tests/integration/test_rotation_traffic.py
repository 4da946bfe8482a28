"""Whole rotations under traffic, on three instances and a real Vault: no read fails at any step, and
no answer is wrong. REKEY_ROTATION_SECONDS makes it go on for longer than three rotations."""

import collections
import json
import os
import time

import pytest
from harness import Rekeyd, people_policy, protected
from harness.protected import key_id
from rotation_traffic import MovesBack, Reader, Watcher, Writer, seed

ROTATIONS = 3
SECONDS = float(os.environ.get("REKEY_ROTATION_SECONDS", "0"))
KEYS = {"refresh_interval_ms": 200, "instance_lease_ms": 3000, "cursor_grace_ms": 6000}


@pytest.fixture
def three(request, single_member_set, vault, tmp_path, db_name):
    """Three instances, and Protected over the first."""
    settings = vault.settings(tmp_path / "secrets")
    settings["keys"].update(KEYS)
    settings["sweep"] = {"guard": {"p99_limit_ms": 0}}  # the machine may be busy with other tests
    single = ["primary"] if request.param == "single" else None
    policies = [people_policy(db_name)]
    first = Rekeyd(single_member_set, policies, settings, tmp_path / "rekeyd", single=single)
    instances = [first] + [first.sibling(name, single=single) for name in ("second", "third")]
    for instance in instances:
        instance.start()
    with protected(first, db_name) as people:
        yield instances, people
    for instance in instances:
        instance.finish()


def start_traffic(instances, db_name) -> list:
    clients = [Reader(f"reader {i}", instance, db_name) for i, instance in enumerate(instances)]
    for i, instance in enumerate(instances):
        others = [other for other in instances if other is not instance]
        clients.append(Writer(i, instance, db_name, others))
    clients.append(Watcher(instances[0], instances[1], db_name))
    for client in clients:
        client.start()
    return clients


def restart(instance, clients):
    """As in a rolling upgrade; whoever talks to it, if only to look, is cut off."""
    for client in clients:
        client.interrupted.set()
    instance.terminate()
    instance.start()
    time.sleep(2)
    for client in clients:
        client.interrupted.clear()


def rotate(instances, people, vault, number: int):
    """One life cycle, and a new key-encryption key on the way."""
    new = people.rekeyd.ctl("keys", "rotate")["keyId"]
    if number % 2:
        vault.rotate_kek()
        assert people.rekeyd.ctl("keys", "rewrap")["rewrapped"] == new
    people.wait_for_key(new)
    jobs = people.rekeyd.ctl("start", "--wait", people.namespace, timeout_s=100)["jobs"]
    assert jobs[0]["state"] == "complete"
    people.rekeyd.ctl("verify", people.namespace)
    groups = people.stored.find({"n": {"$gte": 0}})
    assert {key_id(document["ssn"]) for document in groups} == {new}


@pytest.mark.timeout(max(180, SECONDS + 180))
@pytest.mark.parametrize(
    "three, indexed",
    [("mirror", False), ("single", True)],
    indirect=["three"],
    ids=["mirror, unindexed", "single, indexed"],
)
def test_rotations_under_traffic_fail_no_read(three, vault, indexed):
    instances, people = three
    seed(people)
    if indexed:
        people.app.create_index("ssn")
    moves_back = MovesBack(people.stored)
    moves_back.start()
    clients = start_traffic(instances, people.app.database.name)
    started, rotations = time.monotonic(), 0
    try:
        while rotations < ROTATIONS or time.monotonic() - started < SECONDS:
            rotate(instances, people, vault, rotations)
            rotations += 1
            if rotations == 1:
                restart(instances[2], clients)
            assert not failures(clients)
    finally:
        for client in clients:
            client.finish()
        moves_back.finish()
    counts = sum((client.counts for client in clients), collections.Counter())
    moved = sum(len(times) for times in moves_back.moves.values())
    seconds = round(time.monotonic() - started)
    print(json.dumps({"rotations": rotations, "seconds": seconds, "moved back": moved, **counts}))
    assert not failures(clients)
    missed = [miss for client in clients if isinstance(client, Reader) for miss in client.missed]
    if not indexed:  # a scan meets each document once, whatever its value becomes
        assert not missed and counts["seen twice"] == 0, missed
    assert not [miss for miss in missed if not moves_back.explains(*miss)], missed
    for client in clients:
        steps = {step.__name__ for step in client.steps()}
        assert steps <= set(client.counts), f"{client.name} never came to {steps - set(client.counts)}"
    watcher = clients[-1]
    assert watcher.sent == watcher.received > 0
    for instance in instances:
        assert not [e for e in instance.events("cursor_ended") if e["command"] != "getMore"]
        assert not instance.events("readers_outdated")


def failures(clients) -> list:
    return [f"{client.name}: {failure}" for client in clients for failure in client.failures]
