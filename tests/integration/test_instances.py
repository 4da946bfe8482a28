"""Several rekeyd over the same servers: a new key is written under once all of them have it, so that
none misses a value that another one has just written."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from pymongo.errors import PyMongoError

from harness import CtlError, Rekeyd, people_policy, protected
from harness.protected import key_id
from harness.waiting import wait_until

pytestmark = pytest.mark.tsan

ROTATIONS = 4
LEASE_MS = 2000
GRACE_MS = 4000


@pytest.fixture
def three(single_member_set, tmp_path, db_name):
    """Three instances, and Protected over the first."""
    settings = {
        "keys": {
            "instance_lease_ms": LEASE_MS,
            "cursor_grace_ms": GRACE_MS,
            "refresh_interval_ms": 200,
        }
    }
    first = Rekeyd(single_member_set, [people_policy(db_name)], settings, tmp_path / "rekeyd")
    instances = [first] + [first.sibling(name) for name in ("second", "third")]
    for instance in instances:
        instance.start()
    with protected(first, db_name) as people:
        yield instances, people
    for instance in instances:
        instance.finish()


class Traffic(threading.Thread):
    """Writes through one instance, and looks the value up at once through the others."""

    def __init__(self, number: int, people, clients):
        super().__init__()
        self.number = number
        self.collections = [client[people.app.database.name].people for client in clients]
        self.rounds, self.missed, self.failure = 0, [], None
        self.stopping = threading.Event()

    def run(self):
        try:
            while not self.stopping.is_set():
                self.round()
        except Exception as failure:  # told by the test
            self.failure = failure

    def round(self):
        own = self.collections[self.number]
        ssn = f"{self.number}-{self.rounds}"
        own.insert_one({"_id": ssn, "ssn": ssn})
        for reader in self.collections:
            if reader.count_documents({"ssn": ssn}) != 1:
                self.missed.append(ssn)
        self.rounds += 1


def test_rotations_under_traffic_miss_nothing(three):
    instances, people = three
    clients = [instance.client() for instance in instances]
    people.app.insert_one({"_id": "first", "ssn": "first"})
    threads = [Traffic(i, people, clients) for i in range(3)]
    for thread in threads:
        thread.start()
    try:
        for id in range(2, 2 + ROTATIONS):
            assert people.rekeyd.ctl("keys", "rotate") == {"keyId": id}
            for instance in instances:
                wait_until(lambda i=instance: current_key(i) == id)
    finally:
        for thread in threads:
            thread.stopping.set()
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()
    assert [thread.failure for thread in threads] == [None] * 3
    assert [thread.missed for thread in threads] == [[]] * 3
    assert sum(thread.rounds for thread in threads) > 3 * ROTATIONS
    people.app.insert_one({"_id": "last", "ssn": "last"})
    used = {key_id(document["ssn"]) for document in people.stored.find()}
    assert used == set(range(1, 2 + ROTATIONS))


def test_a_silent_instance_holds_a_rotation_up_until_its_cursors_have_ended(three):
    instances, people = three
    people.app.insert_one({"_id": 1, "ssn": "one"})
    instances[2].suspend()
    started = time.monotonic()
    assert people.rekeyd.ctl("keys", "rotate") == {"keyId": 2}
    waited = time.monotonic() - started
    instances[2].resume()
    people.wait_for_key(2)
    # A heartbeat may be as old as a third of the lease, and its time is taken by the server.
    assert waited > (GRACE_MS - LEASE_MS / 2) / 1000


def test_an_instance_that_comes_back_misses_nothing(three):
    """What was asked while it was suspended, it answers before it knows of the new key, or not at all."""
    instances, people = three
    for round in range(3):
        values = [f"{round}-{i}" for i in range(16)]
        clients = [instances[2].client(retryReads=False, maxPoolSize=1) for _ in values]
        collections = [client[people.app.database.name].people for client in clients]
        for coll in collections:
            assert coll.find_one({"ssn": "nobody"}) is None  # connects
        instances[2].suspend()
        people.rekeyd.ctl("keys", "rotate")
        people.app.insert_many([{"_id": value, "ssn": value} for value in values])
        with ThreadPoolExecutor(len(values)) as asking:
            asked = [asking.submit(ask, coll, value) for coll, value in zip(collections, values)]
            time.sleep(0.5)  # for the requests to lie in front of it
            instances[2].resume()
            answers = [each.result() for each in asked]
        assert None not in answers, answers
        wait_until(lambda found=collections[0], value=values[0]: ask(found, value) == value)
        for client in clients:
            client.close()


def ask(coll, value):
    """The value; or why there is no answer."""
    try:
        found = coll.find_one({"ssn": value})
    except PyMongoError as refused:
        return str(refused)
    return found and found["ssn"]


def test_while_a_key_is_pending_nobody_writes_under_it(three):
    """Everyone can read under it, though, and no second rotation starts."""
    instances, people = three
    people.app.insert_one({"_id": 1, "ssn": "one"})
    heartbeats = people.state.instances
    # An instance of which nothing is known but that it lives.
    heartbeats.insert_one({"_id": "elsewhere", "leaseMs": 60000, "keys": [1]})
    heartbeats.update_one({"_id": "elsewhere"}, {"$currentDate": {"at": True}})
    rotation = threading.Thread(target=people.rekeyd.ctl, args=("keys", "rotate"))
    rotation.start()
    wait_until(lambda: pending(people) == [2])
    wait_until(lambda: all(2 in found["keys"] for found in ours(heartbeats)))
    with pytest.raises(CtlError) as failure:
        people.rekeyd.ctl("keys", "rotate")
    assert "key 2 is pending still" in str(failure.value)
    for i, instance in enumerate(instances):
        with instance.client() as client:
            client[people.app.database.name].people.insert_one({"_id": f"at {i}", "ssn": "one"})
    assert {key_id(document["ssn"]) for document in people.stored.find()} == {1}
    heartbeats.update_one({"_id": "elsewhere"}, {"$push": {"keys": 2}})
    rotation.join()
    assert pending(people) == []
    people.wait_for_key(2)
    assert people.app.count_documents({"ssn": "one"}) == 4


def test_an_instance_whose_heartbeats_look_old_is_not_silent(three):
    """As all of them do when mongod's clock was set forward."""
    instances, people = three
    people.app.insert_one({"_id": 1, "ssn": "one"})
    heartbeats = people.state.instances
    lease_s = 3
    heartbeats.insert_one({"_id": "elsewhere", "leaseMs": lease_s * 1000, "keys": [1], "at": long_ago()})
    rotation = threading.Thread(target=people.rekeyd.ctl, args=("keys", "rotate"))
    rotation.start()
    wait_until(lambda: pending(people) == [2])
    over = time.monotonic() + 2 * lease_s
    while time.monotonic() < over:
        heartbeats.update_one({"_id": "elsewhere"}, {"$set": {"at": long_ago()}})
        time.sleep(lease_s / 6)
        assert pending(people) == [2]
    rotation.join()
    assert pending(people) == []
    people.wait_for_key(2)


def long_ago():
    return datetime.now(timezone.utc) - timedelta(seconds=60)


def test_who_leaves_holds_up_nothing(three):
    instances, people = three
    people.app.insert_one({"_id": 1, "ssn": "one"})
    heartbeats = people.state.instances
    wait_until(lambda: heartbeats.count_documents({}) == 3)
    instances[2].terminate()
    assert heartbeats.count_documents({}) == 2
    assert people.rekeyd.ctl("keys", "rotate") == {"keyId": 2}


def current_key(instance) -> int:
    """The one that it writes under, as its log says; 0: none yet."""
    return ([0] + [event["to"] for event in instance.events("current_key_changed")])[-1]


def pending(people) -> list:
    keys = people.rekeyd.ctl("keys", "list")["keys"]
    return [key["id"] for key in keys if key["state"] == "pending"]


def ours(heartbeats) -> list:
    return list(heartbeats.find({"_id": {"$ne": "elsewhere"}}))
