"""Keys that are replaced by themselves, by age or by how much they have encrypted."""

import datetime
import threading
import time

import pytest

from harness import people_policy, protected
from harness.protected import key_id, person
from harness.waiting import wait_until

pytestmark = pytest.mark.tsan

VALUES = 5  # of a person that are encrypted
QUICK = {"refresh_interval_ms": 100, "instance_lease_ms": 2000, "cursor_grace_ms": 0}
AFTER, LEASE = 50000, 500


@pytest.fixture
def start(single_member_set, start_rekeyd, db_name):
    """start(**keys): Protected over one of two instances, and the other one."""
    opened = []

    def start(**keys):
        settings = {"keys": {**QUICK, **keys}}
        first = start_rekeyd(single_member_set, [people_policy(db_name)], settings=settings)
        second = first.sibling()
        second.start()
        collection = protected(first, db_name)
        opened.append((second, collection))
        return collection.__enter__(), second

    yield start
    for second, collection in opened:
        collection.__exit__(None, None, None)
        second.finish()


def rotations(people) -> list:
    """(key, who and why, how it ended) of all but the first key."""
    found = people.state.audit.find({"action": "key.rotate", "keyId": {"$gt": 1}})
    return [(event["keyId"], event["actor"], event["result"]) for event in found.sort("at")]


def counted(people, id=1) -> int:
    key = people.state["keys"].find_one({"_id": id}) or {}
    return key.get("encryptions", 0)


def stored_under(people, id=1) -> int:
    documents = people.stored.find({}, {"ssn": 1})
    return VALUES * sum(key_id(document["ssn"]) == id for document in documents)


def write_as_leased(people):
    """As fast as leases grow and no faster, so that the count is never behind, until it is full."""
    stored, deadline = stored_under(people), time.monotonic() + 60
    while (count := counted(people)) < AFTER:
        assert time.monotonic() < deadline, (count, stored)
        n = min(500, (count - stored) // VALUES)
        if n > 0:
            people.app.insert_many([person(f"bulk {stored} {i}") for i in range(n)])
            stored += n * VALUES
        else:
            time.sleep(0.02)


def both_have(people, second, id):
    def current(instance):
        return [e["to"] for e in instance.events("current_key_changed")][-1:] == [id]

    wait_until(lambda: current(people.rekeyd) and current(second))


def test_by_age(start):
    people, second = start(rotate_after_days=90)
    people.app.insert_one(person(1))
    both_have(people, second, 1)
    keys = people.state["keys"]
    old = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=91, hours=1)
    keys.update_one({"_id": 1}, {"$set": {"activatedAt": old}})
    both_have(people, second, 2)
    why = "rekeyd, automatic: age 91 d"
    assert rotations(people) == [(2, why, "started"), (2, why, "ok")]
    people.app.insert_one(person(2))
    assert key_id(people.stored.find_one({"_id": 2})["ssn"]) == 2
    rotated = people.rekeyd.events("key_rotated") + second.events("key_rotated")
    assert [(event["from"], event["to"]) for event in rotated] == [(1, 2)]
    # It is not old, and nothing counts it.
    time.sleep(1)
    assert keys.count_documents({}) == 2
    assert keys.count_documents({"encryptions": {"$exists": True}}) == 0


def test_by_count_over_instances_of_which_one_is_killed(start):
    people, second = start(rotate_after_encryptions=AFTER, encryption_lease=LEASE)
    stop, failures = threading.Event(), []

    def write(name, client):
        collection = client[people.app.database.name].people
        i = 0
        try:
            while not stop.is_set():
                collection.insert_one(person(f"{name} {i}"))
                i += 1
                time.sleep(0.005)  # slower than leases are renewed
        except Exception as failure:  # told below
            failures.append((name, failure))

    with people.rekeyd.client() as one, second.client(serverSelectionTimeoutMS=1000) as two:
        threads = [
            threading.Thread(target=write, args=("first", one)),
            threading.Thread(target=write, args=("second", two)),
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            before = stored_under(people)
            assert before <= counted(people)
        second.kill9()
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join()
    assert [name for name, _ in failures] in ([], ["second"])
    # What the killed instance wrote is in the count.
    assert 0 < stored_under(people) <= counted(people)
    second.start()
    write_as_leased(people)
    both_have(people, second, 2)
    assert AFTER // 2 < stored_under(people) <= counted(people) >= AFTER
    ((id, why, started), (_, _, ended)) = rotations(people)
    assert (id, started, ended) == (2, "started", "ok")
    assert why.startswith("rekeyd, automatic: count ") and int(why.split()[-1]) >= AFTER
    status = people.rekeyd.ctl("keys", "status")["keys"]
    assert status[0]["encryptions"] >= AFTER


def test_searches_count(start):
    """Each gives the server a ciphertext."""
    people, _ = start(rotate_after_encryptions=AFTER, encryption_lease=LEASE)
    people.app.insert_one(person(1))
    for i in range(1200):
        people.app.find_one({"ssn": f"searched {i}"})
    wait_until(lambda: counted(people) > 1200)


def test_a_lease_that_is_too_large_is_refused(start):
    people, _ = start()
    people.rekeyd.config["keys"].update(rotate_after_encryptions=1000)
    people.rekeyd.write_config()
    result = people.rekeyd.ctl("config", "check", check=False)
    assert result.returncode == 1
    assert "keys.encryption_lease: must be at most a hundredth" in result.stderr
