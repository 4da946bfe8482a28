"""Values that could not be processed: looking at them, another try, giving them up."""

import pytest
from bson import Binary, ObjectId

from harness import admin_settings, policy
from sweeping import FAILED, FAST, OLD_KEY, STATE, Swept, legacy_format, letters

USAGE = 2
SECRET = "the quick brown fox"
pytestmark = pytest.mark.timeout(120)


def damage(swept, i) -> Binary:
    good = swept.stored.find_one({"_id": i})["answer"]
    bad = Binary(good[:-1] + bytes([good[-1] ^ 1]), good.subtype)
    swept.stored.update_one({"_id": i}, {"$set": {"answer": bad}})
    return good


def discard(swept, *options, check=True):
    return swept.rekeyd.ctl("dead-letters", "discard", *options, check=check)


def reasons(*extra):
    return [*extra, "--reason", "restored from the archive", "--confirm"]


def audited(swept, action) -> list:
    return [
        (event["target"], event["result"], event.get("detail"))
        for event in swept.state.audit.find({"action": action}).sort("_id")
    ]


@pytest.fixture
def bad(swept):
    """Three documents of ten are damaged, and a sweep has met them."""
    swept.app.insert_many([{"_id": i, "answer": SECRET} for i in range(10)])
    swept.good = {i: damage(swept, i) for i in (3, 4, 5)}
    swept.rotate()
    assert swept.sweep()["deadLettered"] == 3
    return swept


def by_document(swept, *options) -> dict:
    return {letter["docId"]: letter for letter in letters(swept, *options)}


def show(swept, letter_id, check=True):
    return swept.rekeyd.ctl("dead-letters", "show", letter_id, check=check)


def test_show_tells_all_but_the_value(bad):
    letter = by_document(bad)[4]
    shown = show(bad, letter["id"])
    assert {key: shown[key] for key in letter} == letter
    assert shown["ns"] == bad.namespace and shown["state"] == "open" and shown["attempts"] == 1
    raw = bad.state.deadLetters.find_one({"docId": 4})["raw"]
    assert shown["raw"]["type"] == "binData" and shown["raw"]["bytes"] == len(raw)
    assert not shown["raw"]["damagedEnvelope"]
    envelope = shown["raw"]["envelope"]
    assert (envelope["keyId"], envelope["algorithm"], envelope["type"]) == (1, "random", "string")
    assert envelope["encryptedAt"].startswith("20")
    text = bad.rekeyd.ctl_text("dead-letters", "show", letter["id"])
    assert "under key 1, random, a value of type string" in text and bad.namespace in text
    assert SECRET not in text and raw.hex() not in text

    # A header that is cut short is said to be damaged; a value that was not kept is not made up.
    letters_of = bad.state.deadLetters
    letters_of.update_one({"docId": 4}, {"$set": {"raw": Binary(raw[:10], raw.subtype)}})
    assert show(bad, letter["id"])["raw"] == {
        "type": "binData",
        "bytes": 10,
        "damagedEnvelope": True,
    }
    letters_of.update_one({"docId": 4}, {"$set": {"raw": "abc"}})
    assert show(bad, letter["id"])["raw"]["type"] == "string"
    assert show(bad, letter["id"])["raw"]["bytes"] == 3
    letters_of.update_one({"docId": 4}, {"$unset": {"raw": 1}, "$set": {"rawOmitted": True}})
    assert "raw" not in show(bad, letter["id"])
    assert show(bad, str(ObjectId()), check=False).returncode == FAILED
    assert show(bad, "17", check=False).returncode == FAILED


def test_one_is_retried_by_its_id(bad):
    found = by_document(bad)
    for i in (3, 4):
        bad.stored.update_one({"_id": i}, {"$set": {"answer": bad.good[i]}})
    assert bad.rekeyd.ctl("dead-letters", "retry", found[3]["id"])["retrying"] == 1
    bad.wait(lambda: set(by_document(bad)) == {4, 5})
    assert by_document(bad)[4]["attempts"] == 1
    again = bad.rekeyd.ctl("dead-letters", "retry", found[3]["id"], check=False)
    assert again.returncode == STATE and "is resolved or discarded" in again.stderr
    assert bad.rekeyd.ctl("dead-letters", "retry", bad.namespace)["retrying"] == 2
    bad.wait(lambda: set(by_document(bad)) == {5})
    none = bad.rekeyd.ctl("dead-letters", "retry", str(ObjectId()), check=False)
    assert none.returncode == FAILED and "there is no dead letter" in none.stderr
    assert audited(bad, "deadLetters.retry")[:2] == [
        (found[3]["id"], "started", None),
        (found[3]["id"], "ok", "1 dead letters"),
    ]


