"""What the server may do with deterministic fields while there is one key and nothing but one type
of Rekey's own ciphertext in them: group by them and join on them. With a second key it may not."""

import pytest
from harness import SECRET, policy, protected
from pymongo.errors import OperationFailure

MAIL = {"algorithm": "deterministic", "type": "string", "name": "mail"}
PEOPLE = [{"_id": i, "group": i % 2, "mail": f"{SECRET} {i % 3}",
           "tags": [{"t": f"{SECRET} {i % 2}"}, {"t": f"{SECRET} 2"}]} for i in range(9)]
PEOPLE += [{"_id": 9, "group": 0, "mail": None}, {"_id": 10, "group": 1}]
ORDERS = [{"_id": i, "to": f"{SECRET} {i % 4}"} for i in range(6)]

PIPELINES = {
    "group": [{"$group": {"_id": "$mail", "n": {"$sum": 1}}}],
    "group by two": [{"$group": {"_id": {"m": "$mail", "g": "$group"}, "n": {"$sum": 1}}}],
    "group by an array": [{"$group": {"_id": "$tags.t", "n": {"$sum": 1}}}],
    "group by a choice": [
        {"$group": {"_id": {"$cond": [{"$eq": ["$group", 1]}, "$mail", None]}}}],
    "addToSet": [{"$group": {"_id": "$group", "all": {"$addToSet": "$mail"}}}],
    "sortByCount": [{"$sortByCount": "$mail"}],
    "lookup": [{"$lookup": {"from": "orders", "localField": "mail", "foreignField": "to",
                            "as": "orders"}}],
    "lookup through an array": [{"$lookup": {"from": "orders", "localField": "tags.t",
                                             "foreignField": "to", "as": "orders"}}],
    "lookup by let": [{"$lookup": {"from": "orders", "let": {"m": "$mail"}, "as": "orders",
                                   "pipeline": [{"$match": {"$expr": {"$eq": ["$to", "$$m"]}}}]}}],
    "same field": [{"$match": {"$expr": {"$eq": ["$mail", "$mail"]}}}],
    "in its own array": [{"$match": {"tags": {"$exists": True}}},
                         {"$match": {"$expr": {"$in": ["$mail", "$tags.t"]}}}],
    "lookup elsewhere": [{"$lookup": {"from": "orders", "localField": "_id", "foreignField": "_id",
                                      "as": "o"}}, {"$unwind": "$o"},
                         {"$match": {"$expr": {"$eq": ["$o.to", f"{SECRET} 2"]}}}],
}
# Possible with any number of keys.
ALWAYS = {"lookup elsewhere"}


@pytest.fixture
def people(single_member_set, start_rekeyd, db_name):
    tag = {**MAIL}
    policies = [policy(f"{db_name}.people", {"mail": MAIL, "tags.t": tag}),
                policy(f"{db_name}.orders", {"to": MAIL})]
    with protected(start_rekeyd(single_member_set, policies), db_name,
                   fields={"mail": "deterministic"}) as both:
        both.app.insert_many(PEOPLE)
        both.app_db.orders.insert_many(ORDERS)
        yield both


def sorted_result(documents):
    return sorted(str(by_content(d)) for d in documents)


def by_content(value):
    """The order of groups, joined documents and sets is the server's own affair."""
    if isinstance(value, dict):
        return {k: by_content(v) for k, v in value.items()}
    return sorted(map(str, map(by_content, value))) if isinstance(value, list) else value


def test_exact_under_one_key(people):
    mirror = people.direct_client[f"{people.app_db.name}_mirror"]
    try:
        mirror.people.insert_many(PEOPLE)
        mirror.orders.insert_many(ORDERS)
        for name, stages in PIPELINES.items():
            wanted = list(mirror.people.aggregate(stages))
            assert wanted, name
            seen = list(people.app.aggregate(stages))
            assert sorted_result(seen) == sorted_result(wanted), name
    finally:
        people.direct_client.drop_database(mirror.name)


def test_refused_under_two(people):
    people.rotate()
    for name, stages in PIPELINES.items():
        if name in ALWAYS:
            continue
        with pytest.raises(OperationFailure) as refused:
            list(people.app.aggregate(stages))
        assert refused.value.code in (51092, 51204), name
        assert "several keys" in str(refused.value), name


def test_only_the_given_type(people):
    for value in (5, 1.5, b"x"):
        with pytest.raises(OperationFailure) as refused:
            people.app.insert_one({"mail": value})
        assert refused.value.code == 31041 and "string" in str(refused.value)
        with pytest.raises(OperationFailure) as refused:
            people.app.find_one({"mail": value})
        assert refused.value.code == 31041


@pytest.mark.parametrize("setting", ["refuse", "warn", "allow"])
def test_unique_index(single_member_set, start_rekeyd, db_name, setting):
    mail = {**MAIL, "unique_index": setting}
    rekeyd = start_rekeyd(single_member_set, [policy(f"{db_name}.people", {"mail": mail})])
    with protected(rekeyd, db_name) as people:
        if setting == "refuse":
            with pytest.raises(OperationFailure) as refused:
                people.app.create_index("mail", unique=True)
            assert refused.value.code == 51092 and "unique_index" in str(refused.value)
            return
        people.app.create_index("mail", unique=True)
        assert people.stored.index_information()["mail_1"]["unique"]
        assert len(rekeyd.events("request_warning")) == (1 if setting == "warn" else 0)
        people.app.insert_one({"mail": f"{SECRET} 1"})
        with pytest.raises(OperationFailure) as refused:
            people.app.insert_one({"mail": f"{SECRET} 1"})
        assert refused.value.code == 11000
