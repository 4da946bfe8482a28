"""rekeyctl verify: a pass that survives its process, reads where it is told to, and signs off."""

import signal
import subprocess

import pytest
from pymongo import MongoClient

from harness import ReplicaSet
from harness.waiting import wait_until
from sweeping import FAILED, STATE, is_asked

USAGE = 2
DOCUMENTS = 600
FIELDS = {"answer": "random", "ssn": "deterministic"}
# A pass that takes three seconds, stores where it is all the time, and is soon given up for dead.
SLOW = {"checkpoint_interval_ms": 50, "lease_ms": 1500, "max_rate": 200}
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def slow(start_swept, single_member_set):
    return filled(start_swept(single_member_set, {"sweep": {}, "verify": dict(SLOW)}, FIELDS))


def filled(swept):
    documents = [{"_id": i, "answer": f"a {i}", "ssn": f"s {i % 7}"} for i in range(DOCUMENTS)]
    swept.app.insert_many(documents)
    return swept


def verify(swept, *options, check=True):
    return swept.rekeyd.ctl("verify", swept.namespace, *options, check=check)


@pytest.fixture
def begin():
    """begin(swept, ...): a verify that runs; none outlives its test."""
    started = []

    def start(swept, *options) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        words = ["--json", "verify", swept.namespace, *options]
        started.append(swept.rekeyd.ctl_begin(*words, **pipes))
        return started[-1]

    yield start
    for running in started:
        running.kill()
        running.communicate()


def part(swept) -> dict:
    """Of the pass begun last. ObjectIds of one second have no order between processes."""
    proof = swept.state.proofs.find_one(sort=[("startedAt", -1)]) or {}
    return swept.state.proofParts.find_one({"_id.proof": proof.get("_id")}) or {}


@pytest.fixture
def kill_midway(begin):
    """A pass that was killed with kill -9; how many documents it is known to have counted."""

    def kill(swept, *options) -> int:
        running = begin(swept, *options)
        wait_until(lambda: 0 < part(swept).get("documents", 0) < DOCUMENTS)
        running.kill()
        running.communicate()
        counted = part(swept)["documents"]
        assert 0 < counted < DOCUMENTS and not part(swept)["done"]
        return counted

    return kill


def fast(swept):
    swept.rekeyd.config["verify"]["max_rate"] = 0
    swept.rekeyd.write_config()


def fields(report) -> dict:
    return {field["path"]: field for field in report["namespaces"][0]["fields"]}


def passes(swept) -> list:
    return list(swept.state.proofs.find().sort("startedAt"))


def test_it_counts_by_collection_field_and_key(swept):
    swept.app.insert_many([{"_id": i, "answer": f"a {i}"} for i in range(10)])
    swept.rotate()
    swept.wait(lambda: swept.rekeyd.ctl("verify", check=False).returncode == FAILED)
    swept.app.insert_many([{"_id": i, "answer": f"a {i}"} for i in range(10, 15)])
    moved = swept.stored.find_one({"_id": 1})["answer"]
    swept.stored.update_one({"_id": 12}, {"$set": {"copy": moved}})
    failed = verify(swept, check=False)
    assert failed.returncode == FAILED
    (proof,) = swept.state.proofs.find().sort("startedAt", -1).limit(1)
    assert proof["kind"] == "verify" and not proof["ok"] and proof["completedAt"]
    stored = swept.state.proofParts.find_one({"_id.proof": proof["_id"]})
    assert stored["done"] and stored["documents"] == 15 and stored["keys"] == {"1": 11, "2": 5}
    assert (stored["elsewhere"], stored["elsewhereOldKey"]) == (1, 1)
    (answer,) = stored["fields"]
    assert answer["keys"] == {"1": 10, "2": 5}
    assert (answer["current"], answer["oldKey"]) == (5, 10)
    swept.sweep()
    swept.stored.update_one({"_id": 12}, {"$unset": {"copy": 1}})
    report = verify(swept)
    assert report["ok"] and report["documents"] == 15 and not report["resumed"]
    assert report["namespaces"][0]["keys"] == {"2": 15}
    assert fields(report)["answer"]["keys"] == {"2": 15}
    assert {p["owner"] for p in passes(swept)} and report["proof"] == str(passes(swept)[-1]["_id"])


