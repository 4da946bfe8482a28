"""The mirror topology: drivers discover the set through the proxy and never around it."""

import time

import pytest
from pymongo import MongoClient, ReadPreference
from pymongo.errors import ConnectionFailure

from harness import Rekeyd, ReplicaSet


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
def test_failover_is_seen_by_the_driver(start_rekeyd, tmp_path, db_name):
    with ReplicaSet(3, tmp_path / "rs") as servers:
        rekeyd = start_rekeyd(servers)
        with rekeyd.client(retryWrites=True, w="majority") as client:
            coll = client[db_name].c
            coll.insert_one({"_id": 0})
            before = client.primary
            servers.step_down()
            for i in range(1, 50):
                coll.insert_one({"_id": i})
            assert client.primary != before
            assert coll.count_documents({}) == 50

            # And a primary that dies without a word.
            dying = servers.primary()
            dying.kill()
            deadline = time.monotonic() + 30
            while True:
                try:
                    coll.insert_one({"_id": "after"})
                    break
                except ConnectionFailure:
                    assert time.monotonic() < deadline, "no failover after a member died"
            assert coll.find_one({"_id": "after"})
