"""A batch that is written in one transaction: all of it or nothing, and whoever was faster stays."""

import threading
import time

import pytest

from harness.admin import admin_settings
from harness.protected import key_id
from sweeping import fail

DOCUMENTS = 60
ONE_BATCH = {"sweep": {"range_docs": 100, "batch_docs": 100, "threads": 1}}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def swept(start_swept, fragile_set):
    """All documents are one batch."""
    swept = start_swept(fragile_set, {**ONE_BATCH, **admin_settings()})
    yield swept
    fail(swept, "update", "off")


def filled(swept):
    swept.insert(range(DOCUMENTS))
    swept.rotate()
    return swept


def committed(swept) -> int:
    return swept.direct.admin.command("serverStatus")["transactions"]["totalCommitted"]


def given_up(swept) -> int:
    return swept.rekeyd.admin.value("rekey_sweep_transactions_given_up_total")


def sweep_meanwhile(swept) -> threading.Thread:
    thread = threading.Thread(target=swept.sweep)
    thread.start()
    return thread


def held(swept, command) -> bool:
    """The transaction's command of this kind waits in the fail point."""
    running = [op.get("command", {}) for op in swept.direct.admin.aggregate([{"$currentOp": {}}])]
    return any(command in one and one.get("autocommit") is False for one in running)


def check(swept, documents=DOCUMENTS, **others):
    """Everything lies under the new key and can be read; others: _id to what it holds now."""
    expected = {i: f"answer {i}" for i in range(documents)}
    expected.update({int(id[1:]): answer for id, answer in others.items()})
    assert {d["_id"]: d["answer"] for d in swept.app.find()} == expected
    assert swept.keys_used() == {2}


def counts(swept) -> dict:
    names = ("scanned", "swept", "alreadyCurrent", "gone", "rejected")
    return {name: sum(r[name] for r in swept.ranges()) for name in names}


@pytest.mark.tsan
def test_a_batch_is_one_transaction(swept):
    filled(swept)
    before = committed(swept)
    swept.sweep()
    assert committed(swept) == before + 1 and given_up(swept) == 0
    assert counts(swept)["swept"] == DOCUMENTS
    check(swept)
    assert not [r for r in swept.ranges() if "session" in r or "formerSession" in r]


def test_switched_off(start_swept, fragile_set):
    swept = start_swept(fragile_set, {"sweep": {**ONE_BATCH["sweep"], "transactions": False}})
    filled(swept)
    before = committed(swept)
    swept.sweep()
    assert committed(swept) == before
    check(swept)


@pytest.mark.parametrize("how", ["changed", "deleted", "replaced"])
def test_who_was_faster_stays(swept, how):
    filled(swept)
    fail(swept, "update", 1, swept.stored, blockConnection=True, blockTimeMS=2500)
    sweeping = sweep_meanwhile(swept)
    swept.wait(lambda: held(swept, "update"))
    others = {}
    if how == "changed":
        # By what the fail point does not hold.
        swept.app.find_one_and_update({"_id": 7}, {"$set": {"answer": "changed"}})
        others = {"_7": "changed"}
    else:
        swept.app.find_one_and_delete({"_id": 7})
    if how == "replaced":
        swept.app.insert_one({"_id": 7, "answer": "another one"})
        others = {"_7": "another one"}
    sweeping.join()
    assert given_up(swept) == 1
    if how == "deleted":
        swept.app.insert_one({"_id": 7, "answer": "answer 7"})
    check(swept, **others)
    expected = {"swept": DOCUMENTS - 1, "gone": how == "deleted", "alreadyCurrent": how != "deleted"}
    assert counts(swept) == {"scanned": DOCUMENTS, "rejected": 0, **expected}


FAILURES = {
    "cut": {"closeConnection": True},
    "gone": {"errorCode": 251, "errorLabels": ["TransientTransactionError"]},
    "shutdown": {"errorCode": 91, "errorLabels": ["RetryableWriteError"]},
    "refused": {"errorCode": 263},
}
NO_MAJORITY = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}


@pytest.mark.parametrize(
    "command, how",
    [(command, how) for command in ("update", "commitTransaction") for how in FAILURES.values()]
    + [("commitTransaction", NO_MAJORITY)],
    ids=[f"{command}-{how}" for command in ("update", "commit") for how in FAILURES]
    + ["commit-no-majority"],
)
def test_a_transaction_that_fails(swept, command, how):
    """More often than libmongoc tries again."""
    filled(swept)
    fail(swept, command, 2, swept.stored if command == "update" else None, **how)
    started = time.monotonic()
    swept.sweep()
    assert time.monotonic() - started < 30, "an open transaction held the documents"
    assert given_up(swept) >= 1
    totals = counts(swept)
    assert totals["scanned"] == DOCUMENTS == totals["swept"] + totals["alreadyCurrent"]
    check(swept)