def test_deterministic_values_come_out_the_same_again(slow):
    fast(slow)
    report = verify(slow, "--deep")
    ssn, answer = fields(report)["ssn"], fields(report)["answer"]
    assert ssn["opened"] == ssn["roundTrips"] == ssn["current"] == DOCUMENTS
    assert (answer["opened"], answer["roundTrips"]) == (DOCUMENTS, 0)
    sampled = fields(verify(slow, "--sample", "50"))["ssn"]
    assert 10 < sampled["opened"] == sampled["roundTrips"] < 200
    assert fields(verify(slow, "--sample", "0"))["ssn"]["opened"] == 0


def test_kill_9_repeats_nothing(slow, kill_midway):
    before = kill_midway(slow, "--deep")
    first = part(slow)
    # Counts of what was done are gone on with: were they counted again, this would show.
    slow.state.proofParts.update_one({"_id": first["_id"]}, {"$inc": {"fields.0.null": 1000}})
    fast(slow)
    report = verify(slow, "--deep")
    assert report["resumed"] and report["proof"] == str(first["_id"]["proof"])
    assert report["documents"] == DOCUMENTS > before
    assert fields(report)["answer"]["null"] == 1000
    assert fields(report)["answer"]["opened"] == fields(report)["ssn"]["current"] == DOCUMENTS
    assert part(slow)["epoch"] == first["epoch"] + 1 and len(passes(slow)) == 1
    # It has come to its end: the next one is another one.
    again = verify(slow, "--deep")
    assert not again["resumed"] and again["proof"] != report["proof"]
    assert fields(again)["answer"]["null"] == 0


def test_what_was_swept_meanwhile_is_counted_again(slow, kill_midway):
    """The old keys that it had counted are gone: to tell of them would be wrong, and sign nothing."""
    slow.rotate()
    slow.wait(lambda: slow.state.keys.find_one({"_id": 2, "state": "current"}))
    kill_midway(slow)
    begun = part(slow)
    assert begun["fields"][0]["oldKey"] > 0
    slow.sweep()
    fast(slow)
    report = verify(slow)
    assert report["resumed"] and report["ok"] and report["documents"] == DOCUMENTS
    assert report["namespaces"][0]["keys"] == {"2": 2 * DOCUMENTS}
    assert part(slow)["_id"] == begun["_id"] and part(slow)["startedAt"] > begun["startedAt"]
    assert report["jobsSignedOff"] == 1 and slow.job()["proof"] == report["proof"]


def test_restart_and_other_options_begin_anew(slow, kill_midway):
    kill_midway(slow)
    fast(slow)
    report = verify(slow, "--deep")  # what was counted was not opened
    assert not report["resumed"] and report["documents"] == DOCUMENTS
    report = verify(slow, "--restart")
    assert not report["resumed"] and report["documents"] == DOCUMENTS
    assert verify(slow)["resumed"], "the first one is still there to be gone on with"


def test_a_rotation_ends_what_was_begun_before(slow, kill_midway, begin):
    kill_midway(slow)
    slow.rotate()
    slow.wait(lambda: slow.state.keys.find_one({"_id": 2, "state": "current"}))
    fast(slow)
    failed = verify(slow, check=False)
    assert failed.returncode == FAILED
    old, new = passes(slow)
    assert "rotated" in old["why"] and old["abandonedAt"] and "completedAt" not in old
    assert new["completedAt"] and part(slow)["fields"][0]["oldKey"] == DOCUMENTS
    # A rotation in the middle of one that goes on is told; its result would be neither.
    slow.sweep()
    slow.rekeyd.config["verify"]["max_rate"] = 200
    slow.rekeyd.write_config()
    running = begin(slow)
    wait_until(lambda: part(slow).get("_id", {"proof": new["_id"]})["proof"] != new["_id"])
    slow.rotate()
    output, errors = running.communicate(timeout=60)
    assert running.returncode == STATE and "keys were rotated" in errors and output == ""


def test_a_key_of_a_new_name_disturbs_nothing(slow, kill_midway):
    kill_midway(slow)
    slow.state.keys.insert_one(
        {**slow.state.keys.find_one({"_id": 1}), "_id": 2, "name": "another"}
    )
    fast(slow)
    assert verify(slow)["resumed"]


