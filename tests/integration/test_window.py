"""Hours of the week in which sweeps work, by the server's clock."""

import datetime
import subprocess
import time

import pytest

from harness.admin import admin_settings
from harness.waiting import wait_until

pytestmark = pytest.mark.timeout(120)
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def span(hours_from_now: float, hours: float, offset_h=0) -> str:
    """One hour of the week, by the clock of a zone that is so many hours off UTC."""
    now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=offset_h)
    opens = now + datetime.timedelta(hours=hours_from_now)
    closes = opens + datetime.timedelta(hours=hours)
    return f"{DAYS[opens.weekday()]} {opens:%H:%M}-{closes:%H:%M}"


def opening(text: str) -> str:
    return text[:9]


def test_outside_the_window_nothing_is_swept_and_it_says_until_when(start_swept, single_member_set):
    later = span(3, 1)
    settings = {"sweep": {"window": [later]}, **admin_settings()}
    swept = start_swept(single_member_set, settings)
    swept.insert(range(100))
    swept.rotate()
    swept.start()
    reason = f"outside the window until {opening(later)} (UTC)"
    assert swept.rekeyd.wait_event("sweep_held")["reason"] == reason
    swept.check_held()
    assert swept.job()["ranges"] == 0
    assert swept.rekeyd.ctl("status")["held"] == reason
    assert swept.rekeyd.admin.value("rekey_sweep_throttled", by="window") == 1
    swept.rekeyd.reload({"sweep": {"window": [later, span(-1, 2)]}})
    swept.wait(lambda: swept.job()["state"] == "complete", 30)
    assert swept.rekeyd.wait_event("sweep_allowed")["after"] == reason


def test_who_waits_is_told_what_for(start_swept, single_member_set):
    later = span(3, 1)
    swept = start_swept(single_member_set, {"sweep": {"window": [later]}})
    swept.insert(range(10))
    swept.rotate()
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    waiting = swept.rekeyd.ctl_begin("start", swept.namespace, "--wait", **pipes)
    try:
        told = f"nothing is swept now: outside the window until {opening(later)} (UTC)\n"
        assert any(line.endswith(told) for line in waiting.stderr)
        swept.rekeyd.ctl("throttle", "set", "window=")
        _, rest = waiting.communicate(timeout=60)
        assert waiting.returncode == 0, rest
    finally:
        waiting.kill()
        waiting.communicate()


def test_when_the_window_closes_ranges_are_given_back(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"max_rate": 50, "range_docs": 500}})
    swept.insert(range(1000))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["rangesRunning"] > 0 and swept.job()["scanned"] > 0)
    swept.rekeyd.ctl("throttle", "set", f"window={span(5, 1)}")
    swept.wait(lambda: swept.job()["rangesRunning"] == 0)
    done = swept.job()["scanned"]
    time.sleep(1)
    assert swept.job()["scanned"] == done < 1000
    swept.rekeyd.ctl("throttle", "set", "window=", "max_rate=0")
    swept.wait(lambda: swept.job()["state"] == "complete", 30)
    job = swept.job()
    assert job["swept"] + job["alreadyCurrent"] == 1000


def test_the_window_is_in_the_zones_own_time(start_swept, single_member_set):
    # An hour around now by the clock of a zone eight hours ahead; by UTC it is long over.
    here = span(-0.5, 1, offset_h=8)
    swept = start_swept(single_member_set, {"sweep": {"window": [here]}})
    swept.insert(range(20))
    assert "outside the window" in swept.rekeyd.wait_event("sweep_held")["reason"]
    swept.start()
    swept.rekeyd.ctl("throttle", "set", "time_zone=+08:00")
    swept.wait(lambda: swept.job()["state"] == "complete", 30)
    for zone in ("Europe/London", "America/New_York", "Asia/Kolkata", "UTC"):
        shown = swept.rekeyd.ctl("throttle", "set", f"time_zone={zone}")
        assert shown["settings"]["time_zone"]["value"] == zone


def test_a_zone_that_mongod_does_not_know_stops_the_sweep(start_swept, single_member_set):
    settings = {"sweep": {"window": [span(-2, 4)], "time_zone": "Mars/Olympus"}, **admin_settings()}
    swept = start_swept(single_member_set, settings)
    swept.insert(range(20))
    swept.start()
    held = swept.rekeyd.wait_event("sweep_held")
    assert held["level"] == "error" and 'no time zone "Mars/Olympus"' in held["reason"]
    assert swept.rekeyd.admin.value("rekey_sweep_throttled", by="settings") == 1
    swept.check_held()
    swept.rekeyd.ctl("throttle", "set", "time_zone=UTC")
    swept.wait(lambda: swept.job()["state"] == "complete", 30)
    # Without a window no zone is needed.
    swept.rekeyd.ctl("throttle", "clear")
    wait_until(lambda: "Mars" in swept.rekeyd.ctl("throttle", "show")["held"])
    swept.rekeyd.reload({"sweep": {"window": []}})
    wait_until(lambda: swept.rekeyd.ctl("throttle", "show")["held"] == "")
