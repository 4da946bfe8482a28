"""From pending to current: a key waits for whoever reads without it, and nobody misses a value."""

import threading
import time
from contextlib import contextmanager

import pytest
import wire
from harness import SECRET, ReplicaSet, key_id, people_policy, protected
from harness.waiting import wait_until
from pymongo.errors import OperationFailure

pytestmark = pytest.mark.tsan

FOUND = 9
HELD = {"keys": {"refresh_interval_ms": 100, "cursor_grace_ms": 600000}}
BRIEFLY = {"keys": {"refresh_interval_ms": 100, "cursor_grace_ms": 3000}}


@pytest.fixture
def start(single_member_set, start_rekeyd, db_name):
    """start(settings): the people behind an instance with these."""

    @contextmanager
    def starter(settings):
        rekeyd = start_rekeyd(single_member_set, [people_policy(db_name)], settings=settings)
        with protected(rekeyd, db_name) as people:
            people.app.insert_many({"_id": i, "ssn": SECRET} for i in range(FOUND))
            yield people

    return starter


@contextmanager
def rotating(people):
    """A rotation that goes on meanwhile: rekeyctl waits for it."""
    outcome = {}

    def rotate():
        result = people.rekeyd.ctl("keys", "rotate", check=False)
        outcome.update(status=result.returncode, said=result.stderr)

    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        people.rekeyd.wait_event("key_loaded", count=2)
        yield outcome
    finally:
        thread.join()


def states(people) -> dict:
    return {key["_id"]: key["state"] for key in people.state["keys"].find()}


def waits_for(people) -> list:
    return [found.get("waitsFor") for found in people.state.instances.find()]


def stays(condition, for_s=1.0):
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        assert condition()
        time.sleep(0.05)


def sweep_by_hand(people):
    """What a sweep does: everything lies under the current key then."""
    for document in people.app.find():
        people.app.replace_one({"_id": document["_id"]}, {"ssn": document["ssn"]})


def test_a_rotation_waits_until_a_cursor_is_read(start):
    with start(HELD) as people:
        cursor = people.app.find({"ssn": SECRET}, batch_size=2)
        read = [next(cursor)["_id"]]
        with rotating(people) as outcome:
            wait_until(lambda: waits_for(people) == [1])
            for _ in range(4):
                read.append(next(cursor)["_id"])
                people.app.replace_one({"_id": read[-1]}, {"ssn": SECRET})
                stays(lambda: states(people) == {1: "current", 2: "pending"}, 0.3)
            # Whoever comes now finds what lies under both keys, and nothing waits for him.
            late = people.app.find({"ssn": SECRET}, batch_size=2)
            late_read = [next(late)["_id"]]
            read += [document["_id"] for document in cursor]
            wait_until(lambda: states(people) == {1: "retiring", 2: "current"})
        assert outcome["status"] == 0
        people.wait_for_key(2)
        sweep_by_hand(people)
        assert sorted(read) == list(range(FOUND))
        late_read += [document["_id"] for document in late]
        assert sorted(set(late_read)) == list(range(FOUND))
        assert not people.rekeyd.events("cursor_ended")


@pytest.mark.parametrize("how", ["closed", "exhausted by limit"])
def test_nothing_waits_for_a_cursor_that_is_closed(start, how):
    with start(HELD) as people:
        cursor = people.app.find({"ssn": SECRET}, batch_size=2, limit=4 if "limit" in how else 0)
        next(cursor)
        if how == "closed":
            cursor.close()
        else:
            assert len(list(cursor)) == 3
        assert people.rekeyd.ctl("keys", "rotate") == {"keyId": 2}


def test_an_unconditional_cursor_is_waited_for_by_nobody(start):
    with start(HELD) as people:
        cursor = people.app.find(batch_size=2)
        seen = [next(cursor)["_id"]]
        people.rotate()
        sweep_by_hand(people)
        assert sorted(seen + [document["_id"] for document in cursor]) == list(range(FOUND))


def test_what_lasts_too_long_is_given_up(start):
    """Then, and only then, it ends: it would miss what lies under the new key."""
    with start(BRIEFLY) as people:
        cursor = people.app.find({"ssn": SECRET}, batch_size=2)
        next(cursor)
        started = time.monotonic()
        assert people.rekeyd.ctl("keys", "rotate") == {"keyId": 2}
        assert time.monotonic() - started > 2
        assert people.rekeyd.wait_event("readers_outdated")["readers"] == 1
        assert next(cursor)["ssn"] == SECRET  # of the first batch
        with pytest.raises(OperationFailure) as ended:
            next(cursor)
        assert ended.value.code == 43
        assert people.app.count_documents({"ssn": SECRET}) == FOUND


def test_rekeyctl_says_what_a_rotation_waits_for(start):
    with start(HELD) as people:
        cursor = people.app.find({"ssn": SECRET}, batch_size=2)
        next(cursor)
        with rotating(people) as outcome:
            stays(lambda: states(people)[2] == "pending", 4)
            cursor.close()
        assert outcome["status"] == 0
        assert "where 1 queries go on that began before it" in outcome["said"]
        assert "becomes current by itself" in outcome["said"]


