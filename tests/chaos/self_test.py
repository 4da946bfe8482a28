"""Whether the checks can fail: each is given what it has to find, in a fleet without faults."""

import threading
import time
from datetime import datetime, timezone

import checker
from fleet import COLL, DB, FIELDS, Fleet
from harness import key_id
from sweeps import Sweeps
from writers import ABSENT, start_writers, stop_writers

CLOCKS_AHEAD_S = 20


def run_self_test(directory, say, died) -> bool:
    with Fleet(directory, instances=2, members=1, vault=False, transport="local") as fleet:
        history = checker.History(fleet)
        history.start()
        writers = start_writers(fleet, seed=1, n=2)
        time.sleep(3)
        stop_writers(writers)
        with fleet.direct() as client:
            failures = plant(fleet, client, writers, history, died)
        history.finish()
    for failure in failures:
        say(f"FAILED: {failure}")
    say(f"self-test: {len(failures)} checks failed to find what was planted, or found what was not")
    return not failures


def plant(fleet, client, writers, history, died) -> list:
    stored, state = client[DB][COLL], client[fleet.state_db()]
    ledger = {key: seqs for writer in writers for key, seqs in writer.ledger.items()}
    before = {document["_id"]: document for document in map(hashable, stored.find())}
    sweeps = Sweeps(fleet)
    sweeps.start()
    key = sweeps.finish()
    documents_swept, last_jobs = stored.count_documents({}), sweeps.last_ids()
    failures = []

    def expect(what, found, wanted):
        if bool(found) != wanted:
            failures.append(f"{what}: {found}")

    def documents():
        with fleet.app_client(0) as app:
            return list(app[DB][COLL].find())

    def by_rekeyctl() -> bool:
        return fleet.control.ctl("verify", check=False, timeout_s=60).returncode != 0

    def look(what, lost=False, wrong=False, old=False, counts=False, totals=False):
        missing, mismatches = checker.check_documents(ledger, documents())
        expect(f"{what}, lost", missing, lost)
        expect(f"{what}, wrong", mismatches, wrong)
        expect(f"{what}, old", checker.check_envelopes(list(stored.find()), FIELDS, key), old)
        expect(f"{what}, counts", checker.check_jobs(state), counts)
        expect(f"{what}, totals", checker.check_totals(state, last_jobs, documents_swept), totals)

    def look_and_verify(what, old=False):
        look(what, old=old)
        expect(f"{what}, rekeyctl verify", by_rekeyctl(), old)

    expect("clocks that cannot be moved", clocks_that_stand(fleet, client), False)
    look_and_verify("nothing planted")
    expect("broken while writing", [w.broken for w in writers if w.broken], False)
    expect("ranges that history saw done", history.done, True)

    victim, other = list(stored.find({"_id": {"$type": "string"}}).limit(2))
    stored.delete_one({"_id": victim["_id"]})
    look("a lost write", lost=True)
    stored.insert_one({**victim, "n": victim["n"] - 1})
    look("an older document", wrong=True)
    stored.replace_one({"_id": victim["_id"]}, {**victim, "answer": other["answer"]})
    look("another document's value", wrong=True)
    assert key_id(before[victim["_id"]]["answer"]) < key
    stored.replace_one({"_id": victim["_id"]}, before[victim["_id"]])
    look_and_verify("a value under an old key", old=True)
    stored.replace_one({"_id": victim["_id"]}, victim)
    stored.insert_one({**victim, "_id": "again", "key": "9/9"})
    look("a document that nobody wrote", wrong=True)
    stored.delete_one({"_id": "again"})
    ledger, told = {**ledger, victim["key"]: {ABSENT}}, ledger
    look("a deletion that is lost", lost=True)
    ledger = told
    look_and_verify("all put right again")

    cut = state.jobStatus.find_one(sort=[("_id", -1)])
    for what, update, wrong in (
        ("scanned one more", {"$inc": {"scanned": 1}}, {"counts": True, "totals": True}),
        ("counted one twice", {"$inc": {"scanned": 1, "swept": 1}}, {"totals": True}),
        ("ends elsewhere", {"$set": {"endId": "elsewhere"}}, {"counts": True}),
        ("is not done", {"$set": {"state": "running"}}, {"counts": True}),
    ):
        state.jobStatus.update_one({"_id": cut["_id"]}, update)
        look(f"a range that {what}", **wrong)
        state.jobStatus.replace_one({"_id": cut["_id"]}, cut)
    look("the range put right again")
    deadline = time.monotonic() + 10
    while not history.repeated and time.monotonic() < deadline:
        time.sleep(0.1)
    expect("a range that was touched when it was done", history.repeated, True)
    expect("threads that died", died, False)
    dying = threading.Thread(target=lambda: [].pop(), name="dying")
    dying.start()
    dying.join()
    expect("a thread that died", [each for each in died if each.startswith("dying: ")], True)
    return failures


def clocks_that_stand(fleet, client) -> list:
    """mongod's and rekeyd's wall clocks are ours to move. What mongod puts off meanwhile, such as a
    heartbeat, it puts off until its clock is there again: so not far."""
    stand = []
    instance = fleet.instances[0]
    for name in fleet.clocks:
        fleet.shift_clock(name, CLOCKS_AHEAD_S)
    instance.sighup()
    instance.wait_event("reloaded")
    for name, told in (
        ("mongod0", client.admin.command("hello")["localTime"]),
        (instance.name, datetime.fromisoformat(instance.events("reloaded")[-1]["ts"].rstrip("Z"))),
    ):
        ahead_s = (told - datetime.now(timezone.utc).replace(tzinfo=None)).total_seconds()
        if not CLOCKS_AHEAD_S / 2 < ahead_s < CLOCKS_AHEAD_S * 2:
            stand.append(f"{name} is {ahead_s} s ahead")
    for name in fleet.clocks:
        fleet.shift_clock(name, 0)
    return stand


def hashable(document):
    """Only those whose _id is text are looked up."""
    return document if isinstance(document["_id"], str) else {**document, "_id": repr(document["_id"])}
