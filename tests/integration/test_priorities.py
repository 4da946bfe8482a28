"""Which job's ranges are taken first, and how many of a job's at once."""

import time

import pytest

from harness import CtlError

pytestmark = pytest.mark.timeout(150)
USAGE, FAILED = 2, 1  # rekeyctl's exit codes


def fill(swept, *names, n=200):
    for name in names:
        swept.app.database[name].insert_many({"_id": i, "answer": f"x{i}"} for i in range(n))


def start(swept, name, *options) -> str:
    namespace = f"{swept.stored_db.name}.{name}"
    return swept.rekeyd.ctl("start", namespace, *options)["started"][0]


def wait_complete(swept, n):
    def done():
        jobs = swept.rekeyd.ctl("jobs")["jobs"]
        return len(jobs) == n and {job["state"] for job in jobs} == {"complete"}

    swept.wait(done)


def order(swept) -> list:
    """Names of collections, by when their ranges were done."""
    found = swept.state.jobStatus.find().sort("finishedAt")
    return [r["collectionName"].split(".")[1] for r in found]


def test_ranges_of_the_highest_priority_are_taken_first(start_swept, single_member_set):
    settings = {"sweep": {"pause": True, "range_docs": 50, "threads": 1}}
    swept = start_swept(single_member_set, settings)
    fill(swept, "none", "low", "high", "later")
    swept.rotate()
    start(swept, "low", "--priority", "-5")
    start(swept, "none")
    later = start(swept, "later")
    start(swept, "high", "--priority", "7")
    swept.rekeyd.ctl("jobs", "set", later, "priority=3")
    swept.check_held()  # they begin together
    swept.rekeyd.reload({"sweep": {"pause": False}})
    wait_complete(swept, 4)
    assert order(swept) == ["high"] * 4 + ["later"] * 4 + ["none"] * 4 + ["low"] * 4


def test_policies_have_defaults(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"pause": True}})
    own = {"priority": 4, "concurrency": 2}
    fill(swept, "one", "two", "three")
    policies = swept.rekeyd.config["policies"]
    one = {**policies[0], "namespace": f"{swept.stored_db.name}.one", "sweep": own}
    swept.rekeyd.config["policies"] = [one, {**policies[0], "sweep": {"priority": -1}}]
    swept.rekeyd.write_config()
    for name in ("one", "two"):
        start(swept, name)
    start(swept, "three", "--priority=9", "--concurrency=1")
    jobs = {j["ns"].split(".")[1]: j for j in swept.rekeyd.ctl("jobs")["jobs"]}
    terms = {name: (job["priority"], job["concurrency"]) for name, job in jobs.items()}
    assert terms == {"one": (4, 2), "two": (-1, 0), "three": (9, 1)}


def test_no_more_ranges_of_a_job_at_once_than_it_may_have(start_swept, single_member_set):
    """With two instances of four threads each; looked at as often as possible."""
    settings = {"sweep": {"threads": 4, "range_docs": 10, "max_rate": 30, "batch_docs": 5}}
    swept = start_swept(single_member_set, settings)
    fill(swept, "people", "more", n=600)
    swept.rotate()
    with swept.rekeyd.sibling():
        limited = start(swept, "people", "--concurrency", "3")
        start(swept, "more")
        seen = watch(swept, limited, lambda n: n["people"] >= 60)
        assert max(seen["people"]) == 3 and max(seen["more"]) > 0
        swept.rekeyd.ctl("jobs", "set", limited, "concurrency=1")
        swept.wait(lambda: running(swept, limited) <= 1)
        seen = watch(swept, limited, lambda n: n["people"] >= 150)
        assert max(seen["people"]) == 1
        swept.rekeyd.ctl("jobs", "set", limited, "concurrency=0")
        swept.rekeyd.reload({"sweep": {"max_rate": 0}})
        wait_complete(swept, 2)
    assert not swept.state.jobStatus.find_one({"state": {"$ne": "done"}})


def running(swept, job: str) -> int:
    return next(j for j in swept.rekeyd.ctl("jobs")["jobs"] if j["id"] == job)["rangesRunning"]


def watch(swept, limited, enough) -> dict:
    """How many ranges were running, each time that one looked, until so many documents are done."""
    seen = {"people": [0], "more": [0]}
    deadline = time.monotonic() + 60
    while True:
        done = dict.fromkeys(seen, 0)
        busy = dict.fromkeys(seen, 0)
        for cut in swept.state.jobStatus.find():
            name = cut["collectionName"].split(".")[1]
            done[name] += cut.get("scanned", 0)
            busy[name] += cut["state"] == "running"
        for name, n in busy.items():
            seen[name].append(n)
        if enough(done):
            return seen
        assert time.monotonic() < deadline, done


def test_what_is_changed_is_in_the_audit_log(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"pause": True}})
    fill(swept, "people", n=1)
    job = start(swept, "people", "--priority", "2")
    swept.rekeyd.ctl("jobs", "set", job, "priority=5", "concurrency=4")
    events = list(swept.state.audit.find({"action": "job.set", "target": job}))
    assert [e["result"] for e in events] == ["started", "ok"]
    assert events[1]["detail"] == "priority: 2 -> 5; concurrency: 0 -> 4"
    swept.rekeyd.ctl("cancel", job)
    for words, code, reason in [
        ((job, "priority=1"), FAILED, "it has ended"),
        (("f" * 24, "priority=1"), FAILED, "no such job"),
        ((job, "priority=many"), USAGE, "priority must be from -1000000 to 1000000"),
        ((job, "concurrency=1025"), USAGE, "concurrency must be from 0 (no limit) to 1024"),
        ((job, "speed=1"), USAGE, "a job has priority and concurrency, and no speed"),
        ((job,), USAGE, "takes a job id"),
    ]:
        with pytest.raises(CtlError, match=reason.replace("(", r"\(").replace(")", r"\)")) as refused:
            swept.rekeyd.ctl("jobs", "set", *words)
        assert refused.value.returncode == code
