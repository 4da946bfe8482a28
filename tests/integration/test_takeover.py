"""What a dead owner has begun with does not wait until all else is done."""

import time

import pytest

pytestmark = pytest.mark.timeout(120)


def running(swept) -> list:
    return [r for r in swept.ranges() if r["state"] == "running"]


def die_at_work(swept) -> set:
    """Kills rekeyd while it holds a range; which ones those are."""

    def stopped_at_work():
        swept.rekeyd.suspend()
        time.sleep(0.3)  # what was on its way has arrived
        if not running(swept):
            swept.rekeyd.resume()
        return running(swept)

    swept.wait(stopped_at_work)
    swept.rekeyd.kill9()
    return {r["_id"] for r in running(swept)}


@pytest.mark.parametrize("concurrency", [0, 2])
def test_a_dead_owners_range_is_taken_over_while_others_wait(start_swept, single_member_set, concurrency):
    """It came last, which in a large collection may be days later: pending ranges are cut as fast as
    they are taken."""
    sweep = {"max_rate": 100, "range_docs": 10, "batch_docs": 10, "threads": 1, "ranges_ahead": 16}
    swept = start_swept(single_member_set, {"sweep": sweep})
    swept.insert(range(3000))
    swept.rotate()
    swept.rekeyd.ctl("start", swept.namespace, "--concurrency", concurrency)
    left = die_at_work(swept)
    swept.rekeyd.start()
    swept.wait(lambda: {r["epoch"] for r in swept.ranges() if r["_id"] in left} == {2})
    job = swept.state.jobs.find_one()
    assert not job["planComplete"], "all other ranges were done first"
    assert swept.state.jobStatus.count_documents({"state": "pending"}) > 0
    if concurrency:
        assert len({r["slot"] for r in running(swept)}) == len(running(swept)) <= concurrency
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    swept.wait(lambda: swept.job()["state"] == "complete")
    assert swept.keys_used() == {2}
    assert sum(r["swept"] + r["alreadyCurrent"] for r in swept.ranges()) == 3000