def test_a_command_on_its_way_is_waited_for(rekeyd_with_fail_points):
    """Of a count, an update or a delete there is no second part that could be refused."""
    people, blocked = rekeyd_with_fail_points
    people.app.insert_many({"_id": i, "ssn": SECRET} for i in range(FOUND))
    counted = []
    with blocked("aggregate", 4000):
        thread = threading.Thread(
            target=lambda: counted.append(people.app.count_documents({"ssn": SECRET}))
        )
        thread.start()
        time.sleep(0.5)
        with rotating(people) as outcome:
            stays(lambda: states(people) == {1: "current", 2: "pending"}, 1)
        thread.join()
    assert outcome["status"] == 0 and counted == [FOUND]


@pytest.fixture(scope="module")
def fail_point_set(servers_directory):
    args = ["--setParameter", "enableTestCommands=1"]
    with ReplicaSet(1, servers_directory / "key_switch", args=args) as servers:
        yield servers


@pytest.fixture
def rekeyd_with_fail_points(fail_point_set, start_rekeyd, db_name):
    """The people behind an instance, and blocked(command, ms), within which mongod dawdles."""
    rekeyd = start_rekeyd(fail_point_set, [people_policy(db_name)], settings=HELD)

    @contextmanager
    def blocked(command, ms):
        data = {"failCommands": [command], "blockConnection": True, "blockTimeMS": ms}
        with fail_point_set.client() as client:
            configure = ("configureFailPoint", "failCommand")
            client.admin.command(*configure, mode="alwaysOn", data=data)
            try:
                yield
            finally:
                client.admin.command(*configure, mode="off")

    with protected(rekeyd, db_name) as people:
        yield people, blocked


# Cursors that outlive their instance.


def opened(rekeyd, people) -> int:
    """The id of an open cursor that no session of a driver ends."""
    command = {"find": "people", "filter": {"ssn": SECRET}, "batchSize": 2, "$db": people.app.database.name}
    return asked(rekeyd, command)["cursor"]["id"]


def read_on(rekeyd, people, cursor: int, n=2) -> dict:
    command = {"getMore": cursor, "collection": "people", "batchSize": n, "$db": people.app.database.name}
    return asked(rekeyd, command)


def asked(rekeyd, command) -> dict:
    with wire.RawClient(rekeyd.addresses[0]) as client:
        return client.command(command)


def test_cursors_go_on_through_another_instance(start):
    """As behind a load balancer: the one that opened it does not see its end."""
    with start(BRIEFLY) as people, people.rekeyd.sibling() as other:
        cursor = opened(people.rekeyd, people)
        with rotating(people) as outcome:
            assert len(read_on(other, people, cursor)["cursor"]["nextBatch"]) == 2
            stays(lambda: states(people)[2] == "pending", 0.5)
        assert outcome["status"] == 0
        other.wait_event("current_key_changed", count=2)
        refused = read_on(other, people, cursor)
        assert refused["ok"] == 0 and refused["code"] == 43
        assert len(read_on(other, people, opened(other, people), 100)["cursor"]["nextBatch"]) == FOUND - 2


def test_the_cursors_of_an_instance_that_ended(start):
    with start(BRIEFLY) as people, people.rekeyd.sibling() as other:
        cursors = [opened(people.rekeyd, people) for _ in range(2)]
        people.rekeyd.terminate()
        assert [found["waitsFor"] for found in people.state.instances.find({"leaseMs": 0})] == [2]
        assert len(read_on(other, people, cursors[0])["cursor"]["nextBatch"]) == 2
        started = time.monotonic()
        assert other.ctl("keys", "rotate") == {"keyId": 2}
        assert time.monotonic() - started > 1.5
        other.wait_event("current_key_changed", count=2)
        time.sleep(0.5)
        for cursor in cursors:
            assert read_on(other, people, cursor)["code"] == 43
        assert len(read_on(other, people, opened(other, people), 100)["cursor"]["nextBatch"]) == FOUND - 2
        people.rekeyd.start()


def test_what_was_opened_with_all_keys_goes_on_after_a_restart(start):
    with start(BRIEFLY) as people:
        people.rotate()
        cursor = opened(people.rekeyd, people)
        people.rekeyd.terminate()
        people.rekeyd.start()
        sweep_by_hand(people)
        assert {key_id(d["ssn"]) for d in people.stored.find()} == {2}
        assert len(read_on(people.rekeyd, people, cursor, 100)["cursor"]["nextBatch"]) == FOUND - 2


@pytest.mark.parametrize("last_id", [1, 254, 65534])
def test_an_index_is_read_while_values_move_in_it(start, last_id):
    """Ciphertext under a later key lies behind: what moves is met again, and never passed over."""
    with start({"keys": {"refresh_interval_ms": 100}}) as people:
        people.stored.create_index("ssn")
        if last_id > 1:  # as if so many keys had been made and destroyed
            people.state["keys"].insert_one({"_id": last_id, "state": "destroyed"})
        assert people.rotate() == last_id + 1
        for i in range(FOUND):
            people.app.replace_one({"_id": i}, {"ssn": SECRET})
        assert people.rotate() == last_id + 2
        with people.app.find({"ssn": SECRET}, batch_size=2).hint([("ssn", 1)]) as cursor:
            seen = [next(cursor)["_id"] for _ in range(2)]
            people.rekeyd.ctl("start", people.namespace, "--wait")
            assert {key_id(d["ssn"]) for d in people.stored.find()} == {last_id + 2}
            seen += [document["_id"] for document in cursor]
        assert set(seen) == set(range(FOUND))
        assert people.app.count_documents({"ssn": SECRET}, hint="ssn_1") == FOUND
        assert len(list(people.app.find({"ssn": SECRET}).hint([("ssn", 1)]))) == FOUND
