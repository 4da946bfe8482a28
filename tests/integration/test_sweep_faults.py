"""The sweep when things die, stall and fail: nothing is lost, nothing finished is repeated."""

import datetime
import time

import pytest

from harness import CtlError, ReplicaSet
from sweeping import FAILED, fail, slow

pytestmark = pytest.mark.timeout(150)


def test_kill_9_repeats_no_finished_range(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {**slow(150)["sweep"], "range_docs": 50}})
    swept.insert(range(1500))
    swept.rotate()
    swept.start()
    finished = {}
    for kill in range(4):
        done = len(finished)
        swept.wait(lambda: swept.job()["rangesDone"] > done)
        swept.rekeyd.kill9()
        now = {r["seq"]: (r["epoch"], r["finishedAt"]) for r in swept.ranges() if r["isComplete"]}
        assert finished.items() <= now.items()
        finished = now
        swept.rekeyd.start()
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    swept.wait(lambda: swept.job()["state"] == "complete")
    ranges = swept.ranges()
    after = {r["seq"]: (r["epoch"], r["finishedAt"]) for r in ranges}
    assert finished.items() <= after.items()
    assert max(r["epoch"] for r in ranges) > 1, "something was taken over"
    # What is counted twice is at most what lay behind a checkpoint; what is written is not.
    assert sum(r["scanned"] for r in ranges) == 1500
    assert sum(r["swept"] + r["alreadyCurrent"] for r in ranges) == 1500
    assert swept.keys_used() == {2}
    answers = {d["_id"]: d["answer"] for d in swept.app.find()}
    assert answers == {i: f"answer {i}" for i in range(1500)}


@pytest.mark.tsan
def test_two_instances_share_a_job(start_swept, start_rekeyd, single_member_set):
    swept = start_swept(single_member_set, slow(300))
    other = swept.rekeyd.sibling(name="other")
    swept.insert(range(1000))
    swept.rotate()
    with other.start():
        swept.start()
        swept.wait(lambda: swept.job()["state"] == "complete")
    ranges = swept.ranges()
    assert len({r["owner"] for r in ranges}) == 2
    assert sum(r["swept"] for r in ranges) == 1000
    assert {r["epoch"] for r in ranges} == {1}
    assert swept.keys_used() == {2}


def test_a_suspended_instance_loses_its_ranges(start_swept, single_member_set):
    """It comes back believing that it owns them; the epoch refuses what it writes to jobStatus,
    and compare-and-swap what it writes to documents."""
    swept = start_swept(single_member_set, slow(50))
    swept.insert(range(400))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["rangesRunning"] > 0)
    held = {r["_id"] for r in swept.ranges() if r["state"] == "running"}
    other = swept.rekeyd.sibling(name="other")
    swept.rekeyd.suspend()
    other.config["sweep"]["max_rate"] = 0
    other.write_config()
    try:
        with other.start():
            swept.wait(lambda: swept.job()["state"] == "complete")
            taken = [r for r in swept.ranges() if r["_id"] in held]
            before = swept.ranges()
            swept.rekeyd.resume()
            time.sleep(2)
            assert swept.ranges() == before
    finally:
        swept.rekeyd.resume()
    assert all(r["epoch"] == 2 and r["isComplete"] for r in taken)
    assert swept.keys_used() == {2}
    assert sum(r["swept"] + r["alreadyCurrent"] for r in swept.ranges()) == 400


def test_a_lease_that_a_wrong_clock_gave_does_not_last(start_swept, single_member_set):
    """A primary whose clock was a day ahead when it gave the leases: when their owner died, what it
    held was nobody's to take for that day."""
    swept = start_swept(single_member_set, {"sweep": {**slow(100)["sweep"], "ranges_ahead": 2}})
    swept.insert(range(600))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["rangesRunning"] > 0)
    swept.rekeyd.kill9()
    tomorrow = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    held = swept.state.jobStatus.update_many({"state": "running"}, {"$set": {"leaseUntil": tomorrow}})
    planned = swept.state.jobs.update_one(
        {"planComplete": False}, {"$set": {"plannerLeaseUntil": tomorrow}}
    )
    assert held.modified_count > 0 and planned.modified_count == 1
    swept.rekeyd.start()
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    swept.wait(lambda: swept.job()["state"] == "complete", 30)
    assert swept.keys_used() == {2}


