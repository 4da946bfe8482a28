"""rekeyctl start --dry-run: what a job would do, before there is one."""

import pytest
from bson import Binary

from harness import CtlError

pytestmark = pytest.mark.timeout(120)


def dry_run(swept, *words) -> dict:
    return swept.rekeyd.ctl("start", "--dry-run", swept.namespace, *words)["namespaces"][0]


def fill(swept):
    """Sixty documents under key 1, forty under key 2."""
    swept.insert(range(60))
    swept.rotate()
    swept.rekeyd.wait_event("current_key_changed", count=2)
    swept.insert(range(100, 140))


def test_the_sample_tells_what_needs_work(swept):
    fill(swept)
    for i, value in enumerate(["never encrypted", Binary(b"neither"), None]):
        swept.stored.insert_one({"_id": f"plain{i}", "answer": value})
    found = dry_run(swept, "--sample", "1000")
    assert found["ns"] == swept.namespace and found["documents"] == 103
    assert (found["sampled"], found["needing"], found["documentsNeeding"]) == (103, 60, 60)
    assert (found["current"], found["plaintext"], found["legacy"]) == (40, 2, 0)
    assert found["keys"] == {"1": 60, "2": 40}
    assert found["ranges"] == 3 and found["bytes"] > 103 * 30
    assert dry_run(swept, "--transform", "encrypt", "--sample", "1000")["needing"] == 2
    assert swept.rekeyd.ctl("jobs")["jobs"] == []
    assert dry_run(swept, "--sample", "10")["sampled"] == 10


def test_durations_at_the_allowed_and_at_the_last_rate(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"max_rate": 10}})
    fill(swept)
    found = dry_run(swept)
    assert found["secondsAtMaxRate"] == 6  # 60 written ones, and 40 that count a tenth
    assert found["secondsAtMeasuredRate"] == -1
    # A week has one hour for it, so it is over by then.
    swept.rekeyd.ctl("throttle", "set", "window=Mon 03:00-04:00")
    assert found["secondsAtMaxRate"] < dry_run(swept)["secondsAtMaxRate"] <= 7 * 86400 + 60
    swept.rekeyd.ctl("throttle", "set", "window=", "max_rate=0")
    swept.sweep()
    found = dry_run(swept)
    assert (found["secondsAtMaxRate"], found["needing"]) == (-1, 0)
    assert found["secondsAtMeasuredRate"] >= 0


def test_no_key_is_needed(swept):
    fill(swept)
    swept.rekeyd.keyring.write_text("kek main " + "00" * 32 + "\n")
    assert dry_run(swept)["keys"] == {"1": 60, "2": 40}


def test_what_is_not_protected_or_not_valid_is_refused(swept):
    for words in (["elsewhere.people"], [swept.namespace, "--sample", "0"]):
        with pytest.raises(CtlError):
            swept.rekeyd.ctl("start", "--dry-run", *words)


def test_a_transform_that_does_not_exist(swept):
    swept.insert([1])
    with pytest.raises(CtlError, match='there is no transform "encript"'):
        dry_run(swept, "--transform", "encript")
