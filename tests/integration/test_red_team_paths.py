"""Paths that lead into an encrypted document, or to something that is not the field any more: each
of these once gave a wrong result in silence. Over plaintext each finds something."""

import pytest
from harness import SECRET, people_policy, protected
from pymongo.errors import OperationFailure

PEOPLE = [
    {"_id": 1, "name": "n1", "size": 1, "ssn": "n1", "answer": {"a": {"b": SECRET}},
     "contact": [{"kind": "home", "mail": "n1", "phone": {"x": 1, "y": 2}}]},
    {"_id": 2, "name": "n2", "size": 2, "ssn": f"{SECRET} 2", "answer": [], "contact": []},
    {"_id": 3, "name": "n3", "size": 3, "contact": {"kind": "work", "mail": "n3"}},
]
WHOLE = {"$replaceWith": {"d": "$$ROOT"}}
NESTED = {"$project": {"x": {"y": "$answer", "z": "$ssn"}}}
FLAT = {"$project": {"x": {"y": "$name", "z": "$ssn"}}}
EMPTY = {"$ifNull": [None, []]}
MOVED = [{"$set": {"ssn": "$name"}}, {"$lookup": {
    "from": "plain", "let": {"v": "$ssn"}, "as": "j",
    "pipeline": [{"$match": {"$expr": {"$eq": ["$$v", "n2"]}}}]}}]
MAILS = [{"$project": {"name": 1}}, {"$facet": {"contact": [{"$project": {"mail": "$name"}}]}}]
DEPTH = {"$graphLookup": {"from": "people", "startWith": "$size", "connectFromField": "none",
                          "connectToField": "size", "depthField": "ssn", "as": "g"}}

REFUSED = {
    # {a: {b: 1}} means "a.b" in a projection, which was refused only when spelt with a dot.
    "nested": ([{"$project": {"answer": {"a": 1}}}], 51102),
    "nested, left out": ([{"$project": {"answer": {"a": 0}}}], 51102),
    "nested in an array": ([{"$project": {"contact": {"phone": {"x": 1}}}}], 51102),
    "nested, computed": ([{"$project": {"answer": {"z": "$name"}}}], 51102),
    "nested, added": ([{"$addFields": {"answer": {"z": "$name"}}}], 51102),
    # The same where names have changed.
    "renamed": ([WHOLE, {"$project": {"d.answer.a": 1}}], 51102),
    "renamed, tested": ([NESTED, {"$match": {"x.y.a": {"$exists": True}}}], 51102),
    "renamed, null": ([NESTED, {"$match": {"x.y.a": None}}], 51102),
    "renamed, read": ([WHOLE, {"$project": {"z": "$d.answer.a"}}], 51102),
    "bound": ([{"$project": {"r": {"$let": {
        "vars": {"v": {"$ifNull": ["$answer", {}]}}, "in": "$$v.a"}}}}], 51102),
    # A random field may hold an empty array.
    "empty": ([{"$project": {"r": {"$eq": ["$answer", EMPTY]}}}], 51092),
    # What stands there is not the field any more.
    "moved and joined": (MOVED, 51092),
    "facet": ([*MAILS, {"$match": {"contact.mail": "n1"}}], 51092),
    "depth": ([DEPTH, {"$match": {"g.ssn": 0}}], 51204),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(twins, name):
    pipeline, code = REFUSED[name]
    assert list(twins.stored_plain.aggregate(pipeline)), "says nothing"
    with pytest.raises(OperationFailure) as failure:
        list(twins.app.aggregate(pipeline))
    assert failure.value.code == code, failure.value


EXACT = {
    "nested beside it": [{"$project": {"contact": {"kind": 1, "mail": 1}}}],
    "nested, added beside it": [{"$addFields": {"contact": {"new": "$name"}}}],
    "nested, whole": [{"$project": {"contact": {"phone": 1}, "o": {"a": "$answer"}}}],
    "renamed, whole": [WHOLE, {"$project": {"d": 1}}],
    # Deterministic fields hold no documents, so that this can be no path into one.
    "renamed, flat": [FLAT, {"$project": {"x.y": 1, "z": "$x.z"}}],
    "facet": [*MAILS, {"$unwind": "$contact"}],
}


@pytest.mark.parametrize("name", EXACT)
def test_exact(twins, name):
    expected = list(twins.stored_plain.aggregate(EXACT[name]))
    assert list(twins.app.aggregate(EXACT[name])) == expected


def test_find_takes_nested_projections_too(twins):
    for projection in {"answer": {"a": 1}}, {"contact": {"phone": {"x": 0}}}:
        with pytest.raises(OperationFailure) as failure:
            list(twins.app.find({}, projection))
        assert failure.value.code == 51102
    projection = {"contact": {"kind": 1, "phone": 1}}
    assert list(twins.app.find({}, projection)) == list(twins.stored_plain.find({}, projection))


@pytest.fixture
def people_named(single_member_set, start_rekeyd, db_name):
    policies = [people_policy(db_name, {"name": "deterministic"})]
    with protected(start_rekeyd(single_member_set, policies), db_name) as people:
        people.app.insert_one({"_id": 1, "name": SECRET})
        yield people


def test_index_statistics_are_no_people(people_named):
    """Their "name" is that of the index: it was looked for as ciphertext, and not found."""
    people_named.app.create_index("size")
    pipeline = [{"$indexStats": {}}, {"$match": {"name": "size_1"}}]
    assert len(list(people_named.stored.aggregate(pipeline))) == 1
    with pytest.raises(OperationFailure) as failure:
        list(people_named.app.aggregate(pipeline))
    assert failure.value.code == 51092


def test_paths_through_arrays_stay_what_they_are(twins):
    """"contact.mail" of an array is an array of all mails: set to itself, each element got arrays
    of ciphertext, which no sweep would have found."""
    with pytest.raises(OperationFailure) as failure:
        twins.app.update_many({}, [{"$set": {"contact.mail": "$contact.mail"}}])
    assert failure.value.code == 31146
    twins.app.update_many({}, [{"$set": {"contact": "$contact", "ssn": "$ssn"}}])
    assert twins.seen() == PEOPLE