def test_a_step_down_in_the_middle(start_swept, failing_set):
    swept = start_swept(failing_set, slow(300))
    swept.insert(range(900))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["swept"] > 0)
    failing_set.step_down()
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    swept.wait(lambda: swept.job()["state"] == "complete")
    assert swept.keys_used() == {2}
    assert swept.job()["deadLettered"] == 0
    swept.verify()


def test_a_full_disk_on_checkpoint_loses_nothing(start_swept, fragile_set):
    swept = start_swept(fragile_set, slow(300))
    swept.insert(range(300))
    swept.rotate()
    fail(swept, "update", "alwaysOn", swept.state.jobStatus, errorCode=14031)
    try:
        swept.start()
        swept.wait(lambda: "range_retry" in swept.rekeyd.logs())
        assert swept.job()["state"] == "running"
        assert swept.job()["rangesDone"] == 0
    finally:
        fail(swept, "update", "off")
    swept.wait(lambda: swept.job()["state"] == "complete")
    assert '"code":14031' in swept.rekeyd.logs()
    assert swept.keys_used() == {2}
    assert swept.job()["deadLettered"] == 0


@pytest.mark.parametrize("how", [{"errorCode": 189}, {"closeConnection": True}])
@pytest.mark.parametrize("command", ["find", "update"])
def test_passing_failures_are_retried(start_swept, fragile_set, command, how):
    swept = start_swept(fragile_set)
    swept.insert(range(200))
    swept.rotate()
    fail(swept, command, 5, swept.stored, **how)
    swept.sweep()
    assert swept.keys_used() == {2}
    assert swept.job()["deadLettered"] == 0


def test_a_write_without_majority_is_tried_again(start_swept, fragile_set):
    """Of a transaction: test_sweep_transactions."""
    swept = start_swept(fragile_set, {"sweep": {"transactions": False}})
    swept.insert(range(100))
    swept.rotate()
    concern = {"code": 64, "errmsg": "waiting for replication timed out"}
    fail(swept, "update", 3, swept.stored, writeConcernError=concern)
    job = swept.sweep()
    assert "write concern not satisfied" in swept.rekeyd.logs()
    assert job["swept"] == 100
    assert swept.keys_used() == {2}


def test_a_range_that_keeps_failing_fails_the_job_until_it_is_resumed(start_swept, fragile_set):
    sweep = {"attempts_max": 2, "retry_backoff_ms": 10, "retry_backoff_max_ms": 20}
    swept = start_swept(fragile_set, {"sweep": sweep})
    swept.insert(range(100))
    swept.rotate()
    fail(swept, "update", "alwaysOn", swept.stored, errorCode=13)
    try:
        with pytest.raises(CtlError, match="is failed") as failed:
            swept.sweep()
        assert failed.value.returncode == FAILED
    finally:
        fail(swept, "update", "off")
    job = swept.job()
    assert (job["state"], job["rangesFailed"]) == ("failed", 2)
    assert "not authorized" in job["rangeError"].lower() or "fail" in job["rangeError"].lower()
    swept.rekeyd.ctl("resume", job["id"])
    swept.wait(lambda: swept.job()["state"] == "complete")
    assert swept.keys_used() == {2}
    assert swept.job()["rangeError"] == ""


@pytest.fixture
def own_set(tmp_path):
    with ReplicaSet(1, tmp_path / "rs") as servers:
        yield servers


def test_mongod_away_for_a_while(own_set, start_swept):
    swept = start_swept(own_set, slow(200))
    swept.insert(range(400))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["swept"] > 0)
    (member,) = own_set.members
    member.kill()
    time.sleep(2)
    member.start()
    own_set.wait_writable()
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    swept.wait(lambda: swept.job()["state"] == "complete")
    assert swept.keys_used() == {2}
    answers = {d["_id"]: d["answer"] for d in swept.app.find()}
    assert answers == {i: f"answer {i}" for i in range(400)}


def test_no_plaintext_and_no_key_in_the_logs(start_swept, fragile_set):
    swept = start_swept(fragile_set, settings={"log": {"level": "debug"}})
    marker = "M4RK3R"
    swept.app.insert_many([{"_id": i, "answer": f"{marker} {i}"} for i in range(50)])
    swept.stored.update_one({"_id": 1}, [{"$set": {"answer": "$gone"}}])
    swept.rotate()
    fail(swept, "update", 2, swept.stored, errorCode=189)
    swept.sweep()
    assert "range_retry" in swept.rekeyd.logs()
    assert marker not in swept.rekeyd.logs()
    kek = swept.rekeyd.keyring.read_text().split()[2]
    assert kek not in swept.rekeyd.logs()
