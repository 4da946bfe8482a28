"""
Sessions through the proxy: transactions over protected collections, what drivers retry, causal
consistency between members, snapshots. Every test uses what the drivers themselves offer.
"""

import threading
import time

import pytest
from harness import ReplicaSet, people_policy, policy, protected
from harness.protected import SECRET, is_envelope, key_id, person
from pymongo import ReadPreference, WriteConcern
from pymongo.errors import ConnectionFailure, OperationFailure
from pymongo.read_concern import ReadConcern

MAJORITY = WriteConcern("majority", wtimeout=20000)
CLOSE = {"closeConnection": True}


@pytest.fixture(scope="module")
def servers(servers_directory):
    """Three members with fail points; members step down and come back."""
    args = ["--setParameter", "enableTestCommands=1"]
    with ReplicaSet(3, servers_directory / "transactions", args=args) as servers:
        yield servers


@pytest.fixture
def people(servers, start_rekeyd, db_name):
    orders = policy(f"{db_name}.orders", {"card": "random", "mail": "deterministic"})
    rekeyd = start_rekeyd(servers, [people_policy(db_name), orders])
    with protected(rekeyd, db_name) as people:
        people.orders = people.app_db.orders
        for name in ("people", "orders"):
            people.app_db.create_collection(name, write_concern=MAJORITY)
        yield people
        fail(servers, [], "off")
        people.check()


def fail(servers, commands, mode, **how):
    """
    The server's own fail point, on every member. Counted ones name the namespace: rekeyd's and the
    servers' own commands would be counted, too.
    """
    data = {"failCommands": list(commands), **how}
    for member in servers.members:
        with member.client() as client:
            client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)


def order(i) -> dict:
    return {"_id": i, "card": f"{SECRET} card {i}", "mail": f"{SECRET} mail {i}", "sum": i}


def place(people, i):
    """A transaction over two protected collections, with reads of what it wrote."""

    def body(session):
        people.app.insert_one(person(i), session=session)
        people.orders.insert_one(order(i), session=session)
        people.app.update_one(
            {"ssn": f"{SECRET} ssn {i}"}, {"$set": {"answer": f"{SECRET} new"}}, session=session
        )
        assert people.orders.find_one({"mail": f"{SECRET} mail {i}"}, session=session) == order(i)

    return body


def placed(i) -> tuple:
    return person(i, answer=f"{SECRET} new"), order(i)


def found(people, i) -> tuple:
    return people.app.find_one({"_id": i}), people.orders.find_one({"_id": i})


def test_commit_and_abort_over_two_collections(people):
    with people.app_client.start_session() as session:
        session.with_transaction(lambda s: place(people, 1)(s))
        session.start_transaction()
        place(people, 2)(session)
        assert found(people, 2) == (None, None), "seen outside before the commit"
        session.abort_transaction()
    assert found(people, 1) == placed(1)
    assert found(people, 2) == (None, None)


def test_refused_command_leaves_the_transaction_usable(people):
    with people.app_client.start_session() as session:
        with session.start_transaction():
            people.app.insert_one(person(1), session=session)
            with pytest.raises(OperationFailure) as refused:
                people.app.find_one({"ssn": {"$gt": "a"}}, session=session)
            assert refused.value.code == 51118
            people.app.insert_one(person(2), session=session)
    assert people.seen() == [person(1), person(2)]


@pytest.mark.parametrize(
    "how",
    [{"errorCode": 262, "errorLabels": ["RetryableWriteError"]}, CLOSE],
    ids=["error", "connection lost"],
)
def test_commit_is_retried(people, servers, how):
    fail(servers, ["commitTransaction"], {"times": 1}, **how)
    with people.app_client.start_session() as session:
        with session.start_transaction(write_concern=MAJORITY):
            place(people, 1)(session)
    assert found(people, 1) == placed(1)


def test_transient_error_repeats_the_transaction(people, servers):
    runs = []

    def body(session):
        runs.append(1)
        place(people, 1)(session)

    how = {"errorCode": 251, "errorLabels": ["TransientTransactionError"]}
    fail(servers, ["update"], {"times": 2}, **how, namespace=people.namespace)
    with people.app_client.start_session() as session:
        session.with_transaction(body)
    assert len(runs) == 3
    assert found(people, 1) == placed(1)


def test_write_conflict_reaches_the_application(people):
    people.app.insert_one(person(1))
    with people.app_client.start_session() as first, people.app_client.start_session() as second:
        first.start_transaction()
        second.start_transaction()
        change = {"$set": {"ssn": f"{SECRET} first"}}
        people.app.update_one({"_id": 1}, change, session=first)
        with pytest.raises(OperationFailure) as conflict:
            people.app.update_one({"_id": 1}, {"$set": {"ssn": f"{SECRET} 2"}}, session=second)
        assert conflict.value.code == 112
        assert conflict.value.has_error_label("TransientTransactionError")
        first.commit_transaction()
    assert people.seen() == [person(1, ssn=f"{SECRET} first")]


def test_rotation_in_the_middle_of_a_transaction(people):
    people.app.insert_one(person(1))
    with people.app_client.start_session() as session:
        with session.start_transaction():
            people.app.insert_one(person(2), session=session)
            people.rotate()
            people.app.insert_one(person(3), session=session)
            for i in (1, 2, 3):
                query = {"ssn": f"{SECRET} ssn {i}"}
                assert people.app.find_one(query, session=session) == person(i)
            assert people.app.count_documents({}, session=session) == 3
    assert people.seen() == [person(1), person(2), person(3)]
    keys = {d["_id"]: key_id(d["ssn"]) for d in people.stored.find()}
    assert keys[1] == keys[2] < keys[3]