def test_a_collection_that_was_replaced_is_counted_again(slow, kill_midway):
    kill_midway(slow)
    other = slow.stored_db.other
    other.insert_many([{"_id": i, "answer": "plain"} for i in range(5)])
    other.rename("people", dropTarget=True)
    fast(slow)
    failed = verify(slow, check=False)
    assert failed.returncode == FAILED
    assert part(slow)["documents"] == part(slow)["fields"][0]["plaintext"] == 5


def test_one_given_up_for_dead_changes_nothing(slow, begin):
    running = begin(slow)
    wait_until(lambda: 0 < part(slow).get("documents", 0) < DOCUMENTS)
    running.send_signal(signal.SIGSTOP)
    fast(slow)
    report = verify(slow)  # waits for the lease to end
    assert report["resumed"] and report["documents"] == DOCUMENTS
    finished = part(slow)
    running.send_signal(signal.SIGCONT)
    output, errors = running.communicate(timeout=60)
    assert running.returncode == STATE and "another rekeyctl goes on" in errors and output == ""
    assert part(slow) == finished and len(passes(slow)) == 1


def test_two_at_once_are_two(slow, begin):
    running = begin(slow)
    wait_until(lambda: 0 < part(slow).get("documents", 0) < DOCUMENTS)
    report = verify(slow)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 0 and '"resumed" : false' in output
    assert not report["resumed"] and report["documents"] == DOCUMENTS
    assert [p["namespaces"][0]["documents"] for p in passes(slow)] == [DOCUMENTS] * 2


def test_a_job_is_signed_off(swept):
    swept.insert(range(20))
    swept.rotate()
    job = swept.sweep()
    assert (job["verifiedAt"], job["verifiedBy"], job["proof"]) == ("-", "", "")
    good = swept.stored.find_one({"_id": 3})["answer"]
    swept.stored.update_one({"_id": 3}, {"$set": {"answer": "plain"}})
    assert verify(swept, check=False).returncode == FAILED
    assert swept.job()["proof"] == "" and "verifiedAt" not in swept.state.jobs.find_one()
    swept.stored.update_one({"_id": 3}, {"$set": {"answer": good}})
    report = verify(swept)
    assert report["jobsSignedOff"] == 1
    job = swept.job()
    assert job["proof"] == report["proof"] and job["verifiedBy"] and job["verifiedAt"] > "20"
    events = list(swept.state.audit.find({"action": "job.verify"}).sort("_id"))
    assert [(e["target"], e["result"]) for e in events] == [
        (job["id"], "started"),
        (job["id"], "ok"),
    ]
    assert report["proof"] in events[-1]["detail"] and "20 documents" in events[-1]["detail"]
    assert verify(swept)["jobsSignedOff"] == 0, "once"
    assert swept.job()["proof"] == report["proof"]


def test_what_ends_after_the_beginning_is_not_signed_off(slow, begin):
    slow.rotate()
    slow.sweep()
    running = begin(slow)
    wait_until(lambda: part(slow).get("documents", 0) > 0)
    later = slow.sweep()
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 0 and '"jobsSignedOff" : 1' in output
    assert slow.state.jobs.count_documents({"verifiedAt": {"$exists": True}}) == 1
    assert slow.job()["id"] == later["id"] and slow.job()["proof"] == ""


def test_bad_options(swept):
    for options in (["--read-preference", "next"], ["--max-rate", "x"], ["--sample", "-1"], ["a.b", "c.d"]):
        assert swept.rekeyd.ctl("verify", *options, check=False).returncode == USAGE
    swept.rekeyd.config["verify"] = {"lease_ms": 1000, "checkpoint_interval_ms": 600}
    swept.rekeyd.write_config()
    refused = verify(swept, check=False)
    assert "verify.checkpoint_interval_ms" in refused.stderr and refused.returncode == FAILED


# With three members.


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    args = ["--setParameter", "enableTestCommands=1"]
    with ReplicaSet(3, tmp_path_factory.mktemp("members"), args=args) as servers:
        yield servers


def finds(client, coll) -> int:
    """How many reads of the collection this member has done for scans."""
    totals = client.admin.command("top")["totals"]
    return totals.get(coll.full_name, {}).get("queries", {}).get("count", 0)


