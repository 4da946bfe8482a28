"""What the review of the job engine found: corners where a sweep might lose, miscount or mislead."""

import json

import bson
import pytest
from bson.raw_bson import RawBSONDocument

from harness import CtlError
from sweeping import FAILED, fail, letters

pytestmark = pytest.mark.timeout(120)


def create(swept, **options):
    swept.stored_db.command("create", "people", **options)


def sweep_to_key_2(swept, n):
    swept.rotate()
    job = swept.sweep()
    assert (job["state"], job["scanned"], job["swept"]) == ("complete", n, n), job
    assert swept.keys_used() == {2}


def test_a_default_collation_orders_ids_its_own_way(swept):
    create(swept, collation={"locale": "en", "strength": 2, "numericOrdering": True})
    ids = [f"{letter}{n}" for n in range(60) for letter in "aBcD"] + list(range(20))
    documents = swept.insert(ids)
    sweep_to_key_2(swept, len(ids))
    assert {d["_id"]: d["answer"] for d in swept.app.find()} == {
        d["_id"]: d["answer"] for d in documents
    }


def test_clustered_collections(swept):
    create(swept, clusteredIndex={"key": {"_id": 1}, "unique": True})
    swept.insert(range(130))
    sweep_to_key_2(swept, 130)


def test_capped_collections(swept):
    create(swept, capped=True, size=1 << 20)
    swept.insert(range(130))
    sweep_to_key_2(swept, 130)


def test_arrays_in_arrays(start_swept, single_member_set):
    swept = start_swept(single_member_set, fields={"a.b": "random"})
    document = {"_id": 1, "a": [[{"b": 1}, [{"b": 2}]], {"b": 3, "0": {"b": 4}}, {"0": {"b": 5}}]}
    swept.app.insert_one(document)
    swept.rotate()
    job = swept.sweep()
    assert (job["swept"], job["deadLettered"]) == (1, 0), letters(swept)
    swept.verify()
    assert swept.app.find_one() == document


def with_two_answers(_id, answers) -> RawBSONDocument:
    fields = [bson.encode({"_id": _id})] + [bson.encode({"answer": a}) for a in answers]
    body = b"".join(field[4:-1] for field in fields) + b"\0"
    return RawBSONDocument((len(body) + 4).to_bytes(4, "little") + body)


def test_verify_sees_a_field_that_is_there_twice(swept):
    """mongod shows projections and filters only the first one, so that one alone is swept."""
    swept.insert([1, 2])
    answers = [d["answer"] for d in swept.stored.find()]
    swept.stored.insert_one(with_two_answers(3, answers))
    swept.rotate()
    assert swept.sweep()["state"] == "complete"
    assert swept.rekeyd.ctl("verify", check=False).returncode == FAILED


def test_verify_sees_values_at_paths_that_no_policy_names(swept):
    swept.insert([1, 2])
    swept.stored.update_one({"_id": 1}, {"$rename": {"answer": "moved.to"}})
    entry = swept.verify()
    assert (entry["ok"], entry["elsewhere"], entry["elsewhereOldKey"]) == (True, 1, 0)
    swept.rotate()
    swept.sweep()
    failed = swept.rekeyd.ctl("verify", swept.namespace, check=False)
    assert failed.returncode == FAILED
    (entry,) = json.loads(failed.stdout)["namespaces"]
    assert (entry["ok"], entry["elsewhere"], entry["elsewhereOldKey"]) == (False, 1, 1)


def test_start_says_why_a_view_is_not_swept(swept):
    swept.insert([1])
    swept.stored_db.command("create", "view", viewOn="people", pipeline=[])
    for command in ("start", "verify"):
        with pytest.raises(CtlError, match="view"):
            swept.rekeyd.ctl(command, f"{swept.stored_db.name}.view")


def test_a_standalone_server(start_swept, standalone):
    swept = start_swept(standalone)
    swept.insert(range(130))
    sweep_to_key_2(swept, 130)
    assert swept.verify()["documents"] == 130


def test_a_job_is_not_complete_while_a_failed_range_is_revived(start_swept, fragile_set):
    """The engine asks for open ranges, then for failed ones; a resume may come in between."""
    swept = start_swept(fragile_set, {"sweep": {"max_rate": 1}})
    swept.insert(range(40))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["rangesRunning"] == 1 and swept.job()["planComplete"])

    def asks_for_failed_ranges():
        running = swept.direct.admin.aggregate([{"$currentOp": {}}])
        commands = [op.get("command", {}) for op in running]
        filters = [c["filter"] for c in commands if c.get("find") == "jobStatus"]
        return any(asked.get("state") in ("failed", {"$ne": "done"}) for asked in filters)

    ranges = swept.state.jobStatus
    fail(swept, "find", "alwaysOn", ranges, blockConnection=True, blockTimeMS=1000)
    try:
        swept.state.jobStatus.update_one({}, {"$set": {"state": "failed"}})
        swept.wait(asks_for_failed_ranges)
        swept.state.jobStatus.update_one({}, {"$set": {"state": "pending"}})
    finally:
        fail(swept, "find", "off")
    swept.wait(lambda: swept.job()["state"] != "running" or swept.job()["rangesRunning"])
    if swept.job()["state"] == "failed":
        swept.rekeyd.ctl("resume", swept.job()["id"])
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    swept.wait(lambda: swept.job()["state"] == "complete")
    assert swept.keys_used() == {2}
