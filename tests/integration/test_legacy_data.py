"""Data that applications encrypted before Rekey, written by independent code, read through it."""

import itertools
import random

import legacy_corpus
import pytest
from harness import SECRET, is_envelope, key_id, people_policy, protected
from legacy_corpus import BINARY, STRING
from pymongo.errors import OperationFailure
from sweeping import OLD_KEY, legacy_format

FORMATS = list(itertools.product(("cbc", "gcm"), ("binary", "base64"), (b"", b"v1")))


def format_of(cipher, encoding, prefix, kind="string"):
    version = {"version_hex": prefix.hex()} if prefix else {}
    return legacy_format(cipher=f"aes-256-{cipher}", encoding=encoding, type=kind, **version)


def written(cipher, encoding, prefix, plaintext, rng, key=OLD_KEY):
    """As the application before Rekey stored it."""
    raw = prefix + legacy_corpus.encrypt(cipher, key, plaintext, rng)
    value = legacy_corpus.encode(encoding, raw, rng.randrange(4))
    return value if encoding == "binary" else value.decode("ascii")


def legacy_people(single_member_set, start_rekeyd, db_name, formats, **settings):
    legacy = {"algorithm": "random", "legacy": formats}
    fields = {"answer": legacy, "contact.phone": legacy, "ssn": "deterministic"}
    return protected(
        start_rekeyd(
            single_member_set,
            [people_policy(db_name, fields)],
            legacy_keys={"old": OLD_KEY, "older": bytes(32)},
            settings=settings,
        ),
        db_name,
        fields=fields,
    )


def documents(cipher, encoding, prefix, rng, kind):
    """Pairs: what lies on the server, what the application must see."""
    for i, length in enumerate(legacy_corpus.LENGTHS):
        def value():
            if kind == STRING:
                plain = legacy_corpus.text_of(rng, length)
                return written(cipher, encoding, prefix, plain, rng), plain.decode()
            plain = rng.randbytes(length)
            return written(cipher, encoding, prefix, plain, rng), plain

        pairs = [value() for _ in range(3)]
        stored, seen = zip(*pairs)
        yield tuple(
            {
                "_id": i,
                "answer": answer,
                "contact": [{"phone": one, "kind": "x"}, [{"phone": two}], {"phone": None}, 7],
                "name": "n",
            }
            for answer, one, two in (stored, seen)
        )


@pytest.mark.parametrize("kind", [STRING, BINARY], ids=["string", "bin"])
@pytest.mark.parametrize(
    "cipher, encoding, prefix", FORMATS, ids=lambda v: v if isinstance(v, str) else v.decode()
)
def test_read_then_rewritten(
    single_member_set, start_rekeyd, db_name, cipher, encoding, prefix, kind
):
    rng = random.Random(f"{cipher} {encoding} {prefix} {kind}")
    formats = [format_of(cipher, encoding, prefix, "string" if kind == STRING else "binary")]
    with legacy_people(single_member_set, start_rekeyd, db_name, formats) as people:
        stored, wanted = zip(*documents(cipher, encoding, prefix, rng, kind))
        people.stored.insert_many(stored)
        seen = people.seen()
        assert seen == list(wanted)
        assert people.app.find_one_and_update({"_id": 1}, {"$set": {"name": "n"}}) == wanted[1]
        assert list(people.app.aggregate([{"$match": {"_id": 2}}])) == [wanted[2]]
        assert people.app.find_one({"_id": 3}, {"contact.phone": 1})["contact"][0] == {
            "phone": wanted[3]["contact"][0]["phone"]
        }
        assert list(people.stored.find().sort("_id")) == list(stored), "reading rewrote something"

        # What an application reads and writes back lies in the current format.
        people.app.replace_one({"_id": 0}, seen[0])
        change = {"answer": seen[1]["answer"], "contact": seen[1]["contact"]}
        people.app.update_one({"_id": 1}, {"$set": change})
        people.app.update_one({"_id": 2}, {"$set": {"contact.0.phone": "new"}})
        now = list(people.stored.find().sort("_id"))
        for document in now[:2]:
            assert is_envelope(document["answer"])
            assert is_envelope(document["contact"][0]["phone"])
            assert is_envelope(document["contact"][1][0]["phone"])
        assert is_envelope(now[2]["contact"][0]["phone"])
        assert now[2]["answer"] == stored[2]["answer"]
        assert now[3:] == list(stored[3:])
        wanted[2]["contact"][0]["phone"] = "new"
        assert people.seen() == list(wanted)


def test_several_formats_in_one_collection(single_member_set, start_rekeyd, db_name):
    """Legacy values of two formats, plaintext from before any encryption, and envelopes."""
    rng = random.Random(1)
    formats = [format_of("gcm", "binary", b"\x02"), format_of("cbc", "base64", b"\x01")]
    with legacy_people(single_member_set, start_rekeyd, db_name, formats) as people:
        people.app.insert_one({"_id": 0, "answer": f"{SECRET} 0"})
        people.stored.insert_many(
            [
                {"_id": 1, "answer": written("gcm", "binary", b"\x02", b"one", rng)},
                {"_id": 2, "answer": written("cbc", "base64", b"\x01", b"two", rng)},
                {"_id": 3, "answer": "never encrypted: has spaces"},
                {"_id": 4, "answer": None},
                {"_id": 5, "answer": 5},
            ]
        )
        assert [d["answer"] for d in people.seen()] == [
            f"{SECRET} 0", "one", "two", "never encrypted: has spaces", None, 5,
        ]
        assert set(people.app.distinct("answer", {"_id": {"$lt": 3}})) == {
            f"{SECRET} 0", "one", "two",
        }


