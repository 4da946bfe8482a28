"""The mirror topology: drivers discover the set through the proxy and never around it."""

import socket
import threading
import time

import pytest
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, ReadPreference
from pymongo.errors import ConnectionFailure

from harness import Rekeyd
from harness.ports import accepts, free_port


def test_standalone_is_served_as_it_is(standalone, start_rekeyd, db_name):
    rekeyd = start_rekeyd(standalone)
    with rekeyd.client() as client:
        client[db_name].c.insert_one({"_id": 1, "a": "x"})
        assert client[db_name].c.find_one({"_id": 1}) == {"_id": 1, "a": "x"}
        assert "setName" not in client.admin.command("hello")


def test_hello_names_only_proxy_addresses(replica_set, start_rekeyd):
    rekeyd = start_rekeyd(replica_set)
    with rekeyd.client() as through, replica_set.client() as direct:
        told = through.admin.command("hello")
        real = direct.admin.command("hello")
        assert sorted(told["hosts"]) == sorted(rekeyd.addresses)
        assert told["primary"] in rekeyd.addresses
        assert told["me"] in rekeyd.addresses
        assert "compression" not in told
        for kept in ("setName", "setVersion", "electionId", "topologyVersion", "maxBsonObjectSize"):
            assert kept in told
        assert told["setName"] == real["setName"]
        assert not set(map(str, told["hosts"])) & set(replica_set.addresses)


def test_each_listener_is_its_own_member(replica_set, start_rekeyd):
    rekeyd = start_rekeyd(replica_set)
    for member, listening in zip(replica_set.members, rekeyd.addresses):
        with MongoClient(listening, directConnection=True) as client:
            assert client.admin.command("hello")["me"] == listening
            status = client.admin.command("replSetGetStatus")
            myself = next(m for m in status["members"] if m.get("self"))
            assert myself["name"] == member.address


def test_driver_finds_all_members_and_reads_from_secondaries(replica_set, start_rekeyd, db_name):
    rekeyd = start_rekeyd(replica_set)
    with rekeyd.client(w=3) as client:
        client[db_name].c.insert_one({"_id": 1})
        wanted = {tuple(a.split(":")) for a in rekeyd.addresses}
        deadline = time.monotonic() + 10
        while len(client.nodes) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert {(h, str(p)) for h, p in client.nodes} == wanted
        secondary = client.get_database(db_name, read_preference=ReadPreference.SECONDARY)
        assert secondary.c.find_one({"_id": 1}) == {"_id": 1}


def test_unknown_member_is_left_out_and_logged(replica_set, start_rekeyd):
    missing = replica_set.secondaries()[0].address
    members = [
        {"address": member.address, "listen": f"127.0.0.1:{port}"}
        for member, port in zip(replica_set.members, range(3))
    ]
    rekeyd = Rekeyd(replica_set)
    kept = [m for m in rekeyd.config["upstream"]["members"] if m["address"] != missing]
    assert len(kept) == len(members) - 1
    rekeyd.config["upstream"]["members"] = kept
    rekeyd.ports = [int(m["listen"].split(":")[1]) for m in kept]
    rekeyd.write_config()
    with rekeyd:
        with rekeyd.client() as client:
            assert sorted(client.admin.command("hello")["hosts"]) == sorted(rekeyd.addresses)
        assert rekeyd.wait_event("hello_unknown_members")["left_out"] >= 1


@pytest.mark.timeout(120)
def test_failover_is_seen_by_the_driver(start_rekeyd, failing_set, db_name):
    rekeyd = start_rekeyd(failing_set)
    with rekeyd.client(retryWrites=True, w="majority") as client:
        coll = client[db_name].c
        coll.insert_one({"_id": 0})
        before = client.primary
        failing_set.step_down()
        for i in range(1, 50):
            coll.insert_one({"_id": i})
        assert client.primary != before
        assert coll.count_documents({}) == 50

        # And a primary that dies without a word.
        dying = failing_set.primary()
        dying.kill()
        deadline = time.monotonic() + 30
        while True:
            try:
                coll.insert_one({"_id": "after"})
                break
            except ConnectionFailure:
                assert time.monotonic() < deadline, "no failover after a member died"
        assert coll.find_one({"_id": "after"})


def _reconfigure(servers, change):
    """change(members) edits the list of rs.conf()."""
    with servers.client() as client:
        config = client.admin.command("replSetGetConfig")["config"]
        config["version"] += 1
        change(config["members"])
        client.admin.command("replSetReconfig", config)