def test_secondaries_are_read_and_see_everything(start_swept, members, begin):
    swept = start_swept(members, {"sweep": {}, "verify": {"batch_docs": 50}}, FIELDS)
    filled(swept)
    primary = swept.direct.primary
    clients = {
        address: MongoClient(*address, directConnection=True) for address in swept.direct.nodes
    }
    try:
        for client in clients.values():
            wait_until(lambda: client[swept.stored_db.name].people.count_documents({}) == DOCUMENTS)
        before = {a: finds(c, swept.stored) for a, c in clients.items()}
        report = verify(swept, "--read-preference", "secondary", "--deep")
        after = {a: finds(c, swept.stored) for a, c in clients.items()}
        assert report["documents"] == fields(report)["ssn"]["roundTrips"] == DOCUMENTS
        read = {a: after[a] - before[a] for a in clients}
        assert read[primary] <= 2, "the barrier"  # count_documents and count are commands
        assert sum(n for a, n in read.items() if a != primary) >= DOCUMENTS / 50

        # One member lags behind; a write that was acknowledged before the scan is in it all the
        # same, or the scan would be no proof.
        lagging = clients[next(a for a in clients if a != primary)]
        stop = {"configureFailPoint": "stopReplProducer", "mode": "alwaysOn"}
        lagging.admin.command(stop)
        try:
            swept.stored.insert_one({"_id": "late", "answer": "plaintext"})
            running = begin(swept, "--read-preference", "secondary")
            wait_until(lambda: is_asked(lagging, swept.stored))
            assert running.poll() is None
        finally:
            lagging.admin.command({**stop, "mode": "off"})
        _, errors = running.communicate(timeout=60)
        assert running.returncode == FAILED, errors
        assert part(swept)["documents"] == DOCUMENTS + 1
        assert part(swept)["fields"][0]["plaintext"] == 1
    finally:
        for client in clients.values():
            client.close()


@pytest.mark.parametrize(
    ("command", "collection"),
    [
        ("findAndModify", "proofs"),
        ("listCollections", None),
        ("find", "people"),
        ("update", "proofParts"),
        ("find", "deadLetters"),
        ("aggregate", "keys"),
    ],
)
def test_whatever_an_election_hits_is_tried_again(start_swept, members, command, collection):
    patient = {"retry_backoff_ms": 10, "retry_backoff_max_ms": 100}
    swept = start_swept(members, {"sweep": patient, "verify": {}}, FIELDS)
    swept.app.insert_one({"_id": 1, "answer": "a", "ssn": "s"})
    failures = {"failCommands": [command], "errorCode": 11602, "appName": "rekeyctl"}
    if collection is not None:
        database = swept.stored_db if collection == "people" else swept.state
        failures["namespace"] = f"{database.name}.{collection}"
    # The driver hides the first failure of a read by itself.
    fail_point = {"configureFailPoint": "failCommand", "mode": {"times": 4}, "data": failures}
    primary = swept.direct
    before = primary.admin.command(fail_point)["count"]
    try:
        assert verify(swept)["documents"] == 1
        off = primary.admin.command({**fail_point, "mode": "off"})
        assert off["count"] - before == 4
    finally:
        primary.admin.command({**fail_point, "mode": "off"})
    # What does not pass by itself is told at once.
    failures.update(errorCode=13, errorMessage="not authorized")
    primary.admin.command({**fail_point, "mode": {"times": 2}, "data": failures})
    try:
        assert verify(swept, check=False).returncode == FAILED
    finally:
        primary.admin.command({**fail_point, "mode": "off"})


def test_a_failover_in_the_middle(start_swept, members, begin):
    patient = {"retry_backoff_max_ms": 1000, "attempts_max": 30}
    settings = {"sweep": patient, "verify": dict(SLOW)}
    swept = filled(start_swept(members, settings, FIELDS))
    running = begin(swept, "--deep")
    wait_until(lambda: 0 < part(swept).get("documents", 0) < DOCUMENTS)
    swept.direct.admin.command("replSetStepDown", 5, force=True)
    output, errors = running.communicate(timeout=100)
    assert running.returncode == 0, errors
    assert f'"documents" : {DOCUMENTS}' in output
    stored = part(swept)
    assert stored["done"] and stored["documents"] == DOCUMENTS
    for field in stored["fields"]:
        assert field["current"] == field["opened"] == DOCUMENTS
