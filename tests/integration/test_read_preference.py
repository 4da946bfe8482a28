"""Sweeps that read from secondaries miss nothing, however far behind one of them is."""

import pytest

from harness import ReplicaSet
from harness.waiting import wait_until
from sweeping import is_asked

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def lagging_set(tmp_path_factory):
    """Three members; that one of them falls behind can be arranged. A primary has others repeat a part of
    its reads, which their profiles do not tell from reads of ours."""
    directory = tmp_path_factory.mktemp("lagging")
    alone = ["--setParameter", "mirrorReads={samplingRate: 0.0}"]
    with ReplicaSet(3, directory, args=["--setParameter", "enableTestCommands=1", *alone]) as servers:
        yield servers


def member(servers, mongod):
    return servers._direct(mongod)


def profile(servers, db_name):
    for mongod in servers.members:
        with member(servers, mongod) as client:
            client[db_name].command("profile", 2)


def scans(servers, mongod, db_name) -> list:
    """The batches of a sweep that a member was asked for."""
    with member(servers, mongod) as client:
        query = {"ns": f"{db_name}.people", "command.find": "people", "command.hint": {"_id": 1}}
        return list(client[db_name]["system.profile"].find(query))


def sweep(swept, n):
    swept.insert(range(n))
    swept.rotate()
    job = swept.sweep()
    assert (job["state"], job["swept"], job["scanned"]) == ("complete", n, n)
    assert swept.keys_used() == {2}


@pytest.mark.parametrize("preference", ["secondary", "primary"])
def test_whom_batches_are_read_from(start_swept, lagging_set, preference):
    swept = start_swept(lagging_set, {"sweep": {"read_preference": preference}})
    db_name = swept.stored_db.name
    profile(lagging_set, db_name)
    sweep(swept, 200)
    primary = scans(lagging_set, lagging_set.primary(), db_name)
    batches = [s for s in primary if "projection" in s["command"] and "answer" in str(s["command"])]
    others = [s for m in lagging_set.secondaries() for s in scans(lagging_set, m, db_name)]
    if preference == "primary":
        assert batches and not others
    else:
        assert others and not batches
        for scan in others:
            concern = scan["command"]["readConcern"]
            assert concern["level"] == "snapshot" and concern["afterClusterTime"], scan


def test_a_secondary_that_is_behind_is_waited_for(start_swept, lagging_set):
    """Asked as it is, it would say that there is nothing to sweep."""
    settings = {"read_preference": "secondary", "write_timeout_ms": 1500, "threads": 4}
    swept = start_swept(lagging_set, {"sweep": settings})
    behind = lagging_set.secondaries()[0]
    with member(lagging_set, behind) as client:
        client.admin.command("configureFailPoint", "rsSyncApplyStop", mode="alwaysOn")
        try:
            swept.insert(range(200))
            swept.rotate()
            swept.start()
            wait_until(lambda: is_asked(client, swept.stored))
            swept.wait(lambda: swept.job()["state"] == "complete")
        finally:
            client.admin.command("configureFailPoint", "rsSyncApplyStop", mode="off")
    job = swept.job()
    assert (job["swept"], job["scanned"]) == (200, 200) and swept.keys_used() == {2}
    assert swept.verify()["fields"][0]["current"] == 200


def test_changes_of_the_foreground_are_not_overwritten(start_swept, lagging_set):
    """What a secondary shows may be older than what the update meets on the primary."""
    swept = start_swept(lagging_set, {"sweep": {"read_preference": "nearest", "max_rate": 300}})
    swept.insert(range(300))
    swept.rotate()
    swept.start()
    for i in range(0, 300, 3):
        swept.app.update_one({"_id": i}, {"$set": {"answer": "changed"}})
    swept.app.delete_many({"_id": {"$mod": [3, 1]}})
    swept.wait(lambda: swept.job()["state"] == "complete")
    found = {d["_id"]: d["answer"] for d in swept.app.find()}
    expected = {i: "changed" if i % 3 == 0 else f"answer {i}" for i in range(300) if i % 3 != 1}
    assert found == expected
    assert swept.keys_used() == {2}