@pytest.mark.parametrize("hot", [False, True], ids=["cold", "hot"])
def test_who_dies_within_a_transaction_holds_its_documents_until_its_lease_is_over(swept, hot):
    """hot: the only sweeper waits for one of them, before it could take the range over."""
    filled(swept)
    fail(swept, "commitTransaction", 1, blockConnection=True, blockTimeMS=90000)
    swept.start()
    swept.wait(lambda: held(swept, "commitTransaction"))
    swept.rekeyd.kill9()
    written = []

    def write():
        swept.stored.update_one({"_id": 7}, {"$set": {"note": "by an application"}})
        written.append(time.monotonic())

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.5)
    assert not written, "the transaction is open, so that this shows nothing"
    swept.rekeyd.start()
    restarted = time.monotonic()
    if hot:
        assert swept.app.find_one({"_id": 8})["answer"] == "answer 8"
    writer.join()
    assert written[0] - restarted < 20, "not only when mongod ends it, after 60 s"
    swept.wait(lambda: swept.job()["state"] == "complete")
    assert swept.stored.find_one({"_id": 7})["note"] == "by an application"
    check(swept)
    assert {r["epoch"] for r in swept.ranges()} == {2}


def killed(swept) -> int:
    """Sessions that somebody has asked mongod to end."""
    return swept.direct.admin.command("serverStatus")["metrics"]["commands"]["killSessions"]["total"]


@pytest.mark.parametrize("how", ["dead", "slow"])
def test_a_session_is_ended_once_and_its_owner_fenced_off(swept, how):
    """At every poll, several instances look that take no range over."""
    filled(swept)
    watchers = [swept.rekeyd.sibling(name=f"watcher{n}") for n in range(2)]
    for watcher in watchers:
        watcher.config["sweep"]["mode"] = "lazy"
        watcher.write_config()
    fail(swept, "commitTransaction", 1, blockConnection=True, blockTimeMS=90000)
    swept.start()
    swept.wait(lambda: held(swept, "commitTransaction"))
    before = killed(swept)
    with watchers[0].start(), watchers[1].start():
        if how == "dead":
            swept.rekeyd.kill9()
        else:
            swept.rekeyd.suspend()
        swept.wait(lambda: killed(swept) > before)
        swept.wait(lambda: not held(swept, "commitTransaction"))
        time.sleep(1.5)
        assert killed(swept) == before + 1
        (left,) = swept.ranges()
        assert (left["state"], left["epoch"]) == ("running", 1)
        assert not left.keys() & {"session", "formerSession", "owner"}
    if how == "dead":
        swept.rekeyd.start()
    else:
        swept.rekeyd.resume()
    swept.wait(lambda: swept.job()["state"] == "complete")
    check(swept)
    assert {r["epoch"] for r in swept.ranges()} == {2}
    if how == "dead":
        assert killed(swept) == before + 1, "who took the range over found nothing to end"


def test_a_duplicate_key_fails_one_document_alone(start_swept, fragile_set):
    swept = start_swept(fragile_set, ONE_BATCH, {"answer": "deterministic"})
    swept.insert(range(DOCUMENTS))
    swept.rotate()
    swept.stored.create_index("answer", unique=True)
    twin = swept.stored.find_one({"_id": 7})["answer"]
    swept.stored.drop_index("answer_1")
    swept.sweep()
    swept.stored.create_index("answer", unique=True)
    swept.stored.insert_one({"_id": "twin", "answer": twin})
    job = swept.sweep()
    assert job["state"] == "complete" and counts(swept)["rejected"] == 1
    assert key_id(swept.stored.find_one({"_id": "twin"})["answer"]) == 1


@pytest.mark.parametrize("read_preference", ["secondary", "nearest"])
def test_a_snapshot_of_a_secondary(start_swept, replica_set, read_preference):
    swept = start_swept(
        replica_set, {"sweep": {**ONE_BATCH["sweep"], "read_preference": read_preference}, **admin_settings()}
    )
    filled(swept)
    swept.sweep()
    assert given_up(swept) == 0 and counts(swept)["swept"] == DOCUMENTS
    check(swept)