def test_discarding_asks_for_a_reason_and_a_yes(bad):
    letter = by_document(bad)[3]["id"]
    for options in (
        [letter],
        [letter, "--reason", "x"],
        [letter, "--confirm"],
        [letter, "--reason", "", "--confirm"],
        [letter, "--reason", "x" * 301, "--confirm"],
        reasons(),
        reasons(letter, "--ns", bad.namespace),
    ):
        assert discard(bad, *options, check=False).returncode == USAGE
    assert len(letters(bad)) == 3 and audited(bad, "deadLetters.discard") == []


def test_discarded_ones_stay_on_record(bad):
    letter = by_document(bad)[3]["id"]
    assert discard(bad, *reasons(letter))["discarded"] == 1
    assert set(by_document(bad)) == {4, 5}
    shown = by_document(bad, "--all")[3]
    assert shown["state"] == "discarded" and not shown["resolved"]
    assert shown["discarded"]["reason"] == "restored from the archive"
    assert shown["discarded"]["by"] and shown["discarded"]["at"].startswith("20")
    assert show(bad, letter)["discarded"] == shown["discarded"]
    assert bad.state.deadLetters.find_one({"docId": 3})["raw"] is not None
    assert audited(bad, "deadLetters.discard") == [
        (letter, "started", "restored from the archive"),
        (letter, "ok", "1 dead letters: restored from the archive"),
    ]
    twice = discard(bad, *reasons(letter), check=False)
    assert twice.returncode == STATE and audited(bad, "deadLetters.discard")[-1][1] == "failed"
    retried = bad.rekeyd.ctl("dead-letters", "retry", letter, check=False)
    assert retried.returncode == STATE


def test_another_bad_value_at_the_place_opens_it_again(bad):
    assert discard(bad, *reasons("--ns", bad.namespace))["discarded"] == 3
    bad.rotate()
    assert bad.sweep()["deadLettered"] == 3  # the same values: they stay given up
    assert letters(bad) == []
    assert {letter["attempts"] for letter in letters(bad, "--all")} == {2}
    now = bad.stored.find_one({"_id": 3})["answer"]
    other = Binary(now[:-2] + bytes([now[-2] ^ 1]) + now[-1:], now.subtype)
    bad.stored.update_one({"_id": 3}, {"$set": {"answer": other}})
    bad.rotate()
    bad.sweep()
    (letter,) = letters(bad)
    assert letter["docId"] == 3 and letter["state"] == "open" and "discarded" not in letter


def test_a_list_says_that_there_are_more(swept):
    letter = {"ns": swept.namespace, "path": "answer", "reason": "r", "resolved": False}
    swept.state.deadLetters.insert_many([{**letter, "docId": i} for i in range(1001)])

    def listed(*options):
        return swept.rekeyd.ctl("dead-letters", "list", *options)

    text = swept.rekeyd.ctl_text("dead-letters", "list")
    assert "there are more: these 1000 are those that were seen last" in text
    assert listed()["truncated"] and len(listed()["deadLetters"]) == 1000
    swept.state.deadLetters.delete_one({"docId": 7})
    assert not listed()["truncated"] and len(listed()["deadLetters"]) == 1000


@pytest.fixture
def tenanted(start_rekeyd, single_member_set, db_name):
    """A key for each `org`, and values of an older format in `answer`."""
    legacy = {"algorithm": "random", "legacy": [legacy_format()]}
    protected = policy(f"{db_name}.people", {"answer": legacy, "note": "random"})
    rekeyd = start_rekeyd(
        single_member_set,
        [{**protected, "tenant": "org", "key": "people"}],
        legacy_keys={"old": OLD_KEY},
        settings=FAST,
    )
    with rekeyd.client() as app, single_member_set.client() as direct:
        yield Swept(rekeyd, app, direct, db_name)


def test_what_may_be_plaintext_is_kept_nowhere(tenanted):
    """It need not be an old value because it has the shape of one, or because no key is to be had."""
    shaped = Binary(f"{SECRET:48}".encode())
    tenanted.app.insert_one({"_id": 1, "org": "acme", "note": "encrypted"})
    tenanted.stored.insert_many(
        [
            {"_id": 2, "org": "acme", "answer": shaped},
            {"_id": 3, "answer": shaped},
            {"_id": 4, "note": SECRET},
        ]
    )
    assert tenanted.sweep()["plaintext"] == 1
    found = {i: letter["reason"] for i, letter in by_document(tenanted).items()}
    assert found == {
        2: "legacy value does not decrypt",
        3: "the document's tenant is not known",
    }
    for letter in tenanted.state.deadLetters.find():
        assert letter["rawOmitted"] and "raw" not in letter
    assert SECRET not in str(list(tenanted.state.deadLetters.find()))

    # Whether it is the same value that was given up cannot be told: it is open again.
    assert discard(tenanted, *reasons("--ns", tenanted.namespace))["discarded"] == 2
    assert letters(tenanted) == []
    other = Binary(f"another {SECRET:40}".encode())
    tenanted.stored.update_one({"_id": 2}, {"$set": {"answer": other}})
    tenanted.sweep()
    assert set(by_document(tenanted)) == {2, 3}
    assert all("discarded" not in letter for letter in letters(tenanted))


