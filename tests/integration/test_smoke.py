"""The least that must hold: an unmodified driver works through rekeyd, and the disk has no
plaintext of a protected field."""

import pytest
from bson.binary import Binary
from harness import policy

ENVELOPE_SUBTYPE = 0x8E


@pytest.mark.tsan
def test_protected_field_round_trips_and_is_ciphertext_on_disk(replica_set, start_rekeyd, db_name):
    rekeyd = start_rekeyd(replica_set, [policy(f"{db_name}.responses", {"answer": "random"})])
    with rekeyd.client() as app, replica_set.client() as direct:
        app[db_name].responses.insert_one({"_id": 1, "answer": "forty-two", "locale": "en"})
        seen = app[db_name].responses.find_one({"_id": 1})
        assert seen == {"_id": 1, "answer": "forty-two", "locale": "en"}

        stored = direct[db_name].responses.find_one({"_id": 1})
        assert isinstance(stored["answer"], Binary)
        assert stored["answer"].subtype == ENVELOPE_SUBTYPE
        assert b"forty-two" not in stored["answer"]
        assert stored["locale"] == "en"


@pytest.mark.tsan
def test_unprotected_namespace_passes_as_it_is(replica_set, start_rekeyd, db_name):
    rekeyd = start_rekeyd(replica_set, [policy(f"{db_name}.responses", {"answer": "random"})])
    with rekeyd.client() as app, replica_set.client() as direct:
        app[db_name].plain.insert_many([{"_id": i, "answer": f"a{i}"} for i in range(100)])
        read_directly = list(direct[db_name].plain.find().sort("_id"))
        assert list(app[db_name].plain.find().sort("_id")) == read_directly
        assert read_directly[42]["answer"] == "a42"


def test_driver_sees_the_whole_set_through_the_proxy(replica_set, start_rekeyd):
    rekeyd = start_rekeyd(replica_set)
    with rekeyd.client() as app:
        app.admin.command("ping")
        hello = app.admin.command("hello")
        assert sorted(hello["hosts"]) == sorted(rekeyd.addresses)
        assert hello["primary"] in rekeyd.addresses
        assert hello["setName"] == "rs0"


@pytest.mark.tsan
def test_rotate_and_sweep_leave_nothing_under_the_old_key(replica_set, start_rekeyd, db_name):
    namespace = f"{db_name}.responses"
    rekeyd = start_rekeyd(replica_set, [policy(namespace, {"answer": "random"})])
    with rekeyd.client() as app:
        documents = [{"_id": i, "answer": f"answer {i}"} for i in range(500)]
        app[db_name].responses.insert_many(documents)
        rekeyd.ctl("keys", "rotate")
        rekeyd.ctl("start", namespace, "--wait")
        rekeyd.ctl("verify", namespace)
        assert list(app[db_name].responses.find().sort("_id")) == documents
