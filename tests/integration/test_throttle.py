"""rekeyctl throttle: the sweep's settings for all instances, over those of configuration files."""

import time

import pytest

from harness import CtlError
from harness.waiting import wait_until
from sweeping import Swept

pytestmark = pytest.mark.timeout(120)


def throttle(swept: Swept, *words) -> dict:
    return swept.rekeyd.ctl("throttle", *words)


def changes(swept: Swept, action: str) -> list:
    found = swept.state.audit.find({"action": action, "result": "ok"}).sort("at")
    return [event["detail"] for event in found]


def test_show_tells_where_a_setting_comes_from(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"max_rate": 7}})
    shown = throttle(swept, "set", "threads=4", "p99_limit_ms=20")["settings"]
    assert shown == throttle(swept, "show")["settings"]
    assert shown["max_rate"] == {"value": 7, "from": "file"}
    assert shown["threads"] == {"value": 4, "from": "throttle"}
    assert shown["guard.p99_limit_ms"] == {"value": 20, "from": "throttle"}
    assert shown["window"] == {"value": [], "from": "default"}
    assert shown["pause"] == {"value": False, "from": "default"}
    assert throttle(swept, "clear", "threads")["settings"]["threads"]["from"] == "default"
    assert throttle(swept, "clear")["settings"]["guard.p99_limit_ms"]["from"] == "default"


def test_every_instance_obeys_within_a_poll_and_says_so(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"range_docs": 20, "max_rate": 40}})
    swept.insert(range(400))
    with swept.rekeyd.sibling() as other:
        check_both_obey(swept, other)


def check_both_obey(swept, other):
    throttle(swept, "set", "pause=true")
    for rekeyd in (swept.rekeyd, other):
        assert rekeyd.wait_event("sweep_setting")["to"] == "true"
    swept.rotate()
    swept.start()
    swept.check_held()
    held = swept.rekeyd.ctl("status")["held"]
    assert held == "paused for all instances (rekeyctl throttle)"
    # The files say 40 a second for each of them; the fleet's setting wins.
    throttle(swept, "set", "pause=no", "max_rate=0")
    swept.wait(lambda: swept.job()["state"] == "complete", 30)
    assert swept.rekeyd.ctl("status")["held"] == ""


def test_a_pause_gives_ranges_back(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"max_rate": 50, "range_docs": 500}})
    swept.insert(range(1000))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["rangesRunning"] > 0)
    throttle(swept, "set", "pause=true")
    swept.wait(lambda: swept.job()["rangesRunning"] == 0)
    done = swept.job()["scanned"]
    time.sleep(1)
    assert swept.job()["scanned"] == done < 1000
    # The file cannot lift what holds for the fleet.
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    swept.rekeyd.wait_event("reloaded")
    time.sleep(0.5)
    assert swept.job()["scanned"] == done
    throttle(swept, "clear")
    swept.wait(lambda: swept.job()["state"] == "complete", 30)


REFUSED = {
    "max_rate=100000001": "sweep.max_rate: must be from 0 to 100000000, not 100000001",
    "threads=two": 'sweep.threads: must be a whole number, not "two"',
    "pause=perhaps": "sweep.pause: must be one of false, true, no, yes, off, on",
    "window=nights": "sweep.window[0]: must read like",
    "time_zone=Europe/Nowhere": 'mongod knows no time zone "Europe/Nowhere"',
    "lease_ms=5000": "sweep.lease_ms: is each instance's own",
    "speed=5": "sweep.speed: there is no such setting",
}


def test_what_a_file_could_not_hold_is_refused(swept):
    before = throttle(swept, "show")
    for word, reason in REFUSED.items():
        with pytest.raises(CtlError) as refused:
            throttle(swept, "set", "pause=true", word)
        assert reason in str(refused.value), word
    assert throttle(swept, "show") == before
    assert changes(swept, "throttle.set") == []


def test_more_settings_than_there_are_are_refused(swept):
    with pytest.raises(CtlError, match="takes 32 settings at most") as refused:
        throttle(swept, "clear", *["max_rate"] * 33)
    assert refused.value.returncode == 2
    assert changes(swept, "throttle.set") == []


def test_the_audit_log_has_old_and_new_values(swept):
    throttle(swept, "set", "max_rate=100", "window=Sat-Sun 00:00-24:00, 22:00-06:00")
    throttle(swept, "set", "max_rate=200", "window=")
    throttle(swept, "clear", "max_rate")
    assert changes(swept, "throttle.set") == [
        "max_rate: as in the file -> 100; "
        "window: as in the file -> Sat-Sun 00:00-24:00, 22:00-06:00",
        "max_rate: 100 -> 200; window: Sat-Sun 00:00-24:00, 22:00-06:00 -> always",
        "max_rate: 200 -> as in the file",
    ]
    assert all(e["actor"] and e["host"] for e in swept.state.audit.find())


def test_a_reload_is_in_the_audit_log(swept):
    swept.rekeyd.reload({"sweep": {"max_rate": 123, "guard": {"p99_limit_ms": 9}}})
    wait_until(lambda: changes(swept, "config.reload"))
    swept.rekeyd.reload({"log": {"level": "debug"}})
    swept.rekeyd.wait_event("reloaded", count=2)
    time.sleep(0.5)
    [detail] = changes(swept, "config.reload")
    assert detail == "max_rate: 0 -> 123; guard.p99_limit_ms: 50 -> 9"
    event = swept.state.audit.find_one({"action": "config.reload"})
    assert event["actor"].startswith(event["host"])


def test_settings_that_make_no_sense_stop_the_sweep(swept):
    """Somebody wrote them by hand; that they were meant to forbid something is possible."""
    swept.insert(range(50))
    for values in ({"max_rate": -1}, {"max_rat": 5}, {"window": "22:00-06:00"}, 5):
        change = {"$set": {"values": values}}
        swept.state.settings.update_one({"_id": "sweep"}, change, upsert=True)
        wait_until(lambda: "make no sense" in swept.rekeyd.ctl("throttle", "show")["held"])
    assert "make no sense" in swept.rekeyd.wait_event("sweep_held")["reason"]
    swept.rotate()
    swept.start()
    swept.check_held()
    throttle(swept, "clear")
    swept.wait(lambda: swept.job()["state"] == "complete", 30)