@pytest.mark.timeout(120)
@pytest.mark.tsan
def test_members_leave_and_join_by_sighup(start_rekeyd, failing_set, db_name):
    rekeyd = start_rekeyd(failing_set)
    members = rekeyd.config["upstream"]["members"]
    leaving = failing_set.secondaries()[0].address
    gone = next(m for m in members if m["address"] == leaving)
    kept = [m for m in members if m is not gone]
    with rekeyd.client(w="majority") as client:
        client[db_name].c.insert_one({"_id": 0})
        removed = []
        _reconfigure(failing_set, lambda m: removed.extend(_take(m, leaving)))
        rekeyd.reload({"upstream": {"members": kept}})
        rekeyd.wait_event("reloaded")
        _wait(lambda: not accepts(int(gone["listen"].split(":")[1])), "the listener stays")
        _wait(lambda: len(client.nodes) == 2, "the driver still knows the member that left")
        client[db_name].c.insert_one({"_id": 1})
        _reconfigure(failing_set, lambda m: m.extend(removed))
        rekeyd.reload({"upstream": {"members": members}})
        rekeyd.wait_event("reloaded", 2)
        _wait(lambda: len(client.nodes) == 3, "the driver does not see the member that joined")
        client[db_name].c.insert_one({"_id": 2})
        assert client[db_name].c.count_documents({}) == 3


def _take(members, address) -> list:
    taken = [m for m in members if m["host"] == address]
    members[:] = [m for m in members if m["host"] != address]
    return taken


def _wait(condition, what, timeout_s=30, pause_s=0.05):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(pause_s)


@pytest.mark.tsan
def test_a_listener_comes_back_at_once(single_member_set, start_rekeyd, db_name):
    """
    A reload was called done while a busy worker still had the listener that it removed: the next
    reload, which wanted that address again, was refused.
    """
    compression = {"upstream": [], "zlib_level": 9}
    rekeyd = start_rekeyd(
        single_member_set, settings={"limits": {"workers": 1}, "compression": compression}
    )
    members = rekeyd.config["upstream"]["members"]
    extra = {"address": "127.0.0.1:1", "listen": f"127.0.0.1:{free_port()}"}
    with single_member_set.client() as direct:
        direct[db_name].c.insert_one({"filler": list(range(40_000))})
    done = threading.Event()

    def keep_busy():
        with rekeyd.client(compressors="zlib", document_class=RawBSONDocument) as client:
            while not done.is_set():
                client[db_name].c.find_one()

    busy = [threading.Thread(target=keep_busy) for _ in range(3)]
    for thread in busy:
        thread.start()
    try:
        for i in range(1, 9):
            rekeyd.reload({"upstream": {"members": [*members, extra][: 1 + i % 2]}})
            _wait(lambda: _reloads(rekeyd) == i, "a reload was refused", pause_s=0.001)
    finally:
        done.set()
        for thread in busy:
            thread.join()


def _reloads(rekeyd) -> int:
    return rekeyd.logs().count('"event":"reloaded"')


def test_a_listener_that_cannot_be_opened_refuses_the_reload(replica_set, start_rekeyd):
    rekeyd = start_rekeyd(replica_set)
    members = rekeyd.config["upstream"]["members"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = {"address": "127.0.0.1:1", "listen": "127.0.0.1:%d" % other.getsockname()[1]}
        rekeyd.reload({"upstream": {"members": [*members, taken]}})
        assert "cannot listen" in rekeyd.wait_event("reload_refused")["reason"]
    with rekeyd.client() as client:
        assert sorted(client.admin.command("hello")["hosts"]) == sorted(rekeyd.addresses)


@pytest.mark.timeout(120)
def test_hidden_member_behind_its_listener(start_rekeyd, failing_set, db_name):
    hidden = failing_set.secondaries()[0]

    def hide(members):
        for member in members:
            if member["host"] == hidden.address:
                member.update(hidden=True, priority=0)

    _reconfigure(failing_set, hide)
    rekeyd = start_rekeyd(failing_set)
    listening = rekeyd.addresses[failing_set.members.index(hidden)]
    with rekeyd.client(w=3) as client:
        client[db_name].c.insert_one({"_id": 1})
        told = client.admin.command("hello")
        assert listening not in told["hosts"] and len(told["hosts"]) == 2
    with MongoClient(listening, directConnection=True) as direct:
        told = direct.admin.command("hello")
        assert told["hidden"] and told["me"] == listening
        assert direct[db_name].c.find_one({}) == {"_id": 1}
