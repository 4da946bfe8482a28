"""Equality before a field's sweep is done: values in legacy formats with a fixed iv, and values that
were never encrypted, are found like those under Rekey's own keys."""

import pytest
from harness import SECRET, policy, protected
from harness.legacy import FORMATS, LEGACY_KEYS, stored_forms
from pymongo.errors import OperationFailure

A, B = f"{SECRET} a", f"{SECRET} b?"


@pytest.fixture
def start(single_member_set, start_rekeyd, db_name):
    opened = []

    def started(**field):
        ssn = {"algorithm": "deterministic", **field}
        rekeyd = start_rekeyd(single_member_set, [policy(f"{db_name}.people", {"ssn": ssn})],
                              legacy_keys=LEGACY_KEYS)
        context = protected(rekeyd, db_name, fields={"ssn": "deterministic"})
        opened.append(context)
        return context.__enter__()

    yield started
    for context in opened:
        context.__exit__(None, None, None)


def ids(people, query):
    return sorted(d["_id"] for d in people.app.find(query))


def check_queries(people, n):
    """Documents 0..n-1 hold A, n..2n-1 hold B, 2n null, 2n+1 nothing."""
    of_a, of_b, rest = list(range(n)), list(range(n, 2 * n)), [2 * n, 2 * n + 1]
    for query, wanted in [
        ({"ssn": A}, of_a),
        ({"ssn": {"$eq": B}}, of_b),
        ({"ssn": {"$ne": A}}, of_b + rest),
        ({"ssn": {"$in": [A, None]}}, of_a + rest),
        ({"ssn": {"$nin": [A, B]}}, rest),
        ({"$nor": [{"ssn": A}]}, of_b + rest),
        ({"$expr": {"$eq": ["$ssn", A]}}, of_a),
        ({"$expr": {"$in": ["$ssn", [A, B]]}}, of_a + of_b),
        ({"$expr": {"$ne": [{"$ifNull": ["$ssn", A]}, A]}}, of_b),
    ]:
        assert ids(people, query) == wanted, query
        assert people.app.count_documents(query) == len(wanted), query
    assert sorted(people.app.distinct("ssn", {"ssn": {"$ne": None}})) == [A, B]
    assert [d["_id"] for d in people.app.aggregate([{"$match": {"ssn": A}}])] == of_a


def fill(people, forms):
    """Each value under two keys of Rekey, and in the forms."""
    n = len(forms(A)) + 2
    documents = [{"_id": i + k * n, "ssn": form}
                 for k, text in enumerate((A, B)) for i, form in enumerate(forms(text))]
    people.stored.insert_many(documents)
    people.app.insert_many({"_id": n - 2 + k * n, "ssn": text} for k, text in enumerate((A, B)))
    people.rotate()
    people.app.insert_many({"_id": n - 1 + k * n, "ssn": text} for k, text in enumerate((A, B)))
    people.app.insert_many([{"_id": 2 * n, "ssn": None}, {"_id": 2 * n + 1}])
    return n


def test_fixed_iv(start):
    people = start(legacy=FORMATS)
    check_queries(people, fill(people, stored_forms))
    assert people.app.update_one({"ssn": A, "_id": 0}, {"$set": {"n": 1}}).matched_count == 1
    assert people.app.delete_many({"ssn": B}).deleted_count == len(stored_forms(B)) + 2


def test_seeding_writes_todays_ciphertext(start):
    people = start(legacy=FORMATS, accept_plaintext=True)
    people.app.update_one({"ssn": A}, {"$set": {"n": 1}}, upsert=True)
    people.check()
    assert people.app.find_one({}, {"_id": 0}) == {"n": 1, "ssn": A}


def test_never_encrypted(start):
    people = start(accept_plaintext=True)
    check_queries(people, fill(people, lambda text: [text]))
    people.stored.insert_many([{"_id": 100, "ssn": 5.0}, {"_id": 101, "ssn": [A, "x"]}])
    people.app.insert_one({"_id": 102, "ssn": 5})
    assert ids(people, {"ssn": 5}) == [100, 102]
    assert 101 in ids(people, {"ssn": A})
    people.stored.insert_one({"_id": 103, "ssn": "$name", "name": "n"})
    assert ids(people, {"$expr": {"$eq": ["$ssn", {"$literal": "$name"}]}}) == [103]


def test_random_iv_is_refused(start):
    people = start(legacy=[FORMATS[0], {"cipher": "aes-256-cbc", "encoding": "base64",
                                        "key": "old"}])
    for query in ({"ssn": A}, {"$expr": {"$eq": ["$ssn", A]}}):
        with pytest.raises(OperationFailure) as refused:
            people.app.find_one(query)
        assert refused.value.code == 51158 and "random iv" in str(refused.value)


def test_grouping_is_refused(start):
    people = start(type="string", accept_plaintext=True)
    with pytest.raises(OperationFailure) as refused:
        list(people.app.aggregate([{"$group": {"_id": "$ssn"}}]))
    assert refused.value.code == 51092 and "accept_plaintext" in str(refused.value)


def test_legacy_values_are_read_under_their_own_path_only(start):
    people = start(legacy=FORMATS)
    people.stored.insert_many({"_id": i, "ssn": form} for i, form in enumerate(stored_forms(A)))
    for stages in ([{"$project": {"x": "$ssn"}}], [{"$replaceWith": {"x": "$$ROOT"}}],
                   [{"$facet": {"some": [{"$match": {"_id": 1}}]}}],
                   [{"$group": {"_id": 1, "x": {"$push": "$$ROOT"}}}],
                   [{"$unionWith": "people"}],
                   [{"$lookup": {"from": "people", "pipeline": [], "as": "x"}}]):
        try:
            seen = list(people.app.aggregate(stages))
        except OperationFailure as failure:
            assert failure.code in (51092, 51204) and "legacy" in str(failure)
        else:
            assert {d["ssn"] for d in seen} == {A}, stages
    people.stored_plain.insert_one({"_id": "plain"})
    with pytest.raises(OperationFailure) as refused:
        list(people.plain.aggregate([{"$unionWith": "people"}]))
    assert refused.value.code == 51204 and "legacy" in str(refused.value)
    counting = [{"$unionWith": {"coll": "people", "pipeline": [{"$count": "n"}]}}]
    assert list(people.plain.aggregate(counting)) == [{"_id": "plain"},
                                                      {"n": len(stored_forms(A))}]
    counted = [{"$facet": {"some": [{"$match": {"ssn": A}}, {"$count": "n"}]}}]
    assert list(people.app.aggregate(counted)) == [{"some": [{"n": len(stored_forms(A))}]}]