def test_change_streams_carry_legacy_values(single_member_set, start_rekeyd, db_name):
    rng = random.Random(2)
    with legacy_people(
        single_member_set, start_rekeyd, db_name, [format_of("gcm", "binary", b"")]
    ) as people:
        def value(text):
            return written("gcm", "binary", b"", text, rng)

        people.stored_db.create_collection("people")
        for watched in (people.app, people.app_db):
            people.stored.drop()
            with watched.watch(max_await_time_ms=500) as stream:
                people.stored.insert_one({"_id": 1, "contact": [{"phone": value(b"a")}]})
                change = {"contact.0.phone": value(b"b"), "answer": value(b"c")}
                people.stored.update_one({"_id": 1}, {"$set": change})
                events = [next(stream)]
                while events[-1]["operationType"] != "update":
                    events.append(next(stream))
            assert events[-2]["fullDocument"] == {"_id": 1, "contact": [{"phone": "a"}]}
            assert events[-1]["updateDescription"]["updatedFields"] == {
                "contact.0.phone": "b", "answer": "c",
            }


def damaged(rng):
    flipped = bytearray(written("gcm", "binary", b"", SECRET.encode(), rng))
    flipped[-1] ^= 1
    return bytes(flipped)


@pytest.mark.parametrize("what", ["damaged", "other key"])
def test_undecryptable(single_member_set, start_rekeyd, db_name, what):
    rng = random.Random(3)
    bad = {
        "damaged": damaged(rng),
        "other key": written("gcm", "binary", b"", b"x", rng, key=bytes(32)),
    }[what]
    with legacy_people(
        single_member_set, start_rekeyd, db_name, [format_of("gcm", "binary", b"")]
    ) as people:
        people.stored.insert_many([{"_id": 1, "contact": [{"phone": bad}]}, {"_id": 2}])
        with pytest.raises(OperationFailure) as refused:
            people.app.find_one({"_id": 1})
        assert people.namespace in str(refused.value) and "contact.0.phone" in str(refused.value)
        assert people.app.find_one({"_id": 2}) == {"_id": 2}
        people.rekeyd.reload({"on_undecryptable": "leave"})
        people.rekeyd.wait_event("reloaded")
        seen = people.app.find_one({"_id": 1})
        assert seen["contact"][0]["phone"] == bad
        people.app.update_one({"_id": 1}, {"$set": {"contact.0.phone": f"{SECRET} mended"}})
        assert people.app.find_one({"_id": 1})["contact"][0]["phone"] == f"{SECRET} mended"


def test_missing_legacy_key(single_member_set, start_rekeyd, db_name):
    rng = random.Random(4)
    wanted = {**format_of("gcm", "binary", b""), "key": "lost"}
    with legacy_people(single_member_set, start_rekeyd, db_name, [wanted]) as people:
        people.stored.insert_one({"_id": 1, "answer": written("gcm", "binary", b"", b"x", rng)})
        with pytest.raises(OperationFailure) as refused:
            people.app.find_one({"_id": 1})
        for words in (people.namespace, "answer", '"lost"'):
            assert words in str(refused.value)


def test_equality_waits_for_the_sweep(single_member_set, start_rekeyd, db_name):
    """Legacy values of a deterministic field would be missed silently."""
    fields = {"ssn": {"algorithm": "deterministic", "legacy": [format_of("gcm", "binary", b"")]}}
    rekeyd = start_rekeyd(
        single_member_set, [people_policy(db_name, fields)], legacy_keys={"old": OLD_KEY}
    )
    with protected(rekeyd, db_name, fields=fields) as people:
        people.app.insert_one({"_id": 1, "ssn": SECRET})
        with pytest.raises(OperationFailure) as refused:
            people.app.find_one({"ssn": SECRET})
        assert refused.value.code == 51158 and "sweep" in str(refused.value)
        rekeyd.config["policies"] = [people_policy(db_name, {"ssn": "deterministic"})]
        rekeyd.reload({})
        rekeyd.wait_event("reloaded")
        assert people.app.find_one({"ssn": SECRET}) == {"_id": 1, "ssn": SECRET}


# A keyring that is not the one that the data keys were wrapped with.


def test_wrong_key_encryption_key(single_member_set, start_rekeyd, db_name):
    first = start_rekeyd(single_member_set, [people_policy(db_name)])
    with protected(first, db_name) as people:
        people.app.insert_one({"_id": 1, "answer": SECRET, "name": "n"})
        first.terminate()
        first.write_keyring(bytes(reversed(range(32))), {})
        first.spawn()
        first.wait_ready()
        for work in (
            lambda: people.app.find_one({"_id": 1}),
            lambda: people.app.insert_one({"_id": 2, "answer": SECRET}),
        ):
            with pytest.raises(OperationFailure) as refused:
                work()
            assert "key" in str(refused.value)
        assert people.app.find_one({"_id": 1}, {"name": 1}) == {"_id": 1, "name": "n"}
        assert first.alive
        (stored,) = people.check()
        assert key_id(stored["answer"]) == 1