def test_snapshot_older_than_a_rotation(people):
    app = people.app.with_options(write_concern=MAJORITY)
    app.insert_many([person(1), person(2)])
    with people.app_client.start_session(snapshot=True) as session:
        assert app.find_one({"ssn": f"{SECRET} ssn 1"}, session=session) == person(1)
        people.rotate()
        app.update_one({"_id": 1}, {"$set": {"ssn": f"{SECRET} later"}})
        app.delete_one({"_id": 2})
        assert app.find_one({"ssn": f"{SECRET} ssn 1"}, session=session) == person(1)
        assert app.find_one({"ssn": f"{SECRET} later"}, session=session) is None
        assert app.distinct("ssn", {}, session=session) == [f"{SECRET} ssn 1", f"{SECRET} ssn 2"]
        assert [d["_id"] for d in app.aggregate([{"$sort": {"_id": 1}}], session=session)] == [1, 2]
    assert people.seen() == [person(1, ssn=f"{SECRET} later")]


def test_causal_reads_on_secondaries(people):
    """What a session wrote it reads, whichever member answers."""
    app = people.app.with_options(
        read_preference=ReadPreference.SECONDARY,
        read_concern=ReadConcern("majority"),
        write_concern=MAJORITY,
    )
    with people.app_client.start_session(causal_consistency=True) as session:
        for i in range(40):
            app.insert_one(person(i), session=session)
            assert app.find_one({"ssn": f"{SECRET} ssn {i}"}, session=session) == person(i)
            changed = person(i, ssn=f"{SECRET} changed {i}")
            app.replace_one({"_id": i}, changed, session=session)
            assert app.find_one({"_id": i}, session=session) == changed


@pytest.mark.parametrize("how", [{"errorCode": 10107}, CLOSE], ids=["not primary", "connection"])
def test_retryable_writes_happen_once(people, servers, how):
    app = people.app
    commands = ["insert", "update", "findAndModify", "delete"]
    if "errorCode" in how:
        how = {**how, "errorLabels": ["RetryableWriteError"]}

    def retried(write):
        fail(servers, commands, {"times": 1}, **how, namespace=people.namespace)
        return write()

    assert retried(lambda: app.insert_one(person(1))).acknowledged
    many = retried(lambda: app.insert_many([person(2), person(3)]))
    assert many.inserted_ids == [2, 3]
    query, change = {"ssn": f"{SECRET} ssn 1"}, {"$inc": {"size": 1}}
    assert retried(lambda: app.update_one(query, change)).modified_count == 1
    before = retried(lambda: app.find_one_and_update(query, change))
    assert before == person(1, size=2)
    assert retried(lambda: app.delete_one({"ssn": f"{SECRET} ssn 2"})).deleted_count == 1
    assert people.seen() == [person(1, size=3), person(3)]


def test_retried_write_after_the_server_did_it(people, servers):
    """The reply is lost after the write: the server must know the retry as the same statement."""
    lost = {"writeConcernError": {"code": 262, "errmsg": "too long"}}
    lost = {**lost, "errorLabels": ["RetryableWriteError"], "namespace": people.namespace}
    fail(servers, ["update"], {"times": 1}, **lost)
    people.app.insert_one(person(1))
    people.app.update_one({"ssn": f"{SECRET} ssn 1"}, {"$inc": {"size": 1}})
    people.app.update_one(
        {"ssn": f"{SECRET} other"}, {"$set": {"name": "x"}, "$inc": {"size": 5}}, upsert=True
    )
    assert people.app.find_one({"_id": 1})["size"] == 2
    seeded = people.app.find_one({"ssn": f"{SECRET} other"}, {"_id": 0})
    assert seeded == {"ssn": f"{SECRET} other", "name": "x", "size": 5}


def test_retryable_reads(people, servers):
    people.app.insert_many([person(i) for i in range(5)])
    reads = {
        "find": lambda: people.app.find_one({"ssn": f"{SECRET} ssn 1"}) == person(1),
        "aggregate": lambda: people.app.count_documents({"ssn": f"{SECRET} ssn 1"}) == 1,
        "distinct": lambda: len(people.app.distinct("ssn")) == 5,
        "count": lambda: people.app.estimated_document_count() == 5,
    }
    for command, read in reads.items():
        for how in ({"errorCode": 11602}, CLOSE):
            fail(servers, [command], {"times": 1}, **how, namespace=people.namespace)
            assert read(), command
    fail(servers, ["find"], {"times": 2}, **CLOSE, namespace=people.namespace)
    with pytest.raises(ConnectionFailure):  # a second failure is the application's, as without us
        people.app.find_one({"_id": 1})


def test_transactions_through_step_downs(people, servers):
    """with_transaction until each is committed; all or nothing, and once."""
    done, failures, stop = [], [], threading.Event()

    def work(worker):
        try:
            with people.app_client.start_session() as session:
                for n in range(1_000_000):
                    if stop.is_set():
                        return
                    i = f"{worker}-{n}"
                    session.with_transaction(place(people, i), write_concern=MAJORITY)
                    done.append(i)
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(w,), daemon=True) for w in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        before = len(done)
        servers.step_down(seconds=6)
        deadline = time.monotonic() + 20
        while len(done) < before + 10 and not failures:
            assert time.monotonic() < deadline, "no transaction went on after the step-down"
            time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not failures
    for i in done:
        assert found(people, i) == placed(i)
    assert people.app.count_documents({}) == people.orders.count_documents({}) == len(done)
    assert all(is_envelope(d["card"]) for d in people.stored_db.orders.find())
