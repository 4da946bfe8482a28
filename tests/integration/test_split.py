"""A range that takes long is split, so that others can help; nothing is done twice or left out."""

import datetime

import pytest
from bson import Int64, MaxKey, MinKey, ObjectId

from harness.protected import key_id
from sweeping import PAST, fail, former_job, former_range, taken

pytestmark = pytest.mark.timeout(120)
N = 400


def slow(split_after_ms=300, **changes):
    sweep = {"max_rate": 25, "range_docs": 1000, "batch_docs": 20, "split_after_ms": split_after_ms}
    return {"sweep": {**sweep, **changes}}


def check(swept, n=N):
    """Everything was swept once, and the ranges are one after the other, without gaps."""
    swept.wait(lambda: swept.job()["state"] == "complete", 90)
    job = swept.job()
    assert (job["scanned"], job["swept"], job["documents"]) == (n, n, n), job
    assert swept.keys_used() == {2}
    ranges = swept.ranges()
    for r in ranges:
        assert r["scanned"] == r["swept"] == r["consumerProcessed"], r
        assert r["isComplete"] and "splitOff" not in r
    order = [MinKey(), *range(n), MaxKey()]
    ranges.sort(key=lambda r: order.index(r["startId"]))
    assert isinstance(ranges[0]["startId"], MinKey) and isinstance(ranges[-1]["endId"], MaxKey)
    for one, next_one in zip(ranges, ranges[1:]):
        assert one["endId"] == next_one["startId"]
    return ranges


@pytest.mark.tsan
def test_a_slow_range_is_split_again_and_again(start_swept, single_member_set):
    swept = start_swept(single_member_set, slow(batch_docs=5))
    swept.insert(range(N))
    swept.rotate()
    swept.start()
    swept.wait(lambda: len(swept.ranges()) > 3)
    assert {r["seq"] >= 0 for r in swept.ranges()} == {True, False}
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    ranges = check(swept)
    assert [r["seq"] for r in ranges if r["seq"] >= 0] == [0]
    assert sum(r["batchSize"] for r in ranges) == N
    assert "range_split" in swept.rekeyd.logs()


def test_an_instance_that_is_idle_helps(start_swept, single_member_set):
    swept = start_swept(single_member_set, slow(threads=1, max_rate=100))
    swept.insert(range(N))
    swept.rotate()
    with swept.rekeyd.sibling(name="other").start():
        swept.start()
        ranges = check(swept)
    assert len({r["owner"] for r in ranges}) == 2
    assert {r["epoch"] for r in ranges} == {1}


def test_no_range_is_split_while_others_wait(start_swept, single_member_set):
    swept = start_swept(single_member_set, slow(range_docs=50))
    swept.insert(range(N))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["swept"] > 40)
    assert len(swept.ranges()) == N / 50
    swept.rekeyd.reload({"sweep": {"max_rate": 0, "split_after_ms": 0}})
    assert len(check(swept)) == N / 50


@pytest.mark.parametrize("how", [{"errorCode": 112}, {"closeConnection": True}])
def test_what_is_split_off_is_not_forgotten_when_it_cannot_be_inserted(start_swept, fragile_set, how):
    """The range is shortened by then: its owner tries again before it works on."""
    swept = start_swept(fragile_set, slow(split_after_ms=0))
    swept.insert(range(N))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["swept"] > 0)
    fail(swept, "insert", 2, swept.state.jobStatus, **how)
    swept.rekeyd.reload({"sweep": {"split_after_ms": 300}})
    swept.wait(lambda: swept.state.jobStatus.find_one({"splitOff": {"$exists": True}}))
    swept.wait(lambda: len(swept.ranges()) > 1)
    assert "range_retry" in swept.rekeyd.logs()
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    check(swept)


def left_behind(swept, state, inserted):
    """What an instance left that died in the middle of a split of [30, MaxKey) at 60."""
    job = former_job(swept, planComplete=True)
    note = {"_id": ObjectId(), "seq": Int64(-77), "endId": MaxKey(), "batchSize": Int64(40)}
    changes = {"state": state, "position": 39, "cutEndId": MaxKey(), "splitOff": note}
    done = taken(job, 30, state="done", isComplete=True, finishedAt=PAST, position=29)
    ranges = [
        former_range(job, 0, MinKey(), 30, **done),
        former_range(job, 1, 30, 60, **taken(job, 10, **changes)),
    ]
    if inserted:
        new = {"_id": note["_id"], "batchSize": note["batchSize"]}
        ranges.append(former_range(job, -77, 60, MaxKey(), **new))
    return job, ranges


@pytest.mark.parametrize("state, inserted", [("running", False), ("pending", True)])
def test_a_split_that_was_left_behind_is_completed(swept, state, inserted):
    """By whoever takes over the range, or gets it after it was given back."""
    swept.insert(range(100))
    swept.rotate()
    swept.wait(lambda: swept.app.replace_one({"_id": 0}, {"answer": "n"}) and 2 in swept.keys_used())
    job, ranges = left_behind(swept, state, inserted)
    swept.state.jobStatus.insert_many(ranges)
    swept.state.jobs.insert_one(job)
    swept.wait(lambda: swept.job()["state"] == "complete")
    assert (swept.job()["scanned"], swept.job()["documents"]) == (100, 100)
    ranges = sorted(swept.ranges(), key=lambda r: abs(r["seq"]))
    assert [r["epoch"] for r in ranges] == [1, 2, 1]
    assert (ranges[2]["startId"], ranges[2]["endId"], ranges[2]["scanned"]) == (60, MaxKey(), 40)
    assert not any("splitOff" in r for r in ranges)
    assert {key_id(d["answer"]) for d in swept.stored.find({"_id": {"$gte": 40}})} == {2}


def test_another_range_of_the_same_seq_is_not_taken_for_it(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"attempts_max": 2}})
    swept.insert(range(100))
    swept.rotate()
    swept.wait(lambda: swept.app.replace_one({"_id": 0}, {"answer": "n"}) and 2 in swept.keys_used())
    job, ranges = left_behind(swept, "pending", True)
    ranges[2]["_id"] = ObjectId()
    swept.state.jobStatus.insert_many(ranges)
    swept.state.jobs.insert_one(job)
    swept.wait(lambda: swept.job()["state"] == "failed")
    assert "has the seq of one split off" in swept.rekeyd.logs()
    assert swept.state.jobStatus.find_one({"seq": 1})["splitOff"] == ranges[1]["splitOff"]


def test_planning_goes_on_where_cutting_stopped(swept):
    """Not where the range ends now, which was cut last: the rest of that one is another's."""
    swept.insert(range(100))
    swept.rotate()
    swept.wait(lambda: swept.app.replace_one({"_id": 0}, {"answer": "n"}) and 2 in swept.keys_used())
    job = former_job(swept)
    half = former_range(job, 0, MinKey(), 30, cutEndId=60)
    other = former_range(job, -5, 30, 60)
    swept.state.jobStatus.insert_many([half, other])
    swept.state.jobs.insert_one({**job, "createdAt": datetime.datetime.now(datetime.timezone.utc)})
    swept.wait(lambda: swept.job()["state"] == "complete")
    assert swept.job()["scanned"] == swept.job()["documents"] == 100
    assert sorted(r["startId"] for r in swept.ranges() if r["seq"] > 0)[0] == 60