# Too many at once.


def many_bad(swept, n, of):
    swept.app.insert_many([{"_id": i, "answer": SECRET} for i in range(of)])
    for i in range(0, of, of // n):
        damage(swept, i)
    swept.rotate()


def limits(**dead_letters) -> dict:
    slow = {"range_docs": 20, "batch_docs": 10, "max_rate": 100}
    return {"sweep": {**slow, "dead_letters": dead_letters}}


def paused(swept) -> str:
    swept.wait(lambda: swept.job()["state"] in ("paused", "complete"))
    assert swept.job()["state"] == "paused"
    return swept.job()["error"]


def test_too_many_pause_the_job_and_resume_goes_on(start_swept, single_member_set):
    swept = start_swept(
        single_member_set,
        {**limits(pause_count=19, window_docs=10000), **admin_settings()},
    )
    many_bad(swept, 50, 200)
    job = swept.start()
    reason = paused(swept)
    assert "documents could not be processed (sweep.dead_letters.pause_count is 19)" in reason
    assert f"`rekeyctl resume {job}`" in reason and "dead-letters list" in reason
    failed, scanned = [int(word) for word in reason.split() if word.isdigit()][:2]
    assert 19 < failed <= 40 and failed < scanned < 200
    event = swept.rekeyd.wait_event("job_paused")
    assert event["reason"] == reason and event["ns"] == swept.namespace
    assert swept.rekeyd.admin.value("rekey_sweep_jobs_paused_total") == 1
    events = list(swept.state.audit.find({"action": "job.pause"}).sort("_id"))
    assert [(e["actor"], e["target"], e["result"]) for e in events] == [
        ("rekeyd", job, "started"),
        ("rekeyd", job, "ok"),
    ]
    assert reason in events[-1]["detail"]
    swept.wait(lambda: swept.job()["rangesRunning"] == 0)
    # What failed before the resume counts no longer, so this one gets further.
    before = swept.job()["scanned"]
    swept.rekeyd.ctl("resume", job)
    swept.wait(lambda: swept.job()["state"] in ("paused", "complete"))
    assert swept.job()["scanned"] > before
    while swept.job()["state"] != "complete":  # it may be paused with nothing left but to close it
        before = swept.job()["scanned"]
        swept.rekeyd.ctl("resume", job)
        swept.wait(lambda: swept.job()["state"] in ("paused", "complete"))
        assert swept.job()["scanned"] > before or swept.job()["state"] == "complete"
    assert (swept.job()["swept"], swept.job()["rejected"]) == (150, 50)
    assert len(letters(swept)) == 50


def test_a_share_pauses_after_enough_documents(start_swept, single_member_set):
    settings = limits(pause_count=0, pause_share_percent=20, docs_min=60, window_docs=200)
    swept = start_swept(single_member_set, settings)
    many_bad(swept, 60, 180)
    swept.start()
    reason = paused(swept)
    assert "pause_share_percent is 20" in reason
    assert swept.job()["scanned"] >= 60


def test_a_few_over_a_long_time_pause_nothing(start_swept, single_member_set):
    # 25 of 500 are more than pause_count, but never so many of any 100.
    settings = limits(pause_count=15, pause_share_percent=20, docs_min=50, window_docs=100)
    settings["sweep"]["max_rate"] = 0
    swept = start_swept(single_member_set, settings)
    many_bad(swept, 25, 500)
    job = swept.sweep()
    assert (job["state"], job["rejected"]) == ("complete", 25)
    assert swept.state.audit.count_documents({"action": "job.pause"}) == 0


def test_limits_that_cannot_be(swept):
    swept.rekeyd.config["sweep"]["dead_letters"] = {"docs_min": 60, "window_docs": 100}
    swept.rekeyd.write_config()
    refused = swept.rekeyd.ctl("jobs", check=False)
    assert "sweep.dead_letters.docs_min" in refused.stderr and refused.returncode == FAILED
