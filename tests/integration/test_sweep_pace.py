"""The throttle beside transactions: what waits for it has read nothing yet; and where transactions are
refused again and again, batches stop to ask for them."""

import threading

import pytest
from harness.admin import admin_settings

from sweeping import fail

pytestmark = pytest.mark.timeout(120)


def given_up(swept) -> int:
    return swept.rekeyd.admin.value("rekey_sweep_transactions_given_up_total")


@pytest.mark.tsan
def test_who_writes_while_the_throttle_makes_a_batch_wait_is_not_faster(start_swept, fragile_set):
    """Ten batches of a quarter of a second's documents each, and an application that writes every
    document ten times a second."""
    settings = {"sweep": {"max_rate": 40, "range_docs": 200, "batch_docs": 200, "threads": 1}}
    swept = start_swept(fragile_set, {**settings, **admin_settings()})
    swept.insert(range(100))
    swept.rotate()
    over = threading.Event()
    written = []

    def write():
        while not over.wait(0.1):
            written.append(swept.stored.update_many({}, {"$inc": {"n": 1}}).modified_count)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        swept.sweep()
    finally:
        over.set()
        writer.join()
    ranges = swept.ranges()
    assert sum(r["swept"] for r in ranges) == 100 and swept.keys_used() == {2}
    assert len(written) >= 15, "it was over before it could show anything"
    assert given_up(swept) <= 5


def test_a_collection_without_snapshots_is_not_asked_for_one_by_every_batch(start_swept, fragile_set):
    settings = {"sweep": {"range_docs": 2000, "batch_docs": 5, "threads": 1}}
    swept = start_swept(fragile_set, {**settings, **admin_settings()})
    swept.stored_db.create_collection("people", capped=True, size=1 << 20)
    swept.insert(range(1000))
    swept.rotate()
    swept.sweep()
    assert swept.keys_used() == {2}
    assert 1 <= given_up(swept) <= 12  # of 200: all of the first few, then every 64th


def test_transactions_that_fail_once_are_tried_again(start_swept, fragile_set):
    settings = {"sweep": {"range_docs": 2000, "batch_docs": 5, "threads": 1}}
    swept = start_swept(fragile_set, {**settings, **admin_settings()})
    swept.insert(range(500))
    swept.rotate()
    before = swept.direct.admin.command("serverStatus")["transactions"]["totalCommitted"]
    fail(swept, "update", 3, swept.stored, errorCode=263)
    swept.sweep()
    fail(swept, "update", "off")
    after = swept.direct.admin.command("serverStatus")["transactions"]["totalCommitted"]
    assert swept.keys_used() == {2} and 1 <= given_up(swept) <= 3
    assert after - before >= 90, "of 100 batches"
