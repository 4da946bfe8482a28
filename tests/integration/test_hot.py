"""What applications read under an old key is rewritten first; in lazy mode that is all there is."""

import time

import pytest
from bson import Int64, ObjectId
from bson.son import SON

from harness.admin import admin_settings
from harness.protected import key_id

pytestmark = pytest.mark.timeout(120)
LEGACY_KEY = bytes(range(32))


def slow(mode, rate=20, **more):
    """So slow that what is asked for overtakes the ranges."""
    return {"sweep": {"mode": mode, "max_rate": rate, "batch_docs": 10, "hot_repeat_ms": 0, **more}}


def keys_by_id(swept) -> dict:
    return {document["_id"]: key_id(document["answer"]) for document in swept.stored.find()}


def wait_until_current(swept, ids, key, read=None):
    def current():
        if read:
            read()
        now = keys_by_id(swept)
        return all(now[i] == key for i in ids)

    swept.wait(current)


def test_what_is_read_comes_first(start_swept, single_member_set):
    swept = start_swept(single_member_set, slow("both"))
    swept.insert(range(2000))
    key = swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["state"] == "running")
    wanted = [1990, 1993, 1997]
    found = list(swept.app.find({"_id": {"$in": wanted}}))
    assert [document["answer"] for document in found] == [f"answer {i}" for i in wanted]
    wait_until_current(swept, wanted, key, lambda: list(swept.app.find({"_id": {"$in": wanted}})))
    behind = [i for i, k in keys_by_id(swept).items() if k != key]
    assert len(behind) > 1000, "the sweep was not overtaken"


def test_counters_stay_exact_beside_hot_documents(start_swept, single_member_set):
    swept = start_swept(single_member_set, slow("both", 400))
    swept.insert(range(400))
    swept.rotate()
    swept.start()
    while swept.job()["state"] != "complete":
        list(swept.app.find())
        time.sleep(0.05)
    assert swept.keys_used() == {2}
    job = swept.job()
    assert job["scanned"] == 400
    assert job["swept"] + job["alreadyCurrent"] == 400
    assert (job["gone"], job["rejected"], job["deadLettered"]) == (0, 0, 0)


@pytest.mark.tsan
def test_lazy_mode_rewrites_what_is_read_and_nothing_else(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"mode": "lazy"}})
    ids = [5, "text", ObjectId(), Int64(2**40), SON([("a", 1)]), None]
    swept.insert(ids + list(range(100, 200)))
    key = swept.rotate()
    started = swept.start()
    for i in ids:
        swept.app.find_one({"_id": i})
    swept.wait(lambda: sum(key_id(d["answer"]) == key for d in swept.stored.find()) == len(ids))
    for i in ids:
        assert key_id(swept.stored.find_one({"_id": {"$eq": i}})["answer"]) == key
    time.sleep(0.5)
    assert sum(key_id(d["answer"]) == key for d in swept.stored.find()) == len(ids)
    assert swept.state.jobStatus.count_documents({}) == 0, f"{started} was worked on"


def test_other_ways_to_read(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"mode": "lazy"}})
    swept.insert(range(40))
    key = swept.rotate()
    swept.app.find_one_and_update({"_id": 1}, {"$set": {"seen": True}})
    list(swept.app.aggregate([{"$match": {"_id": 2}}]))
    assert len(list(swept.app.find({"_id": {"$gte": 20}}).batch_size(7))) == 20
    wait_until_current(swept, [1, 2, *range(20, 40)], key)
    now = keys_by_id(swept)
    assert all(now[i] != key for i in [0, *range(3, 20)])


def test_proactive_mode_leaves_readers_alone(start_swept, single_member_set):
    swept = start_swept(single_member_set, slow("proactive"))
    swept.insert(range(1000))
    key = swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["state"] == "running")
    for _ in range(10):
        swept.app.find_one({"_id": 990})
        time.sleep(0.1)
    assert keys_by_id(swept)[990] != key


def test_mode_is_reloaded(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"mode": "lazy"}})
    swept.insert(range(100))
    swept.rotate()
    swept.start()
    time.sleep(0.5)
    assert swept.keys_used() == {1}
    swept.rekeyd.reload({"sweep": {"mode": "both"}})
    swept.wait(lambda: swept.job()["state"] == "complete")
    assert swept.keys_used() == {2}


def test_the_set_is_bounded_and_says_what_it_drops(start_swept, single_member_set):
    settings = slow("lazy", 1)
    settings["sweep"]["hot_docs_max"] = 5
    settings.update(admin_settings())
    swept = start_swept(single_member_set, settings)
    swept.insert(range(200))
    swept.rotate()
    list(swept.app.find())
    assert swept.rekeyd.admin.value("rekey_sweep_hot_waiting") <= 5
    assert swept.rekeyd.admin.value("rekey_sweep_hot_total", outcome="dropped") >= 180
